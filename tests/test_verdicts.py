"""Verdicts: what a run says of its claims, from metrics whose answer is known."""

from __future__ import annotations

import doctest
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from layerwise import statistics
from layerwise.claims import decide, deciding, planning, power_curve, should_stop, undecidable, wording
from layerwise.claims.columns import column
from layerwise.claims.questions import Spread
from layerwise.report.answer import _bounds, _numbers
from layerwise.study import Score, load, sides
from tests.studies import READY, small

ARMS = {"one": "greedy", "two": "greedy", "three": "greedy", "four": "greedy"}
COMPARE = {"kind": "compare", "arm": "one", "metric": "test_accuracy", "above": "two"}
NOISE = np.array([0.01, -0.02, 0.005, 0.015, -0.01, 0.02, -0.015, 0.003, -0.004, -0.004])
"""Ten numbers whose mean is zero."""


def claiming(*claims: dict, seeds: int = 10, depth: int = 2, **changes):
    """A study of four arms with some claims, named a, b and so on."""
    named = dict(zip("abcdefgh", claims, strict=False))
    return small(arms=ARMS, depth=depth, seeds=seeds, claims=named, **changes)


def scored(scores: dict[str, dict[int, np.ndarray | list[float]]], broken: dict[tuple[str, int], dict] | None = None):
    """Metrics of a run: arm -> depth -> test accuracy of every seed; and which seeds diverged or collapsed."""
    rows = []
    for arm, depths in scores.items():
        for depth, values in depths.items():
            ended = (broken or {}).get((arm, depth), {})
            for seed, value in enumerate(values):
                diverged, collapsed = (seed in ended.get(name, ()) for name in ("diverged", "collapsed"))
                rows.append({
                    "arm": arm, "seed": seed, "depth": depth, "diverged": diverged, "collapsed": collapsed,
                    "test_accuracy": float("nan") if diverged else value, "train_accuracy": 0.9,
                })  # fmt: skip
    return pd.DataFrame(rows)


def flat(**arms: np.ndarray | float) -> dict[str, dict[int, np.ndarray]]:
    """The same scores at depth 1 and 2 of each arm."""
    return {arm: dict.fromkeys((1, 2), np.broadcast_to(values, 10)) for arm, values in arms.items()}


def verdict_on(claim: dict, metrics: pd.DataFrame, **changes):
    """The verdict of a study with one claim."""
    return decide(claiming(claim, **changes), metrics).verdicts[0]


def test_a_difference_that_every_seed_shows():
    """Ten seeds of ten ahead: supported, p = 1/1024, the mean difference and its t interval."""
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8))
    found = verdict_on(COMPARE, metrics)
    (evidence,) = found.evidence
    assert (found.verdict, found.p, evidence.seeds) == ("supported", 1 / 1024, 10)
    assert evidence.estimate == pytest.approx(0.01)
    assert (evidence.low, evidence.high) == pytest.approx(statistics.t_interval(NOISE / 10 + 0.01))
    assert (evidence.family_low, evidence.family_high) == pytest.approx(statistics.t_interval(NOISE / 10 + 0.01, 0.9))
    assert evidence.numbers["probability"] == 1.0
    assert evidence.numbers["effect_size"] == pytest.approx(statistics.effect_size(NOISE / 10 + 0.01))
    assert found.seeds_needed is None


def test_the_opposite_refutes():
    """The same metrics refute the claim that the arm is below the other, by the test of that null."""
    found = verdict_on({**COMPARE, "above": None, "below": "two"}, scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8)))
    assert (found.verdict, found.p, found.p_against) == ("refuted", 1.0, 1 / 1024)


def test_noise_is_undecided_and_says_how_many_seeds_would_do():
    """Seeds that point nowhere decide nothing; the number named is that of the t-test's power."""
    found = verdict_on(COMPARE, scored(flat(one=0.8 + NOISE + 0.004, two=0.8)))
    effect = 0.004 / NOISE.std(ddof=1)
    assert found.verdict == "undecided"
    assert found.seeds_needed == statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, 0.05))
    assert f"about {found.seeds_needed} seeds would decide it" in found.words.lower()


def test_a_family_needs_more_seeds():
    """Beside another claim, the number named is that of half of alpha."""
    metrics = scored(flat(one=0.8 + NOISE + 0.004, two=0.8))
    both = decide(claiming(COMPARE, {**COMPARE, "above": None, "below": "two"}), metrics).verdicts[0]
    effect = 0.004 / NOISE.std(ddof=1)
    assert both.seeds_needed == statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, 0.05 / 2))


def test_no_effect_at_all_is_never_decided():
    """Where the estimate lies on the threshold, no number of seeds is named."""
    found = verdict_on(COMPARE, scored(flat(one=0.8, two=0.8)))
    assert (found.verdict, found.seeds_needed) == ("undecided", None)
    assert "no number of seeds is known to decide it" in found.words.lower()


@pytest.mark.parametrize(("by", "verdict"), [(0.005, "supported"), (0.01, "undecided"), (0.02, "refuted")])
def test_a_smallest_difference_is_part_of_the_claim(by: float, verdict: str):
    """A difference of .01 is more than .005, not more than .02, and who knows about .01."""
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8))
    assert verdict_on({**COMPARE, "by": by}, metrics).verdict == verdict


def test_holm_is_taken_over_all_claims():
    """Two claims with p 1/1024 each have 2/1024 after Holm; a third that is hopeless makes it 3/1024."""
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8, three=0.8 + NOISE / 10, four=0.8))
    both = decide(claiming(COMPARE, {**COMPARE, "above": "four"}), metrics)
    assert [found.p_adjusted for found in both.verdicts] == [2 / 1024] * 2
    three = decide(claiming(COMPARE, {**COMPARE, "above": "four"}, {**COMPARE, "arm": "three"}), metrics)
    assert [found.p_adjusted for found in three.verdicts[:2]] == [3 / 1024] * 2
    strict = decide(claiming(COMPARE, {**COMPARE, "above": "four"}, alpha=0.0015), metrics)
    assert [found.verdict for found in strict.verdicts] == ["undecided"] * 2


def test_a_claim_over_depths_must_hold_at_each():
    """Ahead at depth 2 alone supports nothing about 1 and 2; behind at depth 1 refutes it, at twice the p-value."""
    metrics = scored(
        {"one": {1: 0.79 + NOISE / 10, 2: 0.82 + NOISE / 10}, "two": {1: np.full(10, 0.8), 2: np.full(10, 0.8)}}
    )
    assert verdict_on({**COMPARE, "depth": 2}, metrics).verdict == "supported"
    found = verdict_on({**COMPARE, "depth": [1, 2]}, metrics)
    assert (found.verdict, found.p, found.p_against) == ("refuted", 1.0, 2 / 1024)
    assert [one.depth for one in found.evidence] == [1, 2]


def test_broken_seeds_are_counted_and_compared_with_nothing():
    """A seed that is not intact on both sides is in no difference, and the counts stand beside it."""
    metrics = scored(
        flat(one=0.8 + NOISE / 10 + 0.01, two=0.8), {("one", 2): {"diverged": [3]}, ("two", 2): {"collapsed": [5, 6]}}
    )
    (evidence,) = verdict_on(COMPARE, metrics).evidence
    assert evidence.seeds == 7
    assert evidence.estimate == pytest.approx(0.01 + np.delete(NOISE, [3, 5, 6]).mean() / 10)
    assert [(one.seeds, one.diverged, one.collapsed) for one in evidence.outcomes] == [(10, 1, 0), (10, 0, 2)]
    assert evidence.outcomes_p == 1.0


@pytest.mark.parametrize("left", [0, 1])
def test_one_seed_that_is_left_decides_nothing(left: int):
    """With one seed intact, or none, a claim is undecided, and the run does not stumble over it."""
    broken = list(range(left, 10))
    ended = {(arm, 2): {"diverged": broken} for arm in ("one", "two")}
    found = verdict_on(COMPARE, scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8), ended))
    assert (found.verdict, found.p, found.evidence[0].seeds) == ("undecided", 1.0, left)
    assert "too few seeds count" in found.words.lower()


def test_survivors_do_not_speak_where_outcomes_differ():
    """Where one arm breaks on six more seeds than the other, four survivors decide nothing, in either direction."""
    ended = {("one", 2): {"collapsed": [0, 1, 2], "diverged": [3, 4, 5]}}
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8), ended)
    for claim in (COMPARE, {**COMPARE, "above": None, "below": "two"}):
        found = verdict_on(claim, metrics, alpha=0.1)
        assert (found.verdict, found.seeds_needed) == ("undecided", None)
        assert found.evidence[0].outcomes_p == 1 / 32
        assert "6 of 10 seeds of one at depth 2 broke, and 0 of 10 of two at depth 2" in found.words
    assert verdict_on({**COMPARE, "among": "intact"}, metrics, alpha=0.1).verdict == "supported"


def test_outcomes_that_hardly_differ_do_not_stand_in_the_way():
    """Three broken seeds more are no significant difference, and the seven others decide."""
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8), {("one", 2): {"collapsed": [0, 1, 2]}})
    assert verdict_on(COMPARE, metrics).verdict == "supported"


def test_a_claim_about_collapsed_seeds():
    """Among the seeds that collapse, the collapsed scores count, against the other side's intact ones."""
    scores = {"one": {1: np.full(10, 0.82), 2: np.where(np.arange(10) < 7, 0.7 + NOISE / 10, 0.9)}}
    metrics = scored(scores, {("one", 2): {"collapsed": range(7)}})
    claim = {**COMPARE, "above": None, "below": {"depth": 1}, "among": "collapsed"}
    (evidence,) = verdict_on(claim, metrics).evidence
    assert evidence.seeds == 7
    assert evidence.estimate == pytest.approx(-0.12 + NOISE[:7].mean() / 10)
    assert verdict_on(claim, metrics).verdict == "supported"


def test_seeds_needed_counts_the_seeds_that_break():
    """Where half of the seeds count, twice as many have to be trained."""
    ended = {(arm, 2): {"collapsed": [0, 1, 2, 3, 4]} for arm in ("one", "two")}
    metrics = scored(flat(one=0.8 + NOISE + 0.002, two=0.8), ended)
    values = NOISE[5:] + 0.002
    effect = abs(values.mean()) / values.std(ddof=1)
    single = statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, 0.05))
    assert verdict_on(COMPARE, metrics).seeds_needed == 2 * single


def test_all_seeds_diverged():
    """Where nothing is left to compare, the claim is undecided and the words say why."""
    metrics = scored(flat(one=0.8, two=0.8), {("one", 2): {"diverged": range(10)}, ("two", 2): {"diverged": range(10)}})
    found = verdict_on(COMPARE, metrics)
    assert found.verdict == "undecided"
    assert "no seed counts; of 10 seeds of one at depth 2, 10 diverged and 0 collapsed" in found.words
    assert "Too few seeds count." in found.words


@pytest.mark.parametrize("claim", [
    COMPARE,
    {"kind": "trend", "arm": "one", "metric": "test_accuracy", "direction": "up"},
    {"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.1},
    {"kind": "bound", "arm": "one", "metric": "test_accuracy", "at_most": 0.9},
    {"kind": "ordered", "arms": ["one", "two", "three"], "metric": "test_accuracy", "direction": "up"},
    {"kind": "rate", "outcome": "collapsed", "arm": "one", "below": "two"},
    {"kind": "rate", "outcome": "collapsed", "arm": "one", "at_most": 0.1},
    {"kind": "ratio", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 2}])  # fmt: skip
def test_nothing_trained_decides_nothing(claim: dict):
    """With no metrics, or none of the arms, every kind of claim is undecided, and can still be told as JSON."""
    nothing = scored(flat(four=0.8))
    for metrics in (nothing, nothing[:0]):
        verdicts = decide(claiming(claim), metrics)
        assert [found.verdict for found in verdicts.verdicts] == ["undecided"]
        json.dumps(verdicts.as_json(), allow_nan=False)


def test_a_seed_that_was_not_trained_is_no_broken_one():
    """Where a block of an arm is missing, its seeds count on no side."""
    metrics = scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8))
    part = metrics[(metrics["arm"] != "two") | (metrics["seed"] < 6)]
    (evidence,) = verdict_on(COMPARE, part).evidence
    assert evidence.seeds == 6
    assert [one.seeds for one in evidence.outcomes] == [10, 6]
    assert evidence.outcomes_p == 1.0


def test_fine_tuned_scores_go_with_fine_tuned_outcomes():
    """A network that broke before fine tuning and not after counts, and the other way round."""
    metrics = pd.DataFrame({
        "arm": "one", "seed": [0, 1, 2], "depth": 1, "diverged": False, "collapsed": [True, False, False],
        "fine_tuned_diverged": [False, True, False], "fine_tuned_collapsed": False, "test_accuracy": 0.5,
        "fine_tuned_test_accuracy": [0.8, 0.9, np.inf],
    })  # fmt: skip
    found = column(metrics, Score("one", 1, "fine_tuned_test_accuracy"), np.arange(4))
    assert np.isfinite(found.values).tolist() == [True, False, False, False]
    assert (found.outcomes.seeds, found.outcomes.diverged, found.outcomes.collapsed) == (3, 1, 0)
    assert column(metrics, Score("one", 1, "test_accuracy"), np.arange(3)).outcomes.collapsed == 1


def test_a_trend_is_of_each_seeds_slope():
    """The slopes are tested, the share of positive ones reported."""
    rising = {depth: 0.8 + 0.01 * depth + NOISE * (depth == 1) for depth in (1, 2, 3)}
    claim = {"kind": "trend", "arm": "one", "metric": "test_accuracy", "direction": "up"}
    found = verdict_on(claim, scored({"one": rising}), depth=3)
    slopes = 0.01 - NOISE / 2
    assert found.evidence[0].estimate == pytest.approx(0.01)
    assert found.evidence[0].numbers["probability"] == pytest.approx(
        np.mean(slopes > 1e-9) + np.mean(abs(slopes) < 1e-9) / 2
    )
    assert found.p == float(statistics.sign_flip(slopes, "greater"))
    assert verdict_on({**claim, "direction": "down"}, scored({"one": rising}), depth=3).verdict == "refuted"
    assert verdict_on({**claim, "by": 0.02}, scored({"one": rising}), depth=3).verdict == "refuted"


def test_an_order_of_arms_and_of_differences():
    """Arms that rise in order support it; their differences from themselves turned round refute it."""
    metrics = scored(flat(one=0.7 + NOISE / 10, two=0.8 + NOISE / 9, three=0.9 + NOISE / 8, four=0.5))
    claim = {"kind": "ordered", "arms": ["one", "two", "three"], "metric": "test_accuracy", "direction": "up"}
    found = verdict_on(claim, metrics)
    assert (found.verdict, found.evidence[0].estimate) == ("supported", 1.0)
    assert found.p == pytest.approx(6.0**-10)
    pairs = [["four", "one"], ["four", "two"], ["four", "three"]]
    assert verdict_on({**claim, "arms": pairs}, metrics).verdict == "refuted"
    assert verdict_on({**claim, "arms": pairs, "direction": "down"}, metrics).verdict == "supported"


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "supported"), (0.02, "undecided"), (0.06, "refuted")])
def test_equivalence_is_shown_or_its_opposite(shift: float, verdict: str):
    """Within the margin, astride it, beyond it."""
    claim = {"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.02}
    metrics = scored(flat(one=0.8 + NOISE + shift, two=0.8))
    found = verdict_on(claim, metrics)
    assert found.verdict == verdict
    assert found.p == pytest.approx(float(statistics.equivalence(NOISE + shift, 0.02)))


def test_an_equivalence_that_is_not_yet_shown_names_its_seeds():
    """Inside a margin that ten seeds cannot resolve, the number comes from the power of two one-sided tests."""
    claim = {"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.006}
    found = verdict_on(claim, scored(flat(one=0.8 + NOISE, two=0.8)))
    sd = NOISE.std(ddof=1)
    wanted = statistics.fewest_seeds(lambda seeds: statistics.equivalence_power(0.0, sd, 0.006, seeds, 0.05))
    assert (found.verdict, found.seeds_needed) == ("undecided", wanted)


def test_the_seeds_that_would_refute():
    """Where the claim points the wrong way, the number named is that of showing its opposite."""
    equal = {"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.002}
    found = verdict_on(equal, scored(flat(one=0.8 + NOISE + 0.006, two=0.8)))
    effect = (0.006 - 0.002) / NOISE.std(ddof=1)
    wanted = statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, 0.05 / 2))
    assert (found.verdict, found.seeds_needed) == ("undecided", wanted)
    rare = {"kind": "rate", "outcome": "collapsed", "arm": "two", "below": "one"}
    found = verdict_on(rare, scored(flat(one=0.8, two=0.8), {("two", 2): {"collapsed": [0, 1]}}))
    wanted = statistics.fewest_seeds(lambda seeds: statistics.mcnemar_power(0.2, 0.0, seeds, 0.05))
    assert (found.verdict, found.seeds_needed) == ("undecided", wanted)


def test_a_bound_holds_for_the_mean_at_every_depth():
    """A mean below the bound at one depth and above it at another refutes; of a difference it is the same."""
    metrics = scored(
        {"one": {1: 0.80 + NOISE / 10, 2: 0.86 + NOISE / 10}, "two": {1: np.full(10, 0.8), 2: np.full(10, 0.8)}}
    )
    claim = {"kind": "bound", "arm": "one", "metric": "test_accuracy", "at_most": 0.84}
    assert verdict_on(claim, metrics).verdict == "refuted"
    assert verdict_on({**claim, "depth": 1}, metrics).verdict == "supported"
    assert verdict_on({**claim, "at_most": None, "at_least": 0.75}, metrics).verdict == "supported"
    assert verdict_on({**claim, "minus": "two", "at_most": 0.07}, metrics).verdict == "supported"
    assert verdict_on({**claim, "minus": {"depth": 1}, "at_most": 0.05}, metrics).verdict == "refuted"


def test_a_rate_is_held_against_another_or_a_number():
    """McNemar's test between arms, the binomial test against a rate."""
    metrics = scored(flat(one=0.8, two=0.8), {("two", 2): {"collapsed": range(7)}})
    claim = {"kind": "rate", "outcome": "collapsed", "arm": "one", "below": "two"}
    found = verdict_on(claim, metrics)
    assert (found.verdict, found.p, found.evidence[0].estimate) == ("supported", 1 / 128, -0.7)
    assert verdict_on({**claim, "below": None, "above": "two"}, metrics).verdict == "refuted"
    assert verdict_on({**claim, "outcome": "diverged"}, metrics).verdict == "undecided"
    assert verdict_on({**claim, "below": None, "at_most": 0.3}, metrics).p == pytest.approx(0.7**10)
    assert verdict_on({**claim, "arm": "two", "below": None, "at_most": 0.3}, metrics).verdict == "refuted"
    assert verdict_on({**claim, "arm": "two", "below": None, "at_least": 0.3}, metrics).verdict == "supported"


def test_a_difference_of_rates_is_the_claims_own_arm_less_the_other():
    """Whether an arm is claimed to break less or more often, its own rate comes first, with its sign."""
    metrics = scored(flat(one=0.8, two=0.8), {("one", 2): {"collapsed": [0, 1, 2]}, ("two", 2): {"collapsed": [9]}})
    claim = {"kind": "rate", "outcome": "collapsed", "arm": "one"}
    below, above = (verdict_on({**claim, side: "two"}, metrics) for side in ("below", "above"))
    assert (below.p, below.p_against) == (above.p_against, above.p) == (pytest.approx(15 / 16), pytest.approx(5 / 16))
    for (found,) in (below.evidence, above.evidence):
        assert found.estimate == pytest.approx(0.2)
        assert found.low < found.estimate < found.high
        assert found.numbers == {"rate": 0.3, "other_rate": 0.1, "only_here": 3, "only_there": 1}
    assert "rate difference +0.2000" in above.words


@pytest.mark.parametrize(("side", "limits"), [("below", (None, 0.0)), ("above", (0.0, None))])
def test_a_difference_of_rates_is_shaded_where_the_claim_holds(side: str, limits: tuple[float | None, float | None]):
    """The drawing of a claim of more collapsed seeds is shaded above zero, that of fewer below."""
    claim = claiming({"kind": "rate", "outcome": "collapsed", "arm": "one", side: "two"}).claims["a"]
    assert _bounds(claim) == limits


@pytest.mark.parametrize(
    ("claim", "effect"),
    [
        (COMPARE, "effect size, from the bound as claimed"),
        ({"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.1}, "effect size"),
    ],
)
def test_numbers_are_headed_by_what_they_are_measured_from(claim: dict, effect: str):
    """An effect says that it is measured from the bound, unless it is from zero, and Wilcoxon's p its side."""
    study, metrics = claiming(claim), scored(flat(one=0.81 + NOISE, two=0.8))
    (table,) = _numbers(study.claims["a"], decide(study, metrics).as_json()["verdicts"][0])
    headings = [str(column) for column in table.columns]
    assert effect in headings
    assert ("Wilcoxon p, one-sided" in headings) == (claim is COMPARE)
    assert "Wilcoxon p" not in headings


@pytest.mark.parametrize("side", ["below", "above"])
def test_seeds_for_a_difference_of_rates_go_the_way_that_was_seen(side: str):
    """What was seen is decided by the seeds that McNemar's test takes, whichever way it was claimed."""
    metrics = scored(flat(one=0.8, two=0.8), {("one", 2): {"collapsed": [0, 1, 2]}})
    found = verdict_on({"kind": "rate", "outcome": "collapsed", "arm": "one", side: "two"}, metrics)
    wanted = statistics.fewest_seeds(lambda seeds: statistics.mcnemar_power(0.3, 0.0, seeds, 0.05))
    assert (found.verdict, found.seeds_needed) == ("undecided", wanted)


def test_a_ratio_of_spreads_is_held_against_its_bounds():
    """Six times the spread is above 2, not below, and not within 1.5; equal spreads are within 4."""
    other = np.roll(NOISE, 3)
    metrics = scored(flat(one=0.8 + 6 * NOISE, two=0.8 + other, three=0.8 + NOISE))
    claim = {"kind": "ratio", "arm": "one", "metric": "test_accuracy", "to": "two", "above": 2}
    found = verdict_on(claim, metrics)
    assert found.verdict == "supported"
    assert found.p == pytest.approx(float(statistics.sd_ratio_test(6 * NOISE, other, 2.0, "greater")))
    assert found.evidence[0].estimate == pytest.approx(6.0)
    assert verdict_on({**claim, "above": None, "below": 2}, metrics).verdict == "refuted"
    outside = verdict_on({**claim, "above": None, "within": 1.5}, metrics)
    assert outside.verdict == "refuted"
    assert outside.p_against == pytest.approx(2 * float(statistics.sd_ratio_test(6 * NOISE, other, 1.5, "greater")))
    assert verdict_on({**claim, "arm": "three", "above": None, "within": 4}, metrics).verdict == "supported"


def test_seeds_for_a_ratio_within_bounds_meet_both():
    """With equal spreads the seeds named keep the ratio within 1.5 either way in .8 of simulated studies, not in .6."""
    rng = np.random.default_rng(3)
    one, two = NOISE, np.roll(NOISE, 3)
    needed = Spread(one, two, 1 / 1.5, 1.5).seeds_to("support", 0.05)
    assert needed is not None
    correlation = np.corrcoef(one, two)[0, 1]
    shared = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=(4000, needed))
    support, _ = Spread(shared[..., 0], shared[..., 1], 1 / 1.5, 1.5).quick()
    assert (support <= 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_a_difference_of_differences():
    """What one pair of arms gains over another pair is tested as one number a seed."""
    metrics = scored(flat(one=0.9 + NOISE / 10, two=0.8 - NOISE / 9, three=0.75 + NOISE / 8, four=0.7))
    claim = {**COMPARE, "minus": "two", "above": {"arm": "three", "minus": "four"}}
    (evidence,) = verdict_on(claim, metrics).evidence
    assert evidence.estimate == pytest.approx(0.05)
    assert evidence.seeds == 10


def test_verdicts_do_not_hang_on_the_order_of_rows_and_never_change():
    """The same metrics, shuffled, give the same verdicts to the last digit."""
    metrics = scored(flat(one=0.8 + NOISE + 0.01, two=0.8))
    study = claiming(COMPARE, {**COMPARE, "depth": "all"})
    assert decide(study, metrics) == decide(study, metrics.sample(frac=1, random_state=0))


def test_verdicts_are_plain_json():
    """What is not known is null, and nothing else but plain values is in it."""
    found = decide(claiming({**COMPARE, "above": None, "below": "two"}), scored(flat(one=0.8, two=0.8))).as_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["verdicts"][0]["evidence"][0]["numbers"]["effect_size"] is None
    assert json.loads(text)["level"] == 0.05


def test_a_study_without_claims_has_no_verdicts():
    """Nothing claimed, nothing said, and nothing stands in the way."""
    verdicts = decide(small(), scored(flat(greedy=0.8)))
    assert verdicts.lines() == []
    assert verdicts.all_supported


def test_words_of_a_verdict():
    """A line has the name, the verdict with its p-value, what was claimed, and what was found."""
    (line,) = decide(claiming(COMPARE), scored(flat(one=0.8 + NOISE / 10 + 0.01, two=0.8))).lines()
    assert line == (
        "a: supported (p .0010 were the claim false; level 0.05). Test accuracy of one is above that of two at depth 2:"
        " mean difference +0.0100 (95 % interval +0.0091 to +0.0109) over 10 seeds, 100 % of which show what is"
        " claimed."
    )


@pytest.mark.parametrize(
    ("study", "claim", "expected"),
    [
        ("blobs-supervised", "train_rises", "train accuracy of greedy rises with depth, from depth 1 to 11"),
        ("blobs-supervised", "test_stays",
         "test accuracy of greedy is within 0.015 of that of depth 1 at depth 2 to 11"),
        ("blobs-supervised", "no_leak", "test accuracy of greedy is at most 0.84 at depth 1 to 11"),
        ("blobs-autoencoder", "falls_where_collapsed",
         "test accuracy of raw is below that of depth 1 at depth 6, among seeds that collapse"),
        ("blobs-autoencoder", "standardised_keeps_its_input",
         "seeds of standardised collapse less often than those of raw at depth 6"),
        ("blobs-fine-tuned", "supervised_raises_train",
         "train accuracy of supervised is above that of the network before fine tuning at depth 5"),
        ("label-efficiency", "gone_at_1000",
         "test accuracy of tuned_1000 minus that of scratch_1000 is at most 0.01 at depth 2"),
        ("permuted-weights", "more_than_in_the_scale",
         "test accuracy of sigmoid_tuned minus sigmoid_permuted is above that of sigmoid_permuted minus sigmoid_scratch"
         " at depth 2"),
        ("seed-variance", "relu_as_before",
         "the sd over seeds of test accuracy of relu_scratch is between 1/1.5 and 1.5 times that of relu_tuned at depth"
         " 2"),
        ("denoising-vs-plain", "denoising_is_better",
         "test accuracy of denoising is above that of plain at depth 2 and 3"),
    ],
)  # fmt: skip
def test_a_claim_in_words(study: str, claim: str, expected: str):
    """Each kind of claim is a sentence that a reader understands without the file."""
    asked = load(study)
    assert wording.sentence(asked, asked.claims[claim]) == expected


def test_examples_print_what_they_say():
    """The examples in the docstrings are true."""
    for module in (wording, planning, deciding):
        assert not doctest.testmod(module).failed


def test_every_shipped_claim_can_be_decided_by_its_seeds():
    """No ready-made study asks what its number of seeds cannot answer."""
    for name in READY:
        assert undecidable(load(name)) == [], name


def test_three_pairs_decide_nothing_and_the_study_says_so_before_it_trains():
    """Three pairs have a smallest one-sided p of 1/8; the line names it, the level, and how many seeds can."""
    (line,) = undecidable(claiming(COMPARE, seeds=3))
    assert line == (
        "a cannot be supported or refuted by 3 seeds: the smallest possible p-value is 0.125 after Holm over 1 claim,"
        " the level 0.05; use 5 seeds or more"
    )


@pytest.mark.parametrize(
    ("claim", "changes", "fewest"),
    [
        (COMPARE, {}, 5),
        (COMPARE, {"alpha": 0.01}, 7),
        ({**COMPARE, "depth": "all"}, {}, 6),
        ({"kind": "ordered", "arms": ["one", "two", "three"], "metric": "test_accuracy", "direction": "up"}, {}, 2),
        ({"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "two", "within": 0.1}, {}, 2),
        ({"kind": "rate", "outcome": "diverged", "arm": "one", "below": "two"}, {}, 5),
        ({"kind": "rate", "outcome": "diverged", "arm": "one", "at_most": 0.1}, {}, 29),
        ({"kind": "ratio", "arm": "one", "metric": "test_accuracy", "to": "two", "above": 2}, {}, 3),
    ],
)
def test_fewest_seeds_that_can_decide(claim: dict, changes: dict, fewest: int):
    """One seed fewer than the smallest p-values ask for is told, and that many is not."""
    assert undecidable(claiming(claim, seeds=fewest, **changes)) == []
    if fewest > 2:
        assert f"use {fewest} seeds or more" in undecidable(claiming(claim, seeds=fewest - 1, **changes))[0]


def test_a_family_asks_for_more_seeds_than_a_claim():
    """Holm over three claims, and each of three looks, takes its share."""
    three = (COMPARE, {**COMPARE, "above": "three"}, {**COMPARE, "above": "four"})
    assert len(undecidable(claiming(*three, seeds=5))) == 3
    assert undecidable(claiming(*three, seeds=6)) == []
    assert undecidable(claiming(COMPARE, seeds=30, alpha=0.0002)) == []
    assert "no number of seeds up to" in undecidable(claiming(COMPARE, seeds=30, stop={"every": 10}, alpha=0.0002))[0]


def looking(every: np.ndarray, **changes):
    """A study with looks at 10, 20 and 30 seeds, and its metrics: the first arm less the second on every seed."""
    study = claiming(COMPARE, seeds=30, stop={"every": 10}, **changes)
    scores = {"one": {1: every, 2: 0.8 + every}, "two": {1: every, 2: np.full(len(every), 0.8)}}
    return study, scored(scores)


def test_looks_share_alpha_and_the_first_that_decides_counts():
    """A clear first block decides at its look, at a third of alpha, and later seeds do not take it back."""
    turned = np.concatenate([NOISE / 10 + 0.01, NOISE - 0.05, NOISE - 0.05])
    study, metrics = looking(turned)
    verdicts = decide(study, metrics)
    assert verdicts.level == pytest.approx(0.05 / 3)
    assert (verdicts.verdicts[0].verdict, verdicts.verdicts[0].seeds) == ("supported", 10)
    plain = decide(claiming(COMPARE, seeds=30), metrics).verdicts[0]
    assert (plain.verdict, plain.seeds) == ("refuted", 30)


def test_a_look_decides_at_its_own_level():
    """A p-value of .03 decides at alpha .05, and not at one of three looks."""
    study, metrics = looking(NOISE + 0.009)
    assert 0.05 / 3 < decide(study, metrics).verdicts[0].p < 0.05
    assert decide(study, metrics).verdicts[0].verdict == "undecided"
    assert decide(claiming(COMPARE, seeds=10), metrics).verdicts[0].verdict == "supported"


def test_stopping_waits_for_a_look_at_which_every_claim_is_decided():
    """Undecided at 10, decided at 20: no stop at 10, none between looks, a stop at 20, and one at the end anyhow."""
    study, metrics = looking(np.concatenate([NOISE, NOISE / 10 + 0.03, NOISE]))
    assert [should_stop(study, metrics, done) for done in (10, 19, 20, 30)] == [False, False, True, True]
    assert decide(study, metrics[metrics["seed"] < 20]).verdicts[0].seeds == 20
    clear, found = looking(np.tile(NOISE / 10 + 0.05, 3))
    assert [should_stop(clear, found, done) for done in (9, 10, 11, 20)] == [False, True, False, True]
    noise, never = looking(np.tile(NOISE, 3))
    assert [should_stop(noise, never, done) for done in (10, 20, 30)] == [False, False, True]


def test_without_looks_nothing_stops_early():
    """However clear the first block, a study without `stop` trains all its seeds."""
    _, metrics = looking(np.tile(NOISE / 10 + 0.05, 3))
    study = claiming(COMPARE, seeds=30)
    assert [should_stop(study, metrics, done) for done in (10, 20, 30)] == [False, False, True]


def test_power_curve_of_a_mean_is_that_of_the_t_test():
    """Resampled studies are decided as often as the noncentral t distribution says, give or take the pilot's shape."""
    pilot = scored(flat(one=0.8 + NOISE + 0.006, two=0.8))
    curve = power_curve(claiming(COMPARE), pilot, [10, 40, 160], replications=2000)
    effect = 0.006 / NOISE.std(ddof=1)
    for row in curve.to_dict("records"):
        power = statistics.mean_power(effect, row["seeds"], 0.05)
        assert row["supported"] == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / 2000) + 0.03)
        assert row["decided"] == pytest.approx(row["supported"] + row["refuted"])


def test_power_curve_of_a_small_pilot_keeps_its_spread():
    """Resampling four seeds would shrink their variance by a quarter; the curve puts it back."""
    values = np.array([0.01, -0.02, 0.03, 0.012])
    pilot = scored({arm: dict.fromkeys((1, 2), values if arm == "one" else 0 * values) for arm in ("one", "two")})
    (row,) = power_curve(claiming(COMPARE), pilot, [40], replications=4000).to_dict("records")
    power = statistics.mean_power(values.mean() / values.std(ddof=1), 40, 0.05)
    assert row["supported"] == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize(("side", "verdict"), [("above", "supported"), ("below", "refuted")])
def test_power_curve_takes_holm_over_the_family(side: str, verdict: str):
    """Beside a claim that is never decided, a claim is decided as often as at half of alpha, either way."""
    pilot = scored(flat(one=0.8 + NOISE + 0.008, two=0.8, three=0.8, four=0.8))
    claim = {**COMPARE, "above": None, side: "two"}
    curve = power_curve(claiming(claim, {**COMPARE, "arm": "three", "above": "four"}), pilot, [10], replications=4000)
    power = statistics.mean_power(0.008 / NOISE.std(ddof=1), 10, 0.05 / 2)
    assert curve[verdict][0] == pytest.approx(power, abs=0.04)
    assert statistics.mean_power(0.008 / NOISE.std(ddof=1), 10, 0.05) > power + 0.1


def test_power_curve_counts_the_seeds_that_break():
    """Where half of the pilot's seeds broke, twice as many are needed for the same."""
    ended = {(arm, 2): {"collapsed": range(5)} for arm in ("one", "two")}
    pilot = scored(flat(one=0.8 + NOISE + 0.008, two=0.8), ended)
    half = power_curve(claiming(COMPARE), pilot, [20], replications=4000)["decided"][0]
    effect = (NOISE[5:] + 0.008).mean() / NOISE[5:].std(ddof=1)
    assert half == pytest.approx(statistics.mean_power(effect, 10, 0.05), abs=0.06)


def test_power_curve_leaves_undecided_what_survivors_cannot_speak_for():
    """Where a third of one arm breaks, few seeds hide it and many tell; what is said of the intact alone stays."""
    pilot = scored(
        {arm: dict.fromkeys((1, 2), np.resize(NOISE, 30) / 10 + score) for arm, score in (("one", 0.9), ("two", 0.8))},
        {("one", 2): {"collapsed": range(10)}},
    )
    assert verdict_on(COMPARE, pilot, seeds=30).verdict == "undecided"
    curve = power_curve(claiming(COMPARE, seeds=30), pilot, [10, 30, 300], replications=4000)
    # Six broken seeds of one arm alone have p 2 / 2^6 = .031, and five .062.
    unseen = [stats.binom.cdf(5, seeds, 1 / 3) for seeds in (10, 30, 300)]
    assert curve["supported"].tolist() == pytest.approx(unseen, abs=0.02)
    assert curve["decided"].tolist() == curve["supported"].tolist()
    for spoken in (
        {**COMPARE, "among": "intact"},
        {"kind": "rate", "outcome": "collapsed", "arm": "one", "above": "two"},
    ):
        assert power_curve(claiming(spoken, seeds=30), pilot, [300])["decided"].tolist() == [1.0]


def test_power_curve_asks_outcomes_at_the_alpha_of_the_study_and_of_the_most_unlike_sides():
    """Looks divide the level of claims, not that of outcomes; of several sides the fewest and the most broken count."""
    values = {
        arm: dict.fromkeys((1, 2), np.resize(NOISE, 30) / 100 + 0.8 + place / 50) for place, arm in enumerate(ARMS)
    }
    pilot = scored(values, {("two", 2): {"collapsed": range(4)}, ("three", 2): {"collapsed": range(2, 12)}})
    order = {"kind": "ordered", "arms": ["one", "two", "three"], "metric": "test_accuracy", "direction": "up"}
    for changes in ({}, {"stop": {"looks": [10, 20]}}):
        curve = power_curve(claiming(order, seeds=30, **changes), pilot, [30], replications=4000)
        assert curve["decided"][0] == pytest.approx(stats.binom.cdf(5, 30, 1 / 3), abs=0.02)


def test_power_curve_knows_what_few_pairs_cannot_do():
    """However clear the pilot, three pairs are never enough for the sign-flip test."""
    pilot = scored(flat(one=0.9 + NOISE / 10, two=0.8))
    assert power_curve(claiming(COMPARE), pilot, [3, 4, 5])["supported"].tolist() == [0.0, 0.0, 1.0]


def test_power_curve_of_every_kind_grows():
    """For each kind of claim more seeds decide more, and with very many nearly all."""
    scores = flat(one=0.80 + 1.8 * NOISE, two=0.81 + np.roll(NOISE, 3), three=0.82 + np.roll(NOISE, 5), four=0.8)
    scores["one"][2] = scores["one"][1] + 0.005 + np.roll(NOISE, 2)
    pilot = scored(scores, {("four", 2): {"collapsed": [0]}})
    claims = [
        {**COMPARE, "above": None, "below": "three", "depth": "all"},
        {"kind": "trend", "arm": "one", "metric": "test_accuracy", "direction": "up"},
        {"kind": "ordered", "arms": ["one", "two", "three"], "metric": "test_accuracy", "direction": "up", "depth": 1},
        {"kind": "equivalent", "arm": "two", "metric": "test_accuracy", "to": "three", "within": 0.02},
        {"kind": "bound", "arm": "three", "metric": "test_accuracy", "at_most": 0.83},
        {"kind": "rate", "outcome": "collapsed", "arm": "one", "below": "four"},
        {"kind": "rate", "outcome": "collapsed", "arm": "four", "at_most": 0.2},
        {"kind": "ratio", "arm": "one", "metric": "test_accuracy", "to": "two", "above": 1.2},
    ]
    curve = power_curve(claiming(*claims), pilot, [10, 1000], replications=200)
    few, many = (curve[curve["seeds"] == seeds]["decided"].to_numpy() for seeds in (10, 1000))
    assert (many >= few).all()
    assert (many > 0.9).all(), many
    assert curve["decided"].between(0, 1).all()


def test_power_curve_of_a_pilot_that_says_nothing():
    """Where the pilot's seeds all diverged, nothing is ever decided."""
    pilot = scored(flat(one=0.8, two=0.8), {("one", 2): {"diverged": range(10)}, ("two", 2): {"diverged": range(10)}})
    assert power_curve(claiming(COMPARE), pilot, [10, 30])["decided"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("value", "printed"), [(0.99996, "1"), (1.0, "1"), (0.9999, ".9999"), (0.05, ".0500"), (0.00001, "< .0001")]
)
def test_p_values_in_words(value: float, printed: str):
    """Four decimals, without the zero before the point; what rounds to 1 is 1."""
    assert wording.p_value(value) == printed


def test_counts_in_words_stand_apart_from_depths():
    """A count that comes after a depth has a comma before it."""
    metrics = scored(flat(one=0.9 + NOISE / 10, two=0.8), {("one", 2): {"diverged": range(7)}})
    words = verdict_on(COMPARE, metrics).words
    assert "of 10 seeds of one at depth 2, 7 diverged and 0 collapsed" in words
    assert "7 of 10 seeds of one at depth 2 broke, and 0 of 10 of two at depth 2 (McNemar p .0156)" in words


def test_what_a_claim_compares_in_words_names_every_side():
    """Every shipped claim has a sentence with each of its arms in it."""
    for name in READY:
        study = load(name)
        for claim in (study.claims or {}).values():
            said = wording.sentence(study, claim)
            assert all(score.arm in said for side in sides(study, claim) for score in side), said
