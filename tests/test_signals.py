"""Requests to end: real signals to real processes, at the moments at which Python would drop what they raise."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

BEGIN = """
import gc, os, signal, threading, time
from contextlib import nullcontext
from flows import server, signals

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})

class Waiting:
    def __del__(self):
        time.sleep(20)

def collected():  # as at the end of a run: a collection calls back, and a signal comes meanwhile
    left = Dropping()
    left.itself = left
    del left
    gc.collect()

signals.heed()
try:
    {then}
except KeyboardInterrupt:
    print("interrupted")
except BaseException as error:
    print(type(error).__name__)
else:
    print("lost")
"""

DROPPED = "collected(); time.sleep(20)"

TWICE = "collected(); Waiting(); time.sleep(20)"

IN_A_FLOW = """
    from prefect.utilities.engine import capture_sigterm
    with capture_sigterm():
        collected()
        time.sleep(20)
"""

SERVER_GONE = """
    import subprocess
    from pathlib import Path
    server.answers = lambda _: True
    gone = subprocess.Popen(["sleep", "0.5"])
    with server.Server("http://127.0.0.1:9/api", Path("server.log"), gone).ready():
        Waiting()
        time.sleep(20)
"""

SILENTLY = """
    from prefect.utilities.engine import capture_sigterm
    with signals.none_dropped(), {around}:
        try:
            os.kill(os.getpid(), signal.{name})
        except BaseException:
            pass  # as libraries in C++ do, and Prefect does when a flow's last word is said
        time.sleep(20)
"""

CLOSING = """
    try:
        {within}
    except BaseException:
        time.sleep(0.5)
        print("closed")
        raise
"""

AFTERWARDS = """
    from prefect.utilities.engine import capture_sigterm
    try:
        with signals.none_dropped(), {around}:
            collected()
            time.sleep(20)
    except KeyboardInterrupt:
        pass
    time.sleep(0.5)
"""

AT_THE_END = """
    threading.Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.{name}), time.sleep(20))).start()
    server.end_process(3)
"""


@dataclass(frozen=True)
class Said:
    """What a process printed, and its status."""

    status: int
    out: str
    err: str


def said(then: str, name: str, ignored: tuple[int, ...] = ()) -> Said:
    """A process that does something while a signal comes; some signals it is started without."""

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        if signal.SIGINT not in ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    program = BEGIN.replace("{then}", then.strip("\n ")).replace("{name}", name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, preexec_fn=prepare, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_comes_in_a_callback_is_not_lost(name: str) -> None:
    """Python drops what is raised in a collection; it is raised again soon after, and nothing is printed of it."""
    assert said(DROPPED, name) == Said(0, "interrupted\n", "")


def test_one_that_is_dropped_again_is_sent_again() -> None:
    """The callback that it falls into then ends with it, and the next time it arrives."""
    assert said(TWICE, "SIGTERM") == Said(0, "interrupted\n", "")


def test_a_request_to_end_is_not_lost_where_ctrl_c_is_ignored() -> None:
    """As in what a shell starts in the background."""
    assert said(DROPPED, "SIGTERM", ignored=(signal.SIGINT,)) == Said(0, "interrupted\n", "")


@pytest.mark.parametrize("around", ["nullcontext()", "capture_sigterm()"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_a_library_drops_in_a_run_is_not_lost(name: str, around: str) -> None:
    """However silently: what it raises is gone without having arrived."""
    assert said(SILENTLY.replace("{around}", around), name) == Said(0, "interrupted\n", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_is_dropped_in_a_callback_of_a_run_is_sent_once(name: str) -> None:
    """A second one would cut short the closing of the run."""
    within = "with signals.none_dropped(): collected(); time.sleep(20)"
    assert said(CLOSING.replace("{within}", within), name) == Said(0, "closed\ninterrupted\n", "")


@pytest.mark.parametrize("around", ["nullcontext()", "capture_sigterm()"])
def test_a_signal_that_has_arrived_is_not_sent_again(around: str) -> None:
    """Whoever then forgets what it raised has heard it."""
    assert said(AFTERWARDS.replace("{around}", around), "SIGTERM") == Said(0, "lost\n", "")


def test_a_request_to_end_that_prefect_takes_is_not_lost() -> None:
    """While a flow runs Prefect raises an exception of its own, and passes it on."""
    assert said(IN_A_FLOW, "SIGTERM") == Said(0, "interrupted\n", "")


def test_the_end_of_prefects_server_is_not_lost() -> None:
    """The signal that tells of it raises an exception of ours."""
    assert said(SERVER_GONE, "SIGTERM") == Said(0, "ServerProblem\n", "")


def test_other_exceptions_that_are_dropped_are_said() -> None:
    """A defect in a callback is no signal."""
    seen = said("type('Broken', (), {'__del__': lambda self: 1 / 0})()", "SIGTERM")
    assert (seen.status, seen.out) == (0, "lost\n")
    assert "ZeroDivisionError" in seen.err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_at_the_very_end_changes_no_status(name: str) -> None:
    """When all has been said the process ends at once, with the status that it was to have."""
    assert said(AT_THE_END, name) == Said(3, "", "")
