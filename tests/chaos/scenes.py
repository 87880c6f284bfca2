"""What a run does to the files of its root, event by event, and at which of these events a trial interferes."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows import environment
from tests.chaos import roots, state, trials
from tests.chaos.crashing import Event, Stage

UNCOMMITTED = 10
"""One in so many of the frames that a transaction writes before its commit is a point of its own: SQLite's next reader
knows nothing of any of them."""


@dataclass(frozen=True)
class Scene:
    """What a run that nobody disturbs does and leaves.

    Attributes:
        nothing: its events from an empty root on, until it opens its runs, and those that store results; without those
            that make MLflow's tables, in a file that is not the store yet.
        rest: its events from then on, in a root that holds the store and every result.
        ready: that root, to be copied.
        state: what is left in the end.
    """

    nothing: list[Event]
    rest: list[Event]
    ready: Path
    state: state.State


def seen(stage: Stage, folder: Path) -> Scene:
    """Let the study run on a stage, and see what it does."""
    whole = empty(folder / "whole")
    assert stage.play(whole) == 0, stage.said()
    events = stage.events()
    begun = next(event.number for event in events if event.kind == "commit")
    ready = empty(folder / "ready")
    assert stage.play(ready, command=("store",)) == 0, stage.said()
    shutil.copytree(environment.results_folder(whole), environment.results_folder(ready), dirs_exist_ok=True)
    assert stage.play(copy_of(ready, folder / "again")) == 0, stage.said()
    trials.note(listed("from nothing", events))
    before = [event for event in events if event.number < begun or event.path.startswith(".layerwise")]
    before = [event for event in before if ".creating" not in event.path and event.sort != "fsync mlruns"]
    return Scene(before, stage.events(), ready, state.of(whole))


def empty(root: Path) -> Path:
    root.mkdir()
    roots.write_study(root, roots.TWO_ARMS)
    return root


def copy_of(ready: Path, root: Path) -> Path:
    shutil.copytree(ready, root)
    return root


def listed(of: str, events: list[Event]) -> Iterator[str]:
    """Every kind of event, and how often it comes."""
    counts = Counter(event.sort for event in events)
    yield f"{len(events)} events of a run {of}:"
    yield from (f"  {number:5} {sort}" for sort, number in sorted(counts.items()))


def crashes(events: list[Event]) -> list[tuple[Event, str]]:
    """Where to crash, and how."""
    found = []
    for event in events:
        uncommitted = event.path.endswith("-wal") and event.kind in {"frame", "write"}
        if uncommitted and event.number % UNCOMMITTED:
            continue
        found.append((event, "kill"))
        if event.kind in {"write", "commit"} and event.size > 1 and not uncommitted:
            found.append((event, "torn"))
    return found
