"""What of a trained depth is tracked: the scores of a seed, and its networks with their weights.

Publishing sends it; reproducing compares it with what was sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from layerwise.datasets import Data, content_digest
from layerwise.stages import Depth, Network, model_name
from layerwise.study import KeptModels
from layerwise.study.claims import FINE_TUNED
from tasks.tracking.publishing import Point


@dataclass(frozen=True)
class KeptNetwork:
    """A network of one seed that is kept as a model.

    Attributes:
        network: its name and architecture.
        weights: in the order of the Keras model's ``get_weights()``.
        digest: of the weights.
        fine_tuned: whether it is the fine-tuned one.
    """

    network: Network
    weights: list[np.ndarray]
    digest: str
    fine_tuned: bool


def points(depth: Depth, position: int) -> list[Point]:
    """The scores of one seed, those of its fine-tuned network under their own names; none once it has diverged.

    Args:
        depth: what was trained.
        position: of the seed in its block.
    """
    if depth.evaluation.diverged[position]:
        return []
    found = [
        Point(name, float(values[position]), depth.depth, depth.evaluation.finished)
        for name, values in depth.evaluation.metrics.items()
    ]
    tuned = [] if depth.fine_tuned is None else points(depth.fine_tuned, position)
    return found + [dataclasses.replace(point, key=f"{FINE_TUNED}{point.key}") for point in tuned]


def networks(depth: Depth, position: int, data: Data, wanted: KeptModels) -> Iterator[KeptNetwork]:
    """The networks of one seed that become models; none once it has diverged.

    Args:
        depth: what was trained.
        position: of the seed in its block.
        data: the study's data.
        wanted: of which depths a study keeps models.
    """
    if not depth.block.procedure.keeps(depth.depth, wanted) or depth.evaluation.diverged[position]:
        return
    from layerwise import models

    for kept in depth.networks():
        fine = kept.name == model_name(depth.depth, "fine-tuned")
        if fine and depth.fine_tuned is not None and depth.fine_tuned.evaluation.diverged[position]:
            continue
        weights = models.weights(kept, position, data)
        yield KeptNetwork(kept, weights, content_digest(*weights), fine)
