"""What the publishing tasks make of results, on a real store and without a flow around them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from flows import environment
from layerwise import datasets, models, stages
from layerwise.costs import COLUMNS
from layerwise.stages import Depth, Evaluation, StageResult
from layerwise.statistics import summarise
from layerwise.study import Study
from tasks import publishing
from tasks.tracking.answers import COSTS, stored_table
from tasks.tracking.store import open_store
from tests.studies import small


def stage(depth: int, diverged: list[bool]) -> StageResult:
    """A stage of ten seeds of which only the outcome matters."""
    nothing = np.zeros((10, 1), np.float32)
    return StageResult(
        stage="base" if depth == 1 else "add_layer",
        depth=depth,
        hidden=(nothing,),
        output=(nothing,),
        loss_curve=nothing,
        diverged=np.array(diverged + [False] * (10 - len(diverged))),
        frozen="",
        digest=f"{depth:08d}",
        finished=1000 + depth,
        seconds=0.0,
    )


def scored(asked: Study, *outcomes: list[bool], score_diverged: list[bool] | None = None) -> Depth:
    """The highest of some depths, with the seeds that had diverged when each was trained."""
    (block,) = stages.blocks(asked, "greedy", datasets.generate(asked.data).digest)
    chain = tuple(stage(depth, diverged) for depth, diverged in enumerate(outcomes, start=1))
    found = np.array((score_diverged or outcomes[-1]) + [False] * 7)
    values = np.where(found, np.nan, np.linspace(0.1, 1, 10))
    evaluation = Evaluation(len(chain), {"test_accuracy": values}, found, found & False, "e", 5000)
    return Depth(block, chain, None, evaluation)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MlflowClient]:
    root = tmp_path_factory.mktemp("publishing")
    environment.private_folder(root).mkdir()
    return root, open_store(root)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (scored(small(depth=1), [True, False, False]), {0: "1"}),
        (scored(small(depth=2), [False, True, False], [True, True, False]), {0: "2", 1: "1"}),
        (scored(small(depth=2), [False] * 3, [False] * 3, score_diverged=[False, False, True]), {2: "2"}),
    ],
    ids=["at the first depth", "at several depths", "when it was scored"],
)
def test_divergence_is_tagged_with_its_first_depth(
    store: tuple[Path, MlflowClient], monkeypatch: pytest.MonkeyPatch, depth: Depth, expected: dict[int, str]
) -> None:
    """A seed that diverges is tagged so on its run, with the depth at which it first was; others are not tagged."""
    root, client = store
    monkeypatch.setenv("LAYERWISE_ROOT", str(root))
    tree = publishing.open_tree.fn(small(depth=depth.depth), "")
    publisher = publishing.Publisher(client, tree)
    for position in np.flatnonzero(depth.evaluation.diverged):
        publishing._record_outcome(publisher, tree.seed_run("greedy", int(position)), depth, int(position))
    found = {}
    for seed in range(3):
        tags = client.get_run(tree.seed_run("greedy", seed)).data.tags
        if tags.get("layerwise.outcome") == "diverged":
            found[seed] = tags["layerwise.diverged_at_depth"]
    assert expected.items() <= found.items()
    publishing.close_tree.fn(tree, "KILLED")


def test_runs_say_where_they_come_from(store: tuple[Path, MlflowClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run carries the versions and the lock that its numbers come from, and is open until it is closed."""
    root, client = store
    monkeypatch.setenv("LAYERWISE_ROOT", str(root))
    tree = publishing.open_tree.fn(small(name="origin"), "once")
    runs = [client.get_run(run_id) for run_id in tree.run_ids()]
    assert {run.info.status for run in runs} == {"RUNNING"}
    for run in runs:
        assert {"layerwise.version.keras", "layerwise.lock_digest", "layerwise.machine"} <= run.data.tags.keys()
        assert run.data.tags["layerwise.repeat"] == "once"
    publishing.close_tree.fn(tree, "FINISHED")
    assert {client.get_run(run_id).info.status for run_id in tree.run_ids()} == {"FINISHED"}


def test_aggregates_are_points_by_depth() -> None:
    """Every column of the summary that measures becomes a metric at step = depth, at its latest input's time."""
    rows = [
        {
            "arm": "greedy",
            "seed": seed,
            "depth": depth,
            "diverged": False,
            "collapsed": False,
            "test_accuracy": seed / 10 + depth,
        }
        for depth in (1, 2)
        for seed in (0, 1)
    ]
    points = publishing._aggregates(summarise(pd.DataFrame(rows)), {("greedy", 1): 11, ("greedy", 2): 22})
    assert {point.key for point in points} == {
        *("seeds", "diverged", "collapsed"),
        *(f"test_accuracy_{name}" for name in ("mean", "sd", "ci_low", "ci_high", "median")),
    }
    means = [(point.value, point.step, point.timestamp) for point in points if point.key == "test_accuracy_mean"]
    assert means == [(1.05, 1, 11), (2.05, 2, 22)]


def test_curves_are_a_table_by_depth_and_epoch() -> None:
    """Loss curves become one row for each depth and epoch, counted from 1, with one column for each seed."""
    curves = {1: np.array([[4.0, 3.0], [8.0, 7.0]]), 3: np.array([[2.0, 1.0], [6.0, 5.0]])}
    table = publishing._curve_table(curves)
    assert table.to_dict("list") == {
        "depth": [1, 1, 3, 3],
        "epoch": [1, 2, 1, 2],
        "seed_00": [4.0, 3.0, 2.0, 1.0],
        "seed_01": [8.0, 7.0, 6.0, 5.0],
    }


def test_a_depth_has_one_template() -> None:
    """The models of all seeds of a depth are written from one saved architecture."""
    data = datasets.generate(small(depth=2).data)
    blocks = list(stages.blocks(small(depth=2, seeds=20), "greedy", data.digest))
    kept = [stages.Network("depth-02", "classifier", block, 2, 2, ()) for block in blocks]
    first, second = (publishing._template(models.architecture(network, data)) for network in kept)
    assert second is first
    assert len(first.slots) == 6


def test_costs_of_the_same_stages_stay_as_they_were_sent(
    store: tuple[Path, MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages that are trained again, after results were cleaned, keep the times sent first; others replace them.

    Who finds them there after a kill lists them as who has sent them: the manifest is the same.
    """
    root, client = store
    monkeypatch.setenv("LAYERWISE_ROOT", str(root))
    tree = publishing.open_tree.fn(small(name="costly"), "")
    publisher, run_id = publishing.Publisher(client, tree), tree.study_run_id

    def costs(seconds: float, depths: int) -> pd.DataFrame:
        rows = [("greedy", "", "base", depth, 1, seconds, np.nan) for depth in range(1, depths + 1)]
        return pd.DataFrame(rows, columns=COLUMNS)

    first = publishing._publish_costs(publisher, run_id, costs(1.5, 2))
    publisher.manifest()
    next_one = publishing.Publisher(client, tree)
    again = publishing._publish_costs(next_one, run_id, costs(9.5, 2))
    assert not next_one.manifest(), "it is as it was"
    assert first["seconds"].tolist() == again["seconds"].tolist() == [1.5, 1.5]
    assert publishing._publish_costs(publisher, run_id, costs(9.5, 3))["seconds"].tolist() == [9.5] * 3
    stored = stored_table(client, client.get_run(run_id), COSTS)
    assert stored is not None
    assert stored["seconds"].tolist() == [9.5] * 3
    publishing.close_tree.fn(tree, "KILLED")


def test_a_collapse_is_tagged_with_the_first_depth_it_was_seen_at(
    store: tuple[Path, MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed that collapses is tagged once, with its lowest depth; one that later diverges is called diverged."""
    root, client = store
    monkeypatch.setenv("LAYERWISE_ROOT", str(root))
    tree = publishing.open_tree.fn(small(name="collapsing", depth=3), "")
    publisher, run_id = publishing.Publisher(client, tree), tree.seed_run("greedy", 0)
    calm = [False] * 3
    for outcomes in ([calm], [calm, calm], [calm, calm, calm]):
        depth = scored(small(depth=3), *outcomes)
        collapsed = np.array([depth.depth >= 2] * 10)
        evaluation = dataclasses.replace(depth.evaluation, collapsed=collapsed)
        publishing._record_outcome(publisher, run_id, dataclasses.replace(depth, evaluation=evaluation), 0)
    tags = client.get_run(run_id).data.tags
    assert (tags["layerwise.outcome"], tags["layerwise.collapsed_at_depth"]) == ("collapsed", "2")
    publishing._record_outcome(publisher, run_id, scored(small(depth=3), calm, calm, [True] * 3), 0)
    tags = client.get_run(run_id).data.tags
    assert (tags["layerwise.outcome"], tags["layerwise.diverged_at_depth"]) == ("diverged", "3")
    publishing.close_tree.fn(tree, "KILLED")
