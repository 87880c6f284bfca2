"""Prefect's embedded server as our child: real servers and real signals on copies of one new database."""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx
import pytest

from flows import environment, server
from flows.server import ServerLost, ServerProblem, ServerRefused
from tasks import durable
from tests.trackers import Proxy

CHECKOUT = Path(__file__).parents[1]

START = """
import os, sys
from pathlib import Path
from flows import environment, server
root = Path(sys.argv[1])
environment.prepare(root)
with server.start(root) as running:
    running.wait_ready()
    print(running.pid, running.url, os.environ["PREFECT_API_AUTH_STRING"], flush=True)
    {then}
"""

THREE = """
import os, sys
from pathlib import Path
from flows import environment, server
root = Path(sys.argv[1])
environment.prepare(root)
servers = []
for _ in range(3):
    os.environ.pop("PREFECT_API_URL", None)
    servers.append(server.start(root))
for running in servers:
    running.wait_ready()
for running in servers:
    running.stop()
print("all three")
"""

SMALL_RUN = """
from pathlib import Path
import sys

from flows import environment, server

root = Path(sys.argv[1])
environment.prepare(root)
running = server.start(root)
import keras
import mlflow
import numpy as np
from mlflow.telemetry import get_telemetry_client
from prefect import flow
from tasks.results import read_back, results_block, stage_task

@stage_task
def base(*, digest):
    return np.ones(3, np.float32)

@stage_task
def add_layer(below, *, digest):
    return below * 14

@flow
def study():
    add_layer(base(digest="00000001"), digest="00000002")
    return float(read_back("00000002").sum())

if client := get_telemetry_client():
    client.activate()  # what the first experiment or model would do

with running, running.ready():
    storage = results_block(environment.results_folder(root))
    print(study.with_options(result_storage=storage, persist_result=False)())
"""

RECORDER = """
import os, sys
def record(event, arguments):
    host = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host:
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(host.decode() if isinstance(host, bytes) else host)
            calls.write(chr(10))
sys.addaudithook(record)
"""


def clean_environ(**extra: str) -> dict[str, str]:
    """The environment of a user's terminal: none of ours, and none that says "this is a test, be quiet"."""
    ours = {*environment.SETTINGS, "LAYERWISE_ROOT", "PREFECT_HOME", "KERAS_HOME", "PREFECT_API_URL"}
    quiet = {"CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"}
    kept = {name: value for name, value in os.environ.items() if name not in ours | quiet}
    return kept | {"PYTHONPATH": str(CHECKOUT)} | extra


def run_python(code: str, *arguments: object, **extra: str) -> subprocess.Popen[str]:
    """A Python process of its own process group, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environ(**extra),
        process_group=0,
    )


@dataclass(frozen=True)
class Ended:
    """How a process ended, and whom it called."""

    stdout: str
    stderr: str
    returncode: int
    root: Path
    calls: tuple[str, ...] = ()


@functools.cache
def session_folder() -> Path:
    """A folder for what tests of several modules share."""
    folder = Path(tempfile.mkdtemp(prefix="layerwise-servers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def three_at_once() -> Ended:
    """Three servers that start at the same moment on a root that nobody has used."""
    root = session_folder() / "new"
    return _ended(run_python(THREE, root), root)


def _ended(process: subprocess.Popen[str], root: Path, calls: tuple[str, ...] = ()) -> Ended:
    stdout, stderr = process.communicate(timeout=120)
    return Ended(stdout, stderr, process.returncode, root, calls)


def used_root(root: Path) -> Path:
    """``root`` with a database that a first start has left there; creating one takes ten seconds."""
    shutil.copytree(environment.prefect_home(three_at_once().root), environment.prefect_home(root))
    return root


@functools.cache
def small_run() -> Ended:
    """A flow of two stage tasks, in a terminal of its own, on a root with an awkward name."""
    root = used_root(session_folder() / "50% of a root, #1 + ä")
    calls, recorder = session_folder() / "calls", session_folder() / "recorder"
    recorder.mkdir()
    (recorder / "sitecustomize.py").write_text(RECORDER)
    path = f"{recorder}{os.pathsep}{CHECKOUT}"
    ended = _ended(run_python(SMALL_RUN, root, PYTHONPATH=path, CALLS=str(calls)), root)
    return Ended(ended.stdout, ended.stderr, ended.returncode, root, tuple(calls.read_text().split()))


def ask(url: str, body: dict[str, Any] | None = None, login: str | None = None) -> Any:
    """Prefect's answer to a question, as JSON; by default with the word that this process has for its server."""
    data = None if body is None else json.dumps(body).encode()
    word = base64.b64encode((login or os.environ.get("PREFECT_API_AUTH_STRING", "")).encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {word}"}
    assert url.startswith("http://127.0.0.1:")
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - just checked
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
        return json.load(answer)


def state(pid: int) -> str:
    """The state of a process as Linux tells it: R, S, T for stopped; Z also for one that is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def comes_to(pid: int, expected: str, seconds: float = 15) -> bool:
    """Whether a process reaches a state within some seconds."""
    deadline = time.monotonic() + seconds
    while state(pid) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return state(pid) == expected


def gone(pid: int) -> bool:
    """Whether a process that need not be our child ends soon."""
    return comes_to(pid, "Z")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is named in the environment, before and after the test."""
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.delenv("PREFECT_API_URL")


def test_servers_may_create_the_database_at_once() -> None:
    """Servers that start together on a new root all work, and have nothing to complain about."""
    ended = three_at_once()
    assert (ended.stdout, ended.stderr, ended.returncode) == ("all three\n", "", 0)
    assert (environment.prefect_home(ended.root) / "server.log").read_text() == ""


def test_a_run_and_its_stages_can_be_seen_later() -> None:
    """Prefect's pages find the flow, its tasks' states and the arrow between them when the run is over."""
    root = small_run().root
    with run_python(START.format(then="sys.stdin.read()"), root) as process:
        assert process.stdout is not None
        _, url, login = process.stdout.readline().split()
        (run,) = ask(f"{url}/flow_runs/filter", {}, login)
        tasks = ask(f"{url}/task_runs/filter", {}, login)
        graph = ask(f"{url}/flow_runs/{run['id']}/graph-v2", login=login)
        logs = ask(f"{url}/logs/filter", {}, login)
        process.communicate()
    assert run["state_type"] == "COMPLETED"
    assert Counter(task["state_name"] for task in tasks) == {"Completed": 2}
    nodes = {node["label"].split("-")[0]: node for _, node in graph["nodes"]}
    assert [parent["id"] for parent in nodes["add_layer"]["parents"]] == [nodes["base"]["id"]]
    assert any("Completed" in entry["message"] for entry in logs)


@pytest.mark.usefixtures("away")
def test_nobody_else_on_the_machine_is_answered(tmp_path: Path) -> None:
    """Without the word that the command and its server share, the API says nothing, and each server has its own."""
    words = []
    for number in range(2):
        with server.start(used_root(tmp_path / str(number))) as running:
            running.wait_ready()
            assert ask(f"{running.url}/flow_runs/filter", {}) == []
            for other in ("layerwise:", "layerwise:guess", *words):
                with pytest.raises(HTTPError, match="401: Unauthorized") as refused:
                    ask(f"{running.url}/flow_runs/filter", {}, other)
                refused.value.close()
            words.append(os.environ["PREFECT_API_AUTH_STRING"])
        assert "PREFECT_API_AUTH_STRING" not in os.environ
    assert all(len(word) > 40 for word in words)


@pytest.mark.chaos
def test_server_outlives_ctrl_c_but_not_its_command(tmp_path: Path) -> None:
    """Ctrl-C leaves the command its server, to report with; SIGKILL of the command's group leaves none."""
    survive = "import signal; signal.signal(signal.SIGINT, lambda *_: None); print(flush=True); sys.stdin.read()"
    with run_python(START.format(then=survive), used_root(tmp_path)) as process:
        assert process.stdout is not None
        pid, url, _ = process.stdout.readline().split()
        assert process.stdout.readline() == "\n", "Ctrl-C is handled from here on"
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.5)
        assert ask(f"{url}/health") is True
        os.killpg(process.pid, signal.SIGKILL)
        assert gone(int(pid))


@pytest.mark.chaos
def test_command_killed_while_the_server_starts_leaves_none(tmp_path: Path) -> None:
    """A command that is killed before its server answers leaves no server either."""
    starting = START.replace("    running.wait_ready()\n", "").format(then="sys.stdin.read()")
    with run_python(starting, tmp_path) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        time.sleep(1)
        process.kill()
        assert gone(pid)


@pytest.mark.usefixtures("away")
def test_server_that_cannot_start_is_reported_in_one_line(tmp_path: Path) -> None:
    """A database that cannot be opened is one line that names the server's log, which tells the rest."""
    home = environment.prefect_home(tmp_path)
    (home / "prefect.db").mkdir(parents=True)
    with server.start(tmp_path) as running:
        with pytest.raises(ServerProblem, match=r"ended with status 3 while starting; see .*/server\.log\.$"):
            running.wait_ready()
        assert "unable to open database file" in (home / "server.log").read_text()


@pytest.mark.usefixtures("away")
def test_a_damaged_database_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A database that is none is one line that says what to move away, and that no result is lost with it."""
    home = environment.prefect_home(tmp_path)
    home.mkdir(parents=True)
    (home / "prefect.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    with server.start(tmp_path) as running:
        expected = rf"while starting; its database {home}/prefect.db is damaged: move it away, and run again\. It holds"
        with pytest.raises(ServerProblem, match=expected):
            running.wait_ready()


@pytest.mark.usefixtures("away")
def test_a_database_that_turns_out_to_be_damaged_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A server that starts on a database of which a table is lost fails later, and the line is the same."""
    database = environment.prefect_home(used_root(tmp_path)) / "prefect.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'flow_run'").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    expected = rf"during the run \(status 50\d\); its database {database} is damaged: move it away, and run again\. It"
    with server.start(tmp_path) as running:
        running.wait_ready()
        login = tuple(os.environ["PREFECT_API_AUTH_STRING"].split(":"))
        flow = httpx.post(f"{running.url}/flows/", auth=login, json={"name": "any"}).json()["id"]
        for _ in range(2):  # Prefect's client asks again several times; the log has a reason after the answer
            failed = httpx.post(f"{running.url}/flow_runs/", auth=login, json={"flow_id": flow})
        with pytest.raises(ServerProblem, match=expected), running.ready():
            failed.raise_for_status()
        with pytest.raises(httpx.HTTPStatusError), running.ready():
            httpx.post(f"{running.url}/no/such", auth=login).raise_for_status()


@pytest.mark.usefixtures("away")
def test_a_full_disk_is_why_a_server_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's disk is full, its log may say nothing: the line says what to do."""
    home = environment.prefect_home(tmp_path)
    (home / "prefect.db").mkdir(parents=True)
    monkeypatch.setattr(durable, "has_room", lambda folder: not home.samefile(folder))
    expected = rf"while starting; the disk of {home} is full: free space on it, and run again\.$"
    with server.start(tmp_path) as running, pytest.raises(ServerProblem, match=expected):
        running.wait_ready()


@pytest.mark.usefixtures("away")
def test_server_is_named_from_start_to_stop(tmp_path: Path) -> None:
    """The address is in the environment, and in Prefect's settings, at once; afterwards it is in neither."""
    from prefect.settings import get_current_settings

    environment.prefect_home(tmp_path).mkdir(parents=True)
    with server.start(tmp_path) as running:
        assert os.environ["PREFECT_API_URL"] == running.url
        assert get_current_settings().api.url == running.url
        with pytest.raises(ServerProblem, match=r"did not answer within 0 s; see .*server\.log\.$"):
            running.wait_ready(timeout=0)
    assert "PREFECT_API_URL" not in os.environ
    assert get_current_settings().api.url is None
    assert running.pid is None


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a server which is there."""
    monkeypatch.setattr(server, "answers", lambda _: True)
    monkeypatch.setattr(server, "_server_is_gone", threading.Event())
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def test_the_end_of_our_server_ends_what_it_serves(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Whatever a flow waits for, its server's end wakes it: one line says so, and Prefect is no longer tried again."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

    before = signal.getsignal(server.LOST)
    running = server.Server("http://127.0.0.1:9/api", tmp_path / "server.log", child)
    ended = (
        "^Prefect's server ended with status -9 during the run, see .*/server.log; nothing finished is lost: run again"
    )
    retries = []

    def flow() -> None:
        try:
            threading.Event().wait(60)
        except ServerLost:
            retries.append(PREFECT_CLIENT_MAX_RETRIES.value())
            raise

    threading.Timer(1, child.kill).start()
    with pytest.raises(ServerProblem, match=ended), running.ready():
        flow()
    assert retries == [0]
    assert PREFECT_CLIENT_MAX_RETRIES.value() > 0
    assert signal.getsignal(server.LOST) is before


def test_a_server_that_ends_after_its_flow_disturbs_nobody(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Once the flow is over nobody is woken, and what the flow itself failed of is left as it is."""
    running = server.Server("http://127.0.0.1:9/api", tmp_path / "server.log", child)
    with pytest.raises(ValueError, match="its own"), running.ready():
        raise ValueError("its own")
    child.kill()
    child.wait()
    time.sleep(0.2)


@pytest.mark.usefixtures("child")
def test_a_teams_server_that_goes_away_is_told_by_what_fails() -> None:
    """An error that comes from Prefect's client having nobody to talk to is one line; any other stays what it is."""
    running = server.Server("http://team:4200/api")
    gone = "^Prefect's server at http://team:4200/api does not answer any more; nothing finished is lost: run again"
    with pytest.raises(ServerProblem, match=gone), running.ready():
        raise RuntimeError("a task could not begin") from httpx.ConnectError("All connection attempts failed")
    with pytest.raises(RuntimeError, match="its own"), running.ready():
        raise RuntimeError("its own")


@pytest.mark.parametrize("gone", [True, False])
def test_a_process_ends_without_being_taken_apart(gone: bool) -> None:
    """What was printed and the status are not lost; what is registered for the end is done, if a server is there.

    Prefect's threads would else try for minutes to deliver their news.
    """
    script = f"""
import atexit
from flows import server
class Library:
    def __del__(self):
        print("taken apart")
library = Library()
atexit.register(print, "waited")
if {gone}:
    server._server_is_gone.set()
print("said", end=" ")
server.end_process(7)
"""
    with run_python(script) as process:
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.split()) == (7, ["said"] if gone else ["said", "waited"])


@pytest.mark.usefixtures("away")
def test_server_that_does_not_listen_to_reason_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not end when it is asked to is ended."""
    monkeypatch.setattr(server, "STOP_TIMEOUT", 0.2)
    environment.prefect_home(tmp_path).mkdir(parents=True)
    running = server.start(tmp_path)
    pid = running.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert comes_to(pid, "T")
    running.stop()
    assert state(pid) == "Z"


def test_a_teams_server_is_used_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    """With PREFECT_API_URL set nothing is started or stopped; that nothing answers there is one line."""
    url = f"http://127.0.0.1:{unused_port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    with server.start(tmp_path) as running:
        assert running.pid is None
        with pytest.raises(ServerProblem, match=f"^PREFECT_API_URL is {url}, but nothing answers there; start"):
            running.wait_ready()
    assert os.environ["PREFECT_API_URL"] == url
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("word", "received"),
    [
        (None, "no PREFECT_API_AUTH_STRING"),
        ("ada:not the word", "a PREFECT_API_AUTH_STRING that is not the server's"),
    ],
)
def test_a_teams_server_that_does_not_let_us_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str | None, received: str
) -> None:
    """It is told at once, in a line that does not repeat the word; nothing is imported for it, and nothing started."""
    if word:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", word)
    else:
        monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    with Proxy(0, lambda what: "401" if what == "GET /api/admin/version" else "pass") as guarded:
        monkeypatch.setenv("PREFECT_API_URL", f"{guarded.url}/api")
        with pytest.raises(ServerRefused) as refused:
            server.start(tmp_path)
    assert str(refused.value) == (
        f"PREFECT_API_URL is {guarded.url}/api, which does not let us in (401): received {received}; set it to the"
        " server's user:password, or unset PREFECT_API_URL to use a server of our own."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "received"),
    [
        ("http://ada:secret@127.0.0.1:1/api", "an address with a password in it"),
        ("team:4200", "'team:4200'"),
        ("http://team:port/api", "'http://team:port/api'"),
        ("http://[team/api", r"'http://\[team/api'"),
        ("http:///api", "'http:///api'"),
    ],
)
def test_an_address_that_prefect_cannot_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, received: str
) -> None:
    """A password in it would be repeated in Prefect's logs; what is no address would fail in the midst of a run."""
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(ServerRefused, match=f"^PREFECT_API_URL is {received}; expected http") as refused:
        server.start(tmp_path)
    assert "secret" not in str(refused.value)


@pytest.fixture
def unused_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
