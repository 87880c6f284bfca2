"""What a person sees while a study trains: a bar with the time left, or plain lines without a terminal.

What is found stored is told from what is trained, and costs nothing: the time left is that of the steps still to take,
each as long as those that were taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from flows.printing import say

LINES_APART = 5.0
"""Seconds between two plain lines."""


Total = int | Callable[[], int]
"""How many steps a phase has; a function where that is settled on the way."""


class Phase(Protocol):
    """A phase of the work, such as training."""

    def advance(self, detail: str, *, found: bool = False) -> None:
        """One step of the phase is done; ``found`` if what it leaves was stored before."""


class Reporter(Protocol):
    """Hears of the work as it gets done."""

    def begin(self, phase: str, total: Total, of: str) -> Phase:
        """A phase of so many steps begins."""

    def tell(self, line: str) -> None:
        """Something happens that a person should know now."""


class Silent:
    """Says nothing: what runs get that nobody watches."""

    def begin(self, phase: str, total: Total, of: str) -> Phase:  # noqa: ARG002 - it says nothing
        """Say nothing."""
        return self

    def advance(self, detail: str, *, found: bool = False) -> None:
        """Say nothing."""

    def tell(self, line: str) -> None:
        """Say nothing."""


_current: ContextVar[Reporter] = ContextVar("reporter")


def begin(phase: str, total: Total, of: str) -> Phase:
    """Tell whoever listens that a phase begins; its steps are told to what is returned.

    Args:
        phase: what is being done, as in ``"training"``.
        total: how many steps it has.
        of: what is counted, as in ``"depths"``.
    """
    return _current.get(Silent()).begin(phase, total, of)


def tell(line: str) -> None:
    """Say one line to whoever listens."""
    _current.get(Silent()).tell(line)


@dataclass
class _Count:
    """How far a phase is."""

    phase: str
    total: Total
    of: str
    done: int = 0
    found: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    def advance(self, *, found: bool) -> None:
        self.done += 1
        self.found += found

    @property
    def now(self) -> int:
        """How many steps there are, as far as that is settled."""
        return self.total if isinstance(self.total, int) else self.total()

    @property
    def doing(self) -> str:
        """What is being done: where all so far was there already, nothing but reading."""
        return "reading" if self.done and self.done == self.found else self.phase

    @property
    def counted(self) -> str:
        """What is counted, and how much of it was there already."""
        return f"{self.of}, {self.found} stored before" if self.found else self.of

    @property
    def left(self) -> str:
        """About how long it will take, once a step was taken that tells."""
        taken, missing = self.done - self.found, self.now - self.done
        if not taken or missing <= 0:
            return ""
        return f"about {(time.monotonic() - self.began) / taken * missing:.0f} s left"


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
        TextColumn("{task.fields[counted]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[detail]}", style="dim"),
        console=console,
    )


class _Bars:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def begin(self, phase: str, total: Total, of: str) -> _BarPhase:
        return _BarPhase(self.bar, _Count(phase, total, of))

    def tell(self, line: str) -> None:
        say(line, self.bar.console)


class _BarPhase:
    def __init__(self, bar: Progress, count: _Count) -> None:
        self.bar, self.count = bar, count
        self.task: TaskID = bar.add_task(count.doing, total=count.now, counted=count.counted, left="", detail="")

    def advance(self, detail: str, *, found: bool = False) -> None:
        count = self.count
        count.advance(found=found)
        words: dict[str, Any] = {"counted": count.counted, "left": count.left, "detail": detail}
        self.bar.update(self.task, completed=count.done, total=count.now, description=count.doing, **words)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, phase: str, total: Total, of: str) -> _LinePhase:
        return _LinePhase(self.console, _Count(phase, total, of))

    def tell(self, line: str) -> None:
        say(line, self.console)


class _LinePhase:
    def __init__(self, console: Console, count: _Count) -> None:
        self.console, self.count, self.said = console, count, count.began

    def advance(self, detail: str, *, found: bool = False) -> None:
        count, now = self.count, time.monotonic()
        count.advance(found=found)
        if count.done < count.now and now - self.said < LINES_APART:
            return
        self.said, left = now, count.left and f", {count.left}"
        place = f"{count.doing} {count.done}/{count.now} {count.counted}"
        say(f"{place}  {detail}  {now - count.began:.0f} s{left}", self.console)
