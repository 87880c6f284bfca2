"""Statistics over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
"""Level of every interval."""


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Each metric over the seeds of each arm and depth.

    Means, standard deviations and intervals are taken over intact seeds only, so that no mean mixes modes; the
    median is over every seed with a finite value.

    Args:
        metrics: one row per arm, seed and depth: ``arm``, ``seed``, ``depth``, ``diverged`` and the scores.

    Returns:
        One row per arm and depth: ``arm``, ``depth``, ``layers`` (depth and the output layer), ``seeds``,
        ``diverged``, and for each score ``_mean``, ``_sd`` (ddof 1), ``_ci_low`` and ``_ci_high`` (Student's t,
        95 %) and ``_median``. NaN where too few seeds are left.
    """
    names = [name for name in metrics.columns if name not in {"arm", "seed", "depth", "diverged"}]
    records = []
    for (arm, depth), group in metrics.groupby(["arm", "depth"], sort=False):
        intact = group[~group["diverged"]]
        record = {"arm": arm, "depth": depth, "layers": depth + 1, "seeds": len(group)}
        record["diverged"] = int(group["diverged"].sum())
        for name in names:
            values = group[name].to_numpy(dtype=float)
            record |= {f"{name}_{key}": value for key, value in _moments(intact[name].to_numpy(float)).items()}
            finite = values[np.isfinite(values)]
            record[f"{name}_median"] = float(np.median(finite)) if len(finite) else float("nan")
        records.append(record)
    return pd.DataFrame(records)


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
