"""One process per run and root, by real processes and a real SIGKILL."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.locks import Busy, claim

HOLD = """
import sys
from pathlib import Path
from flows.locks import claim
with claim(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(root: Path, run_key: str) -> subprocess.Popen[str]:
    """A process that holds the run until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), run_key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    """The second process on a run leaves at once, with one line that names the first one's id and start."""
    with hold(tmp_path, "abc") as holder:
        expected = rf"Process {holder.pid} \(since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d\) works on"
        with pytest.raises(Busy, match=expected) as refusal, claim(tmp_path, "abc"):
            pass
        holder.communicate()
    assert "\n" not in str(refusal.value)


def test_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    """A run whose process was killed with SIGKILL can be claimed at once."""
    with hold(tmp_path, "abc") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with claim(tmp_path, "abc"):
            pass


def test_one_process_holds_a_run_once(tmp_path: Path) -> None:
    """The same process is refused too, and may claim the run again after it let go."""
    with claim(tmp_path, "abc"):
        with pytest.raises(Busy), claim(tmp_path, "abc"):
            pass
        with pytest.raises(Busy), claim(tmp_path, "abc"):  # the refusal has not let go of the first claim
            pass
    with claim(tmp_path, "abc"):
        pass


def test_other_runs_and_other_roots_are_free(tmp_path: Path) -> None:
    """A claim concerns one run of one root."""
    with claim(tmp_path / "a", "abc"), claim(tmp_path / "a", "abd"), claim(tmp_path / "b", "abc"):
        pass


def test_holder_that_has_not_named_itself_yet(tmp_path: Path) -> None:
    """A holder without a readable name is still a holder."""
    with claim(tmp_path, "abc"):
        for content in ("", "[]", '{"pid": "x", "since": 1}'):
            (tmp_path / ".layerwise/locks/abc.holder").write_text(content)
            with pytest.raises(Busy, match=r"^Another process works on this run;"), claim(tmp_path, "abc"):
                pass


@pytest.mark.parametrize("run_key", ["", "../abc", "a/b", "a\n", "x" * 129])
def test_run_key_cannot_leave_the_folder(tmp_path: Path, run_key: str) -> None:
    """A run key is a file name and nothing more; another one is refused before any file is made."""
    with pytest.raises(ValueError, match=re.escape(repr(run_key))), claim(tmp_path, run_key):
        pass
    assert not list(tmp_path.iterdir())
