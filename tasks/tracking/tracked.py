"""Finds a study's run by what a person says, and reads back what it holds: for reports, comparisons, reproduction.

What the tracker holds is data and no more: the study file is read as plain YAML, and no code is run for it.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run, RunTag
from mlflow.exceptions import MlflowException

from layerwise.study import StudyError
from layerwise.study.reading import MAX_KEPT_BYTES, document_of
from tasks.tracking.answers import COSTS, DIFFERENCES, RESULTS, stored_file, stored_table, stored_verdicts, table_of
from tasks.tracking.files import send_artifact
from tasks.tracking.histories import History, histories
from tasks.tracking.publishing import ARTIFACT, DEPTH
from tasks.tracking.runs import (
    ARM,
    ARMS,
    DIGEST,
    KIND,
    REPEAT,
    RUN_KEY,
    STUDY,
    RunTree,
    identity,
    search_models,
    tree_runs,
)
from tasks.tracking.store import TrackingError, WrongRequest, failures_in_one_line, mlflow_command, taken_as_ours

STUDY_FILE = "study.yaml"
"""The artifact of the study run that holds the study, every setting spelled out."""

SCORES = "scores_by_seed.csv"
"""The one that holds every score: a row per arm, seed and depth."""

RUN_ID = "[0-9a-f]{32}"
"""What MLflow's run ids look like, and names of studies seldom do."""

STAGES = "stages.csv"
"""The one that holds the run's ledger: a row per stage, with the digest of what it left."""

MOST_EXPERIMENTS = 1000


@dataclass(frozen=True)
class Tracked:
    """What the tracker holds of a study that was run.

    Attributes:
        run: the study run.
        document: the study file, as plain values; it need not be one that this version can train.
        metrics: a row per arm, seed and depth.
        table: its summary over seeds.
        verdicts: what the run found of each claim, as plain JSON; None without claims.
        differences: how arms differ, paired by seed; None where no two are compared.
        costs: time and memory of every stage; None of a run from before they were kept.
        data_digest: digest of the data; empty where none was logged.
        stages: a row per stage, with the digest of what it left; None where none were logged.
    """

    run: Run
    document: dict[str, Any]
    metrics: pd.DataFrame
    table: pd.DataFrame
    verdicts: dict[str, Any] | None
    differences: pd.DataFrame | None
    costs: pd.DataFrame | None
    data_digest: str
    stages: pd.DataFrame | None = None

    @property
    def study(self) -> str:
        """The study's name."""
        return self.run.data.tags.get(STUDY, "")

    @property
    def name(self) -> str:
        """What the run is called: the study, and its repeat if it is one."""
        return ":".join(filter(None, (self.study, self.run.data.tags.get(REPEAT, ""))))


def find_study_run(client: MlflowClient, said: str) -> Run:
    """The study run that a person means.

    Args:
        client: the store.
        said: the id of a study's run, or of one of its arms or seeds; or the name of a study, for its newest finished
            run that is no repeat; or ``study:repeat``, for a repeat.

    Raises:
        TrackingError: if there is no such run; one line, with the nearest names.
    """
    _refuse_files(said)
    return _by_id(client, said) if re.fullmatch(RUN_ID, said) else _by_name(client, said)


def find_arm(client: MlflowClient, said: str) -> tuple[Run, str]:
    """The study run, and the arm of it, that a person means; the arm is empty where they mean all of them.

    Args:
        client: the store.
        said: what :func:`find_study_run` takes, with ``/arm`` behind it for one arm; the id of an arm's run means that
            arm.

    Raises:
        TrackingError: if there is no such run, or no such arm in it; one line.
    """
    _refuse_files(said)
    name, _, arm = said.partition("/")
    run = find_study_run(client, name)
    if not arm and name != run.info.run_id and re.fullmatch(RUN_ID, name):
        arm = client.get_run(name).data.tags.get(ARM, "")
    known = run.data.tags.get(ARMS, "").split(",")
    if arm and arm not in known:
        raise WrongRequest(f"{name} has no arm {arm!r}; there are {', '.join(known)}.")
    return run, arm


def read_tracked(client: MlflowClient, run: Run) -> Tracked:
    """What a study run holds.

    Raises:
        TrackingError: if something is not there, or not as it was published.
    """
    with taken_as_ours(f"what run {run.info.run_id} holds"):
        used = run.inputs.dataset_inputs if run.inputs else []
        return Tracked(
            run,
            document=_document(client, run),
            metrics=_scored(table_of(_required(client, run, SCORES)), "seed"),
            table=_scored(table_of(_required(client, run, RESULTS))),
            verdicts=stored_verdicts(client, run),
            differences=stored_table(client, run, DIFFERENCES),
            costs=stored_table(client, run, COSTS),
            data_digest=used[0].dataset.digest if used else "",
            stages=stored_table(client, run, STAGES),
        )


def _scored(table: pd.DataFrame, *more: str) -> pd.DataFrame:
    """A table with the columns that say whose scores its rows are."""
    for name in ("depth", *more):
        if not pd.api.types.is_integer_dtype(table[name]):
            raise ValueError(f"its column {name!r} holds {table[name].dtype}, and no whole numbers")
    if not pd.api.types.is_string_dtype(table["arm"]):
        raise ValueError("its column 'arm' holds no text")
    return table


def arm_settings(client: MlflowClient, run: Run) -> dict[str, dict[str, str]]:
    """Arm -> setting -> value: what the parameters of the arms' runs say of the tree that a study run belongs to."""
    runs = tree_runs(client, run.info.experiment_id, run.data.tags[RUN_KEY])
    return {one.data.tags[ARM]: dict(one.data.params) for one in runs if one.data.tags.get(KIND) == "arm"}


def tree_of(client: MlflowClient, run: Run) -> RunTree:
    """The ids of the runs that a study run belongs with."""
    runs = {identity(one): one for one in tree_runs(client, run.info.experiment_id, run.data.tags[RUN_KEY])}
    arms = {arm: one.info.run_id for (kind, arm, _), one in runs.items() if kind == "arm"}
    seeds = {(arm, int(seed)): one.info.run_id for (kind, arm, seed), one in runs.items() if kind == "seed"}
    return RunTree(run.info.experiment_id, run.data.tags[RUN_KEY], run.info.run_id, arms, seeds)


def finished_models(client: MlflowClient, experiment_id: str, run_id: str) -> dict[str, LoggedModel]:
    """Name -> model, for the finished models of a seed's run."""
    return {one.name: one for one in search_models(client, experiment_id, [run_id]) if one.status == "READY"}


@dataclass(frozen=True)
class SeedRun:
    """What the run of one seed holds.

    Attributes:
        scores: name and depth -> value.
        weights: name and depth of each finished model -> digest of its weights.
    """

    scores: dict[tuple[str, int], float]
    weights: dict[tuple[str, int], str]


def read_seed_runs(client: MlflowClient, run: Run) -> dict[tuple[str, int], SeedRun]:
    """Arm and seed -> what the run of that seed holds, for every seed run of a study run's tree.

    Raises:
        TrackingError: if the store fails.
    """
    with failures_in_one_line(f"reading the seeds' runs of {run.data.tags[STUDY]}", client.tracking_uri):
        experiment, runs = run.info.experiment_id, tree_runs(client, run.info.experiment_id, run.data.tags[RUN_KEY])
        of_seeds = {one.info.run_id: one for one in runs if identity(one)[0] == "seed"}
        points = histories(client, list(of_seeds.values()))
        found = {run_id: SeedRun(_scores(points[run_id]), {}) for run_id in of_seeds}
        with taken_as_ours(f"what the seeds' runs of {run.data.tags[STUDY]} hold"):
            for model in search_models(client, experiment, list(of_seeds)):
                if model.status == "READY":
                    place = (model.name, int(model.tags[DEPTH]))
                    found[model.source_run_id].weights[place] = model.tags.get(DIGEST, "")
            return {(identity(one)[1], int(identity(one)[2])): found[run_id] for run_id, one in of_seeds.items()}


def append_record(client: MlflowClient, run: Run, path: str, content: str, tags: dict[str, str]) -> None:
    """Add a new artifact to a run, and set tags; what it holds already stays as it is.

    Args:
        client: the store.
        run: the run.
        path: of the artifact, which must not be there yet.
        content: of the artifact.
        tags: those that say what the latest record says.

    Raises:
        TrackingError: if the store fails, or the artifact is there.
    """
    with failures_in_one_line(f"writing {path} to run {run.info.run_id}", client.tracking_uri):
        if ARTIFACT + path in run.data.tags:
            raise TrackingError(f"run {run.info.run_id} holds {path} already; run again to write another.")
        store = client.get_experiment(run.info.experiment_id).artifact_location
        send_artifact(client, run.info.artifact_uri or "", store, path, content.encode())
        vouching = {ARTIFACT + path: hashlib.sha256(content.encode()).hexdigest()}
        client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in (vouching | tags).items()])


def _scores(history: History) -> dict[tuple[str, int], float]:
    return {(key, point.step): point.value for key, points in history.items() for point in points}


def _document(client: MlflowClient, run: Run) -> dict[str, Any]:
    where = f"{STUDY_FILE} of run {run.info.run_id}"
    try:
        return document_of(_required(client, run, STUDY_FILE), where)
    except StudyError as error:
        raise TrackingError(str(error)) from None


def _required(client: MlflowClient, run: Run, path: str) -> bytes:
    content = stored_file(client, run, path)
    if content is None:
        name = run.data.tags.get(STUDY, run.info.run_id)
        raise TrackingError(
            f"run {run.info.run_id} of {name} has no {path}, or not as it was published;"
            f" complete it with `layerwise run {name}`."
        )
    return content


def _by_id(client: MlflowClient, run_id: str) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise WrongRequest(f"there is no run {run_id}; `layerwise ui` shows which there are.") from None
    tags = run.data.tags
    if KIND not in tags or RUN_KEY not in tags:
        raise WrongRequest(f"run {run_id} was not made by Layerwise; name a run of a study.")
    if run.info.lifecycle_stage != "active":
        restore = mlflow_command(client, f"runs restore --run-id {run_id}")
        raise WrongRequest(f"run {run_id} has been deleted; bring it back with `{restore}`, or name another one.")
    if tags[KIND] == "study":
        return run
    for other in tree_runs(client, run.info.experiment_id, tags[RUN_KEY]):
        if other.data.tags.get(KIND) == "study":
            return other
    raise WrongRequest(f"run {run_id} belongs to a study whose own run has been deleted; name another one.")


def _refuse_files(said: str) -> None:
    """Refuse a study file, and say what its run is called; nothing that the file names is looked at."""
    if not said.endswith((".yaml", ".yml")):
        return
    try:
        with Path(said).open("rb") as file:
            name = document_of(file.read(MAX_KEPT_BYTES + 1), said).get("name")
    except (OSError, StudyError):
        name = None
    called = f"its study, {name}" if isinstance(name, str) else "its study"
    raise WrongRequest(f"{said} is a study file, and a run is what is asked for: name it by {called}.")


def _by_name(client: MlflowClient, said: str) -> Run:
    whole, _, arm = said.partition("/")
    if arm and whole:
        run = find_study_run(client, whole)
        raise WrongRequest(
            f"{said!r} is one arm of run {run.info.run_id}, and the whole of it is asked for: name {whole}. Arms are"
            " for `layerwise compare` and `layerwise register`."
        )
    name, _, repeat = said.partition(":")
    experiment = client.get_experiment_by_name(name) if name else None
    if experiment is None or experiment.lifecycle_stage != "active":
        raise WrongRequest(f"no run of a study {said!r} is tracked here{_nearest(client, name)}.")
    query = f"tags.`{KIND}` = 'study' AND attributes.status = 'FINISHED'"
    found = client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time DESC"])
    for run in found:
        if run.data.tags.get(REPEAT, "") == repeat:
            return run
    repeats = ", ".join(f"{name}:{run.data.tags[REPEAT]}" for run in found[:5] if run.data.tags.get(REPEAT))
    hint = f"; there are {repeats}" if repeats else f"; finish it with `layerwise run {name}`"
    raise WrongRequest(f"no finished run of {said!r} is tracked here{hint}.")


def _nearest(client: MlflowClient, name: str) -> str:
    known = [one.name for one in client.search_experiments(max_results=MOST_EXPERIMENTS) if STUDY in one.tags]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if near:
        return f"; the nearest are {', '.join(near)}"
    return f"; there are {', '.join(known[:5])}" if known else "; nothing is tracked yet"
