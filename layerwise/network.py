"""Networks: the only module that builds Keras layers and models.

A fresh model is built for every purpose. Changing a compiled ``Sequential`` with ``pop`` and ``add`` leaves Keras 3
training its old graph: frozen layers move and the new layer does not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import keras
import numpy as np

from layerwise import backend  # noqa: F401 - fixes the threads before Keras computes anything
from layerwise.study import Layer, Optimizer

OUTPUT_INITIALIZER = "glorot_uniform"
"""Keras's own default for a dense layer, which the output layers use."""


def hidden_layer(spec: Layer, *, name: str | None = None) -> keras.layers.Layer:
    """The Keras layer that a layer specification describes."""
    return keras.layers.Dense(
        spec.units,
        activation=spec.activation,
        kernel_initializer=spec.initializer,
        name=name,
    )


def output_layer(width: int, *, activation: str = "linear", name: str | None = None) -> keras.layers.Layer:
    """A dense output layer of ``width`` units."""
    return keras.layers.Dense(width, activation=activation, kernel_initializer=OUTPUT_INITIALIZER, name=name)


def trainee(layers: Sequence[Layer], outputs: int, input_shape: tuple[int, ...]) -> keras.Model:
    """What a stage trains: hidden layers and an output layer that gives logits (or a reconstruction).

    The frozen layers below are not in it: they are constants, and their features come in as inputs.
    """
    return keras.Sequential([keras.Input(input_shape), *(hidden_layer(spec) for spec in layers), output_layer(outputs)])


def classifier(
    layers: Sequence[Layer], classes: int, input_shape: tuple[int, ...], *, trainable_from: int = 1
) -> keras.Model:
    """The whole classifier of one depth: ``hidden_01 .. hidden_kk``, then ``output`` with softmax.

    Args:
        layers: the hidden layers, bottom up.
        classes: width of the softmax output.
        input_shape: shape of one row.
        trainable_from: layers below this depth (from 1) are frozen, as greedy training left them.
    """
    output = output_layer(classes, activation="softmax", name="output")
    return _whole(layers, output, input_shape, trainable_from, f"classifier_depth_{len(layers):02d}")


def autoencoder(layers: Sequence[Layer], input_shape: tuple[int, ...], *, trainable_from: int = 1) -> keras.Model:
    """The whole autoencoder of one depth: ``hidden_01 .. hidden_kk``, then a linear ``reconstruction``.

    Args:
        layers: the hidden layers, bottom up.
        input_shape: shape of one row, which is also what comes out.
        trainable_from: layers below this depth (from 1) are frozen, as greedy training left them.
    """
    output = output_layer(math.prod(input_shape), name="reconstruction")
    return _whole(layers, output, input_shape, trainable_from, f"autoencoder_depth_{len(layers):02d}")


def _whole(
    layers: Sequence[Layer],
    output: keras.layers.Layer,
    input_shape: tuple[int, ...],
    trainable_from: int,
    name: str,
) -> keras.Model:
    hidden = [hidden_layer(spec, name=f"hidden_{depth:02d}") for depth, spec in enumerate(layers, start=1)]
    model = keras.Sequential([keras.Input(input_shape, name="input"), *hidden, output], name=name)
    for layer in hidden[: trainable_from - 1]:
        layer.trainable = False
    return model


def initial_weights(spec: Layer | int, input_shape: tuple[int, ...], seeds: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Initial weights of one layer for every seed, each drawn by the plain layer's own initializers.

    Stacking replicas into one wide layer instead would count the replica axis as fan-in and start far too small.

    Args:
        spec: a hidden layer, or the width of an output layer.
        input_shape: shape of one row of the layer's input.
        seeds: one initializer seed per replica.

    Returns:
        The layer's weights in Keras's order, each ``(seeds, ...)`` float32.
    """
    template = _built(spec, input_shape)
    draws = [_drawers(template, seed) for seed in seeds]
    return tuple(
        np.stack([np.asarray(drawn[position](weight.shape), np.float32) for drawn in draws])
        for position, weight in enumerate(template.weights)
    )


def num_weights(spec: Layer, input_shape: tuple[int, ...]) -> int:
    """How many weight arrays a hidden layer has."""
    return len(_built(spec, input_shape).weights)


@functools.lru_cache(maxsize=128)
def _built(spec: Layer | int, input_shape: tuple[int, ...]) -> keras.layers.Layer:
    layer = output_layer(spec) if isinstance(spec, int) else hidden_layer(spec)
    layer.build((None, *input_shape))
    return layer


def _drawers(layer: keras.layers.Layer, seed: int) -> list[keras.initializers.Initializer]:
    """The initializer of each of the layer's weights, seeded; building a layer per seed would cost ten times this."""
    return [_seeded(getattr(layer, f"{weight.name}_initializer"), seed) for weight in layer.weights]


def _seeded(initializer: keras.initializers.Initializer, seed: int) -> keras.initializers.Initializer:
    settings = initializer.get_config()
    return type(initializer).from_config({**settings, "seed": seed} if "seed" in settings else settings)


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
