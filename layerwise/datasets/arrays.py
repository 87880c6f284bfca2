"""From arrays to data: names in an archive, what inputs and targets have to be, and each refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layerwise.datasets.columns import target_of
from layerwise.datasets.data import Data, content_digest
from layerwise.study import StudyError, Task, digest_of
from layerwise.study.parts import nearest

PAIRS = (("x", "y"), ("X", "y"), ("inputs", "targets"))
"""Names that inputs and targets usually have in an archive."""

PARTS = ("x_train", "y_train", "x_test", "y_test")
"""Names in an archive that has a test part of its own."""


def array_data(inputs: Any, targets: Any, *, where: str, task: Task | None = None) -> Data:
    """The data that inputs and targets hold.

    Args:
        inputs: ``(rows, ...)`` numbers; what has more than one number is an image or the like. 8-bit numbers are
            pixels, and divided by 255.
        targets: ``(rows,)`` classes, as numbers or text, or numbers.
        where: how messages call them.
        task: what the targets are; by default they decide themselves.

    Raises:
        StudyError: if they are no such arrays; one line.
    """
    inputs, targets = _numbers(inputs, where), _one_a_row(targets, where)
    if len(inputs) != len(targets):
        raise StudyError(f"{where}: {len(inputs):,} rows of inputs, but {len(targets):,} targets; make them equal.")
    if len(inputs) < 2:
        raise StudyError(f"{where}: {len(inputs)} rows; expected two or more.")
    codes, classes = target_of(targets, where=where, name="the target", task=task)
    rows = inputs.reshape(len(inputs), -1)
    image_shape = _image_shape(inputs)
    digest = digest_of({"arrays": content_digest(rows, codes), "classes": classes, "image_shape": image_shape})
    return Data(rows, codes, classes, image_shape, digest)


def named_arrays(
    archive: Mapping[str, Any], *, where: str, inputs: str | None = None, targets: str | None = None
) -> tuple[Any, Any, int]:
    """Inputs, targets, and how many of the last rows are a test part of their own.

    Args:
        archive: arrays by name.
        where: how messages call it.
        inputs: the name of the inputs; a usual one, if left out.
        targets: the name of the targets; a usual one, if left out.

    Raises:
        StudyError: if the names are not there.
    """
    names = list(archive)
    if inputs is None and targets is None and set(PARTS) <= set(names):
        x_train, y_train, x_test, y_test = (np.asarray(archive[name]) for name in PARTS)
        if x_train.shape[1:] != x_test.shape[1:]:
            raise StudyError(
                f"{where}: rows of x_train are {x_train.shape[1:]}, of x_test {x_test.shape[1:]}; see both."
            )
        return np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test]), len(x_test)
    usual = next((pair for pair in PAIRS if set(pair) <= set(names)), (None, None))
    found = (inputs or usual[0], targets or usual[1])
    for key, name in zip(("inputs", "targets"), found, strict=True):
        if name is None:
            raise StudyError(f"{where}: which array is {key}? There are {', '.join(names) or 'none'}; say {key}.")
        if name not in names:
            raise StudyError(f"{where}: no array {name!r}{nearest(name, names)}.")
    return archive[str(found[0])], archive[str(found[1])], 0


def _numbers(inputs: Any, where: str) -> np.ndarray:
    found = np.asarray(inputs)
    if found.dtype.kind not in "biuf":
        raise StudyError(f"{where}: inputs of type {found.dtype}; expected numbers: encode what is text or objects.")
    if found.ndim < 2 or 0 in found.shape[1:]:
        raise StudyError(f"{where}: inputs of shape {found.shape}; expected (rows, features), one row each.")
    if found.dtype == np.uint8:
        return found / np.float32(255)
    with np.errstate(over="ignore"):  # what overflows is refused as not finite
        numbers = found.astype(np.float32)
    if not np.isfinite(numbers).all():
        bad = ~np.isfinite(numbers.reshape(len(numbers), -1))
        row, feature = np.argwhere(bad)[0]
        raise StudyError(
            f"{where}: the inputs hold {int(bad.sum()):,} missing, infinite or too large values, the"
            f" first in row {row + 1}, feature {feature}; mend them: only tables have rules for missing values."
        )
    return numbers


def _one_a_row(targets: Any, where: str) -> np.ndarray:
    found = np.asarray(targets)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise StudyError(
            f"{where}: targets of shape {found.shape}; expected one for each row: of one-hot targets take the argmax."
        )
    if found.dtype.kind not in "biufUTO":
        raise StudyError(f"{where}: targets of type {found.dtype}; expected numbers or text.")
    return found


def _image_shape(inputs: np.ndarray) -> tuple[int, ...]:
    """The shape of one row, where it is more than a list of numbers; a single channel is none."""
    shape = inputs.shape[1:]
    return () if len(shape) == 1 else shape[:-1] if len(shape) == 3 and shape[-1] == 1 else shape
