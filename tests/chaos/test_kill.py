"""SIGKILL of the whole process group at a random time, and restarts until the study is done."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import roots, state, trials
from tests.chaos.roots import Reference

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

MOST_KILLS = 3


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
