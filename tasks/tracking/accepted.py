"""Which run of a study is the accepted one, that later runs are judged against.

The mark is one tag of the study's experiment, which holds a run's id: there is one value, so there is one accepted
run, and moving it is one write. The run itself says when it was accepted, and keeps saying so when the mark moves on.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.tracking.runs import REPEAT, STUDY
from tasks.tracking.store import TrackingError, WrongRequest, failures_in_one_line

ACCEPTED = "layerwise.accepted"
"""The experiment's tag that holds the id of the accepted study run."""

ACCEPTED_AT = "layerwise.accepted_at"
"""The run's tag that says when it was accepted last."""


def accepted_run(client: MlflowClient, experiment_id: str) -> Run | None:
    """The accepted study run of an experiment; None where none has been accepted.

    Raises:
        TrackingError: if it has been deleted, or the store fails.
    """
    with failures_in_one_line("reading which run is accepted", client.tracking_uri):
        run_id = client.get_experiment(experiment_id).tags.get(ACCEPTED)
        if run_id is None:
            return None
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # such as a store that does not answer
                raise
            run = None
    if run is None or run.info.lifecycle_stage != "active":
        raise TrackingError(f"the accepted run {run_id:.40} has been deleted; accept another: layerwise accept RUN.")
    return run


def accept(client: MlflowClient, run: Run) -> Run | None:
    """Make a finished study run the accepted one of its study; returns the one that was accepted before.

    Raises:
        TrackingError: if the run is not finished, or the store fails.
    """
    tags = run.data.tags
    name = ":".join(filter(None, (tags.get(STUDY, ""), tags.get(REPEAT, ""))))
    if run.info.status != "FINISHED":
        raise WrongRequest(
            f"run {run.info.run_id} of {name} is {run.info.status}, and only a finished run can be accepted; finish it"
            " with `layerwise run`."
        )
    try:
        before = accepted_run(client, run.info.experiment_id)
    except TrackingError:  # it has been deleted, which is why another one is accepted
        before = None
    with failures_in_one_line(f"accepting {name}", client.tracking_uri):
        client.set_tag(run.info.run_id, ACCEPTED_AT, datetime.now(UTC).isoformat(timespec="seconds"))
        client.set_experiment_tag(run.info.experiment_id, ACCEPTED, run.info.run_id)
    return before
