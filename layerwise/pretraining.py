"""The algorithm: greedy layer-wise pretraining, one stage at a time, and the plain loop over its stages.

Every stage trains a block of seeds and returns a small frozen result: the new layer, the output layer, the loss
curves. What came before is named by digest. A stage's input is recomputed from the results below it, so that a run
that goes on after a kill sees the very features an uninterrupted one saw.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise import datasets, streams
from layerwise.datasets import Data
from layerwise.study import Arm, Layer, Study, Training, digest_of

if TYPE_CHECKING:
    import keras
    import pandas as pd

STAGE_VERSIONS = {"base": 1, "add_layer": 1, "evaluate": 1}
"""Raised whenever a stage would give other bits for the same study; part of its digest."""

CLASSES_LOSS = "categorical_crossentropy"

FEATURES_KEPT = 2
"""Features of the last stages that stay in memory: the next stage wants those of the newest, and no others."""

_FEATURES: OrderedDict[str, np.ndarray] = OrderedDict()


class FrozenLayerMoved(RuntimeError):
    """A layer that was frozen changed while another was trained; the run must not go on."""


@dataclass(frozen=True)
class Block:
    """What one arm trains over one block of seeds: the stage functions' subject.

    Attributes:
        study: the study's name.
        arm: the arm's name.
        procedure: what the arm does.
        layers: the hidden layers, bottom up.
        training: optimizer, batch size and epochs of every stage.
        seeds: the aligned block of seeds, trained side by side.
        reported: how many of them the study asked for; the rest complete the block's shape.
        data_digest: digest of the data.
        repeat: name of the deliberate repeat, empty for the first computation.
    """

    study: str
    arm: str
    procedure: Arm
    layers: tuple[Layer, ...]
    training: Training
    seeds: tuple[int, ...]
    reported: int
    data_digest: str
    repeat: str = ""

    @property
    def depth(self) -> int:
        """Number of hidden layers at the end."""
        return len(self.layers)


@dataclass(frozen=True)
class StageResult:
    """A trained stage of one block.

    Attributes:
        stage: ``"base"`` or ``"add_layer"``.
        depth: number of hidden layers trained so far.
        hidden: weights of the new hidden layer, each ``(seeds, ...)`` float32.
        output: weights of the output layer, each ``(seeds, ...)`` float32.
        loss_curve: ``(seeds, epochs)`` float32, mean training loss of each epoch.
        diverged: ``(seeds,)`` bool, whether a loss or weight of the seed is not finite, now or at a lower depth.
        frozen: digest of the frozen weights below, as they were after the stage.
        digest: identity of the result.
        finished: when it was computed, milliseconds since 1970.
        seconds: how long the computation took.
    """

    stage: str
    depth: int
    hidden: tuple[np.ndarray, ...]
    output: tuple[np.ndarray, ...]
    loss_curve: np.ndarray
    diverged: np.ndarray
    frozen: str
    digest: str
    finished: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of one block at one depth.

    Attributes:
        depth: number of hidden layers.
        metrics: name -> ``(seeds,)`` float64: ``train_accuracy`` and ``test_accuracy`` in 0..1, ``train_loss`` and
            ``test_loss`` in nats a row. Not finite where the seed has diverged.
        diverged: ``(seeds,)`` bool.
        digest: identity of the scores.
        finished: when they were computed, milliseconds since 1970.
    """

    depth: int
    metrics: dict[str, np.ndarray]
    diverged: np.ndarray
    digest: str
    finished: int


@dataclass(frozen=True)
class Depth:
    """One depth of one block: every stage so far, bottom up, and the scores of the network they make."""

    block: Block
    chain: tuple[StageResult, ...]
    evaluation: Evaluation

    def weights(self, position: int) -> list[np.ndarray]:
        """All weights of the classifier of the seed at a position of the block, in Keras's order."""
        top = self.chain[-1]
        stacks = [values for result in self.chain for values in result.hidden] + list(top.output)
        return [values[position] for values in stacks]


def blocks(study: Study, arm: str, data_digest: str, repeat: str = "") -> Iterator[Block]:
    """The blocks of one arm that together hold every seed of the study."""
    for seeds in study.blocks():
        yield Block(
            study=study.name,
            arm=arm,
            procedure=study.arms[arm],
            layers=study.network.hidden,
            training=study.training,
            seeds=seeds,
            reported=min(len(seeds), study.seeds - seeds[0]),
            data_digest=data_digest,
            repeat=repeat,
        )


def depths(block: Block, data: Data, *, steps: ModuleType | Any = None) -> Iterator[Depth]:
    """Train a block depth by depth: base, then add a layer until the network is as deep as it is to be.

    Args:
        block: what to train.
        data: the study's data.
        steps: where ``base``, ``add_layer`` and ``evaluate`` come from: this module, or one that wraps them with
            caching and tracking.
    """
    steps = steps or sys.modules[__name__]
    chain: tuple[StageResult, ...] = ()
    for depth in range(1, block.depth + 1):
        key = stage_digest(block, depth, chain[-1].digest if chain else block.data_digest)
        if depth == 1:
            trained = steps.base(block, data, key)
        else:
            trained = steps.add_layer(block, data, chain, key)
        chain = (*chain, trained)
        yield Depth(block, chain, steps.evaluate(block, data, chain, evaluation_digest(trained.digest)))


def base(block: Block, data: Data, digest: str) -> StageResult:
    """Train the first hidden layer and a new output layer on the data.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        digest: the result's identity, from :func:`stage_digest`.
    """
    return _train(block, data, (), stage="base", digest=digest)


def add_layer(block: Block, data: Data, chain: tuple[StageResult, ...], digest: str) -> StageResult:
    """Freeze every hidden layer, insert a new one below the kept output layer, and train those two.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the stages below, bottom up.
        digest: the result's identity, from :func:`stage_digest`.

    Raises:
        FrozenLayerMoved: if a layer below changed meanwhile.
    """
    return _train(block, data, chain, stage="add_layer", digest=digest)


def evaluate(block: Block, data: Data, chain: tuple[StageResult, ...], digest: str) -> Evaluation:
    """Score the network on the training and the test part.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: every stage so far, bottom up.
        digest: the result's identity, from :func:`evaluation_digest`.
    """
    from layerwise import engine

    classes = len(data.classes)
    logits = engine.apply(classes, chain[-1].output, features(block, data, chain), shared_inputs=False)
    metrics: dict[str, np.ndarray] = {}
    for part, rows in (("train", data.train), ("test", data.test)):
        metrics[f"{part}_accuracy"], metrics[f"{part}_loss"] = score(logits[:, rows], data.targets[rows])
    broken = ~np.all([np.isfinite(values) for values in metrics.values()], axis=0)
    return Evaluation(len(chain), metrics, chain[-1].diverged | broken, digest, _now())


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each seed, computed in double precision.

    Args:
        logits: ``(seeds, rows, classes)``.
        targets: ``(rows,)`` integer classes.

    Returns:
        Two ``(seeds,)`` float64 arrays: accuracy in 0..1, cross-entropy in nats a row.

    Example:
        >>> import numpy as np
        >>> from layerwise.pretraining import score
        >>> accuracy, loss = score(np.array([[[0.0, 0.0], [0.0, 9.0]]]), np.array([0, 0]))
        >>> accuracy.tolist(), loss.round(3).tolist()
        ([0.5], [4.847])
    """
    from scipy.special import logsumexp

    exact = logits.astype(np.float64)
    chosen = np.take_along_axis(exact, targets[np.newaxis, :, np.newaxis].astype(np.intp), axis=2)[..., 0]
    accuracy = (exact.argmax(axis=2) == targets).mean(axis=1)
    return accuracy, (logsumexp(exact, axis=2) - chosen).mean(axis=1)


def features(block: Block, data: Data, chain: tuple[StageResult, ...]) -> np.ndarray:
    """What the frozen layers make of every row: the data itself, or ``(seeds, rows, units)`` float32.

    Layer k's features are always computed from layer k-1's by one compiled program, so they have the same bits
    whether a run goes straight through or is resumed.
    """
    if not chain:
        return data.inputs
    key = chain[-1].digest
    if key not in _FEATURES:
        from layerwise import engine

        below = features(block, data, chain[:-1])
        made = engine.apply(block.layers[len(chain) - 1], chain[-1].hidden, below, shared_inputs=len(chain) == 1)
        while len(_FEATURES) >= FEATURES_KEPT:
            _FEATURES.popitem(last=False)
        _FEATURES[key] = made
    return _FEATURES[key]


def stage_digest(block: Block, depth: int, parent: str) -> str:
    """Identity of a block's stage: all that decides its bits, chained from the data upwards.

    What lies above it, the other arms and the number of seeds asked for have no part in it.

    Args:
        block: the seeds and their procedure.
        depth: number of hidden layers after the stage.
        parent: digest of the stage below, or of the data at depth 1.
    """
    stage = "base" if depth == 1 else "add_layer"
    return digest_of(
        {
            "parent": parent,
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "layer": block.layers[depth - 1].canonical(),
            "objective": block.procedure.objective,
            "training": block.training.canonical(),
            "seeds": list(block.seeds),
            "repeat": block.repeat,
            "libraries": library_versions(),
        }
    )


def evaluation_digest(stage: str) -> str:
    """Identity of the scores of a stage's network."""
    return digest_of({"parent": stage, "version": STAGE_VERSIONS["evaluate"]})


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

    def model(self, *, seed: int, depth: int, arm: str | None = None) -> keras.Model:
        """The Keras classifier of one seed at one depth.

        Raises:
            KeyError: if the study has no such arm, seed or depth.
        """
        for found in self.trained[arm or next(iter(self.trained))]:
            if found.evaluation.depth == depth and seed in found.block.seeds[: found.block.reported]:
                return keras_model(found, seed, self.data)
        raise KeyError(f"no seed {seed} at depth {depth}; there are {self.study.seeds} seeds, {self.study.depth} depths")


def run(study: Study, *, progress: Callable[[Depth], None] | None = None) -> Result:
    """Answer a study in this process, with nothing stored: the same bits as ``layerwise run``.

    Args:
        study: what to train, from :func:`layerwise.load` or built in Python.
        progress: called after each depth of each block.

    Example:
        >>> import layerwise
        >>> study = layerwise.load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=1"])
        >>> layerwise.run(study).table()["test_accuracy_mean"].round(2).tolist()
        [0.82]
    """
    data = datasets.generate(study.data)
    trained: dict[str, tuple[Depth, ...]] = {}
    for arm in study.arms:
        found = []
        for block in blocks(study, arm, data.digest):
            for depth in depths(block, data):
                found.append(depth)
                if progress:
                    progress(depth)
        trained[arm] = tuple(found)
    return Result(study, data, trained)


def rows(depth: Depth) -> Iterator[dict[str, Any]]:
    """The scores of one block at one depth as records, one for each seed that the study asked for."""
    for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
        yield {
            "arm": depth.block.arm,
            "seed": seed,
            "depth": depth.evaluation.depth,
            "diverged": bool(depth.evaluation.diverged[position]),
            **{name: float(values[position]) for name, values in depth.evaluation.metrics.items()},
        }


def keras_model(depth: Depth, seed: int, data: Data) -> keras.Model:
    """The classifier of one seed as a Keras model: softmax output, layers below the newest frozen."""
    from layerwise import network

    count = depth.evaluation.depth
    model = network.classifier(
        depth.block.layers[:count], len(data.classes), data.inputs.shape[1:], trainable_from=count
    )
    model.set_weights(depth.weights(depth.block.seeds.index(seed)))
    return model


def _train(block: Block, data: Data, chain: tuple[StageResult, ...], *, stage: str, digest: str) -> StageResult:
    """One stage: a new hidden layer under the output layer, on the features of the frozen layers."""
    from layerwise import engine

    started = time.perf_counter()
    depth, frozen = len(chain) + 1, _frozen_digest(chain)
    seen = features(block, data, chain)
    row_shape = seen.shape[1:] if not chain else seen.shape[2:]
    layer = block.layers[depth - 1]
    hidden = _fresh(stage, depth, layer, row_shape, block.seeds)
    output = chain[-1].output if chain else _fresh("output", 0, len(data.classes), (layer.units,), block.seeds)
    problem = engine.Problem(
        layers=(layer,),
        outputs=len(data.classes),
        input_shape=row_shape,
        loss=CLASSES_LOSS,
        optimizer=block.training.optimizer,
        batch_size=block.training.batch_size,
        seeds=len(block.seeds),
        shared_inputs=not chain,
    )
    order = _orders(block, data, stage, depth)
    fitted = engine.fit(problem, (*hidden, *output), seen, data.one_hot, order)
    if _frozen_digest(chain) != frozen:
        raise FrozenLayerMoved(f"{block.arm}, depth {depth}: a frozen layer changed while layer {depth} was trained")
    weights, diverged = fitted.weights, ~_finite((*fitted.weights, fitted.loss_curve))
    return StageResult(
        stage=stage,
        depth=depth,
        hidden=weights[: len(hidden)],
        output=weights[len(hidden) :],
        loss_curve=fitted.loss_curve,
        diverged=diverged | chain[-1].diverged if chain else diverged,
        frozen=frozen,
        digest=digest,
        finished=_now(),
        seconds=time.perf_counter() - started,
    )


def _fresh(
    stage: str, depth: int, layer: Layer | int, input_shape: tuple[int, ...], seeds: Sequence[int]
) -> tuple[np.ndarray, ...]:
    """Initial weights of a layer for every seed, from each seed's ``init`` stream."""
    from layerwise import network

    drawn = [int(streams.generator(seed, "init", stage, depth).integers(2**31)) for seed in seeds]
    return network.initial_weights(layer, input_shape, drawn)


def _orders(block: Block, data: Data, stage: str, depth: int) -> np.ndarray:
    """``(seeds, epochs, n)`` int32: the training rows in each epoch's order, from each seed's ``order`` stream."""
    epochs = np.tile(data.train, (block.training.epochs, 1))
    return np.stack(
        [streams.generator(seed, "order", stage, depth).permuted(epochs, axis=1) for seed in block.seeds]
    )


def _finite(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """``(seeds,)`` bool: whether every value of a seed is finite."""
    return np.all([np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in arrays], axis=0)


def _frozen_digest(chain: tuple[StageResult, ...]) -> str:
    return datasets.content_digest(*(values for result in chain for values in result.hidden))


def _now() -> int:
    return time.time_ns() // 1_000_000
