"""A team's tracking server that can be killed, paused and started again, and a proxy that loses what passes through."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Fate = str
"""What becomes of a request: ``pass``, one of ``LOSSES``, or a status that the proxy answers with by itself."""

LOSSES = ("request", "upload", "answer")
"""A connection breaks before the request arrives, in the midst of what it uploads, or when it has been carried out."""


NUMBERS = ("results.csv", "scores_by_seed.csv", "differences.csv", "loss_by_epoch.csv")
"""Tables that hold no times, and so are the same whenever they are made."""


def unused_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


class TeamServer:
    """``mlflow server`` on loopback, with a store of its own that outlives it."""

    def __init__(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        self.place, self.port = place, unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.options = ["--backend-store-uri", f"sqlite:///{place}/team.db"]
        # Its job runner takes half of the time to start, for nothing used here.
        self.settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start(self, *, wait: bool = True) -> TeamServer:
        """Start it, for the first time or again: the same port, the same store."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        artifacts = ["--artifacts-destination", str(self.place / "artifacts")]
        with (self.place / "log").open("ab") as log:
            everything = [*command, *where, *artifacts, *self.options]
            self.process = subprocess.Popen(
                everything, stdout=log, stderr=log, env=os.environ | self.settings, process_group=0
            )
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        """Return when it answers."""
        for _ in range(480):
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - our own
                return
            time.sleep(0.25)
        raise TimeoutError((self.place / "log").read_text()[-2000:])

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None


class Proxy:
    """Passes requests on to a server, each after ``delay`` seconds, and loses those that ``fate`` says.

    ``fate`` is asked with the request, such as ``POST /api/2.0/mlflow/runs/create``; ``seen`` counts them, and ``lost``
    lists what did not pass.
    """

    def __init__(self, upstream: int, fate: Callable[[str], Fate] = lambda _: "pass", delay: float = 0.0) -> None:
        self.upstream, self.fate, self.delay = upstream, fate, delay
        self.seen = 0
        self.lost: list[str] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

        return Handler

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Let a request have its fate."""
        what = f"{request.command} {request.path.partition('?')[0]}"
        with self.lock:
            self.seen += 1
            fate = self.fate(what)
            if fate != "pass":
                self.lost.append(f"{fate} of {what}")
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        time.sleep(self.delay)
        if fate == "upload":
            self._send_half(request, body)
        answer = self._pass_on(request, body) if fate in {"pass", "answer"} else None
        if fate.isdecimal():
            request.send_error(int(fate))
        elif fate == "pass" and answer is not None:
            self._answer(request, *answer)
        else:
            request.close_connection = True
            with suppress(OSError):
                request.connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[Any, bytes] | None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=120)
        with closing(upstream), suppress(OSError, http.client.HTTPException):
            upstream.request(request.command, request.path, body, dict(request.headers))
            found = upstream.getresponse()
            return found, found.read()
        return None

    def _answer(self, request: BaseHTTPRequestHandler, found: Any, content: bytes) -> None:
        with suppress(OSError):
            request.send_response(found.status)
            for name, value in found.getheaders():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)

    def _send_half(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.upstream)) as raw:
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            raw.sendall(f"{request.command} {request.path} HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2])


class Store:
    """What a server's store holds of a study, but for what differs between two runs of it: ids and times.

    Tables are read as they stand, so that a row that is there twice is seen twice.
    """

    def __init__(self, server: TeamServer, study: str) -> None:
        self.place, self.study = server.place, study

    def state(self) -> dict[str, Any]:
        """Runs, points, models with their links, data sets and files, in words."""
        tags = "('layerwise.answer', 'layerwise.chosen', 'layerwise.artifact.results.csv')"
        models = "JOIN logged_models m ON m.source_run_id = r.run_uuid AND m.lifecycle_stage = 'active'"
        digest = "JOIN logged_model_tags g ON g.model_id = m.model_id AND g.tag_key = 'layerwise.digest'"
        outputs = "(SELECT COUNT(*) FROM inputs i WHERE i.destination_id = m.model_id)"
        points = "(SELECT COUNT(*) FROM logged_model_metrics k WHERE k.model_id = m.model_id)"
        data = "JOIN inputs i ON i.destination_id = r.run_uuid JOIN datasets d ON d.dataset_uuid = i.source_id"
        # Deleting a version keeps its row, in a stage of its own.
        versions = (
            "JOIN model_versions v ON v.run_id = r.run_uuid AND v.current_stage != 'Deleted_Internal'"
            " JOIN model_version_tags t ON t.name = v.name AND t.version = v.version AND t.key = 'layerwise.digest'"
        )
        aliases = "JOIN registered_model_aliases a ON a.name = v.name AND a.version = v.version"
        return {
            "runs": self.rows("r.status"),
            "points": self.rows("m.key, m.step, m.value", "JOIN metrics m ON m.run_uuid = r.run_uuid"),
            "tags": self.rows("t.key, t.value", f"JOIN tags t ON t.run_uuid = r.run_uuid AND t.key IN {tags}"),
            "models": self.rows(f"m.name, m.status, g.tag_value, {outputs}, {points}", f"{models} {digest}"),
            "data sets": self.rows("d.name, d.digest", data),
            "versions": self.rows("t.value, a.alias", f"{versions} LEFT {aliases}"),
            "files": dict(self._files("r.artifact_uri")) | dict(self._files("m.artifact_location, m.name", models)),
        }

    def rows(self, columns: str, joins: str = "") -> list[tuple[Any, ...]]:
        """Some columns for each run of the study that has not been deleted, after its name."""
        query = (
            f"SELECT r.name, {columns} FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id {joins}"  # noqa: S608
            " WHERE e.name = ? AND r.lifecycle_stage = 'active'"
        )
        with closing(sqlite3.connect(self.place / "team.db", timeout=30)) as database:
            return sorted(database.execute(query, [self.study]), key=repr)

    def _files(self, place: str, joins: str = "") -> Iterator[tuple[str, str]]:
        for owner, uri, *name in self.rows(place, joins):
            folder = self.place / "artifacts" / uri.partition("mlflow-artifacts:/")[2]
            for path in folder.rglob("*"):
                if path.is_file():
                    yield " ".join([owner, *name, str(path.relative_to(folder))]), _essence(path)


def _essence(path: Path) -> str:
    """The digest of what a file says; that a picture or a file with names and dates in it is whole is all it says."""
    content = path.read_bytes()
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = archive.read("model.weights.h5")
    elif path.name not in {*NUMBERS, "model.keras"}:
        return "there" if content else "empty"
    return hashlib.sha256(content).hexdigest()
