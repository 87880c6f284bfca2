"""Data for a study: arrays, the rows of each part, and a digest of the full content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from layerwise.study import Blobs, StudyError

VERSION = 1
"""Raised whenever the same specification would give other arrays."""


@dataclass(frozen=True)
class Data:
    """The rows a study trains and scores on; one copy serves every seed.

    Attributes:
        inputs: ``(rows, features)`` float32, finite.
        targets: ``(rows,)`` int32, the class of each row, ``0 .. classes - 1``.
        train: ``(n,)`` int32, the rows that train.
        test: ``(m,)`` int32, the rows that are scored and never train.
        classes: the names of the classes, in the order of the targets.
        digest: SHA-256 of all of the above, 32 hex digits.
    """

    inputs: np.ndarray
    targets: np.ndarray
    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    digest: str

    @property
    def features(self) -> int:
        """Width of a row."""
        return self.inputs.shape[1]

    @property
    def one_hot(self) -> np.ndarray:
        """The targets as ``(rows, classes)`` float32 indicators."""
        return np.eye(len(self.classes), dtype=np.float32)[self.targets]


def generate(spec: Blobs) -> Data:
    """The data set that a specification describes: the same arrays at every call.

    Raises:
        StudyError: if a part holds fewer than two classes, or a value is not finite.

    Example:
        >>> from layerwise.datasets import generate
        >>> from layerwise.study import Blobs
        >>> generate(Blobs()).inputs.shape
        (1000, 2)
    """
    from sklearn.datasets import make_blobs

    inputs, targets = make_blobs(
        n_samples=spec.samples,
        centers=spec.classes,
        n_features=spec.features,
        cluster_std=spec.cluster_std,
        random_state=spec.random_state,
    )[:2]
    rows = np.arange(spec.samples, dtype=np.int32)
    train, test = rows[: spec.split.train], rows[spec.split.train :]
    return _checked(inputs.astype(np.float32), targets.astype(np.int32), train, test, spec.classes)


def _checked(
    inputs: np.ndarray, targets: np.ndarray, train: np.ndarray, test: np.ndarray, classes: int
) -> Data:
    if not np.isfinite(inputs).all():
        raise StudyError("data: the inputs hold NaN or infinite values; make cluster_std smaller.")
    present = np.unique(targets[train])
    if len(present) < classes:
        missing = sorted(set(range(classes)) - set(present.tolist()))
        raise StudyError(
            f"data: the training part of {len(train)} rows has no row of class {missing[0]};"
            f" give train more rows (data.split), or fewer classes than {classes}."
        )
    names = tuple(str(label) for label in range(classes))
    return Data(inputs, targets, train, test, names, content_digest(inputs, targets, train, test))


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
