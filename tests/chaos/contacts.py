"""Processes of a pool that touch a tracking store at the same moment, for the first time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

from flows import environment
from tests.studies import small

_barrier: Barrier | None = None

PATIENCE = 300.0
"""Seconds that the first process may wait for the last one to have loaded its libraries."""


def at_once(roots: Sequence[Path], uri: str = "") -> list[str]:
    """Have as many new processes as roots open their store at the same moment, each with runs of a study of its own.

    Args:
        roots: the root of each process; the same one often, or others.
        uri: ``MLFLOW_TRACKING_URI`` of all, if any.

    Returns:
        What went wrong in each, in a line; empty where nothing did.
    """
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(len(roots))
    with context.Pool(len(roots), _begin, (together, uri)) as pool:
        return pool.starmap(_contact, list(enumerate(map(str, roots))), chunksize=1)


def _begin(together: Barrier, uri: str) -> None:
    global _barrier  # noqa: PLW0603 - how a pool's workers are given what cannot travel with a task
    _barrier = together
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if uri:
        os.environ["MLFLOW_TRACKING_URI"] = uri


def _contact(number: int, root: str) -> str:
    from tasks.tracking.runs import close_runs, open_runs  # loads MLflow, before the moment
    from tasks.tracking.store import open_store

    study, place = small(name=f"study-{number}", seeds=2), Path(root)
    environment.prepare(place)
    assert _barrier is not None
    _barrier.wait(PATIENCE)
    try:
        client = open_store(place)
        tree = open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=place)
        close_runs(client, tree)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the trial is about
        return f"{type(error).__name__}: {error}"
    return ""
