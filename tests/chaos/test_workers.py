"""Dask's workers: one that is killed, a command that is killed or interrupted, and what the next one finds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.chaos import roots, state, trials
from tests.chaos.roots import Reference
from tests.test_cli import GOES_ON, begin

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

ON_DASK = ("--runner", "dask", "--workers", "2")

SECONDS_TO_LEAVE = 15.0
"""How long a command may take to end its workers when it is interrupted."""


def run(root: Path, *options: str) -> subprocess.Popen[str]:
    """The study, in a process group of its own."""
    return begin(root, "run", "study.yaml", *options)


def workers(root: Path) -> list[int]:
    """The processes that train for a run of ``root``, or begin to."""
    return [pid for pid, command in state.processes(root).items() if "spawn_main" in command]


def check(root: Path, reference: Reference) -> None:
    """A study that is done is as if one process had trained it undisturbed, and nobody is left."""
    roots.wait_for_end(root)
    assert state.differences(reference.state, state.of(root)) == []


def killed_at(root: Path, stages: int) -> subprocess.Popen[str]:
    """The study on workers, up to so many stages on disk."""
    process = run(root, *ON_DASK)
    assert roots.wait_until(lambda: roots.stages(root) >= stages, process), process.communicate()
    return process


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_a_killed_worker_costs_one_stage(number: int, tmp_path: Path, prepared: Path, reference: Reference) -> None:
    """A worker killed at any time costs no stage that is stored, and not the run, which says so in a line."""
    chance, root = trials.chance("worker", number), roots.fresh_copy(prepared, tmp_path / "root")
    process = killed_at(root, chance.randint(1, 10))
    time.sleep(chance.random())
    stored, victim = state.stored(root), chance.choice(sorted(workers(root)))
    print(f"trial {number}: worker {victim} of {workers(root)} is killed with {len(stored)} results stored")
    os.kill(victim, signal.SIGKILL)
    ended = roots.end(process)
    print(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("A worker has gone; its block goes on elsewhere") == 1
    assert stored.items() <= state.stored(root).items(), "a stage that was stored has been computed again"
    check(root, reference)
    assert state.flow_runs(root) == ["Completed"]


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_workers_end_with_their_command(number: int, tmp_path: Path, prepared: Path, reference: Reference) -> None:
    """When the command alone is killed, its workers end in silence, and the next run completes the study, on any."""
    chance, root = trials.chance("command", number), roots.fresh_copy(prepared, tmp_path / "root")
    process = killed_at(root, chance.randint(1, 10))
    time.sleep(chance.random())
    process.kill()
    assert process.communicate()[1] == "", "what the command leaves says something"
    roots.wait_for_end(root)
    stored = state.stored(root)
    ended = roots.end(run(root, *(ON_DASK if number % 2 else ())))
    assert (ended.status, ended.err) == (0, "")
    assert stored.items() <= state.stored(root).items(), "a stage that was stored has been computed again"
    check(root, reference)


def test_an_interrupted_command_ends_its_workers(tmp_path: Path, prepared: Path, reference: Reference) -> None:
    """Ctrl-C, which workers hear too, ends all within seconds, with one line; the next run, in one process, goes on."""
    root = roots.fresh_copy(prepared, tmp_path / "root")
    process = killed_at(root, 3)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    ended = roots.end(process)
    assert time.monotonic() - asked < SECONDS_TO_LEAVE
    assert (ended.status, ended.err) == (1, GOES_ON + "\n")
    roots.wait_for_end(root)
    assert roots.finish(root).status == 0
    check(root, reference)
