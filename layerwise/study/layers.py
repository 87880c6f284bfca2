"""Hidden layers and the network they make up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, field_validator, model_validator

from layerwise.study.parts import ImportPath, Part, digest_of
from layerwise.study.training import Noise, Optimizer, Training

Activation = Literal["linear", "relu", "elu", "selu", "gelu", "silu", "leaky_relu", "sigmoid", "softplus", "tanh"]
Initializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "zeros"
]
Units = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Span = Annotated[int, Field(ge=1, le=10_000, strict=True)]
RowShape = tuple[int, ...]
"""Shape of what one row is at some place of a network: ``(features,)``, ``(steps, channels)``, …"""

MOST_LAYERS = 1000
"""Hidden layers of a network, of an encoder or of a head, each repeat counted."""

MOST_INPUTS = 100
"""Encoders of a network."""

MOST_POSITIONS = 100_000
"""Features that an encoder takes."""


class Regularization(Part):
    """Penalties on a layer's kernel, added to the loss: ``l1`` times its absolute sum, ``l2`` times its squares."""

    l1: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class LayerTraining(Part):
    """What the stage that adds a layer does otherwise than the arm's training says."""

    optimizer: Optimizer | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    epochs: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None

    def replaced(self, training: Training) -> Training:
        """The training with what this says in its place."""
        said = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return training.model_copy(update=said)


class LayerPart(Part):
    """What a layer of every kind can say."""

    dropout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the layer's outputs that is set to zero while it trains."""
    normalization: Literal["batch", "layer"] | None = None
    """Between the layer's weights and its activation."""
    training: LayerTraining | None = None
    noise: Noise | None = None
    """On the inputs of the stage that adds the layer."""
    repeat: Annotated[int, Field(ge=1, le=MOST_LAYERS, strict=True)] = 1

    reads: ClassVar[str] = "flat"
    """What comes in: ``"flat"`` rows, a ``"sequence"``, a ``"grid"`` (a sequence or an image), or ``"any"``."""
    vectorised: ClassVar[bool] = True
    """Whether one program can train several seeds of this kind side by side."""

    @property
    def label(self) -> str:
        """The layer in a word, for lists of layers."""
        return str(getattr(self, "units", ""))

    def output_shape(self, shape: RowShape) -> RowShape | None:
        """What the layer makes of a row; ``None`` where only building it can tell.

        Raises:
            ValueError: if a row of this shape cannot come in.
        """
        raise NotImplementedError


class _Weighted(LayerPart):
    """A layer with a kernel of its own."""

    activation: Activation = "relu"
    initializer: Initializer = "glorot_uniform"
    regularization: Regularization | None = None


class Dense(_Weighted):
    """A fully connected layer; what comes in is flattened."""

    kind: Literal["dense"] = "dense"
    units: Units

    def output_shape(self, shape: RowShape) -> RowShape:  # noqa: ARG002 - all shapes can be flattened
        """One number a unit."""
        return (self.units,)


class Residual(_Weighted):
    """A fully connected layer whose input is added to its output (He et al., 2016); it keeps the width."""

    kind: Literal["residual"]
    units: Units

    def output_shape(self, shape: RowShape) -> RowShape:
        """One number a unit."""
        if math.prod(shape) != self.units:
            raise ValueError(f"adds its input to {self.units} units, but {_worded(shape)} comes in; make them equal")
        return (self.units,)


class Pooling(Part):
    """Pooling after a convolution: the ``max`` or the ``average`` over ``size`` neighbours along each axis."""

    kind: Literal["max", "average"] = "max"
    size: Annotated[int, Field(ge=2, le=1000, strict=True)] = 2


class Conv(_Weighted):
    """A convolution over the steps of a sequence, or over the height and width of an image."""

    kind: Literal["conv"]
    filters: Units
    kernel_size: Span = 3
    strides: Span = 1
    padding: Literal["same", "valid"] = "same"
    pooling: Pooling | None = None

    reads: ClassVar[str] = "grid"
    vectorised: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The layer in a word."""
        return f"conv {self.filters}"

    def output_shape(self, shape: RowShape) -> RowShape:
        """``(steps, filters)`` or ``(height, width, filters)``, fewer of the former by strides and pooling."""
        if len(shape) not in {2, 3}:
            raise ValueError(
                f"takes (steps, channels) or (height, width, channels), but {_worded(shape)} comes in;"
                " say network.input, such as [8, 8, 1]"
            )
        return (*(self._length(length) for length in shape[:-1]), self.filters)

    def _length(self, length: int) -> int:
        left = length if self.padding == "same" else length - self.kernel_size + 1
        left = -(-left // self.strides) if left > 0 else 0
        left = left // self.pooling.size if self.pooling else left
        if left < 1:
            raise ValueError(f"leaves nothing of an axis of length {length}; use a smaller kernel or less pooling")
        return left


class _Recurrent(LayerPart):
    """A recurrent layer: it gives its last state, or, under another layer that reads sequences, all of them."""

    units: Units
    activation: Activation = "tanh"
    initializer: Initializer = "glorot_uniform"
    regularization: Regularization | None = None

    reads: ClassVar[str] = "sequence"
    vectorised: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The layer in a word."""
        return f"{getattr(self, 'kind', 'recurrent')} {self.units}"

    def output_shape(self, shape: RowShape) -> RowShape:
        """The last state, one number a unit."""
        if len(shape) != 2:
            raise ValueError(
                f"takes (steps, features), but {_worded(shape)} comes in; say network.input, such as [8, 8]"
            )
        return (self.units,)


class Lstm(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997)."""

    kind: Literal["lstm"]


class Gru(_Recurrent):
    """Gated recurrent units (Cho et al., 2014)."""

    kind: Literal["gru"]


class Custom(LayerPart):
    """Layers that a function of the user's returns: ``function: "module:name"``, called with ``options``."""

    kind: Literal["custom"]
    function: ImportPath
    options: Annotated[dict[str, JsonValue], Field(default_factory=dict)]

    reads: ClassVar[str] = "any"
    vectorised: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The layer in a word."""
        return self.function

    def output_shape(self, shape: RowShape) -> None:
        """Not known before it is built."""

    def __hash__(self) -> int:
        return hash(digest_of(self.canonical()))  # options need not be hashable themselves


KINDS_OF_LAYER: dict[str, type[LayerPart]] = {
    "dense": Dense,
    "conv": Conv,
    "lstm": Lstm,
    "gru": Gru,
    "residual": Residual,
    "custom": Custom,
}


def _dense_by_default(said: Any) -> Any:
    return {"kind": "dense", **said} if isinstance(said, dict) else said


Layer = Annotated[
    Dense | Conv | Lstm | Gru | Residual | Custom, Field(discriminator="kind"), BeforeValidator(_dense_by_default)
]
AnyLayer = Dense | Conv | Lstm | Gru | Residual | Custom


def unrolled(layers: Sequence[AnyLayer]) -> tuple[AnyLayer, ...]:
    """Every layer by itself, bottom up."""
    return tuple(layer.model_copy(update={"repeat": 1}) for layer in layers for _ in range(layer.repeat))


def incoming_shapes(
    layers: Sequence[AnyLayer],
    shape: RowShape,
    *,
    build: Callable[[Custom, RowShape], RowShape] | None = None,
    name: str = "layer",
) -> list[RowShape]:
    """The shape of a row below each layer, and above the last one.

    A recurrent layer under one that reads sequences passes all its states on; above the last one, its last state.

    Args:
        layers: bottom up, each by itself.
        shape: of a row below the first.
        build: tells what a custom layer makes of a row; without it, the list ends below the first custom layer.
        name: what a layer is called in messages, where it is followed by its number.

    Raises:
        ValueError: if a layer cannot take what comes in; the message names it and says what does.
    """
    shapes = [shape]
    for number, layer in enumerate(layers, start=1):
        try:
            made = layer.output_shape(shapes[-1])
        except ValueError as error:
            raise ValueError(f"{name} {number} ({layer.kind}) {error}") from None
        if made is None and isinstance(layer, Custom) and build is not None:
            made = build(layer, shapes[-1])
        if made is None:
            break
        if passes_sequences(layers, number):
            made = (shapes[-1][0], *made)
        shapes.append(made)
    return shapes


def passes_sequences(layers: Sequence[AnyLayer], number: int) -> bool:
    """Whether the layer of that number, from 1, is recurrent and stands under one that reads sequences."""
    below, above = layers[number - 1], layers[number] if number < len(layers) else None
    return isinstance(below, _Recurrent) and above is not None and above.reads in READS_SEQUENCES


READS_SEQUENCES = ("sequence", "grid")


def _worded(shape: RowShape) -> str:
    return f"a row of shape ({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


InputShape = Annotated[tuple[Span, ...], Field(min_length=1, max_length=3)]
Positions = tuple[Annotated[int, Field(ge=0, strict=True)], ...]


def _positions(said: Any) -> Any:
    """``"0-31, 40"`` as the positions it means."""
    if not isinstance(said, str):
        return said
    found: list[int] = []
    for piece in said.split(","):
        first, dash, last = (part.strip() for part in piece.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 12:
            raise ValueError(f"received {said[:60]!r}; expected positions such as 0-31 or 0, 3, 8")
        if dash and int(first) > int(last):
            raise ValueError(f"received {said[:60]!r}; {piece.strip()!r} does not go upwards")
        size = int(last or first) - int(first) + 1
        if len(found) + size > MOST_POSITIONS:
            raise ValueError(f"received {said[:60]!r}; at most {MOST_POSITIONS:,} positions")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _bounded(layers: tuple[AnyLayer, ...]) -> tuple[AnyLayer, ...]:
    depth = sum(layer.repeat for layer in layers)
    if depth > MOST_LAYERS:
        raise ValueError(f"{depth} layers in all; at most {MOST_LAYERS}")
    return layers


Layers = Annotated[tuple[Layer, ...], Field(min_length=1), AfterValidator(_bounded)]
"""Layers bottom up, few enough to unroll."""


class Encoder(Part):
    """A small encoder of some of a row's features: a named input, trained with the first hidden layer."""

    features: Annotated[Positions, Field(min_length=1, max_length=MOST_POSITIONS), BeforeValidator(_positions)]
    """Positions of the features in a row, from 0, as a list or as in ``"0-31"``."""
    input: InputShape | None = None
    """Shape as which the layers see these features; flat if left out."""
    layers: Layers

    @property
    def shape(self) -> RowShape:
        """Shape of what its first layer sees of a row."""
        return self.input or (len(self.features),)


@dataclass(frozen=True)
class Bottom:
    """What stands between a row of the data and the first hidden layer.

    Attributes:
        features: width of a row.
        shape: as which the first hidden layer sees a row, where it is not flat.
        inputs: the encoders whose outputs, side by side, are what it sees instead, each under its name.
    """

    features: int
    shape: RowShape | None = None
    inputs: tuple[tuple[str, Encoder], ...] = ()


class Network(Part):
    """The hidden layers, bottom up; the depth of a study is their number."""

    layers: Layers
    input: InputShape | None = None
    """Shape as which the first layer sees a row, such as ``[8, 8, 1]``; flat if left out."""
    inputs: Annotated[dict[str, Encoder], Field(min_length=1, max_length=MOST_INPUTS)] | None = None
    """Several inputs: the encoder of each, by name; their outputs are merged below the first hidden layer."""
    head: Layers | None = None
    """Hidden layers of the head, between the features and the output layer; trained together with it."""

    @property
    def hidden(self) -> tuple[AnyLayer, ...]:
        """Every hidden layer by itself, bottom up, ``repeat`` unrolled."""
        return unrolled(self.layers)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoder of each input, if there are several."""
        return self.inputs or {}

    @property
    def every_layer(self) -> tuple[AnyLayer, ...]:
        """All layers that are written anywhere in the network: hidden, of encoders, of the head."""
        encoders = (layer for encoder in self.encoders.values() for layer in encoder.layers)
        return (*self.layers, *encoders, *(self.head or ()))

    def bottom(self, features: int) -> Bottom:
        """What stands below the first hidden layer, for rows of so many features."""
        return Bottom(features, self.input, tuple(self.encoders.items()))

    @field_validator("inputs")
    @classmethod
    def _input_names(cls, inputs: dict[str, Encoder] | None) -> dict[str, Encoder] | None:
        for name in inputs or {}:
            if not name.isidentifier() or not name.isascii() or len(name) > 40:
                raise ValueError(f"received the name {name[:60]!r}; use letters, digits and _, up to 40")
        return inputs

    @model_validator(mode="after")
    def _one_way_in(self) -> Network:
        if self.input is not None and self.inputs is not None:
            raise ValueError("says both input and inputs; an encoder among inputs has an input of its own")
        trained_along = {"head": self.head or (), **{f"inputs.{name}": e.layers for name, e in self.encoders.items()}}
        for place, layers in trained_along.items():
            if any(layer.noise is not None or layer.training is not None for layer in layers):
                raise ValueError(f"{place}: its layers have no stage of their own; leave out training and noise")
        return self


def shape_below(bottom: Bottom, *, build: Callable[[Custom, RowShape], RowShape] | None = None) -> RowShape | None:
    """The shape of a row below the first hidden layer; ``None`` where a custom encoder would have to be built.

    Raises:
        ValueError: if an encoder's layers do not fit; the message names it.
    """
    if not bottom.inputs:
        return bottom.shape or (bottom.features,)
    merged = 0
    for name, encoder in bottom.inputs:
        layers = unrolled(encoder.layers)
        shapes = incoming_shapes(layers, encoder.shape, build=build, name=f"inputs.{name}: layer")
        if len(shapes) <= len(layers):
            return None
        merged += math.prod(shapes[-1])
    return (merged,)


def check_shapes(network: Network, features: int) -> None:
    """Refuse a network whose layers do not fit rows of so many features, or one another.

    Raises:
        ValueError: naming the layer, and what comes in there.
    """
    bottom = network.bottom(features)
    if math.prod(bottom.shape or (features,)) != features:
        holds = f"{_worded(network.input or ())} has {math.prod(network.input or ())} numbers"
        raise ValueError(f"input: {holds}, but the data has {features}")
    for name, encoder in bottom.inputs:
        if max(encoder.features) >= features:
            raise ValueError(
                f"inputs.{name}.features: received {max(encoder.features)}; a row has positions 0 to {features - 1}"
            )
        if math.prod(encoder.shape) != len(encoder.features):
            raise ValueError(
                f"inputs.{name}.input: {_worded(encoder.shape)} holds not {len(encoder.features)} features"
            )
    below = shape_below(bottom)
    shapes = incoming_shapes(network.hidden, below) if below else []
    if len(shapes) > len(network.hidden):
        incoming_shapes(unrolled(network.head or ()), (math.prod(shapes[-1]),), name="head: layer")
