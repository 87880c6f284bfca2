"""A study answered in this process, with nothing stored: the same bits as ``layerwise run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerwise import datasets, pretraining, sizes
from layerwise.datasets import Data
from layerwise.growing import Growing, growth_in_words
from layerwise.stages import Block, Depth, model_name, rounds
from layerwise.study import Study

if TYPE_CHECKING:
    import keras
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """The numbers of a study that was run in this process.

    Attributes:
        study: what was asked; where arms grow by rule, as deep as they have grown.
        data: the data it was asked of.
        trained: arm -> every depth of every block.
    """

    study: Study
    data: Data
    trained: dict[str, tuple[Depth, ...]]

    def metrics(self) -> pd.DataFrame:
        """One row per arm, seed and depth, with its outcome and scores."""
        import pandas as pd

        return pd.DataFrame(row for arm in self.trained for depth in self.trained[arm] for row in depth.records())

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
    growing = Growing(study)
    for depth in _depths(growing, data, steps=Memory(), repeat=""):
        trained[depth.block.arm] += (depth,)
        if progress:
            progress(depth)
    return Result(growing.study, data, trained)


def depths(study: Study, data: Data, *, steps: Any, repeat: str = "") -> Iterator[Depth]:
    """Every depth of every block of a study as it is trained, block by block and in each of them arm by arm.

    A study that stops early ends where it stops, and an arm that grows by rule where its growth ends.

    Args:
        study: what to train.
        data: its data.
        steps: where the stages come from, such as :class:`Memory`.
        repeat: name of the deliberate repeat; it is part of the digests and changes no bit.
    """
    return _depths(Growing(study), data, steps=steps, repeat=repeat)


def _depths(growing: Growing, data: Data, *, steps: Any, repeat: str) -> Iterator[Depth]:
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in growing.study.arms}
    for seeds, groups in rounds(growing.study, data.digest, repeat):
        for blocks in sorted(groups, key=lambda blocks: blocks[0].seeds):  # which keeps the order of arms
            for depth in growing.depths(blocks, data, steps=steps):
                found[depth.block.arm] += depth.records()
                yield depth
        if _enough(growing.study, found, seeds):
            return


def _enough(study: Study, found: dict[str, list[dict[str, Any]]], seeds: int) -> bool:
    """Whether a study that stops early has seeds enough; others are asked nothing, for that loads more."""
    if study.stop is None:
        return False
    import pandas as pd

    from layerwise.claims import should_stop

    return should_stop(study, pd.DataFrame(row for arm in found.values() for row in arm), seeds)


def in_words(study: Study, metrics: pd.DataFrame) -> list[str]:
    """The study's answer, a sentence for each arm: how its main score changes with depth, and where growth ended.

    Args:
        study: what was asked.
        metrics: one row per arm, seed and depth; arms that it lacks are not spoken of.
    """
    from layerwise import statistics

    return [*statistics.in_words(metrics), *growth_in_words(study, metrics)]
