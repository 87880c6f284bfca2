"""Claims: falsifiable sentences that a study's own run decides.

A claim speaks of *scores*. A score is a metric of one arm at one depth, under its name in MLflow, such as
``test_accuracy``. The plain name means the *finished* network, the one that the arm leaves at that depth: fine-tuned
where the arm fine-tunes there, otherwise as pretraining and head left it. So an arm that is fine-tuned and one that is
not, such as ``scratch``, are compared by one word. ``stage: pretrained`` asks for the network before fine tuning, and
a name with ``fine_tuned_`` for the fine-tuned one and no other.

Nothing here has a part in the digest of a stage: what is claimed changes no training.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from layerwise.study.parts import Count, Part, Positive

FINE_TUNED = "fine_tuned_"
"""What a fine-tuned network's metrics and outcomes begin with."""

ALPHA = 0.05
"""Chance of any wrong verdict of a kind in a study's family of claims, where the study says nothing else."""

Depths = Literal["all", "final"] | Count | Annotated[tuple[Count, ...], Field(min_length=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Stage = Literal["finished", "pretrained"]


class Other(Part):
    """The other side of a comparison: what is left out is as on the claim's own side. A plain word is an arm."""

    arm: str | None = None
    depth: Count | None = None
    stage: Stage | None = None
    minus: str | None = None
    """An arm whose score is taken off, so that differences are compared."""


def _arm_in_a_word(other: Any) -> Any:
    return {"arm": other} if isinstance(other, str) else other


OtherSide = Annotated[Other, BeforeValidator(_arm_in_a_word)]


class ClaimPart(Part):
    """What every claim can say."""

    stage: Stage = "finished"

    side: ClassVar[tuple[str, ...]] = ()
    """The keys that can name the other side."""

    @model_validator(mode="after")
    def _other_says_something(self) -> Self:
        if self.other == Other():
            raise ValueError("the other side says nothing; name an arm, or say its depth or stage")
        return self

    @property
    def other(self) -> Other | None:
        """The other side, if the claim has one."""
        return next((said for key in self.side if isinstance(said := getattr(self, key), Other)), None)

    def _one_of(self, *keys: str) -> None:
        said = [key for key in keys if getattr(self, key) is not None]
        if len(said) != 1:
            received = " and ".join(said) if said else "none of them"
            raise ValueError(f"received {received}; say exactly one of {', '.join(keys)}")


class Scored(ClaimPart):
    """A claim on a metric, under its name in MLflow."""

    metric: str

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.metric.startswith(FINE_TUNED) and self.stage == "pretrained":
            raise ValueError(f"stage: pretrained contradicts the metric {self.metric}; leave one of them out")
        return self


class Compare(Scored):
    """The mean difference, paired by seed, is above (or below) zero, or by more than ``by``, at each of the depths."""

    kind: Literal["compare"]
    arm: str
    minus: str | None = None
    """An arm whose score is taken off, so that differences are compared; the other side says its own."""
    above: OtherSide | None = None
    below: OtherSide | None = None
    by: Amount = 0.0
    """Smallest difference that counts, in the metric's unit."""
    depth: Depths = "final"
    among: Literal["intact", "collapsed"] | None = None
    """Makes it a claim about those seeds alone: intact on both sides, or collapsed on the claim's own side."""

    side = ("above", "below")

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        self._one_of("above", "below")
        return self


class Equivalent(Scored):
    """The mean difference, paired by seed, lies within plus or minus ``within`` at each of the depths."""

    kind: Literal["equivalent"]
    arm: str
    to: OtherSide
    within: Positive
    """In the metric's unit."""
    depth: Depths = "final"
    among: Literal["intact", "collapsed"] | None = None

    side = ("to",)


class Trend(Scored):
    """The mean of each seed's slope on depth is above (``up``) or below (``down``) zero, or by more than ``by``."""

    kind: Literal["trend"]
    arm: str
    direction: Literal["up", "down"]
    by: Amount = 0.0
    """Smallest slope that counts, in the metric's unit per layer."""
    depth: Depths = "all"


class Ordered(Scored):
    """Several arms, or differences of pairs of arms, come in the order given (Page's trend)."""

    kind: Literal["ordered"]
    arms: Annotated[tuple[str | tuple[str, str], ...], Field(min_length=3)]
    """Each an arm, or a pair ``[arm, minus]``."""
    direction: Literal["up", "down"]
    depth: Literal["final"] | Count = "final"


class Bound(Scored):
    """The mean, or the mean difference from ``minus``, is at most or at least a value at each of the depths."""

    kind: Literal["bound"]
    arm: str
    minus: OtherSide | None = None
    at_most: Number | None = None
    at_least: Number | None = None
    depth: Depths = "all"
    among: Literal["intact", "collapsed"] | None = None

    side = ("minus",)

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        self._one_of("at_most", "at_least")
        return self


class Rate(ClaimPart):
    """An outcome is rarer or more frequent than on the other side (McNemar), or than a rate."""

    kind: Literal["rate"]
    outcome: Literal["diverged", "collapsed", "broken"]
    """``broken`` is either of the others."""
    arm: str
    above: OtherSide | None = None
    below: OtherSide | None = None
    at_most: Probability | None = None
    at_least: Probability | None = None
    depth: Depths = "final"

    side = ("above", "below")

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        self._one_of("above", "below", "at_most", "at_least")
        return self


class Ratio(Scored):
    """The ratio of two arms' standard deviations over seeds is above or below a value, or ``within`` 1/w to w."""

    kind: Literal["ratio"]
    arm: str
    to: OtherSide
    above: Positive | None = None
    below: Positive | None = None
    within: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    depth: Depths = "final"

    side = ("to",)

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        self._one_of("above", "below", "within")
        return self


KINDS_OF_CLAIM: dict[str, type[ClaimPart]] = {
    "compare": Compare,
    "trend": Trend,
    "ordered": Ordered,
    "equivalent": Equivalent,
    "bound": Bound,
    "rate": Rate,
    "ratio": Ratio,
}
Claim = Annotated[
    Compare | Trend | Ordered | Equivalent | Bound | Rate | Ratio,
    Field(discriminator="kind"),
]


class Stop(Part):
    """When to look at the claims before all seeds are trained: at fixed numbers of seeds, or every so many.

    Training stops at the first look at which every claim is decided. ``seeds`` is the last look.
    """

    every: Count | None = None
    looks: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.every is None) == (self.looks is None):
            raise ValueError("say either every or looks, as in {every: 10} or {looks: [10, 20]}")
        if self.looks is not None and list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks: received {list(self.looks)}; expected numbers of seeds that grow")
        return self
