"""From raw rows, as they stand in the user's table, to a network's answer: what a logged model serves with.

This file is shipped in the folder of every logged model that takes raw rows, and MLflow imports it from there, so it
imports nothing of this project. What was fitted is kept by skops, which needs no pickle.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PREPARATION = "preparation.skops"
SERVING = "serving.json"
NETWORK = "model.keras"
TRUSTED = ["numpy.dtype"]
"""Types beside scikit-learn's and NumPy's own that a preparation holds."""

MOST_UNPACKED = 100_000_000
"""Bytes that a small archive may unpack to; a large one to ten times its size."""


def normalised(rows: pd.DataFrame, numbers: list[str], categories: list[str]) -> pd.DataFrame:
    """The columns that a network takes, numbers as float64 and categories as text; NaN where a value is missing.

    Args:
        rows: raw rows; columns that are not asked for are left out.
        numbers: names of the columns that are numbers.
        categories: names of the columns that are categories.

    Raises:
        ValueError: if a column is not there.
    """
    lacking = [name for name in (*numbers, *categories) if name not in rows.columns]
    if lacking:
        raise ValueError(f"the rows have no column {lacking[0]!r}; expected {', '.join((*numbers, *categories))}")
    columns = {name: pd.to_numeric(rows[name]).to_numpy(np.float64, na_value=np.nan) for name in numbers}
    return pd.DataFrame(columns | {name: texts(rows[name]) for name in categories})


def texts(values: Any) -> np.ndarray:
    """Values as text, so that 1, 1.0 and "1" are one category; NaN where a value is missing.

    Example:
        >>> from layerwise.raw_rows import texts
        >>> texts(["red", 1.0, 2.5, None]).tolist()
        ['red', '1', '2.5', nan]
    """
    found = np.empty(len(values), object)
    found[:] = [_text(value) for value in values]
    return found


def _text(value: Any) -> Any:
    if pd.isna(value):
        return np.nan
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def prepared(columns: pd.DataFrame, transformer: Any, places: np.ndarray, width: int) -> np.ndarray:
    """``(rows, width)`` float32: what a fitted transformer makes of normalised columns, each in its place.

    A level that the training part never showed has a place, and stays 0.

    Raises:
        ValueError: if a value is missing, and no rule for it was fitted.
    """
    made = transformer.transform(columns)
    found = np.zeros((len(columns), width), np.float32)
    found[:, places] = made
    unknown = np.isnan(found).any(axis=0)
    if unknown.any():
        lacking = [name for name in columns if columns[name].isna().any()]
        raise ValueError(
            f"column {lacking[0]!r} has missing values, and the model was trained without a rule for them; fill them in"
        )
    return found


def packed(transformer: Any, places: np.ndarray | None) -> bytes:
    """What was fitted as the bytes of a file, without pickle.

    Args:
        transformer: scikit-learn's.
        places: which input each of its columns is; ``None`` where rows are arrays.
    """
    import skops.io

    return skops.io.dumps({"transformer": transformer, "places": places}, compression=zipfile.ZIP_DEFLATED)


class RawRows:
    """A network that takes raw rows: MLflow's python_function.

    Args:
        network: the Keras model.
        serving: what the rows are and what the answer is, from ``serving.json``.
        preparation: what was fitted, from ``preparation.skops``.
    """

    def __init__(self, network: Any, serving: dict[str, Any], preparation: dict[str, Any]) -> None:
        self.network, self.serving, self.preparation = network, serving, preparation

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002 - MLflow's signature
        """The network's answer to raw rows, under the names of classes, target or inputs; an array for an array."""
        answer = np.asarray(self.network.predict(self.fed(self.inputs(rows)), verbose=0))
        if self.serving["outputs"] is None:
            return answer
        return pd.DataFrame(answer, columns=self.serving["outputs"], index=getattr(rows, "index", None))

    def inputs(self, rows: Any) -> np.ndarray:
        """``(rows, width)`` float32: what the network takes, from raw rows."""
        transformer, columns = self.preparation["transformer"], self.serving["columns"]
        if columns is None:
            return transformer.transform(np.asarray(rows, np.float64)).astype(np.float32)
        known = normalised(rows, columns["numbers"], columns["categories"])
        for name in columns["numbers"]:
            if np.isinf(known[name]).any():
                raise ValueError(f"column {name!r} has infinite values; the model takes finite numbers")
        return prepared(known, transformer, self.preparation["places"], self.serving["width"])

    def fed(self, inputs: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """The inputs as one array, or, for a network of several inputs, as one for each of its names."""
        feeds = self.serving["feeds"]
        return {name: inputs[:, positions] for name, positions in feeds.items()} if feeds else inputs


def network(file: Path) -> Any:
    """The Keras model in a ``.keras`` file; nothing that the file holds is run.

    Raises:
        ValueError: if it is none, or has layers that are Python code; one line.
    """
    import keras

    return _read(file, lambda: keras.saving.load_model(file, compile=False, safe_mode=True))


def preparation(file: Path) -> dict[str, Any]:
    """What :func:`packed` made, from its file; of types that a preparation has, and no others.

    Raises:
        ValueError: if it is something else; one line.
    """
    import skops.io

    return _read(file, lambda: skops.io.load(file, trusted=TRUSTED))


def _read(file: Path, load: Callable[[], Any]) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(MOST_UNPACKED, 10 * file.stat().st_size):
            raise ValueError(f"it would unpack to {unpacked:,} bytes")
        return load()
    except Exception as error:  # noqa: BLE001 - Keras, skops, NumPy and zipfile each have their own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"{file.name} is not read ({reason}); run its study to have it made anew") from None


def _load_pyfunc(path: str) -> RawRows:
    """MLflow's entry: the model whose data folder this is."""
    folder = Path(path)
    serving = json.loads((folder / SERVING).read_text(encoding="utf-8"))
    return RawRows(network(folder / NETWORK), serving, preparation(folder / PREPARATION))
