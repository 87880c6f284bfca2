"""What commands print: lines as they are, refusals, and the table of results; and the statuses they exit with."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import stdout
from layerwise.study import Study
from layerwise.study.parts import printable
from layerwise.study.scores import LABELS
from tasks.scratch import ScratchFull

if TYPE_CHECKING:
    import pandas as pd

    from tasks.tracking.store import TrackingError

DONE, FAILED, WRONG_REQUEST, BUSY = 0, 1, 2, 75

COLUMNS = LABELS | {"test_mae": "test MAE", "test_reconstruction_mse": "test error"}
"""The scores that the terminal shows, where an arm has them; all others are in the results table."""


class Terminal(Console):
    """Standard output. Once its reader has left, or it takes nothing, nothing is printed, and the work goes on."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or say once on standard error that this is lost."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self.quiet = True
            refuse(stdout.lose(error), FAILED)

    def on_broken_pipe(self) -> None:
        """Rich would end the process, from the middle of whatever it does."""
        self.quiet = True
        stdout.leave_unread(self.file)


def print_results(study: Study, table: pd.DataFrame, answer: str, console: Console) -> None:
    """Print a table for each arm, and how its scores change with depth."""
    for arm, rows in table.groupby("arm", sort=False):
        shown = {name: label for name, label in COLUMNS.items() if _has(rows, name)}
        say(f"{study.name}, arm {arm}", console)
        printed = Table(box=None, pad_edge=False)
        counts = ["seeds", *(name for name in ("diverged", "collapsed") if rows[name].any())]
        for column in ("depth", "layers", *counts, *shown.values()):
            printed.add_column(column, justify="right", no_wrap=True)
        for row in rows.to_dict("records"):
            scores = (_mean_and_sd(row, name) for name in shown)
            printed.add_row(*(str(int(row[name])) for name in ("depth", "layers", *counts)), *scores)
        print_table(printed, console)
        if len(counts) > 1:
            say("Means are over the seeds that neither diverged nor collapsed.", console)
    for line in answer.splitlines():
        say(line, console)


def _has(rows: pd.DataFrame, name: str) -> bool:
    return f"{name}_mean" in rows and bool(rows[f"{name}_median"].notna().any())


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as it is: a narrow terminal wraps, cutting numbers short would lose them."""
    wide = Console(width=1000)
    with wide.capture() as printed:
        wide.print(table)
    for line in printed.get().splitlines():
        console.print(Text.from_ansi(line.rstrip()), soft_wrap=True)


def say(line: str, console: Console) -> None:
    """Print a line as it is: whole in a pipe, with brackets that are no markup, and nothing that a terminal obeys."""
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def warnings_shown(console: Console) -> Generator[None]:
    """Show what our own modules warn of while the body runs, such as a damaged file: a line each."""
    handler = _Warnings(console)
    log = logging.getLogger("layerwise")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        say(" ".join(record.getMessage().split()), self._console)


def _mean_and_sd(row: dict[str, Any], name: str) -> str:
    mean, sd, median = (row[f"{name}_{key}"] for key in ("mean", "sd", "median"))
    if math.isnan(mean):  # no seed is intact, so there is no mean; the median is over all that are finite
        return "-" if math.isnan(median) else f"median {median:.3f}"
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} +- {sd:.3f}"


def refuse(message: str, status: int) -> int:
    """Say on standard error, in one line, what is wrong; returns the status to exit with."""
    with suppress(OSError):  # what nobody reads, or can be written nowhere, changes no status
        click.echo(f"layerwise: {printable(' '.join(message.split()))}", err=True)
    return status


def refuse_store(error: TrackingError) -> int:
    """Say that a tracking store cannot be used, as :func:`of_store` words it; returns the status to exit with."""
    return refuse(*of_store(error))


def of_store(error: TrackingError) -> tuple[str, int]:
    """What a command says of a tracking store that it cannot use, and the status that it ends with."""
    from tasks.tracking.store import TrackerAway, WrongRequest

    if isinstance(error, TrackerAway):
        return f"{error}; run again once it answers, or correct or unset MLFLOW_TRACKING_URI.", FAILED
    return str(error), WRONG_REQUEST if isinstance(error, WrongRequest) else FAILED


def in_one_line(error: BaseException) -> str:
    """An error's kind and message; of one that is ours the message alone, which says it all."""
    if isinstance(error, ScratchFull):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
