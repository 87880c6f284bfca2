"""From a claim and the table of metrics to the questions it puts, and to what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.claims.columns import Column, Outcomes, column
from layerwise.claims.questions import Mean, Order, Question, Rarer, RateBound, Spread, Within
from layerwise.study import Bound, Claim, Compare, Equivalent, Rate, Ratio, Study, Trend, held_out, sides
from layerwise.study.claims import Scored


@dataclass(frozen=True)
class Evidence:
    """What one test of a claim found, one for each depth that the claim speaks of.

    Attributes:
        depth: number of hidden layers on the claim's own side; of a trend, the lowest.
        seeds: seeds that count: intact on every side, or what the claim says of them.
        estimate: what is estimated: a mean (difference), slope, rank correlation, rate (difference), or ratio of sds.
        low: lower limit of its 95 % interval; NaN where there are too few seeds.
        high: upper limit.
        family_low: lower limit of the same kind of interval at the level of the family, by Bonferroni over the
            claims: each limit alone is missed with probability alpha divided by the looks and the number of claims. So
            all limits of one side hold together at one depth of each claim, not at all depths of claims of several;
            and Holm's procedure and the claims' own tests, which decide, may decide what these limits do not.
        family_high: its upper limit.
        p: of the null that the claim is false.
        p_against: of the null that it is true.
        numbers: what else the kind of test has to report, by name.
        outcomes: how the seeds of every side ended.
        outcomes_p: McNemar's two-sided p-value for a difference of broken seeds between the two sides, the most
            unlike two where there are more; NaN where there is one.
    """

    depth: int
    seeds: int
    estimate: float
    low: float
    high: float
    family_low: float
    family_high: float
    p: float
    p_against: float
    numbers: dict[str, float]
    outcomes: tuple[Outcomes, ...]
    outcomes_p: float


@dataclass(frozen=True)
class Asked:
    """One question of a claim, with the columns it rests on."""

    columns: tuple[Column, ...]
    question: Question

    @property
    def share(self) -> float:
        """Share of the trained seeds that count; NaN without any."""
        trained = np.logical_and.reduce([column.trained for column in self.columns]).sum()
        return self.question.seeds / trained if trained else float("nan")


def asked(study: Study, claim: Claim, metrics: pd.DataFrame) -> tuple[Asked, ...]:
    """The questions that a claim puts to the metrics, one for each depth that it speaks of.

    Seeds that settled the depth a claim speaks of do not count for it (:func:`layerwise.study.held_out`).
    """
    metrics = metrics[metrics["seed"] >= held_out(study, claim)]
    seeds = np.sort(metrics["seed"].unique()) if len(metrics) else np.array([], int)
    found = [tuple(column(metrics, score, seeds) for score in side) for side in sides(study, claim)]
    return tuple(Asked(columns, _question(claim, columns)) for columns in found)


def unasked(study: Study, claim: Claim) -> tuple[Question, ...]:
    """The questions that a claim will put, before there is any seed."""
    nothing = pd.DataFrame({"arm": [], "seed": [], "depth": []})
    return tuple(one.question for one in asked(study, claim, nothing))


def _question(claim: Claim, columns: tuple[Column, ...]) -> Question:
    if isinstance(claim, Compare | Equivalent | Bound):
        return _mean(claim, *_differences(columns, claim.among))
    if isinstance(claim, Rate):
        return _rate(claim, columns)
    scores = _complete(columns)
    if isinstance(claim, Ratio):
        low, high = (1 / claim.within, claim.within) if claim.within else (claim.above, claim.below)
        return Spread(scores[:, 0], scores[:, 1], low, high)
    sign = 1 if claim.direction == "up" else -1
    if isinstance(claim, Trend):
        depths = np.array([one.score.depth for one in columns])
        return Mean(statistics.slopes(scores, depths), sign * claim.by, sign)
    return Order(scores if isinstance(claim.arms[0], str) else scores[:, 0::2] - scores[:, 1::2], sign)


def _mean(claim: Compare | Equivalent | Bound, values: np.ndarray, correlation: float) -> Question:
    if isinstance(claim, Equivalent):
        return Within(values, claim.within, correlation)
    if isinstance(claim, Compare):
        sign = 1 if claim.above is not None else -1
        return Mean(values, sign * claim.by, sign, correlation)
    if claim.at_least is not None:
        return Mean(values, claim.at_least, 1, correlation)
    return Mean(values, float(claim.at_most or 0), -1, correlation)


def _rate(claim: Rate, columns: tuple[Column, ...]) -> Question:
    known = np.logical_and.reduce([one.trained for one in columns])
    found = [one.outcome(claim.outcome)[known] for one in columns]
    if len(found) > 1:
        return Rarer(found[0], found[1], 1 if claim.above is not None else -1)
    rate, sign = (claim.at_least, 1) if claim.at_least is not None else (claim.at_most, -1)
    return RateBound(found[0], float(rate or 0), sign)


def _complete(columns: Sequence[Column]) -> np.ndarray:
    """``(seeds, columns)`` scores of the seeds that have them all."""
    scores = np.stack([one.values for one in columns], axis=-1)
    return scores[np.isfinite(scores).all(axis=-1)]


def _differences(columns: tuple[Column, ...], among: str | None) -> tuple[np.ndarray, float]:
    """Each seed's score, its difference from another, or the difference of two differences; and their correlation."""
    first = columns[0].collapsed_values if among == "collapsed" else columns[0].values
    scores = np.stack([first, *(one.values for one in columns[1:])], axis=-1)
    scores = scores[np.isfinite(scores).all(axis=-1)]
    if len(columns) == 4:
        scores = scores[:, 0::2] - scores[:, 1::2]
    if len(columns) == 1:
        return scores[:, 0], float("nan")
    return scores[:, 0] - scores[:, 1], statistics.pairing_correlation(scores[:, 0], scores[:, 1])


def evidence(one: Asked, confidence: float) -> Evidence:
    """What a question found.

    Args:
        one: the question, and its columns.
        confidence: of the interval at the family's level.
    """
    question = one.question
    support, refute = question.p_values()
    estimate, low, high = question.estimate(statistics.CONFIDENCE)
    _, family_low, family_high = question.estimate(confidence)
    return Evidence(
        depth=one.columns[0].score.depth,
        seeds=question.seeds,
        estimate=estimate,
        low=low,
        high=high,
        family_low=family_low,
        family_high=family_high,
        p=support,
        p_against=refute,
        numbers=question.numbers(),
        outcomes=tuple(column.outcomes for column in one.columns),
        outcomes_p=outcomes_p(one.columns),
    )


def outcomes_p(columns: Sequence[Column]) -> float:
    """McNemar's two-sided test on the broken seeds of the two columns that have the most and the fewest of them."""
    if len(columns) < 2:
        return float("nan")
    known = np.logical_and.reduce([one.trained for one in columns])
    broken = sorted((one.broken[known] for one in columns), key=np.count_nonzero)
    return statistics.mcnemar(broken[0], broken[-1])


def resampled_outcomes_p(
    columns: Sequence[Column], seeds: int, replications: int, rng: np.random.Generator
) -> np.ndarray:
    """The same of each of several studies whose seeds are resampled from these.

    Args:
        columns: of a pilot.
        seeds: how many each study trains.
        replications: how many studies.
        rng: draws them.

    Returns:
        ``(replications,)`` p-values; 1 where there are no two sides or no seed that broke.
    """
    from scipy import stats

    broken = np.stack([one.broken for one in columns], axis=-1)
    broken = broken[np.logical_and.reduce([one.trained for one in columns])]
    if len(columns) < 2 or not broken.any():
        return np.ones(replications)
    # A study is told by how many of its seeds end in each of the ways that the pilot's did, side by side.
    ways, times = np.unique(broken, axis=0, return_counts=True)
    drawn = rng.multinomial(seeds, times / times.sum(), size=replications)
    order = (drawn @ ways).argsort(axis=-1, kind="stable")
    fewest, most = ways.T[order[:, 0]], ways.T[order[:, -1]]
    one, other = ((drawn * alone).sum(axis=-1) for alone in (most & ~fewest, fewest & ~most))
    return np.minimum(1.0, 2 * stats.binom.sf(np.maximum(one, other) - 1, one + other, 0.5))


def speaks_of_survivors(claim: Claim) -> bool:
    """Whether a claim compares scores of the seeds that are left, without saying so."""
    return isinstance(claim, Scored) and getattr(claim, "among", None) is None
