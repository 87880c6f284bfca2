"""The same stages in hand-written JAX: one seed as one would write it, ``vmap`` over seeds, ``scan`` over steps.

The strongest thing that an expert would write for this work alone: orders are drawn by NumPy, for ``jax.random``'s
permutations cost as much as the training. It needs JAX, which the project does not, and nothing of the project's, so
that it runs in an environment of its own: ``make bench`` makes one.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

STARTED = time.perf_counter()

import jax  # noqa: E402 - the clock starts before the imports  # ty: ignore[import-not-found]
import jax.numpy as jnp  # noqa: E402  # ty: ignore[import-not-found]
import numpy as np  # noqa: E402

from benchmarks.tutorial import BATCH, CLASSES, LEARNING_RATE, MOMENTUM, TRAIN, UNITS, load_data  # noqa: E402

Layers = Any
"""Kernels and biases, bottom up; JAX maps over any such tree."""


def cross_entropy(logits: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean over the rows of a minibatch."""
    return -(wanted * jax.nn.log_softmax(logits)).sum(axis=1).mean()


def squared_error(made: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean over the rows and features of a minibatch."""
    return jnp.square(made - wanted).mean()


def features(hidden: Layers, inputs: jax.Array) -> jax.Array:
    """What ReLU layers make of rows."""
    for kernel, bias in hidden:
        inputs = jax.nn.relu(inputs @ kernel + bias)
    return inputs


def answers(layers: Layers, inputs: jax.Array) -> jax.Array:
    """What ReLU layers and a linear output layer make of rows."""
    *hidden, (kernel, bias) = layers
    return features(hidden, inputs) @ kernel + bias


def trained(layers: Layers, inputs: jax.Array, targets: jax.Array, order: jax.Array, *, loss) -> tuple[Layers, Any]:
    """Train one stage of one seed by stochastic gradient descent with momentum.

    Args:
        layers: the layers that train; the last one is linear.
        inputs: ``(rows, width)``.
        targets: ``(rows, outputs)``.
        order: ``(epochs, n)``, the rows that each epoch visits.
        loss: :func:`cross_entropy` or :func:`squared_error`.

    Returns:
        The layers, and the mean loss of each epoch.
    """
    rows = order.shape[1]
    full, rest = divmod(rows, BATCH)

    def step(state, chosen):
        layers, velocities = state
        asked = lambda layers: loss(answers(layers, inputs[chosen]), targets[chosen])  # noqa: E731
        value, gradients = jax.value_and_grad(asked)(layers)
        velocities = jax.tree.map(lambda v, g: MOMENTUM * v - LEARNING_RATE * g, velocities, gradients)
        return (jax.tree.map(jnp.add, layers, velocities), velocities), value

    def epoch(state, visited):
        state, values = jax.lax.scan(step, state, visited[: full * BATCH].reshape(full, BATCH))
        state, last = step(state, visited[full * BATCH :])
        return state, (BATCH * values.sum() + rest * last) / rows

    (layers, _), curve = jax.lax.scan(epoch, (layers, jax.tree.map(jnp.zeros_like, layers)), order)
    return layers, curve


def scores(layers: Layers, inputs: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Accuracy of one seed on the training and the test rows."""
    right = answers(layers, inputs).argmax(axis=1) == targets.argmax(axis=1)
    return right[:TRAIN].mean(), right[TRAIN:].mean()


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None, 0))
def supervised_stage(layers: Layers, inputs: jax.Array, targets: jax.Array, order: jax.Array):
    """A hidden layer and the output layer, for each seed; returns also features, scores and the loss curve."""
    layers, curve = trained(layers, inputs, targets, order, loss=cross_entropy)
    return layers, features(layers[:-1], inputs), scores(layers, inputs, targets), curve


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, None, 0, 0, 0))
def unsupervised_stage(layers, inputs, rebuilt, targets, order, head, head_order):
    """A hidden layer and the layer that rebuilds the inputs, and then a head on the features, for each seed."""
    layers, curve = trained(layers, inputs, rebuilt, order, loss=squared_error)
    seen = features(layers[:-1], inputs)
    head, _ = trained([head], seen, targets, head_order, loss=cross_entropy)
    return layers, seen, scores(head, seen, targets), curve


def run(seeds: int, *, stages: int, epochs: int, unsupervised: bool, block: int) -> np.ndarray:
    """Train every stage for every seed, in blocks of so many; returns test accuracy, ``(stages, seeds)``."""
    inputs, targets = load_data()
    random = np.random.default_rng(0)
    found, many = [], min(block, seeds)
    for _ in range(seeds // many):
        seen = rows = jnp.broadcast_to(inputs, (many, *inputs.shape))
        fresh = partial(_fresh, random, many)
        output = fresh(UNITS, 2 if unsupervised else CLASSES, glorot=True)
        for _ in range(stages):
            layers, order = [fresh(seen.shape[2], UNITS), output], _orders(random, many, epochs)
            if unsupervised:
                head, head_order = fresh(UNITS, CLASSES, glorot=True), _orders(random, many, epochs)
                layers, seen, score, _ = unsupervised_stage(layers, seen, rows, targets, order, head, head_order)
            else:
                layers, seen, score, _ = supervised_stage(layers, seen, targets, order)
            output = layers[-1]
            found.append(np.asarray(score[1]))
    by_block = np.array(found).reshape(-1, stages, many)
    return by_block.swapaxes(0, 1).reshape(stages, seeds)


def _fresh(random: np.random.Generator, seeds: int, width: int, units: int, *, glorot: bool = False) -> Layers:
    """A layer for each seed, uniform as Glorot or He would have it."""
    limit = (6 / (width + units if glorot else width)) ** 0.5
    return jnp.asarray(random.uniform(-limit, limit, (seeds, width, units)), jnp.float32), jnp.zeros((seeds, units))


def _orders(random: np.random.Generator, seeds: int, epochs: int) -> jax.Array:
    return jnp.asarray(random.permuted(np.tile(np.arange(TRAIN, dtype=np.int32), (seeds, epochs, 1)), axis=2))


def main() -> None:
    """Time it in this process: first cold, then warm."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name, otherwise in (("seeds", 30), ("stages", 11), ("epochs", 100), ("repeats", 3), ("block", 10)):
        parser.add_argument(f"--{name}", type=int, default=otherwise)
    parser.add_argument("--unsupervised", action="store_true", help="autoencoders, each with a head")
    asked = vars(parser.parse_args())
    repeats = asked.pop("repeats")
    accuracy, warm = run(**asked), []
    cold = time.perf_counter() - STARTED, time.process_time()
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        run(**asked)
        warm.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    print(json.dumps({"cold": [cold], "warm": warm, "accuracy": accuracy.mean(axis=1).tolist()}))


if __name__ == "__main__":
    main()
