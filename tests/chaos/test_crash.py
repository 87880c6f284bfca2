"""Crashes at every write, fsync, rename and commit that a run makes below its root, one after the other.

Every event of a run is listed first. Then, for one event after the other, a run dies just before it, and where the
event is a write also in its middle; the next run must end as if nothing had happened. Dying after an event is dying
before the next one, for nothing reaches the disk in between.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import environment
from tests.chaos import roots, state, trials
from tests.chaos.crashing import Event, Stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

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


@pytest.fixture(scope="module")
def scene(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
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


def recovered(stage: Stage, root: Path, at: int, action: str, expected: state.State) -> str:
    """Crash a run, and see that the next one ends well; what is wrong, in a line, or nothing."""
    died = stage.play(root, at=at, action=action)
    last = stage.events()[-1].sort if stage.events() else "nothing"
    stored = state.stored(root)
    ended = stage.play(root)
    out, err = stage.said()
    wrong = [
        "" if died == -9 or ended == 0 == died else f"the run that was to die ended with {died}",
        "" if (ended, err) == (0, "") else f"the next run ended with {ended}: {err or out}",
        *(state.differences(expected, state.of(root))[:3] if ended == 0 else ()),
        "" if stored.items() <= state.stored(root).items() else "a stored stage was computed again",
    ]
    said = "; ".join(filter(None, wrong))
    print(f"{action} before event {at}, {last}: {said or 'recovered'}")
    return f"{action} at {at}, {last}: {said}" if said else ""


@pytest.mark.parametrize("part", ["nothing", "rest"])
def test_every_crash_is_recovered(stage: Stage, scene: Scene, tmp_path: Path, part: str) -> None:
    """Wherever a run dies, the next one ends in the state of the undisturbed run, each stored stage computed once."""
    listed_points = crashes(getattr(scene, part))
    chosen = trials.points(listed_points, few=8)
    failures = []
    for number, (event, action) in chosen:
        root = tmp_path / str(number)
        root = empty(root) if part == "nothing" else copy_of(scene.ready, root)
        failures.append(recovered(stage, root, event.number, action, scene.state))
        shutil.rmtree(root)
    kind = {"nothing": "from an empty root to the last result", "rest": "from opening runs to the end"}[part]
    trials.count(
        f"crashes {kind}, {len(chosen)} points of {len(listed_points)}", list(filter(None, failures)), len(chosen)
    )


def test_every_crash_while_the_store_is_made_is_recovered(stage: Stage, tmp_path: Path) -> None:
    """A process that dies while MLflow's tables are made leaves no store or a whole one; the next makes or takes it."""
    whole = empty(tmp_path / "whole")
    assert stage.play(whole, command=("store",)) == 0
    events = stage.events()
    chosen, failures = trials.points(events, few=30), []
    for number, event in chosen:
        root = empty(tmp_path / str(number))
        died = stage.play(root, at=event.number, action="torn", command=("store",))
        ended = stage.play(root, command=("store",))
        if (died, ended, tables(root), state.leftovers(root)) != (-9, 0, tables(whole), []):
            failures.append(f"{event.sort}: {died}, {ended}, {stage.said()}, {state.leftovers(root)}")
        shutil.rmtree(root)
    trials.count(f"crashes while the store is made, {len(chosen)} points of {len(events)}", failures, len(chosen))


def tables(root: Path) -> list[set[str]]:
    """What a store is made of: of every table its columns and constraints, which MLflow writes in any order."""
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        made = store.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        return [set(re.split(r"[\n\t, ()]+", sql)) for (sql,) in made]
