"""What MLflow's server loads for ``layerwise serve``: rows that a model refuses are answered with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from layerwise.raw_rows import RawRows
from tasks.loading import BareNetwork, loaded


class Served:
    """A model whose refusals are MLflow's: of any other error the server answers with the stack, and no reason.

    Args:
        model: from :func:`tasks.loading.loaded`.
    """

    def __init__(self, model: RawRows | BareNetwork) -> None:
        self._model = model

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:
        """What the model makes of the rows.

        Raises:
            MlflowException: if they are not what the model takes; status 400, one line.
        """
        if isinstance(self._model, RawRows):
            try:  # prepared twice, which costs little beside the network; what that raises is no refusal
                self._model.inputs(rows)
            except (TypeError, ValueError) as error:
                raise MlflowException.invalid_parameter_value(" ".join(str(error).split())) from error
        return self._model.predict(rows, params)


def _load_pyfunc(path: str) -> Served:
    """MLflow's entry: the model whose data folder this is."""
    return Served(loaded(Path(path)))
