"""Own data: tables, arrays and loaders of the user's, read when the study is, so that its sizes are known.

A file is found in the folder of the study file or the working directory. Where it lies has no part in any digest;
what it holds has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, field_validator

from layerwise.study.parts import ImportPath, StudyError
from layerwise.study.split import DataSetPart, Shape, Split, Task

if TYPE_CHECKING:
    from layerwise.datasets.reading import Loaded

Missing = Literal["refuse", "mean", "median", "most_frequent", "drop_rows"]
Name = Annotated[str, Field(min_length=1)]
PLACES = ("path", "targets_path", "folder")
"""Keys that say where data lie."""


def found(path: str, folder: Path | None) -> str:
    """The absolute path of a file that is named relative to the study file's folder or the working directory."""
    try:
        places = [place / Path(path).expanduser() for place in (folder, Path.cwd()) if place is not None]
        for place in places:
            if place.is_file():
                return str(place.absolute())
        kind = "a folder" if any(place.is_dir() for place in places) else "no file"
    except (OSError, RuntimeError):  # a name that is too long, or of the home of nobody
        kind = "no file"
    raise ValueError(f"{path!r:.200} is {kind} in the study's folder or the working directory; give the path of a file")


class OwnData(DataSetPart):
    """What all own data can say. The parts that a seed draws have every class in proportion."""

    split: Split = Split(train=0.7, test=0.3)
    task: Task | None = None
    """By default the target decides: text, and up to 20 different whole numbers, are classes."""

    stratified: ClassVar[bool] = True
    _shape: Shape = PrivateAttr()
    _sha256: str = PrivateAttr()
    _request: str = PrivateAttr(default="")

    def shape(self) -> Shape:
        """Rows, features and classes, as they were when the study was read."""
        return self._shape

    def identity(self) -> dict[str, Any]:
        """What digests take of it: the content, by its SHA-256, and not the place."""
        return {key: value for key, value in self.canonical().items() if key not in PLACES} | {"sha256": self._sha256}

    def load(self) -> Loaded:
        """The data, which must be those that the study was made with.

        Raises:
            StudyError: if they cannot be read, or have changed since.
        """
        loaded = self._read()
        if loaded.sha256 != self._sha256:
            raise StudyError(f"{self.where}: has changed since the study was read; run again.")
        return loaded

    @property
    def where(self) -> str:
        """How messages call the data."""
        raise NotImplementedError

    def _read(self) -> Loaded:
        from layerwise.datasets.reading import read

        return read(self.where, self._request)

    def _settle(self, context: dict[str, Any]) -> None:  # noqa: ARG002 - what else was given to make it
        if self._request:  # pydantic asks again when it is given a part that is made already
            return
        # All that decides how the data are read; how they are divided and scaled does not.
        self._request = json.dumps(self.model_dump(mode="json", exclude=set(DataSetPart.model_fields)), sort_keys=True)
        loaded = self._read()
        data = loaded.data
        self._shape = Shape(len(data.inputs), data.features, len(data.classes))
        self._sha256 = loaded.sha256
        # Frozen for everybody else: what was left to the data is now said.
        self.__dict__["task"] = data.task
        if loaded.test_rows:
            self._keep_test_part(loaded.test_rows)

    def _keep_test_part(self, test: int) -> None:
        """The file has a test part of its own, its last rows, which stays the test part unless rows are shuffled."""
        rows = self._shape.rows
        if "shuffle" not in self.model_fields_set:
            self.__dict__["shuffle"] = False
        if "split" not in self.model_fields_set:
            self.__dict__["split"] = Split(train=rows - test, test=test)
        elif not self.shuffle and self.split.of(rows).test != test:
            raise ValueError(
                f"split: test is {self.split.of(rows).test} rows, but {self.where} has a test part of {test} rows;"
                f" make them equal, or say shuffle: true"
            )


class OwnFile(OwnData):
    """A file of the user's."""

    path: Name

    @field_validator("path")
    @classmethod
    def _is_found(cls, path: str, info: ValidationInfo) -> str:
        return found(path, (info.context or {}).get("folder"))

    @property
    def where(self) -> str:
        """The file's name."""
        return Path(self.path).name


class Columns(OwnData):
    """What can be said of a table's columns."""

    features: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Columns that are inputs; all but the target and those dropped, if left out."""
    drop: tuple[Name, ...] | None = None
    categorical: tuple[Name, ...] | None = None
    """Columns of numbers to take for categories; columns of text are so by themselves."""
    missing: Missing = "refuse"
    """What becomes of missing values: a number is replaced by its column's mean, median or most frequent value in
    the training part, a category by the most frequent one; or the row is dropped."""


class Table(OwnFile, Columns):
    """A table in a CSV or Parquet file: a target column, and columns of numbers or categories.

    Categories become one input for each value (one-hot). What has to be learnt from data, such as means, is fitted
    on each seed's training part, and logged with its models.
    """

    source: Literal["table"]
    target: Name
    separator: Literal[",", ";", "\t", "|"] = ","


class Arrays(OwnFile):
    """Arrays in an NPZ archive, or a pair of NPY files.

    Inputs of 8-bit numbers are pixels, and divided by 255. An archive with x_train, y_train, x_test and y_test keeps
    its test part.
    """

    source: Literal["arrays"]
    targets_path: Name | None = None
    """The file of the targets, where ``path`` is an NPY file."""
    inputs: Name | None = None
    """The name of the inputs in the archive: x, X or inputs, if left out."""
    targets: Name | None = None

    @field_validator("targets_path")
    @classmethod
    def _targets_are_found(cls, path: str | None, info: ValidationInfo) -> str | None:
        return path if path is None else found(path, (info.context or {}).get("folder"))


class Loader(Columns):
    """A function of the user's that returns inputs and targets, a dictionary of them, or a DataFrame."""

    source: Literal["loader"]
    loader: ImportPath
    """``module:function``, found in the study file's folder, in the working directory or among what is installed."""
    options: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """Arguments of the function."""
    target: Name | None = None
    """The target column, where the function returns a DataFrame."""
    folder: str | None = None
    """Where else the module is looked for; the study file's folder, if left out."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # options need not be hashable themselves

    @property
    def where(self) -> str:
        """The function's name."""
        return self.loader

    def _settle(self, context: dict[str, Any]) -> None:
        if self.folder is None and context.get("folder") is not None:
            self.__dict__["folder"] = str(Path(context["folder"]).absolute())
        super()._settle(context)


class InMemory(OwnData):
    """Arrays or a DataFrame of this process: see :func:`layerwise.datasets.from_arrays` and ``from_frame``."""

    source: Literal["memory"]
    _loaded: Any = PrivateAttr(default=None)

    @property
    def where(self) -> str:
        """What the data are."""
        return "the data in memory"

    def _settle(self, context: dict[str, Any]) -> None:
        self._loaded = self._loaded or context.get("memory")
        if self._loaded is None:
            raise ValueError(
                "source memory is for Python, where layerwise.datasets.from_arrays and from_frame make it;"
                " in a study file use table, arrays or loader"
            )
        super()._settle(context)

    def _read(self) -> Loaded:
        return self._loaded
