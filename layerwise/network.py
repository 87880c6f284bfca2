"""Networks: the only module that builds Keras layers and models.

A fresh model is built for every purpose. Changing a compiled ``Sequential`` with ``pop`` and ``add`` leaves Keras 3
training its old graph: frozen layers move and the new layer does not.

A network is described by its pieces, bottom up: a :class:`Hidden` for every depth and an :class:`Output` on top. The
same description serves a stage, which trains some of them, and the whole model that is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from layerwise import (
    backend,  # noqa: F401 - fixes the threads before Keras computes anything
    imported,
)
from layerwise.study import (
    AnyLayer,
    Bottom,
    Conv,
    Custom,
    Dense,
    Gru,
    Lstm,
    Optimizer,
    Residual,
    RowShape,
    StudyError,
    incoming_shapes,
    passes_sequences,
    shape_below,
    unrolled,
)

OUTPUT_INITIALIZER = "glorot_uniform"
"""Keras's own default for a dense layer, which the output layers use."""

Weights = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Hidden:
    """One depth of a network.

    Attributes:
        layer: its specification.
        input_shape: shape of a row below it; at the bottom, of a row of the data.
        bottom: what stands below the first hidden layer and is trained with it; ``None`` for the others.
        sequences: whether a recurrent layer gives all its states, or its last.
    """

    layer: AnyLayer
    input_shape: RowShape
    bottom: Bottom | None = None
    sequences: bool = False


@dataclass(frozen=True)
class Output:
    """What stands on top of the hidden layers.

    Attributes:
        width: numbers that come out.
        input_shape: shape of a row of features below it.
        hidden: hidden layers of its own, bottom up: a richer head.
        grid: shape of the row that a convolution rebuilds after upsampling; empty for a dense output.
        kernel_size: of that convolution.
    """

    width: int
    input_shape: RowShape
    hidden: tuple[AnyLayer, ...] = ()
    grid: RowShape = ()
    kernel_size: int = 0


Piece = Hidden | Output
Below = Any
"""What comes into a network: one Keras tensor, or one for each named input."""


@dataclass(frozen=True)
class Built:
    """A Keras model with its layers by piece, in whose order this project keeps weights.

    Keras orders the weights of a branched model in its own way; :meth:`in_keras_order` translates.
    """

    model: keras.Model
    pieces: tuple[tuple[keras.layers.Layer, ...], ...]

    @property
    def weights(self) -> list[keras.Variable]:
        """All weights, piece by piece, bottom up."""
        return [weight for piece in self.pieces for layer in piece for weight in layer.weights]

    def in_keras_order(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Weights in this project's order, in that of ``model.get_weights()``."""
        place = {id(weight): position for position, weight in enumerate(self.weights)}
        return [weights[place[id(weight)]] for weight in self.model.weights]


def hidden_pieces(layers: Sequence[AnyLayer], bottom: Bottom) -> tuple[Hidden, ...]:
    """The hidden layers of a network, each with the shape that comes in.

    Args:
        layers: bottom up.
        bottom: what stands below the first.
    """
    return _hidden_pieces(tuple(layers), bottom)


@functools.lru_cache(maxsize=256)
def _hidden_pieces(layers: tuple[AnyLayer, ...], bottom: Bottom) -> tuple[Hidden, ...]:
    below = shape_below(bottom, build=_custom_shape) or ()
    shapes = incoming_shapes(layers, below, build=_custom_shape)
    pieces = [
        Hidden(layer, shape, sequences=passes_sequences(layers, number))
        for number, (layer, shape) in enumerate(zip(layers, shapes, strict=False), start=1)
    ]
    if bottom.shape or bottom.inputs:
        pieces[0] = dataclasses.replace(pieces[0], bottom=bottom, input_shape=(bottom.features,))
    return tuple(pieces)


def features_shape(piece: Hidden) -> RowShape:
    """Shape of a row of what a hidden layer makes."""
    return tuple(_built(piece).model.output_shape[1:])


def reconstruction_output(top: Hidden, bottom: Bottom) -> Output:
    """The output that rebuilds a row from a hidden layer's features.

    On a convolution it is the mirror image: upsampling to the size of the input, and a convolution to its channels;
    where the sizes do not divide, and on every other layer, it is dense.
    """
    shape, grid = features_shape(top), bottom.shape or ()
    alike = isinstance(top.layer, Conv) and len(shape) == len(grid)
    if alike and all(whole % part == 0 for whole, part in zip(grid[:-1], shape[:-1], strict=True)):
        return Output(bottom.features, shape, grid=grid, kernel_size=top.layer.kernel_size)
    return Output(bottom.features, shape)


def trainee(hidden: Sequence[Hidden], output: Output) -> Built:
    """What a stage trains: hidden layers and an output layer that gives logits (or a reconstruction).

    The frozen layers below are not in it: they are constants, and their features come in as inputs.
    """
    inputs = keras.Input(hidden[0].input_shape if hidden else output.input_shape, name="input")
    return _stack(inputs, inputs, hidden, output)


def piece_alone(piece: Piece) -> Built:
    """One piece of a network by itself: what makes a frozen layer's features, or an output's logits."""
    inputs = keras.Input(piece.input_shape, name="input")
    return _stack(inputs, inputs, *(((piece,), None) if isinstance(piece, Hidden) else ((), piece)))


def whole(
    hidden: Sequence[Hidden],
    output: Output,
    name: str,
    *,
    output_name: str = "output",
    activation: str = "linear",
    trainable_from: int = 1,
) -> Built:
    """A network from the data's rows to its output: ``hidden_01 .. hidden_kk``, and the output layer.

    Several inputs come in under their names; otherwise a row comes in flat.

    Args:
        hidden: the hidden layers, bottom up.
        output: what stands on top.
        name: of the model.
        output_name: of its last layer.
        activation: of its last layer.
        trainable_from: layers below this depth (from 1) are frozen, as greedy training left them.
    """
    bottom = hidden[0].bottom
    if bottom is not None and bottom.inputs:
        inputs = {key: keras.Input((len(encoder.features),), name=key) for key, encoder in bottom.inputs}
        below = inputs
    else:
        inputs = below = keras.Input(hidden[0].input_shape, name="input")
    built = _stack(inputs, below, hidden, output, name=name, output_name=output_name, activation=activation)
    for piece in built.pieces[: trainable_from - 1]:
        for layer in piece:
            layer.trainable = False
    return built


def encoder(model: keras.Model, name: str) -> keras.Model:
    """The hidden layers of a network that answers, without what stands on top: rows in, features of the top one out.

    It shares the model's layers, and so its weights. Features that are no flat row, as those of a convolution, stay as
    they are.

    Args:
        model: as :func:`whole` makes it, perhaps read from a file.
        name: of the encoder.

    Raises:
        ValueError: if it is no such network.
    """
    top = next((layer for layer in model.layers if re.fullmatch(r"output(_.*)?|head_\d+(_.*)?", layer.name)), None)
    if top is None:
        raise ValueError(f"the model {model.name!r} has no output layer by a name that Layerwise gives one")
    return keras.Model(model.inputs, top.input, name=name)


def fed(hidden: Hidden, rows: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
    """Rows of data as the whole model takes them: as they are, or one array for each of several inputs.

    Args:
        hidden: the first hidden layer.
        rows: ``(rows, features)``.
    """
    if hidden.bottom is None or not hidden.bottom.inputs:
        return rows
    return {name: rows[:, list(encoder.features)] for name, encoder in hidden.bottom.inputs}


def vectorised(hidden: Sequence[Hidden], output: Output | None) -> bool:
    """Whether one program can train several seeds of these pieces side by side."""
    layers = [piece.layer for piece in hidden] + [*(output.hidden if output else ())]
    for piece in hidden:
        layers += [layer for _, encoder in (piece.bottom.inputs if piece.bottom else ()) for layer in encoder.layers]
    return all(layer.vectorised and layer.dropout is None for layer in layers) and not (output and output.grid)


def penalised(hidden: Sequence[Hidden], output: Output) -> bool:
    """Whether any layer adds a penalty to the loss."""
    return bool(trainee(hidden, output).model.losses)


def _stack(
    inputs: Below,
    below: Below,
    hidden: Sequence[Hidden],
    output: Output | None,
    *,
    name: str = "network",
    output_name: str = "output",
    activation: str = "linear",
) -> Built:
    pieces, tensor = [], below
    for depth, piece in enumerate(hidden, start=1):
        made: list[keras.layers.Layer] = []
        if piece.bottom is not None:
            tensor = _bottom(piece.bottom, tensor, made)
        tensor = _grown(piece.layer, tensor, made, name=f"hidden_{depth:02d}", sequences=piece.sequences)
        pieces.append(tuple(made))
    if output is not None:
        made = []
        tensor = _topped(output, tensor, made, name=output_name, activation=activation)
        pieces.append(tuple(made))
    return Built(keras.Model(inputs, tensor, name=name), tuple(pieces))


def _bottom(bottom: Bottom, below: Below, made: list[keras.layers.Layer]) -> keras.KerasTensor:
    """What comes into the first hidden layer: the row in another shape, or the outputs of its encoders side by side."""
    if bottom.shape:
        return keras.layers.Reshape(bottom.shape, name="input_shape")(below)
    merged = []
    for key, encoder in bottom.inputs:
        tensor = below[key] if isinstance(below, dict) else _selected(below, encoder.features)
        if encoder.input:
            tensor = keras.layers.Reshape(encoder.input, name=f"{key}_shape")(tensor)
        layers = unrolled(encoder.layers)
        for number, layer in enumerate(layers, start=1):
            sequences = passes_sequences(layers, number)
            tensor = _grown(layer, tensor, made, name=f"{key}_{number:02d}", sequences=sequences)
        merged.append(_flat(tensor, f"{key}_flat"))
    return keras.layers.Concatenate(name="merged")(merged) if len(merged) > 1 else merged[0]


def _selected(rows: keras.KerasTensor, positions: Sequence[int]) -> keras.KerasTensor:
    first, last = positions[0], positions[-1]
    if tuple(positions) == tuple(range(first, last + 1)):
        return rows[:, first : last + 1]
    return keras.ops.take(rows, list(positions), axis=1)


def _grown(
    layer: AnyLayer, tensor: keras.KerasTensor, made: list[keras.layers.Layer], *, name: str, sequences: bool
) -> keras.KerasTensor:
    """What a hidden layer makes of a tensor; the Keras layers it consists of are added to ``made``."""
    below = tensor if layer.reads != "flat" else _flat(tensor, f"{name}_flat")
    tensor = below
    for part in _parts(layer, tensor.shape[1:], name=name, sequences=sequences):
        tensor = part(tensor)
        made.append(part)
    if isinstance(layer, Residual):
        tensor = keras.layers.Add(name=f"{name}_sum")([below, tensor])
    if layer.dropout is not None:
        # A fixed seed, so that a model's description is the same whenever it is built; stages seed it themselves.
        made.append(keras.layers.Dropout(layer.dropout, seed=0, name=f"{name}_dropout"))
        tensor = made[-1](tensor)
    return tensor


def _parts(layer: AnyLayer, shape: RowShape, *, name: str, sequences: bool) -> Iterator[keras.layers.Layer]:
    if isinstance(layer, Custom):
        yield from (_named(part, f"{name}_{number}") for number, part in enumerate(_custom(layer), start=1))
        return
    weighted = {
        "kernel_initializer": layer.initializer,
        "kernel_regularizer": keras.regularizers.L1L2(layer.regularization.l1, layer.regularization.l2)
        if layer.regularization
        else None,
        "name": name,
    }
    if isinstance(layer, Lstm | Gru):
        kind = keras.layers.LSTM if isinstance(layer, Lstm) else keras.layers.GRU
        yield kind(layer.units, activation=layer.activation, return_sequences=sequences, **weighted)
        yield from _normalization(layer, name)
        return
    activation = layer.activation if layer.normalization is None else "linear"
    if isinstance(layer, Dense | Residual):
        yield keras.layers.Dense(layer.units, activation=activation, **weighted)
    else:
        kind = keras.layers.Conv1D if len(shape) == 2 else keras.layers.Conv2D
        how = {"strides": layer.strides, "padding": layer.padding, "activation": activation}
        yield kind(layer.filters, layer.kernel_size, **how, **weighted)
    if layer.normalization is not None:
        yield from _normalization(layer, name)
        yield keras.layers.Activation(layer.activation, name=f"{name}_activation")
    if isinstance(layer, Conv) and layer.pooling is not None:
        kinds = {
            ("max", 2): keras.layers.MaxPooling1D,
            ("max", 3): keras.layers.MaxPooling2D,
            ("average", 2): keras.layers.AveragePooling1D,
            ("average", 3): keras.layers.AveragePooling2D,
        }
        yield kinds[layer.pooling.kind, len(shape)](layer.pooling.size, name=f"{name}_pooling")


def _normalization(layer: AnyLayer, name: str) -> Iterator[keras.layers.Layer]:
    if layer.normalization == "batch":
        yield keras.layers.BatchNormalization(name=f"{name}_normalization")
    elif layer.normalization == "layer":
        yield keras.layers.LayerNormalization(name=f"{name}_normalization")


def _custom(layer: Custom) -> list[keras.layers.Layer]:
    try:
        made = imported.function(layer.function)(**layer.options)
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's function does
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"{layer.function!r} failed with options {layer.options} ({reason}); mend it.") from None
    layers = list(made) if isinstance(made, list | tuple) else [made]
    for one in layers:
        if not isinstance(one, keras.layers.Layer):
            raise StudyError(
                f"{layer.function!r} returned a {type(one).__name__}; expected a Keras layer, or a list of them."
            )
    return layers


def _named(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """A layer of Keras's own under a name that its place gives it: Keras would number it, and refuses a second one."""
    if not type(layer).__module__.startswith("keras."):
        return layer
    return type(layer).from_config({**layer.get_config(), "name": name})


def _custom_shape(layer: Custom, shape: RowShape) -> RowShape:
    try:
        return features_shape(Hidden(layer, shape))
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001 - a shape that the user's layers do not take
        reason = str(error).splitlines()[0]
        raise StudyError(f"{layer.function!r} does not take rows of shape {shape} ({reason}).") from None


def _topped(
    output: Output, tensor: keras.KerasTensor, made: list[keras.layers.Layer], *, name: str, activation: str
) -> keras.KerasTensor:
    if output.grid:
        return _rebuilt(output, tensor, made, name=name)
    tensor = _flat(tensor, f"{name}_flat")
    for number, layer in enumerate(output.hidden, start=1):
        tensor = _grown(layer, tensor, made, name=f"head_{number:02d}", sequences=False)
    made.append(
        keras.layers.Dense(output.width, activation=activation, kernel_initializer=OUTPUT_INITIALIZER, name=name)
    )
    return made[-1](_flat(tensor, f"{name}_flat"))


def _rebuilt(
    output: Output, tensor: keras.KerasTensor, made: list[keras.layers.Layer], *, name: str
) -> keras.KerasTensor:
    """Upsampling to the size of the input, then a convolution to its channels."""
    size = tuple(whole // part for whole, part in zip(output.grid[:-1], tensor.shape[1:-1], strict=True))
    flat = len(size) == 1
    if any(factor > 1 for factor in size):
        upsampling = keras.layers.UpSampling1D(size[0]) if flat else keras.layers.UpSampling2D(size)
        tensor = upsampling(tensor)
    kind = keras.layers.Conv1D if flat else keras.layers.Conv2D
    made.append(
        kind(
            output.grid[-1],
            output.kernel_size,
            padding="same",
            kernel_initializer=OUTPUT_INITIALIZER,
            name=f"{name}_convolution",
        )
    )
    return keras.layers.Reshape((output.width,), name=name)(made[-1](tensor))


def _flat(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return tensor if len(tensor.shape) == 2 else keras.layers.Flatten(name=name)(tensor)


def initial_weights(piece: Piece, seeds: Sequence[int]) -> Weights:
    """Initial weights of one piece for every seed, each drawn by the plain layer's own initializers.

    Stacking replicas into one wide layer instead would count the replica axis as fan-in and start far too small.

    Args:
        piece: a hidden layer or an output.
        seeds: one initializer seed per replica.

    Returns:
        The piece's weights, each ``(seeds, ...)`` float32.
    """
    template = _built(piece)
    if _initializers_show(template):
        weighted = [layer for piece in template.pieces for layer in piece if layer.weights]
        return tuple(
            _drawn(
                getattr(layer, f"{weight.name}_initializer"), weight.shape, [_seed_of(seed, place) for seed in seeds]
            )
            for place, layer in enumerate(weighted)
            for weight in layer.weights
        )
    replicas = [_fresh_values(piece, seed) for seed in seeds]
    return tuple(np.stack(values) for values in zip(*replicas, strict=True))


def num_weights(piece: Piece) -> int:
    """How many weight arrays a piece has."""
    return len(_built(piece).weights)


@functools.lru_cache(maxsize=256)
def _built(piece: Piece) -> Built:
    return piece_alone(piece)


def _initializers_show(built: Built) -> bool:
    """Whether every weight's initializer is an attribute of its layer, by the weight's name, as in these layers."""
    plain = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)
    known = (*plain, keras.layers.BatchNormalization, keras.layers.LayerNormalization)
    return all(type(layer) in known for piece in built.pieces for layer in piece if layer.weights)


def _drawn(initializer: keras.initializers.Initializer, shape: tuple[int, ...], seeds: Sequence[int]) -> np.ndarray:
    """One weight for every seed, ``(seeds, ...)`` float32; building a piece per seed would cost ten times this."""
    settings = initializer.get_config()
    if "seed" not in settings:  # every seed gets the same: zeros, ones
        return np.repeat(np.asarray(initializer(shape), np.float32)[np.newaxis], len(seeds), axis=0)
    own = (type(initializer).from_config({**settings, "seed": seed}) for seed in seeds)
    return np.stack([np.asarray(one(shape), np.float32) for one in own])


def _seed_of(seed: int, position: int) -> int:
    """The seed of a piece's layer: its own, so that two encoders of one shape do not begin alike."""
    return seed if position == 0 else int(np.random.default_rng([seed, position]).integers(2**31))


def _fresh_values(piece: Piece, seed: int) -> list[np.ndarray]:
    """The weights of a piece built anew: Keras's initializers take their seeds from Python's random numbers."""
    before = random.getstate()
    random.seed(seed)
    try:
        return [np.array(weight.numpy(), np.float32) for weight in piece_alone(piece).weights]
    finally:
        random.setstate(before)


def optimizer(spec: Optimizer, *, factor: float = 1.0) -> keras.optimizers.Optimizer:
    """A fresh Keras optimizer, its learning rate multiplied by a factor."""
    settings = spec.model_dump(exclude={"name"})
    settings["learning_rate"] *= factor
    return keras.optimizers.get({"class_name": spec.name, "config": settings})


def loss(name: str):
    """The Keras loss of that name as a function ``(targets, outputs) -> one loss a row``; logits in, if classes."""
    losses = {
        "categorical_crossentropy": functools.partial(keras.losses.categorical_crossentropy, from_logits=True),
        "mean_squared_error": keras.losses.mean_squared_error,
    }
    return losses[name]
