"""The engine without a tracker or a workflow: :func:`layerwise.run` in this process, first cold, then warm."""

import statistics
import time

STARTED = time.perf_counter()

import layerwise  # noqa: E402 - the clock starts before the imports
from benchmarks import measuring  # noqa: E402
from layerwise import engine, pretraining  # noqa: E402

calls: dict[engine.Problem, list[float]] = {}
"""Seconds of every call of a stage's program; the first one of each traces and compiles it."""


def timed(problem: engine.Problem, *arguments: object) -> engine.Fitted:
    """:func:`layerwise.engine.fit`, with its seconds noted."""
    started = time.perf_counter()
    fitted = fit(problem, *arguments)  # ty: ignore[invalid-argument-type]
    calls.setdefault(problem, []).append(time.perf_counter() - started)
    return fitted


fit, engine.fit = engine.fit, timed  # ty: ignore[invalid-assignment]


def asked_study(asked: measuring.Asked) -> layerwise.Study:
    """The tutorial's supervised study, or the unsupervised one with the arm that is the tutorial's."""
    settings = [f"network.layers.0.repeat={asked.stages}", f"training.epochs={asked.epochs}", "claims=null"]
    if not asked.unsupervised:
        return layerwise.load("blobs-supervised", seeds=asked.seeds, overrides=settings)
    settings.append("arms={raw: {objective: reconstruction}}")
    return layerwise.load("blobs-autoencoder", seeds=asked.seeds, overrides=settings)


def main() -> None:
    """Time it in this process; prints also how long tracing and compiling took for each shape of a stage."""
    asked = measuring.arguments(main.__doc__)
    study = asked_study(asked)

    def work() -> None:
        pretraining._FEATURES.clear()  # noqa: SLF001 - what an earlier repeat left would spare this one work
        layerwise.run(study)

    def compiling() -> dict[str, list[float]]:
        return {"compiling": [first - statistics.median(later) for first, *later in calls.values()]}

    measuring.repeat(work, asked.repeats, started=STARTED, more=compiling)


if __name__ == "__main__":
    main()
