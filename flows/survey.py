"""What a study's results folder holds: its stages as digests alone, and how deep stored scores let it grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows import environment
from layerwise.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from layerwise.datasets import Data
    from layerwise.stages import Block, Chain, Evaluation, StageResult


@dataclass
class Survey:
    """The stages of an arm as digests alone: runs the algorithm's own order of stages, and trains none of them."""

    folder: Path
    data: Data
    wanted: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    met: list[tuple[int, str, str]] = field(default_factory=list)

    def stages(self, study: Study, arm: str, repeat: str) -> dict[tuple[int, str], tuple[int, int]]:
        """``(depth, stage)`` -> how many blocks have it on disk, and how many there are."""
        from layerwise import pretraining, stages

        self.met = []
        for block in stages.blocks(study, arm, self.data.digest, repeat):
            for _ in pretraining.depths(block, self.data, steps=self):
                pass
        done, blocks = Counter(), Counter()
        for depth, stage, digest in dict.fromkeys(self.met):
            self.wanted.add(digest)
            blocks[depth, stage] += 1
            if (self.folder / digest).is_file():
                self.found.add(digest)
                done[depth, stage] += 1
        return {key: (done[key], count) for key, count in blocks.items()}

    def base(self, block: Block, _data: Data, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "base", 1, digest)

    def add_layer(self, block: Block, _data: Data, chain: Chain, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "add_layer", len(chain) + 1, digest)

    def head(self, block: Block, _data: Data, chain: Chain, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "head", len(chain), digest)

    def fine_tune(self, block: Block, _data: Data, chain: Chain, _top: StageResult | None, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "fine_tune", len(chain), digest)

    def jointly(self, block: Block, _data: Data, depth: int, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "jointly", depth, digest)

    def evaluate(self, block: Block, _data: Data, chain: Chain, _head: object, digest: str) -> Evaluation:
        """Say nothing of scores: they cost next to nothing."""
        from layerwise.stages import Evaluation

        none = np.zeros(len(block.seeds), bool)
        return Evaluation(len(chain), {}, none, none, digest, 0)

    def untrained(self, block: Block, chain: Chain) -> StageResult:
        """A layer that no stage trains."""
        from layerwise import pretraining

        return pretraining.untrained(block, chain, hidden=())

    def permuted(self, block: Block, chain: Chain) -> Chain:
        """The chain, shuffled."""
        from layerwise import pretraining

        return pretraining.permuted(block, chain)

    def unrolled(self, block: Block, result: StageResult) -> Chain:
        """The result as a chain."""
        from layerwise import pretraining

        return pretraining.unrolled(block, result)

    def _met(self, block: Block, stage: str, depth: int, digest: str) -> StageResult:
        from layerwise.pretraining import without_training

        self.met.append((depth, stage, digest))
        return without_training(block, stage, depth, (), digest)


class Stored(Survey):
    """The same, with the scores that are stored; :class:`tasks.results.ResultProblem` where there are none."""

    def evaluate(self, block: Block, _data: Data, chain: Chain, _head: object, digest: str) -> Evaluation:  # noqa: ARG002
        """Read the scores."""
        from tasks.results import ResultFolder, read_back

        return read_back(digest, ResultFolder(folder=str(self.folder)))


def grown_as_stored(study: Study, data: Data, repeat: str, root: Path) -> tuple[Study, pd.DataFrame]:
    """A study with its arms as deep as stored results settle, and the scores that settle it.

    Nothing is trained and nothing written. Arms whose first seeds are not all stored stay as deep as they may become,
    and have no scores.

    Args:
        study: one that says ``grow``.
        data: its data.
        repeat: the name of a deliberate repeat, or empty.
        root: where results are.
    """
    import pandas as pd

    from layerwise import stages
    from layerwise.growing import Growing

    growing, records = Growing(study), []
    _, groups = next(stages.rounds(study, data.digest, repeat))
    if environment.results_folder(root).is_dir():
        environment.prepare(root)
        from tasks.results import ResultProblem

        for blocks in groups:
            if growing.settles(blocks):
                with suppress(ResultProblem):  # it is not there, or not sound
                    stored = growing.depths(blocks, data, steps=Stored(environment.results_folder(root), data))
                    records += [record for depth in list(stored) for record in depth.records()]
    return growing.study, pd.DataFrame(records)


def growth_in_words(study: Study, metrics: pd.DataFrame) -> Iterator[str]:
    """The rule, and where it ended growth so far.

    Args:
        study: as :func:`grown_as_stored` returns it.
        metrics: likewise.
    """
    from layerwise import growing

    if study.grow is None:
        return
    yield (
        f"grow   no further layer once the newest is shown to gain less than {study.grow.worth:g} on validation, by the"
        f" first {study.grow.seeds} seeds"
    )
    yield from (f"       {line}" for line in growing.growth_in_words(study, metrics))
    settled = set(metrics["arm"]) if len(metrics) else set()
    for arm in study.roots:
        if arm not in settled:
            yield f"       {arm}: not settled yet; what follows is the most"
