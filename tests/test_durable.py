"""Writing files: whole or not there, and on the disk when that is said."""

from __future__ import annotations

import doctest
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks import durable


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with something in it."""
    (tmp_path / "file").write_text("old")
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("write", "place"),
    [
        (durable.write, "fsync"),
        (durable.write, "fdopen"),
        (durable.write, "replace"),
        (durable.write_soon, "fdopen"),
        (durable.write_soon, "replace"),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(
    file: Path, monkeypatch: pytest.MonkeyPatch, place: str, write: object
) -> None:
    """Wherever a write fails, the old content is there, and no scrap of the new one."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path if place == "replace" else durable.os, place, fail)
        with pytest.raises(OSError, match="No space left"):
            write(file, b"new", temporary=file.with_name("temporary"))
    assert file.read_text() == "old"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [durable.write, durable.write_soon])
def test_what_a_kill_left_is_written_over(file: Path, write: object) -> None:
    """A longer scrap of an earlier writer does not show in what is written now."""
    temporary = file.with_name("temporary")
    temporary.write_bytes(b"a scrap that is longer")
    write(file, b"new", temporary=temporary)
    assert file.read_bytes() == b"new"
    assert not temporary.exists()


def test_file_and_folder_reach_the_disk_before_a_write_is_done(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before it has its name, and the folder after it."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noted_replace(one: Path, other: Path) -> Path:
        events.append(f"rename {one.name}")
        return replace(one, other)

    monkeypatch.setattr(durable.os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    durable.write(file, b"new", temporary=file.with_name("temporary"), mode=0o600)
    assert events == ["sync temporary", "rename temporary", f"sync {file.parent.name}"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_system_is_settled_or_says_why_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling asks for one file system where the system can, for all where it cannot, and passes on a failure."""
    durable.settle(file.parent)
    with pytest.raises(FileNotFoundError):
        durable.settle(file.parent / "nowhere")

    def failing(_: int) -> int:
        durable.ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(durable.ctypes, "CDLL", lambda *_, **__: type("Library", (), {"syncfs": staticmethod(failing)}))
    with pytest.raises(OSError, match="Input/output error"):
        durable.settle(file.parent)
    asked: list[str] = []
    monkeypatch.setattr(durable.ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(durable.os, "sync", lambda: asked.append("sync"))
    durable.settle(file.parent)
    assert asked == ["sync"]


def test_a_disk_is_full_where_next_to_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a megabyte that is ours to write is next to nothing, however much is kept for others."""
    assert durable.has_room(tmp_path)
    left = os.statvfs(tmp_path)
    monkeypatch.setattr(durable.os, "statvfs", lambda _: SimpleNamespace(f_bavail=200, f_frsize=4096, f_bfree=9**9))
    assert not durable.has_room(tmp_path)
    assert left.f_bavail * left.f_frsize > durable.LEAST_SPACE


def test_room_is_seen_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte is written and removed; what is refused for another reason than space is no want of it."""
    assert not durable.finds_no_room(tmp_path)
    assert not durable.finds_no_room(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert durable.finds_no_room(tmp_path)


def test_examples() -> None:
    """What the documentation shows is what comes out."""
    assert not doctest.testmod(durable).failed
