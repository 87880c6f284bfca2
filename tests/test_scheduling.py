"""``layerwise schedule`` as a service: a regression that it must catch, runs that die unseen, a team's workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import environment, server
from tasks.tracking.store import open_store
from tests.serving import TERMINAL, Service, process_of, receiver, serving, wait_for, write_schedules
from tests.test_cli import Ended, begin, end
from tests.test_server import clean_environ
from tests.trackers import unused_port

CHECKOUT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def has_ended(service: Service, slot: str) -> Any:
    """The state in which a slot has ended, once it has."""
    state = service.slot(slot)["state"]
    return state if state["type"] in TERMINAL else None


def with_a_stream_shifted(folder: Path) -> Path:
    """A copy of this code in which added layers begin from the weights of the next seed."""
    for name in ("layerwise", "tasks", "flows", "studies"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "requirements.lock", folder)
    file = folder / "layerwise" / "streams.py"
    drawn = 'f"{seed}/{stream}/{stage}/{depth}"'
    moved = "f\"{seed + (stage == 'add_layer')}/{stream}/{stage}/{depth}\""
    code = file.read_text()
    assert drawn in code
    file.write_text(code.replace(drawn, moved))
    return folder


def test_a_planted_regression_is_caught_and_named(tmp_path: Path) -> None:
    """The slot after an engine was changed fails, names the first stage that has other bits, and calls an address."""
    root = tmp_path / "root"
    root.mkdir()
    with receiver() as told:
        write_schedules(root, cron="0 2 * * *", notify=told.address)
        with serving(root) as service:
            slot = service.start_one()
            assert wait_for(lambda: has_ended(service, slot), "the first slot")["message"].startswith("FIRST: ")
            second = end(begin(root, "schedule", env=clean_environ() | {"LAYERWISE_ROOT": str(root)}))
            assert second == Ended(
                75, "", f"layerwise: schedules of {root} are being served already; stop that command first.\n"
            )
            elsewhere = clean_environ() | {"LAYERWISE_ROOT": str(tmp_path / "copy")}
            taken = end(begin(root, "schedule", "schedules.yaml", "--prefect-port", str(service.port), env=elsewhere))
            assert taken == Ended(
                2,
                "",
                f"layerwise: port {service.port} is taken; choose another with --prefect-port, or stop what uses it.\n",
            )
            assert service.stop() == 0
        with serving(root, checkout=with_a_stream_shifted(tmp_path / "copy"), port=service.port) as service:
            slot = service.start_one()
            state = wait_for(lambda: has_ended(service, slot), "the slot with the changed engine")
            wait_for(lambda: told.told, "the failure to be told")
    assert state["name"] == "Failed"
    assert re.match(
        r"CHANGED: \d+ of \d+ values are not as accepted, first in add_layer at depth 2 \(greedy, seeds 0-2: content ",
        state["message"],
    )
    (said,) = told.told
    assert (said["state"], said["reason"]) == ("Failed", state["message"])
    assert said["page"] == f"http://127.0.0.1:{service.port}/runs/flow-run/{slot}"
    experiment = open_store(root).get_experiment_by_name("tiny")
    assert experiment is not None
    runs = open_store(root).search_runs([experiment.experiment_id], "tags.layerwise.kind = 'study'")
    assert sorted(run.data.tags["layerwise.judged"] for run in runs) == ["CHANGED", "FIRST"]


@dataclass(frozen=True)
class Team:
    """A team's Prefect server."""

    root: Path
    environ: dict[str, str]
    port: int

    def command(self, root: Path, *arguments: str) -> subprocess.Popen[str]:
        """``layerwise`` in a root that uses the team's server."""
        return begin(root, *arguments, env=self.environ | {"LAYERWISE_ROOT": str(root)})


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """A server that does not belong to the command."""
    root, port = tmp_path / "team", unused_port()
    root.mkdir()
    environment.prepare(root)
    with server.LastingServer(root, port) as lasting:
        lasting.wait_ready()
        there = {"PREFECT_API_URL": lasting.url, server.CLIENT_LOGIN: lasting.login}
        yield Team(root, clean_environ() | there, port)


def test_a_run_that_dies_unseen_is_marked(tmp_path: Path, team: Team) -> None:
    """Killed with the command that served it, a run is silent, and the server says after a while that it crashed."""
    root = tmp_path / "root"
    root.mkdir()
    write_schedules(root, cron="0 2 * * *")
    command = team.command(root, "schedule")
    service = Service(team.root, team.port, command, root / "nothing")
    wait_for(lambda: len(service.ask("automations/filter")) == 1, "the schedule to be deployed")
    wait_for(lambda: service.ask("deployments/filter"), "the deployment")
    slot = service.start_one()
    wait_for(lambda: any(tag.startswith("process ") for tag in service.slot(slot)["tags"]), "its process to be named")
    run = service.slot(slot)
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate()
    wait_for(lambda: not Path(f"/proc/{process_of(run)}").exists(), "the slot's process to be gone")
    state = wait_for(lambda: has_ended(service, slot), "the silence to be noticed", seconds=400)
    assert (state["name"], state["message"]) == (
        "Crashed", "Nothing was heard of it for 120 s: its process is gone. Retried, it goes on.",
    )  # fmt: skip


def test_a_teams_workers_run_slots(tmp_path: Path, team: Team) -> None:
    """Deployed into a work pool, a slot is run by its worker; a pool that is not there is refused in one line."""
    root = tmp_path / "root"
    root.mkdir()
    write_schedules(root, cron="0 2 * * *")
    refused = end(team.command(root, "schedule", "--work-pool", "night"))
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        f"layerwise: --work-pool night: {team.environ['PREFECT_API_URL']} has no such pool; make it with `prefect"
        " work-pool create`, or name another.\n"
    )
    prefect = [sys.executable, "-m", "prefect"]
    environ = team.environ | {"LAYERWISE_ROOT": str(root), "PREFECT_HOME": str(tmp_path / "worker")}
    subprocess.run(
        [*prefect, "work-pool", "create", "night", "--type", "process"], env=environ, check=True, timeout=120
    )
    deployed = end(team.command(root, "schedule", "--work-pool", "night"))
    assert deployed.status == 0, deployed.err
    assert deployed.out.endswith(f"the work pool night of {team.environ['PREFECT_API_URL']}; its workers run them.\n")
    worker = subprocess.Popen([*prefect, "worker", "start", "--pool", "night"], cwd=root, env=environ, process_group=0)
    try:
        service = Service(team.root, team.port, worker, root / "nothing")
        slot = service.start_one()
        state = wait_for(lambda: has_ended(service, slot), "the worker to run the slot")
        assert state["message"].startswith("FIRST: "), state
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
