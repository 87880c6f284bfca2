"""Arms: the procedures that a study compares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from layerwise.study.data import Scaling
from layerwise.study.layers import AnyLayer, Bottom, Network
from layerwise.study.parts import Part, nearest
from layerwise.study.training import FineTune, GaussianNoise, MaskingNoise, Noise, Training

KeptModels = Literal["all", "final", "none"]
"""Of which depths a study keeps models."""

Control = Literal["end_to_end", "random_frozen", "scratch", "permuted"]
CONTROLS: tuple[Control, ...] = get_args(Control)
WORDS = {
    "greedy": {"objective": "supervised"},
    "autoencoder": {"objective": "reconstruction"},
    **{word: {"control": word} for word in CONTROLS},
}
"""Arms that one word describes."""


class Arm(Part):
    """One procedure of the study.

    A control takes everything it does not say itself from the arm it controls for (``of``; the first arm that is
    no control, if left out): ``end_to_end`` trains the whole network at once for as many epochs in all,
    ``random_frozen`` leaves the hidden layers untrained, ``scratch`` spends the fine-tuning budget on an untrained
    network, ``permuted`` shuffles the pretrained weights within each layer before head and fine tuning.
    """

    objective: Literal["supervised", "reconstruction"] | None = None
    noise: Noise | None = None
    network: Network | None = None
    training: Training | None = None
    head: Training | None = None
    fine_tune: FineTune | None = None
    labels: Annotated[int, Field(ge=2, strict=True)] | None = None
    scaling: Scaling | None = None
    control: Control | None = None
    of: str | None = None
    depths: Literal["all", "final"] | None = None
    """Depths at which the network is finished and scored; ``end_to_end`` does so at the final one by default."""


@dataclass(frozen=True)
class Procedure:
    """An arm with everything said: its own words, those of the arm it controls for, and the study's.

    Attributes:
        objective: ``"supervised"`` or ``"reconstruction"``.
        layers: the hidden layers, bottom up.
        bottom: what stands between a row and the first of them.
        head_layers: hidden layers of the head, bottom up.
        training: of every greedy stage, where its layer does not say otherwise.
        head: of a new output layer on frozen features.
        noise: on the stages' inputs, if any, where a layer does not say otherwise.
        fine_tune: of all weights, if wanted.
        control: what kind of control it is, if any.
        labels: training rows that keep their label; all of them if ``None``.
        scaling: of the inputs.
        depths: the depths at which the network is finished and scored.
    """

    objective: Literal["supervised", "reconstruction"]
    layers: tuple[AnyLayer, ...]
    bottom: Bottom
    head_layers: tuple[AnyLayer, ...]
    training: Training
    head: Training
    noise: MaskingNoise | GaussianNoise | None
    fine_tune: FineTune | None
    control: Control | None
    labels: int | None
    scaling: Scaling
    depths: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of hidden layers at the end."""
        return len(self.layers)

    def upto(self, depth: int) -> Procedure:
        """The same procedure with no more than so many hidden layers, the last of which is scored."""
        if depth >= self.depth:
            return self
        scored = (*(one for one in self.depths if one < depth), depth)
        return dataclasses.replace(self, layers=self.layers[:depth], depths=scored)

    def training_at(self, depth: int) -> Training:
        """How the stage that adds the layer at a depth trains."""
        own = self.layers[depth - 1].training
        return self.training if own is None else own.replaced(self.training)

    def noise_at(self, depth: int) -> MaskingNoise | GaussianNoise | None:
        """The noise on the inputs of the stage that adds the layer at a depth."""
        return self.layers[depth - 1].noise or self.noise

    def tunes_at(self, depth: int) -> bool:
        """Whether all weights are fine-tuned at a depth."""
        return self.fine_tune is not None and (self.fine_tune.at == "every_depth" or depth == self.depth)

    def keeps(self, depth: int, wanted: KeptModels) -> bool:
        """Whether the models of a depth are kept, where a study keeps those of so many depths."""
        return wanted == "all" or (wanted == "final" and depth == self.depth)


def in_one_word(name: str, arm: Any) -> Any:
    """What an arm says that is described by one word; any other as it is."""
    if isinstance(arm, str) and arm not in WORDS:
        raise ValueError(f"{name}: received {arm!r}{nearest(arm, list(WORDS))}")
    return WORDS[arm] if isinstance(arm, str) else arm
