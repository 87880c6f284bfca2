"""One process per run and root, by real processes and a real SIGKILL."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import locks
from flows.environment import DiskFull, EnvironmentProblem
from flows.locks import Busy, claim, holders

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


def test_roots_that_share_a_store_share_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two roots that track to one file cannot both be at one run; to two files, or to a server, they can."""
    one, other = tmp_path / "one", tmp_path / "other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared/runs.db")
    with claim(one, "abc"):
        with pytest.raises(Busy, match=rf"^Process {os.getpid()} \(since .* works on this run;"), claim(other, "abc"):
            pass
        with claim(other, "abd"):
            pass
    # Also where one has as its own what the other names, by whatever name.
    (tmp_path / "link").symlink_to(one)
    (one / "mlruns").mkdir(exist_ok=True)
    for name in (one, tmp_path / "link"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{name}/mlruns/mlflow.db")
        with claim(other, "abc"):
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
            with pytest.raises(Busy), claim(one, "abc"):
                pass
            with pytest.raises(Busy), claim(tmp_path / "link", "abc"):
                pass
    for free in ("", "http://tracking.example:5000"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", free)
        with claim(one, "abc"), claim(other, "abc"):
            pass


def test_note_of_a_dead_process_is_not_believed(tmp_path: Path) -> None:
    """What a killed holder left names nobody, also where another process has its number by now."""
    with hold(tmp_path, "abc") as holder:
        note = tmp_path / ".layerwise/locks/abc.holder"
        alive = json.loads(note.read_text())
        with pytest.raises(Busy, match=rf"^Process {holder.pid} "), claim(tmp_path, "abc"):
            pass
        # The number is that of a running process, which began at another time.
        machine, number, _ = alive["owner"].split("/")
        note.write_text(json.dumps({**alive, "owner": f"{machine}/{number}/1"}))
        with pytest.raises(Busy, match=r"^Another process works on this run"), claim(tmp_path, "abc"):
            pass
        note.write_text(json.dumps(alive))
        holder.kill()
        holder.wait()
    (stale,) = holders(tmp_path)
    assert (stale.file, stale.alive, stale.words) == (note, False, "Another process")
    with claim(tmp_path, "abc"):
        assert json.loads(note.read_text())["pid"] == os.getpid()
    assert not note.exists()


def test_folder_that_cannot_be_locked_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in whose place a file is, a full disk, and a file system without locks are told with a remedy."""
    place = tmp_path / ".layerwise/locks"
    place.parent.mkdir()
    place.touch()
    with pytest.raises(EnvironmentProblem, match=rf"^Cannot lock {place} \(File exists\); .*LAYERWISE_ROOT\.$"):
        claim(tmp_path, "abc").__enter__()
    place.unlink()

    def failing(number: int) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", failing(errno.ENOSYS))
        with pytest.raises(EnvironmentProblem, match=r"\(Function not implemented\); mend that, or name a folder"):
            claim(tmp_path, "abc").__enter__()
    with monkeypatch.context() as patched:
        patched.setattr(locks, "_write", failing(errno.ENOSPC))
        with pytest.raises(DiskFull, match=r"^Cannot lock .* \(No space left on device\); free space on that disk"):
            claim(tmp_path, "abc").__enter__()
    with claim(tmp_path, "abc"):
        pass


NOBODY = """
import os, sys
from pathlib import Path
from flows.environment import EnvironmentProblem
from flows.locks import claim
os.setuid(65534)
try:
    with claim(Path(sys.argv[1]), "abc"):
        pass
except EnvironmentProblem as problem:
    print(problem)
"""


def test_folder_that_may_not_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    """Who has no right to the folder of locks is told which it is."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as somebody else")
    place = tmp_path / ".layerwise/locks"
    place.mkdir(parents=True, mode=0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    told = subprocess.run([sys.executable, "-c", NOBODY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert re.fullmatch(rf"Cannot lock {place}/abc\.lock \(Permission denied\); mend that, or .*\.\n", told.stdout), (
        told
    )
