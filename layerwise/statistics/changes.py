"""How a score changes over depth within an arm, and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from layerwise.statistics.estimates import t_interval
from layerwise.statistics.significance import mcnemar
from layerwise.statistics.summary import intact


@dataclass(frozen=True)
class Change:
    """How a metric changes from the lowest to the highest depth of an arm, paired by seed.

    Attributes:
        metric: its name.
        low_depth: the depth that is compared from.
        high_depth: the depth that is compared to.
        seeds: number of seeds intact at both.
        mean: mean of each seed's difference, high minus low.
        ci_low: lower limit of the 95 % t interval for it; NaN for fewer than two seeds.
        ci_high: upper limit.
    """

    metric: str
    low_depth: int
    high_depth: int
    seeds: int
    mean: float
    ci_low: float
    ci_high: float


def paired_change(metrics: pd.DataFrame, metric: str, *, arm: str) -> Change:
    """The paired change of a metric from an arm's lowest to its highest depth.

    Args:
        metrics: one row per arm, seed and depth.
        metric: the score's column.
        arm: which arm.
    """
    own = metrics[metrics["arm"] == arm]
    wide = own[intact(own, metric)].pivot_table(index="seed", columns="depth", values=metric)
    low, high = int(own["depth"].min()), int(own["depth"].max())
    if not {low, high} <= set(wide.columns):
        return Change(metric, low, high, 0, float("nan"), float("nan"), float("nan"))
    differences = (wide[high] - wide[low]).dropna().to_numpy()
    mean = float(differences.mean()) if len(differences) else float("nan")
    return Change(metric, low, high, len(differences), mean, *t_interval(differences))


SCORE_NAMES = {"accuracy": "accuracy", "r2": "R2"}
"""The score that sums a network up, for classes and for numbers, and how it is written."""


def main_score(metrics: pd.DataFrame) -> str:
    """Which score sums the networks up: accuracy, or R2 where numbers are predicted.

    Args:
        metrics: with a column for each score of each part; or their summary.

    Example:
        >>> import pandas as pd
        >>> from layerwise.statistics import main_score
        >>> main_score(pd.DataFrame({"test_r2": [0.4]}))
        'r2'
    """
    return "r2" if any(str(column).startswith("test_r2") for column in metrics.columns) else "accuracy"


def in_words(metrics: pd.DataFrame) -> list[str]:
    """The study's answer, a sentence for each arm: how its main score changes with depth, with its uncertainty."""
    return [_arm_in_words(metrics, str(arm)) for arm in metrics["arm"].unique()]


def _arm_in_words(metrics: pd.DataFrame, arm: str) -> str:
    score = main_score(metrics)
    named = SCORE_NAMES[score]
    train, test = (paired_change(metrics, f"{part}_{score}", arm=arm) for part in ("train", "test"))
    if not test.seeds:
        return f"{arm}: no seed is intact at depth {test.low_depth} and depth {test.high_depth}; nothing to compare."
    if test.low_depth == test.high_depth:
        return f"{arm}: at depth {test.low_depth}, the only one, mean test {named} is {_mean_of(metrics, arm):.4f}."
    return (
        f"{arm}: from depth {test.low_depth} to {test.high_depth}, training {named} changes by {_signed(train)},"
        f" test {named} by {_signed(test)}; paired over {test.seeds} seed{'s' if test.seeds > 1 else ''}"
        f"{_broken(metrics, arm, test)}."
    )


def _broken(metrics: pd.DataFrame, arm: str, change: Change) -> str:
    """How the other seeds ended at the two depths, and whether these differ in that; nothing where all are intact."""
    own = metrics[metrics["arm"] == arm].set_index("seed")
    low, high = (own[own["depth"] == depth] for depth in (change.low_depth, change.high_depth))
    seeds = low.index.intersection(high.index)
    low, high = low.loc[seeds], high.loc[seeds]
    if len(seeds) == change.seeds:
        return ""
    ended = [f"{int(high[name].sum())} {name}" for name in ("diverged", "collapsed")]
    p = mcnemar(~intact(high, change.metric), ~intact(low, change.metric))
    told = f" of {len(seeds)}; at depth {change.high_depth} {' and '.join(ended)}"
    return f"{told} (McNemar against depth {change.low_depth}: p {'< .0001' if p < 0.0001 else f'{p:.4f}'})"


def _mean_of(metrics: pd.DataFrame, arm: str) -> float:
    own = metrics[metrics["arm"] == arm]
    column = f"test_{main_score(metrics)}"
    return float(own.loc[intact(own, column), column].mean())


def _signed(change: Change) -> str:
    if np.isnan(change.ci_low):
        return f"{change.mean:+.4f} (no interval from one seed)"
    return f"{change.mean:+.4f} (95 % interval {change.ci_low:+.4f} to {change.ci_high:+.4f})"
