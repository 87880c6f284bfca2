"""``layerwise schedule``: a Prefect server on loopback, the deployments of a file of schedules, and what runs them.

Studies are taken in when the command starts, and stay as they were. Each slot runs in a process of its own. Two slots
of one study never run at once: of a deployment, Prefect cancels the one that comes later; of a study, its lock does.
Whatever was due while nobody served is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from flows import environment
from flows.locks import Busy, claim
from flows.printing import BUSY, DONE, FAILED, WRONG_REQUEST, Terminal, in_one_line, refuse, say
from flows.schedules import Scheduled, read_schedules
from flows.server import LastingServer, Server, ServerProblem, ServerRefused, answers, require_entry
from layerwise import sizes
from layerwise.study import StudyError

LOCK = "schedule"
"""What the command locks of a root: one of it serves at a time."""

POLL_SECONDS = 5.0
"""How often it is asked which slots are due."""

LOOK_SECONDS = 1.0
"""How often it is looked whether the server is there."""

TIDY_SECONDS = 5.0
"""How often its pages are put in order."""


def schedule_command(file: Path, *, work_pool: str | None, prefect_port: int, root: Path) -> int:
    """Serve a file of schedules until interrupted, or deploy it to a work pool. Returns the exit status.

    Args:
        file: the schedules.
        work_pool: the work pool of a team's server whose workers run the slots; None to run them here.
        prefect_port: port of Prefect's server and page, where ``PREFECT_API_URL`` names no other server.
        root: where runs and results are.

    Raises:
        StudyError: if the file is not valid, or a study needs more memory than there is.
    """
    asked = read_schedules(file)
    for one in asked:
        sizes.refuse_oversize(one.study)
    url = os.environ.get("PREFECT_API_URL")
    if work_pool is not None and not url:
        raise StudyError("--work-pool: no server is named that has one; name your team's in PREFECT_API_URL")
    environment.prepare(root)
    console = Terminal(file=sys.stdout)
    try:
        if url:
            require_entry(url)
        if work_pool is not None:
            return _deploy(asked, work_pool, console)
        with claim(root, LOCK):
            return _serve(asked, prefect_port, root, console)
    except Busy:
        return refuse(f"schedules of {root} are being served already; stop that command first.", BUSY)
    except ServerProblem as problem:
        return refuse(str(problem), WRONG_REQUEST if isinstance(problem, ServerRefused) else FAILED)
    except KeyboardInterrupt:
        say("stopped", console)
        return DONE


def _deploy(asked: Sequence[Scheduled], work_pool: str, console: Console) -> int:
    """Hand the schedules to a work pool of a team's server, whose workers run them."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows import deploying

    server = Server(os.environ["PREFECT_API_URL"])
    server.wait_ready()
    try:
        with get_client(sync_client=True) as client:
            client.read_work_pool(work_pool)
    except ObjectNotFound:
        return refuse(
            f"--work-pool {work_pool}: {server.url} has no such pool; make it with `prefect work-pool create`, or"
            " name another.",
            WRONG_REQUEST,
        )
    deploying.check_times(asked)
    deployed = {one.name: deploying.deploy(one, work_pool=work_pool) for one in asked}
    deploying.install_automations(asked, deployed)
    _say_what(asked, console)
    say(f"Deployed to the work pool {work_pool} of {server.url}; its workers run them.", console)
    return DONE


def _serve(asked: Sequence[Scheduled], port: int, root: Path, console: Console) -> int:
    with _server(asked, root, port, console) as server:
        from flows import deploying

        deploying.check_times(asked)
        for line in deploying.skip_missed(_concerned(server, asked)):
            say(line, console)
        deployed = {one.name: deploying.deploy(one) for one in asked}
        for name in deploying.pause_others(deployed.values()) if isinstance(server, LastingServer) else ():
            say(f"{name} is not in the file any more: paused.", console)
        deploying.install_automations(asked, deployed)
        _say_what(asked, console)
        _say_where(server, console)
        _run_slots(asked, _concerned(server, asked), console)
    return DONE


@contextmanager
def _server(asked: Sequence[Scheduled], root: Path, port: int, console: Console) -> Generator[Server]:
    """The team's server, or one of our own, looked after while the body runs."""
    url, over = os.environ.get("PREFECT_API_URL"), threading.Event()
    with Server(url) if url else LastingServer(root, port) as server:
        server.wait_ready()
        names = _concerned(server, asked)
        # A thread each: while the server is away, keeping its pages tidy waits for it.
        keepers = [threading.Thread(target=_keep_tidy, args=(names, over, console), daemon=True)]
        if isinstance(server, LastingServer):
            keepers.append(threading.Thread(target=_keep_alive, args=(server, over, console), daemon=True))
        for keeper in keepers:
            keeper.start()
        try:
            yield server
        finally:
            over.set()
            for keeper in reversed(keepers):
                keeper.join(LOOK_SECONDS)


def _concerned(server: Server, asked: Sequence[Scheduled]) -> list[str] | None:
    """The deployments to look after: on a team's server those of the file, on our own all there are."""
    return None if isinstance(server, LastingServer) else [one.name for one in asked]


def _keep_alive(server: LastingServer, over: threading.Event, console: Console) -> None:
    """Start our own server again whenever it ends."""
    while not over.wait(LOOK_SECONDS):
        if server.revive():
            say(f"{_now()} Prefect's server had ended, and is started again.", console)


def _keep_tidy(names: list[str] | None, over: threading.Event, console: Console) -> None:
    """Keep the server's pages tidy, and say what becomes of slots."""
    import httpx

    from flows import deploying

    news: deploying.News | None = None
    while not over.wait(TIDY_SECONDS):
        try:
            news = news or deploying.News(names)
            for line in [*deploying.tidy(names), *news.lines()]:
                say(f"{_now()} {line}", console)
        except (httpx.HTTPError, RuntimeError):  # it is away for a moment
            continue


def _say_what(asked: Sequence[Scheduled], console: Console) -> None:
    for one in asked:
        entry, study = one.entry, one.study
        say(
            f"{one.name}: {entry.cron} ({entry.timezone}), study {study.name} as it is now, digest"
            f" {study.digest()[:12]}",
            console,
        )
    say("A study that is changed is taken in when this command is started again.", console)


def _say_where(server: Server, console: Console) -> None:
    page = server.url.removesuffix("/api")
    say(f"Deployments and runs: {page}/deployments", console)
    if isinstance(server, LastingServer):
        # What a service prints, others may read; a terminal is its user's own.
        word = server.login if console.is_terminal else f"see {server.login_file}"
        say(f"The page asks who you are: {word}", console)
    say("Look at what the runs found: layerwise ui --prefect-port 4201. Ctrl-C stops serving.", console)


def _run_slots(asked: Sequence[Scheduled], names: list[str] | None, console: Console) -> None:
    """Run slots as they come due, each in its own process, until interrupted.

    Prefect's runner gives up on a server that is away for some minutes; here it is waited for.

    Raises:
        ServerRefused: if the server, back again, does not let us in.
    """
    import httpx

    environment.prepare_slots()
    # Prefect 3.8 forgets one of its own when it gives up; to go when it does not.
    warnings.filterwarnings("ignore", "coroutine 'Runner._handle_cancellation.* was never awaited", RuntimeWarning)
    while True:
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # its tracebacks are said in a line
                asyncio.run(_until_stopped(asked))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        except (RuntimeError, httpx.HTTPError, ExceptionGroup) as error:
            say(f"{_now()} Serving was interrupted ({in_one_line(_first(error))}), and goes on.", console)
            for number in (signal.SIGTERM, signal.SIGHUP):  # the loop that ended took their handlers with it
                signal.signal(number, signal.default_int_handler)
            _wait_for_server(os.environ["PREFECT_API_URL"])
            with suppress(httpx.HTTPError):  # away again, which is seen in a moment
                from flows import deploying

                for line in deploying.skip_missed(names):
                    say(f"{_now()} {line}", console)


def _first(error: Exception) -> Exception:
    """What failed first of all that a group of tasks failed with."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _wait_for_server(url: str) -> None:
    time.sleep(POLL_SECONDS)
    while not answers(url):
        time.sleep(POLL_SECONDS)
    require_entry(url)


async def _until_stopped(asked: Sequence[Scheduled]) -> None:
    """Have Prefect's runner ask for due slots, and start a process for each.

    Nothing is fetched before it is due: a slot that is taken early would find the one before it still at work.
    """
    from prefect.runner import Runner

    from flows.deploying import HEARTBEAT_SECONDS, deployment

    runner = Runner(
        name="layerwise",
        query_seconds=POLL_SECONDS,
        prefetch_seconds=0,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        limit=None,
        pause_on_shutdown=True,
    )
    for one in asked:
        await runner.aadd_deployment(deployment(one))
    serving, loop = asyncio.ensure_future(runner.start()), asyncio.get_running_loop()
    await asyncio.sleep(0)  # by now it has set a handler of its own, which would end this process at once
    for number in (signal.SIGTERM, signal.SIGHUP):  # a stopped service, a closed terminal: like Ctrl-C
        loop.add_signal_handler(number, serving.cancel)
    await serving


def _now() -> str:
    return f"{datetime.now(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
