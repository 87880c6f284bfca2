"""What a finished study holds, written down when it ends, so that whatever is lost or changed afterwards is found.

The manifest is an artifact of the study's run. For every run it lists the metrics, models and artifacts that were
published, and nothing else: what people add to runs later is theirs. Numbers are kept as digests, so that a value that
changed in the database is noticed without a second copy of it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run, ViewType

from tasks.tracking.files import local_path, stored_file
from tasks.tracking.held import (
    MANIFEST,
    Fault,
    Finished,
    Held,
    HeldModel,
    Verified,
    digest_of,
    entries_of,
    faults_of_runs,
    key_of,
)
from tasks.tracking.histories import History, histories
from tasks.tracking.runs import PAGE, RunTree, delete_run, identity, search_models, study_runs, tree_runs
from tasks.tracking.tags import RUN_KEY, STUDY_RUN, Identity


@dataclass
class Content:
    """What was published on one run.

    Attributes:
        metrics: name -> step -> value.
        models: name -> digest of the weights, and how many points are linked.
        artifacts: relative paths.
    """

    metrics: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    models: dict[str, tuple[str, int]] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)


def manifest(tree: RunTree, contents: Mapping[str, Content]) -> str:
    """The manifest's text: the same for the same study, whatever the ids of its runs are.

    Args:
        tree: the runs.
        contents: run id -> what was published on it.
    """
    runs = {key_of(who): _entry(contents.get(run_id, Content())) for who, run_id in _members(tree)}
    return json.dumps({"runs": runs}, indent=0, sort_keys=True)


def check_tree(client: MlflowClient, study_run: Run, *, files: bool = True) -> list[Fault]:
    """Everything of a finished study that is missing, changed or still open; nothing where it is whole.

    Args:
        client: the store.
        study_run: the study's run.
        files: whether the files of models and artifacts are read, too. Those that only a server reaches are not.
    """
    runs = {identity(run): run for run in tree_runs(client, study_run.info.experiment_id, study_run.data.tags[RUN_KEY])}
    listed, unlisted = entries_of(stored_file(client, study_run, MANIFEST), study_run.info.run_id)
    there = {who: (run.info.run_id, run.info.status) for who, run in runs.items()}
    faults = [*faults_of_runs(study_run.data.tags, there), *unlisted]
    models: dict[str, list[LoggedModel]] = defaultdict(list)
    for model in search_models(client, study_run.info.experiment_id, [run_id for run_id, _ in there.values()]):
        models[model.source_run_id].append(model)
    checked = [run for who, run in runs.items() if key_of(who) in listed]
    for start in range(0, len(checked), PAGE):  # not all points of a large study at once
        some = checked[start : start + PAGE]
        points = histories(client, some)
        for run in some:
            held = _held(run, points[run.info.run_id], models[run.info.run_id])
            faults += held.faults(listed[key_of(held.who)], files=files)
    return faults


def verified(client: MlflowClient) -> Verified:
    """Compare every finished study of a store with what was published: :func:`tasks.tracking.rows.verified` of servers.

    Args:
        client: the store.
    """
    finished = [run for run in study_runs(client, ViewType.ACTIVE_ONLY) if run.info.status == "FINISHED"]
    finished.sort(key=lambda run: run.info.end_time or 0, reverse=True)
    found = [(Finished(run.info.run_id, run.data.tags), check_tree(client, run)) for run in finished]
    return Verified(
        len(found),
        sum(study.num_runs for study, _ in found),
        sum(_num_verified(study, faults) for study, faults in found),
        complete=True,
        faults=[(study, faults) for study, faults in found if faults],
        unreached=any(local_path(run.info.artifact_uri) is None for run in finished),
    )


def _num_verified(study: Finished, faults: Iterable[Fault]) -> int:
    """Without its manifest none of a study's runs can be; a run that is missing never is."""
    missing = [fault for fault in faults if fault.state == "missing"]
    unlisted = any((fault.run, fault.kind, fault.what) == ("study", "file", MANIFEST) for fault in missing)
    return 0 if unlisted else study.num_runs - sum(fault.kind == "run" for fault in missing)


def set_aside_changed(client: MlflowClient, faults: Iterable[Fault]) -> list[str]:
    """Delete the runs in which the database no longer says what was published, to be made anew; returns their ids.

    MLflow can neither change nor remove a point. It keeps deleted runs, and can restore them. Files are not a reason:
    they are written again where they are.
    """
    ids = {one.run_id: None for one in faults if one.kind == "metric" or (one.kind, one.state) == ("model", "changed")}
    found = [run_id for run_id in ids if run_id is not None]
    for run_id in found:
        delete_run(client, client.get_run(run_id))
    return found


def damaged_files(model: LoggedModel) -> list[str]:
    """Files of a model that are missing or not as they were published, by relative path; none where nobody can tell."""
    return _held_model(model, set()).damaged_files(model.source_run_id or "")


def _held(run: Run, points: History, models: Iterable[LoggedModel]) -> Held:
    outputs = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    return Held(
        identity(run),
        run.info.run_id,
        local_path(run.info.artifact_uri),
        run.data.tags,
        run.data.metrics,
        {name: [(point.step, point.value) for point in series] for name, series in points.items()},
        {str(model.name): _held_model(model, outputs) for model in models},
    )


def _held_model(model: LoggedModel, outputs: set[str]) -> HeldModel:
    return HeldModel(
        model.model_id,
        str(model.name),
        model.status == "READY",
        model.model_id in outputs,
        model.artifact_location,
        local_path(model.artifact_location),
        model.tags,
        [(metric.key, metric.step, metric.value) for metric in model.metrics or ()],
    )


def _members(tree: RunTree) -> Iterator[tuple[Identity, str]]:
    yield STUDY_RUN, tree.study_run_id
    for arm, run_id in tree.arm_run_ids.items():
        yield ("arm", arm, ""), run_id
    for (arm, seed), run_id in tree.seed_run_ids.items():
        yield ("seed", arm, str(seed)), run_id


def _entry(content: Content) -> dict[str, Any]:
    return {
        "metrics": {name: (sorted(series), digest_of(series)) for name, series in content.metrics.items()},
        "models": content.models,
        "artifacts": sorted(content.artifacts - {MANIFEST}),
    }
