"""Training: optimizers, noise, fine tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from layerwise.study.parts import Part, Positive


# Elementwise optimizers only: one that takes a norm over a whole variable would mix the seeds of a block.
class Sgd(Part):
    """Stochastic gradient descent, with momentum if wanted."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False


class Adam(Part):
    """Adam (Kingma and Ba, 2015)."""

    name: Literal["adam"]
    learning_rate: Positive = 0.001
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class Rmsprop(Part):
    """RMSprop (Hinton, 2012)."""

    name: Literal["rmsprop"]
    learning_rate: Positive = 0.001
    rho: Annotated[float, Field(ge=0, lt=1)] = 0.9
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Adagrad(Part):
    """Adagrad (Duchi et al., 2011)."""

    name: Literal["adagrad"]
    learning_rate: Positive = 0.001


OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "rmsprop": Rmsprop, "adagrad": Adagrad}
Optimizer = Annotated[Sgd | Adam | Rmsprop | Adagrad, Field(discriminator="name")]


class Training(Part):
    """How every stage trains: optimizer, batch size, epochs."""

    optimizer: Optimizer = Sgd()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 32
    epochs: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 100


class MaskingNoise(Part):
    """Sets a share of a stage's inputs to zero, drawn anew for every minibatch (Vincent et al., 2010)."""

    kind: Literal["masking"] = "masking"
    rate: Annotated[float, Field(gt=0, lt=1)]


class GaussianNoise(Part):
    """Adds normal noise to a stage's inputs, drawn anew for every minibatch."""

    kind: Literal["gaussian"]
    sd: Annotated[float, Field(gt=0, le=1e30)]  # beyond, single precision overflows


NOISES = {"masking": MaskingNoise, "gaussian": GaussianNoise}
Noise = Annotated[MaskingNoise | GaussianNoise, Field(discriminator="kind")]


class FineTune(Training):
    """Training of all weights together, at a learning rate that should be low.

    ``objective`` says which: ``labels`` (after the head), ``reconstruction`` (before it) or ``both``, one after
    the other. What it makes goes no further up the greedy chain unless ``carry`` is set.
    """

    objective: Literal["labels", "reconstruction", "both"] = "labels"
    at: Literal["end", "every_depth"] = "end"
    learning_rate_factors: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """One factor per hidden layer, bottom up, and one for the output layer."""
    carry: bool = False
    output: Literal["fitted", "fresh"] | None = None
    """On labels, where the output layer starts: as the head left it (if left out), or anew, as the head itself did."""
