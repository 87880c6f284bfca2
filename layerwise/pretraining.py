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
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise import datasets, orders, outcomes, own_code, scoring, sizes, streams
from layerwise.datasets import Data
from layerwise.identity import (
    evaluation_digest,
    fine_tune_digest,
    greedy_digest,
    head_digest,
    joint_training,
    jointly_digest,
    permuted_digest,
    untrained_digest,
)
from layerwise.orders import Order
from layerwise.stages import Block, Chain, Depth, Evaluation, Objective, StageResult, Weights
from layerwise.study import FineTune, Study, Training, digest_of, passes_sequences

if TYPE_CHECKING:
    from layerwise.network import Hidden, Output, Piece

FEATURES_BYTES = 64 * 2**20
"""Of the features that stay in memory; the newest do in any case, since the next stage wants them."""

_FEATURES: OrderedDict[tuple[str, bool], np.ndarray] = OrderedDict()


class FrozenLayerMoved(RuntimeError):
    """A layer that was frozen changed while another was trained; the run must not go on."""


def check_functions(study: Study) -> None:
    """Refuse functions of the user's own that make no layers; only a study that names some loads Keras for it."""
    if study.functions:
        from layerwise import models

        models.check_functions(study)


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
            chain = steps.unrolled(block, steps.jointly(block, data, depth, jointly_digest(block, depth)))
        elif asked.control == "random_frozen":
            chain = (*chain, steps.untrained(block, chain))
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
        chain = steps.unrolled(block, tuned)
        head = steps.head(block, data, chain, head_digest(block, chain))
    if objective in {"labels", "both"}:
        tuned = steps.fine_tune(
            block, data, chain, head or chain[-1], fine_tune_digest(block, chain, head or chain[-1])
        )
        chain = steps.unrolled(block, tuned)
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
    output = _answer_output(block, data, depth)
    start = _Start((), output, _fresh("head", depth, output, block.seeds))
    stage = _Stage("head", depth, "labels", block.procedure.head)
    return _fit(block, data, stage, seen, start, digest=digest, chain=chain)


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
        before=chain[-1].diverged if top is None or tune.output == "fresh" else chain[-1].diverged | top.diverged,
    )
    output = _reconstruction_output(block, depth) if top is None else _answer_output(block, data, depth)
    anew = top is not None and tune.output == "fresh"
    start_of_output = _fresh("head", depth, output, block.seeds) if anew else (chain[-1] if top is None else top).output
    start = _Start(_hidden(block, depth), output, (*hidden, *start_of_output))
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
    pieces, output = _hidden(block, depth), _pretraining_output(block, data, depth)
    hidden = tuple(values for level in range(1, depth + 1) for values in _fresh_layer(block, level))
    stage = _Stage("jointly", depth, block.pretraining, joint_training(block, depth), noise=block.procedure.noise)
    start = _Start(pieces, output, (*hidden, *_fresh("output", 0, output, block.seeds)))
    return _fit(block, data, stage, block.view(data).inputs, start, digest=digest)


def untrained(block: Block, chain: Chain, *, hidden: Weights | None = None) -> StageResult:
    """One more hidden layer with the weights that greedy training would begin with, and no output layer.

    Args:
        block: the seeds and their procedure.
        chain: the layers below, bottom up.
        hidden: the layer's weights, where they are known or not wanted.
    """
    depth = len(chain) + 1
    key = untrained_digest(block, depth, chain[-1].digest if chain else "")
    weights = _fresh_layer(block, depth) if hidden is None else hidden
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
        key = permuted_digest(block, result.digest, shuffled[-1].digest if shuffled else "")
        made = without_training(block, "permuted", depth, hidden, key)
        shuffled = (*shuffled, dataclasses.replace(made, diverged=result.diverged))
    return shuffled


def unrolled(block: Block, result: StageResult) -> Chain:
    """A result that holds all hidden layers as a chain of one result a layer; the top one has the output layer."""
    chain: Chain = ()
    start = 0
    for depth in range(1, result.depth + 1):
        count = _num_weights(block, depth) if result.hidden else 0
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
    from layerwise import engine, models

    started = time.perf_counter()
    seen, known, depth = block.view(data), features(block, data, chain), len(chain)
    answers = engine.apply(_answer_output(block, data, depth), (head or chain[-1]).output, known, shared_inputs=False)
    score = scoring.classification_scores if data.task == "classification" else scoring.regression_scores
    metrics, collapsed = score(seen, answers), np.zeros(len(block.seeds), bool)
    numbers = scoring.flat(known)
    if block.procedure.objective == "reconstruction" and chain[-1].output:
        made = engine.apply(_reconstruction_output(block, depth), chain[-1].output, known, shared_inputs=False)
        scores, collapsed = scoring.reconstruction_scores(seen, made, numbers, models.narrowest(block, data, depth))
        metrics |= scores
    metrics["live_units"] = outcomes.live_units(numbers, seen.pool)
    metrics["effective_rank"] = outcomes.effective_rank(numbers, seen.pool)
    metrics, broken = scoring.judged(metrics)
    diverged = chain[-1].diverged | broken if head is None else chain[-1].diverged | head.diverged | broken
    return Evaluation(
        depth=depth,
        metrics=metrics,
        diverged=diverged,
        collapsed=collapsed & ~diverged,
        digest=digest,
        finished=_now(),
        seconds=time.perf_counter() - started,
        peak_memory=sizes.peak_bytes(),
        code=own_code.digest(),
    )


def features(block: Block, data: Data, chain: Chain, *, sequences: bool = False) -> np.ndarray:
    """What the hidden layers make of every row: ``(seeds, rows, ...)`` float32; without layers, the inputs.

    Layer k's features are always computed from layer k-1's by one compiled program, so they have the same bits
    whether a run goes straight through or is resumed.

    Args:
        block: the seeds and their procedure.
        data: the study's data.
        chain: the hidden layers, bottom up.
        sequences: whether a recurrent layer on top gives all its states, as the next layer may want, or its last.
    """
    if not chain:
        return block.view(data).inputs
    key = (chain[-1].digest, sequences)
    if key not in _FEATURES:
        from layerwise import engine

        piece = dataclasses.replace(_hidden(block, len(chain))[-1], sequences=sequences)
        shared = len(chain) == 1 and block.view(data).shared
        below = features(block, data, chain[:-1], sequences=_passes_sequences(block, len(chain) - 1))
        made = engine.apply(piece, chain[-1].hidden, below, shared_inputs=shared)
        while _FEATURES and made.nbytes + sum(kept.nbytes for kept in _FEATURES.values()) > FEATURES_BYTES:
            _FEATURES.popitem(last=False)
        _FEATURES[key] = made
    return _FEATURES[key]


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

    def order(self, block: Block) -> Order:
        """In which it visits its rows."""
        return Order(block.seeds, self.name, self.depth, self.training.epochs)


@dataclass(frozen=True)
class _Start:
    """What a stage trains and from where: hidden layers, bottom up, an output layer, and all their weights."""

    hidden: tuple[Hidden, ...]
    output: Output
    weights: Weights


def _train_layer(block: Block, data: Data, chain: Chain, *, stage: str, digest: str) -> StageResult:
    """A greedy stage: a new hidden layer under the output layer, on the features of the frozen layers."""
    depth = len(chain) + 1
    seen = features(block, data, chain, sequences=_passes_sequences(block, depth - 1))
    pieces, output = _hidden(block, depth)[-1:], _pretraining_output(block, data, depth)
    if not chain:
        top = _fresh("output", 0, output, block.seeds)
    elif output == _pretraining_output(block, data, depth - 1):
        top = chain[-1].output
    else:
        # The kept output layer does not fit features of another shape; it begins anew, as the first one did.
        top = _fresh("output", depth, output, block.seeds)
    asked = block.procedure
    how = _Stage(stage, depth, block.pretraining, asked.training_at(depth), noise=asked.noise_at(depth))
    start = _Start(pieces, output, (*_fresh_layer(block, depth), *top))
    return _fit(block, data, how, seen, start, digest=digest, chain=chain)


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
    reconstruction = stage.objective == "reconstruction"
    classes = data.task == "classification" and not reconstruction
    targets = view.inputs if reconstruction else view.one_hot if classes else view.scaled_targets
    rows = view.pool if reconstruction else view.train
    problem = engine.Problem(
        hidden=start.hidden,
        output=start.output,
        loss="categorical_crossentropy" if classes else "mean_squared_error",
        optimizer=stage.training.optimizer,
        batch_size=stage.training.batch_size,
        seeds=len(block.seeds),
        shared_inputs=inputs.ndim == 2,
        shared_targets=targets.ndim == 2,
        noise=stage.noise,
        factors=stage.factors,
    )
    following = _following(block, stage)
    order = orders.order(stage.order(block), rows, following=following.order(block) if following else None)
    fitted = engine.fit(problem, start.weights, inputs, targets, order, _noise_keys(block, stage))
    if _frozen_digest(chain) != frozen:
        raise FrozenLayerMoved(
            f"{block.arm}, depth {stage.depth}: a frozen layer changed while {stage.name} was trained"
        )
    weights, diverged = fitted.weights, ~_finite((*fitted.weights, fitted.loss_curve))
    count = len(weights) - _output_weights(start.output)
    before = stage.before if stage.before is not None else chain[-1].diverged if chain else False
    return StageResult(
        stage=stage.name,
        depth=stage.depth,
        hidden=weights[:count],
        output=weights[count:],
        loss_curve=fitted.loss_curve,
        diverged=diverged | before,
        frozen=frozen,
        digest=digest,
        finished=_now(),
        seconds=time.perf_counter() - started,
        peak_memory=sizes.peak_bytes(),
        code=own_code.digest(),
    )


def without_training(block: Block, stage: str, depth: int, hidden: Weights, digest: str) -> StageResult:
    """A result that no training made: weights as they are, no curve, no output layer."""
    seeds = len(block.seeds)
    curve, diverged = np.zeros((seeds, 0), np.float32), np.zeros(seeds, bool)
    return StageResult(stage, depth, hidden, (), curve, diverged, "", digest, _now(), 0.0)


def _hidden(block: Block, depth: int) -> tuple[Hidden, ...]:
    """The hidden layers of a network as deep as that; the top one gives what an output layer reads."""
    from layerwise import models

    return models.hidden_layers(block, depth)


def _passes_sequences(block: Block, depth: int) -> bool:
    """Whether the hidden layer at a depth hands all its states to the next one."""
    return depth > 0 and passes_sequences(block.layers, depth)


def _answer_output(block: Block, data: Data, depth: int) -> Output:
    from layerwise import models

    return models.answer_output(block, data, _hidden(block, depth)[-1])


def _reconstruction_output(block: Block, depth: int) -> Output:
    from layerwise import models

    return models.reconstruction_output(block, _hidden(block, depth)[-1])


def _pretraining_output(block: Block, data: Data, depth: int) -> Output:
    """The output layer that greedy stages train with."""
    labels = block.pretraining == "labels"
    return _answer_output(block, data, depth) if labels else _reconstruction_output(block, depth)


def _num_weights(block: Block, depth: int) -> int:
    from layerwise import network

    return network.num_weights(_hidden(block, depth)[-1])


def _output_weights(output: Output) -> int:
    from layerwise import network

    return network.num_weights(output)


def _fresh_layer(block: Block, depth: int) -> Weights:
    stage = "base" if depth == 1 else "add_layer"
    return _fresh(stage, depth, _hidden(block, depth)[-1], block.seeds)


def _fresh(stage: str, depth: int, piece: Piece, seeds: Sequence[int]) -> Weights:
    """Initial weights of a piece for every seed, from each seed's ``init`` stream."""
    from layerwise import network

    drawn = [int(streams.generator(seed, "init", stage, depth).integers(2**31)) for seed in seeds]
    return network.initial_weights(piece, drawn)


def _following(block: Block, stage: _Stage) -> _Stage | None:
    """The stage of the same rows that the block's next depth will want, if it grows by such stages."""
    names, deeper = {"base": "add_layer", "add_layer": "add_layer", "head": "head"}, stage.depth + 1
    if stage.name not in names or deeper > block.procedure.depth:
        return None
    training = block.procedure.training_at(deeper) if stage.name != "head" else stage.training
    return dataclasses.replace(stage, name=names[stage.name], depth=deeper, training=training)


def _noise_keys(block: Block, stage: _Stage) -> np.ndarray:
    """``(seeds, 2)`` int32 keys of each seed's noise and dropout, from its ``noise`` stream."""
    drawn = [streams.generator(seed, "noise", stage.name, stage.depth).integers(2**31, size=2) for seed in block.seeds]
    return np.array(drawn, np.int32)


def _finite(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """``(seeds,)`` bool: whether every value of a seed is finite."""
    return np.all([np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in arrays], axis=0)


def _frozen_digest(chain: Chain) -> str:
    return datasets.content_digest(*(values for result in chain for values in result.hidden))


def _now() -> int:
    return time.time_ns() // 1_000_000
