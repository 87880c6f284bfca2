"""``layerwise doctor``: what is wrong with a root, and what to do about it; a line for each.

It looks and changes nothing, and loads neither Prefect nor TensorFlow, nor, where the store is a file, MLflow. With
``--fix`` it mends what costs nothing to mend and can be made again.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import environment, processes
from flows.launching import Unanswered, close_crashed_flow_runs
from flows.locks import Busy, alone_with_results, holders
from flows.printing import BUSY, DONE, FAILED, Terminal, refuse, say
from layerwise.sizes import in_words
from tasks.provenance import LOCK
from tasks.records import File, listed, opened
from tasks.tracking import health
from tasks.tracking.store import (
    TrackingError,
    check_database,
    failures_in_one_line,
    file_of,
    is_new,
    open_store,
    store_uri,
)

VERIFYING_SECONDS = 1.0
"""How long results are verified for, the newest first, unless all are asked for."""

WRITING_SECONDS = 60.0
"""How old a file is that nobody can be writing any more."""

LEAST_DISK = 1_000_000_000
"""Bytes of disk below which a run may not find room for its models."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what it is.
        words: how it is.
        remedy: what to do about it; empty where all is well.
    """

    what: str
    words: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{'look' if self.remedy else 'ok':<5} {self.what:<10} {self.words}{self.remedy and '; ' + self.remedy}"


def doctor_command(root: Path, *, fix: bool, thorough: bool) -> int:
    """Look at a root, and say what needs attention. Returns the exit status: 0 where nothing does.

    Args:
        root: what to look at.
        fix: whether to mend what can be mended safely.
        thorough: whether to verify every stored result, however long that takes.
    """
    console = Terminal()
    if fix:
        try:
            for line in _mended(root):
                say(line, console)
        except Busy as busy:
            return refuse(f"--fix: {busy}", BUSY)
        except (TrackingError, Unanswered) as error:
            return refuse(f"--fix: {error}", FAILED)
    found = [finding for check in CHECKS for finding in check(root)]
    found += _results(root, seconds=None if thorough else VERIFYING_SECONDS)
    for finding in found:
        say(finding.line, console)
    return FAILED if any(finding.remedy for finding in found) else DONE


# --- the tracking store -------------------------------------------------------------------------------------


def _store(root: Path) -> Iterator[Finding]:
    if is_new(root):
        yield Finding("store", f"nothing is tracked yet: there is no {file_of(root)}")
    elif store_uri(root).startswith("sqlite:"):
        yield from _database(root)
    else:
        yield _server(root)


def _database(root: Path) -> Iterator[Finding]:
    try:
        store = check_database(root)
    except TrackingError as error:
        yield _refused(error, otherwise="close what holds it")
        return
    size = in_words(store.path.stat().st_size)
    if store.on_network:
        yield Finding(
            "store", f"{store.path} is on a network file system", "set LAYERWISE_ROOT to a folder on a local disk"
        )
    elif store.journal != "wal":
        yield Finding("store", f"{store.path} has no write-ahead log", "the next `layerwise run` switches it on")
    else:
        yield Finding("store", f"{store.path}, {size}, with a write-ahead log, made by this MLflow")
    try:
        yield from _leftovers(health.leftovers(store.path))
    except sqlite3.Error as error:
        yield Finding("runs", f"{store.path} cannot be read ({error})", "close what holds it")


def _server(root: Path) -> Finding:
    environment.prepare(root)
    try:
        open_store(root)
    except TrackingError as error:
        return _refused(error, otherwise="start it, or correct or unset MLFLOW_TRACKING_URI")
    return Finding("store", "the server that MLFLOW_TRACKING_URI names answers; its runs are not looked at")


def _refused(error: TrackingError, *, otherwise: str) -> Finding:
    """A store that cannot be used; the message mostly ends with what to do."""
    words, _, remedy = str(error).partition("; ")
    return Finding("store", words, remedy or otherwise)


def _leftovers(found: health.Leftovers) -> Iterator[Finding]:
    fix = "`layerwise run` takes them over, `layerwise doctor --fix`"
    if found.orphans:
        yield Finding(
            "runs", f"RUNNING, but their process has ended: {_by_study(found.orphans.values())}", f"{fix} closes them"
        )
    if found.models:
        yield Finding("models", f"never finished: {_by_study(found.models.values())}", f"{fix} deletes them")
    if found.elsewhere:
        yield Finding(
            "runs", f"RUNNING on another machine, or nobody's: {_by_study(found.elsewhere)}; no telling from here"
        )
    if not found.orphans:
        yield Finding("runs", "none is left RUNNING by a process that has ended")
    if not found.models:
        yield Finding("models", "none is left half-made")


def _by_study(studies: Iterable[str] | Counter[str]) -> str:
    counts = studies if isinstance(studies, Counter) else Counter(studies)
    return ", ".join(f"{study} ({count})" for study, count in sorted(counts.items()))


# --- the private folder -------------------------------------------------------------------------------------


def _results(root: Path, *, seconds: float | None) -> Iterator[Finding]:
    folder = environment.results_folder(root)
    found = listed(folder)
    size = in_words(sum(file.size for file in found.results))
    verified, damaged = _verified(found.results, seconds)
    checked = (
        "all verified" if verified == len(found.results) else f"the newest {verified:,} verified (--all: every one)"
    )
    if damaged:
        some = ", ".join(file.path.name for file in damaged[:3])
        yield Finding(
            "results",
            f"{len(damaged)} of {verified:,} that were verified are damaged or not ours, in {folder}: {some}",
            "the next run that wants them computes them again; delete them if you like",
        )
    else:
        yield Finding("results", f"{len(found.results):,} stages and scores, {size}, {checked}, in {folder}")
    unfinished = [file for file in found.unfinished if file.written < time.time() - WRITING_SECONDS]
    if found.damaged or unfinished:
        many = f"{len(found.damaged)} set aside as damaged, {len(unfinished)} never finished"
        yield Finding("results", many, "`layerwise clean --yes` removes them")


def _verified(files: tuple[File, ...], seconds: float | None) -> tuple[int, list[File]]:
    """How many results were verified in that time, and which of them are no sound records."""
    until, damaged = None if seconds is None else time.monotonic() + seconds, []
    for number, file in enumerate(files):
        if until is not None and time.monotonic() > until:
            return number, damaged
        try:
            opened(file.path.read_bytes(), file.path.name)
        except FileNotFoundError:  # a clean is under way
            continue
        except (OSError, ValueError):
            damaged.append(file)
    return len(files), damaged


def _folders(root: Path) -> Iterator[Finding]:
    open_to_others = [folder for folder in _private(root) if stat.S_IMODE(folder.stat().st_mode) & 0o077]
    for folder in open_to_others:
        mode = stat.S_IMODE(folder.stat().st_mode)
        yield Finding("folders", f"{folder} is open to others (mode {mode:04o})", f"chmod 700 {folder}")
    if not open_to_others:
        yield Finding("folders", f"{environment.private_folder(root)} is open to its owner alone")


def _private(root: Path) -> list[Path]:
    folders = (
        environment.private_folder(root),
        environment.results_folder(root),
        environment.prefect_home(root),
        environment.locks_folder(root),
    )
    return [folder for folder in folders if folder.is_dir()]


def _locks(root: Path) -> Iterator[Finding]:
    held = holders(root)
    stale = [one for one in held if not one.alive]
    for one in held:
        if one.alive:
            yield Finding("locks", f"{one.words} is at work")
    if stale:
        yield Finding(
            "locks",
            f"{len(stale)} left by processes that have ended, which hold nothing up",
            "`layerwise doctor --fix` removes them",
        )
    if not held:
        yield Finding("locks", "nobody is at work")


def _servers(root: Path) -> Iterator[Finding]:
    orphans = processes.orphan_servers(root)
    for process in orphans:
        yield Finding("servers", f"process {process.pid} ({process.words}) has lost its parent", f"kill {process.pid}")
    if not orphans:
        yield Finding("servers", "none has outlived the command that started it")


# --- the surroundings ---------------------------------------------------------------------------------------


def _versions(_: Path) -> Iterator[Finding]:
    pins = _pins(LOCK)
    if not pins:
        yield Finding("versions", f"not compared: there is no {LOCK.name} beside this code")
        return
    other = [
        f"{name} {here or 'is not installed'} (locked: {' or '.join(sorted(locked))})"
        for name, locked in pins.items()
        if (here := _installed(name)) not in locked
    ]
    if other:
        some = ", ".join(other[:4]) + (", …" if len(other) > 4 else "")
        yield Finding("versions", some, "`make setup` installs what is locked")
    else:
        yield Finding("versions", f"all {len(pins)} as {LOCK.name} has them")


def _pins(lock: Path) -> dict[str, set[str]]:
    """Name -> versions in the lock, which depend on the system; without what this system has no need of."""
    try:
        text = lock.read_text()
    except OSError:
        return {}
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)[ \t]*(;?)", text, re.MULTILINE)
    found: dict[str, set[str]] = {}
    for name, pin, marker in pins:
        if not marker or _installed(name) is not None:
            found.setdefault(name, set()).add(pin)
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _telemetry(_: Path) -> Iterator[Finding]:
    lacking = [name for name, off in environment.TELEMETRY_OFF.items() if environment.SETTINGS.get(name) != off]
    if lacking:
        yield Finding("telemetry", f"not switched off: {', '.join(lacking)}", "see flows/environment.py")
    else:
        yield Finding("telemetry", "every command switches it off: " + ", ".join(environment.TELEMETRY_OFF))


def _disk(root: Path) -> Iterator[Finding]:
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    words = f"{in_words(free)} free for {root}"
    yield Finding("disk", words, "" if free >= LEAST_DISK else "make room; `layerwise clean` shows what can go")


CHECKS: tuple[Callable[[Path], Iterable[Finding]], ...] = (
    _store, _folders, _locks, _servers, _versions, _telemetry, _disk,
)  # fmt: skip


# --- mending ------------------------------------------------------------------------------------------------


def _mended(root: Path) -> Iterator[str]:
    """Mend what can be made again, while nobody is at work, and say what was done."""
    if not environment.private_folder(root).is_dir():
        return
    with alone_with_results(root):
        for folder in _private(root):
            if stat.S_IMODE(folder.stat().st_mode) & 0o077:
                folder.chmod(0o700)
                yield f"fixed {folder} is open to its owner alone now"
        for name in _told_of_crashes(root):
            yield f"fixed the flow run {name} is marked as crashed"
        for one in holders(root):
            if not one.alive:
                one.file.unlink(missing_ok=True)
                yield f"fixed {one.file.name} is removed"
        if not is_new(root) and store_uri(root).startswith("sqlite:"):
            yield from _mended_store(root)


def _told_of_crashes(root: Path) -> list[str]:
    """Have Prefect know of flow runs that were killed, before the notes go that say so."""
    known = (environment.prefect_home(root) / "prefect.db").exists() and any(not one.alive for one in holders(root))
    if not known:
        return []
    environment.prepare(root)
    return close_crashed_flow_runs(root)


def _mended_store(root: Path) -> Iterator[str]:
    path = check_database(root).path
    try:
        found = health.leftovers(path)
    except sqlite3.Error as error:
        raise TrackingError(f"{path} cannot be read ({error}); close what holds it, and try again.") from None
    if not (found.orphans or found.models):
        return
    environment.prepare(root)
    with failures_in_one_line("mending the store", store_uri(root)):
        health.mend(open_store(root), found)
    if found.orphans:
        yield f"fixed closed as KILLED: {_by_study(found.orphans.values())}"
    if found.models:
        yield f"fixed deleted models that were never finished: {_by_study(found.models.values())}"
