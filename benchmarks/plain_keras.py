"""The supervised experiment in plain Keras: one seed, eleven stages, one ``fit`` call each.

This is what one writes without Layerwise, and what it is timed against. Each stage has a fresh model and a fresh
optimizer: a Sequential that is changed by ``pop`` and ``add`` goes on training its old graph in Keras 3.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np

from benchmarks.tutorial import BATCH, CLASSES, LEARNING_RATE, MOMENTUM, TRAIN, UNITS, load_data

STEPS = -(-TRAIN // BATCH)
"""Minibatches of an epoch."""


def build(depth: int, **compiling: Any) -> keras.Sequential:
    """A compiled classifier whose hidden layers are frozen but for the newest; ``compiling`` goes to ``compile``."""
    hidden = [keras.layers.Dense(UNITS, activation="relu", kernel_initializer="he_uniform") for _ in range(depth)]
    for layer in hidden[:-1]:
        layer.trainable = False
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(CLASSES, activation="softmax")])
    optimizer = keras.optimizers.SGD(learning_rate=LEARNING_RATE, momentum=MOMENTUM)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"], **compiling)
    return model


def deepen(model: keras.Sequential, **compiling: Any) -> keras.Sequential:
    """The model with a new hidden layer below its output layer; every other weight is kept."""
    deeper = build(len(model.layers), **compiling)
    *hidden, output = model.layers
    *below, _, top = deeper.layers
    for kept, layer in zip([*hidden, output], [*below, top], strict=True):
        layer.set_weights(kept.get_weights())
    return deeper


def fit(model: keras.Sequential, inputs: np.ndarray, targets: np.ndarray, *, epochs: int, shuffle: bool = True) -> None:
    """Train one stage on the first half of the rows."""
    model.fit(inputs[:TRAIN], targets[:TRAIN], batch_size=BATCH, epochs=epochs, shuffle=shuffle, verbose=0)


def main() -> None:
    """Train every stage of one seed and print the scores of each depth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stages", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compiled", action="store_true", help="with jit_compile, and an epoch's steps in one call")
    asked = parser.parse_args()
    compiling = {"jit_compile": True, "steps_per_execution": STEPS} if asked.compiled else {}
    keras.utils.set_random_seed(asked.seed)
    inputs, targets = load_data()
    model = build(1, **compiling)
    for depth in range(1, asked.stages + 1):
        model = model if depth == 1 else deepen(model, **compiling)
        fit(model, inputs, targets, epochs=asked.epochs)
        train = model.evaluate(inputs[:TRAIN], targets[:TRAIN], verbose=0)[1]
        test = model.evaluate(inputs[TRAIN:], targets[TRAIN:], verbose=0)[1]
        print(f"depth {depth:2d}  train accuracy {train:.3f}  test accuracy {test:.3f}", flush=True)


if __name__ == "__main__":
    main()
