"""``layerwise predict``: what a registered model makes of a file, a piece at a time, as CSV or Parquet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows import environment
from flows.printing import DONE, FAILED, WRONG_REQUEST, refuse, refuse_store
from flows.stdout import leave_unread
from layerwise.study import StudyError
from tasks.scratch import scratch

if TYPE_CHECKING:
    import pandas as pd

    from layerwise.datasets.pieces import ColumnType
    from layerwise.raw_rows import RawRows
    from tasks.loading import BareNetwork
    from tasks.tracking.verified import VerifiedModel

TYPES: dict[str, ColumnType] = {"long": "number", "double": "number", "boolean": "boolean", "string": "text"}
"""What a column is read as that has one of MLflow's types."""

Write = Callable[["pd.DataFrame"], None]


@dataclass(frozen=True)
class Asked:
    """What is to be answered by what.

    Attributes:
        model: as :func:`tasks.tracking.verified.find_model` takes it.
        version: of the registered model, if ``model`` does not say it.
        file: CSV or Parquet; columns that the model does not take, such as the label, are left alone.
        separator: between the values of a CSV file.
    """

    model: str
    version: int | None
    file: Path
    separator: str = ","


def predict_command(asked: Asked, output: Path | None, root: Path) -> int:
    """Answer every row of a file. Returns the exit status.

    Args:
        asked: the model and the file.
        output: where the answers go, by its name as CSV or Parquet; to standard output, as CSV, if left out.
        root: where runs are.
    """
    environment.set_variables(root)
    from layerwise.datasets.pieces import header
    from tasks.tracking.store import TrackingError, open_existing_store
    from tasks.tracking.verified import find_model, verified

    try:
        _refuse_overwriting(asked.file, output)
        writer = _writer(output)
        header(asked.file, separator=asked.separator)  # what is no table is refused before anything is looked for
        client = open_existing_store(root)
        found = find_model(client, asked.model, asked.version)
        model = verified(client, found)
        pieces = _pieces(model, asked.file, asked.separator)
        with writer as write:
            for piece in _answered(model, found.name, asked.file, pieces):
                write(piece)
    except TrackingError as error:
        return refuse_store(error)
    except StudyError as problem:
        return refuse(str(problem), WRONG_REQUEST)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        if output is None and error.filename is None:
            leave_unread()  # what is left in it would be tried again at the end
        place = output or error.filename or "standard output"
        remedy = "name another file" if output else "name a file with --output"
        return refuse(f"{place} cannot be written ({error.strerror or error}); {remedy}.", FAILED)
    return DONE


def _refuse_overwriting(file: Path, output: Path | None) -> None:
    """The answers may not take the place of the rows, under whatever name they are reached."""
    if output is not None and output.exists() and file.exists() and output.samefile(file):
        raise StudyError(f"--output {output}: is the file of the rows itself; name another file for the answers.")


def _pieces(model: VerifiedModel, file: Path, separator: str) -> Iterator[pd.DataFrame | np.ndarray]:
    from layerwise.datasets.pieces import number_pieces, pieces

    if (columns := model.columns) is not None:
        return pieces(file, {name: TYPES[kind] for name, kind in columns.items()}, separator=separator)
    shapes = [tensor.shape[1:] for tensor in model.signature.inputs]
    return number_pieces(file, sum(int(np.prod(shape)) for shape in shapes), separator=separator)


def _answered(model: VerifiedModel, name: str, file: Path, pieces: Iterator[Any]) -> Iterator[pd.DataFrame]:
    """The answers to each piece; the network is loaded for the first, once that was read."""
    loaded: RawRows | BareNetwork | None = None
    for piece in pieces:
        with _in_one_line(name):
            loaded = loaded or _loaded(model)
            from tasks.loading import answers

            made = answers(loaded, piece)
        yield made
    if loaded is None:
        raise StudyError(f"{file}: there are no rows to answer; expected a header, and one row for each example.")


def _loaded(model: VerifiedModel) -> RawRows | BareNetwork:
    from tasks.loading import loaded
    from tasks.tracking.files import write_all

    with scratch() as folder:
        write_all(folder, model.files)
        return loaded(folder / "data")


@contextmanager
def _in_one_line(name: str) -> Generator[None]:
    """What a model says of rows that it does not take, and of files that it cannot be made of."""
    try:
        yield
    except ValueError as error:
        raise StudyError(f"{name}: {error}") from None


def _writer(output: Path | None) -> Any:
    if output is None:
        return _standard_output()
    suffix = output.suffix.lower()
    if suffix not in {".csv", ".parquet", ".pq"}:
        raise StudyError(f"--output {output}: expected a name that ends in .csv or .parquet.")
    return _whole(output, _csv_file if suffix == ".csv" else _parquet_file)


@contextmanager
def _standard_output() -> Generator[Write]:
    first = True

    def write(piece: pd.DataFrame) -> None:
        nonlocal first
        piece.to_csv(sys.stdout, index=False, header=first, lineterminator="\n")
        first = False

    yield write
    sys.stdout.flush()


@contextmanager
def _whole(output: Path, opened: Callable[[Path], Any]) -> Generator[Write]:
    """Writes a whole file or none; one that stands there is replaced, and a link is followed."""
    output = output.resolve()
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with opened(temporary) as write:
            yield write
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _csv_file(place: Path) -> Generator[Write]:
    with place.open("x", encoding="utf-8", newline="") as file:
        yield lambda piece: piece.to_csv(file, index=False, header=not file.tell(), lineterminator="\n")


@contextmanager
def _parquet_file(place: Path) -> Generator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    writer: parquet.ParquetWriter | None = None

    def write(piece: pd.DataFrame) -> None:
        nonlocal writer
        table = pa.Table.from_pandas(piece, preserve_index=False).replace_schema_metadata()
        writer = writer or parquet.ParquetWriter(place, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
