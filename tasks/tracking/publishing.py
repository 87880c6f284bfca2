"""Puts metrics, models, artifacts and data sets onto the runs of a tree, each exactly once.

A :class:`Publisher` reads what a run holds when it first touches it and remembers it, so that publishing
depth after depth costs one reading per run. Equal is left alone, missing is sent, unequal is a defect
and is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    Metric,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import Schema, TensorSpec

from tasks import durable
from tasks.bounded import read_below
from tasks.scratch import scratch
from tasks.tracking.files import local_path, require_inside, send_artifact, write_all
from tasks.tracking.held import MANIFEST
from tasks.tracking.histories import History, histories
from tasks.tracking.manifest import Content, damaged_files, manifest
from tasks.tracking.runs import PAGE, RunTree, models_of
from tasks.tracking.store import TrackingError, failures_in_one_line
from tasks.tracking.tags import ARM, ARTIFACT, DIGEST, FILES, RUN_KEY, SEED
from tasks.tracking.templates import ModelTemplate

T = TypeVar("T")

DEPTH = "layerwise.depth"

log = logging.getLogger("layerwise")

MAX_METRICS = 1000
"""Metrics in one request; MLflow accepts no more."""

MAX_DATASET_DIGEST = 36


@dataclass(frozen=True)
class Point:
    """One value of a metric: at a step (the depth), computed at a time (milliseconds since the epoch)."""

    key: str
    value: float
    step: int
    timestamp: int


@dataclass(frozen=True)
class SeedModel:
    """The model of one seed at one depth.

    Attributes:
        run_id: the seed's run.
        name: its name on that run, as in ``depth-01``.
        step: the depth.
        template: its architecture.
        weights: its weights, in the order of ``model.weights``.
        digest: digest of the weights.
        points: metrics of this depth; they are published on the run and linked to the model.
        preparation: what turns raw rows into its inputs, where its template serves raw rows.
    """

    run_id: str
    name: str
    step: int
    template: ModelTemplate
    weights: Sequence[np.ndarray]
    digest: str
    points: Sequence[Point] = ()
    preparation: bytes | None = None


@dataclass
class _Held:
    """What a run holds already, and where its artifacts are."""

    points: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    place: str | None = None
    datasets: set[tuple[str, str]] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)


class Publisher:
    """Publishes onto the runs of one tree; one per process, to be used from any of its threads.

    Example:
        >>> publisher, arm = Publisher(client, tree), tree.arm_run_ids["greedy"]
        >>> publisher.metrics(arm, [Point("seeds", 30, step=1, timestamp=1_700_000_000_000)])
        1
        >>> publisher.metrics(arm, [Point("seeds", 30, step=1, timestamp=1_800_000_000_000)])
        0
    """

    def __init__(self, client: MlflowClient, tree: RunTree) -> None:
        self.client = client
        self.tree = tree
        self._held: dict[str, _Held] = {}
        self._models: dict[str, dict[str, LoggedModel]] = {}
        self._published: dict[str, Content] = defaultdict(Content)
        self._lock = threading.RLock()

    def metrics(self, run_id: str, points: Iterable[Point]) -> int:
        """Publish points on a run; values that are not finite are not sent. Returns how many were new.

        Raises:
            TrackingError: if the run holds another value at the same key and step.
        """
        points = list(points)
        with self._publishing(f"metrics on run {run_id}"):
            missing = self._missing(run_id, points)
            for batch in _batches(missing):
                self.client.log_batch(run_id, metrics=[_metric(point) for point in batch])
                self._remember(run_id, batch)
            self._list_points(run_id, points)
            return len(missing)

    def models(self, models: Sequence[SeedModel]) -> list[str]:
        """Publish models with their metrics; returns their ids in the order given.

        Models of one run given together, several depths of a seed, cost less than one by one.

        Raises:
            TrackingError: if a finished model of that name has other weights, or a metric differs.
        """
        with self._publishing("models"):
            by_run: dict[str, list[SeedModel]] = defaultdict(list)
            for model in models:
                by_run[model.run_id].append(model)
            self._learn(by_run)
            self._learn_models(by_run)
            self._publish_models(by_run)
            return [self._models[model.run_id][model.name].model_id for model in models]

    def file(self, run_id: str, path: str, content: bytes) -> bool:
        """Publish an artifact at a relative path; returns whether it was sent. Equal content is sent once."""
        with self._publishing(path):
            self._published[run_id].artifacts.add(path)
            digest, held = hashlib.sha256(content).hexdigest(), self._of(run_id)
            folder = local_path(held.place)
            vouched = held.tags.get(ARTIFACT + path) == digest
            if vouched and (self._is_listed(run_id, path) if folder is None else read_below(folder, path) == content):
                return False
            if vouched and folder is not None:
                log.warning("Artifact %s of run %s was not as published, and is written again.", path, run_id)
            send_artifact(self.client, held.place or "", self._store, path, content)
            self.tags(run_id, {ARTIFACT + path: digest})
            return True

    @cached_property
    def _store(self) -> str:
        """Where the experiment keeps its artifacts."""
        return self.client.get_experiment(self.tree.experiment_id).artifact_location

    def manifest(self) -> bool:
        """Publish the list of all that this process published or found published; returns whether it was sent."""
        with self._lock:
            return self.text(self.tree.study_run_id, MANIFEST, manifest(self.tree, self._published))

    def text(self, run_id: str, path: str, content: str) -> bool:
        """Publish a text as an artifact, UTF-8."""
        return self.file(run_id, path, content.encode())

    def table(self, run_id: str, path: str, frame: pd.DataFrame) -> bool:
        """Publish a table as CSV, without its index; its numbers read back to the bit."""
        return self.text(run_id, path, frame.to_csv(index=False, lineterminator="\n"))

    def figure(self, run_id: str, path: str, figure: Any) -> bool:
        """Publish a matplotlib figure, in the format that its path ends in."""
        from layerwise import figures  # loads matplotlib

        with scratch() as folder:
            drawn = folder / PurePosixPath(path).name
            figures.save(figure, str(drawn))
            return self.file(run_id, path, drawn.read_bytes())

    def tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run; those that it has already are not sent."""
        with self._publishing(f"tags on run {run_id}"):
            held = self._of(run_id).tags
            new = {key: value for key, value in tags.items() if held.get(key) != value}
            if new:
                self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in new.items()])
                held.update(new)

    def tags_of(self, run_id: str) -> dict[str, str]:
        """Every tag of a run."""
        with self._lock:
            return dict(self._of(run_id).tags)

    def tagged(self, run_id: str, key: str) -> bool:
        """Whether a run has a tag."""
        with self._lock:
            return key in self._of(run_id).tags

    def dataset(
        self,
        run_id: str,
        *,
        name: str,
        digest: str,
        context: str,
        source: Mapping[str, str],
        features: np.ndarray,
        labels: np.ndarray,
    ) -> bool:
        """Publish a data set as an input of a run; returns whether it was new.

        Args:
            run_id: the run.
            name: the data set's name; ``train`` and ``test`` parts need two names.
            digest: digest of its full content, at most 36 characters.
            context: what it was used for, ``train`` or ``test``.
            source: where it comes from, as plain text by key.
            features: (rows, ...); only shape and type are published.
            labels: (rows,); likewise.

        Raises:
            TrackingError: if the digest is longer than MLflow keeps.
        """
        if len(digest) > MAX_DATASET_DIGEST:
            raise TrackingError(
                f"the digest of data set {name!r} has {len(digest)} characters, and MLflow keeps at most"
                f" {MAX_DATASET_DIGEST}; shorten it."
            )
        with self._publishing(f"data set {name}"):
            held = self._of(run_id)
            if (name, digest) in held.datasets:
                return False
            described = _describe(name, digest, source, features, labels)
            context_tag = InputTag("mlflow.data.context", context)
            self.client.log_inputs(run_id, datasets=[DatasetInput(described, tags=[context_tag])])
            held.datasets.add((name, digest))
            return True

    @contextmanager
    def _publishing(self, what: str) -> Generator[None]:
        with self._lock, failures_in_one_line(f"publishing {what}", self.client.tracking_uri):
            try:
                yield
            except BaseException:
                # A request that failed may have been carried out all the same, so runs and models are read again.
                self._held.clear()
                self._models.clear()
                raise

    def _of(self, run_id: str) -> _Held:
        self._learn([run_id])
        return self._held[run_id]

    def _learn(self, run_ids: Iterable[str]) -> None:
        """Read what runs hold, those not yet read, in one request for all."""
        unread = [run_id for run_id in run_ids if run_id not in self._held]
        for some in _batches(unread, PAGE):
            names = ", ".join(f"'{run_id}'" for run_id in some)
            query = f"attributes.run_id IN ({names})"
            runs = list(self.client.search_runs([self.tree.experiment_id], query, max_results=PAGE))
            points = histories(self.client, runs)
            self._held |= {run.info.run_id: _held(run, points[run.info.run_id]) for run in runs}
        for run_id in unread:
            if run_id not in self._held:
                raise TrackingError(
                    f"run {run_id} is not in experiment {self.tree.experiment_id}: somebody deleted it;"
                    " run again, and it is made anew."
                )

    def _learn_models(self, run_ids: Iterable[str]) -> None:
        unread = [run_id for run_id in run_ids if run_id not in self._models]
        self._models |= models_of(self.client, self.tree.experiment_id, unread)

    def _missing(self, run_id: str, points: Iterable[Point]) -> list[Point]:
        held = self._of(run_id).points
        missing: dict[tuple[str, int], Point] = {}
        for point in points:
            place, value = (point.key, point.step), float(point.value)
            standing = missing[place].value if place in missing else held.get(place, (None, 0))[0]
            if standing is None and math.isfinite(value):
                missing[place] = point
            elif standing is not None and standing != value:
                raise TrackingError(
                    f"run {run_id} holds {point.key} = {standing!r} at step {point.step}, but now {value!r}"
                    " was computed; equal studies must give equal values: see what changed, or compute afresh"
                    " with --repeat."
                )
        return list(missing.values())

    def _remember(self, run_id: str, points: Iterable[Point]) -> None:
        held = self._held[run_id].points
        held.update({(point.key, point.step): (float(point.value), point.timestamp) for point in points})

    def _publish_models(self, by_run: Mapping[str, Sequence[SeedModel]]) -> None:
        """READY comes last: everything before it stands, on disk too. What a kill left PENDING is done again."""
        unfinished = {
            run_id: [model for model in models if not self._is_ready(model)] for run_id, models in by_run.items()
        }
        for run_id, models in unfinished.items():
            for model in models:
                self._missing(run_id, model.points)  # a metric that differs is refused before anything is written
        places = [self._write(model) for models in unfinished.values() for model in models]
        if any(places):
            durable.settle(next(filter(None, places)))
        for run_id, models in unfinished.items():
            self._link_outputs(run_id, models)
            self._link_points(run_id, models)
            of_run = self._models[run_id]
            for model in models:
                of_run[model.name] = self.client.finalize_logged_model(of_run[model.name].model_id, "READY")
        for run_id, models in by_run.items():
            self._list_models(run_id, models)

    def _is_ready(self, model: SeedModel) -> bool:
        known = self._models[model.run_id].get(model.name)
        if known is None or known.status != "READY":
            return False
        if known.tags.get(DIGEST) != model.digest:
            raise TrackingError(
                f"model {model.name} of run {model.run_id} has the weights {known.tags.get(DIGEST)}, but now"
                f" {model.digest} were computed; equal studies must give equal weights: see what changed,"
                " or compute afresh with --repeat."
            )
        self.metrics(model.run_id, model.points)
        if damaged := damaged_files(known):
            log.warning(
                "Model %s of run %s was not as published (%s), and is written again.",
                model.name,
                model.run_id,
                ", ".join(damaged),
            )
            if place := self._write(model):
                durable.settle(place)
        return True

    def _write(self, model: SeedModel) -> Path | None:
        """Write a model's folder under its own id; returns where, if that is on this machine."""
        folder = model.template.folder(model.weights, model.preparation)
        known = self._create(model, folder.digests())
        files = folder.named(model_id=known.model_id, run_id=model.run_id, location=known.artifact_location)
        # The client's log_model_artifacts would ask the store where the model lives, then copy: 4 ms more.
        if place := local_path(known.artifact_location):
            write_all(require_inside(place, self._store), files)
            return place
        with scratch() as folder:
            write_all(folder, files)
            get_artifact_repository(known.artifact_location, tracking_uri=self.client.tracking_uri).log_artifacts(
                str(folder)
            )
        return None

    def _create(self, model: SeedModel, files: Mapping[str, str]) -> LoggedModel:
        """The model in the store, with the digests of its weights and of the files that are about to be written."""
        of_run, tags = self._models[model.run_id], self._model_tags(model, files)
        known = of_run.get(model.name)
        if known is None:
            known = self.client.create_logged_model(
                self.tree.experiment_id, model.name, source_run_id=model.run_id, tags=tags
            )
        elif changed := {key: value for key, value in tags.items() if known.tags.get(key) != value}:
            # Never finished, or its files are damaged: what it held was never, or is no longer, anyone's.
            self.client.set_logged_model_tags(known.model_id, changed)
            known.tags.update(changed)
        of_run[model.name] = known
        return known

    def _model_tags(self, model: SeedModel, files: Mapping[str, str]) -> dict[str, str]:
        tags = {RUN_KEY: self.tree.run_key, DEPTH: str(model.step), DIGEST: model.digest, FILES: json.dumps(files)}
        if model.run_id in self.tree.seed_of:
            arm, seed = self.tree.seed_of[model.run_id]
            tags |= {ARM: arm, SEED: str(seed)}
        return tags

    def _link_outputs(self, run_id: str, models: Sequence[SeedModel]) -> None:
        linked = self._of(run_id).outputs
        ids = {self._models[run_id][model.name].model_id: model.step for model in models}
        absent = [LoggedModelOutput(model_id, step) for model_id, step in ids.items() if model_id not in linked]
        if not absent:
            return
        try:
            self.client.log_outputs(run_id, absent)
        except MlflowException:
            # MLflow inserts blindly: a request that was answered too late, and so sent twice, fails.
            run = self.client.get_run(run_id)
            if not {output.model_id for output in absent} <= _outputs(run):
                raise
        linked.update(output.model_id for output in absent)

    def _link_points(self, run_id: str, models: Sequence[SeedModel]) -> None:
        """Send metrics with the model they describe; the run and the model receive them in one request."""
        held = self._held[run_id].points
        sending: list[tuple[Point, Metric]] = []
        for model in models:
            known = self._models[run_id][model.name]
            linked = {(metric.key, metric.step) for metric in known.metrics or ()}
            for point in model.points:
                if (point.key, point.step) in linked or not math.isfinite(point.value):
                    continue
                # The row that the run holds must be sent as it stands, or it would be another row.
                _, timestamp = held.get((point.key, point.step), (0.0, point.timestamp))
                sending.append((point, _metric(point, timestamp, known.model_id)))
        for batch in _batches(sending):
            self.client.log_batch(run_id, metrics=[metric for _, metric in batch])
            self._remember(run_id, [point for point, _ in batch])

    def _is_listed(self, run_id: str, path: str) -> bool:
        folder = _parent(path)
        return any(item.path == path for item in self.client.list_artifacts(run_id, folder))

    def _list_points(self, run_id: str, points: Iterable[Point]) -> None:
        for point in points:
            if math.isfinite(point.value):
                self._published[run_id].metrics[point.key][point.step] = float(point.value)

    def _list_models(self, run_id: str, models: Iterable[SeedModel]) -> None:
        for model in models:
            self._list_points(run_id, model.points)
            linked = sum(math.isfinite(point.value) for point in model.points)
            self._published[run_id].models[model.name] = (model.digest, linked)


def _parent(path: str) -> str | None:
    """The folder of an artifact, as MLflow wants it said."""
    parent = PurePosixPath(path).parent
    return None if parent == PurePosixPath() else str(parent)


def _held(run: Run, history: History) -> _Held:
    held = _Held(tags=dict(run.data.tags), place=run.info.artifact_uri, outputs=_outputs(run))
    for key, metrics in history.items():
        held.points |= {(key, metric.step): (metric.value, metric.timestamp) for metric in metrics}
    if run.inputs:
        held.datasets.update((used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs)
    return held


def _outputs(run: Run) -> set[str]:
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def _metric(point: Point, timestamp: int | None = None, model_id: str | None = None) -> Metric:
    when = point.timestamp if timestamp is None else timestamp
    return Metric(point.key, float(point.value), when, point.step, model_id=model_id)


def _batches(items: Sequence[T], size: int = MAX_METRICS) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _describe(name: str, digest: str, source: Mapping[str, str], features: np.ndarray, labels: np.ndarray) -> Dataset:
    parts = {"features": features, "targets": labels}
    schema = {"mlflow_tensorspec": {part: _tensor(array).to_json() for part, array in parts.items()}}
    profile = {f"{part}_shape": array.shape for part, array in parts.items()}
    return Dataset(
        name=name,
        digest=digest,
        source_type="code",
        source=json.dumps({"tags": dict(source)}),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )


def _tensor(array: np.ndarray) -> Schema:
    return Schema([TensorSpec(array.dtype, (-1, *array.shape[1:]))])
