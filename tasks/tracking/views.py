"""The view that a study's page in MLflow opens on: its arms, their curves overlaid, the scores that answer it first.

Left to itself the page draws every metric of its first ten runs in alphabetical order, which puts test accuracy near
the end of a hundred charts. MLflow 3.17 keeps views as tags of the experiment, and reads this one as if it had been
saved from the page's own menu. It knows no other way to say what a page opens on; where a later MLflow reads the tag
otherwise, its page is the ordinary one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mlflow.entities import Experiment

ARMS_VIEW = "layerwise-arms"
"""The view's identity, in the tag's name and in addresses."""

VIEW_TAG = f"mlflow.sharedViewState.{ARMS_VIEW}"

SECTIONS = {
    "Mean over intact seeds": (
        "test_accuracy_mean",
        "fine_tuned_test_accuracy_mean",
        "train_accuracy_mean",
        "test_reconstruction_mse_mean",
    ),
    "Median over all finite seeds": ("test_accuracy_median", "fine_tuned_test_accuracy_median"),
    "Outcomes": ("collapsed", "diverged", "live_units_mean", "effective_rank_mean"),
}
"""Heading -> metrics of an arm, a chart each."""

PAIRED = "paired"
"""What the metrics of the study run begin with that say how arms differ: a section of their own, folded, at the end."""


def arms_view(*, created: int, score: str = "accuracy") -> str:
    """The view's tag: charts by depth with a line for every arm, as :data:`SECTIONS` says; none without data is shown.

    Args:
        created: when the experiment was made, milliseconds since 1970.
        score: what answers the study: ``"accuracy"``, or ``"r2"`` where it predicts numbers.
    """
    charts = [
        _chart(metric.replace("accuracy", score), name) for name, metrics in SECTIONS.items() for metric in metrics
    ]
    state = {
        "compareRunCharts": charts,
        # Two to a row: a laptop's page cuts the names of three short.
        "compareRunSections": [
            {"uuid": name, "name": name, "display": name != PAIRED, "columns": 2} for name in (*SECTIONS, PAIRED)
        ],
        "hideEmptyCharts": True,
        "runsHiddenMode": "SHOW_ALL",
    }
    view = {"name": "Arms by depth", "createdAt": created, "updatedAt": created, "state": _compact(state)}
    return _compact(view)


def runs_page(experiment: Experiment) -> str:
    """The address of an experiment's runs below that of the server, on the view of its arms where it has one."""
    if VIEW_TAG in experiment.tags:
        return arms_page(experiment.experiment_id)
    return _runs_page(experiment.experiment_id, {})


def arms_page(experiment_id: str) -> str:
    """The address of the view below that of the server."""
    return _runs_page(experiment_id, {"compareRunsMode": "CHART", "viewStateShareKey": ARMS_VIEW})


def _runs_page(experiment_id: str, options: Mapping[str, str]) -> str:
    # MLflow opens an experiment on pages for language models unless the address says otherwise.
    return f"#/experiments/{experiment_id}/runs?{urlencode({'workflowType': 'machine_learning', **options})}"


def _chart(metric: str, section: str) -> dict[str, Any]:
    return {
        "uuid": metric,
        "type": "LINE",
        "metricSectionId": section,
        "metricKey": metric,
        "runsCountToCompare": 100,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "yAxisKey": "metric",
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
    }


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
