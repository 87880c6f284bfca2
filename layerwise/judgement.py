"""Whether a run is as good as the one that was accepted before it: bit for bit, or, where bits cannot tell, by tests.

Between equal versions on an equal machine a computation has the same bits, so any changed bit is a finding. Where
versions or machine differ, rounding does; then seeds are paired and tested, and claims must keep their verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerwise.across import Across
from layerwise.agreement import Agreement
from layerwise.comparison import Difference
from layerwise.statistics import SCORE_NAMES, holm

Verdict = Literal["FIRST", "EXACT", "CHANGED", "NO WORSE", "WORSE", "NOT COMPARABLE"]

REGRESSED: tuple[Verdict, ...] = ("CHANGED", "WORSE", "NOT COMPARABLE")
"""Verdicts that a person has to look at: a run that cannot be judged has not passed."""

ALPHA = 0.05
"""Chance of any wrong finding in the family of all differences tested."""

RANKS = {"supported": 2, "undecided": 1, "refuted": 0}

MOST_SHOWN = 5
"""Findings in a reason of one line; all of them are in the record."""


@dataclass(frozen=True)
class Judgement:
    """What was found of a run.

    Attributes:
        verdict: what it comes to.
        words: why, in one line.
        findings: what changed or got worse, a line each, in the order of training.
    """

    verdict: Verdict
    words: str
    findings: tuple[str, ...] = ()

    @property
    def regressed(self) -> bool:
        """Whether a person has to look at it."""
        return self.verdict in REGRESSED

    @property
    def line(self) -> str:
        """Verdict and reason."""
        return f"{self.verdict}: {self.words}"


def by_bits(agreed: Agreement, claims: Sequence[str] = ()) -> Judgement:
    """Judge by every score, outcome and digest.

    Args:
        agreed: how the run compares with the accepted one.
        claims: what :func:`lost_claims` found.

    Example:
        >>> from layerwise.agreement import Place, compare
        >>> place = Place("greedy", 0, 9, "base", 1, "content")
        >>> print(by_bits(compare({place: "ab"}, {place: "cd"})).words)
        1 of 1 values is not as accepted, first in base at depth 1 (greedy, seeds 0-9: content ab before, cd now)
    """
    total = sum(agreed.compared.values())
    if not agreed.differences and not claims:
        return Judgement("EXACT", f"all {total:,} scores, outcomes and digests are as accepted, to the bit")
    findings = tuple(str(found) for found in agreed.differences) + tuple(claims)
    return Judgement("CHANGED", "; ".join(_changed(agreed, total, claims)), findings)


def _changed(agreed: Agreement, total: int, claims: Sequence[str]) -> Iterator[str]:
    first, count = agreed.first(), len(agreed.differences)
    if first is not None:
        place, are = first.place, "is" if count == 1 else "are"
        seeds = str(place).partition(f", {place.stage}, depth")[0]
        values = str(first).partition(f"{place.name}: ")[2]
        yield (
            f"{count:,} of {total:,} values {are} not as accepted, first in {place.stage} at depth {place.depth}"
            f" ({seeds}: {place.name} {values})"
        )
    yield from claims[:MOST_SHOWN]


def by_scores(across: Across, claims: Sequence[str] = ()) -> Judgement:
    """Judge by the paired differences on the test part, by outcomes, and by claims.

    A score is worse where its mean fell and the sign-flip test, after Holm over all arms and depths, finds it; so are
    outcomes where more seeds broke and McNemar's test, likewise, finds it.

    Args:
        across: the accepted run and this one, in this order.
        claims: what :func:`lost_claims` found.
    """
    score, tested = SCORE_NAMES[across.score], across.tested
    outcomes = _adjusted([one.outcomes_p for one in tested])
    worse = [
        *(
            _fell(one, p, score)
            for one, p in zip(tested, across.adjusted, strict=True)
            if one.values.mean < 0 and p < ALPHA
        ),
        *(
            _broke(one, p)
            for one, p in zip(tested, outcomes, strict=True)
            if one.broken > one.other_broken and p < ALPHA
        ),
        *claims,
    ]
    if worse:
        more = f"; and {len(worse) - MOST_SHOWN} more" if len(worse) > MOST_SHOWN else ""
        return Judgement("WORSE", "; ".join(worse[:MOST_SHOWN]) + more + _compared(across), tuple(worse))
    seeds = across.seeds[0]
    tests = f"{len(tested)} paired differences over {seeds} seeds"
    words = f"none of {tests} shows a fall in test {score} (level {ALPHA:g}, Holm)"
    if 2 * len(tested) * 2.0**-seeds > ALPHA:
        words += f", but with {seeds} seeds none could"
    return Judgement("NO WORSE", words + _compared(across))


def _compared(across: Across) -> str:
    """Which arms grew to another depth than they did before, which no paired difference shows; empty if none did."""
    before, now = (run.metrics.groupby("arm", sort=False)["depth"].max() for run in across.runs[:2])
    apart = [
        f"{arm} ends at depth {now[arm]}, not {before[arm]}"
        for arm in now.index
        if arm in before.index and now[arm] != before[arm]
    ]
    return f"; the depths that both have were compared: {', '.join(apart)}" if apart else ""


def _adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm over the tests that could be made; NaN, which is below no level, stays."""
    known = [p for p in p_values if not math.isnan(p)]
    adjusted = iter(holm(np.array(known)).tolist() if known else [])
    return [p if math.isnan(p) else next(adjusted) for p in p_values]


def _fell(one: Difference, p: float, score: str) -> str:
    values = one.values
    return (
        f"test {score} of {one.arm.rpartition('/')[2]} at depth {one.depth} fell by {-values.mean:.4f} (95 % interval"
        f" {values.ci_low:+.4f} to {values.ci_high:+.4f}, {values.seeds} seeds, p {p:.2g} after Holm)"
    )


def _broke(one: Difference, p: float) -> str:
    return (
        f"{one.broken} seeds of {one.arm.rpartition('/')[2]} at depth {one.depth} diverged or collapsed, and"
        f" {one.other_broken} in the accepted run (p {p:.2g} after Holm)"
    )


def lost_claims(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """Claims whose verdict is not as good as it was, a line each.

    Args:
        before: verdicts of the accepted run, as plain JSON; None without claims.
        now: those of the run that is judged.

    Example:
        >>> lost_claims({"verdicts": [{"claim": "rises", "verdict": "supported"}]},
        ...             {"verdicts": [{"claim": "rises", "verdict": "undecided"}]})
        ['claim rises was supported, and is undecided']
    """
    then, found = _verdicts(before), _verdicts(now)
    return [
        f"claim {claim} was {verdict}, and is {found[claim]}"
        for claim, verdict in then.items()
        if claim in found and RANKS.get(found[claim], 0) < RANKS.get(verdict, 0)
    ]


def _verdicts(said: Mapping[str, Any] | None) -> dict[str, str]:
    return {one["claim"]: one["verdict"] for one in said["verdicts"]} if said else {}
