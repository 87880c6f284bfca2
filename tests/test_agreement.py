"""Verdicts on two computations: what is exact, what is rounding, what is different, and which difference is first."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from layerwise.agreement import Difference, Place, Value, compare

LOSS = Place("greedy", 1, 1, "scores", 2, "test_loss")
ACCURACY = dataclasses.replace(LOSS, name="test_accuracy")
COLLAPSED = dataclasses.replace(LOSS, name="collapsed")
WEIGHTS = dataclasses.replace(LOSS, stage="depth-02", name="weights")
BASE = Place("greedy", 0, 9, "base", 1, "content")

BEFORE: dict[Place, Value] = {BASE: "aa", LOSS: 0.25, ACCURACY: 0.8, COLLAPSED: False, WEIGHTS: "cc"}


def changed(**values: Any) -> dict[Place, Value]:
    """The second computation: the first with other values at some places."""
    places = {"base": BASE, "loss": LOSS, "accuracy": ACCURACY, "collapsed": COLLAPSED, "weights": WEIGHTS}
    return BEFORE | {places[name]: value for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "EXACT"),
        ({"loss": math.nextafter(0.25, 1)}, "WITHIN TOLERANCE"),
        ({"loss": 0.25024}, "WITHIN TOLERANCE"),
        ({"loss": 0.2504}, "DIFFERENT"),
        ({"accuracy": 0.8049}, "WITHIN TOLERANCE"),
        ({"accuracy": 0.8051}, "DIFFERENT"),
        ({"collapsed": True}, "DIFFERENT"),
        ({"loss": math.inf}, "DIFFERENT"),
        ({"base": "bb", "weights": "dd", "loss": 0.2500001}, "WITHIN TOLERANCE"),
        # Every score to the bit, and other weights: no rounding does that.
        ({"weights": "dd"}, "DIFFERENT"),
        ({"base": "bb", "weights": "dd"}, "DIFFERENT"),
        ({"loss": 0.2500001, "accuracy": 0.9}, "DIFFERENT"),
    ],
)
def test_the_verdict_is_by_the_worst_difference(values: dict[str, Any], verdict: str) -> None:
    """Equal bits are exact; rounding is what stays in the stated tolerance; outcomes have none."""
    assert compare(BEFORE, changed(**values)).verdict == verdict


def test_small_scores_have_room_in_absolute_terms() -> None:
    """Near nought a share says nothing: a millionth is allowed; of R2 and accuracy a little more."""
    assert compare({LOSS: 1e-7}, {LOSS: 9e-7}).verdict == "WITHIN TOLERANCE"
    assert compare({LOSS: 1e-7}, {LOSS: 2e-6}).verdict == "DIFFERENT"
    r2 = dataclasses.replace(LOSS, name="reconstruction_r2")
    assert compare({r2: 0.0001}, {r2: 0.0009}).verdict == "WITHIN TOLERANCE"


def test_a_value_that_one_side_lacks_is_a_difference() -> None:
    """What was tracked and is not computed is different, and so is what is computed and was not tracked."""
    less = {place: value for place, value in BEFORE.items() if place != ACCURACY}
    assert compare(BEFORE, less).differences == (Difference(ACCURACY, 0.8, None),)
    assert compare(less, BEFORE).differences == (Difference(ACCURACY, None, 0.8),)
    assert compare(BEFORE, less).verdict == compare(less, BEFORE).verdict == "DIFFERENT"


def test_differences_come_in_the_order_of_training() -> None:
    """The first is by stage; the first score, and the first beyond tolerance, can be asked for."""
    found = compare(BEFORE, changed(base="bb", loss=0.2500001, accuracy=0.9, weights="dd"))
    assert [one.place for one in found.differences] == [BASE, LOSS, ACCURACY, WEIGHTS]
    firsts = (found.first(), found.first(digests=False), found.first(tolerable=False))
    assert [one.place for one in firsts if one] == [BASE, LOSS, ACCURACY]
    assert str(found.first()) == "greedy, seeds 0-9, base, depth 1: content: aa before, bb now"
    assert str(firsts[2]) == "greedy, seed 1, scores, depth 2: test_accuracy: 0.8 before, 0.9 now"
    assert compare(BEFORE, BEFORE).first() is None


def test_both_kinds_are_counted() -> None:
    """Scores and outcomes are one kind, digests the other."""
    assert compare(BEFORE, BEFORE).compared == {"scores": 3, "digests": 2}
