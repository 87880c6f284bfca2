"""Costs: what each stage took, counted once however many arms it serves."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerwise import datasets, pretraining, stages
from layerwise.answers import Memory
from layerwise.costs import Costs
from layerwise.pretraining import without_training
from layerwise.stages import Block, StageResult
from layerwise.study import Study
from tests.studies import small

DATA_DIGEST = "d"


def blocks(study: Study, arm: str) -> list[Block]:
    return list(stages.blocks(study, arm, DATA_DIGEST))


def steps(**took: Any) -> SimpleNamespace:
    """Stage functions that give a result of a digest, and say that it took so long and so much."""

    def stage(block: Block, digest: str) -> StageResult:
        plain = without_training(block, "base", 1, (), digest)
        return StageResult(**{**vars(plain), **took})

    return SimpleNamespace(base=stage, evaluate=stage, unrolled=lambda *_: "as it is")


def rows(costs: Costs) -> list[dict[str, Any]]:
    return costs.table().to_dict("records")


def test_a_stage_that_arms_share_is_counted_once() -> None:
    """The arm that asked first has it, the others are named beside it, and its time stands once."""
    study, costs = small(seeds=2, arms={"one": "greedy", "two": {}, "three": {}}), Costs()
    noting = costs.noting(steps(seconds=2.0, peak_memory=100))
    for arm in ("one", "two", "three", "one"):
        (block,) = blocks(study, arm)
        noting.base(block, "aa")
    assert rows(costs) == [
        {
            "arm": "one",
            "shared_with": "two, three",
            "stage": "base",
            "depth": 1,
            "blocks": 1,
            "seconds": 2.0,
            "peak_memory_bytes": 100.0,
        }
    ]


def test_blocks_add_up_and_the_highest_peak_stands() -> None:
    """Seconds are of all blocks; a network that is scored twice, tuned and not, is of one block."""
    costs, (first, second) = Costs(), blocks(small(seeds=20), "greedy")
    for block, digest, took, peak in ((first, "a", 1.0, 300), (second, "b", 2.0, 200), (second, "c", 4.0, 250)):
        costs.noting(steps(seconds=took, peak_memory=peak)).evaluate(block, digest)
    (row,) = rows(costs)
    assert (row["stage"], row["blocks"], row["seconds"], row["peak_memory_bytes"]) == ("evaluate", 2, 7.0, 300.0)


def test_what_is_not_known_makes_the_sum_unknown() -> None:
    """One block without its time leaves that of all unknown; of memory, what is known stands."""
    costs, (first, second) = Costs(), blocks(small(seeds=20), "greedy")
    costs.noting(steps(seconds=1.0, peak_memory=None)).base(first, "a")
    costs.noting(steps(seconds=math.nan, peak_memory=70)).base(second, "b")
    (row,) = rows(costs)
    assert math.isnan(row["seconds"])
    assert row["peak_memory_bytes"] == 70


def test_other_steps_are_left_alone() -> None:
    """What is no stage passes through and is not counted."""
    costs = Costs()
    assert costs.noting(steps()).unrolled("block", "result") == "as it is"
    assert rows(costs) == []


@pytest.mark.parametrize("tuned", ["labels", "both"])
def test_every_stage_of_real_training_is_there(tuned: str) -> None:
    """Each stage of each depth has its time and memory, also those that no network keeps, such as a first head."""
    encoder = {"objective": "reconstruction", "fine_tune": {"epochs": 2, "objective": tuned}}
    study = small(depth=2, seeds=2, arms={"encoder": encoder, "scratch": "scratch"})
    data, costs, memory = datasets.generate(study.data), Costs(), Memory()
    for arm in study.arms:
        for block in stages.blocks(study, arm, data.digest):
            for depth in pretraining.depths(block, data, steps=costs.noting(memory)):
                assert np.isfinite(depth.evaluation.seconds or math.nan)
    found = {(row["arm"], row["stage"], row["depth"]) for row in rows(costs)}
    encoded = {("encoder", stage, depth) for stage in ("head", "evaluate") for depth in (1, 2)}
    assert found == encoded | {
        ("encoder", "base", 1),
        ("encoder", "add_layer", 2),
        ("encoder", "fine_tune", 2),
        ("scratch", "jointly", 2),
        ("scratch", "evaluate", 2),
    }
    assert all(row["seconds"] > 0 and row["peak_memory_bytes"] > 1e7 for row in rows(costs))
    # Greedy 2, heads 2, tuning 1, jointly 1, scores 4; tuned on both, there is one more head and tuning.
    assert len(costs._spent) == {"labels": 10, "both": 12}[tuned]
