"""The ratio of two arms' standard deviations over the same seeds."""

from __future__ import annotations

from typing import Literal

import numpy as np

from layerwise.statistics.estimates import CONFIDENCE, NAN, sd
from layerwise.statistics.paired import pairing_correlation


def sd_ratio(first: np.ndarray, second: np.ndarray) -> float:
    """Ratio of the first arm's sd to the second's; NaN for fewer than two seeds or where the second does not vary.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import sd_ratio
        >>> sd_ratio(np.array([0.0, 4.0, 8.0]), np.array([1.0, 2.0, 3.0]))
        4.0
    """
    below = sd(second)
    return NAN if not below > 0 else sd(first) / below


def sd_ratio_interval(first: np.ndarray, second: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval for the ratio of two paired standard deviations (Pitman, 1939; Morgan, 1939).

    With F the ratio of the variances, r the arms' correlation and t Student's quantile with seeds - 2 degrees of
    freedom, its squared limits are F (K -+ sqrt(K^2 - 1)) with K = 1 + 2 (1 - r^2) t^2 / (seeds - 2).

    Args:
        first: ``(seeds,)`` scores of one arm.
        second: ``(seeds,)`` those of the same seeds in the other.
        confidence: coverage, in 0..1, where the two are jointly normal. Heavy tails make it too narrow.

    Returns:
        Lower and upper limit; NaN for fewer than three seeds or where an arm does not vary.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import sd_ratio_interval
        >>> first, second = np.array([1.0, 5.0, 2.0, 8.0, 4.0]), np.array([2.0, 1.0, 3.0, 2.5, 1.5])
        >>> [round(limit, 2) for limit in sd_ratio_interval(first, second)]
        [0.89, 13.53]
    """
    from scipy import stats

    ratio, correlation, freedom = sd_ratio(first, second), pairing_correlation(first, second), len(first) - 2
    if freedom < 1 or np.isnan(correlation):
        return NAN, NAN
    t = stats.t.ppf((1 + confidence) / 2, freedom)
    k = 1 + 2 * (1 - correlation**2) * t**2 / freedom
    spread = np.sqrt(k**2 - 1)
    return float(ratio * np.sqrt(k - spread)), float(ratio * np.sqrt(k + spread))


def sd_ratio_test(
    first: np.ndarray, second: np.ndarray, ratio: float, alternative: Literal["greater", "less"]
) -> np.ndarray:
    """P-value of the one-sided Pitman-Morgan test for the ratio of paired sds (Pitman, 1939; Morgan, 1939).

    The variances of u and v are equal just where u + v and u - v are uncorrelated; u is the first arm divided by the
    ratio. In terms of their variance ratio F and correlation r, Student's t of that correlation, with seeds - 2
    degrees of freedom, is (F - 1) sqrt(seeds - 2) / (2 sqrt(F (1 - r^2))). Null: the two arms are jointly normal and
    their sds have this ratio.

    Args:
        first: ``(..., seeds)`` scores of one arm; one test along the last axis.
        second: ``(..., seeds)`` those of the same seeds in the other.
        ratio: of the null, above zero.
        alternative: ``"greater"`` if the ratio is claimed to be larger.

    Returns:
        ``(...)`` p-values; 1 for fewer than three seeds or where an arm does not vary.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import sd_ratio_test
        >>> first, second = np.array([1.0, 5.0, 2.0, 8.0, 4.0]), np.array([2.0, 1.0, 3.0, 2.5, 1.5])
        >>> float(sd_ratio_test(first, second, 1.0, "greater").round(4))
        0.0348
    """
    from scipy import stats

    # Written out in centred sums: scipy's pearsonr of sum and difference warns where these hardly vary.
    freedom = first.shape[-1] - 2
    if freedom < 1:
        return np.ones(first.shape[:-1])
    centred = [values - values.mean(axis=-1, keepdims=True) for values in (first / ratio, second)]
    (above, below), both = ((values**2).sum(axis=-1) for values in centred), (centred[0] * centred[1]).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (above - below) * np.sqrt(freedom) / (2 * np.sqrt(np.maximum(above * below - both**2, 0.0)))
    p = (stats.t.sf if alternative == "greater" else stats.t.cdf)(t, freedom)
    return np.where(np.isnan(t) | (above == 0) | (below == 0), 1.0, p)
