"""Data sets: where rows come from, how they are divided, which keep their label."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from layerwise.study.parts import Count, Part, Positive

Scaling = Literal["none", "standard", "min_max"]


class Shape(NamedTuple):
    """Size of a data set."""

    rows: int
    features: int
    classes: int


class Split(Part):
    """How many rows each part takes; together they are all the rows there are."""

    train: Count
    test: Count
    validation: Count | None = None

    @property
    def total(self) -> int:
        """Rows in all parts together."""
        return self.train + self.test + (self.validation or 0)


class DataSetPart(Part):
    """What every data set can say: its parts, how many training rows keep their label, how inputs are scaled."""

    split: Split
    labels: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Training rows that keep their label, a stratified draw of each seed; all of them if left out."""
    scaling: Scaling = "none"
    shuffle: bool = True
    """Whether each seed draws its own parts; otherwise rows are taken in order: train, validation, test."""

    @property
    def task(self) -> Literal["classification", "regression"]:
        """What the targets are: classes, or numbers."""
        return "classification"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        split, rows = self.split, self.shape().rows
        if split.total != rows:
            parts = f"train {split.train} + test {split.test}"
            parts += f" + validation {split.validation}" if split.validation else ""
            raise ValueError(f"{parts} = {split.total} rows, but there are {rows}; make them equal")
        check_labels(self.labels, self)
        return self


def check_labels(labels: int | None, data: DataSetPart, *, where: str = "") -> None:
    """Refuse a labelled set that is larger than the training part or has no room for every class."""
    if labels is None:
        return
    if labels > data.split.train:
        raise ValueError(f"{where}labels {labels} is more than the training part's {data.split.train} rows; use fewer")
    if labels < data.shape().classes:
        raise ValueError(
            f"{where}labels {labels} is fewer than the {data.shape().classes} classes; give every class a row"
        )


RandomState = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Samples = Annotated[int, Field(ge=2, le=10_000_000, strict=True)]
Halves = Split(train=500, test=500)


class Blobs(DataSetPart):
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


class Moons(DataSetPart):
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


class Circles(DataSetPart):
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


class Classification(DataSetPart):
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


class Digits(DataSetPart):
    """8 x 8 images of handwritten digits from :func:`sklearn.datasets.load_digits`, divided by 16."""

    source: Literal["digits"]
    split: Split = Split(train=1200, test=597)

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(1797, 64, 10)


class Wine(DataSetPart):
    """Chemical analysis of three cultivars from :func:`sklearn.datasets.load_wine`."""

    source: Literal["wine"]
    split: Split = Split(train=118, test=60)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(178, 13, 3)


class BreastCancer(DataSetPart):
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
}
DataSet = Annotated[
    Blobs | Moons | Circles | Classification | Digits | Wine | BreastCancer, Field(discriminator="source")
]
