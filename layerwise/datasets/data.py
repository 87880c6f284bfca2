"""What data are: a whole data set, the table it may come from, and what a block of seeds sees of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerwise.study import Missing, Task

VERSION = 2
"""Raised whenever the same specification would give other arrays or parts."""

Kind = Literal["double", "long", "boolean", "string"]


@dataclass(frozen=True)
class RawTable:
    """The columns of a table that are inputs, as they were before anything was fitted to them.

    Attributes:
        names: of the columns.
        kinds: what raw rows have in the columns; ``"long"`` where all are whole numbers and none is missing.
        levels: the values that each category takes anywhere in the table, as text, each of which becomes an input;
            none for a column that is an input as it is.
        values: ``(rows, columns)`` float64: numbers, and positions of levels; NaN where a value is missing.
        missing: what becomes of missing values.
        target: the name of the target column.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    levels: tuple[tuple[str, ...], ...]
    values: np.ndarray
    missing: Missing
    target: str

    @property
    def numbers(self) -> list[str]:
        """Names of the columns that are inputs as they are."""
        return [name for name, levels in zip(self.names, self.levels, strict=True) if not levels]

    @property
    def categories(self) -> list[str]:
        """Names of the columns that become one input for each level."""
        return [name for name, levels in zip(self.names, self.levels, strict=True) if levels]

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs: ``age``, ``color=red``."""
        return [
            text
            for name, levels in zip(self.names, self.levels, strict=True)
            for text in ([f"{name}={level}" for level in levels] or [name])
        ]

    @property
    def is_fitted(self) -> bool:
        """Whether the inputs depend on the training part even if they are not scaled."""
        return bool(self.categories) or bool(np.isnan(self.values).any())

    def encoded(self) -> np.ndarray:
        """``(rows, inputs)`` float32: numbers, and an indicator for each level; NaN where a value is missing."""
        parts = []
        for column, levels in zip(self.values.T, self.levels, strict=True):
            if levels:
                hot = (column[:, np.newaxis] == np.arange(len(levels))).astype(np.float32)
                hot[np.isnan(column)] = np.nan
                parts.append(hot)
            else:
                parts.append(column[:, np.newaxis].astype(np.float32))
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Data:
    """A whole data set.

    Attributes:
        inputs: ``(rows, features)`` float32, unscaled and finite; of a table encoded, and NaN where a value is missing.
        targets: ``(rows,)``: the class of each row, ``0 .. classes - 1``, int32; or, without classes, float32 numbers.
        classes: the names of the classes, in the order of the targets; none where targets are numbers (regression).
        image_shape: height and width where a row is an image, else empty.
        digest: SHA-256 of the content, 32 hex digits.
        table: the columns that the inputs come from, where they come from a table.
    """

    inputs: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    digest: str
    table: RawTable | None = None

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.inputs.shape[1]

    @property
    def task(self) -> Task:
        """What the targets are: classes, or numbers."""
        return "classification" if self.classes else "regression"


@dataclass(frozen=True)
class View:
    """What a block of seeds sees of a data set.

    Attributes:
        inputs: ``(rows, features)`` float32 if the seeds share one copy, else ``(seeds, rows, features)``; scaled, and
            finite.
        targets: ``(rows,)`` if shared, else ``(seeds, rows)``: int32 classes or float32 numbers.
        classes: number of classes; 0 for regression.
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
    def task(self) -> Task:
        """What the targets are: classes, or numbers."""
        return "classification" if self.classes else "regression"

    @property
    def shared(self) -> bool:
        """Whether the seeds share one copy of the inputs."""
        return self.inputs.ndim == 2

    @property
    def one_hot(self) -> np.ndarray:
        """The classes as ``(..., rows, classes)`` float32 indicators."""
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
        """``(seeds, n)``: the targets of ``(seeds, n)`` rows."""
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


def class_balance(data: Data) -> str:
    """How many of the rows the largest and the smallest class have, or how the numbers to predict are spread.

    Example:
        >>> from layerwise.datasets import class_balance, generate
        >>> from layerwise.study import Wine
        >>> class_balance(generate(Wine(source="wine")))
        'largest class: class_1, 39.9 % of rows; smallest: class_2, 27.0 %'
    """
    if not data.classes:
        mean, sd = data.targets.mean(dtype=np.float64), data.targets.std(dtype=np.float64)
        return f"target from {data.targets.min():g} to {data.targets.max():g}, mean {mean:.4g}, sd {sd:.4g}"
    shares = np.bincount(data.targets, minlength=len(data.classes)) / len(data.targets)
    most, least = shares.argmax(), shares.argmin()
    return (
        f"largest class: {data.classes[most]}, {100 * shares[most]:.1f} % of rows;"
        f" smallest: {data.classes[least]}, {100 * shares[least]:.1f} %"
    )
