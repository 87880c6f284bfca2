"""Before training, and after a pilot: what so many seeds can decide, and how likely they are to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.claims.deciding import holm_decisions
from layerwise.claims.evidence import Asked, asked, resampled_outcomes_p, speaks_of_survivors, unasked
from layerwise.claims.questions import Question
from layerwise.growing import as_grown
from layerwise.statistics.estimates import RANDOM_STATE
from layerwise.study import ALPHA, Study, held_out, looks
from layerwise.study.growing import ends

REPLICATIONS = 500
"""Resampled studies behind each point of a power curve; its Monte-Carlo standard error is at most .022."""


def undecidable(study: Study) -> list[str]:
    """What the study's seeds can never decide, whatever they show, a line for each claim; empty if all is well.

    A test of n seeds has a smallest possible p-value, such as 1 / 2^n for the one-sided sign-flip test. If even all
    claims at their smallest leave one above its level after Holm, training so few seeds cannot decide it.

    Example:
        >>> from layerwise.claims import undecidable
        >>> from layerwise.study import load
        >>> undecidable(load("few-labels")), len(undecidable(load("few-labels", seeds=3)))
        ([], 2)
    """
    study = next(ends(study))  # where it grows, the fewest depths: what these seeds cannot decide there, nothing can
    questions = {name: unasked(study, claim) for name, claim in (study.claims or {}).items()}
    cannot = {name: told for name, told in _cannot(study, questions, study.seeds).items() if told}
    return [_line(study, questions, name, told) for name, told in cannot.items()]


def _cannot(study: Study, questions: dict[str, tuple[Question, ...]], seeds: int) -> dict[str, dict[str, float]]:
    """For each claim, the goals that so many seeds cannot reach, with the smallest p-value after Holm."""
    if not questions:
        return {}
    level = (study.alpha or ALPHA) / len(looks(study))
    counting = {name: seeds - held_out(study, (study.claims or {})[name]) for name in questions}
    smallest = [[one.smallest(max(counting[name], 0)) for one in ones] for name, ones in questions.items()]
    support = statistics.holm(np.array([max(p for p, _ in ones) for ones in smallest]))
    refute = statistics.holm(np.array([min(1.0, len(ones) * min(p for _, p in ones)) for ones in smallest]))
    return {
        name: {goal: float(p) for goal, p in (("supported", one), ("refuted", other)) if p > level}
        for name, one, other in zip(questions, support, refute, strict=True)
    }


def _line(study: Study, questions: dict[str, tuple[Question, ...]], name: str, told: dict[str, float]) -> str:
    level = (study.alpha or ALPHA) / len(looks(study))
    enough = _enough(study, questions, name, set(told))
    remedy = f"use {enough:,} seeds or more" if enough else f"no number of seeds up to {statistics.MOST_NAMED:,} can"
    return (
        f"{name} cannot be {' or '.join(told)} by {study.seeds} seeds: the smallest possible p-value is"
        f" {min(told.values()):.3g} after Holm over {len(questions)} claim{'s' if len(questions) > 1 else ''},"
        f" the level {level:g}; {remedy}"
    )


def _enough(study: Study, questions: dict[str, tuple[Question, ...]], name: str, goals: set[str]) -> int | None:
    """The fewest seeds that can reach what the study's cannot."""
    return statistics.fewest_seeds(lambda seeds: float(not goals & set(_cannot(study, questions, seeds)[name])))


def power_curve(
    study: Study, pilot: pd.DataFrame, seeds: Sequence[int], *, replications: int = REPLICATIONS
) -> pd.DataFrame:
    """How likely each claim is to be decided by so many seeds, if the truth is what a pilot saw.

    Studies are resampled from the pilot's seeds, with replacement, and decided as the study would be at its last look:
    Holm over all claims, alpha divided by the looks. Of each claim, as large a share of the seeds counts as in the
    pilot. Mean differences are spread so that their variance is that of the pilot, and tested by t; Page's test is
    taken by the normal distribution. How seeds end is resampled too: where a study's sides differ in how many broke,
    it leaves a claim about all seeds undecided. A pilot of few seeds does not know its effects well, and neither does
    this.

    Args:
        study: whose claims are to be decided.
        pilot: metrics of a few seeds, one row per arm, seed and depth.
        seeds: numbers of seeds to look at.
        replications: resampled studies for each.

    Returns:
        One row per claim and number of seeds: ``claim``, ``seeds``, ``supported``, ``refuted`` and ``decided`` (shares
        of the resampled studies, 0..1) and ``error``, the Monte-Carlo standard error of the last.
    """
    # What seeds that settled a depth say of it flatters the claim; a pilot has no others.
    free = as_grown(study, pilot).model_copy(update={"grow": None})
    found = {name: asked(free, claim, pilot) for name, claim in (study.claims or {}).items()}
    held = {name: held_out(study, claim) for name, claim in (study.claims or {}).items()}
    survivors = {name for name, claim in (study.claims or {}).items() if speaks_of_survivors(claim)}
    rng, columns = np.random.default_rng(RANDOM_STATE), ["claim", "seeds", "supported", "refuted", "decided", "error"]
    rows = []
    for count in seeds if found else ():
        counting = {name: max(count - held[name], 0) for name in found}
        decisions = _decisions(found, counting, (study.alpha or ALPHA) / len(looks(study)), replications, rng)
        for place, name in enumerate(found):
            if name in survivors:
                unlike = _unlike(found[name], counting[name], study.alpha or ALPHA, replications, rng)
                decisions[unlike, place] = 0
            rows.append((name, count, *_shares(decisions[:, place])))
    return pd.DataFrame(rows, columns=columns)


def _decisions(
    found: dict[str, tuple[Asked, ...]],
    counting: dict[str, int],
    level: float,
    replications: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """``(replications, claims)`` what the p-values of resampled studies decide, whatever became of their seeds."""
    drawn = [[_resampled(one, counting[name], replications, rng) for one in ones] for name, ones in found.items()]
    support = np.stack([np.max([p for p, _ in ones], axis=0) for ones in drawn], axis=-1)
    refute = np.stack([np.minimum(1.0, len(ones) * np.min([p for _, p in ones], axis=0)) for ones in drawn], axis=-1)
    return holm_decisions(support, refute, level)


def _shares(decisions: np.ndarray) -> tuple[float, float, float, float]:
    """Shares of a claim's decisions that support it, refute it and do either, and the last's standard error."""
    supported, refuted = (float(np.mean(decisions == decision)) for decision in (1, -1))
    decided = supported + refuted
    return supported, refuted, decided, float(np.sqrt(decided * (1 - decided) / len(decisions)))


def _unlike(
    ones: tuple[Asked, ...], seeds: int, alpha: float, replications: int, rng: np.random.Generator
) -> np.ndarray:
    """``(replications,)`` bool, in which resampled studies the sides differ in how many seeds broke, at any depth.

    How many break is drawn by itself: so many of the others count as in the pilot, and those are drawn among its own.
    """
    found = [resampled_outcomes_p(one.columns, seeds, replications, rng) < alpha for one in ones]
    return np.logical_or.reduce(found)


def _resampled(one: Asked, seeds: int, replications: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both p-values of resampled studies of so many seeds; 1 where the pilot has fewer than two seeds that count."""
    counting = round(seeds * one.share) if one.question.seeds > 1 else 0
    if counting < 2:
        return np.ones(replications), np.ones(replications)
    return one.question.taken(rng.integers(one.question.seeds, size=(replications, counting))).quick()
