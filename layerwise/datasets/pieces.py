"""Tables that are read piece by piece, so that a file of any length takes the memory of one piece.

A column's type is asked for, never inferred: a piece cannot know what stands in the next.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from layerwise.study import StudyError

PIECE_BYTES = 16 * 2**20
"""Bytes of a CSV file in a piece; no row is longer."""

PIECE_NUMBERS = 2**21
"""Numbers of a Parquet file in a piece: 16 MB."""

COMMA_SEPARATED, PARQUET = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
"""How the names of tables end."""

ColumnType = Literal["number", "boolean", "text"]

EXPECTED = {"double": "a number", "bool": "true or false"}
"""What pyarrow's types are in words."""


def pieces(path: Path, columns: Mapping[str, ColumnType], *, separator: str = ",") -> Iterator[pd.DataFrame]:
    """Some columns of a CSV or Parquet file, some rows at a time, in the file's order; other columns are not read.

    Args:
        path: the file; its name says what it is.
        columns: name -> what to read it as.
        separator: between the values of a CSV file.

    Raises:
        StudyError: if there is no such file, a column is missing, or a value is not of its type; one line.
    """
    with _said_of(path):
        names = header(path, separator=separator)
        _require(path, names, list(columns))
        found = _parquet(path, columns) if _is_parquet(path) else _csv(path, columns, separator)
        for piece in found:
            if len(piece):
                yield piece


def number_pieces(path: Path, width: int, *, separator: str = ",") -> Iterator[np.ndarray]:
    """``(rows, width)`` float64: every column of a file of numbers, some rows at a time.

    Args:
        path: the file.
        width: how many columns it must have.
        separator: between the values of a CSV file.

    Raises:
        StudyError: as :func:`pieces` does, or if it has other than ``width`` columns.
    """
    names = header(path, separator=separator)
    if len(names) != width:
        raise StudyError(
            f"{path}: received {len(names):,} columns ({_some(names)}); the model takes rows of {width:,} numbers, so"
            " leave other columns out."
        )
    for piece in pieces(path, dict.fromkeys(names, "number"), separator=separator):
        yield np.stack([numbers_of(path, piece[name]) for name in names], axis=1)


def header(path: Path, *, separator: str = ",") -> list[str]:
    """The names of a file's columns.

    Raises:
        StudyError: if it cannot be read, or names a column twice; one line.
    """
    if path.suffix.lower() not in COMMA_SEPARATED + PARQUET:
        raise StudyError(f"{path}: is no table that is known by its name; expected .csv, .tsv, .txt or .parquet.")
    if not path.is_file():
        raise StudyError(f"{path}: is no file; give the path of a CSV or Parquet file.")
    with _said_of(path):
        names = _parquet_names(path) if _is_parquet(path) else _csv_names(path, separator)
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise StudyError(f"{path}: has the column {twice!r} twice; give every column a name of its own.")
    return names


def numbers_of(path: Path, column: pd.Series) -> np.ndarray:
    """``(rows,)`` float64: a column's values as numbers, NaN where one is missing.

    Raises:
        StudyError: if one is no number; one line.
    """
    try:
        return pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{path}: column {str(column.name)!r} holds what is no number ({error}); mend it.") from None


def _csv(path: Path, columns: Mapping[str, ColumnType], separator: str) -> Iterator[pd.DataFrame]:
    import pyarrow as pa
    from pyarrow import csv

    types = {"number": pa.float64(), "boolean": pa.bool_(), "text": pa.string()}
    reader = csv.open_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False, block_size=PIECE_BYTES),
        parse_options=_parsing(path, separator),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: types[kind] for name, kind in columns.items()},
            strings_can_be_null=True,
        ),
    )
    for batch in reader:
        yield batch.to_pandas()


def _csv_names(path: Path, separator: str) -> list[str]:
    from pyarrow import csv

    # Nothing but the header is converted: the rows may hold anything.
    with path.open("rb") as file:
        line = file.readline(PIECE_BYTES)
    if not line.strip():
        raise StudyError(f"{path}: is empty; expected a header, and one row for each example.")
    import pyarrow as pa

    reading = csv.ReadOptions(use_threads=False, block_size=PIECE_BYTES)
    return csv.read_csv(
        pa.BufferReader(line), read_options=reading, parse_options=_parsing(path, separator)
    ).column_names


def _parsing(path: Path, separator: str) -> Any:
    from pyarrow import csv

    return csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else separator, newlines_in_values=True)


def _parquet(path: Path, columns: Mapping[str, ColumnType]) -> Iterator[pd.DataFrame]:
    from pyarrow import parquet

    names, rows = list(columns), max(1, PIECE_NUMBERS // len(columns))
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=names, use_threads=False):
            # What a file says of pandas is for files of one's own.
            piece = batch.replace_schema_metadata().to_pandas()[names]
            yield piece.assign(**{name: numbers_of(path, piece[name]) for name in names if columns[name] == "number"})


def _parquet_names(path: Path) -> list[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.schema_arrow.names


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _require(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    lacking = [name for name in wanted if name not in set(names)]
    if not lacking:
        return
    near = difflib.get_close_matches(lacking[0], names, n=1)
    others = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
    remedy = f"did you mean {near[0]!r}? It has" if near else "it has"
    hint = "; say which --separator it has" if len(names) == 1 < len(wanted) else ""
    raise StudyError(
        f"{path}: has no column {lacking[0]!r}{others}, which the model takes; {remedy} {_some(names)}{hint}."
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(repr(name[:40]) for name in names[:8]) + more


@contextmanager
def _said_of(path: Path) -> Generator[None]:
    """Turn what pyarrow and the system say of a file into one line that names it."""
    try:
        yield
    except StudyError:
        raise
    except OSError as error:
        if error.errno is None:  # pyarrow's own, of a file that is no Parquet file
            raise StudyError(f"{path}: {_in_words(error)}") from None
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}); see that it is there.") from None
    except Exception as error:  # noqa: BLE001 - pyarrow has its own
        raise StudyError(f"{path}: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if found := re.search(r"column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.{0,40})", text):
        column, line, kind, value = found.groups()
        return (
            f"line {line} has {value.rstrip(chr(39))!r} in column {int(column) + 1}; expected"
            f" {EXPECTED.get(kind, kind)}; mend it."
        )
    if "straddling" in text:
        return f"has a row of more than {PIECE_BYTES:,} bytes; see its line breaks and quotes."
    if found := re.search(r"Expected (\d+) columns, got (\d+)", text):
        return f"a row has {found[2]} values, but the header names {found[1]}; make them equal."
    return f"is no table of the kind that its name says ({text[:120]}); see the file."
