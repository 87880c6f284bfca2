"""Statistics over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
"""Level of every interval."""

OUTCOMES = ("diverged", "collapsed", "fine_tuned_diverged", "fine_tuned_collapsed")
"""Columns that say how a seed ended at a depth, rather than score it."""


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Each metric over the seeds of each arm and depth.

    Means, standard deviations and intervals are taken over intact seeds only, those that neither diverged nor
    collapsed, so that no mean mixes modes; the median is over every seed with a finite value.

    Args:
        metrics: one row per arm, seed and depth: ``arm``, ``seed``, ``depth``, ``diverged``, ``collapsed`` and the
            scores; likewise ``fine_tuned_diverged``, ``fine_tuned_collapsed`` and the fine-tuned network's scores.

    Returns:
        One row per arm and depth: ``arm``, ``depth``, ``layers`` (depth and the output layer), ``seeds``,
        ``diverged``, ``collapsed``, and for each score ``_mean``, ``_sd`` (ddof 1), ``_ci_low`` and ``_ci_high``
        (Student's t, 95 %) and ``_median``. NaN where too few seeds are left, or the arm has no such score.
    """
    return pd.DataFrame([
        {"arm": arm, "depth": depth, "layers": depth + 1, "seeds": len(group)}
        | {name: int(group[name].astype("boolean").fillna(False).sum()) for name in OUTCOMES if name in group}
        | {key: value for name in scores(group) for key, value in _summary(group, name).items()}
        for arm, depth, group in _groups(metrics)
    ])  # fmt: skip


def _groups(metrics: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame]]:
    for arm, own in metrics.groupby("arm", sort=False):
        for depth, group in own.groupby("depth", sort=False):
            yield str(arm), int(str(depth)), group


def scores(metrics: pd.DataFrame) -> list[str]:
    """The columns that hold scores."""
    return [name for name in metrics.columns if name not in {"arm", "seed", "depth", *OUTCOMES}]


def intact(metrics: pd.DataFrame, metric: str) -> np.ndarray:
    """Which rows count for a metric: the network it is of has neither diverged nor collapsed."""
    prefix = "fine_tuned_" if metric.startswith("fine_tuned_") else ""
    broken = [metrics[f"{prefix}{name}"] for name in ("diverged", "collapsed") if f"{prefix}{name}" in metrics]
    # An arm without fine tuning has no outcome of it, and no score either.
    return ~np.logical_or.reduce([outcome.astype("boolean").fillna(True).to_numpy(bool) for outcome in broken])


def _summary(group: pd.DataFrame, name: str) -> dict[str, float]:
    values = group[name].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    moments = _moments(values[intact(group, name) & np.isfinite(values)])
    moments["median"] = float(np.median(finite)) if len(finite) else float("nan")
    return {f"{name}_{key}": value for key, value in moments.items()}


def _moments(values: np.ndarray) -> dict[str, float]:
    nan = float("nan")
    mean = float(values.mean()) if len(values) else nan
    sd = float(values.std(ddof=1)) if len(values) > 1 else nan
    low, high = t_interval(values)
    return {"mean": mean, "sd": sd, "ci_low": low, "ci_high": high}


def t_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t interval for the mean (Gosset, 1908); NaN for fewer than two values.

    Example:
        >>> import numpy as np
        >>> from layerwise.statistics import t_interval
        >>> [round(limit, 3) for limit in t_interval(np.array([1.0, 2.0, 3.0]))]
        [-0.484, 4.484]
    """
    from scipy import stats

    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


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


def in_words(metrics: pd.DataFrame) -> list[str]:
    """The study's answer, a sentence for each arm: how accuracy changes with depth, with its uncertainty."""
    return [_arm_in_words(metrics, str(arm)) for arm in metrics["arm"].unique()]


def _arm_in_words(metrics: pd.DataFrame, arm: str) -> str:
    train, test = (paired_change(metrics, f"{part}_accuracy", arm=arm) for part in ("train", "test"))
    if not test.seeds:
        return f"{arm}: no seed is intact at depth {test.low_depth} and depth {test.high_depth}; nothing to compare."
    if test.low_depth == test.high_depth:
        return f"{arm}: at depth {test.low_depth}, the only one, mean test accuracy is {_mean_of(metrics, arm):.4f}."
    return (
        f"{arm}: from depth {test.low_depth} to {test.high_depth}, training accuracy changes by {_signed(train)},"
        f" test accuracy by {_signed(test)}; paired over {test.seeds} seed{'s' if test.seeds > 1 else ''}."
    )


def _mean_of(metrics: pd.DataFrame, arm: str) -> float:
    own = metrics[metrics["arm"] == arm]
    return float(own.loc[intact(own, "test_accuracy"), "test_accuracy"].mean())


def _signed(change: Change) -> str:
    if np.isnan(change.ci_low):
        return f"{change.mean:+.4f} (no interval from one seed)"
    return f"{change.mean:+.4f} (95 % interval {change.ci_low:+.4f} to {change.ci_high:+.4f})"
