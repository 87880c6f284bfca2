"""Whether two computations of a study agree: to the bit, within a stated tolerance, or not, and where first not.

What is compared are values at places: scores and outcomes of a seed at a depth, and digests of weights. Digests are
equal or not; how far two sets of weights are from each other they do not tell. So weights that differ are taken for
rounding only where scores show that the arithmetic rounds otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["EXACT", "WITHIN TOLERANCE", "DIFFERENT"]
Value = float | bool | str

LEVELS: dict[Verdict, str] = {"EXACT": "R0", "WITHIN TOLERANCE": "R1", "DIFFERENT": "neither R0 nor R1"}
"""The level of reproducibility that a verdict stands for."""

RELATIVE = 1e-3
"""How far a score may be from the other for rounding's sake, as a share of the larger one."""

ABSOLUTE = {"accuracy": 5e-3, "r2": 1e-3}
"""How far scores of a name that ends so may be from each other: through training, rounding moves a row now and then."""

SMALLEST = 1e-6
"""What any score may differ by: near nought, no share of it says anything."""

TOLERANCE = (
    f"scores within {RELATIVE:g} of their size, accuracies within {ABSOLUTE['accuracy']:g},"
    f" R2 within {ABSOLUTE['r2']:g}, the same outcomes"
)
"""What *within tolerance* means, in words."""


@dataclass(frozen=True)
class Place:
    """Where a value belongs.

    Attributes:
        arm: the arm.
        first_seed: the lowest seed that it is of.
        last_seed: the highest.
        stage: the stage that made it.
        depth: number of hidden layers.
        name: of the value, as in ``"train_accuracy"`` or ``"weights"``.
    """

    arm: str
    first_seed: int
    last_seed: int
    stage: str
    depth: int
    name: str

    def __str__(self) -> str:
        """In words: ``greedy, seeds 0-9, base, depth 1: weights``."""
        one = self.first_seed == self.last_seed
        seeds = f"seed {self.first_seed}" if one else f"seeds {self.first_seed}-{self.last_seed}"
        return f"{self.arm}, {seeds}, {self.stage}, depth {self.depth}: {self.name}"


@dataclass(frozen=True)
class Difference:
    """A place at which two computations do not have the same bits; ``None`` where one of them has no value."""

    place: Place
    before: Value | None
    now: Value | None

    @property
    def is_digest(self) -> bool:
        """Whether two digests differ, which may be by rounding or by anything."""
        return isinstance(self.before, str) and isinstance(self.now, str)

    @property
    def tolerable(self) -> bool:
        """Whether the two may be one value, rounded otherwise."""
        return self.is_digest or close(self.place.name, self.before, self.now)

    def __str__(self) -> str:
        """In words, with both values to the bit."""
        return f"{self.place}: {_said(self.before)} before, {_said(self.now)} now"


@dataclass(frozen=True)
class Agreement:
    """How two computations compare.

    Attributes:
        compared: places by the kind of value: ``"scores"`` (with outcomes) and ``"digests"``.
        differences: where they do not have the same bits, in the order of training.
    """

    compared: Mapping[str, int]
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        """What that comes to."""
        if not self.differences:
            return "EXACT"
        rounded = any(not found.is_digest for found in self.differences)
        tolerable = rounded and all(found.tolerable for found in self.differences)
        return "WITHIN TOLERANCE" if tolerable else "DIFFERENT"

    def first(self, *, tolerable: bool = True, digests: bool = True) -> Difference | None:
        """The first difference; with ``False``, the first beyond tolerance, or the first that is of no digest."""
        for found in self.differences:
            if (tolerable or not found.tolerable) and (digests or not found.is_digest):
                return found
        return None


def compare(before: Mapping[Place, Value], now: Mapping[Place, Value]) -> Agreement:
    """Compare two computations, place by place, in the order of the second.

    Example:
        >>> place = Place("greedy", 0, 0, "evaluate", 1, "test_loss")
        >>> compare({place: 0.5}, {place: 0.5}).verdict
        'EXACT'
        >>> compare({place: 0.5}, {place: 0.50000001}).verdict
        'WITHIN TOLERANCE'
        >>> str(compare({place: 0.5}, {place: 0.6}).first())
        'greedy, seed 0, evaluate, depth 1: test_loss: 0.5 before, 0.6 now'
    """
    kinds = [isinstance(value, str) for value in now.values()]
    return Agreement({"scores": kinds.count(False), "digests": kinds.count(True)}, tuple(_differences(before, now)))


def close(name: str, one: Value | None, other: Value | None) -> bool:
    """Whether two scores of that name are equal within the tolerance; of outcomes, whether they are equal."""
    if not (isinstance(one, float) and isinstance(other, float)):
        return one == other
    absolute = next((room for ending, room in ABSOLUTE.items() if name.endswith(ending)), SMALLEST)
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=absolute)


def _differences(before: Mapping[Place, Value], now: Mapping[Place, Value]) -> Iterator[Difference]:
    for place, value in now.items():
        if place not in before or before[place] != value:
            yield Difference(place, before.get(place), value)
    for place, value in before.items():
        if place not in now:
            yield Difference(place, value, None)


def _said(value: Value | None) -> str:
    return "none" if value is None else value if isinstance(value, str) else repr(value)
