"""Data sets that scikit-learn generates or brings along, and those that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerwise import streams
from layerwise.datasets.data import Data, content_digest
from layerwise.study import Blobs, Circles, Classification, DataSet, Moons, OwnData, StudyError


def generate(spec: DataSet) -> Data:
    """The data set that a specification describes: the same arrays at every call.

    Raises:
        StudyError: if a value is not finite, a part cannot hold every class, or a file has changed since the
            specification was made.

    Example:
        >>> from layerwise.datasets import generate
        >>> from layerwise.study import Blobs
        >>> generate(Blobs()).inputs.shape
        (1000, 2)
    """
    if isinstance(spec, OwnData):
        own = spec.load().data
        _check_parts(spec, own)
        return own
    inputs, targets, classes, image_shape = _arrays(spec)
    if not np.isfinite(inputs).all():
        raise StudyError("data: the inputs hold NaN or infinite values; clean the data, or make its spread smaller.")
    name = content_digest(inputs, targets)
    data = Data(inputs, targets, classes, image_shape, name)
    _check_parts(spec, data)
    return data


def _arrays(spec: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[int, ...]]:
    """Inputs, targets, class names, and the height and width of an image."""
    from sklearn import datasets

    match spec:
        case Blobs():
            inputs, targets = datasets.make_blobs(
                n_samples=spec.samples, centers=spec.classes, n_features=spec.features,
                cluster_std=spec.cluster_std, random_state=spec.random_state,
            )[:2]  # fmt: skip
        case Moons() | Circles():
            inputs, targets = _plane(spec, spec.samples, spec.random_state)
        case Classification():
            inputs, targets = datasets.make_classification(
                n_samples=spec.samples, n_classes=spec.classes, n_features=spec.features,
                n_informative=spec.informative, n_redundant=min(2, spec.features - spec.informative),
                n_clusters_per_class=1, class_sep=spec.class_sep, random_state=spec.random_state,
            )  # fmt: skip
        case _:
            return _bundled(spec.source)
    names = tuple(str(label) for label in range(spec.shape().classes))
    with np.errstate(over="ignore"):  # what overflows is refused as not finite, by name
        return inputs.astype(np.float32), targets.astype(np.int32), names, ()


def _bundled(source: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[int, ...]]:
    from sklearn import datasets

    if source == "diabetes":
        measured = datasets.load_diabetes(scaled=False)
        return measured.data.astype(np.float32), measured.target.astype(np.float32), (), ()
    loaded = {
        "digits": datasets.load_digits,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
    }[source]()
    inputs = loaded.data / 16 if source == "digits" else loaded.data
    names = tuple(str(name) for name in loaded.target_names)
    return inputs.astype(np.float32), loaded.target.astype(np.int32), names, (8, 8) if source == "digits" else ()


def _plane(spec: Any, samples: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    if isinstance(spec, Moons):
        return datasets.make_moons(n_samples=samples, noise=spec.noise, random_state=random_state)
    return datasets.make_circles(n_samples=samples, noise=spec.noise, factor=spec.factor, random_state=random_state)


def fresh(spec: Any, data: Data, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets in which every seed has its own rows, but for the test part, which all share."""
    from sklearn import datasets

    train = spec.split.train + (spec.split.validation or 0)
    inputs = np.repeat(data.inputs[np.newaxis], len(seeds), axis=0)
    targets = np.repeat(data.targets[np.newaxis], len(seeds), axis=0)
    for position, seed in enumerate(seeds):
        state = int(streams.generator(seed, "split", "fresh").integers(2**32))
        if isinstance(spec, Blobs):
            centers = datasets.make_blobs(
                n_samples=spec.samples, centers=spec.classes, n_features=spec.features,
                cluster_std=spec.cluster_std, random_state=spec.random_state, return_centers=True,
            )[2]  # fmt: skip
            drawn = datasets.make_blobs(train, centers=centers, cluster_std=spec.cluster_std, random_state=state)
        else:
            drawn = _plane(spec, train, state)
        inputs[position, :train], targets[position, :train] = drawn[0], drawn[1]
    return inputs, targets


def _check_parts(spec: Any, data: Data) -> None:
    """Refuse a data set of which a training part would lack a class, as far as the rows in order can show it."""
    present = np.unique(data.targets if spec.shuffle else data.targets[: spec.split.train])
    classes = len(data.classes)
    if len(present) < classes:
        missing = sorted(set(range(classes)) - set(present.tolist()))
        raise StudyError(
            f"data: the training part of {spec.split.train} rows has no row of class {missing[0]};"
            f" give train more rows (data.split), or fewer classes than {classes}."
        )
