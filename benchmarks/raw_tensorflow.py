"""The same eleven stages in hand-written TensorFlow: batched products, gradients and momentum spelled out.

No Keras, no studies, nothing kept: the least that this work costs in TensorFlow, and so the reference for what the
engine's generality costs. All seeds stand in one block; a stage is one compiled program.
"""

import time
from typing import Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402 - the clock starts before the imports
import tensorflow as tf  # noqa: E402

from benchmarks import measuring  # noqa: E402
from benchmarks.tutorial import BATCH, CLASSES, LEARNING_RATE, MOMENTUM, TRAIN, UNITS, load_data  # noqa: E402

Tensor = Any
"""TensorFlow adds a tensor's operators and indexing at run time, where no type checker sees them."""

Weights = tuple[Tensor, ...]


def train(seeds: int, *, stages: int, epochs: int) -> np.ndarray:
    """Train every stage for every seed; returns test accuracy, ``(stages, seeds)``."""
    inputs, one_hot = load_data()
    targets, classes = tf.constant(one_hot), one_hot.argmax(axis=1)
    seen = tf.tile(tf.constant(inputs[np.newaxis], tf.float32), (seeds, 1, 1))
    random = np.random.default_rng(0)
    output = _fresh(random, seeds, UNITS, CLASSES, limit=np.sqrt(6 / (UNITS + CLASSES)))
    scores = []
    for _ in range(stages):
        width = seen.shape[2]
        hidden = _fresh(random, seeds, width, UNITS, limit=np.sqrt(6 / width))
        every_epoch = np.tile(np.arange(TRAIN, dtype=np.int32), (seeds, epochs, 1))
        order = tf.constant(random.permuted(every_epoch, axis=2))
        hidden, output, _ = fit(hidden, output, seen, targets, order)
        seen, logits = forward(hidden, output, seen)
        chosen = logits.numpy().argmax(axis=2)
        scores.append((chosen == classes)[:, TRAIN:].mean(axis=1))
    return np.stack(scores)


@tf.function(jit_compile=True, autograph=False)
def fit(
    hidden: Weights, output: Weights, inputs: Tensor, targets: Tensor, order: Tensor
) -> tuple[Weights, Weights, Tensor]:
    """Train one stage: a hidden ReLU layer and the output layer.

    Args:
        hidden: kernel ``(seeds, width, units)`` and bias ``(seeds, 1, units)``.
        output: kernel ``(seeds, units, classes)`` and bias ``(seeds, 1, classes)``.
        inputs: ``(seeds, rows, width)``.
        targets: ``(rows, classes)``.
        order: ``(seeds, epochs, n)``, the rows each epoch visits.

    Returns:
        Both layers, trained, and the mean loss of each epoch, ``(epochs, seeds)``.
    """
    seeds, epochs, rows = order.shape
    full, rest = divmod(rows, BATCH)

    def epoch(index, weights, velocities, curve):
        visited = order[:, index]

        def minibatch(number, weights, velocities, total):
            chosen = tf.slice(visited, [0, number * BATCH], [seeds, BATCH])
            weights, velocities, loss = _step(weights, velocities, inputs, targets, chosen)
            return number + 1, weights, velocities, total + BATCH * loss

        begin = (tf.constant(0), weights, velocities, tf.zeros(seeds))
        _, weights, velocities, total = tf.while_loop(lambda number, *_: number < full, minibatch, begin)
        if rest:
            weights, velocities, loss = _step(weights, velocities, inputs, targets, visited[:, full * BATCH :])
            total += rest * loss
        return index + 1, weights, velocities, curve.write(index, total / rows)

    weights = (*hidden, *output)
    curve = tf.TensorArray(tf.float32, size=epochs, element_shape=(seeds,))
    begin = (tf.constant(0), weights, tuple(tf.zeros_like(values) for values in weights), curve)
    _, weights, _, curve = tf.while_loop(lambda index, *_: index < epochs, epoch, begin)
    return weights[:2], weights[2:], curve.stack()


@tf.function(jit_compile=True, autograph=False)
def forward(hidden: Weights, output: Weights, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What both layers make of every row: features ``(seeds, rows, units)`` and logits."""
    features = tf.nn.relu(inputs @ hidden[0] + hidden[1])
    return features, features @ output[0] + output[1]


def _step(
    weights: Weights, velocities: Weights, inputs: Tensor, targets: Tensor, chosen: Tensor
) -> tuple[Weights, Weights, Tensor]:
    """One minibatch, ``chosen`` rows ``(seeds, batch)``; returns each seed's mean loss before the update."""
    kernel, bias, output_kernel, output_bias = weights
    seen, wanted = tf.gather(inputs, chosen, batch_dims=1), tf.gather(targets, chosen)
    features = tf.nn.relu(seen @ kernel + bias)
    logits = features @ output_kernel + output_bias
    log_shares = tf.nn.log_softmax(logits)
    to_logits = (tf.exp(log_shares) - wanted) / chosen.shape[1]
    to_features = tf.matmul(to_logits, output_kernel, transpose_b=True) * tf.cast(features > 0, tf.float32)
    gradients = (
        tf.matmul(seen, to_features, transpose_a=True),
        tf.reduce_sum(to_features, axis=1, keepdims=True),
        tf.matmul(features, to_logits, transpose_a=True),
        tf.reduce_sum(to_logits, axis=1, keepdims=True),
    )
    velocities = tuple(MOMENTUM * v - LEARNING_RATE * g for v, g in zip(velocities, gradients, strict=True))
    weights = tuple(values + v for values, v in zip(weights, velocities, strict=True))
    return weights, velocities, -tf.reduce_mean(tf.reduce_sum(wanted * log_shares, axis=2), axis=1)


def _fresh(random: np.random.Generator, seeds: int, width: int, units: int, *, limit: float) -> Weights:
    kernel = random.uniform(-limit, limit, (seeds, width, units)).astype(np.float32)
    return tf.constant(kernel), tf.zeros((seeds, 1, units))


def main() -> None:
    """Time it in this process."""
    asked = measuring.arguments(main.__doc__)
    # The engine's own thread pools, so that both have the same means.
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    measuring.repeat(
        lambda: train(asked.seeds, stages=asked.stages, epochs=asked.epochs), asked.repeats, started=STARTED
    )


if __name__ == "__main__":
    main()
