"""Every point of many runs in few requests: MLflow's client asks a server for one metric of one run at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe

from tasks.tracking.store import is_remote, taken_as_ours

AT_ONCE = 25
"""Runs in one request. MLflow takes a hundred, but a busy server then needs longer than its clients wait."""

MOST_POINTS = 2500
"""Points of one run in an answer; of more MLflow would leave some out."""

History = Mapping[str, Sequence[Metric]]
"""Every point of a run by key."""


def histories(client: MlflowClient, runs: Sequence[Run]) -> dict[str, History]:
    """Run id -> key -> every point that the store holds, twice where it holds it twice.

    Args:
        client: the store.
        runs: as a search gives them, which tells which metrics they have.

    Raises:
        TrackingError: if a server answers what MLflow would not.
    """
    if not is_remote(client):
        return {run.info.run_id: _one_by_one(client, run) for run in runs}
    asked: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for key in run.data.metrics:
            asked[key].append(run.info.run_id)
    found: dict[str, dict[str, list[Metric]]] = {run.info.run_id: defaultdict(list) for run in runs}
    for key, run_ids in asked.items():
        for start in range(0, len(run_ids), AT_ONCE):
            with taken_as_ours(f"what the tracking store has of {key}"):
                for run_id, metric in _together(client, key, run_ids[start : start + AT_ONCE]):
                    found[run_id][key].append(metric)
    return {run_id: _complete(client, run_id, history) for run_id, history in found.items()}


def _one_by_one(client: MlflowClient, run: Run) -> History:
    return {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}


def _together(client: MlflowClient, key: str, run_ids: Sequence[str]) -> Iterator[tuple[str, Metric]]:
    """The points of one metric of some runs, by run id; this request has no method of the client's."""
    answer = http_request_safe(
        get_default_host_creds(client.tracking_uri),
        "/api/2.0/mlflow/metrics/get-history-bulk-interval",
        "GET",
        params={"run_ids": list(run_ids), "metric_key": key, "max_results": MOST_POINTS},
    )
    for point in answer.json().get("metrics", ()):
        metric = Metric(point["key"], float(point["value"]), int(point["timestamp"]), int(point.get("step", 0)))
        yield point["run_id"], metric


def _complete(client: MlflowClient, run_id: str, history: History) -> History:
    """A history of which nothing was left out."""
    return {
        key: client.get_metric_history(run_id, key) if len(points) >= MOST_POINTS else points
        for key, points in history.items()
    }
