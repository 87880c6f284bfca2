"""What the algorithm works on and leaves behind: blocks of seeds, results of stages, scores, networks, depths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from layerwise import datasets
from layerwise.datasets import Data, View
from layerwise.study import AnyLayer, DataSet, Procedure, Study, looks
from layerwise.study.claims import FINE_TUNED

UNTRAINED = ("untrained", "permuted")
"""Stages that train nothing: made anew at every call, and never stored."""

Objective = Literal["labels", "reconstruction"]
Weights = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Block:
    """What one arm trains over one block of seeds: the stage functions' subject.

    Attributes:
        arm: the arm's name.
        procedure: what the arm does.
        data: how the data set is divided among seeds.
        seeds: the aligned block of seeds, trained side by side.
        reported: how many of them the study asked for; the rest complete the block's shape.
        data_digest: digest of the data.
        repeat: name of the deliberate repeat, empty for the first computation.
    """

    arm: str
    procedure: Procedure
    data: DataSet
    seeds: tuple[int, ...]
    reported: int
    data_digest: str
    repeat: str = ""

    @property
    def layers(self) -> tuple[AnyLayer, ...]:
        """The hidden layers, bottom up."""
        return self.procedure.layers

    @property
    def pretraining(self) -> Objective:
        """What the greedy stages train on."""
        return "labels" if self.procedure.objective == "supervised" else "reconstruction"

    def upto(self, depth: int) -> Block:
        """The same block with no more than so many hidden layers."""
        return dataclasses.replace(self, procedure=self.procedure.upto(depth))

    def view(self, data: Data) -> View:
        """What these seeds see of the data."""
        asked = self.procedure
        return datasets.view(self.data, data, seeds=self.seeds, labels=asked.labels, scaling=asked.scaling)


@dataclass(frozen=True)
class StageResult:
    """A trained stage of one block.

    Attributes:
        stage: which: ``"base"``, ``"add_layer"``, ``"head"``, ``"fine_tune"``, ``"jointly"``, ``"untrained"``, ….
        depth: number of hidden layers of the network.
        hidden: weights of the hidden layers that the stage leaves, each ``(seeds, ...)`` float32: of the new one,
            of none for a head, of all where all were trained.
        output: weights of the output layer, each ``(seeds, ...)`` float32; none where there is none.
        loss_curve: ``(seeds, epochs)`` float32, mean training loss of each epoch.
        diverged: ``(seeds,)`` bool, whether a loss or weight of the seed is not finite, now or in a stage below.
        frozen: digest of the frozen weights below, as they were after the stage.
        digest: identity of the result.
        finished: when it was computed, milliseconds since 1970.
        seconds: how long the computation took.
        peak_memory: the most memory that the process had held when it was through, in bytes; None where that is not
            known, as of results that were stored before it was recorded.
        code: digest of the code that computed it, as :func:`layerwise.own_code.digest` gives; empty where that is not
            known.
    """

    stage: str
    depth: int
    hidden: Weights
    output: Weights
    loss_curve: np.ndarray
    diverged: np.ndarray
    frozen: str
    digest: str
    finished: int
    seconds: float
    peak_memory: int | None = None
    code: str = ""


Chain = tuple[StageResult, ...]
"""A network's hidden layers, one result each, bottom up; the top one also holds the output layer."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of one block at one depth.

    Attributes:
        depth: number of hidden layers.
        metrics: name -> ``(seeds,)`` float64. For each part (``train``, ``test`` and ``validation`` if there is one)
            ``_accuracy`` in 0..1 and ``_loss`` in nats a row; where there is a reconstruction,
            ``_reconstruction_mse`` in squared units of the inputs and ``reconstruction_r2``; ``live_units`` and
            ``effective_rank`` of the newest layer on the training rows. Of no meaning where the seed has diverged.
        diverged: ``(seeds,)`` bool.
        collapsed: ``(seeds,)`` bool, see :func:`layerwise.outcomes.collapsed`; False without a reconstruction.
        digest: identity of the scores.
        finished: when they were computed, milliseconds since 1970.
        seconds: how long that took; None where it is not known, as of scores that were stored before it was recorded.
        peak_memory: as of a :class:`StageResult`.
        code: likewise.
    """

    depth: int
    metrics: dict[str, np.ndarray]
    diverged: np.ndarray
    collapsed: np.ndarray
    digest: str
    finished: int
    seconds: float | None = None
    peak_memory: int | None = None
    code: str = ""


def model_name(depth: int, what: str = "") -> str:
    """What the model of a depth is called: of the network that answers, or ``"autoencoder"`` or ``"fine-tuned"``.

    Example:
        >>> from layerwise.stages import model_name
        >>> model_name(2), model_name(2, "fine-tuned")
        ('depth-02', 'depth-02-fine-tuned')
    """
    return "-".join(filter(None, (f"depth-{depth:02d}", what)))


@dataclass(frozen=True)
class Network:
    """A network to keep: what a depth's model is called, what it is, and its weights for every seed.

    Attributes:
        name: of the model.
        kind: what comes out: classes, a number, or the inputs again.
        block: the seeds and their procedure.
        depth: number of hidden layers.
        trainable_from: layers below this depth are frozen.
        stacks: all weights, piece by piece, bottom up, each ``(seeds, ...)`` float32.
    """

    name: str
    kind: Literal["classifier", "regressor", "autoencoder"]
    block: Block
    depth: int
    trainable_from: int
    stacks: Weights


@dataclass(frozen=True)
class Depth:
    """One depth of one block: its network, the scores, and the fine-tuned network where there is one."""

    block: Block
    chain: Chain
    head: StageResult | None
    evaluation: Evaluation
    fine_tuned: Depth | None = None

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.chain)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.block.arm}, seeds {self.block.seeds[0]}-{self.block.seeds[-1]}, depth {self.depth}"

    @property
    def stored(self) -> tuple[StageResult | Evaluation, ...]:
        """What this depth rests on that was computed as a stage of its own, and can be found by its digest."""
        made = [self.chain[-1], self.head, self.evaluation]
        own = tuple(one for one in made if one is not None and getattr(one, "stage", "") not in UNTRAINED)
        return own if self.fine_tuned is None else own + self.fine_tuned.stored

    @property
    def digests(self) -> tuple[str, ...]:
        """Those of :attr:`stored`."""
        return tuple(one.digest for one in self.stored)

    def records(self) -> Iterator[dict[str, Any]]:
        """The scores as records, one for each seed that the study asked for."""
        for position, seed in enumerate(self.block.seeds[: self.block.reported]):
            record = {"arm": self.block.arm, "seed": seed, "depth": self.depth}
            record |= _scores(self.evaluation, position, "")
            if self.fine_tuned is not None:
                record |= _scores(self.fine_tuned.evaluation, position, FINE_TUNED)
            yield record

    def as_last(self) -> Depth:
        """The same depth, known to be the last of its block."""
        return dataclasses.replace(self, block=self.block.upto(self.depth))

    def networks(self) -> Iterator[Network]:
        """The networks of this depth, each under its own name."""
        name, hidden = model_name(self.depth), tuple(values for result in self.chain for values in result.hidden)
        answering = "regressor" if self.block.data.task == "regression" else "classifier"
        top = self.head.output if self.head else self.chain[-1].output
        yield Network(name, answering, self.block, self.depth, self._answer_trainable_from(), hidden + top)
        if self.block.procedure.objective == "reconstruction" and self.chain[-1].output:
            everything = hidden + self.chain[-1].output
            name = model_name(self.depth, "autoencoder")
            yield Network(name, "autoencoder", self.block, self.depth, self._trained_from(), everything)
        if self.fine_tuned is not None:
            tuned = next(self.fine_tuned.networks())
            yield dataclasses.replace(tuned, name=model_name(self.depth, "fine-tuned"), trainable_from=1)

    def _trained_from(self) -> int:
        """The lowest hidden layer that the last stage trained."""
        return {"base": 1, "add_layer": self.depth, "jointly": 1, "fine_tune": 1}.get(
            self.chain[-1].stage, self.depth + 1
        )

    def _answer_trainable_from(self) -> int:
        return self._trained_from() if self.head is None else self.depth + 1


def _scores(evaluation: Evaluation, position: int, prefix: str) -> dict[str, Any]:
    outcome = {"diverged": evaluation.diverged[position], "collapsed": evaluation.collapsed[position]}
    # A diverged seed has no scores, though some look like one: a network that answers NaN is taken to say class 0.
    lost = outcome["diverged"]
    return {
        **{f"{prefix}{name}": bool(value) for name, value in outcome.items()},
        **{
            f"{prefix}{name}": float("nan") if lost else float(values[position])
            for name, values in evaluation.metrics.items()
        },
    }


def blocks(study: Study, arm: str, data_digest: str, repeat: str = "") -> Iterator[Block]:
    """The blocks of one arm that together hold every seed of the study."""
    procedure = study.procedure(arm)
    for seeds in study.blocks():
        reported = min(len(seeds), study.seeds - seeds[0])
        yield Block(arm, procedure, study.data, seeds, reported, data_digest, repeat)


def rounds(study: Study, data_digest: str, repeat: str = "") -> Iterator[tuple[int, tuple[tuple[Block, ...], ...]]]:
    """All blocks of a study in the order they train, arm by arm, in rounds that each end with a look at the claims.

    A study that says nothing about stopping has one round. How far a round goes depends on the study alone, so more
    seeds change nothing in the rounds before.

    Args:
        study: whose blocks.
        data_digest: digest of its data.
        repeat: name of the deliberate repeat, empty for the first computation.

    Returns:
        For each round, how many seeds of every arm are trained at its end, and the blocks that it adds, in groups that
        train together: each by itself, but for the first of an arm that grows by rule, which come before all others.
    """
    begun = 0
    for seeds in looks(study):
        every = (block for arm in study.arms for block in blocks(study, arm, data_digest, repeat))
        yield seeds, _together(study, [block for block in every if begun <= block.seeds[0] < seeds])
        begun = seeds


def _together(study: Study, due: Sequence[Block]) -> tuple[tuple[Block, ...], ...]:
    settling: dict[str, list[Block]] = {arm: [] for arm in study.roots}
    others: list[Block] = []
    for block in due:
        first = study.grow is not None and block.arm in settling and block.seeds[0] < study.grow.seeds
        (settling[block.arm] if first else others).append(block)
    return (*(tuple(own) for own in settling.values() if own), *((block,) for block in others))
