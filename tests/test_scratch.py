"""Temporary files: gone when they were used, and a full disk of them is told from any other failure."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import durable, scratch
from tasks.scratch import ScratchFull

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
