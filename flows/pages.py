"""``layerwise ui``: the MLflow and Prefect pages of this folder's runs, served on loopback until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from flows import environment
from flows.printing import of_store
from layerwise.study.parts import printable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

READY_WITHIN = 120.0
"""Seconds that a server may take to answer on a slow machine."""

LINKS = 5
"""Studies whose runs are linked when the pages open, the latest first."""


class PageProblem(RuntimeError):
    """A page cannot be served; one line: received, expected, remedy."""


def serve_pages(root: Path, *, mlflow_port: int, prefect_port: int) -> int:
    """Serve both pages until interrupted, but for what a team's servers show; returns the exit status.

    Args:
        root: whose runs to show.
        mlflow_port: port of the MLflow page.
        prefect_port: port of the Prefect page.
    """
    environment.prepare(root)
    ours = {name: page for name, page in _pages(root, mlflow_port, prefect_port).items() if not page.team}
    for name, page in ours.items():
        if mlflow_port == prefect_port and len(ours) > 1:
            return _refuse(f"both pages would use port {page.port}; give --{name}-port another one.")
        if is_taken(page.port):
            return _refuse(f"port {page.port} is taken; choose another with --{name}-port, or stop what uses it.")
    for number in (signal.SIGTERM, signal.SIGHUP):  # a stopped service, a closed terminal: like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        return _serve(root, _pages(root, mlflow_port, prefect_port))
    except PageProblem as problem:
        return _refuse(str(problem), status=1)
    except KeyboardInterrupt:
        click.echo("stopped")
        return 0


@dataclass(frozen=True)
class _Page:
    """One of the two pages.

    Attributes:
        team: where a team's server has it; empty where it is ours to serve.
        port: of this machine, to serve it at.
        health: what of it answers once it is there.
    """

    team: str
    port: int
    health: str

    @property
    def url(self) -> str:
        return self.team or f"http://127.0.0.1:{self.port}"


def _pages(root: Path, mlflow_port: int, prefect_port: int) -> dict[str, _Page]:
    from tasks.tracking.store import shown, store_uri

    tracking, flows = store_uri(root), os.environ.get("PREFECT_API_URL", "")
    return {
        "mlflow": _Page(shown(tracking).rstrip("/") if tracking.startswith("http") else "", mlflow_port, "health"),
        "prefect": _Page(flows.rstrip("/").removesuffix("/api"), prefect_port, "api/health"),
    }


def _serve(root: Path, pages: dict[str, _Page]) -> int:
    from tasks.tracking.store import TrackingError, absolute_uri, open_store

    try:
        client = open_store(root)  # creates it where it is missing, so that the page has something to show
    except TrackingError as error:
        return _refuse(*of_store(error))
    mlflow, prefect = pages["mlflow"], pages["prefect"]
    starts = {
        # An address of a database may hold a password, and everybody sees a command's arguments.
        "mlflow": (_mlflow_command(root, mlflow.port), {"MLFLOW_BACKEND_STORE_URI": absolute_uri(root)}),
        "prefect": (_prefect_command(prefect.port), environment.PREFECT_PAGE),
    }
    # Servers look for modules where they work: files of the user's must not stand in for theirs.
    folder = environment.private_folder(root)
    with ExitStack() as held:
        servers = {
            name: held.enter_context(running(name, starts[name][0], root, starts[name][1], folder))
            for name, page in pages.items()
            if not page.team
        }
        for name, server in servers.items():
            wait_ready(server, f"{pages[name].url}/{pages[name].health}", root)
        _tell(client, mlflow.url, prefect.url)
        if not servers:
            click.echo("Both are your team's, which ask who you are.")
            return 0
        click.echo("Ctrl-C stops both." if len(servers) == len(pages) else "Ctrl-C stops ours.")
        return watch(servers)


def _tell(client: MlflowClient, mlflow: str, prefect: str) -> None:
    from tasks.tracking.views import runs_page

    click.echo(f"MLflow   {mlflow}   runs, metrics by depth, models")
    for experiment in _latest(client):
        click.echo(f"         {mlflow}/{runs_page(experiment)}   {printable(experiment.name)}")
    click.echo('         At its top left choose "Model training", and close the assistant at its right, once.')
    click.echo(f"Prefect  {prefect}/runs   flow runs and their task graphs")


def _latest(client: MlflowClient) -> list[Experiment]:
    latest_first = ["last_update_time DESC"]
    named = "name != 'Default'"  # MLflow's own, which holds no study
    return list(client.search_experiments(max_results=LINKS, filter_string=named, order_by=latest_first))


def _mlflow_command(root: Path, port: int) -> list[str]:
    from tasks.tracking.store import artifact_root

    return [
        *(sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--default-artifact-root", artifact_root(root).as_uri()),
    ]


def _prefect_command(port: int) -> list[str]:
    return [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def running(
    name: str, command: list[str], root: Path, settings: dict[str, str], folder: Path
) -> Generator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, its output in a log file, ended when the body is left.

    Args:
        name: what it is called.
        command: what starts it.
        root: whose server it is.
        settings: variables of its environment, besides ours.
        folder: where it works, and may look for modules.
    """
    # A database or an address that the user names for another server of Prefect's is not this one's.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(environment.OF_OTHER_SERVERS)}
    with log_of(root, name).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=inherited | environment.SETTINGS | settings,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and the workers of its own, whose port is free only once they have ended, too."""
    with suppress(ProcessLookupError):  # nobody is left
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
            deadline = time.monotonic() + seconds
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                with suppress(ChildProcessError):  # where we are a container's first process, its workers become ours
                    os.waitpid(-process.pid, os.WNOHANG)
                os.killpg(process.pid, 0)
                time.sleep(0.02)
    process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str, root: Path, name: str = "*") -> None:
    """Wait until a server answers at an address.

    Raises:
        PageProblem: if it ends before that, or takes longer than :data:`READY_WITHIN`.
    """
    deadline = time.monotonic() + READY_WITHIN
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PageProblem(f"the server for {url} ended with status {process.returncode}; see {log_of(root, name)}.")
        try:
            with opener.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise PageProblem(f"nothing answers at {url} after {READY_WITHIN:.0f} s; see {log_of(root, name)}.")


def watch(servers: dict[str, subprocess.Popen[bytes]]) -> NoReturn:
    """Wait, until one of the servers ends, which is a problem."""
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                raise PageProblem(f"the {name} server ended with status {server.returncode}.")
        time.sleep(0.5)


def log_of(root: Path, name: str) -> Path:
    """The file that holds what a server says."""
    return environment.private_folder(root) / f"{name}-page.log"


def is_taken(port: int) -> bool:
    """Whether a port of this machine is in use."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _refuse(message: str, status: int = 2) -> int:
    click.echo(f"layerwise: {printable(message)}", err=True)
    return status
