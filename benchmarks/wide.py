"""Wide layers on many rows: 60,000 x 784 synthetic rows, 500-500-500 units, against ``keras.Model.fit``.

Each side trains the same three greedy stages with the same batch size. Keras is given the frozen layers' features
ready-made; the engine computes them, and its time for that is counted. Every side runs in a process of its own. An
epoch's time leaves compilation out; memory is the growth of the peak from when the libraries are loaded.

    python -m benchmarks.wide [--epochs N] [--rows N]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FEATURES, CLASSES, UNITS, BATCH, LEARNING_RATE = 784, 10, (500, 500, 500), 128, 0.01


def material(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random rows, and as classes which of ten features is the largest."""
    inputs = np.random.default_rng(0).random((rows, FEATURES), np.float32)
    return inputs, inputs[:, :CLASSES].argmax(axis=1)


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def engine(rows: int, epochs: int, seeds: int) -> tuple[list[float], int]:
    """Seconds an epoch of each stage and seed through the project's own algorithm, and the growth of memory."""
    import layerwise
    from layerwise import datasets, pretraining, stages

    layerwise.run(layerwise.load("blobs-supervised", seeds=2, overrides=["training.epochs=1"]))
    before = peak_bytes()
    inputs, targets = material(rows)
    given = datasets.from_arrays(inputs, targets, shuffle=False, split={"train": rows - 1000, "test": 1000})
    del inputs, targets
    training = {"epochs": epochs, "batch_size": BATCH, "optimizer": {"name": "sgd", "learning_rate": LEARNING_RATE}}
    network = {"layers": [{"units": units} for units in UNITS]}
    study = layerwise.Study(name="wide", data=given, network=network, training=training, seeds=seeds)
    data, found = datasets.generate(study.data), []
    for _warm in range(2):
        found = []
        for block in stages.blocks(study, "greedy", data.digest):
            pretraining._FEATURES.clear()  # noqa: SLF001 - the stages are to compute them
            started = time.perf_counter()
            for depth in pretraining.depths(block, data):
                found.append((time.perf_counter() - started, depth.chain[-1].seconds))
                started = time.perf_counter()
    return [trained / epochs for _, trained in found], peak_bytes() - before


def keras_fit(rows: int, epochs: int, steps_per_execution: int) -> tuple[list[float], int]:
    """Seconds an epoch of each stage by ``keras.Model.fit``, and the growth of memory."""
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).predict(np.zeros((2, 2)), verbose=0)
    before = peak_bytes()
    inputs, targets = material(rows)
    wanted, seconds = keras.utils.to_categorical(targets, CLASSES), []
    for units in UNITS:
        hidden = keras.layers.Dense(units, activation="relu")
        model = keras.Sequential([keras.Input(inputs.shape[1:]), hidden, keras.layers.Dense(CLASSES, "softmax")])
        optimizer = keras.optimizers.SGD(LEARNING_RATE)
        model.compile(optimizer, "categorical_crossentropy", steps_per_execution=steps_per_execution)
        train = (inputs[:-1000], wanted[:-1000])
        model.fit(*train, batch_size=BATCH, epochs=1, verbose=0)
        started = time.perf_counter()
        model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=0)
        seconds.append((time.perf_counter() - started) / epochs)
        inputs = keras.Sequential([keras.Input(inputs.shape[1:]), hidden]).predict(inputs, batch_size=1000, verbose=0)
    return seconds, peak_bytes() - before


SIDES: dict[str, Callable[[int, int], tuple[list[float], int]]] = {
    "engine, 1 seed": lambda rows, epochs: engine(rows, epochs, 1),
    "engine, 4 seeds": lambda rows, epochs: engine(rows, epochs, 4),
    "keras.fit": lambda rows, epochs: keras_fit(rows, epochs, 1),
    "keras.fit, 50 steps a call": lambda rows, epochs: keras_fit(rows, epochs, 50),
}


def main() -> None:
    """Measure every side in a process of its own and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked.rows, asked.epochs)))
        return
    from benchmarks.measuring import run_module

    given = asked.rows * FEATURES * 4
    print(f"{asked.rows} x {FEATURES}, {given / 1e6:.0f} MB; {UNITS} units; Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as root:
        for side in SIDES:
            arguments = ["--side", side, "--rows", str(asked.rows), "--epochs", str(asked.epochs)]
            child = run_module("benchmarks.wide", arguments, root=Path(root))
            seconds, grown = json.loads(child.output.splitlines()[-1])
            stages = " ".join(f"{one:.2f}" for one in seconds)
            print(f"{side:<28} epoch of each stage {stages} s, in all {sum(seconds):.2f}; {grown / given:.2f} x data")


if __name__ == "__main__":
    main()
