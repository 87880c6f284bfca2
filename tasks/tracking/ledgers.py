"""Which stored results the runs of a store rest on, by the ledgers that they hold."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tasks.tracking.answers import stored_table
from tasks.tracking.runs import KIND, PAGE, STUDY
from tasks.tracking.store import WrongRequest, failures_in_one_line
from tasks.tracking.tracked import STAGES


def only_of_deleted(client: MlflowClient) -> set[str]:
    """The digests of stages that deleted runs have used, and no run that is there.

    Raises:
        TrackingError: if it cannot be known what a run that is there has used: one that was not finished has no
            ledger yet, and may go on from any result.
    """
    with failures_in_one_line("reading what runs have used", client.tracking_uri):
        experiments = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ALL)]
        deleted = _study_runs(client, experiments, ViewType.DELETED_ONLY)
        used = [_used(client, run) for run in deleted]
        unused = {digest for digests in used for digest in digests or ()}
        if not unused:
            return set()
        for run in _study_runs(client, experiments, ViewType.ACTIVE_ONLY):
            digests = _used(client, run)
            if digests is None:
                name = run.data.tags.get(STUDY, "")
                raise WrongRequest(
                    f"run {run.info.run_id} of {name} ({run.info.status}) does not say which results it has used, so"
                    f" none can be told to be of deleted runs alone; finish it with `layerwise run {name}`, or delete"
                    " it too."
                )
            unused -= digests
        return unused


def _used(client: MlflowClient, run: Run) -> set[str] | None:
    """The digests of the stages that a run rests on; None where it does not say."""
    ledger = stored_table(client, run, STAGES)
    return None if ledger is None else {str(digest) for digest in ledger["digest"]}


def _study_runs(client: MlflowClient, experiments: list[str], view: int) -> list[Run]:
    found: list[Run] = []
    for experiment in experiments:
        token = None
        while token != "":
            query = f"tags.`{KIND}` = 'study'"
            page = client.search_runs([experiment], query, view, max_results=PAGE, page_token=token)
            found += page
            token = page.token or ""
    return found
