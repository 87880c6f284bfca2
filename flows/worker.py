"""``layerwise worker``: processes that train for the runs of others, in the environment that these runs expect."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from flows import environment
from flows.cluster import CONFIGURATION, PRELOAD, SCHEDULER, Scale, no_answer, share_of_memory
from flows.printing import DONE, FAILED, Terminal, refuse, say
from layerwise import sizes
from tasks.scratch import own_place

if TYPE_CHECKING:
    from distributed import Nanny, Worker

_held = ExitStack()
"""What a worker has for as long as it is there."""


def worker_command(address: str, *, workers: int | None, root: Path) -> int:
    """Train for a scheduler until it ends, or Ctrl-C. Returns the exit status.

    Args:
        address: of the scheduler.
        workers: how many processes; one for each core, if left out.
        root: where results are, as the runs name it too.
    """
    environment.prepare(root)
    if reason := no_answer(address, "worker"):
        return refuse(f"no Dask scheduler answers at {address} ({reason}); start one, such as `{SCHEDULER}`.", FAILED)
    import dask

    with dask.config.set(CONFIGURATION):
        asyncio.run(_train_for(address, Scale(workers=workers).processes, Terminal()))
    return DONE


def dask_setup(_worker: Worker) -> None:
    """What every worker does first, as Dask's preload: leave Ctrl-C, which its terminal sends all, to its command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _held.enter_context(own_place())


def dask_teardown(_worker: Worker) -> None:
    """What every worker does last."""
    _held.close()


async def _train_for(address: str, number: int, console: Console) -> None:
    memory = share_of_memory(number)
    nannies = await asyncio.gather(*(_nanny(address, memory) for _ in range(number)))
    results = environment.results_folder(environment.root())
    what = f"{number} {'worker' if number == 1 else 'workers'}, {sizes.in_words(memory)} of memory each"
    say(f"{what}, for {address}; results in {results}. Ctrl-C ends them.", console)
    try:
        await asyncio.gather(*(nanny.finished() for nanny in nannies))
    finally:
        await asyncio.gather(*(nanny.close(timeout=1) for nanny in nannies))


async def _nanny(address: str, memory: int) -> Nanny:
    import logging

    from distributed import Nanny
    from distributed.utils import get_ip

    scheduler = urlsplit(address)
    return await Nanny(
        address,
        nthreads=1,
        memory_limit=memory,
        # Where the scheduler is reached from: for one on loopback, that is loopback.
        host=get_ip(scheduler.hostname, scheduler.port),
        dashboard=False,
        preload=[PRELOAD],
        silence_logs=logging.CRITICAL,
        local_directory=str(environment.workers_folder(environment.root())),
    )
