"""``layerwise doctor``: what is wrong with a root, and what to do about it; a line for each.

It looks and changes nothing, and loads neither Prefect nor TensorFlow, nor, where the store is a file, MLflow. With
``--fix`` it mends what costs nothing to mend and can be made again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from flows import environment
from flows.checks import by_study, examined, open_folders
from flows.launching import Unanswered, close_crashed_flow_runs
from flows.locks import Busy, alone_with_results, holders
from flows.printing import BUSY, DONE, FAILED, Terminal, refuse, say
from tasks.tracking import health, rows
from tasks.tracking.store import (
    FROM_RESULTS,
    TrackingError,
    check_database,
    failures_in_one_line,
    is_new,
    open_store,
    store_uri,
)


def doctor_command(root: Path, *, fix: bool, thorough: bool) -> int:
    """Look at a root, and say what needs attention. Returns the exit status: 0 where nothing does.

    Args:
        root: what to look at.
        fix: whether to mend what can be mended safely.
        thorough: whether to verify everything that is stored, however long that takes.
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
    status = DONE
    for finding in examined(root, thorough=thorough):
        say(finding.line, console)
        status = FAILED if finding.needs_attention else status
    return status


def _mended(root: Path) -> Iterator[str]:
    """Mend what can be made again, while nobody is at work, and say what was done."""
    if not environment.private_folder(root).is_dir():
        return
    with alone_with_results(root):
        for folder in open_folders(root):
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
        if harm := rows.damage(path):  # writing could harm it more
            raise TrackingError(f"{path} is damaged ({harm}); {FROM_RESULTS}")
        found = health.leftovers(path)
    except sqlite3.Error as error:
        raise TrackingError(f"{path} cannot be read ({error}); close what holds it, and try again.") from None
    if not (found.orphans or found.models):
        return
    environment.prepare(root)
    with failures_in_one_line("mending the store", store_uri(root)):
        health.mend(open_store(root), found)
    if found.orphans:
        yield f"fixed closed as KILLED: {by_study(found.orphans.values())}"
    if found.models:
        yield f"fixed deleted models that were never finished: {by_study(found.models.values())}"
