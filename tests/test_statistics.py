"""Statistics over seeds, against closed forms and published worked examples."""

from __future__ import annotations

import doctest
import itertools
import math
import pkgutil
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

import layerwise.statistics
from layerwise.statistics import (
    MOST_NAMED,
    bootstrap_interval,
    describe,
    difference_beyond,
    effect_size,
    equivalence,
    equivalence_power,
    exact_rate,
    fewest_seeds,
    holm,
    in_words,
    interquartile_mean,
    mcnemar,
    mcnemar_power,
    mean_power,
    mean_test,
    ordered_power,
    ordered_trend,
    paired_change,
    pairing_correlation,
    probability_above,
    rate_difference,
    rate_power,
    sd_ratio,
    sd_ratio_interval,
    sd_ratio_power,
    sd_ratio_test,
    share,
    sign_flip,
    slopes,
    summarise,
    t_interval,
    wilcoxon,
)

SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
"""Hours of sleep gained by ten patients, second drug minus first: Student (1908), "The probable error of a mean"."""

DARWIN = np.array([49.0, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
"""Crossed minus self-fertilised maize, eighths of an inch: Fisher, "The Design of Experiments" (1935), section 17."""


def metrics(values, diverged=None) -> pd.DataFrame:
    count = len(values)
    return pd.DataFrame({
        "arm": "greedy", "seed": range(count), "depth": 1, "diverged": diverged or [False] * count,
        "test_accuracy": values,
    })  # fmt: skip


def test_summary_of_known_numbers():
    """Mean, sd with ddof 1, median and the t interval of 1, 2, 3, 4 are the textbook's."""
    row = summarise(metrics([1.0, 2.0, 3.0, 4.0])).iloc[0]
    assert row["test_accuracy_mean"] == 2.5
    assert row["test_accuracy_sd"] == pytest.approx(np.sqrt(5 / 3))
    assert row["test_accuracy_median"] == 2.5
    assert row["test_accuracy_ci_high"] - 2.5 == pytest.approx(3.182446305284263 * np.sqrt(5 / 3) / 2)
    assert (row["layers"], row["seeds"], row["diverged"]) == (2, 4, 0)


def test_diverged_seeds_are_counted_and_not_averaged():
    """The mean is over intact seeds, the median over every finite value, and the count says how many diverged."""
    row = summarise(metrics([0.8, 0.9, 0.1, np.nan], [False, False, True, True])).iloc[0]
    assert row["test_accuracy_mean"] == pytest.approx(0.85)
    assert row["test_accuracy_median"] == pytest.approx(0.8)
    assert (row["seeds"], row["diverged"]) == (4, 2)


def test_one_seed_has_no_spread_and_none_no_mean():
    """What cannot be estimated is NaN, without a warning."""
    row = summarise(metrics([0.8])).iloc[0]
    assert row["test_accuracy_mean"] == 0.8
    assert np.isnan([row["test_accuracy_sd"], row["test_accuracy_ci_low"]]).all()
    assert np.isnan(summarise(metrics([0.8], [True])).iloc[0]["test_accuracy_mean"])


def test_t_interval_is_scipys():
    """The interval is scipy's for the same sample."""
    values = np.random.default_rng(0).normal(size=30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))


def test_paired_change_is_within_seeds():
    """The change is the mean of each seed's own difference, over seeds intact at both depths."""
    low = metrics([0.5, 0.6, 0.7, 0.9])
    high = metrics([0.6, 0.7, 0.8, 0.1], [False, False, False, True]).assign(depth=3)
    change = paired_change(pd.concat([low, high]), "test_accuracy", arm="greedy")
    assert (change.low_depth, change.high_depth, change.seeds) == (1, 3, 3)
    assert change.mean == pytest.approx(0.1)
    assert change.ci_low == pytest.approx(0.1)


@pytest.mark.parametrize("module", [found.name for found in pkgutil.iter_modules(layerwise.statistics.__path__)])
def test_every_example_prints_what_it_says(module: str):
    """The examples in the docstrings are true."""
    assert not doctest.testmod(import_module(f"layerwise.statistics.{module}")).failed


def test_students_own_example():
    """Mean, sd and t interval of Student's sleep data are those that R prints for them (t.test, paired)."""
    found = describe(SLEEP)
    assert (found.seeds, found.mean) == (10, pytest.approx(1.58))
    assert found.sd == pytest.approx(1.229995, abs=1e-6)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert 2 * float(mean_test(SLEEP, "greater")) == pytest.approx(0.002833, abs=1e-6)


def test_interquartile_mean_of_a_published_example():
    """Of 5 8 4 38 8 6 9 7 7 3 1 6 a quarter is cut off at either end, which leaves 6.5 (Wikipedia)."""
    assert interquartile_mean(np.array([5.0, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6])) == 6.5


def test_bootstrap_interval_is_the_same_at_every_call_and_holds_pairs_together():
    """The bootstrap draws the same seeds each time, and resamples paired arms as pairs."""
    assert bootstrap_interval(SLEEP) == bootstrap_interval(SLEEP)
    low, high = bootstrap_interval(SLEEP)
    assert 0.7 < low < 1.58 < high < 2.8
    twice = bootstrap_interval(SLEEP, 2 * SLEEP + 1, statistic=lambda a, b, axis: b.mean(axis) - 2 * a.mean(axis))
    assert twice == pytest.approx((1.0, 1.0))


def test_bootstrap_of_a_skewed_sample_leans_to_its_tail():
    """BCa is not symmetric about the mean: the long tail gets the longer half."""
    skewed = np.exp(stats.norm.ppf((np.arange(30) + 0.5) / 30))
    low, high = bootstrap_interval(skewed)
    assert high - skewed.mean() > 1.2 * (skewed.mean() - low)


@pytest.mark.parametrize(
    ("count", "seeds", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_newcombes(count, seeds, low, high):
    """The interval of a share is that of Newcombe (1998), table I, method 3."""
    found = share(count, seeds)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_wilson_interval_is_scipys(count):
    """The interval of a share, at any level, is the one that scipy computes for itself."""
    for confidence in (0.9, 0.95, 0.99):
        found, expected = share(count, 20, confidence), stats.binomtest(count, 20).proportion_ci(confidence, "wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_probability_above_counts_ties_half():
    """P(A > B) is the share of seeds on which A is ahead, and half of those that tie."""
    found = probability_above(np.array([0.2, 0.1, 0.0, -0.1]))
    assert found.estimate == 0.625
    assert found == share(2.5, 4)
    assert probability_above(np.array([0.1 + 0.2 - 0.3, 0.3 - 0.1 - 0.2])).estimate == 0.5
    assert np.isnan(probability_above(np.array([])).low)


@pytest.mark.parametrize(("freedom", "factor"), [(2, 0.5642), (3, 0.7236), (4, 0.7979), (5, 0.8408), (9, 0.9139)])
def test_effect_size_has_hedges_factor(freedom, factor):
    """The correction for small samples is that of Hedges (1981), table 1."""
    values = np.arange(freedom + 1.0)
    assert effect_size(values) / (values.mean() / values.std(ddof=1)) == pytest.approx(factor, abs=5e-4)


def test_effect_size_of_the_sleep_data():
    """Cohen's d_z of the sleep data is t / sqrt(n) = 4.0621 / sqrt(10), before the correction."""
    assert effect_size(SLEEP) == pytest.approx(4.0621 / math.sqrt(10) * 0.9139, abs=1e-3)
    assert np.isnan(effect_size(np.array([1.0, 1.0, 1.0])))


def test_pairing_correlation_is_what_pairing_bought():
    """The variance of the difference is that of unpaired arms less twice the covariance."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=50)
    second = 0.8 * first + 0.6 * rng.normal(size=50)
    shared = 2 * pairing_correlation(first, second) * first.std(ddof=1) * second.std(ddof=1)
    assert (first - second).var(ddof=1) == pytest.approx(first.var(ddof=1) + second.var(ddof=1) - shared)


def test_sign_flip_is_fishers():
    """Of the 32,768 signs of Darwin's 15 pairs 1,726 are as extreme (Fisher, 1935, section 21); here by 9,999 draws."""
    exact = 1726 / 2**15
    assert float(sign_flip(DARWIN)) == pytest.approx(exact, abs=4 * math.sqrt(exact / 9_999))


def test_sign_flip_tries_every_sign_of_few_pairs():
    """For few pairs the p-value is the share of all signs that give as large a mean, counted one by one."""
    pairs = DARWIN[:8]
    means = [float(np.mean(pairs * signs)) for signs in itertools.product((1, -1), repeat=8)]
    assert float(sign_flip(pairs, "greater")) == sum(mean >= pairs.mean() - 1e-9 for mean in means) / 2**8
    assert float(sign_flip(pairs, "less")) == sum(mean <= pairs.mean() + 1e-9 for mean in means) / 2**8


def test_sign_flip_cannot_decide_three_pairs():
    """The smallest p of three pairs is 1/8 on one side and 1/4 on both."""
    pairs = np.array([0.1, 0.2, 0.3])
    assert (float(sign_flip(pairs, "greater")), float(sign_flip(pairs))) == (0.125, 0.25)


def test_sign_flip_of_many_pairs_is_never_zero_and_never_changes():
    """Drawn signs count the data themselves, so the smallest p is 1/10,000, the same at every call."""
    pairs = np.ones(30)
    assert float(sign_flip(pairs, "greater")) == 1 / 10_000
    noisy = np.random.default_rng(0).normal(0.3, 1, size=(2, 20))
    assert (sign_flip(noisy) == sign_flip(noisy)).all()
    assert sign_flip(noisy).shape == (2,)


def test_wilcoxon_of_a_published_example():
    """Hollander and Wolfe (1973), p. 29: depression in nine patients, V = 40, one-sided p = .0195."""
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert wilcoxon(before - after, "greater") == pytest.approx(0.01953, abs=5e-6)
    assert wilcoxon(np.zeros(4)) == 1.0


def test_wilcoxon_with_ties_counts_every_sign():
    """Tied differences share their mean rank, and the p-value is the share of all signs that give as large a sum."""
    differences = np.array([0.002, 0.002, -0.002, 0.004, 0.3 - 0.296, 0.006, 0.0])
    ranks = np.array([2.0, 2, -2, 4.5, 4.5, 6])
    sums = [abs(ranks) @ signs for signs in itertools.product((1, -1), repeat=6)]
    assert wilcoxon(differences, "greater") == sum(total >= ranks.sum() for total in sums) / 2**6


def test_mcnemar_of_a_published_example():
    """Rosner, "Fundamentals of Biostatistics": of 8 discordant patients 7 fall one way, exact p = .070."""
    first = np.array([True] * 7 + [False] * 1 + [True] * 3 + [False] * 9)
    second = np.array([False] * 7 + [True] * 1 + [True] * 3 + [False] * 9)
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(first, second, "greater") == pytest.approx((1 + 8) / 2**8)
    assert mcnemar(first, first) == 1.0


def test_mcnemar_is_statsmodels():
    """With two sides the p-value is that of statsmodels, for every division of twelve seeds."""
    for only_first, only_second in itertools.product(range(7), repeat=2):
        first = np.array([True] * only_first + [False] * (12 - only_first))
        second = np.roll(np.array([True] * only_second + [False] * (12 - only_second)), only_first)
        expected = statsmodels_mcnemar([[0, only_first], [only_second, 12 - only_first - only_second]]).pvalue
        assert mcnemar(first, second) == pytest.approx(expected)


def test_exact_rate_is_binomial():
    """That none of 30 seeds has an outcome of rate .1 has probability .9^30."""
    assert exact_rate(0, 30, 0.1, "less") == pytest.approx(0.9**30)
    assert exact_rate(30, 30, 0.9, "greater") == pytest.approx(0.9**30)


def test_equivalence_of_a_published_example():
    """The sleep data within half an hour: t(9) = 2.777, p = .989 (Caldwell, TOSTER, "Introduction to t_TOST")."""
    assert float(equivalence(SLEEP, 0.5)) == pytest.approx(0.989, abs=5e-4)


def test_equivalence_is_statsmodels():
    """Two one-sided tests of paired arms have the p-value that statsmodels gives."""
    first, second = np.random.default_rng(7).normal(size=(2, 20))
    for margin in (0.2, 0.5, 1.0):
        assert float(equivalence(first - second, margin)) == pytest.approx(
            float(ttost_paired(first, second, -margin, margin)[0])
        )


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_equivalence_is_shown_where_the_interval_lies_within_the_margin(alpha):
    """The p-value is alpha where the limit of the t interval of level 1 - 2 alpha touches the margin."""
    low, high = t_interval(SLEEP - 1.5, 1 - 2 * alpha)
    assert float(equivalence(SLEEP - 1.5, max(-low, high))) == pytest.approx(alpha)


def test_difference_beyond_is_the_other_side():
    """Far outside the margin the difference is shown, and equivalence is not; inside it is the other way round."""
    assert float(difference_beyond(SLEEP, 0.5)) == pytest.approx(2 * stats.t.sf((1.58 - 0.5) / 0.3889, 9), rel=1e-3)
    assert float(difference_beyond(SLEEP, 2.0)) == 1.0


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_sided_tests_of_means_are_scipys(side):
    """Many samples tested at once have the p-values that scipy's t-test gives each."""
    samples = np.random.default_rng(8).normal(0.2, 1, size=(3, 4, 12))
    assert mean_test(samples, side) == pytest.approx(stats.ttest_1samp(samples, 0, axis=-1, alternative=side).pvalue)


def test_values_that_hardly_differ_are_tested_without_a_warning():
    """Scores that are equal up to rounding decide as equal ones do."""
    values = np.array([0.1 + 0.2, 0.3, 0.3, 0.3])
    assert float(mean_test(values, "greater")) == pytest.approx(0.0, abs=1e-12)
    assert t_interval(values) == pytest.approx((0.3, 0.3))


def test_values_without_spread_decide():
    """Where every seed gives the same value, a test of the mean is certain, and of a mean of zero undecided."""
    same = np.full(5, 0.1)
    assert (float(mean_test(same, "greater")), float(mean_test(same, "less"))) == (0.0, 1.0)
    assert float(mean_test(np.zeros(5), "greater")) == 1.0
    assert float(equivalence(np.zeros(5), 0.01)) == 0.0
    assert float(mean_test(np.array([0.3]), "greater")) == 1.0


def test_holm_of_a_published_example():
    """Of .01, .04, .03, .005 Holm rejects the first and the last at .05 (Wikipedia, "Holm-Bonferroni method")."""
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert (holm(np.array([[0.01, 0.04, 0.03, 0.005], [1.0, 0.9, 0.8, 0.7]]))[1] == 1.0).all()


def test_holm_is_statsmodels():
    """Each of many families, ties and ones among them, has the adjusted p-values that statsmodels gives it alone."""
    families = np.random.default_rng(9).uniform(size=(50, 6)) ** 3
    families[:10, :2], families[5] = 0.01, 1.0
    expected = [multipletests(family, method="holm")[1] for family in families]
    assert holm(families) == pytest.approx(np.array(expected))


def test_slopes_are_least_squares():
    """Each seed's slope is that of numpy's straight line."""
    scores, depths = np.random.default_rng(2).normal(size=(4, 6)), np.array([1, 2, 3, 5, 8, 9])
    assert slopes(scores, depths) == pytest.approx(np.polyfit(depths, scores.T, 1)[0])


@pytest.mark.parametrize(("seeds", "critical"), [(3, 41), (4, 54), (5, 66), (6, 79), (8, 104)])
def test_pages_critical_values(seeds, critical):
    """L reaches .05 just at the values of Page (1963), table 2, for three columns."""

    def p_of(statistic: int) -> float:
        orders = {14: [1, 2, 3], 13: [2, 1, 3], 11: [3, 1, 2], 10: [3, 2, 1]}
        rows = next(
            chosen for chosen in itertools.combinations_with_replacement(orders, seeds) if sum(chosen) == statistic
        )
        found = ordered_trend(np.array([orders[row] for row in rows], dtype=float))
        assert found.statistic == statistic
        return found.p

    assert p_of(critical) <= 0.05 < p_of(critical - 1)


def test_ordered_trend_counts_every_order():
    """The p-value of two seeds and three columns is a share of all 36 pairs of orders."""
    rows = list(itertools.permutations([1.0, 2.0, 3.0]))
    statistic = [np.arange(1, 4) @ (np.array(a) + b) for a, b in itertools.product(rows, repeat=2)]
    found = ordered_trend(np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]))
    assert found.p == pytest.approx(np.mean(np.array(statistic) >= found.statistic))
    assert found.correlations == pytest.approx([1.0, 0.5])


def test_sd_ratio_test_is_the_correlation_of_sum_and_difference():
    """Pitman's definition: the sds are equal where sum and difference of the pairs are uncorrelated."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 25))
    first = 2 * first + second
    found = stats.pearsonr(first / 1.5 + second, first / 1.5 - second, alternative="greater")
    assert float(sd_ratio_test(first, second, 1.5, "greater")) == pytest.approx(found.pvalue)
    assert float(sd_ratio_test(first, second, 1.5, "less")) == pytest.approx(1 - found.pvalue)


def test_sd_ratio_interval_ends_where_the_test_rejects():
    """At either limit of the 95 % interval the one-sided test has p = .025."""
    first, second = np.random.default_rng(4).normal(size=(2, 25))
    low, high = sd_ratio_interval(first, second)
    assert low < sd_ratio(first, second) < high
    assert float(sd_ratio_test(first, second, low, "greater")) == pytest.approx(0.025)
    assert float(sd_ratio_test(first, second, high, "less")) == pytest.approx(0.025)


def test_sd_ratio_needs_three_seeds_and_some_spread():
    """What cannot be estimated is NaN, and a test of it gives 1, without a warning."""
    pair, same = np.array([1.0, 2.0]), np.full(4, 0.5)
    assert np.isnan(sd_ratio_interval(pair, pair)).all()
    assert float(sd_ratio_test(pair, pair, 1.0, "greater")) == 1.0
    assert np.isnan(sd_ratio(np.arange(4.0), same))
    assert float(sd_ratio_test(np.arange(4.0), same, 2.0, "greater")) == 1.0


def test_an_arm_without_spread_has_no_ratio_to_test():
    """Where either arm gives the same value on every seed, neither direction is decided."""
    same, varied = np.full(4, 0.5), np.arange(4.0)
    assert float(sd_ratio_test(same, varied, 2.0, "less")) == 1.0


def test_rate_difference_of_a_published_example():
    """The airways of 21 children (Bentur et al., 2009), on which Fagerland et al. (2014) show this interval."""
    before = np.array([True] * 2 + [False] * 19)
    after = np.array([True] + [False] + [True] * 7 + [False] * 12)
    found = rate_difference(before, after)
    assert found.estimate == pytest.approx(-6 / 21)
    assert (found.low, found.high) == pytest.approx((-0.508, -0.013), abs=1e-3)
    assert np.isnan(rate_difference(before[:0], after[:0]).estimate)


@pytest.mark.parametrize(("effect", "level", "seeds"), [(0.2, 0.05, 156), (0.5, 0.05, 27), (0.5, 0.025, 34),
                                                        (0.8, 0.025, 15), (0.8, 0.05, 12)])  # fmt: skip
def test_seeds_for_a_mean_are_those_of_the_tables(effect, level, seeds):
    """Pairs for power .8 are those of G*Power 3 for the matched-pairs t-test (Faul et al., 2007)."""
    assert fewest_seeds(lambda count: mean_power(effect, count, level)) == seeds


@pytest.mark.parametrize("effect", [0.05, 0.3, 1.0, 2.5])
def test_seeds_for_a_mean_are_where_statsmodels_solves_for_them(effect):
    """The fewest whole pairs are those just above the root of the power equation."""
    root = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8, alternative="larger")
    assert fewest_seeds(lambda count: mean_power(effect, count, 0.05)) == math.ceil(root)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 10), (-0.3, 25), (1.5, 6), (0.02, 20_000), (3.0, 1_000)])
def test_power_of_a_mean_is_noncentral(effect, seeds):
    """The power is the chance that a noncentral t lies beyond the critical value, far out and for many seeds too."""
    critical, shift = stats.t.isf(0.05, seeds - 1), effect * math.sqrt(seeds)
    # A noncentral t is a shifted normal value over a chi, and that is integrated here.
    spread = np.linspace(*stats.chi.ppf([1e-12, 1 - 1e-12], seeds - 1), 20_001)
    beyond = stats.norm.sf(critical * spread / math.sqrt(seeds - 1) - shift) * stats.chi.pdf(spread, seeds - 1)
    assert mean_power(effect, seeds, 0.05) == pytest.approx(np.trapezoid(beyond, spread), abs=1e-6)


def test_seeds_for_no_effect_are_not_named():
    """Where there is nothing to find, no number of seeds is promised."""
    assert fewest_seeds(lambda count: mean_power(0.0, count, 0.05)) is None
    assert fewest_seeds(lambda count: mean_power(0.01, count, 0.05)) == pytest.approx(61_826, abs=5)


@pytest.mark.parametrize("wanted", [2, 3, 65_536, 65_537, 80_000, 100_000])
def test_seeds_are_named_up_to_the_most(wanted: int):
    """Up to 100,000 the fewest seeds are found, and beyond there is no number."""
    assert fewest_seeds(lambda count: float(count >= wanted)) == wanted
    assert fewest_seeds(lambda count: float(count >= MOST_NAMED + 1)) is None


def test_power_is_the_share_of_simulated_tests_that_decide():
    """Each power agrees with 4,000 simulated tests of that truth, within four Monte-Carlo standard errors and .02."""
    rng, runs, level = np.random.default_rng(5), 4000, 0.05
    normal = rng.normal(size=(runs, 20))
    near = {
        mean_power(0.5, 20, level): mean_test(normal + 0.5, "greater"),
        equivalence_power(0.1, 1.0, 0.8, 20, level): equivalence(normal + 0.1, 0.8),
        sd_ratio_power(1.7, 0.0, 20, level): sd_ratio_test(1.7 * normal, rng.normal(size=(runs, 20)), 1.0, "greater"),
    }
    for power, p_values in near.items():
        assert np.mean(p_values <= level) == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / runs) + 0.02)


def test_power_of_counts_is_exact():
    """The powers of McNemar's and the binomial test are sums over every possible count."""
    total = 0.0
    for first, second in itertools.product(range(13), repeat=2):
        if first + second <= 12:
            neither = 12 - first - second
            ways = math.factorial(12) // (math.factorial(first) * math.factorial(second) * math.factorial(neither))
            only = np.array([True] * first + [False] * (12 - first))
            other = np.array([False] * first + [True] * second + [False] * neither)
            total += ways * 0.6**first * 0.1**second * 0.3**neither * (mcnemar(only, other, "greater") <= 0.05)
    assert mcnemar_power(0.6, 0.1, 12, 0.05) == pytest.approx(total)
    decided = [exact_rate(count, 12, 0.5, "greater") <= 0.05 for count in range(13)]
    assert rate_power(0.8, 0.5, 12, 0.05) == pytest.approx(stats.binom.pmf(np.arange(13), 12, 0.8) @ decided)
    assert rate_power(0.2, 0.5, 12, 0.05) == pytest.approx(rate_power(0.8, 0.5, 12, 0.05))


def test_power_of_an_order_is_simulated():
    """Page's power agrees with simulated seeds of a noisy order."""
    rng, runs = np.random.default_rng(6), 300
    scores = rng.normal(size=(runs, 15, 4)) + 0.25 * np.arange(4)
    found = [ordered_trend(own) for own in scores]
    correlations = np.concatenate([own.correlations for own in found])
    power = ordered_power(correlations.mean(), correlations.std(), 4, 15, 0.05)
    assert np.mean([own.p <= 0.05 for own in found]) == pytest.approx(power, abs=4 * math.sqrt(0.25 / runs))


def test_the_answer_says_how_the_seeds_ended_that_are_left_out():
    """A change over three of four seeds names the fourth's end, and McNemar's test of it; over all seeds, nothing."""
    rows = [
        {"arm": "raw", "seed": seed, "depth": depth, "diverged": False, "collapsed": depth == 2 and seed == 3,
         "train_accuracy": 0.8, "test_accuracy": 0.7 + depth / 100}
        for depth in (1, 2) for seed in range(4)
    ]  # fmt: skip
    (told,) = in_words(pd.DataFrame(rows))
    assert told.endswith(
        "paired over 3 seeds of 4; at depth 2 0 diverged and 1 collapsed (McNemar against depth 1: p 1.0000)."
    )
    (whole,) = in_words(pd.DataFrame(rows[:3] + rows[4:7]))
    assert whole.endswith("paired over 3 seeds.")
