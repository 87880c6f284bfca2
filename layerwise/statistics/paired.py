"""Two arms on the same seeds: how often one is ahead, by how much, and what the pairing bought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerwise.statistics.estimates import CONFIDENCE, NAN, TIE, sd


@dataclass(frozen=True)
class Share:
    """A probability, in 0..1, or a difference of two, in -1..1, with its interval.

    Attributes:
        estimate: the share seen; NaN where nothing was.
        low: lower limit of the 95 % interval.
        high: upper limit.
    """

    estimate: float
    low: float
    high: float


def share(count: float, seeds: int, confidence: float = CONFIDENCE) -> Share:
    """A share of seeds with Wilson's score interval (Wilson, 1927), by statsmodels.

    Args:
        count: seeds that count, in 0..seeds; may hold halves.
        seeds: how many there are.
        confidence: nominal coverage, in 0..1.

    Example:
        >>> from layerwise.statistics import share
        >>> found = share(15, 148)
        >>> round(found.estimate, 4), round(found.low, 4), round(found.high, 4)
        (0.1014, 0.0624, 0.1605)
    """
    from statsmodels.stats.proportion import proportion_confint

    if not seeds:
        return Share(NAN, NAN, NAN)
    return Share(count / seeds, *proportion_confint(count, seeds, alpha=1 - confidence, method="wilson"))


def probability_above(differences: np.ndarray) -> Share:
    """P(A > B): how often A is ahead of B on the same seed, a tie counting half (Bouthillier et al., 2021).

    The interval is Wilson's. Scores of 0, 1/2 and 1 vary no more than scores of 0 and 1 with the same mean, so with
    ties it is wider than it need be.

    Args:
        differences: ``(seeds,)`` A minus B; what is within :data:`TIE` of zero is a tie.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import probability_above
        >>> probability_above(np.array([0.1, 0.2, 0.0, -0.1])).estimate
        0.625
    """
    ahead, tied = np.count_nonzero(differences > TIE), np.count_nonzero(np.abs(differences) <= TIE)
    return share(float(ahead + tied / 2), len(differences))


def effect_size(differences: np.ndarray) -> float:
    """Standardised mean difference of pairs: mean / sd of the differences, corrected for small samples.

    This is Cohen's d_z times Hedges' exact factor J, Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)) with m = seeds - 1
    (Hedges, 1981). It has no unit. NaN for fewer than three seeds, for which J is not defined, or without spread.

    Args:
        differences: ``(seeds,)`` A minus B.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import effect_size
        >>> round(effect_size(np.array([1.0, 2.0, 3.0, 4.0])), 3)
        1.401
    """
    from scipy.special import gammaln

    spread, m = sd(differences), len(differences) - 1
    if m < 2 or spread == 0:
        return NAN
    # The libraries have the factor's approximation only, 1 - 3 / (4m - 1), which few seeds are too few for.
    factor = np.exp(gammaln(m / 2) - np.log(m / 2) / 2 - gammaln((m - 1) / 2))
    return float(differences.mean() / spread * factor)


def pairing_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two arms over seeds, which is what pairing bought.

    With equal spreads, the variance of the difference is 1 - correlation times that of unpaired arms: at .75, a
    quarter of the seeds do. In -1..1; NaN for fewer than two seeds or where an arm does not vary.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import pairing_correlation
        >>> round(pairing_correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
        1.0
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return NAN
    return float(np.corrcoef(first, second)[0, 1])


def rate_difference(first: np.ndarray, second: np.ndarray, confidence: float = CONFIDENCE) -> Share:
    """How much more often the first arm has an outcome, with the interval of Bonett and Price (2012).

    With a and b the seeds that have it in the first or the second arm only, each plus one, out of the seeds plus two,
    the interval is Wald's for a - b; Fagerland et al. (2014) recommend it for any number of pairs. The estimate itself
    is not adjusted; all are in -1..1.

    Args:
        first: ``(seeds,)`` bool, the outcome in one arm.
        second: ``(seeds,)`` bool, that of the same seeds in the other.
        confidence: nominal coverage, in 0..1.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import rate_difference
        >>> found = rate_difference(np.array([True] * 5), np.array([False] * 5))
        >>> round(found.estimate, 2), round(found.low, 2), round(found.high, 2)
        (1.0, 0.2, 1.0)
    """
    from scipy import stats

    seeds = len(first)
    if not seeds:
        return Share(NAN, NAN, NAN)
    # Written out: statsmodels has intervals for two independent rates, and for the ratio of two paired ones.
    only_first, only_second = np.count_nonzero(first & ~second), np.count_nonzero(second & ~first)
    a, b = (only_first + 1) / (seeds + 2), (only_second + 1) / (seeds + 2)
    half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt((a + b - (a - b) ** 2) / (seeds + 2))
    low, high = max(-1.0, a - b - half), min(1.0, a - b + half)
    return Share(float((only_first - only_second) / seeds), float(low), float(high))
