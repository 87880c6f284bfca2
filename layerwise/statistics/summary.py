"""The table of results: every score over the seeds of each arm and depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from layerwise.statistics.estimates import NAN, sd, t_interval

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
    moments["median"] = float(np.median(finite)) if len(finite) else NAN
    return {f"{name}_{key}": value for key, value in moments.items()}


def _moments(values: np.ndarray) -> dict[str, float]:
    low, high = t_interval(values)
    mean = float(values.mean()) if len(values) else NAN
    return {"mean": mean, "sd": sd(values), "ci_low": low, "ci_high": high}
