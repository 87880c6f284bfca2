"""What a finished study holds, written down when it ends, so that whatever is lost or changed afterwards is found.

The manifest is an artifact of the study's run. For every run it lists the metrics, models and artifacts that were
published, and nothing else: what people add to runs later is theirs. Numbers are kept as digests, so that a value that
changed in the database is noticed without a second copy of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from tasks.tracking.files import ARTIFACT, local_path, read_below, stored_file
from tasks.tracking.histories import History, histories
from tasks.tracking.runs import (
    DIGEST,
    PAGE,
    RUN_KEY,
    STUDY_RUN,
    Identity,
    RunTree,
    arms_and_seeds,
    delete_run,
    identity,
    search_models,
    tree_runs,
)
from tasks.tracking.templates import DIGITS, ModelFolder

MANIFEST = "manifest.json"
"""The artifact of the study run that says what its runs hold."""

FILES = "layerwise.files"
"""The tag of a model that names the digests of its files."""

Kind = Literal["run", "metric", "model", "file"]
State = Literal["missing", "changed", "doubled", "open"]
Series = Mapping[int, float]
"""A metric: step -> value."""


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


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was published.

    Attributes:
        run: the run, in words.
        run_id: its id; none where there is no such run.
        kind: what it is.
        state: how it is found: missing, changed, a metric with two points at a step, or a run that is not FINISHED.
        what: the metric, model or file; empty where it is the run itself.
    """

    run: str
    run_id: str | None
    kind: Kind
    state: State
    what: str = ""

    def __str__(self) -> str:
        return f"{self.run}: {self.what}" if self.what else self.run


def manifest(tree: RunTree, contents: Mapping[str, Content]) -> str:
    """The manifest's text: the same for the same study, whatever the ids of its runs are.

    Args:
        tree: the runs.
        contents: run id -> what was published on it.
    """
    runs = {_key(who): _entry(contents.get(run_id, Content())) for who, run_id in _members(tree)}
    return json.dumps({"runs": runs}, indent=0, sort_keys=True)


def check_tree(client: MlflowClient, study_run: Run, *, files: bool = True) -> list[Fault]:
    """Everything of a finished study that is missing, changed or still open; nothing where it is whole.

    Args:
        client: the store.
        study_run: the study's run.
        files: whether the files of models and artifacts are read, too. Those that only a server reaches are not.
    """
    runs = {identity(run): run for run in tree_runs(client, study_run.info.experiment_id, study_run.data.tags[RUN_KEY])}
    listed = _listed(client, study_run)
    faults = [*_faults_of_runs(study_run, runs), *(() if listed else [_of(study_run, "file", "missing", MANIFEST)])]
    ids = [run.info.run_id for run in runs.values()]
    models: dict[str, dict[str, LoggedModel]] = defaultdict(dict)
    for model in search_models(client, study_run.info.experiment_id, ids):
        models[model.source_run_id][model.name] = model
    checked = [run for who, run in runs.items() if _key(who) in listed]
    for start in range(0, len(checked), PAGE):  # not all points of a large study at once
        some = checked[start : start + PAGE]
        points = histories(client, some)
        for run in some:
            entry = listed[_key(identity(run))]
            faults += _Checked(run, points[run.info.run_id], models[run.info.run_id], files=files).faults(entry)
    return faults


def in_words(faults: Iterable[Fault]) -> tuple[str, ...]:
    """Faults by kind and state, with examples.

    Example:
        >>> in_words([Fault("greedy seed 3", "1d1d", "metric", "changed", "test_loss")])
        ('1 metric changed (greedy seed 3: test_loss)',)
    """
    ordered = sorted(faults, key=lambda one: (one.kind, one.state))
    return tuple(
        f"{len(same)} {kind if len(same) == 1 else f'{kind}s'} {state} ({_some([str(one) for one in same])})"
        for (kind, state), group in groupby(ordered, key=lambda one: (one.kind, one.state))
        for same in [list(group)]
    )


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
    folder = local_path(model.artifact_location)
    if folder is None:
        return []
    try:
        listed = dict(json.loads(model.tags.get(FILES, "")))
    except (TypeError, ValueError):  # whatever the files are like, nothing vouches for them
        return ["MLmodel"]
    content = {path: held for path in listed if (held := read_below(folder, path)) is not None}
    ids = {"model_id": model.model_id, "run_id": model.source_run_id or "", "location": model.artifact_location}
    found = ModelFolder.of_named(content, **ids).digests()
    return sorted(path for path, digest in listed.items() if found.get(path) != digest)


@dataclass(frozen=True)
class _Checked:
    """One run and its models, to be compared with the manifest's entry."""

    run: Run
    points: History
    models: Mapping[str, LoggedModel]
    files: bool

    def faults(self, entry: Mapping[str, Any]) -> Iterator[Fault]:
        held: dict[str, Series] = {}
        for name, (steps, digest) in entry["metrics"].items():
            held[name] = series = self._series(name)
            if not set(steps) <= set(series):
                yield _of(self.run, "metric", "missing", name)
            elif _digest({step: series[step] for step in steps}) != digest or not self._latest_is(name, series):
                yield _of(self.run, "metric", "changed", name)
            elif len([point for point in self.points[name] if point.step in steps]) > len(steps):
                yield _of(self.run, "metric", "doubled", name)
        for name, listed in entry["models"].items():
            yield from self._faults_of_model(name, tuple(listed), held)
        for path in entry["artifacts"] if self.files else ():
            yield from self._faults_of_artifact(path)

    def _series(self, name: str) -> Series:
        return {point.step: point.value for point in self.points.get(name, ())}

    def _latest_is(self, name: str, series: Series) -> bool:
        """Whether the value that tables and searches see is that of the last step."""
        return self.run.data.metrics[name] == series[max(series)]

    def _faults_of_model(self, name: str, listed: tuple[str, int], held: Mapping[str, Series]) -> Iterator[Fault]:
        model = self.models.get(name)
        if model is None or model.status != "READY":
            yield _of(self.run, "model", "missing", name)
            return
        linked = [metric for metric in model.metrics or () if metric.key in held]
        same = all(held[metric.key].get(metric.step) == metric.value for metric in linked)
        outputs = {output.model_id for output in self.run.outputs.model_outputs} if self.run.outputs else set()
        if not same or model.model_id not in outputs or (model.tags.get(DIGEST), len(linked)) != listed:
            yield _of(self.run, "model", "changed", name)
        for path in damaged_files(model) if self.files else ():
            yield _of(self.run, "file", "changed", f"{name}/{path}")

    def _faults_of_artifact(self, path: str) -> Iterator[Fault]:
        folder, digest = local_path(self.run.info.artifact_uri), self.run.data.tags.get(ARTIFACT + path)
        if folder is None:
            return
        content = read_below(folder, path)
        if content is None:
            yield _of(self.run, "file", "missing", path)
        elif hashlib.sha256(content).hexdigest() != digest:
            yield _of(self.run, "file", "changed", path)


def _listed(client: MlflowClient, study_run: Run) -> dict[str, Any]:
    """The manifest's entries by run; none where there is no manifest, or it is not as it was published."""
    content = stored_file(client, study_run, MANIFEST)
    return json.loads(content)["runs"] if content is not None else {}


def _faults_of_runs(study_run: Run, runs: Mapping[Identity, Run]) -> Iterator[Fault]:
    for who in _expected(study_run.data.tags):
        if who not in runs:
            yield Fault(_name(who), None, "run", "missing")
    for who, run in runs.items():
        if run.info.status != "FINISHED":
            yield Fault(_name(who), run.info.run_id, "run", "open")


def _expected(tags: Mapping[str, str]) -> Iterator[Identity]:
    yield STUDY_RUN
    arms, seeds = arms_and_seeds(tags)
    for arm in arms:
        yield "arm", arm, ""
        for seed in range(seeds):
            yield "seed", arm, str(seed)


def _members(tree: RunTree) -> Iterator[tuple[Identity, str]]:
    yield STUDY_RUN, tree.study_run_id
    for arm, run_id in tree.arm_run_ids.items():
        yield ("arm", arm, ""), run_id
    for (arm, seed), run_id in tree.seed_run_ids.items():
        yield ("seed", arm, str(seed)), run_id


def _entry(content: Content) -> dict[str, Any]:
    return {
        "metrics": {name: (sorted(series), _digest(series)) for name, series in content.metrics.items()},
        "models": content.models,
        "artifacts": sorted(content.artifacts - {MANIFEST}),
    }


def _digest(series: Series) -> str:
    """Of steps and values to the bit."""
    text = " ".join(f"{step} {float(series[step]).hex()}" for step in sorted(series))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _of(run: Run, kind: Kind, state: State, what: str) -> Fault:
    return Fault(_name(identity(run)), run.info.run_id, kind, state, what)


def _key(who: Identity) -> str:
    return "/".join(filter(None, who))


def _name(who: Identity) -> str:
    kind, arm, seed = who
    return f"{arm} seed {seed}" if kind == "seed" else arm or kind


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
