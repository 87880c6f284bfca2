"""A score over the seeds, read from the table of metrics: values where the seed is intact, and how the others ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from layerwise.study import Score


@dataclass(frozen=True)
class Outcomes:
    """How the seeds of one arm ended at one depth.

    Attributes:
        arm: the arm.
        depth: number of hidden layers.
        seeds: seeds that were trained.
        diverged: how many of them diverged.
        collapsed: how many collapsed.
    """

    arm: str
    depth: int
    seeds: int
    diverged: int
    collapsed: int

    @property
    def broken(self) -> int:
        """Seeds that are not intact."""
        return self.diverged + self.collapsed


@dataclass(frozen=True)
class Column:
    """One score over the seeds of a study.

    Attributes:
        score: of which arm, depth and metric.
        values: ``(seeds,)`` the metric; NaN where the seed was not trained, is not intact, or has no finite value.
        trained: ``(seeds,)`` bool, whether there is such a network of the seed.
        diverged: ``(seeds,)`` bool.
        collapsed: ``(seeds,)`` bool.
        collapsed_values: ``(seeds,)`` the metric of the collapsed seeds; NaN for all others.
    """

    score: Score
    values: np.ndarray
    trained: np.ndarray
    diverged: np.ndarray
    collapsed: np.ndarray
    collapsed_values: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """Which seeds are not intact."""
        return self.diverged | self.collapsed

    @property
    def outcomes(self) -> Outcomes:
        """How the seeds ended, counted."""
        counts = (int(np.count_nonzero(found)) for found in (self.trained, self.diverged, self.collapsed))
        return Outcomes(self.score.arm, self.score.depth, *counts)

    def outcome(self, name: Literal["diverged", "collapsed", "broken"]) -> np.ndarray:
        """Which seeds have an outcome."""
        return getattr(self, name)


def column(metrics: pd.DataFrame, score: Score, seeds: np.ndarray) -> Column:
    """A score over the given seeds.

    Args:
        metrics: one row per arm, seed and depth.
        score: which arm, depth and metric.
        seeds: the seeds, in order.
    """
    at = (metrics["arm"] == score.arm) & (metrics["depth"] == score.depth)
    own = metrics[at].set_index("seed").reindex(seeds)
    diverged, collapsed = (_outcome(own, f"{score.prefix}{name}") for name in ("diverged", "collapsed"))
    trained = diverged.notna().to_numpy()
    diverged, collapsed = diverged.fillna(False).to_numpy(bool), collapsed.fillna(False).to_numpy(bool) & trained
    found = own.get(score.column, pd.Series(np.nan, own.index)).astype(float).to_numpy()
    finite = np.where(np.isfinite(found) & trained & ~diverged, found, np.nan)
    return Column(
        score=score,
        values=np.where(collapsed, np.nan, finite),
        trained=trained,
        diverged=diverged,
        collapsed=collapsed & ~diverged,
        collapsed_values=np.where(collapsed, finite, np.nan),
    )


def _outcome(own: pd.DataFrame, name: str) -> pd.Series:
    return own.get(name, pd.Series(pd.NA, own.index)).astype("boolean")
