"""Statistics over seeds, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from layerwise.statistics import paired_change, summarise, t_interval


def metrics(values, diverged=None) -> pd.DataFrame:
    count = len(values)
    return pd.DataFrame({
        "arm": "greedy", "seed": range(count), "depth": 1, "diverged": diverged or [False] * count,
        "test_accuracy": values,
    })  # fmt: skip


def test_summary_of_known_numbers():
    """Mean, sd with ddof 1, median and the t interval of 1, 2, 3, 4 are the textbook's."""
    row = summarise(metrics([1.0, 2.0, 3.0, 4.0])).iloc[0]
    assert row["test_accuracy_mean"] == 2.5
    assert row["test_accuracy_sd"] == pytest.approx(np.sqrt(5 / 3))
    assert row["test_accuracy_median"] == 2.5
    assert row["test_accuracy_ci_high"] - 2.5 == pytest.approx(3.182446305284263 * np.sqrt(5 / 3) / 2)
    assert (row["layers"], row["seeds"], row["diverged"]) == (2, 4, 0)


def test_diverged_seeds_are_counted_and_not_averaged():
    """The mean is over intact seeds, the median over every finite value, and the count says how many diverged."""
    row = summarise(metrics([0.8, 0.9, 0.1, np.nan], [False, False, True, True])).iloc[0]
    assert row["test_accuracy_mean"] == pytest.approx(0.85)
    assert row["test_accuracy_median"] == pytest.approx(0.8)
    assert (row["seeds"], row["diverged"]) == (4, 2)


def test_one_seed_has_no_spread_and_none_no_mean():
    """What cannot be estimated is NaN, without a warning."""
    row = summarise(metrics([0.8])).iloc[0]
    assert row["test_accuracy_mean"] == 0.8
    assert np.isnan([row["test_accuracy_sd"], row["test_accuracy_ci_low"]]).all()
    assert np.isnan(summarise(metrics([0.8], [True])).iloc[0]["test_accuracy_mean"])


def test_t_interval_is_scipys():
    """The interval is scipy's for the same sample."""
    values = np.random.default_rng(0).normal(size=30)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))


def test_paired_change_is_within_seeds():
    """The change is the mean of each seed's own difference, over seeds intact at both depths."""
    low = metrics([0.5, 0.6, 0.7, 0.9])
    high = metrics([0.6, 0.7, 0.8, 0.1], [False, False, False, True]).assign(depth=3)
    change = paired_change(pd.concat([low, high]), "test_accuracy", arm="greedy")
    assert (change.low_depth, change.high_depth, change.seeds) == (1, 3, 3)
    assert change.mean == pytest.approx(0.1)
    assert change.ci_low == pytest.approx(0.1)
