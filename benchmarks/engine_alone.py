"""The engine without a tracker or a workflow: :func:`layerwise.run` in this process, first cold, then warm."""

import time

STARTED = time.perf_counter()

import layerwise  # noqa: E402 - the clock starts before the imports
from benchmarks import measuring  # noqa: E402
from layerwise import pretraining  # noqa: E402


def main() -> None:
    """Time it in this process."""
    asked = measuring.arguments(main.__doc__)
    settings = [f"network.layers.0.repeat={asked.stages}", f"training.epochs={asked.epochs}"]
    study = layerwise.load("blobs-supervised", seeds=asked.seeds, overrides=settings)

    def work() -> None:
        pretraining._FEATURES.clear()  # noqa: SLF001 - what an earlier repeat left would spare this one work
        layerwise.run(study)

    measuring.repeat(work, asked.repeats, started=STARTED)


if __name__ == "__main__":
    main()
