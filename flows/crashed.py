"""Flow runs in Prefect whose process was killed: nobody else would ever say of them that they have ended.

A run carries its process's name as a tag from the moment it exists. The next run in the same place looks for those
whose process is gone, and says that they crashed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.states import Crashed

from tasks import owners

FLOWS = ["study", "pilot", "scheduled"]
PAGE = 200
"""Task runs that are asked for at once; the server gives no more."""

UNDER_WAY = [StateType.RUNNING, StateType.PENDING]
_TASKS_UNDER_WAY = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=UNDER_WAY)))


@contextmanager
def owned() -> Generator[None]:
    """Flow runs that begin while the body runs carry this process's name."""
    with tags(owners.tag()):
        yield


def signed(tags_before: Iterable[str]) -> list[str]:
    """The tags of a flow run that this process has taken over."""
    return [*(tag for tag in tags_before if not tag.startswith(owners.TAG)), owners.tag()]


def close_crashed() -> list[str]:
    """Say of every flow run whose process is gone, and of its tasks, that they crashed; returns the runs' names."""
    with get_client(sync_client=True) as client:
        under_way = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=FLOWS)),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNDER_WAY))),
        )
        crashed = [run for run in under_way if owners.is_gone(_owner(run))]
        for run in crashed:
            _close(client, run)
        return [run.name for run in crashed]


def close_crashed_tasks() -> None:
    """Say of every task run under way in a process that is gone, such as a worker, that it crashed."""
    with get_client(sync_client=True) as client:
        for task in _tasks_under_way(client):
            if gone := [owner for owner in owners.tagged(task.tags) if owners.is_gone(owner)]:
                said = f"Worker {gone[0]} ended without a word. Its block went on elsewhere, from what it had stored."
                client.set_task_run_state(task.id, Crashed(message=said), force=True)


def _tasks_under_way(client: SyncPrefectClient) -> list[TaskRun]:
    """All of a server, which a team's others use too."""
    found: list[TaskRun] = []
    while page := client.read_task_runs(task_run_filter=_TASKS_UNDER_WAY, limit=PAGE, offset=len(found)):
        found += page
    return found


def _owner(run: FlowRun) -> str:
    return next(iter(owners.tagged(run.tags)), "")


def _close(client: SyncPrefectClient, run: FlowRun) -> None:
    said = Crashed(
        message=f"Process {_owner(run)} ended without a word. Run again, it goes on from what it had stored."
    )
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=_TASKS_UNDER_WAY,
    ):
        client.set_task_run_state(task.id, said, force=True)
    client.set_flow_run_state(run.id, said, force=True)  # last: until then it is found again
