"""Planning: from a pilot's seeds to the number that decides a claim, in words."""

from __future__ import annotations

import pandas as pd
import pytest

from flows.planning import PILOT, piloted, seeds_for, seeds_in_words
from layerwise.study import StudyError, load
from tests.studies import small


def curve(decided: list[float], supported: list[float] | None = None) -> pd.DataFrame:
    """The power of one claim at 10, 20, 40 and 100 seeds."""
    supported = decided if supported is None else supported
    refuted = [both - one for both, one in zip(decided, supported, strict=True)]
    return pd.DataFrame({"seeds": [10, 20, 40, 100], "supported": supported, "refuted": refuted, "decided": decided})


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        ([0.1, 0.3, 0.8, 1.0], 40),
        ([0.1, 0.6, 0.9, 1.0], 34),  # two thirds of the way from 20 to 40, rounded up
        ([0.1, 0.2, 0.3, 0.95], 87),
        ([0.9, 1.0, 1.0, 1.0], 10),
        ([0.1, 0.2, 0.3, 0.4], None),
        ([0.9, 0.5, 0.1, 0.0], None),  # more seeds tell that outcomes are unlike, and leave the claim undecided
        ([0.9, 0.4, 0.9, 1.0], 36),
    ],
)
def test_the_number_with_the_power_wanted(decided: list[float], expected: int | None) -> None:
    """It lies on a straight line between two that were tried, and more seeds have the power too, or there is none."""
    assert seeds_for(curve(decided), 0.8) == expected


def test_large_numbers_have_two_digits() -> None:
    """A pilot does not know three digits of the seeds that a claim takes."""
    power = pd.DataFrame({"seeds": [500, 1000], "decided": [0.70, 0.90]})
    assert seeds_for(power, 0.8) == 750
    assert seeds_for(power, 0.777) == 700


def test_the_number_is_said_with_the_way_it_goes() -> None:
    """The words tell whether the claim would be supported or refuted, and say so where no number is enough."""
    assert seeds_in_words(curve([0.1, 0.3, 0.8, 1.0])) == "about 40 seeds support it with probability .80"
    refuted = curve([0.1, 0.3, 0.8, 1.0], [0.0, 0.1, 0.1, 0.0])
    assert seeds_in_words(refuted) == "about 40 seeds refute it with probability .80"
    assert seeds_in_words(curve([0.9, 1, 1, 1])) == "about 10 seeds or fewer support it with probability .80"
    assert seeds_in_words(curve([0.1, 0.2, 0.3, 0.4])) == "100 seeds decide it with probability .40 only"


def test_a_pilot_decides_nothing() -> None:
    """It is the study with few seeds, without its claims and its stop, so that nobody takes it for an answer."""
    study = load("few-labels", overrides=["stop.every=10"])
    few = piloted(study, PILOT)
    assert (few.seeds, few.claims, few.alpha, few.stop) == (PILOT, None, None, None)
    assert (
        few.model_copy(update={"claims": study.claims, "alpha": study.alpha, "stop": study.stop, "seeds": 30}) == study
    )


@pytest.mark.parametrize(
    ("study", "seeds", "expected"),
    [
        (small(), 10, "small claims nothing, so there is nothing to plan; add claims to it"),
        (load("few-labels"), 1, "--seeds 1: a pilot has to see how seeds differ; use 2 or more"),
    ],
)
def test_what_cannot_be_planned_is_refused(study, seeds: int, expected: str) -> None:
    """Without claims there is nothing to plan, and one seed tells nothing of the spread over seeds."""
    with pytest.raises(StudyError, match=f"^{expected}$"):
        piloted(study, seeds)
