"""A flow from the command line: Prefect's server starts while its libraries load, and what goes wrong is one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows import environment
from flows.locks import using_results
from flows.printing import FAILED, WRONG_REQUEST, in_one_line, of_store, say, warnings_shown
from flows.signals import none_dropped
from layerwise.study import Study, StudyError, shipped
from tasks import durable
from tasks.scratch import ScratchFull, own_place

if TYPE_CHECKING:
    from flows.server import Server
    from tasks.tracking.store import TrackingError

SEPARATOR, PILOT = " · ", "pilot"
"""What stands in the name of a flow run between its study and its repeat; and what stands there for a pilot."""


class Unanswered(RuntimeError):
    """A study cannot be answered now; the message is one line, and ``status`` what the command ends with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Incomplete(RuntimeError):
    """A flow has come to its end, and lacks something: for Prefect it has failed.

    Attributes:
        outcome: what it would have returned.
    """

    def __init__(self, message: str, outcome: Any) -> None:
        super().__init__(message)
        self.outcome = outcome


def run_flow(name: str, load: Callable[[], Any], root: Path, console: Console, *arguments: Any) -> Any:
    """What a flow returns, though it be :class:`Incomplete`.

    Args:
        name: of the study, for messages.
        load: imports the flow and returns it; this takes seconds, in which the server starts.
        root: where runs and results are.
        console: shows progress.
        arguments: of the flow.

    Raises:
        Unanswered: if the server does not answer or let us in, the store cannot be used, or the flow fails.
        StudyError: if the data are not what the study needs.
    """
    with using_results(root), own_place(), _server(root) as server:
        flow = load()
        from flows.crashed import close_crashed, owned
        from flows.progress import shown
        from tasks.results import results_block

        logging.raiseExceptions = False  # Prefect would say on the terminal what of its log it cannot deliver
        told = _failures_told(name, root)
        with (
            none_dropped(),
            told,
            server.ready(),
            _our_blocks_alone(),
            shown(console),
            warnings_shown(console),
            owned(),
        ):
            for line in _killed_in_words(close_crashed(), *arguments[:2]):
                say(line, console)
            storage = results_block(environment.results_folder(root))
            try:
                return flow.with_options(result_storage=storage)(*arguments)
            except Incomplete as ended:
                return ended.outcome


@contextmanager
def _failures_told(name: str, root: Path) -> Generator[None]:
    """Whatever a flow fails of, as a line, and with what a command ends with."""
    from flows.cluster import WorkersGone
    from flows.server import ServerProblem
    from tasks.results import ResultProblem
    from tasks.tracking.store import TrackingError

    try:
        yield
    except ServerProblem as error:
        raise Unanswered(str(error), FAILED) from None
    except (ResultProblem, WorkersGone) as error:
        raise Unanswered(f"{name}: {error}", FAILED) from None
    except TrackingError as error:
        raise unusable(error) from None
    except ScratchFull as error:
        raise Unanswered(f"{name} failed: {error}", FAILED) from None
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001 - its traceback is on Prefect's page of the run
        remedy = "layerwise ui shows where."
        if not durable.has_room(root):
            remedy = f"the disk of {root} is full: free space on it, and run again."
        raise Unanswered(f"{name} failed: {in_one_line(error)}; {remedy}", FAILED) from None


def _killed_in_words(crashed: Sequence[str], study: Study, repeat: str = "") -> Iterator[str]:
    """Which flow runs were killed before one of this study, and how those that are repeats go on."""
    if not crashed:
        return
    yield f"Killed before, and marked so now: {', '.join(crashed)}. What was stored stays."
    for name, _, killed in (one.partition(SEPARATOR) for one in dict.fromkeys(crashed)):
        if killed not in {"", PILOT} and (name, killed) != (study.name, repeat):
            again = f"layerwise run {name if name in shipped() else 'STUDY'} --repeat {killed}"
            yield f"The repeat {killed} of {name} goes on, asked as before, with: {again}"


@contextmanager
def _our_blocks_alone() -> Generator[None]:
    """Keep Prefect from importing every installed package that offers blocks, Dask's among them, to find one of ours.

    That took a quarter of a second, and 14 MB of a run's peak.
    """
    from prefect.blocks import core

    theirs = core.load_prefect_collections
    core.load_prefect_collections = lambda **_: {}  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        core.load_prefect_collections = theirs


def close_crashed_flow_runs(root: Path) -> list[str]:
    """Have Prefect know of flow runs that were killed, where no flow is to be run that would say so; their names.

    Raises:
        Unanswered: if the server does not answer.
    """
    from flows.server import ServerProblem

    try:
        with _server(root) as server:
            from flows.crashed import close_crashed

            with server.ready():
                return close_crashed()
    except ServerProblem as error:
        raise Unanswered(str(error), FAILED) from None


def _server(root: Path) -> Server:
    from flows.server import ServerRefused, start

    try:
        return start(root)
    except ServerRefused as error:
        raise Unanswered(str(error), WRONG_REQUEST) from None


def unusable(error: TrackingError) -> Unanswered:
    """What a command ends with when its tracking store cannot be used."""
    return Unanswered(*of_store(error))
