"""The Keras models that are kept of trained networks: their architecture, and the weights of a seed."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerwise import network
from layerwise.datasets import Data
from layerwise.network import Built, Hidden, Output
from layerwise.stages import Block, Network
from layerwise.study import Study

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Architecture:
    """Everything of a model but its weights.

    Attributes:
        name: of the Keras model.
        hidden: the hidden layers, bottom up.
        output: what stands on top.
        output_name: of the last layer: ``"output"``, or ``"reconstruction"``.
        activation: of the last layer.
        trainable_from: layers below this depth are frozen.
    """

    name: str
    hidden: tuple[Hidden, ...]
    output: Output
    output_name: str
    activation: str
    trainable_from: int


def hidden_layers(block: Block, depth: int) -> tuple[Hidden, ...]:
    """The hidden layers of a block's network as deep as that."""
    return network.hidden_pieces(block.layers[:depth], block.procedure.bottom)


def answer_output(block: Block, data: Data, top: Hidden) -> Output:
    """The output that answers the study's question: a logit for every class, or one number."""
    return Output(len(data.classes) or 1, network.features_shape(top), block.procedure.head_layers)


def reconstruction_output(block: Block, top: Hidden) -> Output:
    """The output that rebuilds a row of the data."""
    return network.reconstruction_output(top, block.procedure.bottom)


def check_functions(study: Study) -> None:
    """Build the layers that a study's own functions make, so that what is wrong with them shows before work starts.

    Raises:
        StudyError: if a function cannot be imported, fails, or returns what is no layer or does not fit; one line.
    """
    for arm in study.arms if study.functions else ():
        asked = study.procedure(arm)
        top = network.hidden_pieces(asked.layers, asked.bottom)[-1]
        network.num_weights(Output(1, network.features_shape(top), asked.head_layers))


def architecture(kept: Network, data: Data) -> Architecture:
    """The architecture of a network to keep."""
    hidden = hidden_layers(kept.block, kept.depth)
    name = f"{kept.kind}_depth_{kept.depth:02d}"
    if kept.kind == "autoencoder":
        output = reconstruction_output(kept.block, hidden[-1])
        return Architecture(name, hidden, output, "reconstruction", "linear", kept.trainable_from)
    output = answer_output(kept.block, data, hidden[-1])
    activation = "softmax" if kept.kind == "classifier" else "linear"
    return Architecture(name, hidden, output, "output", activation, kept.trainable_from)


@functools.lru_cache(maxsize=64)
def built(wanted: Architecture) -> Built:
    """The Keras model of an architecture, with whatever weights; a classifier ends in softmax."""
    return network.whole(
        wanted.hidden,
        wanted.output,
        wanted.name,
        output_name=wanted.output_name,
        activation=wanted.activation,
        trainable_from=wanted.trainable_from,
    )


def weights(kept: Network, position: int, data: Data) -> list[np.ndarray]:
    """The weights of the seed at a position of the block, in the order of the model's ``get_weights()``.

    A regressor's output layer takes the scale of the target in, so that the model answers in the target's units.
    """
    own = [values[position] for values in kept.stacks]
    if kept.kind == "regressor":
        seen = kept.block.view(data)
        kernel, bias = (values.astype(np.float64) * seen.target_sd[position] for values in own[-2:])
        own[-2:] = kernel.astype(np.float32), (bias + seen.target_mean[position]).astype(np.float32)
    return built(architecture(kept, data)).in_keras_order(own)


def keras_model(kept: Network, position: int, data: Data) -> keras.Model:
    """A network of the seed at a position of its block, as a Keras model of its own.

    A classifier ends in softmax, an autoencoder in a linear reconstruction; layers that greedy training froze are
    not trainable.
    """
    model = built.__wrapped__(architecture(kept, data)).model
    model.set_weights(weights(kept, position, data))
    return model


def outputs(model: keras.Model, kept: Network, rows: np.ndarray) -> np.ndarray:
    """What a kept model makes of ``(rows, features)`` rows of data: ``(rows, ...)`` float32."""
    return np.asarray(model(network.fed(hidden_layers(kept.block, 1)[0], rows)))


def narrowest(block: Block, data: Data, depth: int) -> int:
    """Numbers that the narrowest layer so far has for a row; no more than the data has features."""
    widths = [math.prod(network.features_shape(piece)) for piece in hidden_layers(block, depth)]
    return min(data.features, *widths)
