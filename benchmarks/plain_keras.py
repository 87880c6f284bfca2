"""The supervised experiment in plain Keras: one seed, eleven stages, one ``fit`` call each.

This is what one writes without Layerwise, and what it is timed against. Each stage has a fresh model and a fresh
optimizer: a Sequential that is changed by ``pop`` and ``add`` goes on training its old graph in Keras 3.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from sklearn.datasets import make_blobs

ROWS, TRAIN, CLASSES, UNITS = 1000, 500, 3, 10
BATCH, LEARNING_RATE, MOMENTUM = 32, 0.01, 0.9


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs ``(rows, 2)`` and one-hot targets ``(rows, 3)``; the first half trains, the second tests."""
    inputs, classes = make_blobs(n_samples=ROWS, centers=CLASSES, n_features=2, cluster_std=2, random_state=2)[:2]
    return inputs.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[classes]


def build(depth: int) -> keras.Sequential:
    """A compiled classifier whose hidden layers are frozen but for the newest."""
    hidden = [keras.layers.Dense(UNITS, activation="relu", kernel_initializer="he_uniform") for _ in range(depth)]
    for layer in hidden[:-1]:
        layer.trainable = False
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(CLASSES, activation="softmax")])
    optimizer = keras.optimizers.SGD(learning_rate=LEARNING_RATE, momentum=MOMENTUM)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def deepen(model: keras.Sequential) -> keras.Sequential:
    """The model with a new hidden layer below its output layer; every other weight is kept."""
    deeper = build(len(model.layers))
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
    asked = parser.parse_args()
    keras.utils.set_random_seed(asked.seed)
    inputs, targets = load_data()
    model = build(1)
    for depth in range(1, asked.stages + 1):
        model = model if depth == 1 else deepen(model)
        fit(model, inputs, targets, epochs=asked.epochs)
        train = model.evaluate(inputs[:TRAIN], targets[:TRAIN], verbose=0)[1]
        test = model.evaluate(inputs[TRAIN:], targets[TRAIN:], verbose=0)[1]
        print(f"depth {depth:2d}  train accuracy {train:.3f}  test accuracy {test:.3f}", flush=True)


if __name__ == "__main__":
    main()
