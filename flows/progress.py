"""What a person sees while a study trains: a bar with the time left, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINES_APART = 5.0
"""Seconds between two plain lines."""


class Reporter(Protocol):
    """Hears of the work as it gets done."""

    def begin(self, phase: str, total: int) -> None:
        """A phase of so many steps begins."""

    def advance(self, detail: str) -> None:
        """One step of the phase is done."""


class Silent:
    """Says nothing: what library use and scheduled runs without a terminal get."""

    def begin(self, phase: str, total: int) -> None:
        """Say nothing."""

    def advance(self, detail: str) -> None:
        """Say nothing."""


_current: ContextVar[Reporter] = ContextVar("reporter", default=Silent())  # noqa: B039 - it holds no state


def begin(phase: str, total: int) -> None:
    """Tell whoever listens that a phase of ``total`` steps begins."""
    _current.get().begin(phase, total)


def advance(detail: str) -> None:
    """Tell whoever listens that one step is done."""
    _current.get().advance(detail)


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show progress on a console while the body runs."""
    if console.is_terminal:
        with _bar(console) as bar:
            token = _current.set(_Bar(bar))
            yield
            _current.reset(token)
    else:
        token = _current.set(_Lines(console))
        yield
        _current.reset(token)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[detail]}", style="dim"),
        console=console,
        transient=False,
    )


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task = None

    def begin(self, phase: str, total: int) -> None:
        self.task = self.bar.add_task(phase, total=total, detail="")

    def advance(self, detail: str) -> None:
        if self.task is not None:
            self.bar.update(self.task, advance=1, detail=detail)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.phase, self.total, self.done = "", 0, 0
        self.started = self.last = time.monotonic()

    def begin(self, phase: str, total: int) -> None:
        self.phase, self.total, self.done = phase, total, 0
        self.started = self.last = time.monotonic()

    def advance(self, detail: str) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done < self.total and now - self.last < LINES_APART:
            return
        self.last = now
        elapsed = now - self.started
        left = elapsed / self.done * (self.total - self.done)
        self.console.print(
            f"{self.phase} {self.done}/{self.total}  {detail}  {elapsed:.0f} s, about {left:.0f} s left",
            highlight=False,
        )
