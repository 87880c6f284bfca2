"""The other half of a run: its MLflow runs, open while it trains, and what is sent to them meanwhile and at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager

from prefect import allow_failure
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from flows import progress
from flows.printing import in_one_line
from flows.trained import Outcome, Trained, unpublished_noted
from layerwise.datasets import Data
from layerwise.stages import Depth
from layerwise.study import Study
from tasks.publishing import Summary, close_tree, open_tree, publish_depths, publish_summary, register_chosen
from tasks.tracking.runs import RunTree, Status


@contextmanager
def published(study: Study, repeat: str, data: Data, trained: Trained) -> Generator[Publishing]:
    """The study's MLflow runs, open while the body runs and closed however it ends."""
    publishing = Publishing(study, repeat, data, trained)
    try:
        yield publishing
    except Exception:
        with unpublished_noted(trained):
            publishing.close("FAILED")
        raise
    except BaseException:  # Ctrl-C, or a signal to end: the next run takes over where this one stopped
        with unpublished_noted(trained):
            publishing.close("KILLED")
        raise
    with unpublished_noted(trained):
        # A study that is FINISHED is answered from its runs, so whatever they lack must keep them from it.
        publishing.close("FAILED" if trained.unpublished else "FINISHED")


class Publishing:
    """Sends what has been trained, one batch at a time: whatever waits when the one before is through."""

    def __init__(self, study: Study, repeat: str, data: Data, trained: Trained) -> None:
        self.study, self.repeat, self.data, self.trained = study, repeat, data, trained
        self.tree: RunTree | None = None
        self.waiting: list[Depth] = []
        self.sent: list[PrefectFuture[None]] = []

    def open(self, seeds: int) -> None:
        """Open the runs of so many seeds of every arm; they are ours and RUNNING until closed."""
        self.tree = open_tree(self.study, self.repeat, seeds)

    def add(self, depth: Depth) -> None:
        """Take in one depth, and send if nothing is on its way or a new block begins."""
        if self.waiting and self.waiting[0].block != depth.block:
            self._send()
        self.waiting.append(depth)
        if not self.sent or self.sent[-1].state.is_final():
            self._send()

    def finish(self, outcome: Outcome) -> Outcome:
        """Send the rest, wait for all, publish what the run comes to, and register the model that was chosen.

        What could not be sent is noted, and keeps the model from the registry.
        """
        self._send()
        bar = progress.begin("publishing", len(self.sent))
        for future in self.sent:
            ended = future.result(raise_on_failure=False)
            if isinstance(ended, BaseException):
                self.trained.unpublished.append(in_one_line(ended))
            bar.advance("models and metrics")
        summary, sent = self.trained.summary(outcome), [allow_failure(future) for future in self.sent]
        if summary is None:
            return outcome
        with unpublished_noted(self.trained):
            publish_summary(quote(self.tree), quote(outcome.study), quote(self.data), quote(summary), wait_for=sent)
        return self._registered(outcome, summary)

    def _registered(self, outcome: Outcome, summary: Summary) -> Outcome:
        if summary.chosen is None or self.trained.unpublished:
            return outcome
        with unpublished_noted(self.trained):
            version = register_chosen(  # ty: ignore[no-matching-overload] - as below
                quote(self.tree), quote(outcome.study), self.repeat, quote(self.data), quote(summary)
            )
            return dataclasses.replace(outcome, registered=version)
        return outcome

    def close(self, status: Status) -> None:
        """Close the runs; those of arms that failed are FAILED."""
        failed = sorted({place.partition(",")[0] for place in self.trained.failures})
        # A run that was told to end starts no more tasks.
        close = close_tree.fn if status == "KILLED" else close_tree
        if self.tree is not None:
            close(self.tree, status, failed)

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
