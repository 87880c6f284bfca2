"""Where the workers are that train for a run: a Dask cluster on this machine for as long as it takes, or one elsewhere.

What Dask's processes say to each other they unpickle, so the cluster that a run starts listens on loopback alone and
speaks TLS, with a key that is new each time: loopback is open to every user of the machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, PositiveInt

from flows import environment, progress
from flows.server import STOP_TIMEOUT, deliver
from layerwise import sizes
from layerwise.study import Study, StudyError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster
    from prefect_dask import DaskTaskRunner

LOOPBACK = "127.0.0.1"

SCHEDULER = "dask scheduler --host 127.0.0.1 --dashboard-address 127.0.0.1:0"
"""What starts a scheduler of Dask that nobody beyond this machine reaches."""

PRELOAD = "flows.worker"
"""The module that every worker loads first."""

ALLOWED_DEATHS = 3
"""How many workers may die of one group of blocks before it is given up."""

PATIENCE = 60.0
"""Seconds that a cluster may be without any worker."""

ANSWER = 5.0
"""Seconds in which a scheduler answers."""

CONFIGURATION = {
    # No pages: whoever reads them would have to be asked who they are.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # One group of blocks at a time: a worker that dies has no second one that would count as its victim.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
    # A worker that is gone is known by its connection; one that compiles for long may say nothing meanwhile.
    "distributed.scheduler.worker-ttl": None,
    # What a worker holds are the libraries and its block: neither can be written to disk, and waiting frees none.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


class WorkersGone(BaseException):
    """No worker is left, or no scheduler; not an ``Exception``, since one block after the other would fail."""


class Scale(BaseModel):
    """Which workers train a study.

    Attributes:
        workers: how many processes of this machine; one for each core, if left out.
        address: of a Dask scheduler whose workers train instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: PositiveInt | None = None
    address: str | None = None

    @property
    def processes(self) -> int:
        """How many processes of this machine train."""
        from dask.system import CPU_COUNT

        return self.workers or CPU_COUNT

    def refuse(self, study: Study) -> None:
        """Refuse, before anything starts, what cannot go well.

        Raises:
            StudyError: in one line.
        """
        if self.address is None:
            refuse_too_many(study, self.processes)
        elif not is_loopback(self.address):
            _refuse_what_only_this_machine_has(self.address)


def is_loopback(address: str) -> bool:
    """Whether a URL is of this machine alone."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_what_only_this_machine_has(address: str) -> None:
    """Refuse a cluster elsewhere without a server and a folder that were named for it."""
    where, url = f"--address {address}: workers elsewhere", os.environ.get("PREFECT_API_URL", "")
    if not url or is_loopback(url):
        raise environment.EnvironmentProblem(
            f"{where} need a Prefect server that they can reach, and PREFECT_API_URL is {url or 'unset'}; set it to the"
            " URL of one that is not on loopback."
        )
    if not os.environ.get("LAYERWISE_ROOT"):
        raise environment.EnvironmentProblem(
            f"{where} need a folder for results that all can reach, and LAYERWISE_ROOT is unset; set it to a shared"
            " folder that has the same path everywhere."
        )


def share_of_memory(workers: int) -> int:
    """Bytes that each of so many workers may have: the process that starts them takes a share too."""
    return sizes.machine_bytes() // (workers + 1)


def refuse_too_many(study: Study, workers: int) -> None:
    """Refuse a study of which one block needs more memory than a worker may have.

    Raises:
        StudyError: with both numbers, and how many workers have room for it.
    """
    needed, each = sum(sizes.estimated_bytes(study, study.data.shape()).values()), share_of_memory(workers)
    if needed <= each:
        return
    fits = sizes.machine_bytes() // needed - 1
    remedy = f"--workers {fits}" if fits > 0 else "--runner local"
    raise StudyError(
        f"{study.name}: a block would need about {sizes.in_words(needed)} of memory, and each of {workers} workers may"
        f" have {sizes.in_words(each)} here; use {remedy}."
    )


@dataclass
class Cluster:
    """Workers to hand tasks to, while they are there.

    Attributes:
        runner: hands them tasks.
        workers: the addresses of those that were there at the last look.
        lost: whether one has gone.
        empty_since: when there began to be none.
    """

    runner: DaskTaskRunner
    workers: set[str] = field(default_factory=set)
    lost: bool = False
    empty_since: float | None = None

    @property
    def size(self) -> int:
        """How many workers there are, by their number when it was last looked at."""
        return len(self.workers)

    def look(self) -> None:
        """See which workers are there, and say when one has gone.

        Raises:
            WorkersGone: if there has been none for too long.
        """
        there = self._there()
        if self.workers - there:
            self.lost = True
            progress.tell("A worker has gone; its block goes on elsewhere, from the stages that are stored.")
        self.workers, now = there, time.monotonic()
        self.empty_since = None if there else self.empty_since or now
        if self.empty_since is not None and now - self.empty_since > PATIENCE:
            raise WorkersGone(f"No worker has been there for {PATIENCE:.0f} s; start some, and run again.")

    def _there(self) -> set[str]:
        """The addresses of the workers; those of the last look where the scheduler does not answer."""
        try:
            return set(workers_of(self.runner.client))
        except OSError:  # it has gone, which whoever waits for a block is told
            return self.workers

    def deliver(self) -> None:
        """Have the workers send what they still have to report to Prefect, and report those that cannot any more."""
        import distributed

        from flows.crashed import close_crashed_tasks

        # As tasks, since Prefect waits in threads only; each on the worker that has the thread.
        sent = [self.runner.client.submit(deliver, workers=[worker], pure=False) for worker in self.workers]
        with suppress(Exception):  # what Prefect's pages show is not worth a run
            distributed.wait(sent, timeout=2 * STOP_TIMEOUT)
            if self.lost:
                close_crashed_tasks()


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What is known of each worker of a cluster, by its address.

    Asked of the scheduler itself: what the client remembers for ``scheduler_info`` it overwrites every two seconds with
    an answer that lists no worker, at times between asking and reading.

    Raises:
        OSError: if the scheduler does not answer.
    """
    if client.scheduler is None:  # it has been closed, for want of an answer
        raise OSError("the connection to the scheduler is closed")
    return client.sync(client.scheduler.identity, n_workers=-1)["workers"]


@contextmanager
def opened(scale: Scale, most: int) -> Generator[Cluster]:
    """The cluster, with no more workers of this machine than ``most``, of use while the body runs."""
    from prefect_dask import DaskTaskRunner

    if scale.address is not None:
        runner = DaskTaskRunner(address=scale.address, client_kwargs={"timeout": ANSWER})
    else:
        workers, memory = min(scale.processes, most), share_of_memory(scale.processes)
        runner = DaskTaskRunner(cluster_class=lambda: _local_cluster(workers, memory))
    with runner:
        cluster = Cluster(runner)
        cluster.look()
        yield cluster
        cluster.deliver()


def _local_cluster(workers: int, memory: int) -> LocalCluster:
    import dask
    from distributed import LocalCluster

    with dask.config.set(CONFIGURATION):
        return LocalCluster(
            host=LOOPBACK,
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory,
            security=True,
            preload=[PRELOAD],
            dashboard_address=f"{LOOPBACK}:0",  # without one, Dask takes port 8787, and warns where it is taken
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            local_directory=str(environment.workers_folder(environment.root())),
        )


def no_answer(address: str, role: Literal["client", "worker"] = "client") -> str:
    """Why no Dask scheduler answers at an address, in a line; empty where one does.

    Args:
        address: of the scheduler.
        role: as whom it is asked, which decides the certificate that Dask shows where it speaks TLS.
    """
    try:
        asyncio.run(_identity(address, role))
    except (OSError, TimeoutError) as error:
        return " ".join(str(error).split()) or f"silence for {ANSWER:.0f} s"
    except TypeError:
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        return (
            f"Dask has no certificates for tls://; name them in {tls}CA_FILE, {tls}{role.upper()}__CERT and"
            f" {tls}{role.upper()}__KEY"
        )
    return ""


async def _identity(address: str, role: str) -> None:
    from distributed import Security, rpc

    shown = Security().get_connection_args(role)
    # Dask's own limits are for each of several steps, of which some have none.
    async with asyncio.timeout(ANSWER), rpc(address, connection_args=shown) as scheduler:
        await scheduler.identity(n_workers=0)
