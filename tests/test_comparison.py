"""Arms side by side: which network of an arm counts, which arms are compared, and what their differences are."""

from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest

import layerwise.comparison
from layerwise import statistics
from layerwise.comparison import all_differences, as_table, differences, final_scores, finished, pairs
from layerwise.study import Study, load
from tests.studies import small

ENCODER = {"objective": "reconstruction"}
ARMS = {"tuned": {**ENCODER, "fine_tune": {"epochs": 2}}, "plain": ENCODER, "scratch": "scratch"}


def scored(arm: str, depth: int, scores: list[float], *, tuned: list[float] | None = None, **broken: list[int]):
    """Rows of one arm at one depth."""
    ended = {name: [seed in broken.get(name, ()) for seed in range(len(scores))] for name in ("diverged", "collapsed")}
    rows = pd.DataFrame({"arm": arm, "seed": range(len(scores)), "depth": depth, **ended, "test_accuracy": scores})
    rows["test_loss"], rows["live_units"] = 0.5, 10.0
    if tuned is not None:
        rows["fine_tuned_diverged"] = rows["fine_tuned_collapsed"] = False
        rows["fine_tuned_test_accuracy"], rows["fine_tuned_test_loss"] = tuned, 0.25
    return rows


@pytest.fixture
def metrics() -> pd.DataFrame:
    """Three seeds: tuned is fine-tuned at depth 2 alone, plain has a collapsed seed there, scratch has one depth."""
    return pd.concat(
        [
            scored("tuned", 1, [0.70, 0.71, 0.72]),
            scored("tuned", 2, [0.60, 0.60, 0.60], tuned=[0.80, 0.82, 0.87]),
            scored("plain", 1, [0.60, 0.62, 0.61]),
            scored("plain", 2, [0.50, 0.10, 0.52], collapsed=[1]),
            scored("scratch", 2, [0.75, 0.74, 0.79]),
        ],
        ignore_index=True,
    )


@pytest.fixture
def study() -> Study:
    return small(depth=2, arms=ARMS)


def test_examples_print_what_they_say():
    """The examples in the docstrings are true."""
    assert not doctest.testmod(layerwise.comparison).failed


def test_the_network_that_an_arm_leaves_counts(metrics: pd.DataFrame):
    """Fine-tuned scores and outcomes stand where there was fine tuning; a score that it does not have is unknown."""
    left = finished(metrics)
    assert not [name for name in left if name.startswith("fine_tuned_")]
    by_place = left.set_index(["arm", "depth"])
    assert by_place.loc[("tuned", 2), "test_accuracy"].tolist() == [0.80, 0.82, 0.87]
    assert by_place.loc[("tuned", 1), "test_accuracy"].tolist() == [0.70, 0.71, 0.72]
    assert by_place.loc[("scratch", 2), "test_accuracy"].tolist() == [0.75, 0.74, 0.79]
    assert by_place.loc[("tuned", 2), "test_loss"].tolist() == [0.25] * 3
    assert by_place.loc[("tuned", 2), "live_units"].isna().all()
    assert by_place.loc[("plain", 2), "collapsed"].tolist() == [False, True, False]


def test_a_difference_is_of_seeds_intact_in_both(metrics: pd.DataFrame):
    """Mean, interval, share ahead, p-values and counts of a pair, at each depth that both have."""
    left = finished(metrics)
    first, second = (left[left["arm"] == arm] for arm in ("tuned", "plain"))
    one, two = differences(first, second, "test_accuracy")
    assert (one.depth, two.depth, one.name) == (1, 2, "tuned minus plain")
    values = np.array([0.10, 0.09, 0.11])
    assert one.values.mean == pytest.approx(values.mean())
    assert (one.values.ci_low, one.values.ci_high) == pytest.approx(statistics.t_interval(values))
    assert (one.probability.estimate, one.sign_flip_p, one.wilcoxon_p) == (1.0, 0.25, 0.25)
    assert (two.values.seeds, two.broken, two.other_broken, two.outcomes_p) == (2, 0, 1, 1.0)
    assert two.values.mean == pytest.approx((0.30 + 0.35) / 2)


def test_arms_without_a_depth_in_common_are_compared_at_their_last(metrics: pd.DataFrame):
    """Where no depth is shared, the last depth of one stands against the last of the other."""
    left = finished(metrics)
    shallow, deep = left[(left["arm"] == "plain") & (left["depth"] == 1)], left[left["arm"] == "scratch"]
    (found,) = differences(shallow, deep, "test_accuracy", names=("a", "b"))
    assert (found.arm, found.minus, found.depth, found.other_depth) == ("a", "b", 1, 2)


def test_nothing_is_said_of_no_seed(metrics: pd.DataFrame):
    """Where every seed of an arm broke there is no difference, and McNemar's test says how unlike the arms are."""
    left = finished(metrics)
    broken = left[left["arm"] == "plain"].assign(collapsed=True)
    found = list(differences(left[left["arm"] == "tuned"], broken, "test_accuracy"))[1]
    assert (found.values.seeds, found.other_broken, found.outcomes_p) == (0, 3, 0.25)
    assert np.isnan([found.values.mean, found.sign_flip_p, found.wilcoxon_p, found.effect_size]).all()


def test_no_test_is_taken_of_one_seed(metrics: pd.DataFrame):
    """One seed that is left has a difference, and no p-value."""
    left = finished(metrics[metrics["seed"] == 0])
    found = next(differences(left[left["arm"] == "tuned"], left[left["arm"] == "plain"], "test_accuracy"))
    assert (found.values.seeds, found.values.mean) == (1, pytest.approx(0.10))
    assert np.isnan([found.values.ci_low, found.sign_flip_p, found.wilcoxon_p]).all()


def test_arms_are_compared_with_what_they_are_measured_against(study: Study):
    """Claimed pairs come first, then a control under its arm, then every other arm with the first; each pair once."""
    assert pairs(study) == (("plain", "tuned"), ("tuned", "scratch"))
    claims = {"it": {"kind": "compare", "arm": "scratch", "metric": "test_accuracy", "above": "plain"}}
    assert pairs(small(depth=2, arms=ARMS, claims=claims))[0] == ("scratch", "plain")
    ordered = pairs(load("label-efficiency"))
    assert ordered[:2] == (("tuned_30", "scratch_30"), ("tuned_100", "scratch_100"))
    assert pairs(load("permuted-weights"))[:3] == (
        ("sigmoid_tuned", "sigmoid_scratch"), ("sigmoid_tuned", "sigmoid_permuted"),
        ("sigmoid_permuted", "sigmoid_scratch"),
    )  # fmt: skip
    assert pairs(load("blobs-supervised")) == ()


def test_all_pairs_of_a_study_are_a_table(study: Study, metrics: pd.DataFrame):
    """Every pair, part and depth is a row; an arm that is not there is left out."""
    found = all_differences(study, metrics)
    assert [(one.arm, one.minus, one.depth) for one in found] == [
        ("plain", "tuned", 1), ("plain", "tuned", 2), ("tuned", "scratch", 2)
    ]  # fmt: skip
    table = as_table(found)
    assert table["mean"].tolist() == [one.values.mean for one in found]
    assert table["probability_high"].tolist() == [one.probability.high for one in found]
    assert all_differences(study, metrics[metrics["arm"] == "tuned"]) == []


def test_numbers_are_compared_by_r2(study: Study, metrics: pd.DataFrame):
    """Where targets are numbers, R2 takes the place of accuracy."""
    numbers = metrics.rename(columns=lambda name: name.replace("accuracy", "r2"))
    assert (statistics.main_score(metrics), statistics.main_score(numbers)) == ("accuracy", "r2")
    assert {one.metric for one in all_differences(study, numbers)} == {"test_r2"}
    assert final_scores(numbers, "scratch")["final_test_r2"] == pytest.approx(0.76)


def test_an_arm_in_a_few_numbers(metrics: pd.DataFrame):
    """The last depth's network, fine-tuned where it was: means over intact seeds, and how the others ended."""
    assert final_scores(metrics, "tuned") == {
        "final_depth": 2, "final_diverged": 0, "final_collapsed": 0,
        "final_test_accuracy": pytest.approx(0.83), "final_test_loss": 0.25,
    }  # fmt: skip
    plain = final_scores(metrics, "plain")
    assert (plain["final_collapsed"], plain["final_test_accuracy"]) == (1, pytest.approx(0.51))
