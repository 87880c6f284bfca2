"""The engine: one stage for a block of seeds as one compiled program.

Greedy pretraining has a structure that one ``fit`` call per seed and depth wastes. Frozen layers are constants, so
a stage's input is computed once; added layers have equal shapes, so one program serves all depths; seeds are
independent, so they train side by side. Here every epoch, minibatch and seed of a stage is one
``tf.function(jit_compile=True)`` with the Keras layers, losses and optimizers inside. This is the only module that
speaks TensorFlow.

Three things keep a seed's bits the same whatever else is trained beside it: every block has the same size, only
elementwise optimizers are admitted, and the loss of a block is the *sum* of the losses of its seeds.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from layerwise import network
from layerwise.study import Layer, Optimizer

VERSION = 1
"""Raised whenever the same stage would give other bits; part of every stage's digest."""

THREADS = 2
"""Threads of TensorFlow's pool, fixed rather than taken from the machine: summation order can depend on it."""

Weights = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Problem:
    """The shape of one stage: everything that decides which program is compiled, and no values.

    Attributes:
        layers: hidden layers that train, bottom up.
        outputs: width of the output layer.
        input_shape: shape of one row of what comes in.
        loss: ``"categorical_crossentropy"`` on logits or ``"mean_squared_error"``.
        optimizer: its specification.
        batch_size: rows a minibatch; the last one of an epoch holds what is left.
        seeds: size of the block.
        shared_inputs: whether all seeds read one copy of the inputs.
    """

    layers: tuple[Layer, ...]
    outputs: int
    input_shape: tuple[int, ...]
    loss: str
    optimizer: Optimizer
    batch_size: int
    seeds: int
    shared_inputs: bool


@dataclass(frozen=True)
class Fitted:
    """What a stage leaves behind.

    Attributes:
        weights: of the model's layers in Keras's order, each ``(seeds, ...)`` float32.
        loss_curve: ``(seeds, epochs)`` float32, mean training loss of each epoch, as ``History`` reports it.
    """

    weights: Weights
    loss_curve: np.ndarray


def fit(problem: Problem, weights: Weights, inputs: np.ndarray, targets: np.ndarray, order: np.ndarray) -> Fitted:
    """Train one stage for a block of seeds.

    Args:
        problem: the shape of the stage.
        weights: initial weights, each ``(seeds, ...)`` float32.
        inputs: ``(rows, ...)`` if shared by the seeds, else ``(seeds, rows, ...)``, float32.
        targets: ``(rows, outputs)`` float32.
        order: ``(seeds, epochs, n)`` int32, the rows each epoch visits, in order.

    Returns:
        Trained weights and loss curves. A seed whose loss overflows carries NaN and disturbs no other.
    """
    return _program(problem).fit(weights, inputs, targets, order)


def apply(
    layer: Layer | int, weights: Weights, inputs: np.ndarray, *, shared_inputs: bool
) -> np.ndarray:
    """What a layer of every seed makes of its inputs, in inference mode.

    Args:
        layer: a hidden layer's specification, or the width of a linear output layer.
        weights: the layer's weights, each ``(seeds, ...)`` float32.
        inputs: ``(rows, ...)`` if shared by the seeds, else ``(seeds, rows, ...)``, float32.
        shared_inputs: which of the two.

    Returns:
        ``(seeds, rows, units)`` float32.
    """
    row_shape = inputs.shape[1:] if shared_inputs else inputs.shape[2:]
    forward = _forward(layer, row_shape, shared_inputs, len(weights[0]))
    return forward([tf.constant(values) for values in weights], tf.constant(inputs)).numpy()


class _Program:
    """A compiled stage: the block's variables and optimizer state, and the loop over epochs and minibatches."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.model = network.trainee(problem.layers, problem.outputs, problem.input_shape)
        self.loss = network.loss(problem.loss)
        self.trained = [_stacked(variable, problem.seeds) for variable in self.model.trainable_variables]
        self.state = [_stacked(variable, problem.seeds) for variable in self.model.non_trainable_variables]
        self.optimizer = network.optimizer(problem.optimizer)
        self.optimizer.build(self.trained)
        self.fresh_optimizer = [variable.numpy() for variable in self.optimizer.variables]
        self.variables = self._in_model_order()
        self.one_at_a_time = threading.Lock()
        self.loop = tf.function(self._loop, jit_compile=True, autograph=False)

    def fit(self, weights: Weights, inputs: np.ndarray, targets: np.ndarray, order: np.ndarray) -> Fitted:
        with self.one_at_a_time:
            for variable, values in zip(self.variables, weights, strict=True):
                variable.assign(values)
            for variable, values in zip(self.optimizer.variables, self.fresh_optimizer, strict=True):
                variable.assign(values)
            curve = self.loop(tf.constant(inputs), tf.constant(targets), tf.constant(order))
            return Fitted(tuple(variable.numpy() for variable in self.variables), curve.numpy().T.copy())

    def _in_model_order(self) -> list[keras.Variable]:
        stacked = {id(v): s for v, s in zip(self.model.trainable_variables, self.trained, strict=True)}
        stacked |= {id(v): s for v, s in zip(self.model.non_trainable_variables, self.state, strict=True)}
        return [stacked[id(variable)] for variable in self.model.weights]

    def _loop(self, inputs: tf.Tensor, targets: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        """All epochs; returns the loss curve, ``(epochs, seeds)``."""
        epochs = order.shape[1]
        curve = tf.TensorArray(tf.float32, size=epochs, element_shape=(self.problem.seeds,))

        def epoch(index: tf.Tensor, curve: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            return index + 1, curve.write(index, self._epoch(inputs, targets, order[:, index]))

        _, curve = tf.while_loop(lambda index, _: index < epochs, epoch, (tf.constant(0), curve))
        return curve.stack()

    def _epoch(self, inputs: tf.Tensor, targets: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        """One pass over ``order``, ``(seeds, n)``; returns each seed's mean loss."""
        rows, batch = order.shape[1], min(self.problem.batch_size, order.shape[1])
        full, rest = divmod(rows, batch)

        def minibatch(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = tf.slice(order, [0, index * batch], [self.problem.seeds, batch])
            return index + 1, total + batch * self._step(inputs, targets, chosen)

        start = (tf.constant(0), tf.zeros(self.problem.seeds))
        _, total = tf.while_loop(lambda index, _: index < full, minibatch, start)
        if rest:
            total += rest * self._step(inputs, targets, order[:, full * batch :])
        return total / rows

    def _step(self, inputs: tf.Tensor, targets: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """One minibatch, ``chosen`` rows ``(seeds, batch)``; returns each seed's mean loss before the update."""
        seen = tf.gather(inputs, chosen) if self.problem.shared_inputs else tf.gather(inputs, chosen, batch_dims=1)
        wanted = tf.gather(targets, chosen)
        values = [variable.value for variable in self.trained]
        with tf.GradientTape() as tape:
            outputs, state = self._outputs(values, seen)
            # The loss stands outside the vectorised map: inside, its gradient falls back to a slow loop.
            losses = tf.reduce_mean(self.loss(wanted, outputs), axis=-1)
            total = tf.reduce_sum(losses)
        self.optimizer.apply(tape.gradient(total, values), self.trained)
        for variable, value in zip(self.state, state, strict=True):
            variable.assign(value)
        return losses

    def _outputs(self, values: Sequence[tf.Variable], seen: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        count = len(values)

        def one_seed(arguments: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            *weights, rows = arguments
            return self.model.stateless_call(weights[:count], weights[count:], rows, training=True)

        stacked = [tf.convert_to_tensor(value) for value in (*values, *self.state)]
        return _over_seeds(one_seed, [*stacked, seen])


@functools.lru_cache(maxsize=128)
def _program(problem: Problem) -> _Program:
    return _Program(problem)


@functools.lru_cache(maxsize=128)
def _forward(layer: Layer | int, row_shape: tuple[int, ...], shared_inputs: bool, seeds: int) -> tf.types.experimental.PolymorphicFunction:
    built = network.output_layer(layer) if isinstance(layer, int) else network.hidden_layer(layer)
    built.build((None, *row_shape))
    trainable = [id(variable) for variable in built.trainable_variables]

    def forward(weights: list[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
        def one_seed(arguments: list[tf.Tensor]) -> tf.Tensor:
            *values, rows = arguments if not shared_inputs else (*arguments, inputs)
            pairs = list(zip(built.weights, values, strict=True))
            moving = [value for variable, value in pairs if id(variable) in trainable]
            fixed = [value for variable, value in pairs if id(variable) not in trainable]
            return built.stateless_call(moving, fixed, rows, training=False)[0]

        return _over_seeds(one_seed, weights if shared_inputs else [*weights, inputs])

    return tf.function(forward, jit_compile=True, autograph=False)


def _over_seeds(one_seed, stacked: list[tf.Tensor]):
    """Apply a function of one seed to every seed: side by side, or plainly where the block is a single seed."""
    if stacked[0].shape[0] > 1:
        return tf.vectorized_map(one_seed, stacked)
    return tf.nest.map_structure(lambda value: value[tf.newaxis], one_seed([value[0] for value in stacked]))


def _stacked(variable: keras.Variable, seeds: int) -> keras.Variable:
    return keras.Variable(np.zeros((seeds, *variable.shape), np.float32), name=variable.name)


def _fix_threads() -> None:
    """Set the thread pools before TensorFlow starts; afterwards it refuses, so say what that means for the bits."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # A worker's environment may have fixed them already, which the getter does not tell.
        known = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS")
        if str(known) != str(THREADS):
            warnings.warn(
                f"TensorFlow was started before layerwise with other than {THREADS} threads; results may differ in"
                " their last bits from other runs. Import layerwise.engine before using TensorFlow.",
                stacklevel=2,
            )


_fix_threads()
