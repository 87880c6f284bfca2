"""Estimates from one value a seed: the centre, the spread, and how far the centre may be off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""Level of every interval, where nothing else is said."""

RESAMPLES = 9_999
"""Draws of every bootstrap and of every Monte-Carlo test; fixed, like their seed, so that a number stays what it is."""

RANDOM_STATE = 2021
"""Seed of those draws."""

TIE = 1e-12
"""Differences up to this are rounding: scores that are equal on paper tie."""

NAN = float("nan")


@dataclass(frozen=True)
class Description:
    """One value a seed, described.

    Attributes:
        seeds: how many values there are.
        mean: their mean, in the values' unit; NaN for none.
        sd: standard deviation with ddof 1; NaN for fewer than two.
        interquartile_mean: see :func:`interquartile_mean`.
        ci_low: lower limit of Student's t interval for the mean, 95 %.
        ci_high: its upper limit.
        bootstrap_low: lower limit of the BCa bootstrap interval for the mean, 95 %.
        bootstrap_high: its upper limit.
    """

    seeds: int
    mean: float
    sd: float
    interquartile_mean: float
    ci_low: float
    ci_high: float
    bootstrap_low: float
    bootstrap_high: float


def describe(values: np.ndarray) -> Description:
    """Mean, spread and intervals of one value a seed.

    Args:
        values: ``(seeds,)`` finite numbers in any unit.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import describe
        >>> found = describe(np.array([0.80, 0.82, 0.84, 0.90]))
        >>> found.seeds, round(found.mean, 3), round(found.sd, 4), round(found.interquartile_mean, 3)
        (4, 0.84, 0.0432, 0.83)
    """
    low, high = t_interval(values)
    bootstrap_low, bootstrap_high = bootstrap_interval(values)
    return Description(
        seeds=len(values),
        mean=float(values.mean()) if len(values) else NAN,
        sd=sd(values),
        interquartile_mean=interquartile_mean(values),
        ci_low=low,
        ci_high=high,
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
    )


def sd(values: np.ndarray) -> float:
    """Standard deviation of a sample, with ddof 1; NaN for fewer than two values.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import sd
        >>> sd(np.array([1.0, 2.0, 3.0]))
        1.0
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else NAN


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of what is left when the lowest and the highest quarter are cut off (Agarwal et al., 2021).

    A quarter that is no whole number of values is rounded down. NaN for no values.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import interquartile_mean
        >>> interquartile_mean(np.array([0.0, 2.0, 3.0, 4.0, 3.0, 2.0, 4.0, 99.0]))
        3.0
    """
    from scipy import stats

    return float(stats.trim_mean(values, 0.25)) if len(values) else NAN


def t_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t interval for the mean (Gosset, 1908), by statsmodels; NaN for fewer than two values.

    Args:
        values: ``(seeds,)`` finite numbers.
        confidence: probability that the interval holds the true mean, in 0..1, where values are normal.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import t_interval
        >>> [round(limit, 3) for limit in t_interval(np.array([1.0, 2.0, 3.0]))]
        [-0.484, 4.484]
    """
    from statsmodels.stats.weightstats import DescrStatsW

    if len(values) < 2:
        return NAN, NAN
    low, high = DescrStatsW(values).tconfint_mean(1 - confidence)
    return float(low), float(high)


def bootstrap_interval(
    *samples: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron, 1987), by :func:`scipy.stats.bootstrap`.

    The draws are the same at every call. Where all values are alike the interval is that one point.

    Args:
        samples: one array ``(seeds,)``, or several that are paired by seed and resampled together.
        statistic: function of the samples and an ``axis``; the mean, if left out.
        confidence: nominal coverage, in 0..1. With ten values it covers less (see docs/statistics.md).

    Returns:
        Lower and upper limit; NaN for fewer than two seeds, or where a resample has no such statistic.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import bootstrap_interval
        >>> low, high = bootstrap_interval(np.array([1.0, 2.0, 3.0, 4.0, 9.0]))
        >>> 1.0 < low < 3.8 < high < 9.0
        True
    """
    import warnings

    from scipy import stats

    if len(samples[0]) < 2:
        return NAN, NAN
    if all(np.ptp(values) == 0 for values in samples):
        point = float(statistic(*samples, axis=-1))
        return point, point
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # It warns where a resample has no such statistic, which the NaN it returns says as well.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=confidence,
            method="BCa",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(RANDOM_STATE),
        ).confidence_interval
    return float(found.low), float(found.high)
