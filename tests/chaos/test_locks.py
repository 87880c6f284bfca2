"""Many at once: first contacts with a new store, whole commands side by side, and two on the same study."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tasks.tracking.store import database_path
from tests.chaos import contacts, roots, state, trials
from tests.studies import small_document
from tests.test_cli import AND_MODULES, Ended, begin
from tests.test_server import clean_environ

STUDY = small_document(depth=2, name="one-of-many", seeds=2)


def asked(path: Path, query: str) -> list[tuple]:
    """Rows of a store."""
    with closing(sqlite3.connect(path)) as store:
        return store.execute(query).fetchall()


def ended_of(process: subprocess.Popen[str]) -> Ended:
    """How a command ended that others slow down."""
    out, err = process.communicate(timeout=800)
    return Ended(process.returncode, out, err)


@pytest.mark.parametrize("processes", [3, pytest.param(50, marks=[pytest.mark.chaos, pytest.mark.timeout(900)])])
def test_first_contacts_at_one_moment_make_one_store(tmp_path: Path, processes: int) -> None:
    """Processes that meet a missing store at the same moment all open it, and the runs of studies of their own."""
    assert contacts.at_once([tmp_path] * processes) == [""] * processes
    names = {name for (name,) in asked(database_path(tmp_path), "SELECT name FROM experiments")}
    assert names == {"Default", *(f"study-{number}" for number in range(processes))}
    runs = asked(database_path(tmp_path), "SELECT experiment_id, status FROM runs")
    assert Counter(Counter(runs).values()) == {4: processes}  # a study, an arm, two seeds
    assert {status for _, status in runs} == {"FINISHED"}
    assert [path.name for path in (tmp_path / "mlruns").iterdir() if "creating" in path.name] == []


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_two_roots_share_a_store_that_neither_has_made(tmp_path: Path) -> None:
    """Processes of two roots whose MLFLOW_TRACKING_URI names one missing file make it once and use it side by side."""
    file = tmp_path / "shared" / "runs.db"
    places = [tmp_path / ("one", "other")[number % 2] for number in range(8)]
    assert contacts.at_once(places, f"sqlite:///{file}") == [""] * 8
    assert len(asked(file, "SELECT run_uuid FROM runs WHERE status = 'FINISHED'")) == 8 * 4


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_whole_commands_side_by_side_on_a_new_root(tmp_path: Path) -> None:
    """Five runs of different studies that start together on a new root all answer, and complain of nothing."""
    begun = []
    for number in range(5):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        roots.write_study(folder, STUDY | {"name": f"study-{number}"})
        begun.append(begin(folder, "run", "study.yaml", env=clean_environ(LAYERWISE_ROOT=str(tmp_path))))
    ended = [ended_of(process) for process in begun]
    assert [(one.status, one.err) for one in ended] == [(0, "")] * 5
    assert state.statuses(tmp_path) == {"FINISHED": 5 * 4}
    roots.wait_for_end(tmp_path)


def started(root: Path) -> subprocess.Popen[str]:
    """``layerwise run study.yaml``, which says at its end which of the heavy libraries it has loaded."""
    return subprocess.Popen(
        [sys.executable, "-c", AND_MODULES, "run", "study.yaml"],
        cwd=root,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        text=True,
    )


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", trials.numbers(3))
def test_of_two_on_the_same_study_one_works(tmp_path: Path, prepared: Path, number: int) -> None:
    """Of two runs that start together one answers; the other loads nothing, names it, exits 75 and leaves nothing."""
    root = roots.fresh_copy(prepared, tmp_path / "root")
    roots.write_study(root, STUDY)
    first = started(root)
    time.sleep(trials.chance("pairs", number).choice([0, 0, 0.05, 0.2, 0.5, 1, 3]))
    second = started(root)
    ended = {process.pid: ended_of(process) for process in (first, second)}
    (working, worked), (_, left) = sorted(ended.items(), key=lambda one: one[1].status)
    assert (worked.status, worked.err, left.status, left.out) == (0, "", 75, "loaded\n"), ended
    assert left.err in {
        f"layerwise: one-of-many: {who} works on this run; wait for it, or stop it.\n"
        for who in ("Another process", f"Process {working} (since {left.err.partition('since ')[2][:25]})")
    }
    assert state.statuses(root) == {"FINISHED": 4}
    assert state.leftovers(root) == []
    roots.wait_for_end(root)
