"""What a run has trained so far, what went wrong, and what it comes to in the end."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flows.printing import in_one_line
from flows.server import ServerLost, is_lost
from layerwise import selection, statistics
from layerwise.claims import Verdicts, decide
from layerwise.costs import Costs
from layerwise.ledger import Ledger
from layerwise.selection import Chosen
from layerwise.stages import Block, Depth
from layerwise.study import DeclaredNetwork, Study, StudyError, declared_network
from tasks import training
from tasks.publishing import Summary
from tasks.results import StorageProblem
from tasks.tracking.store import TrackingError


@dataclass(frozen=True)
class Outcome:
    """How a study's run ended: results, verdicts, choice, and one line for each arm or publication that failed.

    Claims are decided, and a network is chosen, when all seeds have been trained; a run that failed has neither.
    """

    study: Study
    """The study, its arms as deep as they have grown."""
    table: pd.DataFrame | None
    metrics: pd.DataFrame
    failures: dict[str, str]
    unpublished: list[str]
    verdicts: Verdicts | None = None
    chosen: Chosen | None = None
    declared: DeclaredNetwork | None = None
    """The network that the study declares, where nothing failed."""
    registered: str | None = None
    """The version of the registered model of the study's name that is the one or the other; None if none is."""
    codes: dict[str, int] = field(default_factory=dict)
    """Digest of the code -> how many stages it computed; those that were found and not trained are not all this code's.
    """

    @property
    def lacks(self) -> str:
        """What failed, or was not published; empty where nothing did."""
        failed = (f"{place}: {why}" for place, why in self.failures.items())
        return "; ".join((*failed, *(f"not published: {why}" for why in dict.fromkeys(self.unpublished))))

    @property
    def seeds(self) -> int:
        """Seeds of every arm that were trained, if nothing failed."""
        return int(self.metrics["seed"].max()) + 1 if len(self.metrics) else 0


@dataclass
class Trained:
    """What has been trained so far, what it cost, and what went wrong: all that the summary needs."""

    ledger: Ledger = field(default_factory=lambda: Ledger(training))
    records: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[int, list[np.ndarray]]] = field(default_factory=dict)
    finished: dict[tuple[str, int], int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)
    examples: dict[str, list[Depth]] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    @property
    def steps(self) -> Any:
        """The stages as tasks; whatever comes of them is noted here."""
        return self.costs.noting(self.ledger)

    def add(self, depth: Depth) -> None:
        """Take in one depth of one block."""
        arm, number = depth.block.arm, depth.depth
        if depth.block.seeds[0] == 0:
            self.examples.setdefault(arm, []).append(depth)
        self.records += depth.records()
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
        """What the run comes to; the study's arms are as deep as they have grown."""
        metrics = self.metrics()
        table = statistics.summarise(metrics) if len(metrics) else None
        verdicts = decide(study, metrics) if study.claims and not self.failures else None
        chosen = None if self.failures else _chosen(study, metrics)
        declared = None if self.failures else declared_network(study)
        return Outcome(
            study,
            table,
            metrics,
            self.failures,
            self.unpublished,
            verdicts,
            chosen,
            declared,
            codes=self.ledger.codes(),
        )

    def summary(self, outcome: Outcome) -> Summary | None:
        """What there is to publish of an outcome, if anything was trained."""
        if outcome.table is None:
            return None
        curves = {
            arm: {depth: np.concatenate(parts) for depth, parts in depths.items()}
            for arm, depths in self.curves.items()
        }
        verdicts = outcome.verdicts.as_json() if outcome.verdicts else None
        seeds, stop = outcome.study.seeds, outcome.study.stop
        if stop is not None:
            seeds = None if self.failures else outcome.seeds
        return Summary(
            metrics=outcome.metrics,
            table=outcome.table,
            curves=curves,
            finished=self.finished,
            examples=self.examples,
            costs=self.costs.table(),
            stages=self.ledger.table(),
            codes=outcome.codes,
            seeds=seeds,
            verdicts=verdicts,
            chosen=outcome.chosen,
            declared=outcome.declared,
        )


def _chosen(study: Study, metrics: pd.DataFrame) -> Chosen | None:
    """The network to keep; none where there is no validation part, or no arm has seeds enough that are intact."""
    try:
        return selection.chosen_network(metrics, list(study.arms))
    except StudyError:
        return None


@contextmanager
def failures_noted(trained: Trained, blocks: Sequence[Block]) -> Generator[None]:
    """A failing block does not stop the others: it is noted, and fails the run at its end.

    Of blocks that train together, all fail with one. A disk that takes no results stops them all, since what they would
    train could not be kept; and so does a Prefect server that is gone, since each would wait for it.
    """
    try:
        yield
    except StorageProblem:
        raise
    except Exception as error:
        if is_lost(error):
            raise ServerLost from error
        first, last = blocks[0], blocks[-1]
        trained.failures[f"{first.arm}, seeds {first.seeds[0]}-{last.seeds[-1]}"] = in_one_line(error)


@contextmanager
def unpublished_noted(trained: Trained) -> Generator[None]:
    """What cannot be published does not cost the answer: it is noted, and the next run sends it."""
    try:
        yield
    except Exception as error:
        if is_lost(error):
            raise ServerLost from error
        trained.unpublished.append(reason(error))


def reason(error: BaseException) -> str:
    """Why something could not be published: the store's words are ours already."""
    return str(error) if isinstance(error, TrackingError) else in_one_line(error)
