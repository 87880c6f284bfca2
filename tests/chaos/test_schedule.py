"""A schedule every minute, watched for ten: an overlap, a crash and a server's end are forced, and nothing is doubled.

Prints what was due, what became of it, and why.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Tracked

from flows import environment
from tasks.tracking.runs import search_models
from tasks.tracking.store import open_store
from tests.serving import Receiver, Run, Service, process_of, receiver, serving, wait_for, write_schedules

MINUTES = 10

OFF_SECONDS = 130.0
"""How long nobody serves: two slots at least are due meanwhile."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1500)]


def running(service: Service) -> Run | None:
    """The slot that trains now, if one does."""
    for run in service.slots():
        if run["state"]["name"] == "Running" and any(tag.startswith("process ") for tag in run["tags"]):
            return run
    return None


def stored(root: Path) -> dict[str, int]:
    """The stage results, and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in environment.results_folder(root).glob("[!.]*")}


def force_overlap(service: Service) -> str:
    """Start a slot while another is at work; returns its id."""
    wait_for(lambda: running(service), "a slot to overlap with")
    return service.start_one()


def force_crash(service: Service) -> str:
    """Kill a slot's process once it has stored something of its own; returns the slot's id."""
    before = stored(service.root)

    def at_work() -> Run | None:
        return running(service) if len(stored(service.root)) > len(before) else None

    run = wait_for(at_work, "a slot that has trained a stage")
    os.kill(process_of(run), signal.SIGKILL)
    return run["id"]


def restart_server(service: Service) -> None:
    """Kill Prefect's server, and wait until another one answers in its place."""
    before = service.server_pid()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: "had ended, and is started again" in service.output, "the server to be missed")
    assert service.server_pid() != before


def table(service: Service, client: MlflowClient) -> list[str]:
    """What was due, what became of it, and why; a line each."""
    judged = {run.data.tags["layerwise.repeat"]: run.data.tags.get("layerwise.judged", "-") for run in studies(client)}
    lines = [f"{'due':<9} {'slot':<24} {'state':<10} {'s':>4} {'judged':<7} reason"]
    for run in service.slots():
        due, state = datetime.fromisoformat(run["expected_start_time"]), run["state"]
        repeat = run["name"].partition(" · ")[2]
        lines.append(
            f"{due:%H:%M:%S}  {run['name']:<24} {state['name']:<10} {run['total_run_time']:>4.0f}"
            f" {judged.get(repeat, '-'):<7} {state['message'] or ''}"
        )
    return lines


def studies(client: MlflowClient) -> list[Tracked]:
    """Every study run."""
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], "tags.layerwise.kind = 'study'", max_results=200)


def nothing_is_doubled(service: Service, client: MlflowClient) -> None:
    """One slot a minute, one MLflow tree a slot that ran, never two at once, and no result stored twice."""
    slots = service.slots()
    minutes = Counter(run["expected_start_time"] for run in slots if run["auto_scheduled"])
    assert set(minutes.values()) == {1}
    spans = sorted((run["start_time"], run["end_time"]) for run in slots if run["state"]["name"] != "Skipped")
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(spans)), spans
    ran = {run["name"].partition(" · ")[2] for run in slots if run["state"]["name"] == "Completed"}
    repeats = Counter(run.data.tags["layerwise.repeat"] for run in studies(client))
    assert set(repeats.values()) == {1}
    assert ran <= set(repeats)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    every = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = Counter(
        (run.data.tags["layerwise.repeat"], *(run.data.tags.get(f"layerwise.{key}") for key in ("kind", "arm", "seed")))
        for run in every
    )
    assert set(kinds.values()) == {1}
    assert list(search_models(client, experiment.experiment_id, [run.info.run_id for run in every])) == []


def disturb(service: Service, told: Receiver) -> tuple[str, dict[str, int]]:
    """Force an overlap, a crash and the server's end; returns the slot that crashed, and what it had stored."""
    wait_for(lambda: any(run["state"]["name"] == "Completed" for run in service.slots()), "a first slot")
    overlapping = force_overlap(service)
    wait_for(lambda: service.slot(overlapping)["state"]["name"] == "Skipped", "the overlap to be skipped")
    crashed = force_crash(service)
    wait_for(lambda: service.slot(crashed)["state"]["name"] == "Crashed", "the crash to be seen")
    wait_for(lambda: told.told, "the crash to be told")
    kept = stored(service.root)
    wait_for(lambda: running(service) is None, "nothing to be at work")
    service.retry(crashed)
    wait_for(lambda: service.slot(crashed)["state"]["type"] in {"COMPLETED", "CANCELLED"}, "the retry")
    restart_server(service)
    wait_for(lambda: running(service), "a slot after the server came back")
    return crashed, kept


def all_is_explained(service: Service, crashed: str, told: Receiver) -> None:
    """Every slot ended in a way that says why; the one that crashed was told, and then went on to its end."""
    states = [run["state"] for run in service.slots()]
    assert {state["name"] for state in states} <= {"Completed", "Crashed", "Skipped"}
    assert all(state["message"] for state in states)
    assert sum(state["message"].startswith("Missed") for state in states) >= 2
    again = service.slot(crashed)
    assert (again["state"]["name"], again["run_count"]) == ("Completed", 2)
    assert (told.told[0]["run"], told.told[0]["state"]) == (again["name"], "Crashed")


def test_a_schedule_is_watched_for_ten_minutes(tmp_path: Path) -> None:
    """Slots run or are skipped with a reason; a crash is seen, told, and gone on with; what was missed is skipped."""
    with receiver() as told:
        write_schedules(tmp_path, notify=told.address)
        begun = time.monotonic()
        with serving(tmp_path) as service:
            crashed, kept = disturb(service, told)
            os.killpg(service.process.pid, signal.SIGKILL)  # and with it, what runs: the machine is off
        time.sleep(OFF_SECONDS)
        with serving(tmp_path, port=service.port) as service:
            client = open_store(tmp_path)
            while time.monotonic() - begun < 60 * MINUTES or running(service):
                time.sleep(1)
            print(f"watched for {time.monotonic() - begun:.0f} s", *table(service, client), sep="\n")
            print("told:", *told.told, service.output, sep="\n")
            nothing_is_doubled(service, client)
            assert kept.items() <= stored(tmp_path).items(), "a stored stage has been computed again"
            all_is_explained(service, crashed, told)
            assert service.stop() == 0
        assert "RUNNING" not in {run.info.status for run in studies(client)}
