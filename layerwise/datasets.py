"""Data for a study: arrays and their digest, and for a block of seeds the rows of each part, scaled.

A :class:`Data` set is generated or loaded once. What a seed sees of it is a :class:`View`: its own random parts, its
own labelled rows, its own scaling, or in ``fresh`` mode its own training rows, each drawn from a named stream.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerwise import streams
from layerwise.study import Blobs, Circles, Classification, DataSet, Moons, Scaling, Study, StudyError

VERSION = 2
"""Raised whenever the same specification would give other arrays or parts."""


@dataclass(frozen=True)
class Data:
    """A whole data set.

    Attributes:
        inputs: ``(rows, features)`` float32, finite, unscaled.
        targets: ``(rows,)`` int32, the class of each row, ``0 .. classes - 1``.
        classes: the names of the classes, in the order of the targets.
        image_shape: height and width where a row is an image, else empty.
        digest: SHA-256 of all of the above, 32 hex digits.
    """

    inputs: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    digest: str

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.inputs.shape[1]

    @property
    def task(self) -> str:
        """What the targets are: classes, or numbers."""
        return "classification" if self.classes else "regression"


@dataclass(frozen=True)
class View:
    """What a block of seeds sees of a data set.

    Attributes:
        inputs: ``(rows, features)`` float32 if the seeds share one copy, else ``(seeds, rows, features)``; scaled.
        targets: ``(rows,)`` int32 if shared, else ``(seeds, rows)``.
        classes: number of classes.
        pool: ``(seeds, n)`` int32, the rows of the training part; pretraining without labels uses all of them.
        train: ``(seeds, l)`` int32, those of them that keep their label.
        validation: ``(seeds, v)`` int32, rows for choosing; ``v`` may be 0.
        test: ``(seeds, m)`` int32, rows that are scored once and never choose.
    """

    inputs: np.ndarray
    targets: np.ndarray
    classes: int
    pool: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def shared(self) -> bool:
        """Whether the seeds share one copy of the inputs."""
        return self.inputs.ndim == 2

    @property
    def one_hot(self) -> np.ndarray:
        """The targets as ``(..., rows, classes)`` float32 indicators."""
        return np.eye(self.classes, dtype=np.float32)[self.targets]

    @property
    def target_mean(self) -> np.ndarray:
        """``(seeds,)`` float64: the mean of the numbers that each seed trains on."""
        return self.targets_of(self.train).astype(np.float64).mean(axis=1)

    @property
    def target_sd(self) -> np.ndarray:
        """``(seeds,)`` float64: their standard deviation; 1 where they are all equal, as nothing can be scaled by 0."""
        spread = self.targets_of(self.train).astype(np.float64).std(axis=1)
        return np.where(spread > 0, spread, 1.0)

    @property
    def scaled_targets(self) -> np.ndarray:
        """``(seeds, rows, 1)`` float32: numbers with mean 0 and standard deviation 1 on what each seed trains on."""
        centred = self.targets - self.target_mean[:, np.newaxis]
        return (centred / self.target_sd[:, np.newaxis]).astype(np.float32)[..., np.newaxis]

    def targets_of(self, rows: np.ndarray) -> np.ndarray:
        """``(seeds, n)``: the classes of ``(seeds, n)`` rows."""
        if self.targets.ndim == 1:
            return self.targets[rows]
        return np.take_along_axis(self.targets, rows, axis=1)

    def inputs_of(self, rows: np.ndarray) -> np.ndarray:
        """``(seeds, n, features)``: the inputs of ``(seeds, n)`` rows."""
        return pick(self.inputs, rows)


def pick(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``(seeds, n, ...)``: each seed's rows of ``(rows, ...)`` or ``(seeds, rows, ...)`` values."""
    if values.ndim == 2:
        return values[rows]
    return np.take_along_axis(values, rows[..., np.newaxis], axis=1)


def generate(spec: DataSet) -> Data:
    """The data set that a specification describes: the same arrays at every call.

    Raises:
        StudyError: if a value is not finite, or a part cannot hold every class.

    Example:
        >>> from layerwise.datasets import generate
        >>> from layerwise.study import Blobs
        >>> generate(Blobs()).inputs.shape
        (1000, 2)
    """
    inputs, targets, classes, image_shape = _arrays(spec)
    if not np.isfinite(inputs).all():
        raise StudyError("data: the inputs hold NaN or infinite values; clean the data, or make its spread smaller.")
    name = content_digest(inputs, targets)
    data = Data(inputs, targets, classes, image_shape, name)
    _check_parts(spec, data)
    return data


def view(spec: DataSet, data: Data, *, seeds: Sequence[int], labels: int | None, scaling: Scaling) -> View:
    """What a block of seeds sees.

    Args:
        spec: how the data set is divided.
        data: the whole data set, from :func:`generate`.
        seeds: the block.
        labels: training rows that keep their label, all of them if ``None``.
        scaling: of the inputs, fitted on each seed's training part only.

    Raises:
        StudyError: if a feature is constant on a training part that is to be scaled.
    """
    return _view(spec, _ByDigest(data), tuple(seeds), labels, scaling)


def check_seeds(study: Study, data: Data) -> None:
    """Refuse data of which some seed would see too little, before any seed trains.

    Args:
        study: its parts, seeds and scalings.
        data: its data set, from :func:`generate`.

    Raises:
        StudyError: if a seed's training part lacks a class, or a feature that is to be scaled is constant on it.

    Example:
        >>> from layerwise.datasets import check_seeds, generate
        >>> from layerwise.study import load
        >>> study = load("blobs-supervised")
        >>> check_seeds(study, generate(study.data))
    """
    scalings = {study.procedure(arm).scaling for arm in study.arms} - {"none"}
    for seeds in study.blocks():
        seen = view(study.data, data, seeds=seeds, labels=None, scaling="none")
        for seed, targets in zip(seeds, seen.targets_of(seen.pool), strict=True):
            present = np.bincount(targets, minlength=seen.classes) > 0
            if not present.all():
                raise StudyError(
                    f"data: the training part of {len(targets)} rows that seed {seed} draws has no row of class"
                    f" {data.classes[present.argmin()]}; give train more rows (data.split)."
                )
        for scaling in sorted(scalings):
            for rows in seen.inputs_of(seen.pool):
                _refuse_constants(rows, scaling)


class _ByDigest:
    """Data that compares by digest, so that a view of it can be remembered."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __hash__(self) -> int:
        return hash(self.data.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and other.data.digest == self.data.digest


@functools.lru_cache(maxsize=2)
def _view(spec: Any, known: _ByDigest, seeds: tuple[int, ...], labels: int | None, scaling: Scaling) -> View:
    data = known.data
    pool, validation, test = _parts(spec, data, seeds)
    inputs, targets = (data.inputs, data.targets) if not getattr(spec, "fresh", False) else _fresh(spec, data, seeds)
    unlabelled = View(inputs, targets, len(data.classes), pool, pool, validation, test)
    train = pool if labels is None else _labelled(unlabelled, seeds, labels)
    scaled = _scaled(inputs, pool, scaling, shared_parts=not spec.shuffle)
    return View(scaled, targets, len(data.classes), pool, train, validation, test)


def _parts(spec: Any, data: Data, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the training, validation and test part: ``(seeds, n)`` each."""
    rows, split = np.arange(len(data.inputs), dtype=np.int32), spec.split
    if spec.shuffle and not getattr(spec, "fresh", False):
        orders = np.stack([streams.generator(seed, "split").permutation(rows) for seed in seeds])
    else:
        orders = np.tile(rows, (len(seeds), 1))
    train, validation = split.train, split.validation or 0
    return orders[:, :train], orders[:, train : train + validation], orders[:, train + validation :]


def _labelled(seen: View, seeds: Sequence[int], labels: int) -> np.ndarray:
    """``(seeds, labels)``: a draw from each seed's pool in which every class has its share, and at least one row."""
    classes = seen.targets_of(seen.pool)
    return np.stack([
        rows[_stratified(targets, labels, seen.classes, streams.generator(seed, "labels"))]
        for seed, rows, targets in zip(seeds, seen.pool, classes, strict=True)
    ])  # fmt: skip


def _stratified(targets: np.ndarray, labels: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of ``labels`` rows: shares by largest remainder, every class present, in random order."""
    counts = np.bincount(targets, minlength=classes)
    exact = labels * counts / counts.sum()
    shares = np.maximum(np.floor(exact).astype(int), 1)
    while shares.sum() != labels:
        room = exact - shares
        if shares.sum() < labels:
            shares[np.argmax(np.where(shares < counts, room, -np.inf))] += 1
        else:
            shares[np.argmin(np.where(shares > 1, room, np.inf))] -= 1
    chosen = [rng.permutation(np.flatnonzero(targets == label))[:share] for label, share in enumerate(shares)]
    return rng.permutation(np.concatenate(chosen))


def _scaled(inputs: np.ndarray, pool: np.ndarray, scaling: Scaling, *, shared_parts: bool) -> np.ndarray:
    """Inputs scaled by what each seed's training part shows; one shared copy where the seeds share their parts."""
    if scaling == "none":
        return inputs
    if inputs.ndim == 2 and shared_parts:
        return _fitted_scale(inputs, pool[0], scaling)
    every = inputs if inputs.ndim == 3 else np.broadcast_to(inputs, (len(pool), *inputs.shape))
    return np.stack([_fitted_scale(own, rows, scaling) for own, rows in zip(every, pool, strict=True)])


def _fitted_scale(inputs: np.ndarray, rows: np.ndarray, scaling: Scaling) -> np.ndarray:
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    known = inputs[rows].astype(np.float64)
    _refuse_constants(known, scaling)
    scaler = StandardScaler() if scaling == "standard" else MinMaxScaler()
    return scaler.fit(known).transform(inputs.astype(np.float64)).astype(np.float32)


def _refuse_constants(rows: np.ndarray, scaling: Scaling) -> None:
    constant = np.flatnonzero(np.ptp(rows, axis=0) == 0)
    if len(constant):
        raise StudyError(
            f"data: feature {constant[0]} is constant on a training part, so {scaling} scaling would divide by"
            " zero; leave scaling out, or drop the feature."
        )


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


def _fresh(spec: Any, data: Data, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
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


def content_digest(*arrays: np.ndarray) -> str:
    """SHA-256 over dtype, shape and every byte of the arrays, as 32 hex digits.

    Example:
        >>> import numpy as np
        >>> from layerwise.datasets import content_digest
        >>> content_digest(np.zeros(2)) == content_digest(np.zeros((2, 1)))
        False
    """
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:32]
