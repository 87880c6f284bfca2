"""The unsupervised experiment in plain Keras: one ``fit`` call a stage, and one for each head.

What blobs-autoencoder's arm ``raw`` is held against. Each stage has a fresh model and a fresh optimizer. Run as
``python -m benchmarks.plain_autoencoder --seeds 12``, it prints one line for each seed and depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import keras
import numpy as np

from benchmarks.plain_keras import STEPS
from benchmarks.tutorial import BATCH, LEARNING_RATE, MOMENTUM, TRAIN, UNITS, load_data


def stacked(layers: list[keras.layers.Layer], loss: str, *, compiled: bool) -> keras.Sequential:
    """A model of layers, ready to be trained; those that are not trainable stay as they are."""
    model = keras.Sequential([keras.Input((2,)), *layers])
    optimizer = keras.optimizers.SGD(learning_rate=LEARNING_RATE, momentum=MOMENTUM)
    compiling = {"jit_compile": True, "steps_per_execution": STEPS} if compiled else {}
    model.compile(optimizer=optimizer, loss=loss, **compiling)
    return model


def copies(layers: list[keras.layers.Layer], *, trainable: bool) -> list[keras.layers.Layer]:
    """Equal layers with equal weights, which belong to no other model."""
    made = []
    for depth, layer in enumerate(layers):
        copy = keras.layers.Dense(UNITS, activation="relu", trainable=trainable)
        copy.build((None, 2 if depth == 0 else UNITS))
        copy.set_weights(layer.get_weights())
        made.append(copy)
    return made


def run(seed: int, *, depths: int = 6, epochs: int = 100, compiled: bool = True) -> Iterator[tuple[int, float, float]]:
    """Train one seed; yields depth, reconstruction error on the training rows and test accuracy of a fresh head.

    Args:
        seed: of Keras's global random numbers.
        depths: number of autoencoders.
        epochs: of each autoencoder and each head.
        compiled: whether Keras compiles with XLA and takes an epoch's steps in one call, or as by default.
    """
    keras.utils.set_random_seed(seed)
    inputs, targets = load_data()
    hidden: list[keras.layers.Layer] = []
    output = keras.layers.Dense(2)
    for depth in range(1, depths + 1):
        new = keras.layers.Dense(UNITS, activation="relu", kernel_initializer="he_uniform")
        kept = keras.layers.Dense(2)
        if hidden:
            kept.build((None, UNITS))
            kept.set_weights(output.get_weights())
        frozen = copies(hidden, trainable=False)
        model = stacked([*frozen, new, kept], "mean_squared_error", compiled=compiled)
        model.fit(inputs[:TRAIN], inputs[:TRAIN], batch_size=BATCH, epochs=epochs, verbose=0)
        hidden, output = [*frozen, new], kept
        rebuilt = model.predict(inputs[:TRAIN], verbose=0)
        encoder = copies(hidden, trainable=False)
        answer = keras.layers.Dense(targets.shape[1], activation="softmax")
        head = stacked([*encoder, answer], "categorical_crossentropy", compiled=compiled)
        head.fit(inputs[:TRAIN], targets[:TRAIN], batch_size=BATCH, epochs=epochs, verbose=0)
        predicted = head.predict(inputs[TRAIN:], verbose=0)
        accuracy = float((predicted.argmax(axis=1) == targets[TRAIN:].argmax(axis=1)).mean())
        yield depth, float(np.square(rebuilt - inputs[:TRAIN]).mean()), accuracy
        if not np.isfinite(rebuilt).all():
            return


def main() -> None:
    """Print seed, depth, reconstruction error and test accuracy of every seed and depth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--depths", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--plainly", action="store_true", help="as Keras compiles by default")
    asked = parser.parse_args()
    how = {"depths": asked.depths, "epochs": asked.epochs, "compiled": not asked.plainly}
    for seed in range(asked.first, asked.first + asked.seeds):
        for depth, error, accuracy in run(seed, **how):
            print(f"{seed} {depth} {error:.4f} {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
