"""How costs grow: seconds at several sizes, and slopes fitted to them by least squares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.parts import Part


@dataclass(frozen=True)
class Curve:
    """One thing that grows.

    Attributes:
        what: the work, and what of it grows.
        sizes: of what grows.
        seconds: medians, one for each size.
    """

    what: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def unit_ms(self) -> float:
        """Milliseconds for each unit more."""
        return 1000 * slopes(self.sizes, self.seconds)[0]

    @property
    def exponent(self) -> float | None:
        """Of growth, which is 1 where twice as much takes twice as long; none where a size is 0."""
        return None if 0 in self.sizes else slopes(self.sizes, self.seconds)[1]


def slopes(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds for each unit more, and the exponent of growth, by least squares.

    Example:
        >>> [round(float(slope), 3) for slope in slopes([1, 2, 4], [0.5, 1.0, 2.0])]
        [0.5, 1.0]
    """
    if 0 in sizes:
        return float(np.polyfit(sizes, seconds, 1)[0]), float("nan")
    return float(np.polyfit(sizes, seconds, 1)[0]), float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def fitted(parts: Mapping[str, Part], models: Mapping[str, int]) -> Iterator[Curve]:
    """Every curve of which at least two sizes were measured.

    Args:
        parts: by name.
        models: how many models each kind of ``layerwise run`` tracks, by the part's name.
    """
    for what, pattern in (
        ("engine, 10 seeds: one stage, by its depth", r"engine-depth-(\d+)"),
        ("plain Keras, 1 seed: one stage, by its depth", r"plain-depth-(\d+)"),
        ("engine: eleven stages, by seeds", r"engine-(\d+)"),
        *((f"engine, 10 seeds, four stages of fifty epochs: by {thing}", rf"growth-{thing}-(\d+)") for thing in GROWN),
    ):
        matched = {name: re.fullmatch(pattern, name) for name in parts}
        yield from _curve(what, {int(found[1]): parts[name].seconds for name, found in matched.items() if found})
    yield from _curve(
        "layerwise run: by models tracked", {models[name]: parts[name].seconds for name in models if name in parts}
    )


GROWN = ("depth", "rows", "width", "arms")
"""What benchmarks.growth grows for the suite."""


def _curve(what: str, found: dict[int, float]) -> Iterator[Curve]:
    if len(found) > 1:
        sizes = tuple(sorted(found))
        yield Curve(what, sizes, tuple(found[size] for size in sizes))
