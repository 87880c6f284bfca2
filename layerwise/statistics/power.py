"""How many seeds a test needs, if the truth is what was seen.

Every function gives the power of a one-sided test: the probability that its p-value is at most ``level``. An effect
that was estimated from few seeds is itself uncertain, so these are orders of magnitude, not promises. Of these tests
statsmodels has the power of the t-test alone; it solves for its seeds, but not for those of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

POWER = 0.8
"""Probability of a decision that is asked for (Cohen, 1988)."""

MOST_NAMED = 100_000
"""Seeds beyond which no number is named."""


def fewest_seeds(power: Callable[[int], float], wanted: float = POWER) -> int | None:
    """The smallest number of seeds at which a test has the power that is wanted; ``None`` beyond 100,000.

    Args:
        power: the power at a number of seeds, which grows with it.
        wanted: probability of a decision, in 0..1.

    Example:
        >>> from layerwise.statistics import fewest_seeds, mean_power
        >>> fewest_seeds(lambda seeds: mean_power(0.5, seeds, 0.05))
        27
    """
    low, high = 1, 2
    while not power(high) >= wanted:
        if high == MOST_NAMED:
            return None
        low, high = high, min(2 * high, MOST_NAMED)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return high


def mean_power(effect: float, seeds: int, level: float) -> float:
    """Power of the one-sided one-sample t-test, by statsmodels; it serves for the sign-flip test too.

    Args:
        effect: true mean / true sd, in the direction that is claimed.
        seeds: how many.
        level: of the test, in 0..1.

    Example:
        >>> from layerwise.statistics import mean_power
        >>> round(mean_power(0.5, 27, 0.05), 3)
        0.812
    """
    from statsmodels.stats.power import ttest_power

    return float(ttest_power(effect, seeds, level, alternative="larger")) if seeds > 1 else 0.0


def equivalence_power(mean: float, sd: float, margin: float, seeds: int, level: float) -> float:
    """Power of two one-sided t-tests, bounded from below by that of either less what the other may miss.

    Args:
        mean: true mean difference.
        sd: true standard deviation of the differences, above zero.
        margin: of the equivalence.
        seeds: how many.
        level: of either test, in 0..1.

    Example:
        >>> from layerwise.statistics import equivalence_power
        >>> round(equivalence_power(0.0, 1.0, 0.5, 36, 0.05), 3)
        0.805
    """
    missed = 2 - sum(mean_power((margin + side * mean) / sd, seeds, level) for side in (1, -1))
    return max(0.0, 1.0 - missed)


def mcnemar_power(more: float, fewer: float, seeds: int, level: float) -> float:
    """Power of the one-sided exact McNemar test.

    Args:
        more: share of seeds with the outcome on the side alone that is claimed to have it more often.
        fewer: share of seeds with the outcome on the other side alone.
        seeds: how many.
        level: of the test, in 0..1.

    Example:
        >>> from layerwise.statistics import mcnemar_power
        >>> round(mcnemar_power(0.5, 0.0, 5, 0.05), 4)
        0.0312
    """
    from scipy import stats

    if more + fewer == 0:
        return 0.0
    discordant = np.arange(seeds + 1)
    needed = stats.binom.isf(level, discordant, 0.5) + 1
    decided = stats.binom.sf(needed - 1, discordant, more / (more + fewer))
    return float(stats.binom.pmf(discordant, seeds, min(1.0, more + fewer)) @ decided)


def rate_power(rate: float, bound: float, seeds: int, level: float) -> float:
    """Power of the one-sided exact binomial test, on the side of the bound on which the rate lies.

    Args:
        rate: the true rate, in 0..1.
        bound: the rate it is tested against.
        seeds: how many.
        level: of the test, in 0..1.

    Example:
        >>> from layerwise.statistics import rate_power
        >>> rate_power(0.0, 0.1, 29, 0.05), rate_power(0.0, 0.1, 28, 0.05)
        (1.0, 0.0)
    """
    from scipy import stats

    if rate < bound:
        return rate_power(1 - rate, 1 - bound, seeds, level)
    needed = stats.binom.isf(level, seeds, bound) + 1
    return float(stats.binom.sf(needed - 1, seeds, rate))


def sd_ratio_power(ratio: float, correlation: float, seeds: int, level: float) -> float:
    """Power of the one-sided Pitman-Morgan test, by Fisher's z of the correlation of sum and difference.

    Args:
        ratio: true ratio of the sds / the ratio it is tested against, above 1 in the direction that is claimed.
        correlation: of the two arms over seeds.
        seeds: how many.
        level: of the test, in 0..1.

    Example:
        >>> from layerwise.statistics import sd_ratio_power
        >>> round(sd_ratio_power(2.0, 0.0, 15, 0.05), 2)
        0.78
    """
    from scipy import stats

    if seeds < 4:
        return 0.0
    squared = ratio**2
    between = (squared - 1) / np.sqrt((squared + 1) ** 2 - 4 * squared * correlation**2)
    shift = np.arctanh(min(between, 1 - 1e-12)) * np.sqrt(seeds - 3)
    return float(stats.norm.sf(stats.norm.isf(level) - shift))


def ordered_power(correlation: float, sd: float, columns: int, seeds: int, level: float) -> float:
    """Power of Page's trend test, by the normal distribution of its statistic.

    Args:
        correlation: true mean of the seeds' rank correlations with the order, positive as claimed.
        sd: their true standard deviation.
        columns: how many are ordered.
        seeds: how many.
        level: of the test, in 0..1.

    Example:
        >>> from layerwise.statistics import ordered_power
        >>> round(ordered_power(0.3, 0.5, 4, 25, 0.05), 2)
        0.86
    """
    from scipy import stats

    # Under the null one seed's rank correlation has mean 0 and variance 1 / (columns - 1).
    scale = np.sqrt(columns - 1)
    distance = correlation * scale * np.sqrt(seeds) - stats.norm.isf(level)
    return float(distance > 0) if sd == 0 else float(stats.norm.cdf(distance / (sd * scale)))
