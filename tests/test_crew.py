"""Which blocks go to workers when, what is refused before any work, and what travels back: without a cluster."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import dask
import httpx
import psutil
import pytest
from distributed import Client, LocalCluster, Security

from flows import cluster, crew, elsewhere, environment
from flows.cluster import Cluster, Scale, WorkersGone, is_loopback, no_answer, refuse_too_many, share_of_memory
from flows.environment import EnvironmentProblem
from flows.printing import in_one_line
from flows.worker import worker_command
from layerwise import datasets, imported, sizes, stages
from layerwise.growing import Growing
from layerwise.study import Study, StudyError
from tasks import blocks
from tasks.blocks import BlockFailed, Group, Surroundings
from tasks.results import StorageProblem
from tests.studies import small
from tests.test_cli import refusal, write_study
from tests.trackers import unused_port

ARMS = {
    "greedy": "greedy",
    "tuned": {"fine_tune": {"epochs": 1}},
    "autoencoder": "autoencoder",
    "both": {"objective": "reconstruction", "fine_tune": {"objective": "labels", "epochs": 1}},
    "end_to_end": "end_to_end",
}
"""Five arms: greedy and tuned have their pretraining in common, and so have autoencoder and both."""


class Pretend:
    """A cluster of two workers that train one group at each look: leave a file for each of its digests."""

    size = 2

    def __init__(self, workers: Any) -> None:
        self.workers, self.runner, self.begun, self.under_way = workers, self, [], {}

    def submit(self, _task: object, parameters: dict[str, Any]) -> Any:
        """Take a group, which must not want what another is about to make."""
        group, place = parameters["group"], len(self.begun)
        wanted = self.workers._missing(self.workers.groups.index(group.blocks))
        for other in self.under_way.values():
            assert not wanted & other.wanted, f"{group.name} trains what another trains"
        self.begun.append(group.name)
        self.under_way[place] = Promise(wanted, self.workers.folder)
        return self.under_way[place]

    def look(self) -> None:
        """The one that came first is done."""
        if self.under_way:
            self.under_way.pop(min(self.under_way)).fulfil()


class Promise:
    """What is with a worker, as Prefect and Dask hand it out."""

    def __init__(self, wanted: set[str], folder: Path) -> None:
        self.wanted, self.folder, self.fulfilled, self.wrapped_future = wanted, folder, False, self

    def fulfil(self) -> None:
        for digest in self.wanted:
            (self.folder / digest).touch()
        self.fulfilled = True

    def done(self) -> bool:
        return self.fulfilled

    def add_done_callback(self, _function: object) -> None:
        """Nobody is called: who waits looks again at once."""


@pytest.fixture
def handed_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Study], tuple[list[str], list[str]]]:
    """The groups of a study in the order in which they went to workers, and in which the flow takes them in."""
    environment.prepare(root)
    monkeypatch.setattr(crew, "TICK", 0)

    def order(study: Study) -> tuple[list[str], list[str]]:
        data = datasets.generate(study.data)
        workers = crew._Workers(Scale(workers=2), None, Growing(study), data)
        workers.cluster = pretend = Pretend(workers)
        _, groups = next(stages.rounds(study, data.digest))
        taken = [
            Group(blocks, workers.growing, (), workers.surroundings).name for blocks, _ in workers.trained(groups, None)
        ]
        return pretend.begun, taken

    return order


def test_blocks_with_stages_in_common_do_not_train_at_once(handed_out: Callable[[Study], Any]):
    """Every block goes to a worker once, none while another makes what it wants; the flow takes them in in order."""
    study = small(arms=ARMS, seeds=20)
    begun, taken = handed_out(study)
    assert taken == [f"{arm} seeds {first}-{first + 9}" for arm in ARMS for first in (0, 10)]
    assert sorted(begun) == sorted(taken)
    assert begun != taken, "blocks that could train at once waited"


def test_what_is_stored_is_not_handed_out(handed_out: Callable[[Study], Any]):
    """A study of which every stage is stored goes to no worker; with more seeds, only the new blocks do."""
    assert len(handed_out(small(arms=ARMS, seeds=10))[0]) == 5
    assert handed_out(small(arms=ARMS, seeds=10))[0] == []
    begun, taken = handed_out(small(arms=ARMS, seeds=11))
    assert len(taken) == 10
    assert all("seeds 10-19" in name for name in begun)


def test_what_another_made_meanwhile_is_not_trained_again(handed_out: Callable[[Study], Any]):
    """An arm that differs by nothing but its name is found, not trained."""
    begun, taken = handed_out(small(arms={"greedy": "greedy", "again": {"objective": "supervised"}}, seeds=10))
    assert (begun, len(taken)) == (["greedy seeds 0-9"], 2)


# --- what travels ------------------------------------------------------------------------------------------


def a_group(study: Study) -> Group:
    data = datasets.generate(study.data)
    block = next(stages.blocks(study, "greedy", data.digest))
    return Group((block,), Growing(study), ("/somewhere",), Surroundings.here(["HOME"], []))


def test_a_group_travels_whole():
    """What a worker gets is what was sent, digests and all."""
    group = a_group(small(depth=2))
    there: Group = pickle.loads(cloudpickle.dumps(group))  # noqa: S301 - our own words
    assert (there.blocks, there.places, there.surroundings) == (group.blocks, group.places, group.surroundings)
    assert there.growing.study.digest() == group.growing.study.digest()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (StorageProblem("the disk is full"), StorageProblem("the disk is full")),
        (StudyError("no such function"), StudyError("no such function")),
        (ValueError("a\n b"), BlockFailed("ValueError: a b")),
    ],
)  # fmt: skip
def test_errors_travel_as_words(raised: Exception, expected: Exception):
    """Errors that decide how a run goes on travel as they are, all others as the line that the local run prints."""
    error = blocks._that_travels(raised)
    assert (type(error), str(error)) == (type(expected), str(expected))
    if type(error) is BlockFailed:
        assert str(error) == in_one_line(raised)


def test_a_server_that_is_gone_is_known_across_processes():
    """An error that comes from Prefect's server being gone still says so, however it was wrapped."""
    wrapped = RuntimeError("no state")
    wrapped.__cause__ = httpx.ConnectError("refused")
    assert isinstance(blocks._that_travels(wrapped), httpx.TransportError)


def test_a_worker_that_is_not_as_the_flow_trains_nothing(monkeypatch: pytest.MonkeyPatch):
    """Other threads, another version or other code of the user's are named, with what is here and what there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    ours = Surroundings.here(["OMP_NUM_THREADS", "XLA_FLAGS"], [])
    blocks._refuse_other(ours)
    monkeypatch.setenv("XLA_FLAGS", "--fast")
    with pytest.raises(
        StudyError, match="a worker is not as this process: XLA_FLAGS is --fast there and unset here; run again, with"
    ):
        blocks._refuse_other(ours)
    older = dataclasses.replace(ours, installed={**ours.installed, "keras": "3.0"})
    assert older.difference(ours).startswith("keras is 3.15")
    assert (
        dataclasses.replace(ours, functions={"my:layer": "abc"}).difference(ours)
        == "my:layer is unset there and abc here"
    )


def test_the_users_folders_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where modules of the user's are looked for can be told to another process, in order and once each."""
    monkeypatch.setattr(imported, "_places", [])
    monkeypatch.setattr("sys.path", [])
    for folder in (tmp_path, Path("/"), tmp_path):
        imported.look_in(folder)
    assert imported.places() == (str(tmp_path.resolve()), "/")


# --- what is refused ---------------------------------------------------------------------------------------

REFUSED = {
    "--workers 2": "--workers and --address say how Dask trains; add --runner dask, or leave them out.",
    "--address tcp://127.0.0.1:1": "--workers and --address say how Dask trains; add --runner dask, or leave them out.",
    "--runner dask --address 10.0.0.1:8786": "--address '10.0.0.1:8786': expected tcp://host:port or tls://host:port",
    "--runner dask --address tcp://10.0.0.1:0": "--address 'tcp://10.0.0.1:0': expected tcp://host:port",
    "--runner dask --workers 2 --address tcp://127.0.0.1:1": "--workers starts processes here, and --address names oth",
    "--runner dask --workers 100000": "small: a block would need about 8.. MB of memory, and each of 100000 workers",
    "--runner dask --address tcp://10.0.0.1:8786": "--address tcp://10.0.0.1:8786: workers elsewhere need a Prefect"
    " server that they can reach, and PREFECT_API_URL is unset; set it to the URL of one that is not on loopback.",
}  # fmt: skip


@pytest.mark.parametrize("options", REFUSED)
def test_a_wrong_request_is_refused_at_once(options: str, tmp_path: Path):
    """In one line that says what to change, before anything is made."""
    write_study(tmp_path)
    assert re.match(REFUSED[options], refusal(tmp_path, "run", "study.yaml", *options.split()))
    assert not (tmp_path / ".layerwise").exists()


def test_a_cluster_elsewhere_needs_what_it_can_reach(monkeypatch: pytest.MonkeyPatch):
    """A Prefect server that is not on loopback, and a folder of results that is named for it."""
    there = Scale(address="tcp://lab.example:8786")
    monkeypatch.delenv("LAYERWISE_ROOT", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://localhost:4200/api")
    with pytest.raises(
        EnvironmentProblem, match="PREFECT_API_URL is http://localhost:4200/api; set it to the URL of one"
    ):
        there.refuse(small())
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    with pytest.raises(
        EnvironmentProblem, match="LAYERWISE_ROOT is unset; set it to a shared folder that has the same"
    ):
        there.refuse(small())
    monkeypatch.setenv("LAYERWISE_ROOT", "/shared")
    there.refuse(small())
    assert [is_loopback(f"tcp://{host}:1") for host in ("127.0.0.1", "127.8.0.1", "localhost", "10.0.0.1")] == [
        True, True, True, False
    ]  # fmt: skip


def test_a_block_must_fit_into_a_workers_share(monkeypatch: pytest.MonkeyPatch):
    """A worker may have its share of the machine; a study whose block needs more is told how many workers fit."""
    monkeypatch.setattr(sizes, "machine_bytes", lambda: 4_000_000_000)
    assert share_of_memory(3) == 1_000_000_000
    refuse_too_many(small(), 3)
    with pytest.raises(
        StudyError, match=r"about 8\d\d MB of memory, and each of 4 workers may have 800 MB.*--workers 3\."
    ):
        refuse_too_many(small(), 4)
    monkeypatch.setattr(sizes, "machine_bytes", lambda: 1_000_000_000)
    with pytest.raises(StudyError, match="use --runner local"):
        refuse_too_many(small(), 1)


def test_a_port_that_says_nothing_is_no_scheduler(monkeypatch: pytest.MonkeyPatch):
    """Whoever takes a connection and does not answer is left after a moment."""
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert no_answer(f"tcp://127.0.0.1:{listener.getsockname()[1]}").startswith("silence")


def test_a_worker_without_a_scheduler_says_what_starts_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """One line with the address and the command of a scheduler that only this machine reaches."""
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    monkeypatch.setattr(environment, "prepare", lambda _root: None)
    address = f"tcp://127.0.0.1:{unused_port()}"
    assert worker_command(address, workers=1, root=tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"layerwise: no Dask scheduler answers at {address} (")
    assert said.endswith("; start one, such as `dask scheduler --host 127.0.0.1 --dashboard-address 127.0.0.1:0`.\n")


def test_a_scheduler_that_speaks_tls_is_asked_with_dasks_certificates():
    """Those that Dask's settings name are shown; without any it is a line that says where to name them."""
    own = Security.temporary()
    named = {"ca-file": own.tls_ca_file, "client.cert": own.tls_client_cert, "client.key": own.tls_client_key}
    with LocalCluster(
        n_workers=0, processes=False, protocol="tls://", host="127.0.0.1", security=own, dashboard_address=None
    ) as local:
        address = local.scheduler_address
        assert no_answer(address) == (
            "Dask has no certificates for tls://; name them in DASK_DISTRIBUTED__COMM__TLS__CA_FILE,"
            " DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
        )
        with dask.config.set({f"distributed.comm.tls.{name}": value for name, value in named.items()}):
            assert no_answer(address) == ""


def an_answer(**changes: Any) -> elsewhere._Answer:
    said = elsewhere._Answer(Surroundings({}, {}, {"keras": "3"}), "seen", reaches=True, processor="p")
    return dataclasses.replace(said, **changes)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (an_answer(), ""),
        (an_answer(token=""), "does not see /shared; set LAYERWISE_ROOT to a shared folder"),
        (an_answer(reaches=False), "does not reach Prefect's server at http://prefect.example/api; set"),
        (an_answer(surroundings=Surroundings({}, {}, {"keras": "4"})), "is not as this process: keras is 4 "),
        (ModuleNotFoundError("No module named 'flows'"), r"cannot be asked \(ModuleNotFoundError: No mod"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_worker_is_said(theirs: Any, expected: str):
    """Each of what a worker elsewhere can lack has its words, and what to do about it."""
    question = elsewhere._Question((), (), (), Path("/shared/.layerwise/token"), "http://prefect.example/api")
    assert re.match(expected, elsewhere._wrong(an_answer(), theirs, question))
    assert expected or elsewhere._wrong(an_answer(), theirs, question) == ""


def test_a_cluster_without_workers_is_left(monkeypatch: pytest.MonkeyPatch):
    """It is said when a worker goes; a cluster that has none for too long ends the run."""
    there: dict[str, Any] = {"workers": {"a": {}, "b": {}}}
    told: list[str] = []
    monkeypatch.setattr(cluster.progress, "tell", told.append)

    class Client:
        scheduler = SimpleNamespace(identity=lambda n_workers: there if n_workers == -1 else {"workers": {}})

        def sync(self, function: Callable[..., Any], **arguments: Any) -> Any:
            if not there:
                raise OSError("connection refused")
            return function(**arguments)

    class Runner:
        client = Client()

    watched = Cluster(Runner())  # ty: ignore[invalid-argument-type]
    watched.look()
    assert (watched.size, told) == (2, [])
    held = there.pop("workers")
    watched.look()
    assert (watched.size, told) == (2, []), "a scheduler that does not answer is no worker that has gone"
    there["workers"] = held
    del there["workers"]["a"]
    watched.look()
    assert told == ["A worker has gone; its block goes on elsewhere, from the stages that are stored."]
    there["workers"].clear()
    watched.look()
    monkeypatch.setattr(cluster, "PATIENCE", -1)
    with pytest.raises(WorkersGone, match=r"No worker has been there for .* s; start some, and run again\."):
        watched.look()


def test_workers_that_are_there_are_seen(monkeypatch: pytest.MonkeyPatch):
    """Whatever Dask's client remembers meanwhile, no look misses a worker, and nobody is told that one has gone."""
    told: list[str] = []
    monkeypatch.setattr(cluster.progress, "tell", told.append)
    quickly = {"distributed.client.scheduler-info-interval": "2ms"}
    with (
        dask.config.set(quickly),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, protocol="inproc://", dashboard_address=None)
        as local,
        Client(local, set_as_default=False) as client,
    ):  # fmt: skip
        watched = Cluster(SimpleNamespace(client=client))  # ty: ignore[invalid-argument-type]
        for _ in range(200):
            watched.look()
            assert (watched.size, told) == (2, [])


def surroundings_there(names: tuple[str, ...]) -> tuple[dict[str, str], set[str]]:
    """In a worker: some variables, and which libraries it has loaded."""
    return {name: os.environ.get(name, "") for name in names}, {"tensorflow", "keras"} & set(sys.modules)


def test_the_cluster_of_a_run_is_its_own(root: Path):
    """Its processes have our environment before they load what reads it, their share of memory and one thread; they
    listen on loopback alone, over TLS, so that nobody without its key is heard; and they end with it."""
    environment.prepare(root)
    wanted = environment.of_workers(root)
    with cluster.opened(Scale(workers=1), 3) as own:
        client, (address,) = own.runner.client, own.workers
        assert re.match(r"tls://127\.0\.0\.1:\d+$", address)
        known = client.scheduler_info(n_workers=-1)["workers"][address]
        assert (known["nthreads"], known["memory_limit"]) == (1, share_of_memory(1))
        assert client.run(surroundings_there, tuple(wanted)) == {address: (wanted, set())}
        (there,) = client.run(os.getpid).values()
        os.kill(there, signal.SIGINT)  # as a terminal does, whose Ctrl-C is for the command
        listening = [
            one
            for pid in (os.getpid(), there)
            for one in psutil.Process(pid).net_connections()
            if one.status == "LISTEN"
        ]
        assert len(listening) >= 3
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        for place in (client.scheduler.address, address):
            assert no_answer(place.replace("tls://", "tcp://")) != ""
        assert client.run(os.getpid) == {address: there}
    assert not psutil.pid_exists(there)
