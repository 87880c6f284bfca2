"""A Dask cluster that exists: it is asked, before work starts, whether its workers would store the same bits here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment
from flows.cluster import ANSWER, SCHEDULER, Scale, no_answer, workers_of
from flows.environment import EnvironmentProblem
from flows.launching import Unanswered
from flows.printing import FAILED, in_one_line
from flows.server import answers
from layerwise import imported, sizes
from layerwise.study import Study
from tasks.blocks import Surroundings
from tasks.provenance import processor

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class _Question:
    """What a worker is asked: what it is, and whether it sees the folder of results and reaches Prefect's server."""

    variables: tuple[str, ...]
    functions: tuple[str, ...]
    places: tuple[str, ...]
    token: Path
    url: str


@dataclass(frozen=True)
class _Answer:
    surroundings: Surroundings
    token: str
    reaches: bool
    processor: str


def _answered(question: _Question) -> _Answer:
    """A worker's own answer."""
    for place in question.places:
        imported.look_in(Path(place))
    try:
        token = question.token.read_text()
    except OSError:
        token = ""
    return _Answer(
        Surroundings.here(question.variables, question.functions),
        token,
        not question.url or answers(question.url),
        processor(),
    )


def check_cluster(scale: Scale, study: Study, root: Path) -> list[str]:
    """Ask a cluster's workers whether they are as this process, and can reach what they need.

    Args:
        scale: with the address.
        study: what they are to train.
        root: where runs and results are.

    Returns:
        What a person should know, line by line.

    Raises:
        Unanswered: if the scheduler does not answer, or has no workers.
        EnvironmentProblem: if a worker is not as it must be; one line.
    """
    address = scale.address or ""
    with _connected(address) as client, _token(root) as token:
        workers = workers_of(client)
        if not workers:
            raise Unanswered(f"--address {address}: {_lacks('no worker', address)}", FAILED)
        _refuse_small(study, address, workers.values())
        variables, functions = tuple(environment.of_workers(root)), tuple(sorted(study.functions))
        url = os.environ.get("PREFECT_API_URL", "")
        question = _Question(variables, functions, imported.places(), token, url)
        ours = _answered(question)
        found = client.run(_answered, question, on_error="return")
        for worker, theirs in found.items():
            if wrong := _wrong(ours, theirs, question):
                raise EnvironmentProblem(f"--address {address}: worker {worker} {wrong}")
        others = sorted({theirs.processor for theirs in found.values()} - {ours.processor})
    return [f"Workers have other processors ({name}); expect other last bits than here." for name in others]


def _lacks(what: str, address: str) -> str:
    return f"the cluster has {what}; start some: layerwise worker {address}"


def _refuse_small(study: Study, address: str, workers: Iterable[dict[str, Any]]) -> None:
    needed = sum(sizes.estimated_bytes(study, study.data.shape()).values())
    least = min(worker["memory_limit"] or needed for worker in workers)
    if needed > least:
        raise EnvironmentProblem(
            f"{study.name}: a block would need about {sizes.in_words(needed)} of memory, and a worker at {address} may"
            f" have {sizes.in_words(least)}; start workers with more."
        )


def _wrong(ours: _Answer, theirs: Any, question: _Question) -> str:
    """What is wrong with a worker, and what to do about it; empty where it is as this process."""
    if not isinstance(theirs, _Answer):
        said = in_one_line(theirs) if isinstance(theirs, BaseException) else theirs
        return f"cannot be asked ({said}); start it with `layerwise worker`, from the same code and packages."
    if differs := ours.surroundings.difference(theirs.surroundings):
        return f"is not as this process: {differs}; start it with `layerwise worker`, from the same code and packages."
    if theirs.token != ours.token:
        root = question.token.parent.parent
        return f"does not see {root}; set LAYERWISE_ROOT to a shared folder that has the same path everywhere."
    if not theirs.reaches:
        return f"does not reach Prefect's server at {question.url}; set PREFECT_API_URL to one that it can reach."
    return ""


@contextmanager
def _connected(address: str) -> Generator[Client]:
    if reason := no_answer(address):
        raise Unanswered(
            f"--address {address}: no Dask scheduler answers there ({reason}); start one, such as"
            f" `{SCHEDULER}`, or leave --address out.",
            FAILED,
        )
    from distributed import Client

    with Client(address, timeout=ANSWER, set_as_default=False) as client:
        yield client


@contextmanager
def _token(root: Path) -> Generator[Path]:
    """A file of the results' root with content that nobody can guess: who reads it there sees that root."""
    file = environment.private_folder(root) / f"token-{secrets.token_hex(8)}"
    file.write_text(secrets.token_hex(16))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
