"""What Prefect's server is told of schedules, on a real server; telling it again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry, Cancelled, Completed, Failed, Running

from flows import deploying
from flows.schedules import Scheduled as ScheduledStudy
from flows.schedules import read_schedules
from tests.serving import write_schedules
from tests.test_flow import Lab, lab  # noqa: F401 - the fixture


@pytest.fixture
def asked(tmp_path: Path) -> ScheduledStudy:
    """A study that is due every night, and an address."""
    write_schedules(tmp_path, cron="0 2 * * *", timezone="Europe/Berlin", notify="http://127.0.0.1:9/told")
    (one,) = read_schedules(tmp_path / "schedules.yaml")
    return one


@pytest.fixture
def client(lab: Lab) -> Iterator[SyncPrefectClient]:  # noqa: F811, ARG001 - the server of the lab
    """A client of the lab's server."""
    with get_client(sync_client=True) as found:
        yield found


def plan(client: SyncPrefectClient, deployment: UUID, first: datetime, last: datetime) -> None:
    """Have the server plan the slots between two times, as its scheduler does by itself."""
    times = {"start_time": first.isoformat(), "end_time": last.isoformat(), "min_runs": 10, "max_runs": 10}
    answer = client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json=times)
    answer.raise_for_status()


def slots(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """The slots of a deployment, the earliest first."""
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )
    return [run for run in found if run.state is not None]


def test_a_deployment_says_what_was_taken_in(client: SyncPrefectClient, asked: ScheduledStudy) -> None:
    """Name, times, the study itself with its digest, and that a second slot is cancelled; deployed twice, it is one."""
    first, second = deploying.deploy(asked), deploying.deploy(asked)
    assert first == second
    found = client.read_deployment(first)
    (schedule,) = found.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone, schedule.active) == ("0 2 * * *", "Europe/Berlin", True)
    assert f"digest `{asked.study.digest()}`" in found.description
    assert f"taken in on {datetime.now(UTC):%Y-%m-%d} at " in found.description
    assert "Does the night shift work?" in found.description
    assert found.parameters["study"] == asked.study.model_dump(mode="json")
    assert type(asked.study).model_validate(found.parameters["study"]).digest() == asked.study.digest()
    assert (found.name, found.version, found.tags) == ("tiny", asked.study.digest()[:12], ["layerwise"])
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert found.entrypoint == "flows.slot.run_slot"


def test_what_was_missed_is_skipped_and_says_why(client: SyncPrefectClient, asked: ScheduledStudy) -> None:
    """Slots that were due while nobody served do not run; what is still to come stays, and so does a retry."""
    deployment, now = deploying.deploy(asked), datetime.now(UTC)
    plan(client, deployment, now - timedelta(days=3), now + timedelta(days=2))
    *past, retried, first, second = slots(client, deployment)
    assert (len(past), retried.expected_start_time < now < first.expected_start_time) == (2, True)
    client.set_flow_run_state(retried.id, AwaitingRetry(scheduled_time=now), force=True)
    said = deploying.skip_missed()
    assert [line[: len("skipped: tiny · ")] for line in said] == ["skipped: tiny · "] * 2
    states = {run.id: run.state for run in slots(client, deployment)}
    for run in past:
        due = f"{run.expected_start_time:%Y-%m-%d %H:%M} UTC"
        assert (states[run.id].type, states[run.id].name) == (StateType.CANCELLED, "Skipped")
        assert states[run.id].message == f"Missed: it was due at {due}, and nothing served its schedule then."
    assert [states[run.id].name for run in (retried, first, second)] == ["AwaitingRetry", "Scheduled", "Scheduled"]
    assert deploying.skip_missed() == []


def test_slots_have_names_and_reasons(client: SyncPrefectClient, asked: ScheduledStudy) -> None:
    """A planned slot is called as it will be; one that Prefect cancelled for another says so in words."""
    soon = datetime.now(UTC) + timedelta(minutes=30)
    entry = asked.entry.model_copy(
        update={"cron": f"{soon.minute} {soon.hour} * * *", "timezone": "UTC", "name": "soon"}
    )
    deployment = deploying.deploy(asked.__class__(entry, asked.study, asked.folder))
    plan(client, deployment, soon - timedelta(days=1, minutes=1), soon + timedelta(minutes=1))
    _, slot = slots(client, deployment)
    client.set_flow_run_state(slot.id, Cancelled(message=deploying.LIMIT_REACHED), force=True)
    (said,) = deploying.tidy()
    name = f"tiny · {slot.expected_start_time:%Y%m%dT%H%M%SZ}"
    assert said == f"skipped: {name}, for another run of it was still at work."
    after = client.read_flow_run(slot.id)
    assert (after.name, after.state.name) == (name, "Skipped")
    assert after.state.message.endswith("another run of it was still at work.")
    assert deploying.tidy() == []


def test_what_becomes_of_slots_is_told_once(
    client: SyncPrefectClient, asked: ScheduledStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one runs, and how it ended, with what it said; what was so before one looked is no news."""
    deployment, now = deploying.deploy(asked), datetime.now(UTC)
    plan(client, deployment, now - timedelta(days=3), now + timedelta(days=2))
    before, first, second, *_ = slots(client, deployment)
    names = [f"tiny · {number}" for number in (1, 2)]
    for run, name in zip((before, first, second), ["tiny · 0", *names], strict=True):
        client.set_flow_run_name(run.id, name)
    client.set_flow_run_state(before.id, Running(), force=True)
    news = deploying.News(["tiny"])
    assert news.lines() == []
    client.set_flow_run_state(first.id, Running(), force=True)
    client.set_flow_run_state(second.id, Running(), force=True)
    assert sorted(news.lines()) == sorted(f"running: {name}." for name in names)
    client.set_flow_run_state(first.id, Completed(message="EXACT (R0)."), force=True)
    client.set_flow_run_state(second.id, Failed(message="WORSE: it is."), force=True)
    assert sorted(news.lines()) == [f"completed: {names[0]}: EXACT (R0).", f"failed: {names[1]}: WORSE: it is."]
    assert news.lines() == []
    monkeypatch.setattr(deploying, "OVERLAP", timedelta(0))
    looks, runs = [], deploying._runs
    monkeypatch.setattr(deploying, "_runs", lambda *given: looks.append(given[2].end_time) or runs(*given))
    for _ in range(2):
        assert news.lines() == []
    (first_look, second_look) = (one.after_ for one in looks if one is not None)
    assert first_look < second_look, "a server gives so many runs at most: what was told long ago must not fill them"
    assert deploying.News(["another"]).lines() == []


def test_automations_are_installed_once(client: SyncPrefectClient, asked: ScheduledStudy) -> None:
    """Twice installed, each is there once; without an address the one that tells is taken away."""
    deployed = {asked.name: deploying.deploy(asked)}
    for _ in range(2):
        deploying.install_automations([asked], deployed)
    names = sorted(found.name for found in client.read_automations())
    assert names == [deploying.ZOMBIES, f"{deploying.FAILURES}tiny"]
    silent = asked.__class__(asked.entry.model_copy(update={"notify": None}), asked.study, asked.folder)
    deploying.install_automations([silent], deployed)
    assert [found.name for found in client.read_automations()] == [deploying.ZOMBIES]


def test_deployments_that_are_no_longer_asked_for_are_paused(client: SyncPrefectClient, asked: ScheduledStudy) -> None:
    """What has left the file is no longer planned, and keeps its history."""
    other = asked.__class__(asked.entry.model_copy(update={"name": "weekly"}), asked.study, asked.folder)
    kept, gone = deploying.deploy(asked), deploying.deploy(other)
    assert "weekly" in deploying.pause_others([kept])
    assert (client.read_deployment(kept).paused, client.read_deployment(gone).paused) == (False, True)
    assert deploying.pause_others([kept]) == []
    deploying.deploy(other)
    assert not client.read_deployment(gone).paused
