"""Which trials are run, and that each is the same whenever it is run."""

from __future__ import annotations

import pytest

from tests.chaos import trials


@pytest.mark.parametrize(
    ("asked", "expected"), [("", [1, 2, 3]), ("5", [1, 2, 3, 4, 5]), ("26-28", [26, 27, 28]), ("0", [])]
)
def test_trials_are_numbered_so_that_they_can_be_run_in_pieces(
    monkeypatch: pytest.MonkeyPatch, asked: str, expected: list[int]
) -> None:
    """A number asks for the first ones, two for those between; a few are run if nobody asks."""
    monkeypatch.setenv("CHAOS_TRIALS", asked)
    assert list(trials.numbers(few=3)) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("", [2, 6, 9]), ("2", [3, 8]), ("4-6", [4, 5, 6]), ("all", [*range(1, 11)]), ("99", [*range(1, 11)])],
)
def test_points_are_spread_over_a_list(monkeypatch: pytest.MonkeyPatch, asked: str, expected: list[int]) -> None:
    """Of a list so many are taken evenly spread, or those between two numbers, or all; each keeps its number."""
    monkeypatch.setenv("CHAOS_POINTS", asked)
    assert trials.points("abcdefghij", few=3) == [(number, "abcdefghij"[number - 1]) for number in expected]


def test_one_point_of_each_kind_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for kinds, the middle one of those alike is taken, in the order of the list."""
    monkeypatch.setenv("CHAOS_POINTS", "kinds")
    assert trials.points("aAbBaAc", few=3, kind=str.lower) == [(4, "B"), (5, "a"), (7, "c")]


def test_a_wrong_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no number is refused with what is expected."""
    monkeypatch.setenv("CHAOS_TRIALS", "many")
    with pytest.raises(ValueError, match=r"CHAOS_TRIALS is 'many'; expected a number, or two as in 26-50"):
        trials.numbers(few=3)


def test_a_trial_is_the_same_again() -> None:
    """A trial's random numbers follow from its kind and number alone."""
    draws = [trials.chance(kind, number).random() for kind in ("a", "b") for number in (1, 2)]
    assert len(set(draws)) == 4
    assert draws == [trials.chance(kind, number).random() for kind in ("a", "b") for number in (1, 2)]
