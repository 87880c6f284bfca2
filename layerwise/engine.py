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

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from layerwise import (
    backend,  # noqa: F401 - fixes the threads before TensorFlow starts
    network,
)
from layerwise.network import Built, Hidden, Output, Piece, RowShape, Weights
from layerwise.study import GaussianNoise, MaskingNoise, Optimizer

LENT_BYTES = 16 * 2**20
"""Size from which an array is not copied into a tensor; nothing changes it while a program runs."""

PIECE_BYTES = 4 * 2**20
"""Of the rows that go through a layer at a time, where all of them are larger than that."""

GENERATOR = "philox"
"""Of the noise, named, since what TensorFlow chooses by itself differs between compiled and plain programs."""


@dataclass(frozen=True)
class Problem:
    """The shape of one stage: everything that decides which program is compiled, and no values.

    Attributes:
        hidden: the hidden layers that train, bottom up; what comes in is the input of the first, or of the output.
        output: the output layer.
        loss: ``"categorical_crossentropy"`` on logits or ``"mean_squared_error"``.
        optimizer: its specification.
        batch_size: rows a minibatch; the last one of an epoch holds what is left.
        seeds: size of the block.
        shared_inputs: whether all seeds read one copy of the inputs.
        shared_targets: whether all seeds read one copy of the targets.
        noise: on the inputs of every minibatch, if any.
        factors: of the learning rate, one per hidden layer, bottom up, and one for the output layer; a layer of
            factor 0 stays as it is. All 1 if ``None``.
    """

    hidden: tuple[Hidden, ...]
    output: Output
    loss: str
    optimizer: Optimizer
    batch_size: int
    seeds: int
    shared_inputs: bool
    shared_targets: bool = True
    noise: MaskingNoise | GaussianNoise | None = None
    factors: tuple[float, ...] | None = None

    @property
    def input_shape(self) -> RowShape:
        """Shape of one row of what comes in."""
        return (self.hidden[0] if self.hidden else self.output).input_shape


@dataclass(frozen=True)
class Fitted:
    """What a stage leaves behind.

    Attributes:
        weights: piece by piece, bottom up, each ``(seeds, ...)`` float32.
        loss_curve: ``(seeds, epochs)`` float32, mean training loss of each epoch, as ``History`` reports it.
    """

    weights: Weights
    loss_curve: np.ndarray


def fit(
    problem: Problem,
    weights: Weights,
    inputs: np.ndarray,
    targets: np.ndarray,
    order: np.ndarray,
    noise_keys: np.ndarray | None = None,
) -> Fitted:
    """Train one stage for a block of seeds.

    Args:
        problem: the shape of the stage.
        weights: initial weights, each ``(seeds, ...)`` float32.
        inputs: ``(rows, ...)`` if shared by the seeds, else ``(seeds, rows, ...)``, float32.
        targets: ``(rows, outputs)`` if shared by the seeds, else ``(seeds, rows, outputs)``, float32.
        order: ``(seeds, epochs, n)`` int32, the rows each epoch visits, in order.
        noise_keys: ``(seeds, 2)`` int32, the keys of each seed's noise; needed where the problem has noise.

    Returns:
        Trained weights and loss curves. A seed whose loss overflows carries NaN and disturbs no other.
    """
    keys = np.zeros((problem.seeds, 2), np.int32) if noise_keys is None else noise_keys
    if problem.seeds == 1 or network.vectorised(problem.hidden, problem.output):
        return _program(problem).fit(weights, inputs, targets, order, keys)
    alone = _program(dataclasses.replace(problem, seeds=1))
    fitted = [
        alone.fit(
            tuple(values[place : place + 1] for values in weights),
            inputs if problem.shared_inputs else inputs[place : place + 1],
            targets if problem.shared_targets else targets[place : place + 1],
            order[place : place + 1],
            keys[place : place + 1],
        )
        for place in range(problem.seeds)
    ]
    together = zip(*(one.weights for one in fitted), strict=True)
    return Fitted(tuple(map(np.concatenate, together)), np.concatenate([one.loss_curve for one in fitted]))


def apply(piece: Piece, weights: Weights, inputs: np.ndarray, *, shared_inputs: bool) -> np.ndarray:
    """What one piece of every seed's network makes of its inputs, in inference mode.

    Args:
        piece: a hidden layer, or an output, which gives logits or a reconstruction.
        weights: the piece's weights, each ``(seeds, ...)`` float32.
        inputs: ``(rows, ...)`` if shared by the seeds, else ``(seeds, rows, ...)``, float32.
        shared_inputs: which of the two.

    Returns:
        ``(seeds, rows, ...)`` float32.
    """
    forward = _forward(piece, shared_inputs)
    side_by_side = network.vectorised(*(((piece,), None) if isinstance(piece, Hidden) else ((), piece)))
    if side_by_side or len(weights[0]) == 1:
        return _by_rows(forward, [_tensor(values) for values in weights], inputs, shared_inputs)
    return np.concatenate([
        _by_rows(
            forward,
            [_tensor(values[place : place + 1]) for values in weights],
            inputs if shared_inputs else inputs[place : place + 1],
            shared_inputs,
        )
        for place in range(len(weights[0]))
    ])  # fmt: skip


def _by_rows(
    forward: Callable[..., tf.Tensor], weights: list[tf.Tensor], inputs: np.ndarray, shared_inputs: bool
) -> np.ndarray:
    """The forward pass over all rows: at once, or, where they are large, over equally many at a time."""
    rows = inputs.shape[0 if shared_inputs else 1]
    if inputs.nbytes <= LENT_BYTES:
        return forward(weights, _tensor(inputs)).numpy()
    size = -(-rows // -(-inputs.nbytes // PIECE_BYTES))
    made: np.ndarray | None = None
    for start in range(0, rows, size):
        taken = slice(min(start, rows - size), min(start, rows - size) + size)  # the last piece overlaps, to be as long
        part = forward(weights, _tensor(inputs[taken] if shared_inputs else inputs[:, taken])).numpy()
        if made is None:
            made = np.empty((part.shape[0], rows, *part.shape[2:]), part.dtype)
        made[:, taken] = part
    return made  # ty: ignore[invalid-explicit-return] - there is a first piece


class _Program:
    """A compiled stage: the block's variables and optimizer state, and the loop over epochs and minibatches."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.built = network.trainee(problem.hidden, problem.output)
        self.model = self.built.model
        for piece, factor in zip(self.built.pieces, self._factors(), strict=True):
            if factor == 0:  # frozen, statistics and all
                for layer in piece:
                    layer.trainable = False
        self.loss = network.loss(problem.loss)
        self.penalised = bool(self.model.losses)
        self.trained = [_stacked(variable, problem.seeds) for variable in self.model.trainable_variables]
        self.state = [_stacked(variable, problem.seeds) for variable in self.model.non_trainable_variables]
        self.optimizers = list(self._optimizers())
        self.slots = [slot for optimizer, _ in self.optimizers for slot in optimizer.variables]
        self.fresh_slots = [slot.numpy() for slot in self.slots]
        stacked = self._stacked_by_variable()
        self.variables = [stacked.pop(id(weight)) for weight in self.built.weights]
        self.generators = list(stacked.values())
        self.one_at_a_time = threading.Lock()
        self.loop = tf.function(self._loop, jit_compile=True, autograph=False)

    def fit(
        self, weights: Weights, inputs: np.ndarray, targets: np.ndarray, order: np.ndarray, noise_keys: np.ndarray
    ) -> Fitted:
        with self.one_at_a_time:
            for variable, values in zip(self.variables, weights, strict=True):
                variable.assign(values)
            for slot, values in zip(self.slots, self.fresh_slots, strict=True):
                slot.assign(values)
            for number, generator in enumerate(self.generators):
                generator.assign(_generator_state(noise_keys, number))
            arguments = [_tensor(values) for values in (inputs, targets, order, noise_keys)]
            curve = self.loop(*arguments)
            return Fitted(tuple(variable.numpy() for variable in self.variables), curve.numpy().T.copy())

    def _optimizers(self) -> Iterator[tuple[keras.optimizers.Optimizer, list[int]]]:
        """An optimizer for each learning-rate factor, with the positions of the variables it moves."""
        positions: dict[float, list[int]] = {}
        trained = [id(variable) for variable in self.model.trainable_variables]
        for piece, factor in zip(self.built.pieces, self._factors(), strict=True):
            moved = (trained.index(id(variable)) for layer in piece for variable in layer.trainable_variables)
            positions.setdefault(factor, []).extend(moved)
        for factor, moved in positions.items():
            if factor and moved:
                optimizer = network.optimizer(self.problem.optimizer, factor=factor)
                optimizer.build([self.trained[position] for position in moved])
                yield optimizer, moved

    def _factors(self) -> tuple[float, ...]:
        return self.problem.factors or (1.0,) * len(self.built.pieces)

    def _stacked_by_variable(self) -> dict[int, keras.Variable]:
        """The block's stack of each of the model's variables; those that are no weights are states of generators."""
        stacked = zip(self.model.trainable_variables, self.trained, strict=True)
        state = zip(self.model.non_trainable_variables, self.state, strict=True)
        return {id(variable): values for variable, values in (*stacked, *state)}

    def _loop(self, inputs: tf.Tensor, targets: tf.Tensor, order: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """All epochs; returns the loss curve, ``(epochs, seeds)``."""
        epochs = order.shape[1]
        curve = tf.TensorArray(tf.float32, size=epochs, element_shape=(self.problem.seeds,))

        def epoch(index: tf.Tensor, curve: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            return index + 1, curve.write(index, self._epoch(inputs, targets, order[:, index], keys, index))

        _, curve = tf.while_loop(lambda index, _: index < epochs, epoch, (tf.constant(0), curve))
        return curve.stack()

    def _epoch(
        self, inputs: tf.Tensor, targets: tf.Tensor, order: tf.Tensor, keys: tf.Tensor, epoch: tf.Tensor
    ) -> tf.Tensor:
        """One pass over ``order``, ``(seeds, n)``; returns each seed's mean loss."""
        rows, batch = order.shape[1], min(self.problem.batch_size, order.shape[1])
        full, rest = divmod(rows, batch)
        steps = full + (rest > 0)

        def minibatch(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = tf.slice(order, [0, index * batch], [self.problem.seeds, batch])
            return index + 1, total + batch * self._step(inputs, targets, chosen, keys, epoch * steps + index)

        start = (tf.constant(0), tf.zeros(self.problem.seeds))
        _, total = tf.while_loop(lambda index, _: index < full, minibatch, start)
        if rest:
            last = self._step(inputs, targets, order[:, full * batch :], keys, epoch * steps + full)
            total += rest * last
        return total / rows

    def _step(
        self, inputs: tf.Tensor, targets: tf.Tensor, chosen: tf.Tensor, keys: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """One minibatch, ``chosen`` rows ``(seeds, batch)``; returns each seed's mean loss before the update."""
        seen = self._noisy(_picked(inputs, chosen, shared=self.problem.shared_inputs), keys, step)
        wanted = _picked(targets, chosen, shared=self.problem.shared_targets)
        values = [variable.value for variable in self.trained]
        with tf.GradientTape() as tape:
            outputs, state, penalty = self._outputs(values, seen)
            # The loss stands outside the vectorised map: inside, its gradient has been seen to become a slow loop.
            losses = tf.reduce_mean(self.loss(wanted, outputs), axis=-1)
            losses = losses + penalty if self.penalised else losses
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, values)
        for optimizer, moved in self.optimizers:
            optimizer.apply([gradients[place] for place in moved], [self.trained[place] for place in moved])
        for variable, value in zip(self.state, state, strict=True):
            variable.assign(value)
        return losses

    def _noisy(self, seen: tf.Tensor, keys: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The minibatch with its noise: each seed's numbers follow from its own key and the step alone."""
        noise, shape = self.problem.noise, seen.shape[1:]
        if noise is None:
            return seen
        draw = tf.random.stateless_uniform if isinstance(noise, MaskingNoise) else tf.random.stateless_normal

        def of_one_seed(key: tf.Tensor) -> tf.Tensor:
            return draw(shape, tf.random.experimental.stateless_fold_in(key, step, alg=GENERATOR), alg=GENERATOR)

        # A loop over the seeds: unrolled, the generator would be compiled once for each of them.
        drawn = tf.map_fn(of_one_seed, keys, fn_output_signature=tf.float32)
        if isinstance(noise, MaskingNoise):
            return tf.where(drawn < noise.rate, 0.0, seen)
        return seen + noise.sd * drawn

    def _outputs(self, values: Sequence[tf.Variable], seen: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """What each seed's network gives, its state afterwards, and the penalty on its weights."""
        count = len(values)

        def one_seed(arguments: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
            *weights, rows = arguments
            called = self.model.stateless_call(
                weights[:count], weights[count:], rows, training=True, return_losses=self.penalised
            )
            penalty = tf.add_n(called[2]) if self.penalised else tf.zeros(())
            return called[0], called[1], penalty

        stacked = [tf.convert_to_tensor(value) for value in (*values, *self.state)]
        return _over_seeds(one_seed, [*stacked, seen])


@functools.lru_cache(maxsize=128)
def _program(problem: Problem) -> _Program:
    return _Program(problem)


@functools.lru_cache(maxsize=128)
def _forward(piece: Piece, shared_inputs: bool) -> tf.types.experimental.PolymorphicFunction:
    built = network.piece_alone(piece)
    places = _places(built)

    def forward(weights: list[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
        def one_seed(arguments: list[tf.Tensor]) -> tf.Tensor:
            *values, rows = arguments if not shared_inputs else (*arguments, inputs)
            moving, fixed = ([_value(place, values) for place in group] for group in places)
            return built.model.stateless_call(moving, fixed, rows, training=False)[0]

        return _over_seeds(one_seed, weights if shared_inputs else [*weights, inputs])

    return tf.function(forward, jit_compile=True, autograph=False)


def _places(built: Built) -> list[list[int | keras.Variable]]:
    """For each trainable and each other variable of a model its place among the weights, or itself if it is none."""
    known = {id(weight): place for place, weight in enumerate(built.weights)}
    groups = (built.model.trainable_variables, built.model.non_trainable_variables)
    return [[known.get(id(variable), variable) for variable in group] for group in groups]


def _value(place: int | keras.Variable, values: Sequence[tf.Tensor]) -> tf.Tensor:
    return values[place] if isinstance(place, int) else tf.convert_to_tensor(place)


def _generator_state(keys: np.ndarray, number: int) -> np.ndarray:
    """``(seeds, 2)`` uint32: where each seed's dropout begins, from its key; another one for every layer."""
    drawn = [np.random.default_rng([*map(int, key), number]).integers(2**32, size=2) for key in keys]
    return np.array(drawn, np.uint32)


def _over_seeds(one_seed, stacked: list[tf.Tensor]):
    """Apply a function of one seed to every seed: side by side, or plainly where the block is a single seed."""
    if stacked[0].shape[0] > 1:
        return tf.vectorized_map(one_seed, stacked)
    return tf.nest.map_structure(lambda value: value[tf.newaxis], one_seed([value[0] for value in stacked]))


def _tensor(values: np.ndarray) -> Any:
    """An array as a tensor; a large one lends its memory, of which TensorFlow would otherwise take two more copies."""
    if values.nbytes >= LENT_BYTES and values.flags.writeable and values.flags.c_contiguous:
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    return tf.constant(values)


def _picked(values: tf.Tensor, chosen: tf.Tensor, *, shared: bool) -> tf.Tensor:
    """``(seeds, batch, ...)``: the chosen rows of each seed."""
    return tf.gather(values, chosen) if shared else tf.gather(values, chosen, batch_dims=1)


def _stacked(variable: keras.Variable, seeds: int) -> keras.Variable:
    start = np.zeros((seeds, *variable.shape), np.dtype(variable.dtype))
    return keras.Variable(start, dtype=variable.dtype, name=variable.name)
