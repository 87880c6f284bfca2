"""Reads a finished study back from the store, and checks that all of it is there as it was published.

This is how a study that is already answered is answered again: without Prefect and without TensorFlow.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.tracking.files import stored_file
from tasks.tracking.held import Fault, in_words
from tasks.tracking.manifest import check_tree
from tasks.tracking.registry import CHOSEN, DECLARED, REGISTERED, registered_version
from tasks.tracking.runs import KIND, RUN_KEY, STUDY
from tasks.tracking.store import require_artifacts_reached, taken_as_ours

RESULTS = "results.csv"
"""The artifact of the study run that holds the table of results."""

VERDICTS = "verdicts.json"
"""The one that says what the run found of each claim."""

DIFFERENCES = "differences.csv"
"""The one that holds how arms differ, paired by seed."""

COSTS = "costs.csv"
"""The one that holds time and memory of every stage."""

REPORT = "report.html"
"""The one that is the whole answer, for reading."""

REPORT_AS_TEXT = "report.md"
"""The same as Markdown."""

MOST_COLUMNS = 2000
"""Columns of a table; those of results have about a hundred."""

CLAIM = "layerwise.claim."
"""What the tags of the study run begin with that hold a verdict each."""


@dataclass(frozen=True)
class StoredAnswer:
    """What the store holds of a study.

    Attributes:
        table: the table of results; None if it is not there or not as it was published.
        verdicts: what the run found of each claim, as plain JSON; None for a study without claims.
        missing: what is not there, or not as it was published, in words; empty if the answer is whole.
        faults: the same, one by one.
        chosen: arm, depth and seed of the network that validation chose; empty where nothing was chosen.
        declared: those of the network that the study declares; empty where it declares none.
        registered: its version of the registered model of the study's name; empty where it was not registered.
    """

    table: pd.DataFrame | None
    verdicts: dict[str, Any] | None = None
    missing: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    chosen: str = ""
    declared: str = ""
    registered: str = ""


def finished_study_run(client: MlflowClient, study_name: str, run_key: str) -> Run | None:
    """The study run of a run key if it is FINISHED: the study is then answered already.

    Raises:
        TrackingError: if its artifacts are kept behind a server that the client goes around.
    """
    experiment = client.get_experiment_by_name(study_name)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    require_artifacts_reached(client, study_name, experiment.artifact_location)
    query = f"tags.`{RUN_KEY}` = '{run_key}' AND tags.`{KIND}` = 'study' AND attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], query, max_results=1)
    return runs[0] if runs else None


def stored_answer(client: MlflowClient, study_run: Run, *, claims: bool = False) -> StoredAnswer:
    """Results and verdicts, after every run, metric, model and file of the tree was compared with the manifest.

    Args:
        client: the store.
        study_run: as :func:`finished_study_run` returns it.
        claims: whether the study has claims, so that there must be verdicts.
    """
    with taken_as_ours(f"what run {study_run.info.run_id} holds"):
        return _stored_answer(client, study_run, claims=claims)


def _stored_answer(client: MlflowClient, study_run: Run, *, claims: bool) -> StoredAnswer:
    table, verdicts = stored_table(client, study_run, RESULTS), stored_verdicts(client, study_run)
    faults = check_tree(client, study_run)
    for path, needed, found in ((RESULTS, True, table), (VERDICTS, claims, verdicts)):
        if needed and found is None and not any(fault.what == path for fault in faults):
            faults.append(Fault("study", study_run.info.run_id, "file", "missing", path))
    tags, missing = study_run.data.tags, in_words(faults)
    if REGISTERED in tags and registered_version(client, tags[STUDY], tags[RUN_KEY]) is None:
        missing += (f"1 registered model missing ({tags[REGISTERED]})",)
    registered = tags.get(REGISTERED, "").rpartition("/")[2]
    networks = (tags.get(CHOSEN, ""), tags.get(DECLARED, ""))
    return StoredAnswer(table, verdicts, missing, tuple(faults), *networks, registered)


def stored_table(client: MlflowClient, run: Run, path: str) -> pd.DataFrame | None:
    """A table that a run holds as an artifact; None if it is not there or not as it was published."""
    content = stored_file(client, run, path)
    return None if content is None else table_of(content)


def stored_verdicts(client: MlflowClient, run: Run) -> dict[str, Any] | None:
    """What a run found of each claim, as plain JSON; None if that is not there or not as it was published."""
    content = stored_file(client, run, VERDICTS)
    if content is None:
        return None
    said = json.loads(content)
    for one in said["verdicts"]:
        if not all(isinstance(one[key], str) for key in ("claim", "verdict", "words")):
            raise ValueError(f"a verdict without words in {VERDICTS}")
    return said


def table_of(content: bytes) -> pd.DataFrame:
    """A table as it was published: names and digests are text, whatever they look like, and only nothing is missing.

    Raises:
        ValueError: if it is no such table.
    """
    columns = content.partition(b"\n")[0].count(b",") + 1
    if columns > MOST_COLUMNS:
        raise ValueError(f"{columns:,} columns; at most {MOST_COLUMNS:,} are read")
    text: dict[Hashable, Any] = dict.fromkeys(("arm", "minus", "stage", "digest", "content", "code"), "str")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # of lines that are longer than the header
        try:
            return pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, na_values=[""], index_col=False)
        except pd.errors.ParserWarning as warning:
            raise ValueError(str(warning)) from None
