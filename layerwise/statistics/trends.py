"""Trends: how each seed's score goes with depth, and whether several arms come in a stated order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerwise.statistics.estimates import NAN


def slopes(scores: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Each seed's least-squares slope of its scores on depth.

    Args:
        scores: ``(seeds, depths)``, finite.
        depths: ``(depths,)``, at least two that differ.

    Returns:
        ``(seeds,)`` change of the score per layer.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import slopes
        >>> slopes(np.array([[0.80, 0.82, 0.84]]), np.array([1, 2, 3])).round(6).tolist()
        [0.02]
    """
    centred = depths - depths.mean()
    return scores @ centred / (centred @ centred)


@dataclass(frozen=True)
class OrderedTrend:
    """Page's trend test of one order.

    Attributes:
        statistic: Page's L.
        p: one-sided p-value.
        correlations: ``(seeds,)`` rank correlation of each seed's scores with the stated order, in -1..1.
    """

    statistic: float
    p: float
    correlations: np.ndarray


def ordered_trend(scores: np.ndarray) -> OrderedTrend:
    """Page's test that the columns increase in the order given (Page, 1963), by scipy.

    Null: within a seed every order of the columns is equally likely. Equal scores share their mean rank, which
    makes p larger than it need be. A seed's correlation is the slope of its ranks on their stated places, which is
    Spearman's where no scores are equal.

    Args:
        scores: ``(seeds, columns)``, finite, at least two by three.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import ordered_trend
        >>> found = ordered_trend(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]))
        >>> found.statistic, round(found.p, 4), found.correlations.tolist()
        (28.0, 0.0278, [1.0, 1.0])
    """
    from scipy import stats

    seeds, columns = scores.shape
    if seeds < 2:
        return OrderedTrend(NAN, 1.0, np.full(seeds, NAN))
    ranks = stats.rankdata(scores, axis=1)
    found = stats.page_trend_test(ranks, ranked=True)
    return OrderedTrend(float(found.statistic), float(found.pvalue), slopes(ranks, np.arange(1, columns + 1)))
