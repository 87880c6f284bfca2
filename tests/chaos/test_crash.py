"""Crashes at every write, fsync, rename and commit that a run makes below its root, one after the other.

Every event of a run is listed first. Then, for one event after the other, a run dies just before it, and where the
event is a write also in its middle; the next run must end as if nothing had happened. Dying after an event is dying
before the next one, for nothing reaches the disk in between.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos import state, trials
from tests.chaos.crashing import Stage
from tests.chaos.scenes import Scene, copy_of, crashes, empty

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]


NOT_REACHED = "the run ended before it came to that event"
"""Publishing goes on beside training, so that runs differ in how many events they have."""


def recovered(stage: Stage, root: Path, at: int, action: str, expected: state.State) -> str:
    """Crash a run, and see that the next one ends well; what is wrong, in a line, or nothing."""
    died = stage.play(root, at=at, action=action)
    last = stage.events()[-1].sort if stage.events() else "nothing"
    stored = state.stored(root)
    ended = stage.play(root)
    out, err = stage.said()
    wrong = [
        "" if died == -9 else NOT_REACHED if ended == 0 == died else f"the run that was to die ended with {died}",
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
    chosen = trials.points(listed_points, few=8, kind=lambda point: (point[0].sort, point[1]))
    found = []
    for number, (event, action) in chosen:
        root = tmp_path / str(number)
        root = empty(root) if part == "nothing" else copy_of(scene.ready, root)
        found.append(recovered(stage, root, event.number, action, scene.state))
        shutil.rmtree(root)
    kind = {"nothing": "from an empty root to the last result", "rest": "from opening runs to the end"}[part]
    reached = [said for said in found if not said.endswith(f": {NOT_REACHED}")]
    trials.note([f"crashes {kind}: {len(reached)} of {len(found)} runs came to the event that they were to die at"])
    kind = f"crashes {kind}, {len(chosen)} points of {len(listed_points)}"
    trials.count(kind, list(filter(None, reached)), len(reached))
    assert len(reached) > len(found) * 0.9


def test_every_crash_while_the_store_is_made_is_recovered(stage: Stage, tmp_path: Path) -> None:
    """A process that dies while MLflow's tables are made leaves no store or a whole one; the next makes or takes it."""
    whole = empty(tmp_path / "whole")
    assert stage.play(whole, command=("store",)) == 0
    events = stage.events()
    chosen, failures = trials.points(events, few=30, kind=lambda event: event.sort), []
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
