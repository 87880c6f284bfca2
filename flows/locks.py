"""One process per run and root: the kernel holds the lock, so a process that is gone leaves none."""

import fcntl
import json
import os
import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from flows.environment import DiskFull, EnvironmentProblem, locks_folder
from tasks import durable, owners
from tasks.tracking.store import database_path, file_of, store_uri

NEW = ".new"
"""What the name of a note ends with while it is written."""


class Busy(RuntimeError):
    """Another process works on the same run; the message is one line that names it."""


@contextmanager
def claim(root: Path, run_key: str) -> Generator[bool]:
    """Hold the run ``run_key`` of ``root`` while the body runs; also in a store that several roots share.

    The body gets whether somebody held it before and was killed: then more may be half-done than the run shows.

    Raises :class:`Busy` at once when another process, or this one, holds it already, and
    :class:`flows.environment.EnvironmentProblem` when there is no way to lock.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", run_key):
        raise ValueError(f"run_key is {run_key!r}; expected 1 to 128 letters, digits, - or _")
    with ExitStack() as held:
        folders = filter(None, (locks_folder(root), _shared_folder(root)))
        killed = [held.enter_context(_holding(folder, run_key)) for folder in folders]
        yield any(killed)


def _shared_folder(root: Path) -> Path | None:
    """Where the roots agree that track to one and the same file; one that lies where a root has its own is that root's.

    Links are followed, for they are other names of the same file.
    """
    if not store_uri(root).startswith("sqlite:"):
        return None
    file = file_of(root).resolve()
    owner = file.parent.parent
    if file == database_path(owner):
        return None if owner == root.resolve() else locks_folder(owner)
    return file.with_name(f".{file.name}.locks")


@contextmanager
def _holding(folder: Path, run_key: str) -> Generator[bool]:
    lock = FileLock(folder / f"{run_key}.lock", is_singleton=False, fallback_to_soft=False)
    holder = folder / f"{run_key}.holder"
    with _failures_in_one_line(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise Busy(f"{_described(holder)} works on this run; wait for it, or stop it.") from None
        was_killed = holder.exists()
        try:
            _write(holder)
        except OSError:
            holder.with_suffix(NEW).unlink(missing_ok=True)
            lock.release()
            raise
    try:
        yield was_killed
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def using_results(root: Path) -> Generator[None]:
    """Keep the results of ``root`` from being cleared while the body runs; waits for a clearing that is under way."""
    with _results_lock(root).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def alone_with_results(root: Path) -> Generator[None]:
    """Clear results of ``root`` while the body runs, which nobody can be using then.

    Raises :class:`Busy` at once when a run is in progress there.
    """
    with _results_lock(root).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            working = [held.words for held in holders(root) if held.alive]
            raise Busy(f"{working[0] if working else 'Another process'} is using the results; wait for it.") from None
        yield


@dataclass(frozen=True)
class Holder:
    """Who said that it works on a run, and whether there is such a process."""

    file: Path
    words: str
    alive: bool


def holders(root: Path) -> list[Holder]:
    """Everybody who said that they work on a run of ``root``; no lock is touched for it."""
    files = sorted(locks_folder(root).glob("*.holder"))
    return [Holder(file, _described(file), _is_running(file)) for file in files]


def _is_running(holder: Path) -> bool:
    """Whether the process that wrote a note is there; of another machine's nothing is known, so it is."""
    try:
        return not owners.is_gone(json.loads(holder.read_text())["owner"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _results_lock(root: Path) -> Path:
    folder = locks_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "results.lock"


def _write(holder: Path) -> None:
    """Say who holds the lock; renamed into place, so that a reader never meets half a line."""
    temporary = holder.with_suffix(NEW)  # of the lock's holder alone, so that a kill leaves one at most
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    temporary.write_text(json.dumps({"pid": os.getpid(), "since": since, "owner": owners.this_process()}))
    temporary.replace(holder)


def _described(holder: Path) -> str:
    """Who a note says holds the lock, if that process is there; its number may long be somebody else's."""
    try:
        content = json.loads(holder.read_text())
        named = f"Process {int(content['pid'])} (since {content['since']:.40})"
    except (OSError, ValueError, KeyError, TypeError):  # between taking the lock and naming itself
        return "Another process"
    return named if _is_running(holder) else "Another process"


@contextmanager
def _failures_in_one_line(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:  # rights, a full disk, or a file system without locks
        if durable.is_full(error):
            raise DiskFull(
                f"Cannot lock {folder} ({error.strerror}); free space on that disk, and run again."
            ) from error
        raise EnvironmentProblem(
            f"Cannot lock {error.filename or folder} ({error.strerror or error}); mend that, or name a folder of your"
            " own on a local disk in LAYERWISE_ROOT."
        ) from error
