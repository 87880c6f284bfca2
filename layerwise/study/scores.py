"""What the claims of a study are about: the scores they compare, if the study has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwise.study.claims import FINE_TUNED, Claim, Compare, Ordered, Other, Rate, Stage, Stop, Trend
from layerwise.study.parts import nearest

if TYPE_CHECKING:
    from layerwise.study.arms import Procedure
    from layerwise.study.study import Study

LABELS = {
    "train_accuracy": "train accuracy",
    "test_accuracy": "test accuracy",
    "fine_tuned_train_accuracy": "tuned, train",
    "fine_tuned_test_accuracy": "tuned, test",
    "train_r2": "train R2",
    "test_r2": "test R2",
    "fine_tuned_train_r2": "tuned, train",
    "fine_tuned_test_r2": "tuned, test",
}
"""How a table that people read names the scores that answer a study."""


@dataclass(frozen=True)
class Score:
    """One metric of one arm at one depth.

    Attributes:
        arm: the arm's name.
        depth: number of hidden layers.
        column: its column in the table of metrics, ``fine_tuned_`` included; of a rate, the outcome's.
    """

    arm: str
    depth: int
    column: str

    @property
    def prefix(self) -> str:
        """What the outcomes of the same network begin with."""
        return FINE_TUNED if self.column.startswith(FINE_TUNED) else ""


Sides = tuple[Score, ...]
"""What one test of a claim is about: a score; two to compare, or four, two differences; all depths of a trend; all
columns of an order."""


def sides(study: Study, claim: Claim) -> tuple[Sides, ...]:
    """The scores a claim is about, one entry for each test it takes; all of them must hold.

    Raises:
        ValueError: if the study has no such arm, depth or metric, or both sides are the same; one line.
    """
    if isinstance(claim, Ordered):
        return (_columns(study, claim),)
    arm = _known_arm(study, claim.arm, "arm")
    found = _depths(study, claim, arm)
    if isinstance(claim, Trend):
        if len(found) < 2:
            raise ValueError(f"nothing to compare: {arm} has one depth ({found[0]}); a trend needs two or more")
        return (tuple(_score(study, claim, arm, depth) for depth in found),)
    pairs = tuple(_pair(study, claim, arm, depth) for depth in found)
    told_apart = tuple(pair for pair in pairs if len(pair) == 1 or pair[: len(pair) // 2] != pair[len(pair) // 2 :])
    if not told_apart or (claim.depth != "all" and len(told_apart) < len(pairs)):
        raise ValueError(f"nothing to compare: both sides are {arm} at depth {found[-1]}; name another arm or depth")
    return told_apart


def _pair(study: Study, claim: Any, arm: str, depth: int) -> Sides:
    minus = claim.minus if isinstance(claim, Compare) else None
    own, other = _side(study, claim, Other(arm=arm, depth=depth, minus=minus)), claim.other
    if other is None:
        return own
    key = next(key for key in claim.side if isinstance(getattr(claim, key), Other))
    other_arm = _known_arm(study, other.arm or arm, f"{key}.arm")
    other_depth = _known_depth(study, other_arm, other.depth or depth, f"{key}.depth")
    theirs = _side(study, claim, other.model_copy(update={"arm": other_arm, "depth": other_depth}))
    if len(own) != len(theirs):
        raise ValueError(f"{key}: minus stands on one side only; only two differences can be compared, or two scores")
    return own + theirs


def _side(study: Study, claim: Claim, said: Any) -> Sides:
    """One side of a comparison: a score, or the two whose difference it is."""
    arms = [said.arm] if said.minus is None else [said.arm, _known_arm(study, said.minus, "minus")]
    if len(set(arms)) < len(arms):
        raise ValueError(f"minus: received {said.minus!r}, the arm itself; name another arm")
    depths = [_known_depth(study, arm, said.depth, "depth") for arm in arms]
    return tuple(_score(study, claim, arm, depth, said.stage) for arm, depth in zip(arms, depths, strict=True))


def _columns(study: Study, claim: Ordered) -> Sides:
    columns: list[Score] = []
    for named in claim.arms:
        for name in (named,) if isinstance(named, str) else named:
            arm = _known_arm(study, name, "arms")
            depth = study.procedure(arm).depth if claim.depth == "final" else claim.depth
            columns.append(_score(study, claim, arm, _known_depth(study, arm, depth, "depth")))
    kinds = {isinstance(named, str) for named in claim.arms}
    if len(kinds) > 1 or len(set(claim.arms)) < len(claim.arms):
        raise ValueError("arms: expected different arms, or different pairs [arm, minus], and not some of either")
    return tuple(columns)


def _depths(study: Study, claim: Any, arm: str) -> tuple[int, ...]:
    """The depths a claim speaks of."""
    scored = study.procedure(arm).depths
    if claim.depth == "final":
        return (scored[-1],)
    if claim.depth != "all":
        wanted = (claim.depth,) if isinstance(claim.depth, int) else claim.depth
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"depth: received {list(wanted)}; one stands twice")
        return tuple(_known_depth(study, arm, depth, "depth") for depth in wanted)
    other = claim.other
    if other is None or other.arm is None or other.depth is not None:
        return scored
    shared = study.procedure(_known_arm(study, other.arm, claim.side[0])).depths
    found = tuple(depth for depth in scored if depth in shared)
    if not found:
        raise ValueError(f"nothing to compare: {arm} and {other.arm} have no depth in common")
    return found


def _known_arm(study: Study, arm: str, key: str) -> str:
    if arm not in study.arms:
        raise ValueError(f"{key}: received {arm!r}{nearest(arm, list(study.arms))}")
    return arm


def _known_depth(study: Study, arm: str, depth: int, key: str) -> int:
    scored = study.procedure(arm).depths
    if depth not in scored:
        expected = f"{scored[0]}" if len(scored) == 1 else f"{scored[0]} to {scored[-1]}"
        raise ValueError(f"{key}: received {depth}; {arm} is scored at depth {expected}")
    return depth


def _score(study: Study, claim: Claim, arm: str, depth: int, stage: Stage | None = None) -> Score:
    """The column of a claim's metric or outcome, for the network that the claim means."""
    procedure = study.procedure(arm)
    tuned = is_tuned(procedure, depth) and (stage or claim.stage) == "finished"
    prefix = FINE_TUNED if tuned else ""
    if isinstance(claim, Rate):
        return Score(arm, depth, f"{prefix}{claim.outcome}")
    metric = claim.metric
    plain = metric.removeprefix(FINE_TUNED)
    if plain != metric and not tuned:
        raise ValueError(
            f"metric: received {metric!r}, but {arm} has no fine-tuned network at depth {depth};"
            f" {plain} means what each arm leaves, fine-tuned or not"
        )
    known = scored_metrics(study, procedure, tuned=tuned)
    if plain not in known:
        raise ValueError(f"metric: received {metric!r} of {arm}{nearest(plain, known)}")
    return Score(arm, depth, f"{prefix}{plain}")


def is_tuned(procedure: Procedure, depth: int) -> bool:
    """Whether an arm leaves a fine-tuned network at a depth. ``scratch`` spends that budget on training instead."""
    return procedure.control != "scratch" and procedure.tunes_at(depth)


def scored_metrics(study: Study, procedure: Procedure, *, tuned: bool) -> list[str]:
    """The metrics of a network, pretrained or fine-tuned, without the prefix ``fine_tuned_``."""
    parts = ["train", "validation", "test"] if study.data.split.validation else ["train", "test"]
    told = ("accuracy", "loss") if study.data.task == "classification" else ("r2", "mae", "loss")
    names = [f"{part}_{score}" for score in told for part in parts]
    untuned_output = procedure.fine_tune is None or procedure.fine_tune.objective == "reconstruction" or not tuned
    if procedure.objective == "reconstruction" and procedure.control in {None, "end_to_end"} and untuned_output:
        names += [*(f"{part}_reconstruction_mse" for part in parts), "reconstruction_r2"]
    return [*names, "live_units", "effective_rank"]


def held_out(study: Study, claim: Claim) -> int:
    """How many of the first seeds do not count for a claim: those that settled the depth it speaks of.

    Where a study grows, its arms' final depth is chosen by the scores of these seeds, so that they would flatter it;
    the others know nothing of the choice. Depths that are trained whatever they find, such as 1, are of all seeds.
    """
    return study.grow.seeds if study.grow is not None and claim.depth in {"final", "all"} else 0


def looks(study: Study) -> tuple[int, ...]:
    """The numbers of seeds at which the claims are looked at, fixed beforehand; the last is all of them.

    Example:
        >>> from layerwise.study import load, looks
        >>> looks(load("few-labels", overrides=["stop.every=10"]))
        (10, 20, 30)
    """
    if study.stop is None:
        return (study.seeds,)
    early = study.stop.looks or range(study.stop.every or study.seeds, study.seeds, study.stop.every or study.seeds)
    return (*(look for look in early if look < study.seeds), study.seeds)


def check_claims(study: Study) -> None:
    """Refuse a claim that this study cannot speak of; the message says where, what was received, what is known."""
    for name, claim in (study.claims or {}).items():
        try:
            sides(study, claim)
        except ValueError as error:
            raise ValueError(f"claims.{name}: {error}") from None
    if study.claims and study.seeds < 2:
        raise ValueError(
            f"claims: received seeds {study.seeds}, but claims are decided over seeds; expected 2 or more,"
            " or no claims (claims: null, or --set claims=null)"
        )
    if study.stop is not None:
        _check_stop(study, study.stop)


def _check_stop(study: Study, stop: Stop) -> None:
    if not study.claims:
        raise ValueError("stop: there is nothing to decide; add claims, or leave stop out")
    size = len(study.blocks()[0])
    if len(looks(study)) == 1:
        way, received = ("every", stop.every) if stop.looks is None else ("looks", list(stop.looks))
        raise ValueError(
            f"stop.{way}: received {received}, but the study has {study.seeds} seeds, so there is no look before all"
            f" are trained; expected one at fewer than {study.seeds}, or leave stop out (stop: null, or --set"
            " stop=null)"
        )
    uneven = [look for look in looks(study)[:-1] if look % size]
    if uneven:
        raise ValueError(f"stop: received a look at {uneven[0]} seeds; seeds train {size} at a time, so use multiples")
