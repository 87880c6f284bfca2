"""The runs of a study: one study run, one top-level run per arm, one run per seed nested under its arm.

A run is found again by what it is (run key, kind, arm, seed), never by a remembered id, so that any process
may go on where another was killed. Ids travel explicitly from here; nothing uses MLflow's ambient run.
"""

from __future__ import annotations

import getpass
import itertools
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from layerwise.study import AnyLayer, Procedure, Study, Training
from tasks import owners
from tasks.tracking.store import (
    TrackingError,
    WrongRequest,
    artifacts_of,
    failures_in_one_line,
    is_remote,
    misplaced,
    mlflow_command,
    require_artifacts_reached,
)
from tasks.tracking.tags import (
    ARM,
    ARMS,
    DIGEST,
    KIND,
    OWNER,
    REPEAT,
    RUN_KEY,
    SEED,
    SEEDS,
    STUDY,
    STUDY_RUN,
    Identity,
    identity_of,
)
from tasks.tracking.views import VIEW_TAG, arms_view

SUPERSEDED_BY = "layerwise.superseded_by"
NOTE = "mlflow.note.content"
"""The description that MLflow's pages show, in Markdown."""

PAGE = 500
"""Runs or models asked for at once."""

MAX_PARAMETER = 6000
"""Characters of a parameter's value; MLflow keeps no more."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunTree:
    """The ids of a study's runs."""

    experiment_id: str
    run_key: str
    study_run_id: str
    arm_run_ids: Mapping[str, str]
    seed_run_ids: Mapping[tuple[str, int], str]

    def seed_run(self, arm: str, seed: int) -> str:
        """The run of one seed of an arm."""
        return self.seed_run_ids[arm, seed]

    @cached_property
    def seed_of(self) -> dict[str, tuple[str, int]]:
        """Run id -> (arm, seed), for the runs of seeds."""
        return {run_id: place for place, run_id in self.seed_run_ids.items()}

    def run_ids(self) -> list[str]:
        """Every run, parts before the whole: seeds, arms, the study."""
        return [*self.seed_run_ids.values(), *self.arm_run_ids.values(), self.study_run_id]


def open_runs(
    client: MlflowClient,
    study: Study,
    *,
    run_key: str,
    repeat: str,
    seeds: Sequence[int],
    provenance: Mapping[str, str],
    root: Path,
) -> RunTree:
    """Find the study's runs or create them, and take them over: they are RUNNING and ours until closed.

    Runs of this study's name that a dead process of this machine left RUNNING are closed as KILLED on the
    way.

    Args:
        client: the store.
        study: the resolved study.
        run_key: the identity of this computation of the study.
        repeat: the name of the repeat, empty for the plain one.
        seeds: the seeds that are reported. Where more are wanted later, all are named again: those that have runs
            keep them.
        provenance: more tags for every run: commit, dirty flag, lock digest, versions.
        root: the project's root; artifacts go below it unless a server decides.

    Raises:
        TrackingError: if the study's experiment has been deleted or moved, or the store fails.
    """
    with failures_in_one_line(f"opening the runs of {study.name!r}", client.tracking_uri):
        experiment_id = _experiment(client, study, root)
        close_stale_runs(client, experiment_id, except_key=run_key)
        plan = _Plan(study, run_key, repeat, provenance)
        found = _Found(client, experiment_id, _one_of_each(client, tree_runs(client, experiment_id, run_key)))

        # The page lists the newest run first, a hundred at a time: the study stands there above its arms, all of them
        # above any seed, and of the seeds the first ones of every arm come first.
        # Seeds that come later, as more are wanted, go on below.
        begun = found.runs[STUDY_RUN].info.start_time if STUDY_RUN in found.runs else int(time.time() * 1000)
        starts = itertools.count(begun, -1)
        study_run = found.open(plan.study_run(seeds), next(starts))
        arms = {arm: found.open(plan.arm_run(arm, len(seeds)), next(starts)) for arm in study.arms}
        seed_runs = {
            (arm, seed): found.open(plan.seed_run(arm, seed, run_id), next(starts))
            for seed in seeds
            for arm, run_id in arms.items()
        }
        by_arm = {(arm, seed): seed_runs[arm, seed] for arm in study.arms for seed in seeds}
        return RunTree(experiment_id, run_key, study_run, arms, by_arm)


def close_runs(
    client: MlflowClient,
    tree: RunTree,
    *,
    status: Status = "FINISHED",
    failed_arms: Collection[str] = (),
    end_time: int | None = None,
) -> None:
    """Close what is open of a tree, seeds before arms before the study; what is closed stays as it is.

    Doubles that a server made of a request it answered too late are deleted.

    Args:
        client: the store.
        tree: the runs.
        status: how it ended.
        failed_arms: arms whose runs are FAILED, as are those of an arm with a model that was left unfinished;
            the study run is then FAILED too.
        end_time: milliseconds since the epoch; now if left out.
    """
    with failures_in_one_line("closing the runs", client.tracking_uri):
        ended = end_time or int(time.time() * 1000)
        runs = _without_twins(client, tree)
        models = models_of(client, tree.experiment_id, list(tree.seed_run_ids.values()))
        ready = {run_id: sum(model.status == "READY" for model in own.values()) for run_id, own in models.items()}
        unfinished = {tree.seed_of[run_id][0] for run_id, own in models.items() if ready[run_id] < len(own)}
        failed = {*failed_arms, *unfinished}
        for run_id in tree.run_ids():
            run = runs.get(run_id)
            if run is not None and run.info.status == "RUNNING":
                client.set_terminated(run_id, _status_of(run, status, failed), ended)
        if status == "FINISHED" and not failed:
            _supersede(client, tree, runs[tree.study_run_id])


def close_stale_runs(client: MlflowClient, experiment_id: str, *, except_key: str = "") -> list[str]:
    """Close as KILLED the runs that processes of this machine, now gone, left RUNNING; returns their ids.

    Args:
        client: the store.
        experiment_id: the study's experiment.
        except_key: a run key whose runs are left alone, because they are about to be taken over.
    """
    running = _search(client, experiment_id, "attributes.status = 'RUNNING'")
    others = [run for run in running if run.data.tags.get(RUN_KEY) != except_key]
    stale = [run for run in others if owners.is_gone(run.data.tags.get(OWNER, ""))]
    for run in stale:
        client.set_terminated(run.info.run_id, "KILLED", _last_sign_of_life(client, run))
    return [run.info.run_id for run in stale]


def tree_runs(client: MlflowClient, experiment_id: str, run_key: str) -> list[Run]:
    """Every run of a run key that has not been deleted.

    Raises:
        TrackingError: if that is no run key, as it may be where a tracker was asked for it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", run_key):
        raise TrackingError(f"the tag {RUN_KEY} says {run_key[:40]!r}, which no study has; see who changed it.")
    return _search(client, experiment_id, f"tags.`{RUN_KEY}` = '{run_key}'")


def study_runs(client: MlflowClient, view: int) -> list[Run]:
    """The study runs of every experiment, deleted ones among them; the newest of an experiment first.

    Args:
        client: the store.
        view: which runs, MLflow's ``ViewType``.
    """
    found: list[Run] = []
    for experiment in client.search_experiments(view_type=ViewType.ALL):
        token = None
        while token != "":
            query = f"tags.`{KIND}` = 'study' AND tags.`{RUN_KEY}` != ''"
            page = client.search_runs([experiment.experiment_id], query, view, max_results=PAGE, page_token=token)
            found += page
            token = page.token or ""
    return found


def identity(run: Run) -> Identity:
    """What a run is within its tree."""
    return identity_of(run.data.tags)


def delete_run(client: MlflowClient, run: Run) -> None:
    """Delete a run with its models; MLflow keeps them, and can restore them."""
    for model in search_models(client, run.info.experiment_id, [run.info.run_id]):
        client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)


def count_models(client: MlflowClient, experiment_id: str, run_ids: Sequence[str]) -> dict[str, Counter[str]]:
    """Run id -> how many of its models are in each state, READY or not."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for model in search_models(client, experiment_id, run_ids):
        counts[model.source_run_id][str(model.status)] += 1
    return counts


def models_of(client: MlflowClient, experiment_id: str, run_ids: Sequence[str]) -> dict[str, dict[str, LoggedModel]]:
    """Run id -> name -> model. Of several of one name one stays, READY if any is; the others are deleted.

    Creating a model is not idempotent: a request that a server answered too late may have been sent twice.
    """
    found: dict[str, dict[str, LoggedModel]] = {run_id: {} for run_id in run_ids}
    for model in search_models(client, experiment_id, run_ids):
        of_run = found[model.source_run_id]
        other = of_run.setdefault(model.name, model)
        if other is model:
            continue
        kept, dropped = (model, other) if model.status == "READY" != other.status else (other, model)
        client.delete_logged_model(dropped.model_id)
        of_run[model.name] = kept
    return found


def search_models(client: MlflowClient, experiment_id: str, run_ids: Sequence[str]) -> Iterator[Any]:
    """The models of some runs, oldest first."""
    oldest_first = [{"field_name": "creation_time", "ascending": True}]
    for start in range(0, len(run_ids), PAGE):  # an IN list as long as a study would pass SQLite's limits
        names = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + PAGE])
        token = None
        while token != "":
            page = client.search_logged_models(
                [experiment_id],
                f"source_run_id IN ({names})",
                max_results=PAGE,
                order_by=oldest_first,
                page_token=token,
            )
            yield from page
            token = page.token or ""


def parameters(study: Study, arm: str | None = None) -> dict[str, str]:
    """What the runs page shows and compares, plain values by short name: of an arm, or of the study at large.

    Example:
        >>> parameters(load("blobs-supervised"), "greedy")["learning_rate"]
        '0.01'
    """
    if arm is None:
        said = {**_trained(study.training), "depth": study.depth, **_hidden(study.network.hidden)}
        said["arms"] = ", ".join(study.arms)
    else:
        said = _said(study.procedure(arm))
    # Scaling and labels are the data's only where no arm says them.
    data = {key: value for key, value in study.data.canonical().items() if key not in said}
    return {key: str(value)[:MAX_PARAMETER] for key, value in _flat({**said, "data": data})}


@dataclass(frozen=True)
class _Planned:
    """A run as it should be."""

    identity: Identity
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


@dataclass(frozen=True)
class _Plan:
    """What every run of a tree is to be called and tagged."""

    study: Study
    run_key: str
    repeat: str
    provenance: Mapping[str, str]

    def study_run(self, seeds: Sequence[int]) -> _Planned:
        more = {SEEDS: str(len(seeds)), ARMS: ",".join(self.study.arms)}
        note = {NOTE: self.study.question} if self.study.question else {}
        params = parameters(self.study) | {"seeds": str(self.study.seeds)}
        return self._run(STUDY_RUN, "study", more | note, params)

    def arm_run(self, arm: str, num_seeds: int) -> _Planned:
        params = parameters(self.study, arm) | {"seeds": str(self.study.seeds)}
        return self._run(("arm", arm, ""), arm, {SEEDS: str(num_seeds)}, params)

    def seed_run(self, arm: str, seed: int, parent: str) -> _Planned:
        params = parameters(self.study, arm) | {"seed": str(seed)}
        return self._run(("seed", arm, str(seed)), f"{arm} seed {seed:02d}", {"mlflow.parentRunId": parent}, params)

    def _run(self, who: Identity, name: str, more: Mapping[str, str], params: Mapping[str, str]) -> _Planned:
        kind, arm, seed = who
        tags = {
            **self.provenance,
            RUN_KEY: self.run_key,
            STUDY: self.study.name,
            DIGEST: self.study.digest(),
            REPEAT: self.repeat,
            OWNER: owners.this_process(),
            KIND: kind,
            **({ARM: arm} if arm else {}),
            **({SEED: seed} if seed else {}),
            "mlflow.user": _user(),
            "mlflow.source.name": f"layerwise run {self.study.name}",
            "mlflow.source.type": "LOCAL",
            **more,
        }
        return _Planned(who, f"{name} · {self.repeat}" if self.repeat else name, tags, params)


@dataclass(frozen=True)
class _Found:
    """The runs of a tree that exist already, and how the missing ones come to be."""

    client: MlflowClient
    experiment_id: str
    runs: dict[Identity, Run] = field(default_factory=dict)

    def open(self, planned: _Planned, start: int) -> str:
        """The id of the planned run, which is RUNNING, ours, and complete in tags and parameters.

        Args:
            planned: the run as it should be.
            start: when it began if it is new, milliseconds since 1970.
        """
        run = self.runs.get(planned.identity)
        if run is None:
            # Tags come with the creation, in one transaction: a run without identity cannot be left behind.
            tags = dict(planned.tags)
            run = self.client.create_run(self.experiment_id, start_time=start, tags=tags, run_name=planned.name)
        elif run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        self._complete(run, planned)
        return run.info.run_id

    def _complete(self, run: Run, planned: _Planned) -> None:
        tags = {key: value for key, value in planned.tags.items() if run.data.tags.get(key) != value}
        params = [Param(key, value) for key, value in planned.params.items() if key not in run.data.params]
        if tags or params:
            self.client.log_batch(run.info.run_id, tags=_tags(tags), params=params)


def _experiment(client: MlflowClient, study: Study, root: Path) -> str:
    experiment = client.get_experiment_by_name(study.name)
    if experiment is None:
        return _create_experiment(client, study, root)
    if experiment.lifecycle_stage != "active":
        restore = mlflow_command(client, f"experiments restore --experiment-id {experiment.experiment_id}")
        raise WrongRequest(
            f"the experiment {study.name!r} has been deleted; bring it back with `{restore}`, or rename the study."
        )
    require_artifacts_reached(client, study.name, experiment.artifact_location)
    _require_artifacts_here(client, study, experiment.artifact_location, root)
    if VIEW_TAG not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, _view(study, experiment.creation_time or 0))
    return experiment.experiment_id


def _require_artifacts_here(client: MlflowClient, study: Study, location: str, root: Path) -> None:
    if is_remote(client) or not is_local_uri(location):
        return
    if problem := misplaced(study.name, Path(local_file_uri_to_path(location)), root):
        raise WrongRequest(problem)


def _create_experiment(client: MlflowClient, study: Study, root: Path) -> str:
    # Names of studies are safe in a path. The kind keeps the UI from asking what sort of experiment this is.
    location = None if is_remote(client) else artifacts_of(study.name, root)
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        VIEW_TAG: _view(study, int(time.time() * 1000)),
        STUDY: study.name,
    }
    if study.question:
        tags[NOTE] = study.question
    try:
        return client.create_experiment(study.name, artifact_location=location, tags=tags)
    except MlflowException:
        experiment = client.get_experiment_by_name(study.name)  # another process was faster
        if experiment is None:
            raise
        return experiment.experiment_id


def _view(study: Study, created: int) -> str:
    return arms_view(created=created, score="r2" if study.data.task == "regression" else "accuracy")


def _one_of_each(client: MlflowClient, runs: Sequence[Run]) -> dict[Identity, Run]:
    """One run per identity; of several, the fullest stays and the others are deleted with their models.

    Creating a run is not idempotent: a request that a server answered too late may have been sent twice.
    """
    by_identity: dict[Identity, list[Run]] = defaultdict(list)
    for run in runs:
        by_identity[identity(run)].append(run)
    kept = {}
    for who, same in by_identity.items():
        kept[who], *others = sorted(same, key=_fullest_first)
        for other in others:
            delete_run(client, other)
    return kept


def _without_twins(client: MlflowClient, tree: RunTree) -> dict[str, Run]:
    """The tree's runs by id; others that claim to be one of them are deleted."""
    runs = {run.info.run_id: run for run in tree_runs(client, tree.experiment_id, tree.run_key)}
    ours = {run_id: runs.pop(run_id) for run_id in tree.run_ids() if run_id in runs}
    known = {identity(run) for run in ours.values()}
    for other in runs.values():
        if identity(other) in known:
            delete_run(client, other)
    return ours


def _fullest_first(run: Run) -> tuple[int, int, int, int, str]:
    outputs = len(run.outputs.model_outputs) if run.outputs else 0
    data = run.data
    return -outputs, -len(data.metrics), -len(data.params), run.info.start_time, run.info.run_id


def _search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    runs: list[Run] = []
    token = None
    while token != "":
        page = client.search_runs([experiment_id], query, max_results=PAGE, page_token=token)
        runs += page
        token = page.token or ""
    return runs


def _status_of(run: Run, status: Status, failed_arms: Collection[str]) -> Status:
    kind, arm, _ = identity(run)
    return "FAILED" if failed_arms and (kind == "study" or arm in failed_arms) else status


def _supersede(client: MlflowClient, tree: RunTree, study_run: Run) -> None:
    """Mark the plain answers of older forms of the study; repeats stand for themselves."""
    if study_run.data.tags.get(REPEAT):
        return
    for run in _search(client, tree.experiment_id, f"tags.`{KIND}` != 'seed'"):
        tags = run.data.tags
        older = run.info.start_time < study_run.info.start_time and tags.get(RUN_KEY) != tree.run_key
        if older and not tags.get(REPEAT) and SUPERSEDED_BY not in tags:
            client.set_tag(run.info.run_id, SUPERSEDED_BY, tree.run_key)


def _last_sign_of_life(client: MlflowClient, run: Run) -> int:
    """When a killed run last published, or began: its duration should not include the days nobody looked."""
    times = [metric.timestamp for key in run.data.metrics for metric in client.get_metric_history(run.info.run_id, key)]
    return max([run.info.start_time, *times])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _said(arm: Procedure) -> dict[str, Any]:
    parts = {"head": arm.head if arm.head != arm.training else None, "noise": arm.noise, "fine_tune": arm.fine_tune}
    plain = {"control": arm.control, "labels": arm.labels}
    return {
        "objective": arm.objective,
        **_trained(arm.training),
        "depth": arm.depth,
        **_hidden(arm.layers),
        "scaling": arm.scaling,
        **{name: value for name, value in plain.items() if value is not None},
        **{name: part.canonical() for name, part in parts.items() if part is not None},
    }


def _trained(training: Training) -> dict[str, Any]:
    settings = training.canonical()
    optimizer = settings.pop("optimizer")
    return {"optimizer": optimizer.pop("name"), **optimizer, **settings}


def _hidden(layers: Sequence[AnyLayer]) -> dict[str, str]:
    """The hidden layers, bottom up: units ``10 x 11`` or ``500, 250 x 2``; what else they have, where it changes."""
    units = [(value, len(list(same))) for value, same in itertools.groupby(layer.label for layer in layers)]
    return {
        "hidden_units": ", ".join(f"{value} x {times}" if times > 1 else str(value) for value, times in units),
        "hidden_activation": ", ".join(_each(layers, "activation")),
        "hidden_initializer": ", ".join(_each(layers, "initializer")),
    }


def _each(layers: Sequence[AnyLayer], setting: str) -> list[str]:
    """A setting of the layers, bottom up, once for each stretch of equal ones."""
    return [str(value) for value, _ in itertools.groupby(getattr(layer, setting, "custom") for layer in layers)]


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in values.items()]
