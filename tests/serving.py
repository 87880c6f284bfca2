"""``layerwise schedule`` as a service, watched through the server's own API; and a receiver of what it tells."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml

from flows import environment
from tests.studies import small_document
from tests.test_server import clean_environ
from tests.trackers import unused_port

TINY: dict[str, Any] = small_document(
    name="tiny",
    question="Does the night shift work?",
    depth=3,
    seeds=3,
    track={"models": "none"},
    claims={"possible": {"kind": "bound", "arm": "greedy", "metric": "test_accuracy", "at_most": 1.0}},
)
"""A study that trains in a second; loading TensorFlow takes most of a slot."""

PATIENCE = 240.0
"""Seconds that a service, or a slot, may take on a machine that has other work too."""

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

Run = dict[str, Any]


def wait_for(what: Callable[[], Any], words: str, seconds: float = PATIENCE) -> Any:
    """What a question answers once it answers with anything."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s for {words}")


@dataclass
class Service:
    """A command that serves schedules.

    Attributes:
        root: where it runs.
        port: of its Prefect server.
        process: the command.
        printed: what it has printed so far, in a file.
    """

    root: Path
    port: int
    process: subprocess.Popen[Any]
    printed: Path

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text()

    @property
    def login(self) -> str:
        """What its server wants to be told."""
        return (environment.prefect_home(self.root) / "login").read_text()

    def ask(self, path: str, **question: Any) -> Any:
        """What its server answers to a question."""
        token = base64.b64encode(self.login.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            data=json.dumps(question).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Basic {token}"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)

    @property
    def deployment(self) -> Run:
        """Its one deployment."""
        (found,) = self.ask("deployments/filter")
        return found

    def slots(self) -> list[Run]:
        """Its slots that have come due, the earliest first."""
        found = self.ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC", limit=200)
        return [run for run in found if run["deployment_id"] and run["state"]["name"] != "Scheduled"]

    def slot(self, run_id: str) -> Run:
        """One of them."""
        return next(run for run in self.ask("flow_runs/filter", limit=200) if run["id"] == run_id)

    def start_one(self) -> str:
        """Have a slot run now, as the page's button does; returns its id."""
        now = {"type": "SCHEDULED", "name": "Scheduled"}
        return self.ask(f"deployments/{self.deployment['id']}/create_flow_run", state=now)["id"]

    def retry(self, run_id: str) -> None:
        """Have a slot run again, as the page's button does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.ask(f"flow_runs/{run_id}/set_state", state=state, force=True)

    def server_pid(self) -> int:
        """The process of its Prefect server."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = {child for file in threads for child in file.read_text().split()} | set(children)
        return next(int(pid) for pid in children if b"server.py" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


def process_of(run: Run) -> int:
    """The process that a slot runs in."""
    return int(next(tag for tag in run["tags"] if tag.startswith("process ")).split("/")[1])


def write_schedules(root: Path, study: dict[str, Any] = TINY, **entry: Any) -> None:
    """A study and a file of schedules, every minute if nothing else is said."""
    (root / "tiny.yaml").write_text(yaml.safe_dump(study))
    asked = {"study": "tiny.yaml", "cron": "* * * * *", "timezone": "UTC"} | entry
    (root / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [asked]}))


@contextmanager
def serving(root: Path, *, checkout: Path | None = None, port: int | None = None) -> Generator[Service]:
    """The command while the body runs, from when it serves; killed at the end if it is still there.

    Args:
        root: where it runs.
        checkout: whose code it runs; this one's if left out.
        port: of its server; any that is free if left out.
    """
    port, printed = port or unused_port(), root / "printed.txt"
    environ = clean_environ() | {"LAYERWISE_ROOT": str(root)}
    if checkout is not None:
        environ["PYTHONPATH"] = str(checkout)
    command = [sys.executable, "-P", "-m", "flows.cli", "schedule", "--prefect-port", str(port)]
    with printed.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=root, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        )
    service, before = Service(root, port, process, printed), printed.read_text().count("stops serving")
    try:
        wait_for(lambda: service.output.count("stops serving") > before or process.poll() is not None, "the service")
        assert process.poll() is None, service.output
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Receiver:
    """Who is told of failures."""

    address: str
    told: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A server on loopback that keeps what it is sent."""
    found = Receiver("")

    class Keeping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keeping) as server:
        found.address = f"http://127.0.0.1:{server.server_port}/told"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
