"""Reading own data: tables, arrays and loaders, each refusal in one line; what was read last is remembered."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from layerwise import imported
from layerwise.datasets.arrays import array_data, named_arrays
from layerwise.datasets.columns import Selection, table_data
from layerwise.datasets.data import Data
from layerwise.npy import Archive, NotAnArray, read_array
from layerwise.sizes import NUMBER, refuse_oversize_file
from layerwise.study import StudyError

MOST_COLUMNS = 100_000
"""Columns of a table."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was read.

    Attributes:
        data: the data.
        sha256: of the files, or of the data where there is none.
        test_rows: how many of the last rows are a test part of their own.
    """

    data: Data
    sha256: str
    test_rows: int = 0


def read(where: str, request: str) -> Loaded:
    """Read what a specification asks for.

    Args:
        where: how messages call it.
        request: what is asked for, as JSON.

    Raises:
        StudyError: if there are no such data; one line.
    """
    asked = json.loads(request)
    places = [Path(asked[key]) for key in ("path", "targets_path") if asked.get(key)]
    try:
        stamps = tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in (place.stat() for place in places))
        return _read(where, request, stamps)
    except OSError as error:
        raise StudyError(f"{where}: cannot be read ({error.strerror or error}); see that it is there.") from None


@functools.lru_cache(maxsize=2)
def _read(where: str, request: str, _stamps: tuple[tuple[int, ...], ...]) -> Loaded:
    asked = json.loads(request)
    match asked["source"]:
        case "table":
            data = _from_table(_frame(Path(asked["path"]), asked["separator"], where), asked, where)
            return Loaded(data, _sha256(asked["path"]))
        case "arrays":
            inputs, targets, test_rows = _arrays(asked, where)
            data = array_data(inputs, targets, where=where, task=asked["task"])
            return Loaded(data, _sha256(asked["path"], asked["targets_path"]), test_rows)
        case _:
            data, test_rows = _made(_called(asked, where), asked, where)
            return Loaded(data, data.digest, test_rows)


def _sha256(*paths: str | None) -> str:
    sha = hashlib.sha256()
    for path in filter(None, paths):
        with Path(path).open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def _from_table(frame: pd.DataFrame, asked: dict[str, Any], where: str) -> Data:
    asked_of_columns = Selection(**{field.name: asked[field.name] for field in fields(Selection)})
    return table_data(frame, asked_of_columns, where=where, task=asked["task"])


def _frame(path: Path, separator: str, where: str) -> pd.DataFrame:
    """A CSV or Parquet file as a DataFrame, its types inferred from all rows, its columns named as they are."""
    readers = {".csv": _csv, ".tsv": _csv, ".txt": _csv, ".parquet": _parquet, ".pq": _parquet}
    if path.suffix.lower() not in readers:
        raise StudyError(f"{where}: is no table that is known by its name; expected .csv, .tsv, .txt or .parquet.")
    try:
        table = readers[path.suffix.lower()](path, separator, where)
        _check_table(table, where)
        # What a file says of pandas is for files of one's own.
        plain = table.replace_schema_metadata().rename_columns([str(number) for number in range(table.num_columns)])
        frame = plain.to_pandas()
    except StudyError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the file could not be read at all
        # pyarrow and pandas each have their own
        raise StudyError(f"{where}: {_in_words(error)}") from None
    frame.columns = table.column_names  # as they are: pandas would read two equal names as a name and its copy
    return frame


def _check_table(table: Any, where: str) -> None:
    if not table.num_rows:
        raise StudyError(f"{where}: has no rows; expected a header, and one row for each example.")
    if table.num_columns == 1 and any(mark in table.column_names[0] for mark in ";\t|,"):
        raise StudyError(f"{where}: has one column, {table.column_names[0][:60]!r}; say which separator it has.")
    _refuse_oversize_table(table.num_rows, table.num_columns, where)


def _refuse_oversize_table(rows: int, columns: int, where: str) -> None:
    if columns > MOST_COLUMNS:
        raise StudyError(f"{where}: has {columns:,} columns; at most {MOST_COLUMNS:,}, and more as arrays.")
    refuse_oversize_file(where, rows * columns * NUMBER)


def _csv(path: Path, separator: str, where: str) -> Any:
    from pyarrow import csv

    refuse_oversize_file(where, 4 * path.stat().st_size)  # a digit and a comma become a number of eight bytes
    return csv.read_csv(
        path,
        # Row by row, so that messages can say which row is wrong.
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(strings_can_be_null=True),
    )


def _parquet(path: Path, _separator: str, where: str) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema, stored = file.schema_arrow, file.metadata
        groups = range(stored.num_row_groups)
        refuse_oversize_file(where, 3 * sum(stored.row_group(group).total_byte_size for group in groups))
        _refuse_oversize_table(stored.num_rows, stored.num_columns, where)
    # Texts are read as they are stored, each once: a few bytes can say one of them a billion times.
    texts = [field.name for field in schema if _is_text(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read()
    refuse_oversize_file(where, 4 * sum(_written_out(column) for column in table.columns))
    return table.cast(schema)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)


def _written_out(column: Any) -> int:
    """Bytes of a column of texts with each of them in its place; 0 for other columns."""
    from pyarrow import compute, types

    total = 0
    for chunk in column.chunks:
        if types.is_dictionary(chunk.type) and _is_text(chunk.type.value_type):
            lengths = compute.call_function("binary_length", [chunk.dictionary]).take(chunk.indices)
            total += lengths.sum().as_py() or 0
    return total


def _in_words(error: Exception) -> str:
    """What pyarrow found wrong, in one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text)
    if ragged:
        row, expected, received = ragged.groups()
        return f"line {row} has {received} values, but the header names {expected}; make them equal."
    if text == "Empty CSV file":
        return "is empty; expected a header, and one row for each example."
    return f"is no table of the kind that its name says ({text[:120]}); see the file."


def _arrays(asked: dict[str, Any], where: str) -> tuple[Any, Any, int]:
    path, targets_path = Path(asked["path"]), asked["targets_path"]
    if path.suffix.lower() == ".npz":
        if targets_path is not None:
            raise StudyError(f"{where}: an archive holds its targets; leave targets_path out, or name them in targets.")
        with path.open("rb") as file:
            _check_magic(file, where)
            try:
                archive = _Named(file, weigh=_scales(where))
                return named_arrays(archive, where=where, inputs=asked["inputs"], targets=asked["targets"])
            except NotAnArray as error:
                raise StudyError(f"{where}: {error}") from None
    if path.suffix.lower() != ".npy":
        raise StudyError(f"{where}: is no file of arrays that is known by its name; expected .npz or .npy.")
    if targets_path is None or asked["inputs"] or asked["targets"]:
        raise StudyError(f"{where}: holds one array, the inputs; name the file of the targets in targets_path alone.")
    return _array(path, where), _array(Path(targets_path), Path(targets_path).name), 0


class _Named(Archive):
    """An archive whose complaints name the array."""

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return super().__getitem__(name)
        except NotAnArray as error:
            raise NotAnArray(f"array {name!r} {error}") from None


def _scales(where: str) -> Callable[[int], None]:
    """Adds up the numbers that a file says it holds, and refuses what would not fit into memory."""
    held = 0

    def weigh(numbers: int) -> None:
        nonlocal held
        held += numbers
        refuse_oversize_file(where, held * NUMBER)

    return weigh


def _array(path: Path, where: str) -> np.ndarray:
    with path.open("rb") as file:
        _check_magic(file, where)
        try:
            return read_array(file, path.stat().st_size, weigh=_scales(where))
        except NotAnArray as error:
            raise StudyError(f"{where}: {error}") from None


def _check_magic(file: BinaryIO, where: str) -> None:
    """Say of a pickle, which could run code, that it is none of ours."""
    magic = file.read(6)
    file.seek(0)
    if magic and not magic.startswith((b"PK", b"\x93NUMPY")):
        raise StudyError(f"{where}: is neither an NPZ nor an NPY file; pickles are not read, since they can run code.")


def _called(asked: dict[str, Any], where: str) -> Any:
    """What the user's function returns."""
    for folder in filter(None, (asked["folder"], Path.cwd())):
        imported.look_in(Path(folder))
    found = imported.function(asked["loader"])
    try:
        return found(**asked["options"])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's function raises
        raise StudyError(f"loader {where}: raised {_said(error)}; mend it, or its options.") from None


def _made(returned: Any, asked: dict[str, Any], where: str) -> tuple[Data, int]:
    """The data that a function returned, and the rows of a test part of its own."""
    if isinstance(returned, pd.DataFrame):
        if asked["target"] is None:
            raise StudyError(f"loader {where}: returned a DataFrame; say which column is the target.")
        return _from_table(returned, asked, where), 0
    unused = [field.name for field in fields(Selection) if asked[field.name] not in (None, "refuse")]
    if unused:
        raise StudyError(f"loader {where}: {unused[0]} is for a DataFrame, but it returned {_kind(returned)}.")
    test_rows = 0
    if isinstance(returned, Mapping):
        inputs, targets, test_rows = named_arrays(returned, where=f"loader {where}")
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        inputs, targets = returned
    else:
        raise StudyError(
            f"loader {where}: returned {_kind(returned)}; expected (inputs, targets), a dictionary of both, or a"
            " DataFrame."
        )
    return array_data(inputs, targets, where=f"loader {where}", task=asked["task"]), test_rows


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
