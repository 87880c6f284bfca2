"""What an added layer costs the deeper a network is: fifty stages of the engine, and of the plain script.

    python -m benchmarks.deep --side engine|plain

The engine computes a layer's input once, from the features of the layer below; ``fit`` computes it in every minibatch,
through all frozen layers. Prints as JSON the seconds of each stage: for the engine all of them, medians over warm
repeats of a block of ten seeds; for plain Keras those at :data:`PLAIN` depths, of one seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

PLAIN = (1, 3, 10, 25, 50)
"""Depths at which plain Keras trains a stage."""


def engine(depth: int, epochs: int, repeats: int) -> dict[int, float]:
    """Depth to the median of its warm repeats."""
    import layerwise
    from layerwise import datasets, pretraining, stages

    settings = [f"network.layers.0.repeat={depth}", f"training.epochs={epochs}", "claims=null"]
    study = layerwise.load("blobs-supervised", seeds=10, overrides=settings)
    data, seconds = datasets.generate(study.data), {}
    (block,) = stages.blocks(study, "greedy", data.digest)
    for repeat in range(repeats + 1):
        pretraining._FEATURES.clear()  # noqa: SLF001 - the stages are to compute them
        started = time.perf_counter()
        for done in pretraining.depths(block, data):
            if repeat:
                seconds.setdefault(done.evaluation.depth, []).append(time.perf_counter() - started)
            started = time.perf_counter()
    return {at: statistics.median(times) for at, times in seconds.items()}


def plain(depth: int, epochs: int) -> dict[int, float]:
    """Depth to the seconds of its stage: building, training and scoring."""
    from benchmarks import plain_keras
    from benchmarks.tutorial import TRAIN, load_data

    inputs, targets = load_data()
    plain_keras.fit(plain_keras.build(1), inputs, targets, epochs=1)
    seconds = {}
    for at in (one for one in PLAIN if one <= depth):
        started = time.perf_counter()
        model = plain_keras.build(at)
        plain_keras.fit(model, inputs, targets, epochs=epochs)
        for part in (slice(TRAIN), slice(TRAIN, None)):
            model.evaluate(inputs[part], targets[part], verbose=0)
        seconds[at] = time.perf_counter() - started
    return seconds


def main() -> None:
    """Time one side in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("engine", "plain"), required=True)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    sides = {
        "engine": lambda: engine(asked.depth, asked.epochs, asked.repeats),
        "plain": lambda: plain(asked.depth, asked.epochs),
    }
    print(json.dumps({"seconds": sides[asked.side]()}))


if __name__ == "__main__":
    main()
