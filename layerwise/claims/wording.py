"""Claims and verdicts in words."""

from __future__ import annotations

import math
from typing import Any

from layerwise.claims.evidence import Evidence
from layerwise.study import Bound, Claim, Compare, Equivalent, Ordered, Rate, Ratio, Score, Study, Trend, sides


def sentence(study: Study, claim: Claim) -> str:
    """What a claim says, in words.

    Example:
        >>> from layerwise.claims.wording import sentence
        >>> from layerwise.study import load
        >>> study = load("few-labels")
        >>> sentence(study, study.claims["frozen_beats_scratch"])
        'test accuracy of denoising_frozen is above that of scratch at depth 2'
    """
    tests = sides(study, claim)
    first = tests[0]
    match claim:
        case Trend():
            more = f" by more than {claim.by:g} a layer" if claim.by else ""
            rises = "rises" if claim.direction == "up" else "falls"
            return f"{_of(first[0])} {rises} with depth{more}, from depth {first[0].depth} to {first[-1].depth}"
        case Ordered():
            named = [name if isinstance(name, str) else f"{name[0]} minus {name[1]}" for name in claim.arms]
            rises = "rises" if claim.direction == "up" else "falls"
            return f"{_metric(first[0])} {rises} in the order {', '.join(named)}, at depth {_depth(first[0])}"
        case Rate():
            return f"{_rate(claim, first)} at depth {_depths(tests)}"
        case Ratio():
            bound = (
                f"between 1/{claim.within:g} and {claim.within:g}" if claim.within else _held(claim.above, claim.below)
            )
            spread = f"the sd over seeds of {_of(first[0])}"
            return f"{spread} is {bound} times that of {_other(first[0], first[1])} at depth {_depths(tests)}"
        case _:
            own = _side(first[: max(1, len(first) // 2)])
            return f"{own} {_relation(claim, first)} at depth {_depths(tests)}{_among(claim)}"


def _relation(claim: Compare | Equivalent | Bound, first: tuple[Score, ...]) -> str:
    other = _other(first[0], first[len(first) // 2]) if len(first) > 1 else ""
    if len(first) == 4:
        other = f"{first[2].arm} minus {first[3].arm}"
    match claim:
        case Compare():
            more = f", by more than {claim.by:g}" if claim.by else ""
            return f"is {'above' if claim.above is not None else 'below'} that of {other}{more}"
        case Equivalent():
            return f"is within {claim.within:g} of that of {other}"
        case Bound():
            bound = f"at most {claim.at_most:g}" if claim.at_most is not None else f"at least {claim.at_least:g}"
            return f"minus that of {other} is {bound}" if other else f"is {bound}"


def _rate(claim: Rate, first: tuple[Score, ...]) -> str:
    has = {"diverged": "diverge", "collapsed": "collapse", "broken": "diverge or collapse"}[claim.outcome]
    if len(first) == 1:
        bound = f"at most {claim.at_most:g}" if claim.at_most is not None else f"at least {claim.at_least:g}"
        return f"the rate at which seeds of {first[0].arm} {has} is {bound}"
    seldom = "less" if claim.below is not None else "more"
    return f"seeds of {first[0].arm} {has} {seldom} often than those of {_other(first[0], first[1])}"


def _held(above: float | None, below: float | None) -> str:
    return f"above {above:g}" if above is not None else f"below {below:g}"


def _side(scores: tuple[Score, ...]) -> str:
    return _of(scores[0]) if len(scores) == 1 else f"{_of(scores[0])} minus {scores[1].arm}"


def _of(score: Score) -> str:
    return f"{_metric(score)} of {score.arm}"


def _metric(score: Score) -> str:
    return score.column.removeprefix(score.prefix).replace("_", " ")


def _other(own: Score, other: Score) -> str:
    """The other side of a comparison, by what sets it apart."""
    if own.arm != other.arm:
        return other.arm if own.depth == other.depth else f"{other.arm} at depth {other.depth}"
    if own.depth != other.depth:
        return f"depth {other.depth}"
    return "the network before fine tuning" if own.prefix else "the fine-tuned network"


def _depth(score: Score) -> str:
    return str(score.depth)


def _depths(tests: tuple[tuple[Score, ...], ...]) -> str:
    depths = [side[0].depth for side in tests]
    if len(depths) > 2 and depths == list(range(depths[0], depths[-1] + 1)):
        return f"{depths[0]} to {depths[-1]}"
    return ", ".join(map(str, depths[:-1])) + f" and {depths[-1]}" if len(depths) > 1 else str(depths[0])


def _among(claim: Any) -> str:
    return {"intact": ", among seeds that stay intact", "collapsed": ", among seeds that collapse"}.get(claim.among, "")


def number(value: float, *, signed: bool = False) -> str:
    """A number with four decimals, or two significant digits where those would say nothing."""
    if math.isnan(value):
        return "unknown"
    text = f"{value:{'+' if signed else ''}.4f}"
    return text if abs(value) >= 0.00005 or value == 0 else f"{value:{'+' if signed else ''}.2g}"


def p_value(value: float) -> str:
    """A p-value, as it is printed."""
    if math.isnan(value):
        return "unknown"
    return "< .0001" if value < 0.0001 else f"{value:.4f}".lstrip("0") if value < 0.99995 else "1"


ESTIMATES = {
    "compare": "mean difference",
    "equivalent": "mean difference",
    "bound": "mean",
    "trend": "mean slope a layer",
    "ordered": "mean rank correlation",
    "rate": "rate",
    "ratio": "ratio",
}


def found_in_words(claim: Claim, one: Evidence, *, several: bool) -> str:
    """What the test that decides a claim found: the estimate with its interval, the seeds, how the others ended."""
    if not one.seeds:
        return f"no seed counts{_broken(one)}"
    two = len(one.outcomes) > 1
    name = ESTIMATES[claim.kind] + (" difference" if two and claim.kind in {"bound", "rate"} else "")
    where = f" at depth {one.depth}, the least clear," if several else ""
    signed = two and claim.kind != "ratio"
    seeds = f"{one.seeds} seed{'s' if one.seeds > 1 else ''}"
    if claim.kind in {"compare", "trend"}:
        seeds += f", {100 * one.numbers['probability']:.0f} % of which show what is claimed"
    return (
        f"{name}{where} {number(one.estimate, signed=signed)}{_interval(one, signed=signed)} over {seeds}{_broken(one)}"
    )


def p_in_words(decision: str, p: float, p_against: float, claims: int, level: float) -> str:
    """The p-values of a verdict after Holm, with the nulls that they belong to."""
    false, true = f"p {p_value(p)} were the claim false", f"p {p_value(p_against)} were it true"
    told = {"supported": false, "refuted": true.replace(" it ", " the claim ")}.get(decision, f"{false}, {true}")
    holm = f" after Holm over {claims} claims" if claims > 1 else ""
    return f"{told}{holm}; level {level:.3g}"


def undecided_in_words(one: Evidence, needed: int | None) -> str:
    """Why a claim is undecided, and what would decide it."""
    if one.seeds < 2:
        return "too few seeds count"
    if needed is None:
        return "no number of seeds is known to decide it, if the truth is what was seen"
    return f"about {needed:,} seeds would decide it with probability .8, if the truth is what was seen"


def unlike_outcomes_in_words(one: Evidence) -> str:
    """Why the seeds that are left cannot decide a claim."""
    most = max(one.outcomes, key=lambda outcomes: outcomes.broken)
    fewest = min(one.outcomes, key=lambda outcomes: outcomes.broken)
    return (
        f"{most.broken} of {most.seeds} seeds of {most.arm} at depth {most.depth} broke, and {fewest.broken} of"
        f" {fewest.seeds} of {fewest.arm} at depth {fewest.depth} (McNemar p {p_value(one.outcomes_p)}), and those"
        " that are left do not speak for all"
    )


def _interval(one: Evidence, *, signed: bool) -> str:
    if math.isnan(one.low):
        return ""
    return f" (95 % interval {number(one.low, signed=signed)} to {number(one.high, signed=signed)})"


def _broken(one: Evidence) -> str:
    """The counts of seeds that are not intact, of each side that has any."""
    counted = dict.fromkeys(
        f"of {found.seeds} seeds of {found.arm} at depth {found.depth}, {found.diverged} diverged and"
        f" {found.collapsed} collapsed"
        for found in one.outcomes
        if found.broken
    )
    return f"; {'; '.join(counted)}" if counted else ""
