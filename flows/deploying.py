"""What Prefect's server is told of schedules: deployments, automations, and which slots nobody will run any more.

All of it can be told again, and then changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, FlowRun, State, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.flows import EntrypointType
from prefect.schedules import Schedule
from prefect.states import Cancelled

from flows.crashed import close_crashed
from flows.launching import SEPARATOR
from flows.schedules import Entry, Scheduled
from flows.slot import FLOW, repeat_name, run_slot
from layerwise.study import StudyError

TAG = "layerwise"

HEARTBEAT_SECONDS = 30
"""How often a slot says that it lives; Prefect takes no less."""

SILENT_SECONDS = 4 * HEARTBEAT_SECONDS
"""How long one may say nothing before it is taken for dead."""

ENDED = ("Completed", "Failed", "Cancelled", "Crashed", "Skipped", "Cancelling")

RESULTS = ("Completed", "Failed", "Crashed")
"""How a slot ends that was run."""

ZOMBIES = "Layerwise: a run that says nothing any more has crashed"

FAILURES = "Layerwise: tell of failures of "
"""What the name of an automation begins with that calls an address; the deployment's name follows."""

AHEAD, BEHIND = timedelta(days=8), timedelta(hours=1)
"""How far from now slots are looked at that are planned, or were cancelled."""

OVERLAP = timedelta(minutes=10)
"""How far back a look for news goes beyond the one before: a state may come to the server after its time."""

LIMIT_REACHED = "Deployment concurrency limit reached."
"""What Prefect says of a run that it cancels for another."""

TOLD = """{
  "text": {{ (flow_run.name ~ ": " ~ flow_run.state.name ~ ". " ~ (flow_run.state.message or "")) | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "reason": {{ (flow_run.state.message or "") | tojson }},
  "page": {{ (flow_run | ui_url) | tojson }}
}"""
"""What an address is told of a failure; chat programs show ``text``."""


def check_times(asked: Iterable[Scheduled]) -> None:
    """Refuse a file of schedules as a whole, where one of its cron expressions is none: nothing is deployed of it.

    Raises:
        StudyError: one line.
    """
    for one in asked:
        check_cron(one.entry)


def check_cron(entry: Entry) -> None:
    """Refuse what looks like a cron expression, and is none to Prefect.

    Raises:
        StudyError: one line.
    """
    try:
        CronSchedule(cron=entry.cron, timezone=entry.timezone)
    except ValueError:
        raise StudyError(
            f"the schedule of {entry.study}: cron {entry.cron!r} names no time; expected minute, hour, day, month,"
            " weekday, as in 0 2 * * *"
        ) from None


def deployment(one: Scheduled, *, work_pool: str | None = None) -> RunnerDeployment:
    """A study's deployment, as Prefect's pages show it.

    Args:
        one: the study, and when it runs.
        work_pool: whose workers run it; None where it is served.
    """
    parameters = {"study": one.study, "require_claims": one.entry.require_claims, "folder": str(one.folder)}
    pool: dict[str, Any] = (
        {} if work_pool is None else {"work_pool_name": work_pool, "job_variables": {"env": _heartbeats()}}
    )
    return RunnerDeployment.from_flow(
        run_slot,
        name=one.name,
        schedule=Schedule(cron=one.entry.cron, timezone=one.entry.timezone),
        paused=False,
        parameters=parameters,
        description=_description(one),
        tags=[TAG],
        version=one.study.digest()[:12],
        # A slot that comes while another is at work is cancelled, and shows it; queued, slots would pile up.
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
        **pool,
    )


def deploy(one: Scheduled, *, work_pool: str | None = None) -> UUID:
    """Tell the server of a study's deployment, as :func:`deployment` makes it; returns its id."""
    return cast("UUID", deployment(one, work_pool=work_pool).apply())


def _heartbeats() -> dict[str, str]:
    return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}


def _description(one: Scheduled) -> str:
    study, at = one.study, datetime.now(UTC)
    asks = f"{study.question}\n\n" if study.question else ""
    seeds = f"up to {study.seeds}" if study.stop else str(study.seeds)
    return (
        f"{asks}The study `{study.name}` as it was taken in on {at:%Y-%m-%d at %H:%M} UTC, digest `{study.digest()}`:"
        f" {', '.join(study.arms)}; {seeds} seeds, {study.depth} hidden layers. A change to its file counts once"
        " `layerwise schedule` is started again.\n\n"
        "Each run trains it afresh, as a repeat named by its time, and is judged against the accepted run: it fails"
        " where it is worse, or has other bits though versions and machine are the same. A run that comes while another"
        " is at work is skipped, and so is one that nobody was there to run. A run that crashed goes on where it"
        f" stopped: retry it, or `layerwise run {study.name} --repeat TIME`."
    )


def skip_missed(names: Sequence[str] | None = None) -> list[str]:
    """Skip what was due before now, and close what crashed; a line for each.

    To be called before anybody serves: what is waiting then nobody will run in time.

    Args:
        names: of the deployments concerned; all, if left out, which a server is not asked that others use too.
    """
    crashed = dict.fromkeys(close_crashed())  # a slot and its study's run have one name
    said = [f"{name} had crashed: marked. Retry it on its page, and it goes on." for name in crashed]
    with get_client(sync_client=True) as client:
        while late := _waiting(client, names):
            for run in late:
                _skip(client, run, f"Missed: it was due at {_due(run)}, and nothing served its schedule then.")
                said.append(f"skipped: {_name(run)}, which was due at {_due(run)}, when nothing served its schedule.")
    return said


def _waiting(client: SyncPrefectClient, names: Sequence[str] | None) -> list[FlowRun]:
    """Planned slots that are overdue; also those that the server, when it started, took to come after a dead one."""
    now, latest = datetime.now(UTC), FlowRunSort.EXPECTED_START_TIME_DESC
    planned = _slots(client, names, ["Scheduled", "Late"], before=now)
    cancelled = _slots(client, names, ["Cancelled"], before=now, sort=latest)
    return [run for run in planned if run.auto_scheduled] + [run for run in cancelled if _is_one_too_many(run)]


def _is_one_too_many(run: FlowRun) -> bool:
    """Whether Prefect cancelled a slot because another was at work, or seemed to be."""
    return run.state is not None and run.state.message == LIMIT_REACHED


def tidy(names: Sequence[str] | None = None) -> list[str]:
    """Name planned slots by study and time, and say of those that Prefect cancelled why; a line for each of these.

    Args:
        names: as :func:`skip_missed` takes them.
    """
    said = []
    with get_client(sync_client=True) as client:
        now = datetime.now(UTC)
        for run in _slots(client, names, ["Scheduled", "Late", "Cancelled"], before=now + AHEAD, after=now - BEHIND):
            if SEPARATOR not in run.name:
                client.set_flow_run_name(run.id, _name(run))
            if _is_one_too_many(run):
                _skip(client, run, f"Skipped: at {_due(run)} another run of it was still at work.")
                said.append(f"skipped: {_name(run)}, for another run of it was still at work.")
    return said


class News:
    """What becomes of slots, from now on: they start, and end."""

    def __init__(self, names: Sequence[str] | None) -> None:
        """Begin; ``names`` as :func:`skip_missed` takes them."""
        self._names, self._told, self._since = names, set[UUID](), datetime.now(UTC)
        self.lines()

    def lines(self) -> list[str]:
        """What is new since the last look, a line each."""
        now = datetime.now(UTC)
        ended = FlowRunFilter(
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=list(RESULTS))),
            end_time=FlowRunFilterEndTime(after_=self._since),
        )
        running = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Running"])))
        with get_client(sync_client=True) as client:
            states = [
                (run.name, run.state)
                for asked in (ended, running)
                for run in _runs(client, self._names, asked, FlowRunSort.START_TIME_ASC)
                if run.state is not None and SEPARATOR in run.name
            ]
        new = [(name, state) for name, state in states if state.id not in self._told]
        self._told = {state.id for _, state in states}
        self._since = max(self._since, now - OVERLAP)
        return [f"{state.name.lower()}: {name}{_reason(state)}" for name, state in new if state.name]


def _reason(state: State) -> str:
    return f": {state.message}" if state.message and state.name in RESULTS else "."


def _slots(
    client: SyncPrefectClient,
    names: Sequence[str] | None,
    states: list[str],
    *,
    before: datetime,
    after: datetime | None = None,
    sort: FlowRunSort = FlowRunSort.EXPECTED_START_TIME_ASC,
) -> list[FlowRun]:
    """Slots of some deployments, in one of some states and due between two times: the first 200 in an order."""
    asked = FlowRunFilter(
        expected_start_time=FlowRunFilterExpectedStartTime(before_=before, after_=after),
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=states)),
    )
    return _runs(client, names, asked, sort)


def _runs(
    client: SyncPrefectClient, names: Sequence[str] | None, asked: FlowRunFilter, sort: FlowRunSort
) -> list[FlowRun]:
    ours = None if names is None else DeploymentFilter(name=DeploymentFilterName(any_=list(names)))
    flow = FlowFilter(name=FlowFilterName(any_=[FLOW]))
    return client.read_flow_runs(flow_filter=flow, deployment_filter=ours, flow_run_filter=asked, sort=sort)


def _skip(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    client.set_flow_run_state(run.id, Cancelled(name="Skipped", message=reason), force=True)


def _due(run: FlowRun) -> str:
    return f"{run.expected_start_time:%Y-%m-%d %H:%M} UTC"


def _name(run: FlowRun) -> str:
    """What a slot is called once it runs."""
    study = run.parameters.get("study", {}).get("name", "")
    return f"{study}{SEPARATOR}{run.parameters.get('repeat') or repeat_name(run.expected_start_time)}"


def pause_others(kept: Iterable[UUID]) -> list[str]:
    """Pause every deployment of ours but these; returns their names."""
    wanted = set(kept)
    with get_client(sync_client=True) as client:
        known = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])))
        others = [found for found in known if found.id not in wanted and not found.paused]
        for found in others:
            client.pause_deployment(found.id)
        return [found.name for found in others]


def install_automations(asked: Sequence[Scheduled], deployed: Mapping[str, UUID]) -> None:
    """Have dead runs marked, and whoever wants it told of failures; what is there already is brought up to date."""
    with get_client(sync_client=True) as client:
        found = {one.name: one for one in client.read_automations()}
        _install(client, found, _zombies())
        for one in asked:
            name = FAILURES + one.name
            if one.entry.notify is not None:
                _install(client, found, _told(name, deployed[one.name], _webhook(one.entry.notify)))
            elif name in found:
                client.delete_automation(found[name].id)


def _install(client: SyncPrefectClient, found: Mapping[str, Automation], wanted: AutomationCore) -> None:
    if wanted.name in found:
        client.update_automation(found[wanted.name].id, wanted)
    else:
        client.create_automation(wanted)


def _zombies() -> AutomationCore:
    """Mark as crashed a run whose heartbeats stop before it has ended."""
    ended = {f"prefect.flow-run.{state}" for state in ENDED}
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=ZOMBIES,
        description="Installed by `layerwise schedule`.",
        enabled=True,
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ended},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": [FLOW, "study"]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Nothing was heard of it for {SILENT_SECONDS} s: its process is gone. Retried, it goes on.",
            )
        ],
    )


def _told(name: str, deployment_id: UUID, webhook: UUID) -> AutomationCore:
    """Call an address when a run of a deployment fails or crashes."""
    return AutomationCore(
        name=name,
        description="Installed by `layerwise schedule`.",
        enabled=True,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.id": f"prefect.deployment.{deployment_id}"}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=TOLD)],
    )


def _webhook(address: str) -> UUID:
    """The block that holds an address, which Prefect keeps as a secret; one for each."""
    name = f"layerwise-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    block = Webhook(url=address, headers={"Content-Type": "application/json"})
    return cast("UUID", block.save(name, overwrite=True, _sync=True))  # ty: ignore[unknown-argument]
