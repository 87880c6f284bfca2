"""The other half of a run: its MLflow runs, open while it trains, and what is sent to them meanwhile and at its end.

Training never waits for the tracker. What cannot be sent stays where it is anyway, in the results on disk: at the end
it is read from there and sent again, for as long as one can wait; what is then still missing the next run sends.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from prefect import allow_failure
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import quote

from flows import environment, progress
from flows.trained import Outcome, Trained, reason, unpublished_noted
from layerwise import pretraining
from layerwise.datasets import Data
from layerwise.stages import Block, Depth
from layerwise.study import Study
from tasks import training
from tasks.publishing import Summary, close_tree, open_tree, publish_depths, publish_summary, register_model
from tasks.tracking.runs import RunTree, Status
from tasks.tracking.store import TrackerAway, answers

SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds between two tries to reach a tracker that is away, while training goes on; each pause is twice the last."""

PATIENCE = 60.0
"""Seconds that a run waits at its end for a tracker that is away."""

LOOK = 1.0
"""Seconds between two looks at whether it is back."""

T = TypeVar("T")

Place = tuple[str, int]
"""A block by its arm and first seed."""


@contextmanager
def published(study: Study, repeat: str, data: Data, trained: Trained) -> Generator[Publishing]:
    """The study's MLflow runs, open while the body runs and closed however it ends, if the tracker is there then."""
    publishing = Publishing(study, repeat, data, trained)
    try:
        yield publishing
        with unpublished_noted(trained):
            # A study that is FINISHED is answered from its runs, so whatever they lack must keep them from it.
            publishing.close("FAILED" if trained.unpublished else "FINISHED", patiently=True)
    except Exception:
        with unpublished_noted(trained):
            publishing.close("FAILED")
        raise
    except BaseException:  # Ctrl-C, a signal to end, or Prefect's server is gone: the next run goes on from here
        with unpublished_noted(trained):
            publishing.close("KILLED")
        raise


class Publishing:
    """Sends what has been trained, one batch at a time: whatever waits when the one before is through."""

    def __init__(self, study: Study, repeat: str, data: Data, trained: Trained) -> None:
        self.study, self.repeat, self.data, self.trained = study, repeat, data, trained
        self.tree: RunTree | None = None
        self.seeds = self.opened = 0  # that are to have runs; whose runs are known to be open
        self.waiting: list[Depth] = []
        self.kept: dict[Place, tuple[Block, int]] = {}  # what could not be sent, up to which depth
        self.under_way: PrefectFuture[Any] | None = None
        self.sending: list[Depth] = []
        self.sent: list[PrefectFuture[Any]] = []
        self.absence = _Absence()

    def open(self, seeds: int) -> None:
        """Have the runs of so many seeds of every arm; they are ours and RUNNING until closed.

        Before anything is trained this is waited for, so that a store which refuses us ends the run in time.
        """
        self.seeds, first = seeds, not self.seeds
        if first:
            try:
                self._open()
            except TrackerAway as away:
                self._miss(away)

    def add(self, depth: Depth) -> None:
        """Take in one depth, and send if nothing is on its way."""
        self._settle()
        self.waiting.append(depth)
        self._keep([])
        self._begin()

    def finish(self, outcome: Outcome) -> Outcome:
        """Send the rest, wait for all, publish what the run comes to, and register its model.

        What could not be sent is noted, and keeps the model from the registry.
        """
        self._send_rest()
        steps: list[Callable[[], object]] = [
            partial(self._send_kept, block, highest) for block, highest in self.kept.values()
        ]
        summary = self.trained.summary(outcome)
        if summary is not None:
            steps.append(partial(self._send_summary, outcome.study, summary))
        bar = progress.begin("publishing", len(steps), "batches") if self.kept else None
        for step in steps:
            with unpublished_noted(self.trained):
                self._insist(step)
            if self.absence.reason:
                return outcome
            if bar is not None:
                bar.advance("what had waited")
        return outcome if summary is None else self._registered(outcome, summary)

    def _registered(self, outcome: Outcome, summary: Summary) -> Outcome:
        if summary.to_register is None or self.trained.unpublished:
            return outcome
        with unpublished_noted(self.trained):
            return dataclasses.replace(
                outcome, registered=self._insist(partial(self._register, outcome.study, summary))
            )
        return outcome

    def close(self, status: Status, *, patiently: bool = False) -> None:
        """Close the runs, unless the tracker is known to be away; those of arms that failed are FAILED.

        A run that ends before its time starts no more tasks, for which Prefect might not be there.
        """
        if self.tree is None or (self.absence.reason and not answers(environment.root())):
            return
        failed = sorted({place.partition(",")[0] for place in self.trained.failures})
        if patiently:
            self._insist(partial(close_tree, self.tree, status, failed))
        else:
            close_tree.fn(self.tree, status, failed)

    def _insist(self, step: Callable[[], T]) -> T:
        """Take a step; while the tracker is away, wait for it and take the step again, as long as patience lasts."""
        while True:
            try:
                taken = step()
            except TrackerAway as away:
                self._miss(away)
                if not self.absence.ends():
                    raise
            else:
                self.absence.over()
                return taken

    def _open(self) -> None:
        if self.opened < self.seeds:
            self._take_up(open_tree(self.study, self.repeat, self.seeds))

    def _take_up(self, tree: RunTree) -> None:
        self.tree, self.opened = tree, len(tree.seed_run_ids) // len(tree.arm_run_ids)

    def _miss(self, why: BaseException) -> None:
        """The tracker is away: the runs are opened again before anything else is sent."""
        self.opened = 0
        self.absence.begin(why)

    def _begin(self) -> None:
        """Put the next thing on its way, if nothing is."""
        if self.under_way is not None:
            return
        if self.opened < self.seeds and not self.absence.pausing():
            self.under_way = open_tree.submit(self.study, self.repeat, self.seeds)
        elif self.opened < self.seeds:
            self._keep(self.waiting)
        elif self.waiting:
            first = _place(self.waiting[0])  # where arms grow, the depths of several blocks alternate
            self.sending = [depth for depth in self.waiting if _place(depth) == first]
            self.waiting = [depth for depth in self.waiting if _place(depth) != first]
            self.under_way = self._submit(self.sending)

    def _settle(self, timeout: float | None = 0) -> None:
        """Take in how what was on its way has ended, if it has, or does within so many seconds."""
        if self.under_way is None:
            return
        try:  # its state would be asked of Prefect's server, which training does not wait for
            ended = self.under_way.result(timeout=timeout, raise_on_failure=False)
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001 - of Prefect's engine, around the task
            ended = error
        batch, self.under_way, self.sending = self.sending, None, []
        if isinstance(ended, RunTree):
            self._take_up(ended)
        elif isinstance(ended, BaseException):
            self._keep(batch or self.waiting)
            if not batch or isinstance(ended, TrackerAway):
                self._miss(ended)
        else:
            self.absence.over()

    def _keep(self, depths: list[Depth]) -> None:
        """Leave the blocks of some depths, with whatever else waits of them, to be sent from the results at the end.

        All of a block, and in its order, for a seed is tagged with the first depth at which it collapsed.
        """
        places = {*self.kept, *map(_place, depths)}
        for depth in [*depths, *self.waiting]:
            if _place(depth) in places:
                self.kept[_place(depth)] = depth.block, depth.depth
        self.waiting = [depth for depth in self.waiting if _place(depth) not in places]

    def _send_rest(self) -> None:
        """Send what waits, unless the tracker is away."""
        if self.under_way is None and not self.waiting:
            return
        blocks = len({_place(depth) for depth in self.waiting})
        bar = progress.begin("publishing", len(self.sent) + blocks, "batches")
        for _ in range(len(self.sent) - bool(self.sending)):
            bar.advance("models and metrics")
        while self.under_way is not None or self.waiting:
            self._begin()
            if self.under_way is not None:
                sends = bool(self.sending)
                self._settle(timeout=None)
                if sends and not self.absence.reason:
                    bar.advance("models and metrics")

    def _send_kept(self, block: Block, highest: int) -> None:
        self._open()
        self._submit(list(_stored(block, self.data, highest))).result()

    def _send_summary(self, study: Study, summary: Summary) -> None:
        self._open()
        sent = [allow_failure(future) for future in self.sent]
        publish_summary(quote(self.tree), quote(study), quote(self.data), quote(summary), wait_for=sent)

    def _register(self, study: Study, summary: Summary) -> str | None:
        self._open()
        return register_model(  # ty: ignore[no-matching-overload] - as below
            quote(self.tree), quote(study), self.repeat, quote(self.data), quote(summary)
        )

    def _submit(self, depths: list[Depth]) -> PrefectFuture[None]:
        # Quoted, as in tasks/training.py: the graph shows which scores are sent, and no other edge.
        scores = [depth.evaluation.digest for depth in depths]
        sent = publish_depths.submit(  # ty: ignore[no-matching-overload] - nor do they know quoted arguments
            quote(self.tree), quote(depths), quote(self.data), self.study.track.models, _label(depths), wait_for=scores
        )
        self.sent.append(sent)
        return sent


class _Absence:
    """Whether a tracker is away, and how patient one is with it."""

    def __init__(self) -> None:
        self.reason = ""
        self.pause, self.next_try = SHORTEST_PAUSE, 0.0
        self.deadline: float | None = None

    def begin(self, why: BaseException) -> None:
        """It is, or still is, away."""
        if not self.reason:
            progress.tell(f"Not published for now: {reason(why)}. What is trained waits on disk.")
        self.reason = reason(why)
        self.next_try = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def over(self) -> None:
        """It takes what is sent."""
        if self.reason:
            progress.tell("The tracking store answers again.")
        self.__init__()

    def pausing(self) -> bool:
        """Whether it is too early for another try."""
        return time.monotonic() < self.next_try

    def ends(self) -> bool:
        """Wait for it, as long as patience lasts; returns whether it is there."""
        if self.deadline is None:
            self.deadline = time.monotonic() + PATIENCE
            progress.tell(f"Waiting for the tracking store, {PATIENCE:.0f} s at most.")
        while time.monotonic() < self.deadline:
            time.sleep(LOOK)
            if answers(environment.root()):
                return True
        return False


def _stored(block: Block, data: Data, highest: int) -> Iterator[Depth]:
    """The depths of a block up to one that has been trained: Prefect finds the results of all their stages."""
    for depth in pretraining.depths(block, data, steps=training):
        yield depth
        if depth.depth >= highest:  # the next would be trained
            return


def _place(depth: Depth) -> Place:
    return depth.block.arm, depth.block.seeds[0]


def _label(depths: list[Depth]) -> str:
    block, first, last = depths[0].block, depths[0].depth, depths[-1].depth
    span = f"depth {first}" if first == last else f"depths {first}-{last}"
    return f"{block.arm} seeds {block.seeds[0]}-{block.seeds[-1]}: {span}"
