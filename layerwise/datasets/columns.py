"""From a table to data: what each column is, which values are missing, what the target is; and each refusal."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from layerwise.datasets.data import Data, Kind, RawTable, content_digest
from layerwise.raw_rows import texts
from layerwise.study import Missing, StudyError, Task, digest_of

MOST_CLASSES = 20
"""Different whole numbers up to which a target is taken for classes, if nothing else is said."""

MOST_LEVELS = 1000
"""Inputs that categories may become."""

NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
"""What pandas calls values that are numbers."""


@dataclass(frozen=True)
class Selection:
    """What is asked of a table's columns.

    Attributes:
        target: the column to predict.
        features: the columns that are inputs; all but the target and those dropped, if ``None``.
        drop: columns that are no inputs.
        categorical: columns of numbers, or of numbers and text, to take for categories.
        missing: what becomes of missing values.
    """

    target: str
    features: Sequence[str] | None = None
    drop: Sequence[str] | None = None
    categorical: Sequence[str] | None = None
    missing: Missing = "refuse"


def table_data(frame: pd.DataFrame, asked: Selection, *, where: str, task: Task | None = None) -> Data:
    """The data that a table holds.

    Args:
        frame: the table, one row each.
        asked: of its columns.
        where: how messages call it.
        task: what the target is; by default it decides itself.

    Raises:
        StudyError: if the table does not hold what is asked; one line.
    """
    chosen, target, missing = _chosen(frame, asked, where), asked.target, asked.missing
    frame = frame[[*chosen, target]]
    if missing == "drop_rows":
        frame = frame[frame.notna().all(axis=1)]
    frame = frame.reset_index(drop=True)
    if len(frame) < 2:
        raise StudyError(f"{where}: has {_count(len(frame), 'row')} to use; expected two or more.")
    targets, classes = target_of(frame[target], where=where, name=f"target column {target!r}", task=task)
    columns = [_column(frame[name], where, categorical=name in (asked.categorical or ())) for name in chosen]
    kinds, levels = tuple(kind for kind, _, _ in columns), tuple(levels for _, levels, _ in columns)
    values = np.stack([values for _, _, values in columns], axis=1)
    table = RawTable(tuple(chosen), kinds, levels, values, missing, target)
    _check_values(table, where)
    said = {"names": chosen, "kinds": kinds, "levels": levels, "missing": missing, "target": target}
    digest = digest_of({"table": content_digest(values, targets), "classes": classes, **said})
    return Data(table.encoded(), targets, classes, (), digest, table)


def target_of(values: Any, *, where: str, name: str, task: Task | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets and the names of their classes, none for regression.

    Args:
        values: ``(rows,)`` as they were read.
        where: how messages call the data.
        name: how messages call the target.
        task: what they are; text, booleans, and up to 20 different whole numbers are classes by default.

    Raises:
        StudyError: if they are neither, are constant, or a class has a single example.
    """
    known, kind = pd.Series(values).reset_index(drop=True), _kind_of(values)
    _refuse_missing_targets(known, where, name)
    if kind not in {*NUMBERS, "boolean", "string"}:
        raise StudyError(f"{where}: {name} holds {_in_words(kind)}; expected numbers or text.")
    numbers = known.to_numpy(np.float64) if kind in NUMBERS else None
    if numbers is not None and not np.isfinite(numbers).all():
        raise StudyError(f"{where}: {name} has an infinite value in row {_first(~np.isfinite(numbers))}; mend it.")
    if known.nunique() < 2:
        raise StudyError(f"{where}: {name} is {texts(known[:1])[0]!r} in every row; there is nothing to learn.")
    if task is None:
        few = numbers is None or (known.nunique() <= MOST_CLASSES and (numbers == np.round(numbers)).all())
        task = "classification" if few else "regression"
    if task == "regression":
        if numbers is None:
            raise StudyError(f"{where}: {name} holds text, but regression needs numbers; say task: classification.")
        return numbers.astype(np.float32), ()
    return _classes(known, where, name)


def _classes(known: pd.Series, where: str, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    codes, levels = pd.factorize(known, sort=True)
    classes = tuple(texts(list(levels)).tolist())
    if len(classes) > MOST_LEVELS:
        raise StudyError(f"{where}: {name} has {len(classes):,} classes; at most {MOST_LEVELS:,}, or task: regression.")
    counts = np.bincount(codes)
    if counts.min() < 2:
        rare = classes[counts.argmin()]
        raise StudyError(
            f"{where}: class {rare!r} of {name} has one example, and both training and test need one; add rows, or"
            " leave the class out."
        )
    return codes.astype(np.int32), classes


def _chosen(frame: pd.DataFrame, asked: Selection, where: str) -> list[str]:
    """The names of the columns that are inputs."""
    target, features, drop, categorical = asked.target, asked.features, asked.drop, asked.categorical
    _check_names([*frame.columns], where)
    for key, names in (("target", [target]), ("features", features), ("drop", drop), ("categorical", categorical)):
        for name in names or ():
            if name not in frame.columns:
                raise StudyError(f"{where}: {key} names {name!r}, which is no column{_known(name, [*frame.columns])}")
            if key != "target" and name == target:
                raise StudyError(f"{where}: {key} names {name!r}, which is the target; take it out of {key}.")
    if features is not None and drop is not None:
        raise StudyError(f"{where}: both features and drop are given; leave one out.")
    chosen = list(features or [name for name in frame.columns if name != target and name not in (drop or ())])
    unused = [name for name in categorical or () if name not in chosen]
    if unused:
        raise StudyError(f"{where}: categorical names {unused[0]!r}, which is no input; take it out of categorical.")
    if not chosen:
        raise StudyError(f"{where}: no column is left for input beside the target {target!r}; drop fewer.")
    _refuse_twice(chosen, where, "features name")
    return chosen


def _check_names(names: list[Any], where: str) -> None:
    for position, name in enumerate(names, start=1):
        if not isinstance(name, str) or not name.strip():
            raise StudyError(f"{where}: column {position} has no name ({name!r}); give every column one.")
    _refuse_twice(names, where, "has")


def _refuse_twice(names: list[str], where: str, verb: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise StudyError(f"{where}: {verb} the column {twice!r} twice; give every column a name of its own.")


def _column(series: pd.Series, where: str, *, categorical: bool) -> tuple[Kind, tuple[str, ...], np.ndarray]:
    """What a column is, its levels where it is a category, and its values: numbers, or positions of levels."""
    name, kind = series.name, _kind_of(series)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series, categorical = series.astype(object), True
    if kind == "empty":
        raise StudyError(f"{where}: column {name!r} has no value at all; drop it.")
    if not categorical and kind == "string":
        _refuse_numbers_in_text(series, where)
    if not categorical and kind in {"mixed", "mixed-integer"}:
        raise StudyError(f"{where}: column {name!r} holds {_in_words(kind)}; make it one, or name it in categorical.")
    if kind not in {*NUMBERS, "boolean", "string", "mixed", "mixed-integer"}:
        raise StudyError(
            f"{where}: column {name!r} holds {_in_words(kind)}; expected numbers or text: turn or drop it."
        )
    whole = kind == "integer" and not series.isna().any()
    written: Kind = "long" if whole else "double" if kind in NUMBERS else "boolean" if kind == "boolean" else "string"
    if written == "string" or categorical:
        return written, *_levels(series, in_order=kind in NUMBERS)
    return written, (), series.to_numpy(np.float64, na_value=np.nan)


def _levels(series: pd.Series, *, in_order: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """The levels of a category, sorted, and ``(rows,)`` float64 positions among them."""
    written = pd.Series(texts(series))
    known = written.dropna().unique().tolist()
    levels = sorted(known, key=float) if in_order else sorted(known)
    return tuple(levels), written.map({level: float(place) for place, level in enumerate(levels)}).to_numpy(np.float64)


def _refuse_numbers_in_text(series: pd.Series, where: str) -> None:
    """A column that is text for the sake of some values is most often a column of numbers with a slip."""
    known = series.dropna()
    odd = pd.to_numeric(known, errors="coerce").isna().to_numpy()
    if odd.any() and not odd.all():
        place = known.index[odd.argmax()]  # rows are numbered from 0
        raise StudyError(
            f"{where}: column {series.name!r} holds numbers and text ({known[place][:40]!r} in row {place + 1}); mend"
            " that, leave missing values empty, or name the column in categorical."
        )


def _check_values(table: RawTable, where: str) -> None:
    """Refuse values that no network can take, and more levels than it should."""
    for name, values in zip(table.names, table.values.T, strict=True):
        beyond = np.abs(values) > np.finfo(np.float32).max
        if beyond.any():
            raise StudyError(
                f"{where}: column {name!r} holds {values[beyond][0]:g} in row {_first(beyond)}; expected a number below"
                " 3e38: mend it, or leave it empty and say what becomes of missing values."
            )
    gaps = np.isnan(table.values).sum(axis=0)
    if gaps.any() and table.missing == "refuse":
        worst = int(np.argmax(gaps > 0))
        others = f", and {_count((gaps > 0).sum() - 1, 'other column')} too" if (gaps > 0).sum() > 1 else ""
        choices = ", ".join(choice for choice in get_args(Missing) if choice != "refuse")
        raise StudyError(
            f"{where}: column {table.names[worst]!r} has {_count(gaps[worst], 'missing value')} (first in row"
            f" {_first(np.isnan(table.values[:, worst]))}){others}; fill them in, or set missing to one of {choices}."
        )
    counts = [len(levels) for levels in table.levels]
    if sum(counts) > MOST_LEVELS:
        largest = int(np.argmax(counts))
        raise StudyError(
            f"{where}: the categories would become {sum(counts):,} inputs, {counts[largest]:,} of them for column"
            f" {table.names[largest]!r}; at most {MOST_LEVELS:,}: drop it, or group its values."
        )


def _refuse_missing_targets(known: pd.Series, where: str, name: str) -> None:
    gaps = known.isna().to_numpy()
    if gaps.any():
        raise StudyError(
            f"{where}: {name} has {_count(gaps.sum(), 'missing value')} (first in row {_first(gaps)}); fill them in, or"
            " leave these rows out (missing: drop_rows, for a table)."
        )


def _kind_of(values: Any) -> str:
    """What pandas takes the known values for."""
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        values = values.astype(object)
    return pd.api.types.infer_dtype(values, skipna=True)


def _in_words(kind: str) -> str:
    if kind in {"mixed", "mixed-integer"}:
        return "values of several types"
    return {"bytes": "bytes that are not UTF-8 text", "empty": "no value at all"}.get(kind, f"{kind} values")


def _known(name: str, columns: Sequence[str]) -> str:
    """The column that is meant, if one is near, and the first of those there are."""
    near = difflib.get_close_matches(name, columns, n=1)
    meant = f"; did you mean {near[0]!r}? There" if near else "; there"
    more = f" and {len(columns) - 8} more" if len(columns) > 8 else ""
    return f"{meant} are {', '.join(map(repr, columns[:8]))}{more}."


def _first(which: np.ndarray) -> int:
    return int(np.argmax(which)) + 1


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
