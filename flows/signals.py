"""Requests to end: Ctrl-C, SIGTERM and a terminal that closes raise ``KeyboardInterrupt``, and none of them is lost.

A signal's exception is raised wherever the main thread happens to be. Where that is a callback of the garbage
collector or a ``__del__``, of which the end of a run is full, Python prints it and goes on; a library in C++ may take
it for an answer, and say nothing. Here it is sent again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from flows.server import LOST
from tasks.causes import causes

TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ALSO = {"TerminationSignal": signal.SIGTERM, "ServerLost": LOST}
"""What signals raise besides: Prefect's exception while a flow runs, and ours when its server has gone."""

SOON = 0.02
"""Seconds until a signal is sent again: by then the callback that it fell into is over."""

_notes: list[int] = []
"""The end of the pipe into which signals are written that are to be sent again; none before :func:`heed`."""


def heed() -> None:
    """Have every request to end raise ``KeyboardInterrupt`` in the main thread, and none be lost."""
    for number in TO_END[1:]:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup, for one, has it ignored
            signal.signal(number, signal.default_int_handler)
    signal.signal(LOST, lambda *_: None)  # sent again when no flow runs any more, it would end us
    # Nothing that takes a lock is safe in the midst of a collection; a byte in a pipe is.
    lost, note = os.pipe()
    threading.Thread(target=_send_again, args=(lost,), name="lost signals", daemon=True).start()
    _notes[:] = [note]
    sys.unraisablehook = _noting(note, sys.unraisablehook)


class Dropped:
    """What an exception is besides that says of itself that it has been dropped: while it is on its way it is held."""

    signal: int
    has_arrived = False

    def __del__(self) -> None:
        for note in [] if self.has_arrived else _notes:
            os.write(note, bytes([self.signal]))


class Interruption(Dropped, KeyboardInterrupt):
    """A request to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


@contextmanager
def none_dropped() -> Generator[None]:
    """Have requests to end sent again in the body, which never ends them itself, whoever drops what they raise."""
    if not _notes or threading.current_thread() is not threading.main_thread():
        yield
        return
    from prefect.utilities import engine

    theirs = engine.TerminationSignal

    class Termination(Dropped, theirs):
        """What Prefect raises for SIGTERM while a flow runs."""

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        raise Interruption(number)

    before = {number: signal.getsignal(number) for number in TO_END}
    ours = [number for number, handler in before.items() if handler is signal.default_int_handler]
    for number in ours:
        signal.signal(number, interrupt)
    engine.TerminationSignal = Termination  # ty: ignore[invalid-assignment]
    try:
        yield
    except BaseException as error:
        for one in causes(error):
            if isinstance(one, Dropped):
                one.has_arrived = True
        raise
    finally:
        engine.TerminationSignal = theirs
        for number in ours:
            signal.signal(number, before[number])


def end_at_once(status: int) -> None:
    """Have a request to end do so from here on with ``status``: all has been said, and nobody waits for the rest."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        os._exit(status)

    for number in TO_END:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def _noting(note: int, before: Callable[[sys.UnraisableHookArgs], object]) -> Callable[[sys.UnraisableHookArgs], None]:
    """What is told of exceptions that Python has to drop: those of signals are noted, all others are said as before."""

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, Dropped):  # it says so itself
            return
        if (number := _number_of(dropped)) is None:
            before(dropped)
        else:
            os.write(note, bytes([number]))

    return hook


def _number_of(dropped: sys.UnraisableHookArgs) -> int | None:
    """The signal to send for an exception that was dropped; none if no signal had raised it."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        return next((number for number in TO_END if signal.getsignal(number) is not signal.SIG_IGN), None)
    return ALSO.get(dropped.exc_type.__name__)


def _send_again(lost: int) -> None:
    """Send each signal of which the exception was lost to the main thread, once it may be out of the callback."""
    while number := os.read(lost, 1):
        time.sleep(SOON)
        signal.pthread_kill(threading.main_thread().ident or 0, number[0])
