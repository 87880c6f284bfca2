"""A flow from the command line: Prefect's server starts while its libraries load, and what goes wrong is one line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows import environment
from flows.locks import using_results
from flows.printing import FAILED, WRONG_REQUEST, in_one_line, of_store, say, warnings_shown
from flows.signals import none_dropped
from layerwise.study import StudyError
from tasks import durable
from tasks.scratch import ScratchFull, own_place

if TYPE_CHECKING:
    from flows.server import Server
    from tasks.tracking.store import TrackingError


class Unanswered(RuntimeError):
    """A study cannot be answered now; the message is one line, and ``status`` what the command ends with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_flow(name: str, load: Callable[[], Any], root: Path, console: Console, *arguments: Any) -> Any:
    """What a flow returns.

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
    from flows.server import ServerProblem

    with using_results(root), own_place(), _server(root) as server:
        flow = load()
        from flows.cluster import WorkersGone
        from flows.crashed import close_crashed, owned
        from flows.progress import shown
        from tasks.results import ResultProblem, results_block
        from tasks.tracking.store import TrackingError

        logging.raiseExceptions = False  # Prefect would say on the terminal what of its log it cannot deliver
        try:
            with none_dropped(), server.ready(), _our_blocks_alone(), shown(console), warnings_shown(console), owned():
                if crashed := close_crashed():
                    say(f"Killed before, and marked so now: {', '.join(crashed)}. What was stored stays.", console)
                storage = results_block(environment.results_folder(root))
                return flow.with_options(result_storage=storage)(*arguments)
        except ServerProblem as error:
            raise Unanswered(str(error), FAILED) from None
        except ResultProblem as error:
            raise Unanswered(f"{name}: {error}", FAILED) from None
        except WorkersGone as gone:
            raise Unanswered(f"{name}: {gone}", FAILED) from None
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
