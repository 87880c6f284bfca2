"""Publishing as Prefect tasks: what was trained and stored goes to MLflow, and can be sent again without harm."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from prefect import task
from prefect.artifacts import create_markdown_artifact

from layerwise import figures, network, statistics
from layerwise.datasets import Data, content_digest
from layerwise.pretraining import Depth, StageResult
from layerwise.study import Study
from tasks import notes
from tasks.provenance import provenance
from tasks.results import read_back
from tasks.tracking.publishing import Point, Publisher, SeedModel
from tasks.tracking.runs import NOTE, RunTree, Status, close_runs, open_runs
from tasks.tracking.store import open_store
from tasks.tracking.templates import ModelTemplate

_publishers: dict[str, Publisher] = {}


@task(name="open runs", task_run_name="open MLflow runs")
def open_tree(study: Study, repeat: str) -> RunTree:
    """Find or create the study's runs; they are ours and RUNNING until closed."""
    root = Path(os.environ["LAYERWISE_ROOT"])
    client = open_store(root)
    tree = open_runs(
        client,
        study,
        run_key=study.digest(repeat),
        repeat=repeat,
        seeds=range(study.seeds),
        provenance=provenance(),
        root=root,
    )
    _publishers[tree.study_run_id] = Publisher(client, tree)
    return tree


@task(name="publish", task_run_name="publish {label}")
def publish_depths(tree: RunTree, depths: Sequence[Depth], data: Data, models: str, label: str) -> None:
    """Send the scores, and the Keras models, of some depths of one block to the runs of its seeds.

    Args:
        tree: the study's runs.
        depths: what was trained, several depths of one block.
        data: the study's data.
        models: ``"all"`` depths' models, the ``"final"`` depth's, or ``"none"``.
        label: how the task run is called.
    """
    publisher, found = _publishers[tree.study_run_id], []
    for depth in depths:
        _verify_stored(depth)
        wanted = models == "all" or (models == "final" and depth.evaluation.depth == depth.block.depth)
        for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
            run_id = tree.seed_run(depth.block.arm, seed)
            if depth.evaluation.diverged[position]:
                _record_divergence(publisher, run_id, depth, position)
            elif wanted:
                found.append(_seed_model(run_id, depth, position, data))
            else:
                publisher.metrics(run_id, _points(depth, position))
    publisher.models(found)


@task(name="summarise", task_run_name="summarise and draw")
def publish_summary(
    tree: RunTree,
    study: Study,
    data: Data,
    metrics: pd.DataFrame,
    table: pd.DataFrame,
    curves: dict[str, list[np.ndarray]],
    finished: dict[tuple[str, int], int],
) -> None:
    """Draw, and send tables, figures, data set and answer.

    Args:
        tree: the study's runs.
        study: the study.
        data: its data.
        metrics: one row per arm, seed and depth.
        table: its summary over seeds; of an arm that is not complete it is not sent, since it would change.
        curves: arm -> one ``(seeds, epochs)`` loss curve a depth.
        finished: (arm, depth) -> when its last score was computed, milliseconds since 1970.
    """
    publisher = _publishers[tree.study_run_id]
    for arm, rows in table.groupby("arm", sort=False):
        run_id, own = tree.arm_run_ids[str(arm)], metrics[metrics["arm"] == arm]
        if len(own) < study.seeds * study.depth:
            continue
        publisher.metrics(run_id, _aggregates(rows, finished))
        publisher.figure(run_id, "accuracy_by_depth.png", figures.accuracy_by_depth(own, rows))
        publisher.figure(run_id, "loss_by_epoch.png", figures.loss_curves({str(arm): curves[str(arm)]}))
        publisher.table(run_id, "loss_by_epoch.csv", _curve_table(curves[str(arm)]))
        _publish_datasets(publisher, run_id, study, data)
        publisher.tags(run_id, {NOTE: notes.arm_note(study, str(arm), tree, metrics, table)})
    _publish_study(publisher, tree, study, data, metrics, table)
    key = "-".join(re.findall("[a-z0-9]+", study.name.lower()))  # all that Prefect takes
    create_markdown_artifact(notes.answer_note(study, metrics, table), key=key, description=study.question)


@task(name="close runs", task_run_name="close MLflow runs")
def close_tree(tree: RunTree, status: Status, failed_arms: Sequence[str] = ()) -> None:
    """Close every run of the tree, so that nothing is left RUNNING."""
    publisher = _publishers.pop(tree.study_run_id)
    close_runs(publisher.client, tree, status=status, failed_arms=failed_arms)


def _publish_study(
    publisher: Publisher, tree: RunTree, study: Study, data: Data, metrics: pd.DataFrame, table: pd.DataFrame
) -> None:
    run_id = tree.study_run_id
    publisher.text(run_id, "study.yaml", yaml.safe_dump(study.canonical(), sort_keys=False, allow_unicode=True))
    publisher.table(run_id, "scores_by_seed.csv", metrics)
    for suffix in ("png", "svg"):
        publisher.figure(run_id, f"figures/accuracy_by_depth.{suffix}", figures.accuracy_by_depth(metrics, table))
        if data.features == 2:
            publisher.figure(run_id, f"figures/data.{suffix}", figures.scatter(data))
    _publish_datasets(publisher, run_id, study, data)
    answer = " ".join(statistics.in_words(metrics))
    publisher.tags(run_id, {"layerwise.answer": answer, NOTE: notes.study_note(study, tree, metrics, table)})
    # Last, since a finished study is answered from it: what comes before is then there.
    publisher.table(run_id, "results.csv", table)


def _publish_datasets(publisher: Publisher, run_id: str, study: Study, data: Data) -> None:
    for part, rows in (("train", data.train), ("test", data.test)):
        publisher.dataset(
            run_id,
            name=f"{study.data.source}-{part}",
            digest=data.digest,
            context=part,
            source={key: str(value) for key, value in study.data.canonical().items()},
            features=data.inputs[rows],
            labels=data.targets[rows],
        )


def _verify_stored(depth: Depth) -> None:
    """Make sure that what is published can be found again: the files hold the very results that we hold."""
    stored: StageResult = read_back(depth.chain[-1].digest)
    ours = depth.chain[-1]
    same = content_digest(*stored.hidden, *stored.output) == content_digest(*ours.hidden, *ours.output)
    if not same or read_back(depth.evaluation.digest).finished != depth.evaluation.finished:
        raise RuntimeError(f"the stored result {ours.digest} is not the one in memory; run again to train it anew")


def _points(depth: Depth, position: int) -> list[Point]:
    scores = depth.evaluation
    return [
        Point(name, float(values[position]), scores.depth, scores.finished) for name, values in scores.metrics.items()
    ]


def _seed_model(run_id: str, depth: Depth, position: int, data: Data) -> SeedModel:
    weights = depth.weights(position)
    return SeedModel(
        run_id=run_id,
        name=f"depth-{depth.evaluation.depth:02d}",
        step=depth.evaluation.depth,
        template=_template(depth.block.layers[: depth.evaluation.depth], len(data.classes), data.inputs.shape[1:]),
        weights=weights,
        digest=content_digest(*weights),
        points=_points(depth, position),
    )


@cache
def _template(layers: tuple, classes: int, input_shape: tuple[int, ...]) -> ModelTemplate:
    """One depth's architecture, saved once; the layers below the newest are frozen in it."""
    return ModelTemplate.of(network.classifier(layers, classes, input_shape, trainable_from=len(layers)))


def _record_divergence(publisher: Publisher, run_id: str, depth: Depth, position: int) -> None:
    first = next(result.depth for result in depth.chain if result.diverged[position]) if (
        depth.chain[-1].diverged[position]
    ) else depth.evaluation.depth
    publisher.tags(run_id, {"layerwise.outcome": "diverged", "layerwise.diverged_at_depth": str(first)})


def _aggregates(rows: pd.DataFrame, finished: dict[tuple[str, int], int]) -> list[Point]:
    skipped = {"arm", "depth", "layers"}
    return [
        Point(str(name), float(value), int(row["depth"]), finished[row["arm"], int(row["depth"])])
        for row in rows.to_dict("records")
        for name, value in row.items()
        if name not in skipped
    ]


def _curve_table(curves: list[np.ndarray]) -> pd.DataFrame:
    """One row per depth and epoch, one column per seed."""
    parts = []
    for depth, curve in enumerate(curves, start=1):
        part = pd.DataFrame(curve.T, columns=[f"seed_{seed:02d}" for seed in range(len(curve))])
        part.insert(0, "epoch", range(1, len(part) + 1))
        part.insert(0, "depth", depth)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
