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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from flows import environment
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
    """Serve both pages until interrupted; returns the exit status.

    Args:
        root: whose runs to show.
        mlflow_port: port of the MLflow page.
        prefect_port: port of the Prefect page.
    """
    environment.prepare(root)
    for port, option in ((mlflow_port, "--mlflow-port"), (prefect_port, "--prefect-port")):
        if mlflow_port == prefect_port:
            return _refuse(f"both pages would use port {port}; give {option} another one.")
        if _taken(port):
            return _refuse(f"port {port} is taken; choose another with {option}, or stop what uses it.")
    for number in (signal.SIGTERM, signal.SIGHUP):  # a stopped service, a closed terminal: like Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        return _serve(root, mlflow_port, prefect_port)
    except PageProblem as problem:
        return _refuse(str(problem), status=1)
    except KeyboardInterrupt:
        click.echo("stopped")
        return 0


def _serve(root: Path, mlflow_port: int, prefect_port: int) -> int:
    from tasks.tracking.store import TrackingError, open_store
    from tasks.tracking.views import runs_page

    try:
        client = open_store(root)  # creates it where it is missing, so that the page has something to show
    except TrackingError as error:
        return _refuse(str(error))
    with (
        _running("mlflow", _mlflow_command(root, mlflow_port), root, {}) as mlflow,
        _running("prefect", _prefect_command(prefect_port), root, environment.PREFECT_PAGE) as prefect,
    ):
        _wait(mlflow, f"http://127.0.0.1:{mlflow_port}/health", root)
        _wait(prefect, f"http://127.0.0.1:{prefect_port}/api/health", root)
        click.echo(f"MLflow   http://127.0.0.1:{mlflow_port}   runs, metrics by depth, models")
        for experiment in _latest(client):
            click.echo(
                f"         http://127.0.0.1:{mlflow_port}/{runs_page(experiment)}   {printable(experiment.name)}"
            )
        click.echo('         At its top left choose "Model training", and close the assistant at its right, once.')
        click.echo(f"Prefect  http://127.0.0.1:{prefect_port}/runs   flow runs and their task graphs")
        click.echo("Ctrl-C stops both.")
        return _watch({"mlflow": mlflow, "prefect": prefect})


def _latest(client: MlflowClient) -> list[Experiment]:
    latest_first = ["last_update_time DESC"]
    named = "name != 'Default'"  # MLflow's own, which holds no study
    return list(client.search_experiments(max_results=LINKS, filter_string=named, order_by=latest_first))


def _mlflow_command(root: Path, port: int) -> list[str]:
    from tasks.tracking.store import artifact_root, store_uri

    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store_uri(root), "--default-artifact-root", artifact_root(root).as_uri()),
    ]


def _prefect_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def _running(name: str, command: list[str], root: Path, settings: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, its output in a log file, ended when the body is left."""
    inherited = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    with _log(root, name).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=inherited | settings,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)  # a server has workers of its own
            process.wait(5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, root: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PageProblem(f"the server for {url} ended with status {process.returncode}; see {_log(root, '*')}.")
        try:
            with opener.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise PageProblem(f"nothing answers at {url} after {READY_WITHIN:.0f} s; see {_log(root, '*')}.")


def _watch(servers: dict[str, subprocess.Popen[bytes]]) -> NoReturn:
    while True:
        for name, server in servers.items():
            if server.poll() is not None:
                raise PageProblem(f"the {name} server ended with status {server.returncode}.")
        time.sleep(0.5)


def _log(root: Path, name: str) -> Path:
    return environment.private_folder(root) / f"{name}-page.log"


def _taken(port: int) -> bool:
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
