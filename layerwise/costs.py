"""What a study costs: time and memory of every stage, noted as results pass from the stages to the algorithm.

A stage that several arms have in common is trained once, and counted once. What was found and not trained anew costs
what it did when it was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from layerwise.stages import Block, Evaluation, StageResult

STAGES = ("base", "add_layer", "jointly", "head", "fine_tune", "evaluate")
"""The stage functions that cost something, in the order in which a depth is made."""

KEYS = ["arm", "shared_with", "stage", "depth"]
COLUMNS = [*KEYS, "blocks", "seconds", "peak_memory_bytes"]


@dataclass
class _Spent:
    """What one result took, and the arms that it serves, the one that asked first before the others."""

    stage: str
    depth: int
    block: tuple[int, ...]
    seconds: float | None
    peak_memory: int | None
    arms: list[str] = field(default_factory=list)


class Costs:
    """Time and memory of every stage of a study.

    Example:
        >>> import layerwise
        >>> from layerwise import datasets, pretraining, stages
        >>> from layerwise.costs import Costs
        >>> study = layerwise.load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=1", "claims=null"])
        >>> data, costs = datasets.generate(study.data), Costs()
        >>> for block in stages.blocks(study, "greedy", data.digest):
        ...     depths = list(pretraining.depths(block, data, steps=costs.noting(pretraining)))
        >>> costs.table()[["arm", "stage", "depth", "blocks"]].to_dict("records")
        [{'arm': 'greedy', 'stage': 'base', 'depth': 1, 'blocks': 1}, {'arm': 'greedy', 'stage': 'evaluate', 'depth': 1, 'blocks': 1}]
    """  # noqa: E501 - an example prints what it prints

    def __init__(self) -> None:
        self._spent: dict[str, _Spent] = {}

    def noting(self, steps: Any) -> _Noting:
        """The same stage functions, of whose results is noted what they cost.

        Args:
            steps: :mod:`layerwise.pretraining`, or what has the same names.
        """
        return _Noting(steps, self)

    def note(self, block: Block, stage: str, result: StageResult | Evaluation) -> None:
        """Take in what a result of a block took; one that is known by its digest serves one more arm."""
        new = _Spent(stage, result.depth, block.seeds, result.seconds, result.peak_memory)
        served = self._spent.setdefault(result.digest, new).arms
        if block.arm not in served:
            served.append(block.arm)

    def table(self) -> pd.DataFrame:
        """One row for each arm, stage and depth.

        Returns:
            ``arm``, the first that trained it; ``shared_with``, the others, separated by commas; ``stage``; ``depth``;
            ``blocks`` of seeds; ``seconds`` of all of them, NaN where those of one are not known; and
            ``peak_memory_bytes``, the most that the process had held at the end of any; NaN where it is not known.
        """
        import pandas as pd

        rows = [
            (one.arms[0], ", ".join(one.arms[1:]), one.stage, one.depth, one.block, one.seconds, one.peak_memory)
            for one in self._spent.values()
        ]
        spent = pd.DataFrame(rows, columns=COLUMNS).astype({"seconds": float, "peak_memory_bytes": float})
        summed = spent.groupby(KEYS, sort=False).agg(
            blocks=("blocks", "nunique"),
            seconds=("seconds", lambda taken: taken.sum(skipna=False)),
            peak_memory_bytes=("peak_memory_bytes", "max"),
        )
        return summed.reset_index()[COLUMNS]


class _Noting:
    """Stage functions whose results are noted on their way."""

    def __init__(self, steps: Any, costs: Costs) -> None:
        self._steps, self._costs = steps, costs

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        step = getattr(self._steps, stage)
        if stage not in STAGES:
            return step

        def noted(block: Block, *arguments: Any) -> Any:
            result = step(block, *arguments)
            self._costs.note(block, stage, result)
            return result

        return noted
