"""The ledger: a row for every stage in the order of training, with a digest of what the stage left."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from layerwise import answers, datasets
from layerwise.ledger import Ledger, content_of
from layerwise.stages import Evaluation, StageResult
from tests.studies import small

TUNED = {
    "objective": "reconstruction",
    "fine_tune": {"objective": "both", "epochs": 1, "carry": True, "at": "every_depth"},
}


@pytest.fixture
def result() -> StageResult:
    """A stage of three seeds; the third diverged."""
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    weights[2] = np.nan
    lost = np.array([False, False, True])
    return StageResult("base", 1, (weights,), (weights + 1,), weights + 2, lost, "", "d", 5, 0.5)


def test_content_is_what_the_seeds_asked_for_have(result: StageResult) -> None:
    """A weight, a loss or an outcome changes it; seeds beyond those asked for, times and the name do not."""
    content = content_of(result, 2)
    (hidden,) = result.hidden
    filled = np.where([[0, 0], [0, 0], [1, 1]], 7, hidden).astype(np.float32)
    same = (
        dataclasses.replace(result, hidden=(filled,)),
        dataclasses.replace(result, finished=6, seconds=9.0, digest="e"),
    )
    assert {content_of(one, 2) for one in same} == {content}
    moved = hidden.copy()
    moved[1, 1] = np.nextafter(moved[1, 1], 9)
    other = (
        dataclasses.replace(result, hidden=(moved,)),
        dataclasses.replace(result, loss_curve=moved),
        dataclasses.replace(result, diverged=~result.diverged),
    )
    assert content not in {content_of(one, 2) for one in other}


def test_nans_are_one_value(result: StageResult) -> None:
    """What a diverged seed holds counts as NaN whatever the bits of it."""
    (hidden,) = result.hidden
    bits = hidden.copy().view(np.uint32)
    bits[2] ^= 1 << 31
    negative = dataclasses.replace(result, hidden=(bits.view(np.float32),))
    assert content_of(negative, 3) == content_of(result, 3)


def test_scores_of_a_seed_that_diverged_have_no_part() -> None:
    """They are of no meaning; that it diverged is part of the content."""
    lost, none = np.array([False, True]), np.zeros(2, bool)
    scored = Evaluation(1, {"test_loss": np.array([0.5, 0.7])}, lost, none, "d", 5)
    other = dataclasses.replace(scored, metrics={"test_loss": np.array([0.5, 0.1])})
    assert content_of(other, 2) == content_of(scored, 2)
    assert content_of(dataclasses.replace(other, diverged=none), 2) != content_of(scored, 2)


def test_every_stage_has_a_row() -> None:
    """Stages that fine tuning makes a second time are told apart, and arms that share a stage have a row each."""
    study = small(
        depth=2, seeds=2, arms={"tuned": TUNED, "random": "random_frozen", "same": TUNED}, training={"epochs": 1}
    )
    ledger = Ledger(answers.Memory())
    list(answers.depths(study, datasets.generate(study.data), steps=ledger))
    table = ledger.table()
    stages = list(table[table["arm"] == "tuned"][["stage", "turn", "depth"]].itertuples(index=False, name=None))
    at_each_depth = ["head 1", "evaluate 1", "fine_tune 1", "head 2", "fine_tune 2", "evaluate 2"]
    assert [f"{stage} {turn}" for stage, turn, depth in stages if depth == 1] == ["base 1", *at_each_depth]
    assert [f"{stage} {turn}" for stage, turn, depth in stages if depth == 2] == ["add_layer 1", *at_each_depth]
    assert set(table[table["arm"] == "random"]["stage"]) == {"head", "evaluate"}
    shared = table[table["arm"] == "same"].drop(columns="arm").reset_index(drop=True)
    assert shared.equals(table[table["arm"] == "tuned"].drop(columns="arm").reset_index(drop=True))
    assert set(table["last_seed"]) == {1}


def test_memory_holds_one_block_of_seeds() -> None:
    """Arms share stages within a block; with the next block the results of the last are let go."""
    study = small(depth=1, seeds=12, arms={"one": "greedy", "two": "greedy"}, training={"epochs": 1})
    memory = answers.Memory()
    ledger = Ledger(memory)
    held = [
        (depth.block.arm, depth.block.seeds[0], len(memory.results))
        for depth in answers.depths(study, datasets.generate(study.data), steps=ledger)
    ]
    assert held == [("one", 0, 2), ("two", 0, 2), ("one", 10, 2), ("two", 10, 2)]
    assert [row["finished"] for row in ledger.rows[:2]] == [row["finished"] for row in ledger.rows[2:4]]
