"""The order in which each epoch visits its rows; the next depth's is drawn while a stage trains.

A draw depends on its key alone, and the key of the next depth's stage is known before it begins. So the draw costs no
time there: a program that runs compiled leaves a core, and NumPy's permutations leave the interpreter, free.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from layerwise import streams

AHEAD_BYTES = 16 * 2**20
"""Of an order that is drawn ahead, at most; a larger one takes its time where it is wanted, and memory once."""


@dataclass(frozen=True)
class Order:
    """What decides an order.

    Attributes:
        seeds: of the block.
        stage: the stage's name, which keys its streams.
        depth: of the network that it trains.
        epochs: how often the rows are visited.
    """

    seeds: tuple[int, ...]
    stage: str
    depth: int
    epochs: int

    def drawn(self, rows: np.ndarray) -> np.ndarray:
        """``(seeds, epochs, n)`` int32: each seed's rows in each epoch's order, from its ``order`` stream.

        Args:
            rows: ``(seeds, n)`` int32, the rows of each seed.
        """
        return np.stack([
            streams.generator(seed, "order", self.stage, self.depth).permuted(np.tile(own, (self.epochs, 1)), axis=1)
            for seed, own in zip(self.seeds, rows, strict=True)
        ])  # fmt: skip


class _Ahead:
    """At most one order for each stage's name, drawn or being drawn by a thread of its own."""

    def __init__(self) -> None:
        self._drawing: dict[str, tuple[Order, np.ndarray, Future[np.ndarray]]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, order: Order, rows: np.ndarray) -> None:
        """Have an order drawn."""
        # Made by the first who asks: a process that forks after its imports would lose a thread.
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="orders")
        self._drawing[order.stage] = (order, rows, self._thread.submit(order.drawn, rows))

    def take(self, order: Order, rows: np.ndarray) -> Callable[[], np.ndarray] | None:
        """What gives the order, if it is this one of these very rows that was begun."""
        begun = self._drawing.pop(order.stage, None)
        if begun is None or begun[0] != order or begun[1] is not rows:
            return None
        return begun[2].result


_AHEAD = _Ahead()


def order(asked: Order, rows: np.ndarray, *, following: Order | None = None) -> np.ndarray:
    """An order, which may have been drawn already; begins the one that will be wanted next.

    Args:
        asked: which.
        rows: ``(seeds, n)`` int32, the rows of each seed, which stay as they are.
        following: the one that is wanted next, of the same rows, if there is one.

    Returns:
        ``(seeds, epochs, n)`` int32.

    Example:
        >>> rows = np.tile(np.arange(4, dtype=np.int32), (2, 1))
        >>> first, second = (Order((0, 1), "add_layer", depth, epochs=3) for depth in (2, 3))
        >>> order(first, rows, following=second).shape
        (2, 3, 4)
        >>> bool((order(second, rows) == second.drawn(rows)).all())
        True
    """
    given = (_AHEAD.take(asked, rows) or (lambda: asked.drawn(rows)))()
    if following is not None and rows.nbytes * following.epochs <= AHEAD_BYTES:
        _AHEAD.begin(following, rows)
    return given
