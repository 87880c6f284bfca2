"""Publishing as Prefect tasks: what was trained and stored goes to MLflow, and can be sent again without harm."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from prefect import task
from prefect.artifacts import create_markdown_artifact

from layerwise import answers, comparison, figures, own_code, report, selection, stages, statistics
from layerwise.datasets import Data, class_balance, content_digest
from layerwise.selection import Chosen
from layerwise.stages import Depth, Evaluation, Network, model_name
from layerwise.study import DeclaredNetwork, KeptModels, Study, StudyError
from layerwise.study.claims import FINE_TUNED
from layerwise.study.scores import is_tuned
from tasks import cards, content, notes, serving
from tasks.content import KeptNetwork
from tasks.provenance import STAGE_CODE, inputs, provenance
from tasks.results import read_back
from tasks.tracking.answers import CLAIM, COSTS, DIFFERENCES, REPORT, REPORT_AS_TEXT, RESULTS, VERDICTS, stored_table
from tasks.tracking.publishing import Point, Publisher, SeedModel
from tasks.tracking.registry import (
    CHOSEN,
    CHOSEN_ALIAS,
    DECLARED,
    DECLARED_ALIAS,
    REGISTERED,
    Candidate,
    Shelf,
    register,
)
from tasks.tracking.runs import NOTE, RunTree, Status, close_runs, open_runs
from tasks.tracking.store import open_store
from tasks.tracking.templates import ModelTemplate, Serving
from tasks.tracking.tracked import SCORES, STAGES, STUDY_FILE
from tasks.tracking.views import PAIRED

if TYPE_CHECKING:
    from layerwise.models import Architecture

MAX_TAG = 1000
"""Characters of what is said of the data's targets; class names may be of any length."""

_publishers: dict[str, Publisher] = {}


@dataclass(frozen=True)
class Summary:
    """What a study has come to.

    Attributes:
        metrics: one row per arm, seed and depth.
        table: its summary over seeds.
        curves: arm -> depth -> ``(seeds, epochs)`` loss curves of the stage that made it.
        finished: (arm, depth) -> when its last score was computed, milliseconds since 1970.
        examples: arm -> every depth of its first block, whose first seed's networks are drawn.
        costs: time and memory of every stage, as :meth:`layerwise.costs.Costs.table` gives.
        seeds: how many every arm comes to; None where a failure keeps a study that stops early from settling that.
        stages: one row per stage, as :meth:`layerwise.ledger.Ledger.table` gives them.
        codes: digest of the code -> how many of them it computed.
        verdicts: what it says of the study's claims, as plain JSON; none of a study without, or one not complete.
        chosen: the network that validation chose; none without a validation part, or where something failed.
        declared: the one that the study declares; none where it says nothing, or something failed.
    """

    metrics: pd.DataFrame
    table: pd.DataFrame
    curves: dict[str, dict[int, np.ndarray]]
    finished: dict[tuple[str, int], int]
    examples: dict[str, list[Depth]]
    costs: pd.DataFrame
    seeds: int | None
    stages: pd.DataFrame
    codes: dict[str, int]
    verdicts: dict[str, Any] | None = None
    chosen: Chosen | None = None
    declared: DeclaredNetwork | None = None

    @property
    def to_register(self) -> Chosen | DeclaredNetwork | None:
        """The network that the study's version of the registered model is; none if nothing chose or declared it."""
        return self.chosen or self.declared


@task(name="open runs", task_run_name="open MLflow runs")
def open_tree(study: Study, repeat: str, seeds: int | None = None) -> RunTree:
    """Find or create the study's runs; they are ours and RUNNING until closed. Calling it again adds seeds.

    Args:
        study: what is run.
        repeat: the name of a deliberate repeat, or empty.
        seeds: how many seeds of every arm have runs; all of the study's, if left out.
    """
    root = Path(os.environ["LAYERWISE_ROOT"])
    client = open_store(root)
    tree = open_runs(
        client,
        study,
        run_key=study.digest(repeat),
        repeat=repeat,
        seeds=range(study.seeds if seeds is None else seeds),
        provenance={**provenance(), **inputs(study)},
        root=root,
    )
    publisher = _publishers.setdefault(tree.study_run_id, Publisher(client, tree))
    publisher.tree = tree
    return tree


@task(name="publish", task_run_name="publish {label}")
def publish_depths(
    tree: RunTree,
    depths: Sequence[Depth],
    data: Data,
    models: KeptModels,
    label: str,  # noqa: ARG001 - the task run is named by it
) -> None:
    """Send the scores, and the Keras models, of some depths of one block to the runs of its seeds.

    Args:
        tree: the study's runs.
        depths: what was trained, several depths of one block.
        data: the study's data.
        models: ``"all"`` depths' models, the ``"final"`` depth's, or ``"none"``.
        label: how the task run is called.
    """
    publisher, found = _publishers[tree.study_run_id], []
    prepared = serving.preparations(depths[0].block, data) if models != "none" else {}
    for depth in depths:
        _verify_stored(depth)
        for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
            run_id, kept = tree.seed_run(depth.block.arm, seed), content.networks(depth, position, data, models)
            _record_outcome(publisher, run_id, depth, position)
            publisher.metrics(run_id, content.points(depth, position))
            found += [_seed_model(run_id, depth, position, data, one, prepared.get(seed)) for one in kept]
    publisher.models(found)


@task(name="summarise", task_run_name="summarise and draw")
def publish_summary(tree: RunTree, study: Study, data: Data, summary: Summary) -> None:
    """Draw, and send tables, figures, data set and answer.

    Args:
        tree: the study's runs.
        study: the study.
        data: its data.
        summary: what there is to say; the table of an arm that is not complete is not sent, since it would change.
    """
    metrics, table = summary.metrics, summary.table
    publisher = _publishers[tree.study_run_id]
    for arm, rows in table.groupby("arm", sort=False):
        run_id, own = tree.arm_run_ids[str(arm)], metrics[metrics["arm"] == arm]
        if not _is_complete(study, str(arm), summary):
            continue
        publisher.metrics(run_id, _aggregates(rows, summary.finished))
        publisher.metrics(run_id, _last_word(str(arm), metrics, summary.finished))
        publisher.figure(run_id, f"{statistics.main_score(own)}_by_depth.png", figures.score_by_depth(own, rows))
        publisher.figure(
            run_id, "loss_by_epoch.png", figures.loss_curves({str(arm): list(summary.curves[str(arm)].values())})
        )
        publisher.table(run_id, "loss_by_epoch.csv", _curve_table(summary.curves[str(arm)]))
        for name, figure in _arm_figures(summary.examples[str(arm)], data):
            publisher.figure(run_id, f"{name}.png", figure)
        _publish_datasets(publisher, run_id, study, data)
        publisher.tags(run_id, {NOTE: notes.arm_note(study, str(arm), tree, metrics, table)})
    told = _publish_study(publisher, tree, study, data, summary)
    publisher.manifest()  # last: what it lists is then there
    key = "-".join(re.findall("[a-z0-9]+", study.name.lower()))  # all that Prefect takes
    create_markdown_artifact(told, key=key, description=study.question)


@task(name="register", task_run_name="register the model")
def register_model(tree: RunTree, study: Study, repeat: str, data: Data, summary: Summary) -> str | None:
    """Register the network that validation chose, or the study declares, as a version of the model of its name.

    Args:
        tree: the study's runs.
        study: the study.
        repeat: the name of a deliberate repeat, or empty.
        data: the study's data.
        summary: what the study has come to, and which network it is.

    Returns:
        The version's number; None where there is no such network, or no model of it is kept.
    """
    publisher, found = _publishers[tree.study_run_id], summary.to_register
    if found is None or not study.procedure(found.arm).keeps(found.depth, study.track.models):
        return None
    tuned = is_tuned(study.procedure(found.arm), found.depth)
    model = model_name(found.depth, "fine-tuned" if tuned else "")
    card = cards.of_study(study, tree, found, summary.metrics, data_digest=data.digest)
    candidate = Candidate(found.arm, found.depth, found.seed, model, card, f"runs:/{tree.study_run_id}/{REPORT}")
    alias = CHOSEN_ALIAS if summary.chosen is not None else DECLARED_ALIAS
    shelf = Shelf(study.name, study.name, study.question)
    version = register(publisher.client, tree, candidate, shelf=shelf, alias=alias, repeat=repeat)
    if version is not None:
        publisher.tags(tree.study_run_id, {REGISTERED: f"models:/{study.name}/{version}"})
    return version


@task(name="close runs", task_run_name="close MLflow runs")
def close_tree(tree: RunTree, status: Status, failed_arms: Sequence[str] = ()) -> None:
    """Close every run of the tree, so that nothing is left RUNNING; what is closed stays as it is."""
    if publisher := _publishers.get(tree.study_run_id):
        close_runs(publisher.client, tree, status=status, failed_arms=failed_arms)
        del _publishers[tree.study_run_id]  # after it: runs that could not be closed can be tried again


def _publish_study(publisher: Publisher, tree: RunTree, study: Study, data: Data, summary: Summary) -> str:
    """Send what belongs to all arms; returns the report as Markdown."""
    run_id, metrics, table = tree.study_run_id, summary.metrics, summary.table
    publisher.text(run_id, STUDY_FILE, yaml.safe_dump(study.canonical(), sort_keys=False, allow_unicode=True))
    publisher.table(run_id, SCORES, metrics)
    publisher.table(run_id, STAGES, summary.stages)
    for name, figure in _study_figures(study, data, metrics, table):
        for suffix in ("png", "svg"):
            publisher.figure(run_id, f"figures/{name}.{suffix}", figure)
    _publish_datasets(publisher, run_id, study, data)
    differences = _publish_differences(publisher, run_id, study, summary)
    _publish_verdicts(publisher, run_id, summary.verdicts)
    told = {"answer": "\n".join(answers.in_words(study, metrics)), "data_balance": class_balance(data)[:MAX_TAG]}
    publisher.tags(run_id, {f"layerwise.{name}": value for name, value in told.items()})
    publisher.tags(run_id, {STAGE_CODE: own_code.as_text(summary.codes)})
    publisher.tags(run_id, {NOTE: notes.study_note(study, tree, metrics, table, summary.to_register)})
    if summary.chosen is not None:
        publisher.tags(run_id, {CHOSEN: summary.chosen.place})
    if summary.declared is not None:
        publisher.tags(run_id, {DECLARED: summary.declared.place})
    costs = _publish_costs(publisher, run_id, summary.costs)
    origin = report.origin_of(publisher.tags_of(run_id))
    found = report.StudyRun(study, metrics, table, summary.verdicts, differences, costs, origin, data.digest)
    text = _publish_report(publisher, run_id, found)
    publisher.table(run_id, RESULTS, table)
    return text


def _publish_report(publisher: Publisher, run_id: str, found: report.StudyRun) -> str:
    """Send the report, and return it as Markdown."""
    page = report.study_page(found)
    text = report.markdown(page)
    publisher.text(run_id, REPORT, report.html(page))
    publisher.text(run_id, REPORT_AS_TEXT, text)
    return text


def _publish_costs(publisher: Publisher, run_id: str, found: pd.DataFrame) -> pd.DataFrame:
    """Send what the stages took, and return it: what was sent of the very same stages before stays.

    Where results were cleaned, stages were trained again, in other times: what stands tells of the same bits.
    """
    held = stored_table(publisher.client, publisher.client.get_run(run_id), COSTS)
    stays = held if held is not None and _stages_of(held) == _stages_of(found) else found
    publisher.table(run_id, COSTS, stays)  # also what is there already, for the manifest lists what was published
    return stays


def _stages_of(costs: pd.DataFrame) -> str:
    """Which stages costs are of."""
    return costs.drop(columns=["seconds", "peak_memory_bytes"]).to_csv(index=False)


def _publish_differences(publisher: Publisher, run_id: str, study: Study, summary: Summary) -> pd.DataFrame | None:
    """Send how the arms that a study compares differ, and return it: a table, and metrics at step = depth of the first.

    There is none where no two arms are complete.
    """
    complete = {arm for arm in study.arms if _is_complete(study, arm, summary)}
    metrics = summary.metrics[summary.metrics["arm"].isin(complete)]
    found = comparison.all_differences(study, metrics) if len(complete) > 1 else []
    if not found:
        return None
    table = comparison.as_table(found)
    publisher.table(run_id, DIFFERENCES, table)
    for one in found:
        # What stands before a slash is a section of MLflow's page, which sorts them: this one comes behind the arms'.
        pair, when = f"{PAIRED}/{one.arm}_minus_{one.minus}_{one.metric}", _later(summary, one)
        described = {name: getattr(one.values, name) for name in ("seeds", "mean", "sd", "ci_low", "ci_high")}
        publisher.metrics(
            run_id, [Point(f"{pair}_{name}", value, one.depth, when) for name, value in described.items()]
        )
    return table


def _later(summary: Summary, one: comparison.Difference) -> int:
    """When the later of two scores was computed."""
    return max(summary.finished[one.arm, one.depth], summary.finished[one.minus, one.other_depth])


def _publish_verdicts(publisher: Publisher, run_id: str, verdicts: dict[str, Any] | None) -> None:
    """What the run says of its claims: a tag for each, and all of it as an artifact."""
    if verdicts is not None:
        tags = {f"{CLAIM}{one['claim']}": one["verdict"] for one in verdicts["verdicts"]}
        publisher.tags(run_id, tags)
        publisher.text(run_id, VERDICTS, json.dumps(verdicts, indent=1))


def _is_complete(study: Study, arm: str, summary: Summary) -> bool:
    """Whether every depth of every seed of an arm is there, and no seed is still to come."""
    rows = int((summary.metrics["arm"] == arm).sum())
    return summary.seeds is not None and rows == summary.seeds * len(study.procedure(arm).depths)


def _study_figures(
    study: Study, data: Data, metrics: pd.DataFrame, table: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    yield from ((name, draw()) for name, draw in figures.of_scores(metrics, table))
    if data.features == 2 and data.classes:
        block = next(stages.blocks(study, next(iter(study.arms)), data.digest))
        yield "data", figures.scatter(block.view(data), data.classes, seed=block.seeds[0])


def _arm_figures(examples: Sequence[Depth], data: Data) -> Iterator[tuple[str, Figure]]:
    """What the networks of the first seed do, depth by depth: over the plane, or to images."""
    intact = [depth for depth in examples if not depth.evaluation.diverged[0]]
    if not intact:
        return
    seed, view = intact[0].block.seeds[0], intact[0].block.view(data)
    rows = view.inputs_of(view.test)[0]
    if data.features == 2:
        targets, found = view.targets_of(view.test)[0], _outputs_of(intact, "classifier", data)
        classify = {depth: _classes_by(outputs) for depth, outputs in found.items()}
        yield "decision_regions", figures.decision_regions(rows, targets, classify, seed=seed)
    rebuild = _outputs_of(intact, "autoencoder", data)
    if data.image_shape and rebuild:
        yield "reconstructions", figures.reconstructions(rows[:12], rebuild, data.image_shape, seed=seed)


def _outputs_of(depths: Sequence[Depth], kind: str, data: Data) -> dict[int, Callable[[np.ndarray], np.ndarray]]:
    """Depth -> what the first seed's network of a kind makes of rows, where there is one."""
    found = {depth.depth: [kept for kept in depth.networks() if kept.kind == kind] for depth in depths}
    return {depth: _outputs_by(kept[0], data) for depth, kept in found.items() if kept}


def _outputs_by(kept: Network, data: Data) -> Callable[[np.ndarray], np.ndarray]:
    from layerwise import models

    model = models.keras_model(kept, 0, data)
    return lambda rows: models.outputs(model, kept, rows)


def _classes_by(outputs: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: outputs(rows).argmax(axis=1)


def _publish_datasets(publisher: Publisher, run_id: str, study: Study, data: Data) -> None:
    """The data set's parts; where each seed draws its own, the whole under one name."""
    spec, rows = study.data, np.arange(len(data.inputs))
    cut = spec.split.train
    parts = {"all": rows} if spec.shuffle else {"train": rows[:cut], "test": rows[len(rows) - spec.split.test :]}
    for part, chosen in parts.items():
        publisher.dataset(
            run_id,
            name=spec.source if spec.shuffle else f"{spec.source}-{part}",
            digest=data.digest,
            context="split by seed" if spec.shuffle else part,
            source={key: str(value) for key, value in spec.canonical().items()},
            features=data.inputs[chosen],
            labels=data.targets[chosen],
        )


def _verify_stored(depth: Depth) -> None:
    """Make sure that what is published can be found again: the files hold the very results that we hold."""
    for held in depth.stored:
        stored = read_back(held.digest)
        if stored.finished != held.finished or _content(stored) != _content(held):
            raise RuntimeError(f"the stored result {held.digest} is not the one in memory; run again to train it anew")


def _content(result: Any) -> str:
    if isinstance(result, Evaluation):
        return content_digest(*result.metrics.values())
    return content_digest(result.loss_curve, result.diverged)


def _seed_model(
    run_id: str, depth: Depth, position: int, data: Data, kept: KeptNetwork, preparation: bytes | None
) -> SeedModel:
    from layerwise import models

    scores = [point for point in content.points(depth, position) if point.key.startswith(FINE_TUNED) == kept.fine_tuned]
    served = serving.of(kept.network, data) if preparation is not None else None
    template, name = _template(models.architecture(kept.network, data), served), kept.network.name
    return SeedModel(run_id, name, depth.depth, template, kept.weights, kept.digest, scores, preparation)


@cache
def _template(architecture: Architecture, served: Serving | None = None) -> ModelTemplate:
    """One depth's architecture, saved once."""
    from layerwise import models

    return ModelTemplate.of(models.built(architecture).model, serving=served)


def _record_outcome(publisher: Publisher, run_id: str, depth: Depth, position: int) -> None:
    """Tag a seed that has diverged or collapsed with the lowest depth at which it was so."""
    if depth.evaluation.diverged[position]:
        lowest = next((result.depth for result in depth.chain if result.diverged[position]), depth.depth)
        publisher.tags(run_id, {"layerwise.outcome": "diverged", "layerwise.diverged_at_depth": str(lowest)})
    elif depth.evaluation.collapsed[position] and not publisher.tagged(run_id, "layerwise.collapsed_at_depth"):
        publisher.tags(run_id, {"layerwise.outcome": "collapsed", "layerwise.collapsed_at_depth": str(depth.depth)})


def _aggregates(rows: pd.DataFrame, finished: dict[tuple[str, int], int]) -> list[Point]:
    skipped = {"arm", "depth", "layers"}
    return [
        Point(str(name), float(value), int(row["depth"]), finished[row["arm"], int(row["depth"])])
        for row in rows.to_dict("records")
        for name, value in row.items()
        if name not in skipped
    ]


def _last_word(arm: str, metrics: pd.DataFrame, finished: dict[tuple[str, int], int]) -> Iterator[Point]:
    """An arm in a few numbers, for the runs table and for search: its last depth, and the one that validation chose."""
    found = comparison.final_scores(metrics, arm) | _chosen(arm, metrics)
    last, when = int(found["final_depth"]), max(time for (owner, _), time in finished.items() if owner == arm)
    return (Point(name, value, last, when) for name, value in found.items())


def _chosen(arm: str, metrics: pd.DataFrame) -> dict[str, float]:
    """The depth to keep, chosen on the validation part alone; nothing where there is none, or too few seeds."""
    try:
        choice = selection.chosen_depth(metrics, arm)
    except StudyError:  # no validation part, or no depth at which two seeds and half of all are intact
        return {}
    return {"best_depth": float(choice.depth), "best_depth_validation": choice.mean}


def _curve_table(curves: dict[int, np.ndarray]) -> pd.DataFrame:
    """One row per depth and epoch, one column per seed."""
    parts = []
    for depth, curve in curves.items():
        part = pd.DataFrame(curve.T, columns=[f"seed_{seed:02d}" for seed in range(len(curve))])
        part.insert(0, "epoch", range(1, len(part) + 1))
        part.insert(0, "depth", depth)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
