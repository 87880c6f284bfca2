"""What ``layerwise doctor`` looks at: the store and what was published in it, results, folders, and the surroundings.

Every check reads and changes nothing. Those that verify content do so for a time that is given, and say how much of it
they verified.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import environment, processes
from flows.locks import holders
from layerwise.sizes import in_words
from tasks.provenance import LOCK
from tasks.records import damaged, listed
from tasks.tracking import health, held, rows
from tasks.tracking.store import (
    FROM_RESULTS,
    TrackingError,
    artifact_root,
    check_database,
    database_path,
    failures_in_one_line,
    file_of,
    is_new,
    misplaced,
    open_store,
    store_uri,
    taken_as_ours,
)

VERIFYING_SECONDS = 0.4
"""How long each kind of content is verified for, the newest first, unless all of it is asked for."""

WRITING_SECONDS = 60.0
"""How old a file is that nobody can be writing any more."""

LEAST_DISK = 1_000_000_000
"""Bytes of disk below which a run may not find room for its models."""

ALL = "(--all: every one)"
HELD = "close what holds it"
"""What to do about a database that another process has locked."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what it is.
        words: how it is.
        remedy: what to do about it; empty where all is well.
        minor: whether it is only said: it holds nothing up, and nothing is lost or untrue for it.
    """

    what: str
    words: str
    remedy: str = ""
    minor: bool = False

    @property
    def needs_attention(self) -> bool:
        """Whether somebody should do something about it."""
        return bool(self.remedy) and not self.minor

    @property
    def line(self) -> str:
        """As it is printed."""
        sign = "look" if self.needs_attention else "note" if self.minor else "ok"
        return f"{sign:<5} {self.what:<10} {self.words}{self.remedy and '; ' + self.remedy}"


Check = Callable[[Path, float], Iterable[Finding]]
"""Takes the root, and for how many seconds to verify what there may be much of."""


def examined(root: Path, *, thorough: bool) -> Iterator[Finding]:
    """Everything that is found of a root, one by one.

    Args:
        root: what to look at.
        thorough: whether to verify everything that is stored, however long that takes.
    """
    for what, check in CHECKS.items():
        try:
            yield from check(root, math.inf if thorough else VERIFYING_SECONDS)
        except OSError as error:
            yield Finding(what, f"{error.filename or root} cannot be read ({error.strerror or error})", "mend that")
        except sqlite3.Error as error:
            yield Finding(what, f"the database cannot be read ({error})", HELD)


# --- the tracking store -------------------------------------------------------------------------------------


def _store(root: Path, seconds: float) -> Iterator[Finding]:
    try:
        if is_new(root):
            yield _new(file_of(root))
        elif store_uri(root).startswith("sqlite:"):
            yield from _database(root, seconds)
        else:
            yield from _server(root, seconds)
    except TrackingError as error:
        words, _, remedy = str(error).partition("; ")  # it mostly ends with what to do
        is_file = store_uri(root).startswith("sqlite:")
        otherwise = HELD if is_file else "start it, or correct or unset MLFLOW_TRACKING_URI"
        yield Finding("store", words, remedy or otherwise)


def _new(file: Path) -> Finding:
    """A store in which nothing can be tracked yet, if no log says that something was."""
    why = f"{file} is empty" if file.exists() else f"there is no {file}"
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        return Finding("store", f"{why}, and {log.name} beside it is of one that was there", FROM_RESULTS)
    return Finding("store", f"nothing is tracked yet: {why}")


def _database(root: Path, seconds: float) -> Iterator[Finding]:
    store = check_database(root)
    harm = rows.damage(store.path, seconds)
    if harm:
        yield Finding("store", f"{store.path} is damaged ({harm})", FROM_RESULTS)
        return
    pages = "" if harm is not None else f", not all of its pages verified {ALL}"
    size = f"{in_words(store.path.stat().st_size)}{pages}"
    if store.on_network:
        remedy = "set LAYERWISE_ROOT to a folder on a local disk"
        yield Finding("store", f"{store.path} is on a network file system", remedy)
    elif store.journal != "wal":
        words = f"{store.path}, {size}, has no write-ahead log"
        yield Finding("store", words, "the next `layerwise run` switches it on", minor=True)
    else:
        yield Finding("store", f"{store.path}, {size}, with a write-ahead log, made by this MLflow")
    yield from _leftovers(health.leftovers(store.path))
    astray = {name: why for name, place in rows.places(store.path) if (why := misplaced(name, place, root))}
    for why in list(astray.values())[:1]:  # mostly it is the same of all
        words, _, remedy = why.partition("; ")
        yield Finding("studies", words, remedy)
    with taken_as_ours(f"what {store.path} holds"):
        found = rows.verified(store.path, seconds, without=astray)
    if found.num_studies or not astray:
        yield from _published(found)


def _server(root: Path, seconds: float) -> Iterator[Finding]:
    environment.set_variables(root)
    client = open_store(root)
    if seconds < math.inf:
        yield Finding("store", "the server that MLFLOW_TRACKING_URI names answers; its runs are not looked at (--all)")
        return
    from tasks.tracking.manifest import verified

    yield Finding("store", "the server that MLFLOW_TRACKING_URI names answers")
    with failures_in_one_line("verifying what was published", client.tracking_uri), taken_as_ours("what it holds"):
        found = verified(client)
    yield from _published(found)


def _leftovers(found: health.Leftovers) -> Iterator[Finding]:
    fix = "`layerwise run` takes them over, `layerwise doctor --fix`"
    if found.orphans:
        words = f"RUNNING, but their process has ended: {by_study(found.orphans.values())}"
        yield Finding("runs", words, f"{fix} closes them")
    if found.models:
        yield Finding("models", f"never finished: {by_study(found.models.values())}", f"{fix} deletes them")
    if found.elsewhere:
        words = f"RUNNING on another machine, or nobody's: {by_study(found.elsewhere)}; no telling from here"
        yield Finding("runs", words, minor=True)
    if not found.orphans:
        yield Finding("runs", "none is left RUNNING by a process that has ended")
    if not found.models:
        yield Finding("models", "none is left half-made")


def by_study(studies: Iterable[str] | Counter[str]) -> str:
    """How many of each study.

    Example:
        >>> by_study(["small", "other", "small"])
        'other (1), small (2)'
    """
    counts = studies if isinstance(studies, Counter) else Counter(studies)
    return ", ".join(f"{study} ({count})" for study, count in sorted(counts.items()))


def _published(found: held.Verified) -> Iterator[Finding]:
    for study, faults in found.faults:
        words = f"{study.name} is not as it was published: {', '.join(held.in_words(faults))}"
        yield Finding("studies", words, f"`{study.mends}` mends it, with the file and settings it was run with")
    if not found.num_studies:
        yield Finding("studies", "none is finished yet")
        return
    runs = f"{found.num_verified:,}" if found.complete else f"the newest {found.num_verified:,} of {found.num_runs:,}"
    whole = ", as they were published" if found.num_verified and not found.faults else ""
    more = "" if found.complete else f" {ALL}"
    unread = "; files behind a server are not read" if found.unreached else ""
    yield Finding("studies", f"{found.num_studies:,} finished, {runs} runs verified{whole}{more}{unread}")


# --- the private folder -------------------------------------------------------------------------------------


def _results(root: Path, seconds: float) -> Iterator[Finding]:
    folder = environment.results_folder(root)
    found = listed(folder)
    size = in_words(sum(file.size for file in found.results))
    verified, bad = damaged(found.results, seconds)
    if bad:
        some = ", ".join(file.path.name for file in bad[:3]) + (", …" if len(bad) > 3 else "")
        are = "is" if len(bad) == 1 else "are"
        words = f"{len(bad):,} of {verified:,} that were verified {are} damaged or not ours, in {folder}: {some}"
        yield Finding("results", words, "`layerwise clean --yes` removes them; what is wanted is computed again")
    elif not found.results:
        yield Finding("results", f"none is stored yet in {folder}")
    else:
        checked = "all verified" if verified == len(found.results) else f"the newest {verified:,} verified {ALL}"
        yield Finding("results", f"{len(found.results):,} stages and scores, {size}, {checked}, in {folder}")
    unfinished = [file for file in found.unfinished if file.written < time.time() - WRITING_SECONDS]
    if found.damaged or unfinished:
        words = f"{len(found.damaged)} set aside as damaged, {len(unfinished)} never finished"
        yield Finding("results", words, "`layerwise clean --yes` removes them", minor=True)


def _folders(root: Path, _: float) -> Iterator[Finding]:
    bad = [*_unusable(root), *_open_to_others(root)]
    yield from bad
    private = environment.private_folder(root)
    if not bad and private.is_dir():
        yield Finding("folders", f"{private} is open to its owner alone")
    elif not bad:
        missing = private if root.is_dir() else root
        yield Finding("folders", f"there is no {missing} yet; the first run makes it", minor=not root.is_dir())


def _unusable(root: Path) -> Iterator[Finding]:
    """What stands where a folder has to be, and folders in which a run could not write."""
    places = [*_private(root)]
    if file_of(root) == database_path(root) and store_uri(root).startswith("sqlite:"):
        places += [database_path(root).parent, artifact_root(root)]
    standing = dict.fromkeys(next(one for one in (place, *place.parents) if os.path.lexists(one)) for place in places)
    for place in standing:
        if not place.is_dir():
            remedy = "name a folder in LAYERWISE_ROOT" if root.is_relative_to(place) else "move it away"
            yield Finding("folders", f"{place} is no folder, and has to be one", remedy)
    elsewhere = "run in a folder of your own, or name one in LAYERWISE_ROOT"
    closed = [place for place in standing if place.is_dir() and not os.access(place, os.W_OK | os.X_OK)]
    if closed:
        uppermost = [str(place) for place in closed if not set(place.parents) & set(closed)]
        yield Finding("folders", f"{' and '.join(uppermost)} cannot be written to", elsewhere)
    for place in _private(root):
        if place.is_dir() and (owner := place.stat().st_uid) != os.geteuid():
            yield Finding("folders", f"{place} belongs to another user (id {owner}, not {os.geteuid()})", elsewhere)


def _open_to_others(root: Path) -> Iterator[Finding]:
    for folder in open_folders(root):
        mode = stat.S_IMODE(folder.stat().st_mode)
        yield Finding("folders", f"{folder} is open to others (mode {mode:04o})", f"chmod 700 {folder}")


def _private(root: Path) -> tuple[Path, ...]:
    return (
        environment.private_folder(root),
        environment.results_folder(root),
        environment.prefect_home(root),
        environment.locks_folder(root),
    )


def open_folders(root: Path) -> list[Path]:
    """The private folders of a root that others than their owner may enter."""
    return [folder for folder in _private(root) if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077]


def _locks(root: Path, _: float) -> Iterator[Finding]:
    found = holders(root)
    stale = [one for one in found if not one.alive]
    for one in found:
        if one.alive:
            yield Finding("locks", f"{one.words} is at work")
    if stale:
        words = f"{len(stale)} left by processes that have ended, which hold nothing up"
        yield Finding("locks", words, "`layerwise doctor --fix` removes them", minor=True)
    if not found:
        yield Finding("locks", "nobody is at work")


def _servers(root: Path, _: float) -> Iterator[Finding]:
    orphans = processes.orphan_servers(root)
    for process in orphans:
        yield Finding("servers", f"process {process.pid} ({process.words}) has lost its parent", f"kill {process.pid}")
    if not orphans:
        yield Finding("servers", "none has outlived the command that started it")


def _prefect(root: Path, seconds: float) -> Iterator[Finding]:
    file = environment.prefect_home(root) / "prefect.db"
    if not file.is_file():
        yield Finding("prefect", "no flow has run here yet")
        return
    if not os.access(file.parent, os.W_OK):  # SQLite could not open it
        yield Finding("prefect", f"{file} is not looked at: nothing can be written beside it", minor=True)
        return
    harm = rows.damage(file, seconds)
    if harm:
        remedy = (
            "move it away with its -wal and -shm files: a new one is made, which does not know past flows; results and"
            " MLflow's runs are not in it"
        )
        yield Finding("prefect", f"{file} is damaged ({harm})", remedy)
        return
    pages = "sound" if harm is not None else f"not all of its pages verified {ALL}"
    yield Finding("prefect", f"{file}, {in_words(file.stat().st_size)}, {pages}")


# --- the surroundings ---------------------------------------------------------------------------------------


def _versions(_: Path, __: float) -> Iterator[Finding]:
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


def _telemetry(_: Path, __: float) -> Iterator[Finding]:
    names = environment.TELEMETRY_OFF
    lacking = [name for name, off in names.items() if environment.SETTINGS.get(name) != off]
    if lacking:
        yield Finding("telemetry", f"not switched off: {', '.join(lacking)}", "see flows/environment.py")
    else:
        yield Finding("telemetry", f"every command switches it off ({', '.join(names)})")


def _disk(root: Path, _: float) -> Iterator[Finding]:
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    words = f"{in_words(free)} free for {root}"
    yield Finding("disk", words, "" if free >= LEAST_DISK else "make room; `layerwise clean` shows what takes it")


CHECKS: Mapping[str, Check] = {
    "folders": _folders,
    "store": _store,
    "results": _results,
    "locks": _locks,
    "servers": _servers,
    "prefect": _prefect,
    "versions": _versions,
    "telemetry": _telemetry,
    "disk": _disk,
}
