"""The algorithm: greedy layer-wise pretraining, one stage at a time, and the plain loop over its stages.

Every stage trains a block of seeds and returns a small frozen result: the new layer, the output layer, the loss
curves. What came before is named by digest. A stage's input is recomputed from the results below it, so that a run
that goes on after a kill sees the very features an uninterrupted one saw.

The stages are ``base`` and ``add_layer``, which pretrain; ``head``, which fits a new softmax output on frozen
features; ``fine_tune``, which trains all weights; and ``jointly``, which trains a network that was not pretrained.
:func:`depths` puts them together for an arm, depth by depth.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layerwise import datasets, outcomes, sizes, streams
from layerwise.datasets import Data, View
from layerwise.study import DataSet, FineTune, Layer, Procedure, Study, Training, digest_of

if TYPE_CHECKING:
    import keras
    import pandas as pd

STAGE_VERSIONS = {"base": 1, "add_layer": 1, "head": 1, "fine_tune": 1, "jointly": 1, "permuted": 1, "evaluate": 3}
"""Raised whenever a stage would give other bits for the same study; part of its digest."""

FEATURES_KEPT = 2
"""Features of the last stages that stay in memory: the next stage wants those of the newest, and no others."""

FINE_TUNED = "fine_tuned_"
"""Prefix of the scores of the fine-tuned network."""

UNTRAINED = ("untrained", "permuted")
"""Stages that train nothing: made anew at every call, and never stored."""

Objective = Literal["labels", "reconstruction"]
Weights = tuple[np.ndarray, ...]

_LOSSES = {"labels": "categorical_crossentropy", "reconstruction": "mean_squared_error"}
_FEATURES: OrderedDict[str, np.ndarray] = OrderedDict()


class FrozenLayerMoved(RuntimeError):
    """A layer that was frozen changed while another was trained; the run must not go on."""


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
    def layers(self) -> tuple[Layer, ...]:
        """The hidden layers, bottom up."""
        return self.procedure.layers

    @property
    def pretraining(self) -> Objective:
        """What the greedy stages train on."""
        return "labels" if self.procedure.objective == "supervised" else "reconstruction"

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
            ``effective_rank`` of the newest layer on the training rows. Not finite where the seed has diverged.
        diverged: ``(seeds,)`` bool.
        collapsed: ``(seeds,)`` bool, see :func:`layerwise.outcomes.collapsed`; False without a reconstruction.
        digest: identity of the scores.
        finished: when they were computed, milliseconds since 1970.
    """

    depth: int
    metrics: dict[str, np.ndarray]
    diverged: np.ndarray
    collapsed: np.ndarray
    digest: str
    finished: int


@dataclass(frozen=True)
class Network:
    """A network to keep: what a depth's model is called, what it is, and its weights for every seed."""

    name: str
    kind: Literal["classifier", "autoencoder"]
    layers: tuple[Layer, ...]
    trainable_from: int
    stacks: Weights

    def weights(self, position: int) -> list[np.ndarray]:
        """All weights of the seed at a position of the block, in Keras's order."""
        return [values[position] for values in self.stacks]


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
    def stored(self) -> tuple[StageResult | Evaluation, ...]:
        """What this depth rests on that was computed as a stage of its own, and can be found by its digest."""
        made = [self.chain[-1], self.head, self.evaluation]
        own = tuple(one for one in made if one is not None and getattr(one, "stage", "") not in UNTRAINED)
        return own if self.fine_tuned is None else own + self.fine_tuned.stored

    def networks(self) -> Iterator[Network]:
        """The networks of this depth, each under its own name."""
        name, layers = f"depth-{self.depth:02d}", self.block.layers[: self.depth]
        hidden = tuple(values for result in self.chain for values in result.hidden)
        classes = self.head.output if self.head else self.chain[-1].output
        yield Network(name, "classifier", layers, self._classifier_trainable_from(), hidden + classes)
        if self.block.procedure.objective == "reconstruction" and self.chain[-1].output:
            everything = hidden + self.chain[-1].output
            yield Network(f"{name}-autoencoder", "autoencoder", layers, self._trained_from(), everything)
        if self.fine_tuned is not None:
            tuned = next(self.fine_tuned.networks())
            yield dataclasses.replace(tuned, name=f"{name}-fine-tuned", trainable_from=1)

    def _trained_from(self) -> int:
        """The lowest hidden layer that the last stage trained."""
        return {"base": 1, "add_layer": self.depth, "jointly": 1, "fine_tune": 1}.get(
            self.chain[-1].stage, self.depth + 1
        )

    def _classifier_trainable_from(self) -> int:
        return self._trained_from() if self.head is None else self.depth + 1


def blocks(study: Study, arm: str, data_digest: str, repeat: str = "") -> Iterator[Block]:
    """The blocks of one arm that together hold every seed of the study."""
    procedure = study.procedure(arm)
    for seeds in study.blocks():
        reported = min(len(seeds), study.seeds - seeds[0])
        yield Block(arm, procedure, study.data, seeds, reported, data_digest, repeat)


def depths(block: Block, data: Data, *, steps: ModuleType | Any = None) -> Iterator[Depth]:
    """Train a block depth by depth until the network is as deep as it is to be.

    Args:
        block: what to train.
        data: the study's data.
        steps: where the stages come from: this module, or one that has the same names and wraps them.
    """
    steps, asked = steps or sys.modules[__name__], block.procedure
    chain: Chain = ()
    for depth in range(1, asked.depth + 1):
        if asked.control in {"end_to_end", "scratch"}:
            if depth not in asked.depths:
                continue
            chain = steps.unrolled(block, data, steps.jointly(block, data, depth, jointly_digest(block, depth)))
        elif asked.control == "random_frozen":
            chain = (*chain, steps.untrained(block, data, chain))
        else:
            key = greedy_digest(block, depth, chain[-1].digest if chain else "")
            grown = steps.base(block, data, key) if depth == 1 else steps.add_layer(block, data, chain, key)
            chain = (*chain, grown)
        if depth in asked.depths:
            done = _finish(block, data, chain, steps)
            yield done
            if asked.fine_tune is not None and asked.fine_tune.carry and done.fine_tuned is not None:
                chain = _carried(chain, done.fine_tuned.chain)


def _finish(block: Block, data: Data, chain: Chain, steps: Any) -> Depth:
    """Fit a head where one is needed, score, and fine-tune where it is wanted."""
    asked = block.procedure
    if asked.control == "permuted":
        chain = steps.permuted(block, chain)
    head = None
    if asked.objective == "reconstruction" or asked.control in {"random_frozen", "permuted"}:
        head = steps.head(block, data, chain, head_digest(block, chain))
    scores = steps.evaluate(block, data, chain, head, evaluation_digest(block, chain, head))
    plain = Depth(block, chain, head, scores)
    if asked.control == "scratch" or not asked.tunes_at(len(chain)):
        return plain
    return dataclasses.replace(plain, fine_tuned=_tune(plain, data, steps))


def _tune(plain: Depth, data: Data, steps: Any) -> Depth:
    """Fine-tune a depth's network: on reconstruction, before a new head; on labels, after it; or both."""
    block, chain, head = plain.block, plain.chain, plain.head
    objective = _asked_tuning(block).objective
    if objective in {"reconstruction", "both"}:
        key = fine_tune_digest(block, chain, None)
        tuned = steps.fine_tune(block, data, chain, None, key)
        chain = steps.unrolled(block, data, tuned)
        head = steps.head(block, data, chain, head_digest(block, chain))
    if objective in {"labels", "both"}:
        tuned = steps.fine_tune(
            block, data, chain, head or chain[-1], fine_tune_digest(block, chain, head or chain[-1])
        )
        chain = steps.unrolled(block, data, tuned)
        if head is not None:  # the tuned output is a head's; the reconstruction no longer fits the hidden layers
            head = dataclasses.replace(tuned, hidden=())
            chain = (*chain[:-1], dataclasses.replace(chain[-1], output=()))
    scores = steps.evaluate(block, data, chain, head, evaluation_digest(block, chain, head))
    if not chain[-1].output:
        scores = dataclasses.replace(scores, collapsed=plain.evaluation.collapsed)
    return Depth(block, chain, head, scores)


def _asked_tuning(block: Block) -> FineTune:
    if block.procedure.fine_tune is None:
        raise ValueError(f"arm {block.arm} asks for no fine tuning; give it fine_tune")
    return block.procedure.fine_tune


def _carried(chain: Chain, tuned: Chain) -> Chain:
    """The fine-tuned layers as the chain to build on, with the output layer that greedy training keeps."""
    top = tuned[-1] if tuned[-1].output else dataclasses.replace(tuned[-1], output=chain[-1].output)
    return (*tuned[:-1], top)


def base(block: Block, data: Data, digest: str) -> StageResult:
    """Train the first hidden layer and a new output layer on the data.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        digest: the result's identity, from :func:`greedy_digest`.
    """
    return _train_layer(block, data, (), stage="base", digest=digest)


def add_layer(block: Block, data: Data, chain: Chain, digest: str) -> StageResult:
    """Freeze every hidden layer, insert a new one below the kept output layer, and train those two.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the stages below, bottom up.
        digest: the result's identity, from :func:`greedy_digest`.

    Raises:
        FrozenLayerMoved: if a layer below changed meanwhile.
    """
    return _train_layer(block, data, chain, stage="add_layer", digest=digest)


def head(block: Block, data: Data, chain: Chain, digest: str) -> StageResult:
    """Fit a new softmax output layer on the features of the frozen hidden layers, with the rows that have a label.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the hidden layers, bottom up.
        digest: the result's identity, from :func:`head_digest`.

    Raises:
        FrozenLayerMoved: if a hidden layer changed meanwhile.
    """
    depth, seen = len(chain), features(block, data, chain)
    output = _fresh("head", depth, len(data.classes), seen.shape[2:], block.seeds)
    stage = _Stage("head", depth, "labels", block.procedure.head)
    return _fit(block, data, stage, seen, _Start((), (), output), digest=digest, chain=chain)


def fine_tune(block: Block, data: Data, chain: Chain, top: StageResult | None, digest: str) -> StageResult:
    """Train all weights together, from where pretraining left them.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the hidden layers, bottom up.
        top: the result whose output layer classifies; ``None`` to train on reconstruction with the chain's own.
        digest: the result's identity, from :func:`fine_tune_digest`.
    """
    tune = _asked_tuning(block)
    depth, factors = len(chain), tune.learning_rate_factors
    hidden = tuple(values for result in chain for values in result.hidden)
    stage = _Stage(
        "fine_tune",
        depth,
        "reconstruction" if top is None else "labels",
        tune,
        factors=None if factors is None else (*factors[:depth], factors[-1]),
        before=chain[-1].diverged if top is None else chain[-1].diverged | top.diverged,
    )
    start = _Start(block.layers[:depth], hidden, (chain[-1] if top is None else top).output)
    return _fit(block, data, stage, block.view(data).inputs, start, digest=digest)


def jointly(block: Block, data: Data, depth: int, digest: str) -> StageResult:
    """Train a network that was not pretrained, all layers at once: the controls ``end_to_end`` and ``scratch``.

    Its initial weights, layer for layer, are those that greedy training of the same seed begins with.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        depth: number of hidden layers.
        digest: the result's identity, from :func:`jointly_digest`.
    """
    objective = block.pretraining
    width = len(data.classes) if objective == "labels" else data.features
    shapes = _input_shapes(block, data, depth)
    hidden = tuple(values for level in range(1, depth + 1) for values in _fresh_layer(block, level, shapes[level - 1]))
    output = _fresh("output", 0, width, (block.layers[depth - 1].units,), block.seeds)
    stage = _Stage("jointly", depth, objective, _joint_training(block, depth), noise=block.procedure.noise)
    start = _Start(block.layers[:depth], hidden, output)
    return _fit(block, data, stage, block.view(data).inputs, start, digest=digest)


def untrained(block: Block, data: Data, chain: Chain, *, hidden: Weights | None = None) -> StageResult:
    """One more hidden layer with the weights that greedy training would begin with, and no output layer.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the layers below, bottom up.
        hidden: the layer's weights, where they are known or not wanted.
    """
    depth = len(chain) + 1
    parent = chain[-1].digest if chain else _data_identity(block, "reconstruction")
    key = _digest(block, "untrained", parent, {"layer": block.layers[depth - 1].canonical()})
    weights = _fresh_layer(block, depth, _input_shapes(block, data, depth)[-1]) if hidden is None else hidden
    return without_training(block, "untrained", depth, weights, key)


def permuted(block: Block, chain: Chain) -> Chain:
    """The chain with the weights shuffled within every array of every hidden layer (Erhan et al., 2010, table 1)."""
    shuffled: Chain = ()
    for depth, result in enumerate(chain, start=1):
        hidden = tuple(
            np.stack([
                streams.generator(seed, "init", f"permuted {place}", depth).permutation(own.ravel()).reshape(own.shape)
                for seed, own in zip(block.seeds, values, strict=True)
            ])
            for place, values in enumerate(result.hidden)
        )  # fmt: skip
        key = _digest(block, "permuted", result.digest, {"below": shuffled[-1].digest if shuffled else ""})
        made = without_training(block, "permuted", depth, hidden, key)
        shuffled = (*shuffled, dataclasses.replace(made, diverged=result.diverged))
    return shuffled


def unrolled(block: Block, data: Data, result: StageResult) -> Chain:
    """A result that holds all hidden layers as a chain of one result a layer; the top one has the output layer."""
    chain: Chain = ()
    start = 0
    for depth, shape in enumerate(_input_shapes(block, data, result.depth), start=1):
        count = _num_weights(block.layers[depth - 1], shape) if result.hidden else 0
        chain += (
            dataclasses.replace(
                result,
                depth=depth,
                hidden=result.hidden[start : start + count],
                output=result.output if depth == result.depth else (),
                # The top layer keeps the result's own name, by which it can be found again.
                digest=result.digest if depth == result.depth else digest_of({"of": result.digest, "layer": depth}),
            ),
        )
        start += count
    return chain


def evaluate(block: Block, data: Data, chain: Chain, head: StageResult | None, digest: str) -> Evaluation:
    """Score a network on every part: accuracy and cross-entropy, reconstruction, and what its features still tell.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the hidden layers, bottom up.
        head: the result whose output layer classifies; ``None`` where the chain's own does.
        digest: the result's identity, from :func:`evaluation_digest`.
    """
    seen, known = block.view(data), features(block, data, chain)
    metrics = _classification_scores(seen, known, (head or chain[-1]).output)
    collapsed = np.zeros(len(block.seeds), bool)
    if block.procedure.objective == "reconstruction" and chain[-1].output:
        scores, collapsed = _reconstruction_scores(block, seen, known, chain)
        metrics |= scores
    pooled = datasets.pick(known, seen.pool)
    metrics |= {"live_units": outcomes.live_units(pooled), "effective_rank": outcomes.effective_rank(pooled)}
    broken = ~np.all([np.isfinite(values) for values in metrics.values()], axis=0)
    diverged = chain[-1].diverged | broken if head is None else chain[-1].diverged | head.diverged | broken
    return Evaluation(len(chain), metrics, diverged, collapsed & ~diverged, digest, _now())


def _classification_scores(seen: View, known: np.ndarray, output: Weights) -> dict[str, np.ndarray]:
    from layerwise import engine

    logits = engine.apply(seen.classes, output, known, shared_inputs=False)
    metrics: dict[str, np.ndarray] = {}
    for part, rows in _parts(seen, seen.train):
        accuracy, loss = score(datasets.pick(logits, rows), seen.targets_of(rows))
        metrics |= {f"{part}_accuracy": accuracy, f"{part}_loss": loss}
    return metrics


def _reconstruction_scores(
    block: Block, seen: View, known: np.ndarray, chain: Chain
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from layerwise import engine

    made = engine.apply(seen.inputs.shape[-1], chain[-1].output, known, shared_inputs=False)
    metrics: dict[str, np.ndarray] = {}
    for part, rows in _parts(seen, seen.pool):
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged seed gives NaN or infinity, which says so
            errors = np.square(datasets.pick(made, rows).astype(np.float64) - seen.inputs_of(rows))
            metrics[f"{part}_reconstruction_mse"] = errors.mean(axis=(1, 2))
    inputs, rebuilt = seen.inputs_of(seen.pool), datasets.pick(made, seen.pool)
    metrics["reconstruction_r2"] = outcomes.reconstruction_r2(inputs, rebuilt)
    narrowest = min(layer.units for layer in block.layers[: len(chain)])
    return metrics, outcomes.collapsed(inputs, rebuilt, datasets.pick(known, seen.pool), narrowest)


def _parts(seen: View, train: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "train", train
    if seen.validation.shape[1]:
        yield "validation", seen.validation
    yield "test", seen.test


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each seed, computed in double precision.

    Args:
        logits: ``(seeds, rows, classes)``.
        targets: ``(seeds, rows)`` integer classes.

    Returns:
        Two ``(seeds,)`` float64 arrays: accuracy in 0..1, cross-entropy in nats a row.

    Example:
        >>> import numpy as np
        >>> from layerwise.pretraining import score
        >>> accuracy, loss = score(np.array([[[0.0, 0.0], [0.0, 9.0]]]), np.array([[0, 0]]))
        >>> accuracy.tolist(), loss.round(3).tolist()
        ([0.5], [4.847])
    """
    from scipy.special import logsumexp

    exact = logits.astype(np.float64)
    chosen = np.take_along_axis(exact, targets[..., np.newaxis].astype(np.intp), axis=2)[..., 0]
    accuracy = (exact.argmax(axis=2) == targets).mean(axis=1)
    return accuracy, (logsumexp(exact, axis=2) - chosen).mean(axis=1)


def features(block: Block, data: Data, chain: Chain) -> np.ndarray:
    """What the hidden layers make of every row: ``(seeds, rows, units)`` float32; without layers, the inputs.

    Layer k's features are always computed from layer k-1's by one compiled program, so they have the same bits
    whether a run goes straight through or is resumed.
    """
    if not chain:
        return block.view(data).inputs
    key = chain[-1].digest
    if key not in _FEATURES:
        from layerwise import engine

        below = features(block, data, chain[:-1])
        shared = len(chain) == 1 and block.view(data).shared
        made = engine.apply(block.layers[len(chain) - 1], chain[-1].hidden, below, shared_inputs=shared)
        while len(_FEATURES) >= FEATURES_KEPT:
            _FEATURES.popitem(last=False)
        _FEATURES[key] = made
    return _FEATURES[key]


def greedy_digest(block: Block, depth: int, parent: str) -> str:
    """Identity of a greedy stage: all that decides its bits, chained from the data upwards.

    What lies above it, the other arms and the number of seeds asked for have no part in it.

    Args:
        block: the seeds and their procedure.
        depth: number of hidden layers after the stage.
        parent: digest of the stage below; not used at depth 1, whose parent is the data.
    """
    asked = block.procedure
    details = {
        "layer": block.layers[depth - 1].canonical(),
        "objective": block.pretraining,
        "training": asked.training.canonical(),
        "noise": asked.noise.canonical() if asked.noise else None,
    }
    if depth == 1:
        return _digest(block, "base", _data_identity(block, block.pretraining), details)
    return _digest(block, "add_layer", parent, details)


def head_digest(block: Block, chain: Chain) -> str:
    """Identity of a head on a chain."""
    details = {"training": block.procedure.head.canonical(), "labels": _data_identity(block, "labels")}
    return _digest(block, "head", chain[-1].digest, details)


def fine_tune_digest(block: Block, chain: Chain, top: StageResult | None) -> str:
    """Identity of the fine tuning of a chain, on labels with the output layer of ``top``, else on reconstruction."""
    said = block.procedure.fine_tune.canonical() if block.procedure.fine_tune else {}
    details = {
        "training": {key: said.get(key) for key in ("optimizer", "batch_size", "epochs", "learning_rate_factors")},
        "top": top.digest if top else None,
        "labels": _data_identity(block, "labels") if top else None,
    }
    return _digest(block, "fine_tune", chain[-1].digest, details)


def jointly_digest(block: Block, depth: int) -> str:
    """Identity of a network of some depth that is trained all at once."""
    details = {
        "layers": [layer.canonical() for layer in block.layers[:depth]],
        "objective": block.pretraining,
        "training": _joint_training(block, depth).canonical(),
        "noise": block.procedure.noise.canonical() if block.procedure.noise else None,
    }
    return _digest(block, "jointly", _data_identity(block, block.pretraining), details)


def evaluation_digest(block: Block, chain: Chain, head: StageResult | None) -> str:
    """Identity of the scores of a network."""
    details = {"head": head.digest if head else None, "labels": _data_identity(block, "labels")}
    return _digest(block, "evaluate", chain[-1].digest, details)


def _digest(block: Block, stage: str, parent: str, details: dict[str, Any]) -> str:
    return digest_of(
        {
            "parent": parent,
            "stage": stage,
            "version": STAGE_VERSIONS.get(stage, 1),
            "details": details,
            "seeds": list(block.seeds),
            "repeat": block.repeat,
            "libraries": library_versions(),
        }
    )


def _data_identity(block: Block, objective: Objective) -> str:
    """What a stage sees of the data; which rows keep their label concerns only the stages that use labels."""
    spec = block.data.canonical()
    return digest_of(
        {
            "data": block.data_digest,
            "version": datasets.VERSION,
            "view": {key: spec.get(key) for key in ("split", "shuffle", "fresh")},
            "scaling": block.procedure.scaling,
            "labels": block.procedure.labels if objective == "labels" else None,
        }
    )


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide bits, without importing any of them."""
    installed = {name: version(name) for name in ("keras", "numpy", "scikit-learn", "scipy")}
    try:
        return {**installed, "tensorflow": version("tensorflow-cpu")}
    except PackageNotFoundError:
        return {**installed, "tensorflow": version("tensorflow")}


@dataclass(frozen=True)
class Result:
    """The numbers of a study that was run in this process.

    Attributes:
        study: what was asked.
        data: the data it was asked of.
        trained: arm -> every depth of every block.
    """

    study: Study
    data: Data
    trained: dict[str, tuple[Depth, ...]]

    def metrics(self) -> pd.DataFrame:
        """One row per arm, seed and depth, with its outcome and scores."""
        import pandas as pd

        return pd.DataFrame(row for arm in self.trained for depth in self.trained[arm] for row in rows(depth))

    def table(self) -> pd.DataFrame:
        """One row per arm and depth: means, spread and intervals over intact seeds, and counts of outcomes."""
        from layerwise.statistics import summarise

        return summarise(self.metrics())

    def model(self, *, seed: int, depth: int, arm: str | None = None, name: str = "") -> keras.Model:
        """A Keras model of one seed at one depth.

        Args:
            seed: which seed.
            depth: which depth.
            arm: which arm; the first, if left out.
            name: ``"autoencoder"`` or ``"fine-tuned"`` for those, else the classifier.

        Raises:
            KeyError: if the study has no such arm, seed, depth or model.
        """
        for found in self.trained[arm or next(iter(self.trained))]:
            if found.depth == depth and seed in found.block.seeds[: found.block.reported]:
                for kept in found.networks():
                    if kept.name == "-".join(filter(None, (f"depth-{depth:02d}", name))):
                        return keras_model(kept, found.block.seeds.index(seed), self.data)
        raise KeyError(
            f"no model {name!r} of seed {seed} at depth {depth}; there are {self.study.seeds} seeds,"
            f" {self.study.depth} depths"
        )


class Memory:
    """The stages, each computed once in this process: arms that share a prefix share its results."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.unrolled, self.untrained, self.permuted = unrolled, untrained, permuted

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        """The stage of that name, which looks its digest up before it computes."""
        compute = getattr(sys.modules[__name__], stage)

        def once(*arguments: Any) -> Any:
            digest = arguments[-1]
            if digest not in self.results:
                self.results[digest] = compute(*arguments)
            return self.results[digest]

        return once


def run(study: Study, *, progress: Callable[[Depth], None] | None = None) -> Result:
    """Answer a study in this process, with nothing stored: the same bits as ``layerwise run``.

    Args:
        study: what to train, from :func:`layerwise.load` or built in Python.
        progress: called after each depth of each block.

    Raises:
        StudyError: if the study needs more memory than there is, or its data cannot be had.

    Example:
        >>> import layerwise
        >>> study = layerwise.load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=1"])
        >>> layerwise.run(study).table()["test_accuracy_mean"].round(2).tolist()
        [0.82]
    """
    sizes.refuse_oversize(study)
    data, memory = datasets.generate(study.data), Memory()
    trained: dict[str, tuple[Depth, ...]] = {}
    for arm in study.arms:
        found = []
        for block in blocks(study, arm, data.digest):
            for depth in depths(block, data, steps=memory):
                found.append(depth)
                if progress:
                    progress(depth)
        trained[arm] = tuple(found)
    return Result(study, data, trained)


def rows(depth: Depth) -> Iterator[dict[str, Any]]:
    """The scores of one block at one depth as records, one for each seed that the study asked for."""
    for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
        record = {"arm": depth.block.arm, "seed": seed, "depth": depth.depth}
        record |= _scores(depth.evaluation, position, "")
        if depth.fine_tuned is not None:
            record |= _scores(depth.fine_tuned.evaluation, position, FINE_TUNED)
        yield record


def _scores(evaluation: Evaluation, position: int, prefix: str) -> dict[str, Any]:
    outcome = {"diverged": evaluation.diverged[position], "collapsed": evaluation.collapsed[position]}
    return {
        **{f"{prefix}{name}": bool(value) for name, value in outcome.items()},
        **{f"{prefix}{name}": float(values[position]) for name, values in evaluation.metrics.items()},
    }


def keras_model(kept: Network, position: int, data: Data) -> keras.Model:
    """A depth's network for the seed at a position of its block, as a Keras model.

    A classifier ends in softmax, an autoencoder in a linear reconstruction; layers that greedy training froze are
    not trainable.
    """
    from layerwise import network

    shape = data.inputs.shape[1:]
    if kept.kind == "classifier":
        model = network.classifier(kept.layers, len(data.classes), shape, trainable_from=kept.trainable_from)
    else:
        model = network.autoencoder(kept.layers, shape, trainable_from=kept.trainable_from)
    model.set_weights(kept.weights(position))
    return model


@dataclass(frozen=True)
class _Stage:
    """How a stage trains: its name, which also keys its random streams, and all that is no array."""

    name: str
    depth: int
    objective: Objective
    training: Training
    noise: Any = None
    factors: tuple[float, ...] | None = None
    before: np.ndarray | None = None


@dataclass(frozen=True)
class _Start:
    """What a stage trains and from where: hidden layers, bottom up, with an output layer on top."""

    layers: tuple[Layer, ...]
    hidden: Weights
    output: Weights


def _train_layer(block: Block, data: Data, chain: Chain, *, stage: str, digest: str) -> StageResult:
    """A greedy stage: a new hidden layer under the output layer, on the features of the frozen layers."""
    depth, seen = len(chain) + 1, features(block, data, chain)
    layer, objective = block.layers[depth - 1], block.pretraining
    hidden = _fresh_layer(block, depth, seen.shape[-1:])
    width = len(data.classes) if objective == "labels" else data.features
    output = chain[-1].output if chain else _fresh("output", 0, width, (layer.units,), block.seeds)
    if chain and layer.units != block.layers[depth - 2].units:
        # The kept output layer does not fit a layer of another width; it begins anew, as the first one did.
        output = _fresh("output", depth, width, (layer.units,), block.seeds)
    how = _Stage(stage, depth, objective, block.procedure.training, noise=block.procedure.noise)
    return _fit(block, data, how, seen, _Start((layer,), hidden, output), digest=digest, chain=chain)


def _fit(
    block: Block,
    data: Data,
    stage: _Stage,
    inputs: np.ndarray,
    start: _Start,
    *,
    digest: str,
    chain: Chain = (),
) -> StageResult:
    """Train layers and an output layer on inputs that frozen layers, the ``chain``, have made."""
    from layerwise import engine

    started, frozen, view = time.perf_counter(), _frozen_digest(chain), block.view(data)
    labels = stage.objective == "labels"
    targets, rows = (view.one_hot, view.train) if labels else (view.inputs, view.pool)
    problem = engine.Problem(
        layers=start.layers,
        outputs=targets.shape[-1],
        input_shape=inputs.shape[1:] if inputs.ndim == 2 else inputs.shape[2:],
        loss=_LOSSES[stage.objective],
        optimizer=stage.training.optimizer,
        batch_size=stage.training.batch_size,
        seeds=len(block.seeds),
        shared_inputs=inputs.ndim == 2,
        shared_targets=targets.ndim == 2,
        noise=stage.noise,
        factors=stage.factors,
    )
    order, keys = _orders(block, rows, stage), _noise_keys(block, stage)
    fitted = engine.fit(problem, (*start.hidden, *start.output), inputs, targets, order, keys)
    if _frozen_digest(chain) != frozen:
        raise FrozenLayerMoved(
            f"{block.arm}, depth {stage.depth}: a frozen layer changed while {stage.name} was trained"
        )
    weights, diverged = fitted.weights, ~_finite((*fitted.weights, fitted.loss_curve))
    before = stage.before if stage.before is not None else chain[-1].diverged if chain else False
    return StageResult(
        stage=stage.name,
        depth=stage.depth,
        hidden=weights[: len(start.hidden)],
        output=weights[len(start.hidden) :],
        loss_curve=fitted.loss_curve,
        diverged=diverged | before,
        frozen=frozen,
        digest=digest,
        finished=_now(),
        seconds=time.perf_counter() - started,
    )


def without_training(block: Block, stage: str, depth: int, hidden: Weights, digest: str) -> StageResult:
    """A result that no training made: weights as they are, no curve, no output layer."""
    seeds = len(block.seeds)
    curve, diverged = np.zeros((seeds, 0), np.float32), np.zeros(seeds, bool)
    return StageResult(stage, depth, hidden, (), curve, diverged, "", digest, _now(), 0.0)


def _joint_training(block: Block, depth: int) -> Training:
    """End to end has as many epochs in all as greedy training up to that depth; scratch has the fine-tuning budget."""
    asked = block.procedure
    if asked.control == "scratch" and asked.fine_tune is not None:
        tune = asked.fine_tune
        return Training(optimizer=tune.optimizer, batch_size=tune.batch_size, epochs=tune.epochs)
    return asked.training.model_copy(update={"epochs": asked.training.epochs * depth})


def _input_shapes(block: Block, data: Data, depth: int) -> list[tuple[int, ...]]:
    """The shape of a row below each of the first ``depth`` hidden layers."""
    return [data.inputs.shape[1:], *((layer.units,) for layer in block.layers)][:depth]


def _num_weights(layer: Layer, input_shape: tuple[int, ...]) -> int:
    from layerwise import network

    return network.num_weights(layer, input_shape)


def _fresh_layer(block: Block, depth: int, input_shape: tuple[int, ...]) -> Weights:
    stage = "base" if depth == 1 else "add_layer"
    return _fresh(stage, depth, block.layers[depth - 1], input_shape, block.seeds)


def _fresh(stage: str, depth: int, layer: Layer | int, input_shape: tuple[int, ...], seeds: Sequence[int]) -> Weights:
    """Initial weights of a layer for every seed, from each seed's ``init`` stream."""
    from layerwise import network

    drawn = [int(streams.generator(seed, "init", stage, depth).integers(2**31)) for seed in seeds]
    return network.initial_weights(layer, input_shape, drawn)


def _orders(block: Block, rows: np.ndarray, stage: _Stage) -> np.ndarray:
    """``(seeds, epochs, n)`` int32: each seed's rows in each epoch's order, from its ``order`` stream."""
    return np.stack([
        streams.generator(seed, "order", stage.name, stage.depth).permuted(
            np.tile(own, (stage.training.epochs, 1)), axis=1
        )
        for seed, own in zip(block.seeds, rows, strict=True)
    ])  # fmt: skip


def _noise_keys(block: Block, stage: _Stage) -> np.ndarray | None:
    """``(seeds, 2)`` int32 keys of each seed's noise, from its ``noise`` stream."""
    if stage.noise is None:
        return None
    drawn = [streams.generator(seed, "noise", stage.name, stage.depth).integers(2**31, size=2) for seed in block.seeds]
    return np.array(drawn, np.int32)


def _finite(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """``(seeds,)`` bool: whether every value of a seed is finite."""
    return np.all([np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in arrays], axis=0)


def _frozen_digest(chain: Chain) -> str:
    return datasets.content_digest(*(values for result in chain for values in result.hidden))


def _now() -> int:
    return time.time_ns() // 1_000_000
