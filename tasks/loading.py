"""What answers for a model: its network and its preparation, read from files that were verified, and nothing else.

A model's folder also has code, which MLflow would import from there. Here it is not: a folder that comes from a tracker
gives weights and settings, and the code is this project's. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from layerwise import raw_rows
from layerwise.raw_rows import RawRows

ROWS_AT_ONCE = 1024
"""Rows that a network answers in one step."""


class BareNetwork:
    """A network whose rows need no preparation: it takes arrays.

    Args:
        network: the Keras model.
    """

    def __init__(self, network: Any) -> None:
        self.network = network

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002 - MLflow's signature
        """``(rows, ...)`` float32: the network's answer."""
        return np.asarray(self.network.predict(rows, verbose=0))

    def fed(self, rows: np.ndarray) -> np.ndarray:
        """``(rows, features)`` as the network takes them.

        Raises:
            ValueError: if it takes several inputs; one line.
        """
        if len(self.network.inputs) > 1:
            names = ", ".join(tensor.name for tensor in self.network.inputs)
            raise ValueError(
                f"it takes several inputs ({names}), which columns do not tell apart; serve it, and name them"
            )
        return rows.astype(np.float32).reshape(len(rows), *self.network.inputs[0].shape[1:])


def loaded(data: Path) -> RawRows | BareNetwork:
    """The model whose data folder this is.

    Raises:
        ValueError: if a file is not what a model has, or has layers that are Python code; one line.
    """
    if (data / raw_rows.SERVING).exists():
        return raw_rows._load_pyfunc(str(data))  # noqa: SLF001 - as MLflow calls it
    return BareNetwork(raw_rows.network(data / raw_rows.NETWORK))


def answers(model: RawRows | BareNetwork, rows: pd.DataFrame | np.ndarray) -> pd.DataFrame:
    """What a model makes of many raw rows, as float32.

    Classes become a column ``prediction``, the likeliest, and a ``probability_…`` for each; a number becomes
    ``prediction``; features become ``feature_1`` and so on, and a reconstruction ``reconstruction_…`` for each input.

    Args:
        model: from :func:`loaded`.
        rows: a table's columns by name, or ``(rows, features)``.

    Raises:
        ValueError: if a row is not what the model takes; one line.
    """
    fed = model.fed(model.inputs(rows)) if isinstance(model, RawRows) else model.fed(np.asarray(rows))
    made = np.asarray(model.network.predict(fed, batch_size=ROWS_AT_ONCE, verbose=0))
    return _named(model, made.reshape(len(made), -1))


def _named(model: RawRows | BareNetwork, made: np.ndarray) -> pd.DataFrame:
    """Answers under their names; classes and inputs of arrays are numbered from 0, as they were in training."""
    names = model.serving["outputs"] if isinstance(model, RawRows) else None
    match model.network.name.partition("_")[0]:  # what layerwise.models calls a network
        case "classifier":
            names = [str(name) for name in names or range(made.shape[1])]
            probabilities = pd.DataFrame(made, columns=[f"probability_{name}" for name in names])
            probabilities.insert(0, "prediction", np.array(names, object)[made.argmax(axis=1)])
            return probabilities
        case "regressor":
            return pd.DataFrame(made, columns=["prediction"])
        case "autoencoder":
            return pd.DataFrame(made, columns=[f"reconstruction_{name}" for name in names or range(made.shape[1])])
        case _:
            return pd.DataFrame(made, columns=[f"feature_{number}" for number in range(1, made.shape[1] + 1)])
