"""The tracking server away at bad moments: whole commands against a real one, and what its store holds afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import environment
from tests.chaos import trials
from tests.studies import small_document
from tests.test_cli import LAYERWISE
from tests.test_server import clean_environ
from tests.trackers import Proxy, Store, TeamServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


def write_study(root: Path, name: str, **changes: Any) -> None:
    """Two arms, two blocks of seeds, a network to choose; so many epochs take about as long as publishing them."""
    data = {"source": "blobs", "samples": 120, "split": {"train": 60, "validation": 20, "test": 40}}
    document = small_document(2, name=name, data=data, seeds=11, arms=["greedy", "end_to_end"])
    document["training"]["epochs"] = 3000
    (root / "study.yaml").write_text(yaml.safe_dump(document | changes))


def stored(root: Path) -> dict[str, int]:
    """The results on disk, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in environment.results_folder(root).glob("[!.]*")}


@dataclass(frozen=True)
class Ended:
    """How a command ended, what it said, and how long it took."""

    status: int
    out: str
    err: str
    seconds: float


class Command:
    """``layerwise run`` on the root's study, against a tracking server."""

    def __init__(self, root: Path, url: str) -> None:
        environ = clean_environ(LAYERWISE_ROOT=str(root), MLFLOW_TRACKING_URI=url)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.root, self.begun = root, time.monotonic()
        self.process = subprocess.Popen(
            [*LAYERWISE, "run", "study.yaml"], cwd=root, env=environ, process_group=0, text=True, **pipes
        )

    def wait_for_results(self, number: int = 1) -> None:
        """Return when so many results are on disk: the data are the first, a stage the second."""
        while len(stored(self.root)) < number and self.process.poll() is None:
            time.sleep(0.05)

    def end(self) -> Ended:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=900)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        ended = Ended(self.process.returncode, out, err, time.monotonic() - self.begun)
        print(f"status {ended.status} after {ended.seconds:.0f} s\n{out}{err}")
        assert "Traceback" not in out + err
        return ended


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    server = TeamServer(tmp_path_factory.mktemp("server"))
    try:
        yield server.start()
    finally:
        server.stop()


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nobody disturbs, and how long it goes on after its first result."""

    state: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    write_study(root, "undisturbed")
    command = Command(root, server.url)
    command.wait_for_results()
    begun = time.monotonic()
    assert (ended := command.end()).status == 0, ended
    state = Store(server, "undisturbed").state()
    assert {status for _, status in state["runs"]} == {"FINISHED"}
    assert [len(state[kind]) for kind in ("runs", "models")] == [1 + 2 + 22, 11 * 2 + 11]
    return Undisturbed(state, time.monotonic() - begun)


names = (f"away-{number}" for number in count())


@pytest.fixture
def asked(server: TeamServer, tmp_path: Path) -> Iterator[str]:
    """The name of a new study in the test's root; the server is there again afterwards."""
    name = next(names)
    write_study(tmp_path, name)
    yield name
    server.signal(signal.SIGCONT)
    if server.process is None:
        server.start()


def completed(root: Path, first: Ended, server: TeamServer, name: str, expected: Undisturbed) -> None:
    """Make sure that a run, or the next one, has published everything, and computed nothing again."""
    results = stored(root)
    if first.status != 0:
        assert first.status == 1, "trained, not published"
        (line,) = first.err.splitlines()
        assert line.startswith(f"layerwise: trained, not published: the tracking store {server.url} does not answer")
        assert line.endswith("; run again to publish it")
        assert Command(root, server.url).end().status == 0
        assert stored(root) == results, "a stage that was stored has been computed again"
    state = Store(server, name).state()
    for kind, found in expected.state.items():
        assert state[kind] == found, kind
    last = Command(root, server.url).end()
    assert (last.status, "nothing trained" in last.out) == (0, True)


@pytest.mark.parametrize("number", trials.numbers(few=3))
def test_killed_and_restarted(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A server that is killed while a study runs, and comes back a while later, ends up holding everything once."""
    drawn = trials.chance("restarted", number)
    command = Command(tmp_path, server.url)
    command.wait_for_results()
    time.sleep(drawn.random() * undisturbed.seconds)
    server.stop()
    time.sleep(drawn.random() * 20)
    server.start()
    completed(tmp_path, command.end(), server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_killed_and_not_restarted(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A server that is killed and stays away costs a minute at the end, and the next run publishes."""
    command = Command(tmp_path, server.url)
    command.wait_for_results()
    time.sleep(trials.chance("not restarted", number).random() * undisturbed.seconds)
    was_under_way = command.process.poll() is None
    server.stop()
    ended = command.end()
    assert ended.status == (1 if was_under_way else 0)
    server.start()
    completed(tmp_path, ended, server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=2))
def test_paused_for_a_minute(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A server that is stopped for 60 s takes what waits for it when it goes on, whatever it then still carries out."""
    command = Command(tmp_path, server.url)
    command.wait_for_results()
    time.sleep(trials.chance("paused", number).random() * undisturbed.seconds)
    server.signal(signal.SIGSTOP)
    time.sleep(60)
    server.signal(signal.SIGCONT)
    completed(tmp_path, command.end(), server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_absent_from_the_start(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Without a server a study trains all the same, and says so in one line; the next run only publishes."""
    server.stop()
    ended = Command(tmp_path, server.url).end()
    assert ended.status == 1, number
    server.start()
    completed(tmp_path, ended, server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=2))
def test_appearing_in_mid_run(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A server that comes while a study trains without it gets everything in the same run, or in the next."""
    server.stop()
    command = Command(tmp_path, server.url)
    command.wait_for_results()
    time.sleep(trials.chance("appearing", number).random() * undisturbed.seconds)
    server.start()
    completed(tmp_path, command.end(), server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_every_fifth_answer_is_lost(
    number: int, server: TeamServer, asked: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """A proxy that carries every request out and loses every fifth answer doubles nothing, and fails nothing."""
    seen = count(trials.chance("lost", number).randrange(5))
    with Proxy(server.port, lambda _: "answer" if next(seen) % 5 == 4 else "pass") as proxy:
        ended = Command(tmp_path, proxy.url).end()
    print(f"{len(proxy.lost)} of {proxy.seen} answers lost")
    assert (ended.status, ended.err) == (0, "")
    completed(tmp_path, ended, server, asked, undisturbed)


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_every_answer_takes_two_seconds(number: int, server: TeamServer, tmp_path: Path) -> None:
    """A slow server holds no training back: only the end takes longer, and shows that it goes on."""
    states, ends = {}, {}
    for name, delay in {f"quick-{number}": 0.0, f"slow-{number}": 2.0}.items():
        root = tmp_path / name
        root.mkdir()
        write_study(root, name, seeds=1, arms=["greedy"])
        with Proxy(server.port, delay=delay) as proxy:
            command = Command(root, proxy.url)
            command.wait_for_results(5)  # data, and of two depths a stage and its scores
            trained = time.monotonic() - command.begun
            ended = command.end()
        assert (ended.status, ended.err) == (0, "")
        states[name], ends[name] = Store(server, name).state(), (trained, ended.seconds, proxy.seen)
    print(f"seconds until trained, seconds in all, requests: {ends}")
    quick, slow = states.values()
    assert quick == slow
