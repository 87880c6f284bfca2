"""The bounds that the project has set itself, and whether the parts of a run of the suite keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.parts import Part

Parts = Mapping[str, Part]


@dataclass(frozen=True)
class Aim:
    """A bound, and what was measured against it.

    Attributes:
        what: the figure, in words.
        measured: its value; ``None`` where a part of it was not measured.
        bound: what it is held against.
        unit: of both; empty for a ratio.
        at_least: whether the bound is the lowest good value instead of the highest.
    """

    what: str
    measured: float | None
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps the bound; ``None`` where there is no figure."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def asked(self) -> str:
        """The bound, in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}".rstrip()

    @property
    def found(self) -> str:
        """The figure, in words."""
        return "not measured" if self.measured is None else f"{self.measured:.2f} {self.unit}".rstrip()


def judged(parts: Parts, seeds: tuple[int, ...], models: int) -> list[Aim]:
    """Every aim.

    Args:
        parts: by name.
        seeds: those of the engine's parts; the first are the main job's, the last the many.
        models: how many the main job tracks.
    """
    main, many = seeds[0], seeds[-1]
    ratio, seconds = _over(parts), _seconds(parts)
    deepest = max((int(name.rpartition("-")[2]) for name in parts if name.startswith("engine-depth-")), default=0)
    return [
        Aim(f"engine / JAX vmap + scan, {main} seeds, warm", ratio(f"engine-{main}", f"jax-{main}"), 1.0),
        Aim(f"engine / JAX vmap + scan, {many} seeds, warm", ratio(f"engine-{many}", f"jax-{many}"), 1.0),
        Aim("engine / JAX, unsupervised, warm", ratio("engine-unsupervised", "jax-unsupervised"), 1.0),
        Aim(
            "work done by two processes over work done by one",
            _twice(ratio(f"engine-{many}", "engine-both")),
            1.8,
            at_least=True,
        ),
        Aim(f"layerwise run, {main} seeds, all models / plain Keras, ONE seed", ratio("run", "plain"), 0.5),
        Aim(f"layerwise run, {many} seeds, all models / plain Keras, ONE seed", ratio("run-many", "plain"), 1.3),
        Aim("cost of a tracked model", _per_model(parts, models), 15, "ms"),
        Aim("tracing and compiling, slowest shape", _slowest_shape(parts), 1.0, "s"),
        Aim(f"stage at depth {deepest} / at depth 3", ratio(f"engine-depth-{deepest}", "engine-depth-3"), 1.1),
        Aim("layerwise run of the finished study", seconds("finished"), 5.0, "s"),
        Aim("layerwise --help", seconds("help"), 0.4, "s"),
        Aim("layerwise run: peak memory of its largest process", _megabytes(parts, "run"), 1200, "MB"),
        Aim("keras.Model.fit / engine, wide layers", ratio("wide-keras", "wide-engine"), 2.5, at_least=True),
        Aim("the same with steps_per_execution", ratio("wide-steps", "wide-engine"), 1.5, at_least=True),
    ]


def _over(parts: Parts) -> Callable[[str, str], float | None]:
    def ratio(one: str, other: str) -> float | None:
        return parts[one].seconds / parts[other].seconds if one in parts and other in parts else None

    return ratio


def _seconds(parts: Parts) -> Callable[[str], float | None]:
    return lambda name: parts[name].seconds if name in parts else None


def _twice(ratio: float | None) -> float | None:
    return None if ratio is None else 2 * ratio


def _per_model(parts: Parts, models: int) -> float | None:
    """Milliseconds by the clock: what tracking all of them adds to a run that tracks none."""
    if not {"run", "run-none"} <= set(parts):
        return None
    return 1000 * (parts["run"].seconds - parts["run-none"].seconds) / models


def _slowest_shape(parts: Parts) -> float | None:
    return max((part.seconds for name, part in parts.items() if name.startswith("shape-")), default=None)


def _megabytes(parts: Parts, name: str) -> float | None:
    return parts[name].largest_mb if name in parts else None
