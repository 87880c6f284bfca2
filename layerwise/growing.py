"""How deep arms grow: the order in which blocks train, and the rule that ends growth.

Where a study says ``grow``, the first blocks of an arm train side by side, a depth at a time. After each depth the
validation scores of these seeds say whether the newest layer gained what it is to be worth
(:func:`layerwise.selection.gain`). Where it did not, the arm ends there, and every later block of it, and of its
controls, trains just these depths. What settles it is a function of stored results, so a run that goes on, or one with
more seeds, settles the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from layerwise import pretraining
from layerwise.datasets import Data
from layerwise.stages import Block, Depth
from layerwise.study import SHALLOWEST, Study, StudyError

if TYPE_CHECKING:
    import pandas as pd


class Growing:
    """A study while it trains: what :func:`layerwise.stages.rounds` puts together trains together.

    Attributes:
        study: the study with its arms as deep as they have grown; one that does not say ``grow`` stays as it is.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._ended: dict[str, int] = {}

    def depths(self, blocks: Sequence[Block], data: Data, *, steps: Any = None) -> Iterator[Depth]:
        """Train blocks of one arm, depth by depth, as deep as the arm is to be.

        Args:
            blocks: those that settle how deep their arm grows, all together; or any other by itself.
            data: the study's data.
            steps: where the stages come from, as of :func:`layerwise.pretraining.depths`.

        Raises:
            StudyError: if how deep the arm grows should be settled and is not.
        """
        if self.settles(blocks):
            yield from self._settling(blocks, data, steps)
            return
        for block in blocks:
            yield from pretraining.depths(block.upto(self._end_of(block.arm)), data, steps=steps)

    def steps(self, groups: Sequence[Sequence[Block]]) -> int:
        """How many depths some blocks train in all, as far as that is settled."""
        return sum(len(self.study.procedure(block.arm).depths) for blocks in groups for block in blocks)

    def settles(self, blocks: Sequence[Block]) -> bool:
        """Whether blocks are those that settle how deep their arm grows, and have not done so."""
        arm, grow = blocks[0].arm, self.study.grow
        first = grow is not None and blocks[0].seeds[0] < grow.seeds
        return first and self.study.root(arm) == arm and arm not in self._ended

    def _end_of(self, arm: str) -> int:
        """How deep an arm is to be."""
        root = self.study.root(arm)
        if self.study.grow is not None and root not in self._ended:
            raise StudyError(f"not trained: its depth is that of {root}, whose first seeds failed and settled none")
        return self.study.procedure(arm).depth

    def _settling(self, blocks: Sequence[Block], data: Data, steps: Any) -> Iterator[Depth]:
        """One depth of all blocks after the other, until the newest layer is not worth it or there is none to add."""
        arm, scores = blocks[0].arm, []
        for made in zip(*(pretraining.depths(block, data, steps=steps) for block in blocks), strict=True):
            depth = made[0].depth
            scores += [record for one in made for record in one.records()]
            if self._is_over(scores, arm, depth):
                self._ended[arm] = depth
                self.study = self.study.grown(self._ended)
                yield from (one.as_last() for one in made)
                return
            yield from made

    def _is_over(self, scores: list[dict[str, Any]], arm: str, depth: int) -> bool:
        grow = self.study.grow
        if grow is None or depth == self.study.planned(arm).depth:
            return True
        if depth < SHALLOWEST:
            return False
        import pandas as pd

        from layerwise import selection

        return selection.gain(pd.DataFrame(scores), arm, depth=depth, first_seeds=grow.seeds).is_over(grow.worth)


def as_grown(study: Study, metrics: pd.DataFrame) -> Study:
    """A study as deep as it has grown, by what was trained of it; one that does not say ``grow`` is as it is.

    Args:
        study: the study as it was asked.
        metrics: one row per arm, seed and depth; an arm without any stays as deep as it may become.
    """
    if study.grow is None or not len(metrics):
        return study
    deepest = metrics.groupby("arm")["depth"].max()
    return study.grown({arm: int(deepest[arm]) for arm in study.roots if arm in deepest})


def growth_in_words(study: Study, metrics: pd.DataFrame) -> list[str]:
    """Where growth ended and why, a sentence for each arm that grew by rule and of which there are scores.

    Args:
        study: one that says ``grow``, or any other, of which there is nothing to say.
        metrics: one row per arm, seed and depth.
    """
    if study.grow is None or not len(metrics):
        return []
    deepest = metrics.groupby("arm")["depth"].max()
    return [_in_words(study, metrics, arm, int(deepest[arm])) for arm in study.roots if arm in deepest]


def _in_words(study: Study, metrics: pd.DataFrame, arm: str, depth: int) -> str:
    from layerwise import selection

    grow, most = study.grow, study.planned(arm).depth
    if grow is None or depth < SHALLOWEST:
        return f"{arm}: grew to depth {depth}, the most it may."
    gain = selection.gain(metrics, arm, depth=depth, first_seeds=grow.seeds)
    if not gain.is_over(grow.worth):
        return f"{arm}: grew to depth {depth}, the most it may; no layer was shown to gain less than {grow.worth:g}."
    why = (
        f"its last layer gained {gain.mean:+.4f} in validation score (95 % upper limit {gain.limit:+.4f}), less than"
        f" the {grow.worth:g} that a layer is to be worth"
        if gain.is_small(grow.worth)
        else f"only {gain.intact} of these seeds are intact there"
    )
    return f"{arm}: grew to depth {depth} of at most {most}, settled by the first {gain.first} seeds: {why}."
