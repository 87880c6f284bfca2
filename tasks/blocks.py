"""Blocks that train in another process: one Prefect task walks the stages of a group of blocks, there.

What travels there is small: the blocks, how deep their arms have grown, and where the user's own modules lie. Data and
stages are read from, and left in, the result folder that the flow names. Nothing travels back: whoever asked reads the
stages there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from prefect import Task, tags

from layerwise import imported
from layerwise.growing import Growing
from layerwise.identity import library_versions
from layerwise.stages import Block
from layerwise.study import StudyError, digest_of
from tasks import owners, training
from tasks.causes import causes
from tasks.provenance import CHECKOUT, LOCK, PACKAGES, content_sha256
from tasks.results import StorageProblem

if TYPE_CHECKING:
    from layerwise.datasets import Data

_known: dict[str, Data] = {}


@dataclass(frozen=True)
class Group:
    """What a process needs to train some blocks.

    Attributes:
        blocks: those that train together.
        growing: how deep the arms of the study have grown.
        places: folders in which the user's own modules are looked for.
        surroundings: of the process that asks; those of the one that trains must be the same.
    """

    blocks: tuple[Block, ...]
    growing: Growing
    places: tuple[str, ...]
    surroundings: Surroundings

    @property
    def name(self) -> str:
        """Which blocks these are, in words."""
        return f"{self.blocks[0].arm} seeds {self.blocks[0].seeds[0]}-{self.blocks[-1].seeds[-1]}"


class BlockFailed(RuntimeError):
    """A group of blocks failed in another process; the message is the error there, in one line."""


def _train(group: Group) -> None:
    try:
        for place in group.places:
            imported.look_in(Path(place))
        _refuse_other(group.surroundings)
        with tags(owners.tag()):
            for _ in group.growing.depths(group.blocks, _data(group.blocks[0]), steps=training):
                _go_on_if_wanted()
    except Exception as error:  # noqa: BLE001 - whatever the user's functions raise
        raise _that_travels(error) from None


train = Task(_train, name="train block", task_run_name="{group.name}", persist_result=False)
"""Train a :class:`Group`; stages that are stored already are found."""


def _go_on_if_wanted() -> None:
    """End here if nobody waits for this group any more: Dask does not interrupt what it has begun."""
    import distributed

    worker = distributed.get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state == "cancelled":
        raise BlockFailed("nobody waits for it any more")


def _refuse_other(asked: Surroundings) -> None:
    """A process with other surroundings would store other bits under the same digests."""
    if differs := asked.difference(Surroundings.here(asked.variables, asked.functions)):
        raise StudyError(
            f"a worker is not as this process: {differs}; run again, with workers of your own started anew by"
            " `layerwise worker`, from the same code and packages."
        )


def _data(block: Block) -> Data:
    """The study's data, read once in a process."""
    if block.data_digest not in _known:
        _known.clear()
        _known[block.data_digest] = training.generate_data(block.data)
    return _known[block.data_digest]


def _that_travels(error: Exception) -> Exception:
    """An error as another process can read it: those that decide how a run goes on as they are, others as a line."""
    for found in causes(error):
        if isinstance(found, StorageProblem | StudyError):
            return type(found)(str(found))
        if isinstance(found, httpx.TransportError):
            return httpx.TransportError(str(found))
    return BlockFailed(f"{type(error).__name__}: {' '.join(str(error).split())}")


@dataclass(frozen=True)
class Surroundings:
    """What of a process decides the bits that it computes, or the digests under which it stores them.

    Attributes:
        variables: environment variables and their values; empty where one is not set.
        functions: import paths of the user's functions, and the digests of their code.
        installed: versions, and the digests of Layerwise's own code and of the lock file.
    """

    variables: dict[str, str]
    functions: dict[str, str]
    installed: dict[str, str]

    @classmethod
    def here(cls, variables: Iterable[str], functions: Iterable[str]) -> Surroundings:
        """Those of this process."""
        return cls(
            {name: os.environ.get(name, "") for name in variables},
            {path: imported.code_digest(path) for path in sorted(functions)},
            _installed(),
        )

    def difference(self, other: Surroundings) -> str:
        """The first difference to those of another process, in words; empty where there is none."""
        for what in ("installed", "variables", "functions"):
            ours, theirs = getattr(self, what), getattr(other, what)
            for name, value in ours.items():
                if theirs.get(name, "") != value:
                    return f"{name} is {theirs.get(name) or 'unset'} there and {value or 'unset'} here"
        return ""


@cache
def _installed() -> dict[str, str]:
    files = sorted(file for package in PACKAGES for file in (CHECKOUT / package).rglob("*.py"))
    return {
        "Python": platform.python_version(),
        **library_versions(),
        **{name: version(name) for name in ("prefect", "distributed")},
        "requirements.lock": content_sha256(LOCK)[:12],
        "the code of Layerwise": digest_of([content_sha256(file) for file in files])[:12],
    }
