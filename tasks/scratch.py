"""Temporary files, and saying so where their disk is full: it is seldom the root's, and its remedy is another.

Folders of them carry the name of the process that made them, for one that is killed leaves them to the next.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks import durable, owners
from tasks.causes import causes

PREFIX = "layerwise-"
"""What the names of our folders begin with; the mark of the process that made them follows."""


class ScratchFull(RuntimeError):
    """The disk of temporary files has no room; the message names it and says what to do."""


@contextmanager
def own_place() -> Generator[None]:
    """Have all temporary files of this process in one folder, also those of its libraries; gone with the block.

    Those of processes that were killed are removed first.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=_prefix(), ignore_cleanup_errors=True)
    except OSError:  # there is no room: whoever needs it says so
        yield
        return
    with folder as place:
        before = tempfile.gettempdir()
        _remove_left(Path(before))
        tempfile.tempdir = place
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def scratch() -> Generator[Path]:
    """A folder for temporary files, gone with the block.

    Raises:
        ScratchFull: if something in the block finds no room there; what fails for another reason stays what it is.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=_prefix())
    except OSError as error:
        if durable.is_full(error) or _chosen() is None:
            raise ScratchFull(in_words()) from error
        raise
    with folder as place:
        try:
            yield Path(place)
        except Exception as error:
            if any(durable.is_full(one) for one in causes(error)) and _is_full(Path(place)):
                raise ScratchFull(in_words(_chosen())) from error
            raise


def _prefix() -> str:
    return f"{PREFIX}{owners.mark()}-"


def _remove_left(place: Path) -> None:
    """Remove the folders of processes of ours that have ended; those of other users and machines stay."""
    for folder in place.glob(f"{PREFIX}*"):
        if owners.is_mark_of_gone(folder.name.removeprefix(PREFIX)):
            with suppress(OSError):  # another has just removed it
                if folder.lstat().st_uid == os.geteuid():
                    shutil.rmtree(folder, ignore_errors=True)  # which follows no link


def is_why(folder: Path) -> bool:
    """Whether there is room in a folder and none for temporary files, which SQLite and others write unasked."""
    return durable.has_room(folder) and _full_place() is not None


def in_words(place: str | None = None) -> str:
    """Which disk is full, and what to do about it.

    Args:
        place: on it; the first place of temporary files that is full, if left out.
    """
    named = place or _full_place() or _chosen() or _asked()[0]
    return f"the disk of temporary files, {named}, is full; free space on it, or name another in TMPDIR, and run again."


def _full_place() -> str | None:
    """Where temporary files find no room: Python passes over a full disk, SQLite does not."""
    return next((place for place in _places() if _is_full(Path(place))), None)


def _places() -> Iterator[str]:
    yield from _asked()
    if chosen := _chosen():
        yield chosen


def _asked() -> list[str]:
    """Where SQLite writes temporary files."""
    asked = [os.environ[name] for name in ("SQLITE_TMPDIR", "TMPDIR") if os.environ.get(name)]
    return asked or ["/var/tmp"]  # noqa: S108 - it is looked at, not written to


def _chosen() -> str | None:
    """Where Python writes temporary files; nowhere, if none of the places that it knows can be written to."""
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None
    return str(place.parent if place.name.startswith(_prefix()) else place)


def _is_full(place: Path) -> bool:
    return place.is_dir() and not durable.has_room(place)
