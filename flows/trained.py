"""What a run has trained so far, what went wrong, and what it comes to in the end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flows.printing import in_one_line
from layerwise import answers, statistics
from layerwise.claims import Verdicts, decide
from layerwise.stages import Block, Depth
from layerwise.study import Study
from tasks.publishing import Summary
from tasks.results import StorageProblem
from tasks.tracking.store import TrackingError


@dataclass(frozen=True)
class Outcome:
    """How a study's run ended: results, verdicts, and one line for each arm or publication that failed.

    Claims are decided when all that they speak of has been trained; there are no verdicts of a run that failed.
    """

    table: pd.DataFrame | None
    metrics: pd.DataFrame
    failures: dict[str, str]
    unpublished: list[str]
    verdicts: Verdicts | None = None

    @property
    def seeds(self) -> int:
        """Seeds of every arm that were trained, if nothing failed."""
        return int(self.metrics["seed"].max()) + 1 if len(self.metrics) else 0


@dataclass
class Trained:
    """What has been trained so far: the scores, curves and times that the summary needs, and what went wrong."""

    records: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[int, list[np.ndarray]]] = field(default_factory=dict)
    finished: dict[tuple[str, int], int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)
    examples: dict[str, list[Depth]] = field(default_factory=dict)

    def add(self, depth: Depth) -> None:
        """Take in one depth of one block."""
        arm, number = depth.block.arm, depth.depth
        if depth.block.seeds[0] == 0:
            self.examples.setdefault(arm, []).append(depth)
        self.records += answers.rows(depth)
        self.curves.setdefault(arm, {}).setdefault(number, []).append(
            depth.chain[-1].loss_curve[: depth.block.reported]
        )
        self.finished[arm, number] = max(self.finished.get((arm, number), 0), depth.evaluation.finished)

    def metrics(self) -> pd.DataFrame:
        """One row per arm, seed and depth: arms in the study's order, however they were trained."""
        metrics = pd.DataFrame(self.records)
        if not len(metrics):
            return metrics
        arms = pd.Categorical(metrics["arm"], categories=metrics["arm"].unique())
        return metrics.iloc[np.argsort(arms.codes, kind="stable")].reset_index(drop=True)

    def outcome(self, study: Study) -> Outcome:
        """What the run comes to."""
        metrics = self.metrics()
        table = statistics.summarise(metrics) if len(metrics) else None
        verdicts = decide(study, metrics) if study.claims and not self.failures else None
        return Outcome(table, metrics, self.failures, self.unpublished, verdicts)

    def summary(self, study: Study, outcome: Outcome) -> Summary | None:
        """What there is to publish of an outcome, if anything was trained."""
        if outcome.table is None:
            return None
        curves = {
            arm: {depth: np.concatenate(parts) for depth, parts in depths.items()}
            for arm, depths in self.curves.items()
        }
        verdicts = outcome.verdicts.as_json() if outcome.verdicts else None
        seeds = study.seeds if study.stop is None else None if self.failures else outcome.seeds
        return Summary(outcome.metrics, outcome.table, curves, self.finished, self.examples, seeds, verdicts)


@contextmanager
def failures_noted(trained: Trained, block: Block) -> Generator[None]:
    """One failing block does not stop the others: it is noted, and fails the run at its end.

    A disk that takes no results stops them all: what they would train could not be kept.
    """
    try:
        yield
    except StorageProblem:
        raise
    except Exception as error:  # noqa: BLE001 - whatever stops one block need not stop another
        trained.failures[f"{block.arm}, seeds {block.seeds[0]}-{block.seeds[-1]}"] = in_one_line(error)


@contextmanager
def unpublished_noted(trained: Trained) -> Generator[None]:
    """What cannot be published does not cost the answer: it is noted, and the next run sends it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever keeps it from MLflow, the results are on disk
        trained.unpublished.append(reason(error))


def reason(error: BaseException) -> str:
    """Why something could not be published: the store's words are ours already."""
    return str(error) if isinstance(error, TrackingError) else in_one_line(error)
