"""Which stored results the runs of a store rest on, by the ledgers that they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tasks.tracking.answers import stored_table
from tasks.tracking.runs import study_runs, tree_runs
from tasks.tracking.store import WrongRequest, failures_in_one_line
from tasks.tracking.tags import RUN_KEY, STUDY
from tasks.tracking.tracked import STAGES


@dataclass(frozen=True)
class Unused:
    """What deleted studies leave behind.

    Attributes:
        digests: of the stages that they have used, and no study of which a run is there.
        partly: study -> how many runs are there of one whose study run was deleted alone. It is not gone: it goes on
            with these runs, and what they rest on, when it is run again.
    """

    digests: frozenset[str]
    partly: Mapping[str, int]


def only_of_deleted(client: MlflowClient) -> Unused:
    """The digests of stages that deleted studies have used, and no study of which a run is there.

    Raises:
        TrackingError: if it cannot be known what a study that is there has used: one that was not finished has no
            ledger yet, and may go on from any result.
    """
    with failures_in_one_line("reading what runs have used", client.tracking_uri):
        there = study_runs(client, ViewType.ACTIVE_ONLY)
        keys = {run.data.tags[RUN_KEY] for run in there}
        partly, gone = [], []
        counts: Counter[str] = Counter()
        for run in study_runs(client, ViewType.DELETED_ONLY):
            key = run.data.tags[RUN_KEY]
            left = [] if key in keys else tree_runs(client, run.info.experiment_id, key)
            counts[run.data.tags.get(STUDY, "")] += len(left)
            (partly if left else gone).append(run)
        unused = {digest for run in gone for digest in _used(client, run) or ()}
        if unused:
            unused = unused.difference(*(_used_or_refuse(client, run) for run in [*there, *partly]))
    return Unused(frozenset(unused), +counts)


def _used_or_refuse(client: MlflowClient, run: Run) -> set[str]:
    digests = _used(client, run)
    if digests is None:
        name = run.data.tags.get(STUDY, "")
        raise WrongRequest(
            f"run {run.info.run_id} of {name} ({run.info.status}) does not say which results it has used, so"
            f" none can be told to be of deleted runs alone; finish it with `layerwise run {name}`, or delete"
            " it too, with the runs of its arms and seeds."
        )
    return digests


def _used(client: MlflowClient, run: Run) -> set[str] | None:
    """The digests of the stages that a run rests on; None where it does not say."""
    ledger = stored_table(client, run, STAGES)
    return None if ledger is None else {str(digest) for digest in ledger["digest"]}
