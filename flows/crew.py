"""Who trains the blocks of a study: this process, one after the other, or the workers of a Dask cluster.

Either way the flow takes blocks in in the study's order, so that what is published, summed up and printed is the same.
Workers leave their stages in the result folder, where the flow reads them.

Two blocks that have stages in common, as arms with the same prefix have, do not train at once: the second begins when
the first has stored them.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from flows import environment
from flows.cluster import Cluster, Scale, WorkersGone, opened
from flows.survey import Survey
from layerwise import imported, pretraining
from layerwise.costs import STAGES
from layerwise.datasets import Data
from layerwise.growing import Growing
from layerwise.ledger import Ledger
from layerwise.stages import Block, Chain, Depth, Evaluation
from layerwise.study import StudyError
from tasks import training
from tasks.blocks import BlockFailed, Group, Surroundings, train
from tasks.results import ResultProblem, read_back

AHEAD = 2
"""Groups of blocks for each worker that are handed out at once: one to train, one to go on with."""

TICK = 0.5
"""Seconds between two looks at whether stages that others wait for are there, and at the workers."""

Blocks = tuple[Block, ...]


class Crew(Protocol):
    """Trains groups of blocks.

    Attributes:
        new: digests of what was not stored before, of the depths taken in so far at least.
    """

    new: set[str]

    def trained(self, groups: Sequence[Blocks], steps: Any) -> Iterator[tuple[Blocks, Iterator[Depth]]]:
        """Groups in their order, and their depths, which may raise what failed."""


@contextmanager
def at_work(scale: Scale | None, growing: Growing, data: Data) -> Generator[Crew]:
    """Whoever trains a study.

    Args:
        scale: the cluster; without one, this process.
        growing: the study while it trains.
        data: its data.
    """
    if scale is None:
        yield _Here(growing, data)
        return
    with ExitStack() as held:
        yield _Workers(scale, held, growing, data)


def ledger(scale: Scale | None) -> Ledger:
    """Notes the stages as they are trained here, or found where workers left them."""
    return Ledger(training if scale is None else _Found())


class _Here:
    def __init__(self, growing: Growing, data: Data) -> None:
        self.growing, self.data = growing, data
        self.new: set[str] = set()

    def trained(self, groups: Sequence[Blocks], steps: Any) -> Iterator[tuple[Blocks, Iterator[Depth]]]:
        noticing = _Noticing(steps, environment.results_folder(environment.root()), self.new)
        for blocks in groups:
            yield blocks, self.growing.depths(blocks, self.data, steps=noticing)


class _Noticing:
    """The same stages; of those that are not stored it is noticed that they are new."""

    def __init__(self, steps: Any, folder: Path, new: set[str]) -> None:
        self._steps, self._folder, self._new = steps, folder, new

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = getattr(self._steps, name)
        if name not in STAGES:
            return step

        def noticed(*arguments: Any) -> Any:
            if not (self._folder / arguments[-1]).is_file():
                self._new.add(arguments[-1])
            return step(*arguments)

        return noticed


class _Found:
    """The stages as workers left them; one that is damaged since is trained here."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = getattr(training, name)
        if name not in STAGES:
            return step

        def found(*arguments: Any) -> Any:
            try:
                return read_back(arguments[-1])
            except ResultProblem:
                return step(*arguments)

        return found


class _Digests(Survey):
    """The same stages as digests, of scores too."""

    def evaluate(self, block: Block, _data: Data, chain: Chain, _head: object, digest: str) -> Evaluation:
        self.met.append((len(chain), "evaluate", digest))
        return super().evaluate(block, _data, chain, _head, digest)


class _Workers:
    """Hands groups of blocks to the workers of a cluster.

    Attributes:
        under_way: what is with them, by its place among the groups.
        ended: what has ended there, or needs no training.
    """

    def __init__(self, scale: Scale, held: ExitStack, growing: Growing, data: Data) -> None:
        self.scale, self.held, self.growing, self.data = scale, held, growing, data
        self.cluster: Cluster | None = None
        self.folder = environment.results_folder(environment.root())
        self.new: set[str] = set()
        functions = growing.study.functions
        self.surroundings = Surroundings.here(environment.of_workers(environment.root()), functions)
        self.groups: Sequence[Blocks] = ()
        self.taken_in = 0
        self.waiting: list[int] = []
        self.under_way: dict[int, Any] = {}
        self.ended: dict[int, Any] = {}
        self.digests: dict[int, set[str]] = {}
        self.bell = threading.Event()

    def trained(self, groups: Sequence[Blocks], steps: Any) -> Iterator[tuple[Blocks, Iterator[Depth]]]:
        self.groups, self.taken_in, self.digests = groups, 0, {}
        self.waiting = list(range(len(groups)))
        for place, blocks in enumerate(groups):
            self.taken_in = place
            while place not in self.ended:
                self._begin()
                if place not in self.ended:
                    self._wait()
            yield blocks, self._depths(blocks, self.ended.pop(place), steps)

    def _depths(self, blocks: Blocks, future: Any, steps: Any) -> Iterator[Depth]:
        if future is not None:
            _raise_failure(future)
        yield from self.growing.depths(blocks, self.data, steps=steps)

    def _begin(self) -> None:
        """Hand out what can train now, as far as workers have room for it."""
        busy = set().union(*(self._missing(place) for place in self.under_way))
        for place in [place for place in self.waiting if self._is_settled(place)]:
            if len(self.under_way) >= self._room():
                return
            if not self._digests(place) & busy:
                self.waiting.remove(place)
                if missing := self._missing(place):
                    self.new |= missing
                    self.under_way[place] = self._submit(self.groups[place])
                    busy |= missing
                else:
                    self.ended[place] = None

    def _is_settled(self, place: int) -> bool:
        """Whether it is known how deep some blocks are to be, or they are those that settle it."""
        study, arm = self.growing.study, self.groups[place][0].arm
        if study.grow is None or self.growing.settles(self.groups[place]):
            return True
        return all(
            blocks[0].arm != study.root(arm)
            for blocks in self.groups[self.taken_in : place]
            if self.growing.settles(blocks)
        )

    def _digests(self, place: int) -> set[str]:
        """The stages that some blocks want, if they grow as deep as they may."""
        if place not in self.digests:
            survey, blocks = _Digests(self.folder, self.data), self.groups[place]
            walks = [self.growing.depths(blocks, self.data, steps=survey)]
            if self.growing.settles(blocks):
                walks = [pretraining.depths(block, self.data, steps=survey) for block in blocks]
            with suppress(StudyError):  # it is not settled how deep they grow, and said when they are taken in
                deque(itertools.chain(*walks), maxlen=0)
            self.digests[place] = {digest for _, _, digest in survey.met}
        return self.digests[place]

    def _missing(self, place: int) -> set[str]:
        return {digest for digest in self._digests(place) if not (self.folder / digest).is_file()}

    def _room(self) -> int:
        return AHEAD * (self._cluster().size or 1)

    def _cluster(self) -> Cluster:
        """The cluster, from when it is first needed."""
        if self.cluster is None:
            self.cluster = self.held.enter_context(opened(self.scale, len(self.groups)))
        return self.cluster

    def _submit(self, blocks: Blocks) -> Any:
        group = Group(blocks, self.growing, imported.places(), self.surroundings)
        future = self._cluster().runner.submit(train, {"group": group})
        future.wrapped_future.add_done_callback(lambda _: self.bell.set())
        return future

    def _wait(self) -> None:
        """Until a group has ended, or it is time to look again."""
        self.bell.wait(TICK)
        self.bell.clear()
        for place, future in list(self.under_way.items()):
            if future.wrapped_future.done():
                self.ended[place] = self.under_way.pop(place)
        self._cluster().look()


def _raise_failure(future: Any) -> None:
    """Raise what failed in a worker."""
    from distributed import CancelledError, KilledWorker

    try:
        future.result()
    except KilledWorker as killed:
        raise BlockFailed(
            f"the workers that trained it died, {killed.allowed_failures + 1} in a row; if memory ran out, give each"
            " more of it: --workers with a smaller number"
        ) from None
    except CancelledError:
        raise WorkersGone("The Dask cluster has gone; run again, and it goes on where it stopped.") from None
