"""A part of the suite: one thing that was timed, by whatever processes, and its median."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass

from benchmarks.measuring import Child, Times


@dataclass(frozen=True)
class Part:
    """One line of a table.

    Attributes:
        name: how the aims refer to it.
        what: what was timed.
        times: of each repeat, in all rounds.
        largest_mb: peak memory of the largest process.
        together_mb: highest sum over its processes; pages they share count twice.
        load: load averages of the machine when its processes began.
    """

    name: str
    what: str
    times: list[Times]
    largest_mb: float
    together_mb: float | None
    load: list[float]

    @property
    def seconds(self) -> float:
        """The median by the clock."""
        return statistics.median(times.wall for times in self.times)

    @property
    def processor_seconds(self) -> float:
        """The median of processor time."""
        return statistics.median(times.processor for times in self.times)

    def with_more(self, other: Part) -> Part:
        """The part with the repeats of another round.

        Example:
            >>> one = Part("help", "layerwise --help", [Times(0.2, 0.2)], 50.0, None, [0.1])
            >>> one.with_more(dataclasses.replace(one, times=[Times(0.4, 0.3)], largest_mb=60.0)).seconds
            0.30000000000000004
        """
        sums = [one for one in (self.together_mb, other.together_mb) if one is not None]
        return dataclasses.replace(
            self,
            times=[*self.times, *other.times],
            largest_mb=max(self.largest_mb, other.largest_mb),
            together_mb=max(sums) if sums else None,
            load=[*self.load, *other.load],
        )

    @classmethod
    def whole(cls, name: str, what: str, child: Child) -> Part:
        """A whole process."""
        return cls._of(name, what, child, [child.times])

    @classmethod
    def repeated(cls, name: str, what: str, child: Child, key: str) -> Part:
        """What a process repeated in itself: ``"cold"`` or ``"warm"``."""
        return cls._of(name, what, child, child.repeats(key))

    @classmethod
    def told(cls, name: str, what: str, child: Child, seconds: float) -> Part:
        """What a process says of a piece of its work; of its processor time it says nothing."""
        return cls._of(name, what, child, [Times(seconds, float("nan"))])

    @classmethod
    def _of(cls, name: str, what: str, child: Child, times: list[Times]) -> Part:
        return cls(name, what, times, child.largest_mb, child.together_mb, [child.load])
