"""Tests on seeds. Each docstring states the null under which its p-value keeps the level."""

from __future__ import annotations

from typing import Literal

import numpy as np

from layerwise.statistics.estimates import RANDOM_STATE, RESAMPLES, TIE

Alternative = Literal["two-sided", "greater", "less"]

EXACT_PAIRS = 13
"""Pairs up to which all 2^n signs are tried; that many are no more than the draws of the Monte-Carlo test."""


def sign_flip(differences: np.ndarray, alternative: Alternative = "two-sided") -> np.ndarray:
    """P-value of the paired sign-flip test for the mean (Fisher, 1935; Pitman, 1937), by scipy.

    Null: each difference is as likely to have the other sign, which holds where it is symmetric about zero; then
    the level is exact. Up to :data:`EXACT_PAIRS` pairs every combination of signs is tried, beyond that 9,999 fixed
    draws and the data themselves, so p is at least 1/10,000 (Phipson and Smyth, 2010).

    Args:
        differences: ``(..., seeds)``, finite; one test along the last axis.
        alternative: ``"greater"`` if the mean is claimed to be above zero.

    Returns:
        ``(...)`` p-values. The smallest possible one-sided p of n pairs is 1 / 2^n.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import sign_flip
        >>> float(sign_flip(np.array([0.1, 0.2, 0.3]), "greater"))
        0.125
    """
    from scipy import stats

    pairs = differences.shape[-1]
    return np.asarray(
        stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            axis=-1,
            n_resamples=2**pairs if pairs <= EXACT_PAIRS else RESAMPLES,
            alternative=alternative,
            rng=np.random.default_rng(RANDOM_STATE),
        ).pvalue
    )


def wilcoxon(differences: np.ndarray, alternative: Alternative = "two-sided") -> float:
    """P-value of Wilcoxon's signed-rank test (Wilcoxon, 1945).

    Null: the differences are symmetric about zero. Zeros are dropped; if nothing is left, p is 1. Without ties it is
    :func:`scipy.stats.wilcoxon`'s, exact up to 50 pairs. Ties share their mean rank, and the test is then the sign-flip
    test of the signed ranks, which is what its exact distribution means.

    Args:
        differences: ``(seeds,)``, finite.
        alternative: ``"greater"`` if the differences are claimed to lie above zero.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import wilcoxon
        >>> wilcoxon(np.array([1.0, 2.0, 3.0]), "greater")
        0.125
    """
    from scipy import stats

    nonzero = differences[np.abs(differences) > TIE]
    ranks = stats.rankdata(np.round(np.abs(nonzero) / TIE))
    if not len(nonzero):
        return 1.0
    if len(np.unique(ranks)) < len(ranks):
        return float(sign_flip(np.sign(nonzero) * ranks, alternative))
    return float(stats.wilcoxon(nonzero, alternative=alternative).pvalue)


def mcnemar(first: np.ndarray, second: np.ndarray, alternative: Alternative = "two-sided") -> float:
    """P-value of McNemar's exact test: do two arms differ in how many of the same seeds have an outcome?

    Null: of the seeds that have it in one arm only, each is as likely to have it in either (McNemar, 1947), a
    binomial test on those seeds. Where there are none, p is 1.

    Args:
        first: ``(seeds,)`` bool, the outcome in one arm.
        second: ``(seeds,)`` bool, that of the same seeds in the other.
        alternative: ``"greater"`` if it is claimed to be more frequent in the first.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import mcnemar
        >>> mcnemar(np.array([True] * 5), np.array([False] * 5))
        0.0625
    """
    from scipy import stats

    # statsmodels' test has two sides only, and a claim is of one.
    only_first, only_second = np.count_nonzero(first & ~second), np.count_nonzero(second & ~first)
    discordant = int(only_first + only_second)
    return float(stats.binomtest(int(only_first), discordant, alternative=alternative).pvalue) if discordant else 1.0


def exact_rate(count: int, seeds: int, rate: float, alternative: Alternative) -> float:
    """P-value of the exact binomial test that an outcome's rate is ``rate`` (Clopper and Pearson, 1934).

    Args:
        count: seeds that have the outcome.
        seeds: how many there are, at least one.
        rate: of the null, in 0..1.
        alternative: ``"less"`` if the rate is claimed to be lower.

    Example:
        >>> from layerwise.statistics import exact_rate
        >>> round(exact_rate(0, 30, 0.1, "less"), 4)
        0.0424
    """
    from scipy import stats

    return float(stats.binomtest(count, seeds, rate, alternative=alternative).pvalue)


def equivalence(differences: np.ndarray, margin: float) -> np.ndarray:
    """P-value of two one-sided t-tests that the mean lies within the margin (TOST; Schuirmann, 1987).

    Null: the mean is at least ``margin`` away from zero, and the differences are normal. It is below alpha just
    where the t interval of level 1 - 2 alpha lies within the margin.

    Args:
        differences: ``(..., seeds)``, finite; one test along the last axis.
        margin: above zero, in the unit of the differences.

    Returns:
        ``(...)`` p-values; 1 for fewer than two seeds.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import equivalence
        >>> float(equivalence(np.array([0.01, -0.01, 0.02, -0.02]), 0.05).round(4))
        0.006
    """
    return np.maximum(mean_test(differences + margin, "greater"), mean_test(differences - margin, "less"))


def difference_beyond(differences: np.ndarray, margin: float) -> np.ndarray:
    """P-value of the opposite of :func:`equivalence`: that the mean lies beyond the margin, on either side.

    Null: the mean is within the margin, and the differences are normal. Twice the smaller of the two one-sided
    t-tests' p-values, at most 1.

    Args:
        differences: ``(..., seeds)``, finite; one test along the last axis.
        margin: above zero, in the unit of the differences.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import difference_beyond
        >>> float(difference_beyond(np.array([0.11, 0.09, 0.12, 0.08]), 0.05).round(4))
        0.012
    """
    beyond = np.minimum(mean_test(differences - margin, "greater"), mean_test(differences + margin, "less"))
    return np.minimum(1.0, 2 * beyond)


def mean_test(values: np.ndarray, alternative: Literal["greater", "less"]) -> np.ndarray:
    """P-value of the one-sided t-test that the mean is zero (Gosset, 1908), by statsmodels.

    Null: normal values with mean zero. Values without any spread decide for certain. (scipy's test warns of values
    that hardly differ, as scores of small test parts often do.)

    Args:
        values: ``(..., seeds)``, finite; one test along the last axis.
        alternative: ``"greater"`` if the mean is claimed to be above zero.

    Returns:
        ``(...)`` p-values; 1 for fewer than two seeds.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import mean_test
        >>> float(mean_test(np.array([1.0, 2.0, 3.0]), "greater").round(4))
        0.0371
    """
    from statsmodels.stats.weightstats import DescrStatsW

    seeds = values.shape[-1]
    if seeds < 2:
        return np.ones(values.shape[:-1])
    samples = DescrStatsW(values.reshape(-1, seeds).T)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, p, _ = samples.ttest_mean(0.0, "larger" if alternative == "greater" else "smaller")
    return np.where(np.isnan(p), 1.0, p).reshape(values.shape[:-1])


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values of Holm's step-down procedure (Holm, 1979).

    Rejecting where they are at most alpha keeps the chance of any false rejection in the family at alpha, however
    the tests depend on one another.

    Args:
        p_values: ``(..., tests)`` in 0..1, a family along the last axis.

    Returns:
        The same shape, in the same order.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import holm
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    # statsmodels' multipletests takes one family at a time, and collects garbage in each call; calibration and power
    # curves have thousands of families.
    order = np.argsort(p_values, axis=-1, kind="stable")
    tests = p_values.shape[-1]
    stepped = np.take_along_axis(p_values, order, axis=-1) * np.arange(tests, 0, -1)
    stepped = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted
