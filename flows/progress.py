"""What a person sees while a study trains: a bar with the time left, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flows.printing import say

LINES_APART = 5.0
"""Seconds between two plain lines."""


Total = int | Callable[[], int]
"""How many steps a phase has; a function where that is settled on the way."""


class Phase(Protocol):
    """A phase of the work, such as training."""

    def advance(self, detail: str) -> None:
        """One step of the phase is done."""


class Reporter(Protocol):
    """Hears of the work as it gets done."""

    def begin(self, phase: str, total: Total) -> Phase:
        """A phase of so many steps begins."""

    def tell(self, line: str) -> None:
        """Something happens that a person should know now."""


class Silent:
    """Says nothing: what runs get that nobody watches."""

    def begin(self, phase: str, total: Total) -> Phase:  # noqa: ARG002 - it says nothing
        """Say nothing."""
        return self

    def advance(self, detail: str) -> None:
        """Say nothing."""

    def tell(self, line: str) -> None:
        """Say nothing."""


_current: ContextVar[Reporter] = ContextVar("reporter")


def begin(phase: str, total: Total) -> Phase:
    """Tell whoever listens that a phase of ``total`` steps begins; its steps are told to what is returned."""
    return _current.get(Silent()).begin(phase, total)


def tell(line: str) -> None:
    """Say one line to whoever listens."""
    _current.get(Silent()).tell(line)


def _now(total: Total) -> int:
    return total if isinstance(total, int) else total()


@contextmanager
def shown(console: Console) -> Generator[None]:
    """Show progress on a console while the body runs."""
    with _bar(console) if console.is_terminal else nullcontext() as bar:
        token = _current.set(_Bars(bar) if bar else _Lines(console))
        try:
            yield
        finally:
            _current.reset(token)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
        console=console,
    )


class _Bars:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def begin(self, phase: str, total: Total) -> _BarPhase:
        return _BarPhase(self.bar, self.bar.add_task(phase, total=_now(total), detail=""), total)

    def tell(self, line: str) -> None:
        say(line, self.bar.console)


class _BarPhase:
    def __init__(self, bar: Progress, task: TaskID, total: Total) -> None:
        self.bar, self.task, self.total = bar, task, total

    def advance(self, detail: str) -> None:
        self.bar.update(self.task, advance=1, total=_now(self.total), detail=detail)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, phase: str, total: Total) -> _LinePhase:
        return _LinePhase(self.console, phase, total)

    def tell(self, line: str) -> None:
        say(line, self.console)


class _LinePhase:
    def __init__(self, console: Console, phase: str, total: Total) -> None:
        self.console, self.phase, self.total, self.done = console, phase, total, 0
        self.started = self.said = time.monotonic()

    def advance(self, detail: str) -> None:
        self.done += 1
        now, total = time.monotonic(), _now(self.total)
        if self.done < total and now - self.said < LINES_APART:
            return
        self.said, elapsed = now, now - self.started
        left = f", about {elapsed / self.done * (total - self.done):.0f} s left" if self.done < total else ""
        line = f"{self.phase} {self.done}/{total}  {detail}  {elapsed:.0f} s{left}"
        say(line, self.console)
