"""Data sets: where rows come from, whether generated, bundled with scikit-learn, or the user's own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from layerwise.study.own_data import Arrays, InMemory, Loader, Table
from layerwise.study.parts import Positive
from layerwise.study.split import DataSetPart, Scaling, Shape, Split, Task

RandomState = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Samples = Annotated[int, Field(ge=2, le=10_000_000, strict=True)]
Halves = Split(train=500, test=500)


class GivenData(DataSetPart):
    """A data set whose size is known without looking at it."""

    @property
    def task(self) -> Task:
        """What the targets are: classes, or numbers."""
        return "classification" if self.shape().classes else "regression"


class Blobs(GivenData):
    """Isotropic Gaussian clusters from :func:`sklearn.datasets.make_blobs`, rows in generated order."""

    source: Literal["blobs"] = "blobs"
    samples: Samples = 1000
    classes: Annotated[int, Field(ge=2, le=1000, strict=True)] = 3
    features: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 2
    cluster_std: Positive = 2.0
    random_state: RandomState = 2
    split: Split = Halves
    shuffle: bool = False
    fresh: bool = False
    """Whether each seed draws training rows of its own around the same centers; the test part is shared."""

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, self.features, self.classes)


class Moons(GivenData):
    """Two interleaving half circles from :func:`sklearn.datasets.make_moons`."""

    source: Literal["moons"]
    samples: Samples = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    random_state: RandomState = 2
    split: Split = Halves
    fresh: bool = False

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, 2, 2)


class Circles(GivenData):
    """A large circle around a small one from :func:`sklearn.datasets.make_circles`."""

    source: Literal["circles"]
    samples: Samples = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    factor: Annotated[float, Field(ge=0, lt=1)] = 0.5
    random_state: RandomState = 2
    split: Split = Halves
    fresh: bool = False

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, 2, 2)


class Classification(GivenData):
    """Clusters at the corners of a hypercube from :func:`sklearn.datasets.make_classification`."""

    source: Literal["classification"]
    samples: Samples = 1000
    classes: Annotated[int, Field(ge=2, le=1000, strict=True)] = 2
    features: Annotated[int, Field(ge=2, le=100_000, strict=True)] = 20
    informative: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 5
    class_sep: Positive = 1.0
    random_state: RandomState = 2
    split: Split = Halves

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, self.features, self.classes)

    @model_validator(mode="after")
    def _corners_suffice(self) -> Self:
        if self.informative > self.features:
            raise ValueError(f"informative {self.informative} is more than features {self.features}; use at most that")
        if self.classes > 2**self.informative:
            raise ValueError(
                f"classes {self.classes} is more than the corners that informative {self.informative} gives"
                f" ({2**self.informative}); use more informative features"
            )
        return self


class Digits(GivenData):
    """8 x 8 images of handwritten digits from :func:`sklearn.datasets.load_digits`, divided by 16."""

    source: Literal["digits"]
    split: Split = Split(train=1200, test=597)

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(1797, 64, 10)


class Wine(GivenData):
    """Chemical analysis of three cultivars from :func:`sklearn.datasets.load_wine`."""

    source: Literal["wine"]
    split: Split = Split(train=118, test=60)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(178, 13, 3)


class Diabetes(GivenData):
    """How far diabetes has gone a year after ten measurements, from :func:`sklearn.datasets.load_diabetes`.

    The target is a number. The features are those measured, not scikit-learn's, which are scaled by all rows.
    """

    source: Literal["diabetes"]
    split: Split = Split(train=294, test=148)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows and features of the whole data set."""
        return Shape(442, 10, 0)


class BreastCancer(GivenData):
    """Cell nuclei, benign or malignant, from :func:`sklearn.datasets.load_breast_cancer`."""

    source: Literal["breast_cancer"]
    split: Split = Split(train=379, test=190)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(569, 30, 2)


DATA_SETS = {
    "blobs": Blobs,
    "moons": Moons,
    "circles": Circles,
    "classification": Classification,
    "digits": Digits,
    "wine": Wine,
    "breast_cancer": BreastCancer,
    "diabetes": Diabetes,
    "table": Table,
    "arrays": Arrays,
    "loader": Loader,
    "memory": InMemory,
}
DataSet = Annotated[
    Blobs
    | Moons
    | Circles
    | Classification
    | Digits
    | Wine
    | BreastCancer
    | Diabetes
    | Table
    | Arrays
    | Loader
    | InMemory,
    Field(discriminator="source"),
]
