"""Reads a finished study back from the store, and checks that nothing of it has gone missing.

This is how a study that is already answered is answered again: without Prefect and without TensorFlow.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tasks.tracking.publishing import ARTIFACT
from tasks.tracking.registry import CHOSEN, REGISTERED, registered_version
from tasks.tracking.runs import (
    ARMS,
    KIND,
    MODELS,
    POINTS,
    RUN_KEY,
    SEEDS,
    STUDY,
    Identity,
    count_models,
    count_points,
    identity,
    tree_runs,
)

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

CLAIM = "layerwise.claim."
"""What the tags of the study run begin with that hold a verdict each."""


@dataclass(frozen=True)
class StoredAnswer:
    """What the store holds of a study.

    Attributes:
        table: the table of results; None if it is not there or not as it was published.
        verdicts: what the run found of each claim, as plain JSON; None for a study without claims.
        missing: what should be there and is not, in words; empty if the answer is complete.
        chosen: arm, depth and seed of the network that validation chose; empty where nothing was chosen.
        registered: its version of the registered model of the study's name; empty where it was not registered.
    """

    table: pd.DataFrame | None
    verdicts: dict[str, Any] | None = None
    missing: tuple[str, ...] = ()
    chosen: str = ""
    registered: str = ""


def finished_study_run(client: MlflowClient, study_name: str, run_key: str) -> Run | None:
    """The study run of a run key if it is FINISHED: the study is then answered already."""
    experiment = client.get_experiment_by_name(study_name)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    query = f"tags.`{RUN_KEY}` = '{run_key}' AND tags.`{KIND}` = 'study' AND attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], query, max_results=1)
    return runs[0] if runs else None


def stored_answer(client: MlflowClient, study_run: Run, *, claims: bool = False) -> StoredAnswer:
    """Results and verdicts, after every run, metric point and model of the tree was found to be there.

    Args:
        client: the store.
        study_run: as :func:`finished_study_run` returns it.
        claims: whether the study has claims, so that there must be verdicts.
    """
    runs = tree_runs(client, study_run.info.experiment_id, study_run.data.tags[RUN_KEY])
    table, verdicts = stored_table(client, study_run, RESULTS), stored_file(client, study_run, VERDICTS)
    missing = [*_missing_runs(study_run, runs), *_missing_content(client, study_run.info.experiment_id, runs)]
    if table is None:
        missing.append(f"the artifact {RESULTS}")
    if claims and verdicts is None:
        missing.append(f"the artifact {VERDICTS}")
    tags = study_run.data.tags
    if REGISTERED in tags and registered_version(client, tags[STUDY], tags[RUN_KEY]) is None:
        missing.append(f"the registered model {tags[REGISTERED]}")
    return StoredAnswer(
        table,
        None if verdicts is None else json.loads(verdicts),
        tuple(missing),
        tags.get(CHOSEN, ""),
        tags.get(REGISTERED, "").rpartition("/")[2],
    )


def stored_table(client: MlflowClient, run: Run, path: str) -> pd.DataFrame | None:
    """A table that a run holds as an artifact; None if it is not there or not as it was published."""
    content = stored_file(client, run, path)
    return None if content is None else table_of(content)


def table_of(content: bytes) -> pd.DataFrame:
    """A table as it was published: names and digests are text, whatever they look like, and only nothing is missing."""
    text: dict[Hashable, Any] = dict.fromkeys(("arm", "minus", "stage", "digest", "content"), "str")
    return pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, na_values=[""])


def stored_file(client: MlflowClient, run: Run, path: str) -> bytes | None:
    """An artifact of a run; None if it is not there or not as it was published."""
    digest = run.data.tags.get(ARTIFACT + path)
    if digest is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            content = Path(client.download_artifacts(run.info.run_id, path, scratch)).read_bytes()
    except (MlflowException, OSError):
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _missing_runs(study_run: Run, runs: list[Run]) -> Iterator[str]:
    found = {identity(run): run for run in runs}
    absent = [_in_words(who) for who in _expected(study_run.data.tags) if who not in found]
    open_still = [_in_words(who) for who, run in found.items() if run.info.status != "FINISHED"]
    if absent:
        yield f"{len(absent)} runs ({_some(absent)})"
    if open_still:
        yield f"the end of {len(open_still)} runs ({_some(open_still)})"


def _expected(tags: Mapping[str, str]) -> Iterator[Identity]:
    yield "study", "", ""
    for arm in tags.get(ARMS, "").split(","):
        yield "arm", arm, ""
        for seed in range(int(tags.get(SEEDS, "0"))):
            yield "seed", arm, str(seed)


def _missing_content(client: MlflowClient, experiment_id: str, runs: list[Run]) -> Iterator[str]:
    """What runs held when they were closed and do not hold now."""
    found = count_models(client, experiment_id, [run.info.run_id for run in runs])
    points = models = 0
    for run in runs:
        points += max(0, int(run.data.tags.get(POINTS, "0")) - count_points(client, run))
        models += max(0, int(run.data.tags.get(MODELS, "0")) - found[run.info.run_id]["READY"])
    if points:
        yield f"{points} metric points"
    if models:
        yield f"{models} models"


def _in_words(who: Identity) -> str:
    kind, arm, seed = who
    return f"{arm} seed {seed}" if kind == "seed" else arm or kind


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
