"""A study answered in this process, with nothing stored: the same bits as ``layerwise run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwise import datasets, pretraining, sizes
from layerwise.datasets import Data
from layerwise.stages import Block, Depth, Evaluation, model_name, rounds
from layerwise.study import Study

if TYPE_CHECKING:
    import keras
    import pandas as pd

FINE_TUNED = "fine_tuned_"
"""Prefix of the scores of the fine-tuned network."""


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
        from layerwise import models

        for found in self.trained[arm or next(iter(self.trained))]:
            if found.depth == depth and seed in found.block.seeds[: found.block.reported]:
                for kept in found.networks():
                    if kept.name == model_name(depth, name):
                        return models.keras_model(kept, found.block.seeds.index(seed), self.data)
        raise KeyError(
            f"no model {name!r} of seed {seed} at depth {depth}; there are {self.study.seeds} seeds,"
            f" {self.study.depth} depths"
        )


class Memory:
    """The stages, each computed once in this process: arms that share a prefix share its results.

    They share them within a block of seeds, so when the next one begins all results are forgotten.
    """

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.seeds: tuple[int, ...] = ()
        self.unrolled, self.untrained, self.permuted = pretraining.unrolled, pretraining.untrained, pretraining.permuted

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        """The stage of that name, which looks its digest up before it computes."""
        compute = getattr(pretraining, stage)

        def once(block: Block, *arguments: Any) -> Any:
            if block.seeds != self.seeds:
                self.results, self.seeds = {}, block.seeds
            digest = arguments[-1]
            if digest not in self.results:
                self.results[digest] = compute(block, *arguments)
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
        >>> study = layerwise.load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=1", "claims=null"])
        >>> layerwise.run(study).table()["test_accuracy_mean"].round(2).tolist()
        [0.82]
    """
    sizes.refuse_oversize(study)
    data = datasets.generate(study.data)
    datasets.check_seeds(study, data)
    pretraining.check_functions(study)
    trained: dict[str, tuple[Depth, ...]] = dict.fromkeys(study.arms, ())
    for depth in depths(study, data, steps=Memory()):
        trained[depth.block.arm] += (depth,)
        if progress:
            progress(depth)
    return Result(study, data, trained)


def depths(study: Study, data: Data, *, steps: Any, repeat: str = "") -> Iterator[Depth]:
    """Every depth of every block of a study as it is trained, block by block and in each of them arm by arm.

    A study that stops early ends where it stops.

    Args:
        study: what to train.
        data: its data.
        steps: where the stages come from, such as :class:`Memory`.
        repeat: name of the deliberate repeat; it is part of the digests and changes no bit.
    """
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in study.arms}
    for seeds, blocks in rounds(study, data.digest, repeat):
        for block in sorted(blocks, key=lambda block: block.seeds):  # which keeps the order of arms
            for depth in pretraining.depths(block, data, steps=steps):
                found[block.arm] += rows(depth)
                yield depth
        if _enough(study, found, seeds):
            return


def _enough(study: Study, found: dict[str, list[dict[str, Any]]], seeds: int) -> bool:
    """Whether a study that stops early has seeds enough; others are asked nothing, for that loads more."""
    if study.stop is None:
        return False
    import pandas as pd

    from layerwise.claims import should_stop

    return should_stop(study, pd.DataFrame(row for arm in found.values() for row in arm), seeds)


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
    # A diverged seed has no scores, though some look like one: a network that answers NaN is taken to say class 0.
    lost = outcome["diverged"]
    return {
        **{f"{prefix}{name}": bool(value) for name, value in outcome.items()},
        **{
            f"{prefix}{name}": float("nan") if lost else float(values[position])
            for name, values in evaluation.metrics.items()
        },
    }
