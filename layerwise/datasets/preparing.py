"""What is fitted to a training part: scaling, and for tables missing values and categories, by scikit-learn."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from layerwise.datasets.data import RawTable
from layerwise.raw_rows import prepared
from layerwise.study import Scaling, StudyError


@dataclass(frozen=True, eq=False)
class Preparation:
    """What turns the raw rows of one seed into its inputs.

    Attributes:
        transformer: scikit-learn's, fitted: of raw arrays, or of a table's columns by name.
        places: for a table, which input each of the transformer's columns is.
    """

    transformer: Any
    places: np.ndarray | None = None


def fitted_to_array(inputs: np.ndarray, rows: np.ndarray, scaling: Scaling) -> Preparation:
    """Scaling fitted to some rows of ``(rows, features)`` inputs.

    Raises:
        StudyError: if a feature is constant on them.
    """
    known = inputs[rows].astype(np.float64)
    refuse_constants(known, scaling)
    return Preparation(_scaler(scaling).fit(known))


def refuse_constants(known: np.ndarray, scaling: Scaling) -> None:
    """Refuse ``(rows, features)`` inputs of which a feature is constant, so that scaling would divide by zero."""
    constant = np.flatnonzero(np.ptp(known, axis=0) == 0)
    if len(constant):
        raise StudyError(_constant(f"feature {constant[0]}", scaling))


def scaled(inputs: np.ndarray, preparation: Preparation) -> np.ndarray:
    """``(rows, features)`` float32 inputs, scaled."""
    return preparation.transformer.transform(inputs.astype(np.float64)).astype(np.float32)


def fitted_to_table(table: RawTable, rows: np.ndarray, scaling: Scaling) -> Preparation:
    """Imputation, encoding and scaling fitted to some rows of a table.

    Raises:
        StudyError: if a column has no value on them, or is constant there and to be scaled.
    """
    from sklearn.compose import ColumnTransformer

    known = raw_columns(_ById(table)).iloc[rows]
    empty = [name for name in known if known[name].isna().all()]
    if empty:
        raise StudyError(f"data: column {empty[0]!r} has no value on a training part; drop it, or train on more rows.")
    if scaling != "none":
        constant = [name for name in table.numbers if known[name].min() == known[name].max()]
        if constant:
            raise StudyError(_constant(f"column {constant[0]!r}", scaling))
    parts = [("numbers", _of_numbers(table, scaling), table.numbers), ("categories", _encoder(), table.categories)]
    transformer = ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0).fit(known)
    return Preparation(transformer, _places(table, transformer))


def prepared_table(table: RawTable, preparation: Preparation) -> np.ndarray:
    """``(rows, inputs)`` float32: every row of the table, prepared."""
    if preparation.places is None:
        raise ValueError("this preparation is of arrays; expected one that fitted_to_table made")
    return prepared(raw_columns(_ById(table)), preparation.transformer, preparation.places, len(table.inputs))


class _ById:
    """A table that compares by identity, so that its columns can be remembered."""

    def __init__(self, table: RawTable) -> None:
        self.table = table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.table is self.table


@functools.lru_cache(maxsize=1)
def raw_columns(known: _ById) -> pd.DataFrame:
    """A table's columns as they are served: numbers as float64, categories as text, NaN where a value is missing."""
    table, columns = known.table, {}
    for name, values, levels in zip(table.names, table.values.T, table.levels, strict=True):
        texts = np.array([*levels, np.nan], object)
        columns[name] = texts[np.where(np.isnan(values), len(levels), values).astype(int)] if levels else values
    return pd.DataFrame({name: columns[name] for name in (*table.numbers, *table.categories)})


def _scaler(scaling: Scaling) -> Any:
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return StandardScaler() if scaling == "standard" else MinMaxScaler()


def _of_numbers(table: RawTable, scaling: Scaling) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    fills = table.missing in {"mean", "median", "most_frequent"}
    steps = ([SimpleImputer(strategy=table.missing)] if fills else []) + (
        [] if scaling == "none" else [_scaler(scaling)]
    )
    return make_pipeline(*steps) if steps else "passthrough"


def _encoder() -> Any:
    """The most frequent level where one is missing; a level that the training part does not have is all zeros."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    return make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )


def _places(table: RawTable, transformer: Any) -> np.ndarray:
    """Which input each column of the fitted transformer is: all levels have a place, whatever part it has seen."""
    place = {name: number for number, name in enumerate(_keys(table))}
    found = [place[name, None] for name in table.numbers]
    if table.categories:
        encoder = transformer.named_transformers_["categories"][-1]
        for name, levels in zip(table.categories, encoder.categories_, strict=True):
            found += [place[name, level] for level in levels]
    return np.array(found)


def _keys(table: RawTable) -> list[tuple[str, str | None]]:
    return [
        (name, level) for name, levels in zip(table.names, table.levels, strict=True) for level in (levels or (None,))
    ]


def _constant(what: str, scaling: Scaling) -> str:
    return (
        f"data: {what} is constant on a training part, so {scaling} scaling would divide by zero; leave"
        " scaling out, or drop the feature."
    )
