"""The main path: a study as a Prefect flow.

    data -> for each arm, for each block of seeds:
                base -> evaluate -> (add layer -> evaluate) x depth, with a head and fine tuning where the arm asks
         -> decide the claims -> summarise and draw

Training goes on in this thread; what is trained is published from another, so that neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from prefect import allow_failure, flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows import progress
from layerwise import answers, datasets, pretraining, stages, statistics
from layerwise.claims import Verdicts, decide
from layerwise.datasets import Data
from layerwise.stages import Block, Depth
from layerwise.study import Study
from tasks import training
from tasks.publishing import Summary, close_tree, open_tree, publish_depths, publish_summary
from tasks.tracking.runs import RunTree


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

    def curves_by_depth(self) -> dict[str, dict[int, np.ndarray]]:
        """Arm -> depth -> ``(seeds, epochs)`` loss curves."""
        return {
            arm: {depth: np.concatenate(parts) for depth, parts in depths.items()}
            for arm, depths in self.curves.items()
        }


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


def _flow_run_name() -> str:
    """The study and its repeat, as its MLflow runs are named."""
    asked = flow_run.parameters
    return " · ".join(filter(None, [asked["study"].name, asked.get("repeat")]))


@flow(  # ty: ignore[no-matching-overload] - Prefect's types want a runner of futures of one type
    name="study",
    flow_run_name=_flow_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
    validate_parameters=True,
)
def run_study(study: Study, repeat: str = "") -> Outcome:
    """Train every arm of a study over every seed, track each depth, and summarise.

    Args:
        study: what to train.
        repeat: the name of a deliberate repeat; empty to continue or complete the study's own run.
    """
    trained = Trained()
    data = training.generate_data(study.data)
    datasets.check_seeds(study, data)
    _check_functions(study)
    with tracked(study, repeat, trained) as tree:
        bar = progress.begin(
            "training", sum(len(study.procedure(arm).depths) for arm in study.arms) * len(study.blocks())
        )
        publishing = Publishing(tree, data, study)
        for arm in study.arms:
            for block in stages.blocks(study, arm, data.digest, repeat):
                with failures_noted(trained, block):
                    for depth in pretraining.depths(block, data, steps=training):
                        trained.add(depth)
                        publishing.add(depth)
                        bar.advance(f"{arm}, seeds {block.seeds[0]}-{block.seeds[-1]}, depth {depth.depth}")
        trained.unpublished += publishing.finish()
        metrics = pd.DataFrame(trained.records)
        table = statistics.summarise(metrics) if len(metrics) else None
        verdicts = decide(study, metrics) if study.claims and not trained.failures else None
        if table is not None:
            with unpublished_noted(trained):
                curves, sent = trained.curves_by_depth(), [allow_failure(future) for future in publishing.sent]
                said = verdicts.as_json() if verdicts else None
                summary = Summary(metrics, table, curves, trained.finished, trained.examples, said)
                publish_summary(quote(tree), quote(study), quote(data), quote(summary), wait_for=sent)
    return Outcome(table, metrics, trained.failures, trained.unpublished, verdicts)


def _check_functions(study: Study) -> None:
    """Refuse functions of the user's own that make no layers; only a study that names some loads Keras for it here."""
    if study.functions:
        from layerwise import models

        models.check_functions(study)


class Publishing:
    """Sends what has been trained, one batch at a time: whatever waits when the one before is through."""

    def __init__(self, tree: RunTree, data: Data, study: Study) -> None:
        self.tree, self.data, self.study = tree, data, study
        self.waiting: list[Depth] = []
        self.sent: list[PrefectFuture[None]] = []

    def add(self, depth: Depth) -> None:
        """Take in one depth, and send if nothing is on its way or a new block begins."""
        if self.waiting and self.waiting[0].block != depth.block:
            self._send()
        self.waiting.append(depth)
        if not self.sent or self.sent[-1].state.is_final():
            self._send()

    def finish(self) -> list[str]:
        """Send the rest and wait for all; returns one line for each batch that could not be sent."""
        self._send()
        bar = progress.begin("publishing", len(self.sent))
        problems = []
        for future in self.sent:
            outcome = future.result(raise_on_failure=False)
            if isinstance(outcome, BaseException):
                problems.append(in_one_line(outcome))
            bar.advance("models and metrics")
        return problems

    def _send(self) -> None:
        if not self.waiting:
            return
        block, first, last = self.waiting[0].block, self.waiting[0].depth, self.waiting[-1].depth
        span = f"depth {first}" if first == last else f"depths {first}-{last}"
        label = f"{block.arm} seeds {block.seeds[0]}-{block.seeds[-1]}: {span}"
        models = self.study.track.models
        # Quoted, as in tasks/training.py: the graph shows which scores are sent, and no other edge.
        scores = [depth.evaluation.digest for depth in self.waiting]
        sent = publish_depths.submit(  # ty: ignore[no-matching-overload] - nor do they know quoted arguments
            quote(self.tree), quote(self.waiting), quote(self.data), models, label, wait_for=scores
        )
        self.sent.append(sent)
        self.waiting = []


@contextmanager
def tracked(study: Study, repeat: str, trained: Trained) -> Generator[RunTree]:
    """The study's MLflow runs, open while the body runs and closed however it ends."""
    tree = open_tree(study, repeat)
    try:
        yield tree
    except Exception:
        with unpublished_noted(trained):
            close_tree(tree, "FAILED")
        raise
    except BaseException:  # Ctrl-C, or a signal to end: the next run takes over where this one stopped
        with unpublished_noted(trained):
            close_tree.fn(tree, "KILLED")
        raise
    failed = sorted({name.partition(",")[0] for name in trained.failures})
    with unpublished_noted(trained):
        # A study that is FINISHED is answered from its runs, so whatever they lack must keep them from it.
        close_tree(tree, "FAILED" if trained.unpublished else "FINISHED", failed)


@contextmanager
def failures_noted(trained: Trained, block: Block) -> Generator[None]:
    """One failing block does not stop the others: it is noted, and fails the run at its end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever stops one block need not stop another
        trained.failures[f"{block.arm}, seeds {block.seeds[0]}-{block.seeds[-1]}"] = in_one_line(error)


@contextmanager
def unpublished_noted(trained: Trained) -> Generator[None]:
    """What cannot be published does not cost the answer: it is noted, and the next run sends it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever keeps it from MLflow, the results are on disk
        trained.unpublished.append(in_one_line(error))


def in_one_line(error: BaseException) -> str:
    """An error's kind and message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
