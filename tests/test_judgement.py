"""Verdicts of a run against the accepted one, on made-up scores whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from layerwise.across import Across, RunScores, compare_runs
from layerwise.agreement import Place, Value, compare
from layerwise.judgement import by_bits, by_scores, lost_claims

DEPTHS = (1, 2)


def values(**changed: Value) -> dict[Place, Value]:
    """What a run of two depths left, in the order of training; some of it changed."""
    stages = {"base": 1, "add_layer": 2}
    found: dict[Place, Value] = {
        Place("greedy", 0, 9, stage, depth, "content"): changed.get(stage, "ab") for stage, depth in stages.items()
    }
    for depth in DEPTHS:
        found[Place("greedy", 3, 3, "scores", depth, "test_loss")] = changed.get("loss", 0.25)
    return found


def scores(name: str, fall: float = 0.0, *, seeds: int = 12, broken: int = 0) -> RunScores:
    """A run whose seeds score around .8, less what they fell at the second depth."""
    noise = np.random.default_rng(5).normal(0, 0.01, (seeds, 2))
    rows = [
        {
            "arm": "greedy", "seed": seed, "depth": depth, "diverged": seed < broken, "collapsed": False,
            "test_accuracy": np.nan if seed < broken else 0.8 + noise[seed, depth - 1] - fall * (depth == 2),
        }
        for seed in range(seeds) for depth in DEPTHS
    ]  # fmt: skip
    return RunScores(name, name, {"greedy": {}}, pd.DataFrame(rows), "same", {})


def across(**now: Any) -> Across:
    """The accepted run, and one that may be worse."""
    seeds = now.get("seeds", 12)
    return compare_runs([scores("before", seeds=seeds), scores("now", **now)])


def verdict(of: str) -> dict[str, Any]:
    """Verdicts of one claim."""
    return {"verdicts": [{"claim": "rises", "verdict": of, "words": ""}]}


def test_equal_bits_are_exact() -> None:
    """Where every bit is as it was, nothing is found."""
    found = by_bits(compare(values(), values()))
    assert (found.verdict, found.regressed, found.findings) == ("EXACT", False, ())
    assert found.words == "all 4 scores, outcomes and digests are as accepted, to the bit"


def test_a_changed_bit_is_named_by_its_stage() -> None:
    """The first of all changes, in the order of training, is where the cause is."""
    found = by_bits(compare(values(), values(add_layer="cd", loss=float(np.nextafter(0.25, 1)))))
    assert (found.verdict, found.regressed, len(found.findings)) == ("CHANGED", True, 3)
    assert found.words == (
        "3 of 4 values are not as accepted, first in add_layer at depth 2"
        " (greedy, seeds 0-9: content ab before, cd now)"
    )
    assert found.findings[1] == ("greedy, seed 3, scores, depth 1: test_loss: 0.25 before, 0.25000000000000006 now")


def test_a_lost_claim_is_found_though_bits_are_equal() -> None:
    """How claims are decided may change too."""
    found = by_bits(compare(values(), values()), lost_claims(verdict("supported"), verdict("undecided")))
    assert (found.verdict, found.words) == ("CHANGED", "claim rises was supported, and is undecided")


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        ("supported", "supported", False), ("supported", "undecided", True), ("supported", "refuted", True),
        ("undecided", "refuted", True), ("undecided", "supported", False), ("refuted", "undecided", False),
    ],
)  # fmt: skip
def test_claims_are_lost_downwards(before: str, now: str, lost: bool) -> None:
    """A verdict that got better is no regression; without claims there is none either."""
    assert bool(lost_claims(verdict(before), verdict(now))) == lost
    assert lost_claims(None, verdict(now)) == lost_claims(verdict(before), None) == []


def test_a_fall_beyond_noise_is_worse() -> None:
    """With other versions, paired seeds tell a fall from rounding, and the arm and depth are named."""
    found = by_scores(across(fall=0.05))
    assert (found.verdict, found.regressed, len(found.findings)) == ("WORSE", True, 1)
    assert found.words.startswith(
        "test accuracy of greedy at depth 2 fell by 0.0500 (95 % interval -0.0500 to -0.0500, 12"
    )


def test_a_rise_is_no_worse() -> None:
    """A difference is a regression in one direction alone."""
    found = by_scores(across(fall=-0.05))
    assert (found.verdict, found.regressed) == ("NO WORSE", False)
    assert found.words == "none of 2 paired differences over 12 seeds shows a fall in test accuracy (level 0.05, Holm)"


def test_an_arm_that_ends_elsewhere_is_said() -> None:
    """What is compared are the depths that both runs have; where a study grew to another depth, that is said, too."""
    shallow = scores("now")
    ended = replace(shallow, metrics=shallow.metrics[shallow.metrics["depth"] == 1])
    found = by_scores(compare_runs([scores("before"), ended]))
    said = "; the depths that both have were compared: greedy ends at depth 1, not 2"
    assert (found.verdict, found.words[-len(said) :]) == ("NO WORSE", said)
    lost = by_scores(compare_runs([scores("before"), ended]), ["claim rises: refuted now"])
    assert (lost.verdict, lost.words) == ("WORSE", f"claim rises: refuted now{said}")
    assert "depth" not in by_scores(across()).words


def test_seeds_that_break_are_worse() -> None:
    """Scores are of intact seeds alone, so outcomes are tested of their own."""
    found = by_scores(across(broken=9))
    assert found.verdict == "WORSE"
    assert "9 seeds of greedy at depth 1 diverged or collapsed, and 0 in the accepted run (p 0.0" in found.words


def test_a_claim_that_is_lost_is_worse() -> None:
    """Verdicts count whatever the differences are."""
    assert by_scores(across(), ["claim rises was supported, and is refuted"]).regressed


def test_too_few_seeds_say_so() -> None:
    """Three seeds cannot show anything at any level worth the name, and no worse then means little."""
    assert by_scores(across(fall=0.3, seeds=3)).words.endswith("(level 0.05, Holm), but with 3 seeds none could")
