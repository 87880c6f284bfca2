"""Data of a Python program: arrays or a DataFrame, in the place of a study's data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerwise.datasets.data import Data
from layerwise.study import InMemory, Missing, StudyError, Task
from layerwise.study.complaints import complaints
from layerwise.study.parts import nearest
from layerwise.study.split import DataSetPart

if TYPE_CHECKING:
    import pandas as pd


def from_arrays(inputs: Any, targets: Any, *, task: Task | None = None, **settings: Any) -> InMemory:
    """Arrays as the data of a study.

    Args:
        inputs: ``(rows, features)`` or ``(rows, height, width)`` finite numbers; 8-bit ones are divided by 255.
        targets: ``(rows,)``: classes as text or whole numbers, or numbers to predict.
        task: ``"classification"`` or ``"regression"``; by default text and up to 20 different whole numbers are
            classes.
        settings: ``split``, ``labels``, ``scaling`` and ``shuffle``, as in a study file.

    Raises:
        StudyError: if they are no such arrays, or a setting is wrong; one line.

    Example:
        >>> import layerwise
        >>> from sklearn.datasets import load_iris
        >>> iris = layerwise.datasets.from_arrays(*load_iris(return_X_y=True), scaling="standard")
        >>> iris.split.train, iris.split.test
        (105, 45)
        >>> layerwise.Study(name="iris", data=iris, network={"layers": [{"units": 8}]}).depth
        1
    """
    from layerwise.datasets.arrays import array_data  # loads pandas

    return _in_memory(array_data(inputs, targets, where="the arrays", task=task), settings)


def from_frame(
    frame: pd.DataFrame,
    *,
    target: str,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
    missing: Missing = "refuse",
    task: Task | None = None,
    **settings: Any,
) -> InMemory:
    """A DataFrame as the data of a study; its logged models take such DataFrames.

    Args:
        frame: one row for each example; columns of numbers, booleans or text.
        target: the column to predict.
        features: the columns that are inputs; all others, if left out.
        drop: columns that are no inputs.
        categorical: columns of numbers that are categories.
        missing: what becomes of missing values: ``"refuse"``, ``"mean"``, ``"median"``, ``"most_frequent"`` or
            ``"drop_rows"``.
        task: ``"classification"`` or ``"regression"``; the target decides by default.
        settings: ``split``, ``labels``, ``scaling`` and ``shuffle``, as in a study file.

    Raises:
        StudyError: if the table does not hold what is asked, or a setting is wrong; one line.
    """
    from layerwise.datasets.columns import Selection, table_data  # loads pandas

    asked = Selection(target, features, drop, categorical, missing)
    return _in_memory(table_data(frame, asked, where="the table", task=task), settings)


def _in_memory(data: Data, settings: dict[str, Any]) -> InMemory:
    from layerwise.datasets.reading import Loaded  # loads pandas

    unknown = [key for key in settings if key not in DataSetPart.model_fields]
    if unknown:
        raise StudyError(f"data: {unknown[0]}: unknown key{nearest(unknown[0], [*DataSetPart.model_fields])}")
    try:
        return InMemory.model_validate({"source": "memory", **settings}, context={"memory": Loaded(data, data.digest)})
    except ValidationError as error:
        raise StudyError(f"data: {'; '.join(complaints(error))}") from None
