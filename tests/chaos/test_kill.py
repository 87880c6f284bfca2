"""SIGKILL of the whole process group at a random time, requests to end as a run ends, and restarts until it is done."""

from __future__ import annotations

import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import roots, state, trials
from tests.chaos.roots import Reference
from tests.test_cli import GOES_ON

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

MOST_KILLS = 3

LAST_SECONDS = 3.0
"""About how long a run takes from when all is published to its end."""


@dataclass(frozen=True)
class Plan:
    """When a trial kills.

    Attributes:
        from_nothing: whether the root is empty, so that both databases have yet to be made.
        late: whether the first kill comes after the first stage was stored; four in five do.
        moments: for each kill, where in the time that is left it comes, from 0 to 1.
    """

    from_nothing: bool
    late: bool
    moments: tuple[float, ...]


def planned(number: int) -> Plan:
    """The plan of a trial; the same whenever it is run."""
    chance = trials.chance("SIGKILL", number)
    late = chance.random() < 0.8
    kills = 1 + (chance.random() < 0.3) + (chance.random() < 0.1)
    return Plan(not late and chance.random() < 0.5, late, tuple(chance.random() for _ in range(kills)))


def killed(root: Path, plan: Plan, reference: Reference) -> int:
    """Kill the study as planned, again on the restart where that is planned; returns how many kills found it alive."""
    kills = 0
    for number, moment in enumerate(plan.moments):
        process = roots.run(root)
        if number == 0 and plan.late:
            roots.wait_until(lambda: roots.stages(root), process)
            time.sleep(moment * reference.rest)
        else:
            time.sleep(moment * (reference.first if number == 0 else reference.first + reference.rest))
        was_running = roots.kill(process)
        roots.wait_for_end(root)
        if not was_running:
            return kills
        kills += 1
        print(
            f"kill {kills}: {roots.stages(root)} stages stored,"
            f" MLflow {dict(state.statuses(root))}, Prefect {state.flow_runs(root)}"
        )
    return kills


def new_root(folder: Path, plan: Plan, prepared: Path) -> Path:
    """Where the trial runs."""
    if not plan.from_nothing:
        return roots.fresh_copy(prepared, folder)
    folder.mkdir()
    roots.write_study(folder)
    return folder


@pytest.mark.parametrize("number", trials.numbers(few=3))
def test_a_killed_study_ends_as_if_nothing_had_happened(
    number: int, tmp_path: Path, prepared: Path, reference: Reference
) -> None:
    """Killed at any time and restarted, a study ends in the state of the undisturbed run, each stage computed once."""
    plan = planned(number)
    print(f"trial {number}: {plan}")
    for shorter in (1.0, 0.6, 0.3, 0.1):  # a machine that is faster today may have finished before the kill
        root = new_root(tmp_path / f"root-{shorter}", plan, prepared)
        hurried = Plan(plan.from_nothing, plan.late, tuple(shorter * moment for moment in plan.moments))
        if killed(root, hurried, reference):
            break
        shutil.rmtree(root)
    else:
        pytest.fail("the study ended before it could be killed")
    stored, times = state.stored(root), state.times(root)
    finished = set(state.statuses(root)) == {"FINISHED"}
    ended = roots.finish(root)
    assert (ended.status, ended.err) == (0, "")
    assert state.differences(reference.state, state.of(root)) == []
    assert stored.items() <= state.stored(root).items(), "a stage that was stored has been computed again"
    assert times.items() <= state.times(root).items(), "a point that was published has another time"
    flow_runs = state.flow_runs(root)
    assert flow_runs[:-1] == ["Crashed"] * (len(flow_runs) - 1)
    # What had all been tracked before the kill is answered from MLflow, without another flow run.
    assert flow_runs[-1] == "Completed" or (finished and flow_runs[-1] == "Crashed")
    assert state.task_runs_under_way(root) == []


@pytest.mark.parametrize("number", trials.numbers(few=2))
def test_a_request_to_end_in_the_last_seconds_is_not_lost(
    number: int, tmp_path: Path, prepared: Path, reference: Reference
) -> None:
    """Python drops what is raised in a collection: the run ends with one line, or has answered and says nothing."""
    chance, root = trials.chance("request to end", number), roots.fresh_copy(prepared, tmp_path / "root")
    request = (signal.SIGINT, signal.SIGTERM)[number % 2]
    with (tmp_path / "out").open("w") as out:
        process = roots.run(root, stdout=out)
        roots.wait_until(lambda: re.search(r"^publishing (\d+)/\1 ", (tmp_path / "out").read_text(), re.M), process)
        time.sleep(delay := chance.uniform(0, LAST_SECONDS))
        process.send_signal(request)
        ended = roots.end(process)
    print(f"{request.name} after {delay:.2f} s: {ended.status} {ended.err}")
    answered = "\nLook at the runs: layerwise ui\n" in (tmp_path / "out").read_text()
    assert (ended.status, ended.err, answered) in {(1, f"{GOES_ON}\n", False), (0, "", True)}
    assert roots.finish(root).status == 0
    assert state.differences(reference.state, state.of(root)) == []
