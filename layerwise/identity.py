"""Identity: the digest of everything that decides a stage's bits, chained from the data upwards."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from layerwise import datasets, imported
from layerwise.stages import Block, Chain, Objective, StageResult
from layerwise.study import AnyLayer, Bottom, Custom, Training, digest_of

STAGE_VERSIONS = {"base": 1, "add_layer": 1, "head": 1, "fine_tune": 1, "jointly": 1, "permuted": 1, "evaluate": 5}
"""Raised whenever a stage would give other bits for the same study; part of its digest."""


def greedy_digest(block: Block, depth: int, parent: str) -> str:
    """Identity of a greedy stage: all that decides its bits, chained from the data upwards.

    What lies above it, the other arms and the number of seeds asked for have no part in it.

    Args:
        block: the seeds and their procedure.
        depth: number of hidden layers after the stage.
        parent: digest of the stage below; not used at depth 1, whose parent is the data.
    """
    asked = block.procedure
    noise = asked.noise_at(depth)
    details = {
        "layer": _layer_identity(block.layers[depth - 1]),
        "objective": block.pretraining,
        "training": asked.training_at(depth).canonical(),
        "noise": noise.canonical() if noise else None,
        **_optional(head=_head_identity(block) if block.pretraining == "labels" else None),
        **_optional(bottom=_bottom_identity(asked.bottom) if depth == 1 else None),
    }
    if depth == 1:
        return _digest(block, "base", _data_identity(block, block.pretraining), details)
    return _digest(block, "add_layer", parent, details)


def head_digest(block: Block, chain: Chain) -> str:
    """Identity of a head on a chain."""
    details = {
        "training": block.procedure.head.canonical(),
        "labels": _data_identity(block, "labels"),
        **_optional(head=_head_identity(block)),
    }
    return _digest(block, "head", chain[-1].digest, details)


def fine_tune_digest(block: Block, chain: Chain, top: StageResult | None) -> str:
    """Identity of the fine tuning of a chain, on labels with the output layer of ``top``, else on reconstruction."""
    said = block.procedure.fine_tune.canonical() if block.procedure.fine_tune else {}
    fresh = said.get("output") == "fresh"
    details = {
        "training": {key: said.get(key) for key in ("optimizer", "batch_size", "epochs", "learning_rate_factors")},
        "top": top.digest if top and not fresh else None,
        "labels": _data_identity(block, "labels") if top else None,
        **_optional(head=_head_identity(block) if top and fresh else None, output="fresh" if top and fresh else None),
    }
    return _digest(block, "fine_tune", chain[-1].digest, details)


def jointly_digest(block: Block, depth: int) -> str:
    """Identity of a network of some depth that is trained all at once."""
    details = {
        "layers": [_layer_identity(layer) for layer in block.layers[:depth]],
        "objective": block.pretraining,
        "training": joint_training(block, depth).canonical(),
        "noise": block.procedure.noise.canonical() if block.procedure.noise else None,
        **_optional(head=_head_identity(block) if block.pretraining == "labels" else None),
        **_optional(bottom=_bottom_identity(block.procedure.bottom)),
    }
    return _digest(block, "jointly", _data_identity(block, block.pretraining), details)


def untrained_digest(block: Block, depth: int, parent: str) -> str:
    """Identity of a hidden layer as it begins; ``parent`` is the digest of the layer below, if there is one."""
    details = {
        "layer": _layer_identity(block.layers[depth - 1]),
        **_optional(bottom=_bottom_identity(block.procedure.bottom) if depth == 1 else None),
    }
    return _digest(block, "untrained", parent or _data_identity(block, "reconstruction"), details)


def permuted_digest(block: Block, parent: str, below: str) -> str:
    """Identity of a hidden layer with shuffled weights, above others with theirs."""
    return _digest(block, "permuted", parent, {"below": below})


def joint_training(block: Block, depth: int) -> Training:
    """End to end has as many epochs in all as greedy training up to that depth; scratch has the fine-tuning budget."""
    asked = block.procedure
    if asked.control == "scratch" and asked.fine_tune is not None:
        tune = asked.fine_tune
        return Training(optimizer=tune.optimizer, batch_size=tune.batch_size, epochs=tune.epochs)
    epochs = sum(asked.training_at(level).epochs for level in range(1, depth + 1))
    return asked.training.model_copy(update={"epochs": epochs})


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


def _layer_identity(layer: AnyLayer) -> dict[str, Any]:
    """A layer as it is written, and for one of the user's own the code it is made by."""
    said = layer.canonical()
    return {**said, "code": imported.code_digest(layer.function)} if isinstance(layer, Custom) else said


def _head_identity(block: Block) -> list[dict[str, Any]] | None:
    return [_layer_identity(layer) for layer in block.procedure.head_layers] or None


def _bottom_identity(bottom: Bottom) -> dict[str, Any] | None:
    if not bottom.shape and not bottom.inputs:
        return None
    encoders = {
        name: {**encoder.canonical(), "layers": [_layer_identity(layer) for layer in encoder.layers]}
        for name, encoder in bottom.inputs
    }
    return {"shape": list(bottom.shape or ()), "inputs": encoders}


def _optional(**details: Any) -> dict[str, Any]:
    """Details that studies which do not use them have never had: left out where there is nothing to say."""
    return {name: value for name, value in details.items() if value is not None}


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
