"""Growing by rule: layers are added only as long as the newest is worth it, on validation and by the first seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from layerwise.study.parts import Part, Positive
from layerwise.study.scores import held_out, looks, sides

if TYPE_CHECKING:
    from layerwise.study.claims import Claim
    from layerwise.study.study import Study

SHALLOWEST = 2
"""Depth at which growth can end at the earliest: the second layer is the first that has one below to gain on."""


class Grow(Part):
    """When to add no further layer to an arm: once its newest is shown to gain less on validation than it is worth.

    The first ``seeds`` of every arm are trained first, depth by depth, and settle how deep it becomes, for these and
    for all others. So more seeds never change which depths are trained. Controls become as deep as the arm that they
    control for.
    """

    worth: Positive
    """Gain in validation accuracy, or R2 of numbers, that a layer must bring over the depth below."""
    seeds: Annotated[int, Field(ge=2, strict=True)] = 10
    """How many of the first seeds settle it: whole blocks of seeds that train side by side."""


def check_grow(study: Study) -> None:
    """Refuse a rule that the study cannot follow; the message says what was received and what would do."""
    if study.grow is None:
        return
    if not study.data.split.validation:
        raise ValueError("grow: layers are worth what they gain on validation; add data.split.validation")
    _check_seeds(study, study.grow)
    for arm in study.roots:
        _check_scored(study, arm)
    if all(study.planned(arm).depth < SHALLOWEST for arm in study.roots):
        raise ValueError("grow: every arm has one hidden layer, so none can be added; give network.layers more")
    for arm in study.arms:
        of = study.root(arm)
        deep, own = study.planned(of).depth, study.planned(arm).depth
        if deep != own:
            raise ValueError(
                f"grow: {arm} is to become as deep as {of}, which it controls for, but it has {own} hidden layers where"
                f" {of} has {deep}; give both as many"
            )
    for name, claim in (study.claims or {}).items():
        try:
            _check_claim(study, claim)
        except ValueError as error:
            raise ValueError(f"claims.{name}: {error}") from None


def _check_seeds(study: Study, grow: Grow) -> None:
    size = len(study.blocks()[0])
    if grow.seeds % size:
        raise ValueError(
            f"grow.seeds: received {grow.seeds}; seeds train {size} at a time, so use a multiple of {size}"
        )
    if grow.seeds > study.seeds:
        raise ValueError(
            f"grow.seeds: received {grow.seeds}, but the study has {study.seeds} seeds; train at least as many"
        )
    if looks(study)[0] < grow.seeds:
        raise ValueError(
            f"stop: the first look is at {looks(study)[0]} seeds, but {grow.seeds} settle how deep arms grow; look at"
            f" {grow.seeds} or later"
        )


def _check_scored(study: Study, arm: str) -> None:
    asked = study.planned(arm)
    if len(asked.depths) < asked.depth:
        raise ValueError(
            f"grow: {arm} is scored at depth {asked.depth} alone, and growing compares depths; leave arms.{arm}.depths"
            " out"
        )
    if asked.fine_tune is not None and asked.fine_tune.at == "end" and asked.depth > 1:
        raise ValueError(
            f"grow: {arm} is fine-tuned at its end alone, so its depths cannot be compared; say"
            f" arms.{arm}.fine_tune.at: every_depth"
        )


def _check_claim(study: Study, claim: Claim) -> None:
    """Refuse a claim that would say nothing where arms may end, with the depths at which it would not."""
    for form in ends(study):
        try:
            sides(form, claim)
        except ValueError as error:
            ended = ", ".join(f"{arm} at depth {form.procedure(arm).depth}" for arm in study.roots)
            raise ValueError(f"growth may end {ended}, and then {error}") from None
    left = study.seeds - held_out(study, claim)
    if left < 2:
        raise ValueError(
            f"it is of a depth that the first {held_out(study, claim)} seeds settle, and the others decide it; train"
            f" {held_out(study, claim) + 2} seeds or more, or name depth 1 or {SHALLOWEST}"
        )


def ends(study: Study) -> Iterator[Study]:
    """The study grown as little as can be, as much as can be, and each arm by itself otherwise than the others.

    One that does not grow is as it is.
    """
    if study.grow is None:
        yield study
        return
    roots = study.roots
    most = {arm: study.planned(arm).depth for arm in roots}
    least = {arm: min(SHALLOWEST, depth) for arm, depth in most.items()}
    yield study.grown(least)
    yield study.grown(most)
    for arm in roots if len(roots) > 1 else ():
        yield study.grown({**most, arm: least[arm]})
        yield study.grown({**least, arm: most[arm]})
