"""Hidden layers and the network they make up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from layerwise.study.parts import Part

Activation = Literal["linear", "relu", "elu", "selu", "gelu", "silu", "leaky_relu", "sigmoid", "softplus", "tanh"]
Initializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "zeros"
]


class Layer(Part):
    """One hidden layer, or ``repeat`` equal ones."""

    kind: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=65_536, strict=True)]
    activation: Activation = "relu"
    initializer: Initializer = "glorot_uniform"
    repeat: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1


class Network(Part):
    """The hidden layers, bottom up; the depth of a study is their number."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]

    @property
    def hidden(self) -> tuple[Layer, ...]:
        """Every hidden layer by itself, bottom up, ``repeat`` unrolled."""
        return tuple(layer.model_copy(update={"repeat": 1}) for layer in self.layers for _ in range(layer.repeat))

    @field_validator("layers")
    @classmethod
    def _bounded_depth(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        depth = sum(layer.repeat for layer in layers)
        if depth > 1000:
            raise ValueError(f"{depth} hidden layers in all; at most 1000")
        return layers
