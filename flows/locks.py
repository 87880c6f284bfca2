"""One process per run and root: the kernel holds the lock, so a process that is gone leaves none."""

import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flows.environment import locks_folder


class Busy(RuntimeError):
    """Another process works on the same run; the message is one line that names it."""


@contextmanager
def claim(root: Path, run_key: str) -> Generator[None]:
    """Hold the run ``run_key`` of ``root`` while the body runs.

    Raises :class:`Busy` at once when another process, or this one, holds it already.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", run_key):
        raise ValueError(f"run_key is {run_key!r}; expected 1 to 128 letters, digits, - or _")
    folder = locks_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder / f"{run_key}.lock", is_singleton=False)
    holder = folder / f"{run_key}.holder"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise Busy(f"{_described(holder)} works on this run; wait for it, or stop it.") from None
    try:
        _write(holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _write(holder: Path) -> None:
    """Say who holds the lock; renamed into place, so that a reader never meets half a line."""
    temporary = holder.with_suffix(".new")  # of the lock's holder alone, so that a kill leaves one at most
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    temporary.write_text(json.dumps({"pid": os.getpid(), "since": since}))
    temporary.replace(holder)


def _described(holder: Path) -> str:
    try:
        content = json.loads(holder.read_text())
        return f"Process {int(content['pid'])} (since {content['since']:.40})"
    except (OSError, ValueError, KeyError, TypeError):  # between taking the lock and naming itself
        return "Another process"
