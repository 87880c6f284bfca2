"""Temporary files: gone when they were used, and a full disk of them is told from any other failure."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks import durable, owners, scratch
from tasks.scratch import PREFIX, ScratchFull, own_place

NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes of folders full disks; the last one is given back."""

    def fill(*names: str) -> Path:
        places = [tmp_path / name for name in names]
        for place in places:
            place.mkdir()
        monkeypatch.setattr(durable, "has_room", lambda folder: not any(map(folder.is_relative_to, places)))
        return places[-1]

    return fill


def words(place: Path | str) -> str:
    return f"the disk of temporary files, {place}, is full; free space on it, or name another in TMPDIR, and run again."


@pytest.mark.parametrize("known", [tempfile.gettempdir, "TMPDIR", "SQLITE_TMPDIR"])
def test_room_is_looked_for_wherever_temporary_files_go(
    tmp_path: Path, full: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, known: str | Callable[[], str]
) -> None:
    """In the place that Python chose, and where SQLite writes: that stays with what the environment names."""
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    place = full("temporary")
    assert not scratch.is_why(tmp_path)
    if isinstance(known, str):
        monkeypatch.setenv(known, str(place))
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
    assert scratch.is_why(tmp_path)
    assert scratch.in_words() == words(place)
    assert not scratch.is_why(place), "the root's own disk is full, too, and is said instead"


def test_where_no_place_can_be_written_to_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then finds no place at all, which it words in its own way."""

    def nowhere(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("gettempdir", "TemporaryDirectory"):
        monkeypatch.setattr(scratch.tempfile, name, nowhere)
    with pytest.raises(ScratchFull) as found, scratch.scratch():
        raise AssertionError("not reached")
    assert str(found.value) == words(tmp_path)


@pytest.mark.parametrize(
    ("error", "is_space"),
    [
        (OSError(errno.ENOSPC, NO_SPACE), True),
        (RuntimeError(f"cannot decrement a count (errno = 28, error message = '{NO_SPACE}')"), True),
        (ValueError("the reason"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_what_found_no_room_is_told_from_what_failed_meanwhile(
    full: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: Exception, is_space: bool
) -> None:
    """Libraries word it in their own ways; another failure stays what it is, however full the disk."""
    used = []

    def fail() -> None:
        with scratch.scratch() as folder:
            used.append(folder)
            (folder / "file").write_text("x")
            raise KeyError("raised in the handling of it") from error

    with pytest.raises(KeyError):
        fail()
    place = full("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(ScratchFull if is_space else KeyError) as found:
        fail()
    assert not is_space or str(found.value) == words(place)
    assert [folder.exists() for folder in used] == [False, False]


def test_a_folder_that_somebody_removed_hides_no_reason() -> None:
    """Where the folder is gone the failure stays what it is."""

    def fail() -> None:
        with scratch.scratch() as folder:
            folder.rmdir()
            raise OSError(errno.ENOSPC, NO_SPACE, "elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        fail()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, ScratchFull), (errno.EACCES, PermissionError)])
def test_a_folder_that_cannot_be_made_says_why(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """With no room for the folder itself it is the same line; any other reason stays what it is."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(scratch.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(kind), scratch.scratch():
        raise AssertionError("not reached")


def test_it_travels() -> None:
    """Between processes it stays what it is."""
    error = ScratchFull("why")
    assert str(copy.copy(error)) == str(pickle.loads(pickle.dumps(error))) == "why"  # noqa: S301 - it was just made


# --- what killed processes leave ---------------------------------------------------------------------------

KEPT = """
import sys, tempfile
from multiprocessing.connection import Listener
from tasks.scratch import own_place, scratch
with own_place(), scratch() as folder:
    (folder / "model").touch()
    _, name = tempfile.mkstemp(prefix="__autograph_generated_file")
    print(Listener(family="AF_UNIX").address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for temporary files with a short name, as the usual one has: sockets stand no long ones."""
    place = Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    shutil.rmtree(place)


def keeping(place: Path) -> subprocess.Popen[str]:
    """A process that has temporary files of its own and of libraries, until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", KEPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place)},
    )


def test_a_process_has_all_temporary_files_in_one_place(temporary: Path) -> None:
    """Its own and those of libraries; with the block they are gone, and what was there before is used again."""
    with own_place(), scratch.scratch() as folder, tempfile.NamedTemporaryFile() as file:
        (place,) = temporary.iterdir()
        assert place.name.startswith(f"{PREFIX}{owners.mark()}-")
        assert folder.parent == Path(file.name).parent == place
    assert (list(temporary.iterdir()), tempfile.gettempdir()) == ([], str(temporary))


def test_the_disk_is_named_as_it_is_known(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the folder on it that a process has for itself."""
    monkeypatch.setattr(durable, "has_room", lambda folder: not folder.is_relative_to(temporary))
    with own_place(), pytest.raises(ScratchFull) as found, scratch.scratch():
        raise OSError(errno.ENOSPC, NO_SPACE)
    assert str(found.value) == words(temporary)


def test_without_room_for_a_place_of_its_own_a_process_goes_on(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever then needs room is told which disk has none."""
    made = tempfile.TemporaryDirectory

    def refuse(*_: object, ignore_cleanup_errors: bool = False, **options: object) -> object:
        if ignore_cleanup_errors:
            raise OSError(errno.ENOSPC, NO_SPACE)
        return made(**options)

    monkeypatch.setattr(scratch.tempfile, "TemporaryDirectory", refuse)
    with own_place(), scratch.scratch() as folder:
        assert folder.parent == temporary


def test_what_a_killed_process_leaves_the_next_one_removes(temporary: Path) -> None:
    """All of it, sockets and libraries' files among it, and nothing of a process that is at work."""
    killed, working = keeping(temporary), keeping(temporary)
    for process in (killed, working):
        assert process.stdout
        assert process.stdout.readline().startswith(str(temporary))
    killed.kill()
    killed.communicate()
    names = {one.pid: next(temporary.glob(f"{PREFIX}*-{one.pid}-*")) for one in (killed, working)}
    with own_place():
        assert [place.exists() for place in names.values()] == [False, True]
        assert len(list(names[working.pid].iterdir())) == 3
    working.communicate("")
    assert (killed.returncode, working.returncode, list(temporary.iterdir())) == (-signal.SIGKILL, 0, [])


def test_nothing_else_is_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of another machine's processes and of other users, links, and what is named otherwise."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, _, began = owners.mark().split("-")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "another machine")
        theirs = owners.mark().split("-")[0]
    target = temporary / "target"
    for name in (f"{PREFIX}{theirs}-{ended.pid}-{began}-x", f"{PREFIX}model-x", f"{PREFIX}x", "target/inside"):
        (temporary / name).mkdir(parents=True)
    (temporary / f"{PREFIX}{mine}-{ended.pid}-{began}-link").symlink_to(target)
    other = temporary / f"{PREFIX}{mine}-{ended.pid}-{began}-other"
    other.mkdir()
    if os.geteuid() == 0:
        os.chown(other, 12345, -1)
    else:
        other.rmdir()
    before = sorted(temporary.rglob("*"))
    with own_place():
        pass
    assert sorted(temporary.rglob("*")) == before
    (temporary / f"{PREFIX}{mine}-{ended.pid}-{began}-x").mkdir()
    with own_place():
        pass
    assert sorted(temporary.rglob("*")) == before, "while that of a process that has ended is removed"
