"""The ledger of a run: a line for every stage, with the digest of what it left.

With it two computations of a study can be told apart by the first stage in which they differ, although neither keeps
the other's weights; and it says which stored results a run rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.datasets import content_digest
from layerwise.stages import Block, Evaluation, StageResult

if TYPE_CHECKING:
    import pandas as pd

UNNOTED = ("unrolled", "untrained", "permuted")
"""Steps that make no stage: they take results apart, or draw weights."""

COLUMNS = ("arm", "first_seed", "last_seed", "stage", "turn", "depth", "digest", "content", "finished", "code")


class Ledger:
    """Steps for :func:`layerwise.pretraining.depths` that come from elsewhere, and note every stage they make.

    Example:
        >>> from layerwise import answers, datasets
        >>> from layerwise.study import load
        >>> study = load("blobs-supervised", seeds=1, overrides=["network.layers.0.repeat=1", "claims=null"])
        >>> ledger = Ledger(answers.Memory())
        >>> done = list(answers.depths(study, datasets.generate(study.data), steps=ledger))
        >>> ledger.table()[["arm", "last_seed", "stage", "depth"]].values.tolist()
        [['greedy', 0, 'base', 1], ['greedy', 0, 'evaluate', 1]]
    """

    def __init__(self, steps: ModuleType | Any) -> None:
        self.steps = steps
        self.rows: list[dict[str, Any]] = []
        self._turns: Counter[tuple[Any, ...]] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The step of that name, noted if it is a stage."""
        step = getattr(self.steps, name)
        if name in UNNOTED:
            return step

        def noted(block: Block, *arguments: Any) -> Any:
            result = step(block, *arguments)
            self.rows.append(self._row(block, result))
            return result

        return noted

    def table(self) -> pd.DataFrame:
        """One row for each stage, in the order of training.

        ``turn`` counts the stages of one kind at one depth: fine tuning brings a second head, and a second scoring.
        ``finished`` is in milliseconds since 1970; ``code`` is the digest of the code that computed it.
        """
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def codes(self) -> dict[str, int]:
        """Digest of the code -> how many stages it computed; what several arms have in common counts once."""
        return dict(Counter({row["digest"]: row["code"] for row in self.rows}.values()))

    def _row(self, block: Block, result: StageResult | Evaluation) -> dict[str, Any]:
        stage = getattr(result, "stage", "evaluate")
        place = (block.arm, block.seeds[0], stage, result.depth)
        self._turns[place] += 1
        return {
            "arm": block.arm,
            "first_seed": block.seeds[0],
            "last_seed": block.seeds[block.reported - 1],
            "stage": stage,
            "turn": self._turns[place],
            "depth": result.depth,
            "digest": result.digest,
            "content": content_of(result, block.reported),
            "finished": result.finished,
            "code": result.code,
        }


def content_of(result: StageResult | Evaluation, seeds: int) -> str:
    """Digest of what a stage left for its first ``seeds`` seeds: weights and losses, or scores.

    What fills a block up, and what is of no meaning (the scores of a seed that diverged), has no part in it.
    """
    if isinstance(result, Evaluation):
        sound = ~result.diverged[:seeds]
        scores = (result.metrics[name][:seeds][sound] for name in sorted(result.metrics))
        return _digest((*scores, result.diverged[:seeds], result.collapsed[:seeds]))
    arrays = (*result.hidden, *result.output, result.loss_curve, result.diverged)
    return _digest(array[:seeds] for array in arrays)


def _digest(arrays: Iterable[np.ndarray]) -> str:
    """One NaN is as good as another, whatever its bits."""
    return content_digest(*(np.where(np.isnan(array), np.nan, array).astype(array.dtype) for array in arrays))
