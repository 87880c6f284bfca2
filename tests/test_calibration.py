"""The promises of docs/statistics.md: intervals cover and tests keep their level, by small simulations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration import Case, cases, covered, family, normal
from layerwise import statistics

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
QUICK = [case for case in cases() if case.promise and case.seeds <= 12]


def label(case: Case) -> str:
    """A case's name for pytest."""
    return f"{case.what}, {case.data}"


@pytest.mark.parametrize("case", QUICK, ids=label)
def test_what_is_promised_is_kept(case: Case):
    """Coverage is .93 to .97 and the type-I rate at most .05, within three Monte-Carlo standard errors of some .008."""
    rate, error, _ = case.rate(800)
    assert case.kept(rate, error, errors=3), f"{rate:.3f} +- {error:.3f}"


def test_a_broken_promise_would_show():
    """An interval from the normal quantile, and five tests without Holm, are not kept."""

    def z_interval(values: np.ndarray) -> tuple[float, float]:
        half = 1.96 * statistics.sd(values) / np.sqrt(len(values))
        return values.mean() - half, values.mean() + half

    short = Case("z interval", "normal", 5, covered(z_interval, normal, 5), "covers")
    assert not short.kept(*short.rate(800)[:2], errors=3)
    unadjusted = Case("five tests", "normal", 10, lambda rng, runs: ~family(rng, runs, seeds=10), "keeps")
    assert not unadjusted.kept(*unadjusted.rate(200)[:2], errors=3)


def test_the_document_shows_every_case_and_no_broken_promise():
    """The table is of the cases that the script simulates, and each promise in it is kept."""
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (\d+) \| (\S+) \| (\S+) \| (.+?) \| (\w*) \|$", DOCUMENT.read_text(), re.M
    )
    shown = {(what, data, int(seeds)): (float(rate), kept) for what, data, seeds, rate, _, _, kept in rows}
    assert set(shown) == {(case.what, case.data, case.seeds) for case in cases()}
    for case in cases():
        _, kept = shown[case.what, case.data, case.seeds]
        assert kept == ("yes" if case.promise else "")
