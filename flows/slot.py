"""A scheduled slot as a Prefect flow: a repeat of its study, named by its time, which then judges itself.

It does what ``layerwise run STUDY --repeat NAME`` does, in a process of its own that Prefect starts. So a slot really
trains; and one that was killed goes on where it stopped, whether it is retried on Prefect's page or by that command.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from rich.console import Console

from flows import environment
from flows.launching import SEPARATOR
from layerwise.study import Study, StudyError
from layerwise.study.parts import digest_of

if TYPE_CHECKING:
    from layerwise.judgement import Judgement

FLOW = "scheduled"


def _flow_run_name() -> str:
    asked = flow_run.parameters
    return f"{asked['study'].name}{SEPARATOR}{asked.get('repeat') or _slot()}"


def _slot() -> str:
    """The name of this slot's repeat; a retry of it has the same."""
    return repeat_name(flow_run.scheduled_start_time)


def repeat_name(due: datetime | None) -> str:
    """The name of the repeat of a slot that is due at a time.

    Example:
        >>> repeat_name(datetime(2026, 11, 26, 3, tzinfo=UTC))
        '20261126T030000Z'
    """
    return f"{(due or datetime.now(UTC)).astimezone(UTC):%Y%m%dT%H%M%SZ}"


@flow(name=FLOW, flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
def run_slot(study: Study, require_claims: bool = False, repeat: str = "", folder: str = "") -> State:
    """Train a study afresh, and judge the run against the accepted one.

    Args:
        study: the study, as it was taken in when its schedule was started.
        require_claims: whether a claim that is not supported fails the run.
        repeat: the name of the repeat, to go on with one; empty for one named by the time of the slot.
        folder: where functions of the study's own are looked for.
    """
    root = environment.root()
    environment.prepare(root)
    from flows.launching import Unanswered
    from flows.locks import Busy, claim
    from tasks.tracking.store import TrackingError

    name = repeat or _slot()
    _sign()
    try:
        with claim(root, slot_lock(study)), claim(root, _own_functions(study, folder).digest(name)):
            return _judged(study, name, root, require_claims=require_claims)
    except Busy as busy:
        return Cancelled(name="Skipped", message=f"{study.name}: {busy}")
    except (Unanswered, StudyError, TrackingError, environment.EnvironmentProblem) as error:
        return Failed(message=str(error))


def slot_lock(study: Study) -> str:
    """What a slot holds: a lock of the study's name, so that two forms of it, or two entries of a file, keep apart too.

    A run by hand is kept from its own repeat alone, so that a finished study can be asked for its answer meanwhile.
    """
    return digest_of({"scheduled": study.name})


def _own_functions(study: Study, folder: str) -> Study:
    """The study, once the functions that it names can be found."""
    from layerwise import imported

    for place in filter(None, (folder, str(Path.cwd()))):
        imported.look_in(Path(place))
    return study


def _sign() -> None:
    """Have the flow run carry this process's name, by which others see whether it has crashed."""
    from flows.crashed import signed

    with get_client(sync_client=True) as client:
        found = client.read_flow_run(flow_run.id)
        client.update_flow_run(found.id, tags=signed(found.tags))


def _judged(study: Study, name: str, root: Path, *, require_claims: bool) -> State:
    from flows.running import answer_study

    answer = answer_study(study, name, root, Console(quiet=True))
    if answer.problems:
        return Failed(message="; ".join(answer.problems))
    found = _judge(study, name, root)
    if found.regressed:
        return Failed(message=found.line)
    if require_claims and not answer.all_supported:
        return Failed(message=_unsupported(answer.verdicts))
    return Completed(message=found.line)


def _judge(study: Study, name: str, root: Path) -> Judgement:
    from flows.judging import in_markdown, judge_run
    from tasks.tracking.answers import finished_study_run
    from tasks.tracking.store import TrackingError, failures_in_one_line, open_store

    client = open_store(root)
    with failures_in_one_line(f"judging {study.name}:{name}", client.tracking_uri):
        run = finished_study_run(client, study.name, study.digest(name))
        if run is None:
            raise TrackingError(f"{study.name}:{name} was trained, and its run is not finished; retry it.")
        found = judge_run(client, run)
        key = "-".join(["judgement", *re.findall("[a-z0-9]+", study.name)])  # all that Prefect takes
        create_markdown_artifact(in_markdown(client, run, found), key=key, description=found.line)
        return found


def _unsupported(verdicts: dict[str, Any] | None) -> str:
    unmet = [one for one in (verdicts or {"verdicts": []})["verdicts"] if one["verdict"] != "supported"]
    return "; ".join(f"claim {one['claim']} is {one['verdict']}" for one in unmet) or "the claims are not decided"
