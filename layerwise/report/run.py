"""What a report is made from: a study and what one run of it found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from layerwise import comparison, statistics
from layerwise.study import Blobs, Study

BEST_RULE = 0.840
"""Accuracy of the Bayes-optimal rule on the test rows of the tutorial's blobs."""

TUTORIAL = Blobs()
"""The tutorial's blobs: what that rule's score belongs to."""


@dataclass(frozen=True)
class StudyRun:
    """A study, and what one run of it found.

    Attributes:
        study: what was asked.
        metrics: one row per arm, seed and depth, as :meth:`layerwise.answers.Result.metrics` gives.
        table: its summary, as :func:`layerwise.statistics.summarise` gives.
        verdicts: what was found of each claim, as :meth:`layerwise.claims.Verdicts.as_json` gives; None where claims
            are not decided, or there are none.
        differences: how arms differ, as :func:`layerwise.comparison.as_table` gives; None where no two are compared.
        costs: time and memory, as :meth:`layerwise.costs.Costs.table` gives; None where they are not known.
        origin: where the run comes from, as its tags say it without ``layerwise.``: ``git_commit``, ``git_changes``,
            ``lock_digest``, ``run_key``, ``repeat``, ``machine``, ``threads``, ``version.keras``, …
        data_digest: digest of the data.
    """

    study: Study
    metrics: pd.DataFrame
    table: pd.DataFrame
    verdicts: dict[str, Any] | None = None
    differences: pd.DataFrame | None = None
    costs: pd.DataFrame | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    data_digest: str = ""

    @property
    def score(self) -> str:
        """What answers the study: ``accuracy`` or ``r2``."""
        return statistics.main_score(self.metrics)

    @property
    def seeds(self) -> int:
        """Seeds that were trained, of the arm that has most."""
        return int(self.table["seeds"].max())

    @property
    def arms(self) -> list[str]:
        """The arms of which there is something, in the study's order."""
        return [str(arm) for arm in self.table["arm"].unique()]

    def missing(self) -> dict[str, int]:
        """Arms whose every depth should have been trained over all seeds and was not -> seeds at the last depth."""
        most = self.seeds if self.study.stop is not None else self.study.seeds
        found = {}
        for arm in self.study.arms:
            own = self.metrics[self.metrics["arm"] == arm]
            depths = self.study.procedure(arm).depths
            if len(own) < most * len(depths):
                found[arm] = int((own["depth"] == depths[-1]).sum())
        return found

    def intact(self, arm: str, depth: int, metric: str) -> np.ndarray:
        """A score over the seeds that are intact, ``(n,)``."""
        return self.intact_of(self.metrics[self.metrics["depth"] == depth], arm, metric)

    def left(self) -> pd.DataFrame:
        """The networks that arms leave at their last depth, one row per arm and seed; fine-tuned where they are."""
        finished = comparison.finished(self.metrics)
        return finished[finished["depth"] == finished.groupby("arm")["depth"].transform("max")]

    @staticmethod
    def intact_of(rows: pd.DataFrame, arm: str, metric: str) -> np.ndarray:
        """A score over the intact seeds of an arm, ``(n,)``, of rows of one network an arm."""
        own = rows[rows["arm"] == arm]
        values = own.loc[statistics.intact(own, metric), metric].to_numpy(float)
        return values[np.isfinite(values)]

    @property
    def unit(self) -> str:
        """The score that answers the study, with its unit."""
        return f"test {self.named} (share of {'rows' if self.score == 'accuracy' else 'variance'})"

    @property
    def named(self) -> str:
        """The score that answers the study, as it is written."""
        return statistics.SCORE_NAMES[self.score]

    def leaks(self) -> list[tuple[str, int, float]]:
        """Arms and depths whose mean test accuracy is above what the best possible rule scores, where that is known."""
        names = [name for name in ("test_accuracy_mean", "fine_tuned_test_accuracy_mean") if name in self.table]
        return [
            (str(row["arm"]), int(row["depth"]), float(row[name]))
            for row in (self.table.to_dict("records") if self.has_best_rule else ())
            for name in names
            if row[name] > BEST_RULE
        ]

    @property
    def has_best_rule(self) -> bool:
        """Whether the test rows are those of the tutorial, on which the score of the best rule is known."""
        said, known = self.study.data.canonical(), TUTORIAL.canonical()
        return all(said.get(key) == known[key] for key in known if key not in {"labels", "scaling"})
