"""A team's server in place of the file below the root: the same calls, over HTTP, whatever becomes of a connection."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from flows.judging import judge_run
from layerwise.study import Study
from tasks.tracking import manifest
from tasks.tracking.accepted import ACCEPTED, accepted_run
from tasks.tracking.answers import RESULTS, finished_study_run, stored_answer, stored_file
from tasks.tracking.folders import MLMODEL as DESCRIPTION
from tasks.tracking.folders import ModelFolder
from tasks.tracking.histories import histories
from tasks.tracking.publishing import Point, Publisher, SeedModel
from tasks.tracking.registry import Candidate, Shelf, register, registered_version
from tasks.tracking.runs import close_runs, open_runs, tree_runs
from tasks.tracking.store import TrackerAway, TrackingError, WrongRequest, open_store
from tasks.tracking.tracked import append_record, find_study_run, read_seed_runs
from tasks.tracking.verified import NETWORK, find_model, verified
from tests.studies import small
from tests.trackers import LOSSES, Proxy, Store, TeamServer

SEEDS, DEPTHS = (0,), (1, 2)

WEIGHTS = np.random.default_rng(1).bytes(300_000)
"""What a model's file holds: more than a socket takes at once, so that an upload can break in its midst."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    server = TeamServer(tmp_path_factory.mktemp("server"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client tries again at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


MLMODEL = json.dumps(
    {"signature": ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2))])).to_dict()}
).encode()
"""What a model says of itself, as YAML."""


def model(run_id: str, seed: int, depth: int) -> SeedModel:
    """A model as the flow publishes it, but for its architecture, which takes TensorFlow."""
    folder = ModelFolder({"MLmodel": MLMODEL, "data/model.keras": WEIGHTS})
    template = SimpleNamespace(folder=lambda *_: folder)
    points = [Point(key, seed + depth / 7, depth, depth) for key in ("test_accuracy", "test_loss")]
    return SeedModel(run_id, f"depth-{depth:02d}", depth, template, [], f"weights-{seed}-{depth}", points)  # ty: ignore[invalid-argument-type]


def publish(root: Path, study: Study) -> None:
    """Everything that is sent of a small study, in the order of a run."""
    client = open_store(root)
    tree = open_runs(
        client, study, run_key=study.digest(), repeat="", seeds=SEEDS, provenance={"layerwise.a": "b"}, root=root
    )
    publisher = Publisher(client, tree)
    for seed in SEEDS:
        run_id = tree.seed_run("greedy", seed)
        publisher.metrics(run_id, [Point("live_units", depth, depth, depth) for depth in DEPTHS])
        publisher.models([model(run_id, seed, depth) for depth in DEPTHS])
    arm, rows = tree.arm_run_ids["greedy"], np.zeros((2, 2), np.float32)
    publisher.metrics(arm, [Point("test_accuracy_mean", 1 / 3, depth, depth) for depth in DEPTHS])
    publisher.dataset(
        arm, name="blobs", digest="d1", context="train", source={"source": "blobs"}, features=rows, labels=rows[:, 0]
    )
    publisher.text(tree.study_run_id, "study.yaml", "name: it")
    publisher.tags(tree.study_run_id, {"layerwise.answer": "none"})
    publisher.table(tree.study_run_id, RESULTS, pd.DataFrame({"mean": [1 / 3]}))
    publisher.manifest()
    register(client, tree, Candidate("greedy", 2, 0, "depth-02", "What it is"), shelf=Shelf(study.name, study.name))
    close_runs(client, tree)


@pytest.fixture(scope="module")
def undisturbed(server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """The state that publishing without disturbance leaves, and how many requests that takes."""
    with pytest.MonkeyPatch.context() as patched, Proxy(server.port) as proxy:
        patched.setenv("MLFLOW_TRACKING_URI", proxy.url)
        publish(tmp_path_factory.mktemp("undisturbed"), small(name="undisturbed", seeds=len(SEEDS)))
    return Store(server, "undisturbed").state(), proxy.seen


def test_a_study_is_tracked_on_a_server(
    server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs, metrics, models and the answer go through a server as they go to a file, once each and quietly."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    study, store = small(name="twice", seeds=len(SEEDS)), Store(server, "twice")
    publish(root, study)
    before, client = store.state(), open_store(root)
    publish(root, study)
    assert store.state() == before
    answer = stored_answer(client, finished_study_run(client, study.name, study.digest()))
    assert answer.missing == ()
    assert answer.table["mean"].tolist() == [1 / 3]
    found = manifest.verified(client)
    assert ([study.name for study, _ in found.faults], found.unreached) == ([], True)
    assert {row[1] for row in before["runs"]} == {"FINISHED"}
    assert [len(before[kind]) for kind in ("runs", "points", "models", "data sets")] == [3, 3 * 2 + 2, 2, 1]
    assert len(before["files"]) == 2 * 2 + 3, "the server decides where artifacts go"
    assert not (root / "mlruns").exists()
    assert capfd.readouterr() == ("", "")


def test_a_run_on_a_server_is_read_back_and_gets_records(
    server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and digests of its seeds come back as they were sent; a record is added, and leaves the run whole."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    publish(root, small(name="read-back", seeds=len(SEEDS)))
    client = open_store(root)
    run = find_study_run(client, "read-back")
    (held,) = read_seed_runs(client, run).values()
    assert held.weights == {("depth-01", 1): "weights-0-1", ("depth-02", 2): "weights-0-2"}
    assert held.scores == {
        (key, depth): depth if key == "live_units" else depth / 7
        for key in ("live_units", "test_accuracy", "test_loss")
        for depth in DEPTHS
    }
    append_record(client, run, "reproductions/now.json", "{}", {"layerwise.reproduced": "EXACT"})
    after = client.get_run(run.info.run_id)
    assert stored_file(client, after, "reproductions/now.json") == b"{}"
    assert (after.data.tags["layerwise.reproduced"], after.info.status) == ("EXACT", "FINISHED")
    assert stored_answer(client, after).missing == ()
    with pytest.raises(TrackingError, match=r"holds reproductions/now\.json already"):
        append_record(client, after, "reproductions/now.json", "[]", {})


def test_a_tree_is_read_from_a_server_in_few_requests(
    server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point of thirty runs comes in two requests a metric, the same as asked one by one, doubles included."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    asked, client = small(name="histories", seeds=30), open_store(root)
    tree = open_runs(client, asked, run_key=asked.digest(), repeat="", seeds=range(30), provenance={}, root=root)
    publisher = Publisher(client, tree)
    for seed in range(30):
        keys = ("test_loss", "live_units") if seed else ("test_loss",)
        publisher.metrics(
            tree.seed_run("greedy", seed), [Point(key, seed / 7, depth, 9) for key in keys for depth in (1, 2)]
        )
    client.log_metric(tree.seed_run("greedy", 3), "test_loss", 1e300, timestamp=10, step=2)
    runs = tree_runs(client, tree.experiment_id, tree.run_key)
    with Proxy(server.port) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        found = histories(open_store(root), runs)
        assert proxy.seen == 1 + 2 * 2, "one to open the store"
    for run in runs:
        for key in run.data.metrics:
            own = [(point.value, point.step, point.timestamp) for point in found[run.info.run_id][key]]
            assert sorted(own) == sorted(
                (point.value, point.step, point.timestamp) for point in client.get_metric_history(run.info.run_id, key)
            )
        assert set(found[run.info.run_id]) == set(run.data.metrics)
    assert sum(len(points) for history in found.values() for points in history.values()) == 2 * 30 + 2 * 29 + 1


def test_a_network_is_registered_on_a_server(
    server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The version is made once, and again where it was deleted; it loads from where the server keeps the model."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    study, client = small(name="registered", seeds=2), open_store(root)
    tree = open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=root)
    run_id = tree.seed_run("greedy", 1)
    logged = client.create_logged_model(
        tree.experiment_id, "depth-02", source_run_id=run_id, tags={"layerwise.digest": "weights"}
    )
    (root / "MLmodel").write_text("flavors: {}")
    client.log_model_artifact(logged.model_id, str(root / "MLmodel"))
    client.finalize_logged_model(logged.model_id, "READY")
    candidate = Candidate("greedy", 2, 1, "depth-02", "What it is")
    assert registered_version(client, study.name, tree.run_key) is None
    assert [register(client, tree, candidate, shelf=Shelf(study.name, study.name)) for _ in range(2)] == ["1", "1"]
    version = client.get_model_version_by_alias(study.name, "chosen")
    assert (str(version.version), version.run_id, version.description) == ("1", run_id, "What it is")
    assert version.tags["layerwise.run_key"] == tree.run_key
    assert str(registered_version(client, study.name, tree.run_key).version) == "1"
    loaded = mlflow.artifacts.download_artifacts("models:/registered@chosen/MLmodel", dst_path=str(root / "loaded"))
    assert Path(loaded).read_text() == "flavors: {}"
    client.delete_model_version(study.name, "1")
    assert registered_version(client, study.name, tree.run_key) is None
    assert register(client, tree, candidate, shelf=Shelf(study.name, study.name)) == "2"
    assert "mlflow.modelVersions" in client.get_logged_model(logged.model_id).tags
    assert capfd.readouterr() == ("", "")


def test_an_account_that_may_not_write_is_told(server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read a study and not add to it is told so in one line, and is not taken for a server that is away."""
    with Proxy(server.port, lambda what: "403" if what.endswith("runs/create") else "pass") as guarded:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.url)
        with pytest.raises(TrackingError) as refused:
            publish(root, small(name="forbidden", seeds=len(SEEDS)))
    assert type(refused.value) is WrongRequest
    assert str(refused.value) == (
        f"opening the runs of 'forbidden' failed: our account may not do that at {guarded.url} (403); ask who runs the"
        " server for the permission EDIT there, or rename the study."
    )


ONE, LONG = 1, 3
"""Requests that are lost in a row: one, which MLflow's client sends again by itself, or as many as it sends."""


def lose(loss: str, length: int, *, at: int = 1, of: str = "") -> Callable[[str], str]:
    """The fates of requests of which, from the n-th of some kind on, so many are lost."""
    seen, left = itertools.count(1), iter(range(length))
    begun = False

    def fate(what: str) -> str:
        nonlocal begun
        begun = begun or (what.endswith(of) and next(seen) == at)
        return loss if begun and next(left, None) is not None else "pass"

    return fate


def survives(server: TeamServer, root: Path, name: str, fate: Callable[[str], str]) -> tuple[dict[str, Any], Proxy]:
    """The state after a study was published through a proxy, again for as long as the tracker was away."""
    with pytest.MonkeyPatch.context() as patched, Proxy(server.port, fate) as proxy:
        patched.setenv("MLFLOW_TRACKING_URI", proxy.url)
        for _ in range(LONG + 1):  # opening a store that is away is tried once
            try:
                publish(root, small(name=name, seeds=len(SEEDS)))
                break
            except TrackerAway:
                continue
    return Store(server, name).state(), proxy


@pytest.mark.parametrize(
    ("loss", "length", "of"),
    [
        ("answer", ONE, "POST /api/2.0/mlflow/experiments/create"),
        ("answer", ONE, "POST /api/2.0/mlflow/runs/create"),
        ("answer", ONE, "POST /api/2.0/mlflow/logged-models"),
        ("answer", ONE, "POST /api/2.0/mlflow/runs/outputs"),
        ("answer", ONE, "POST /api/2.0/mlflow/model-versions/create"),
        ("answer", LONG, "POST /api/2.0/mlflow/runs/log-batch"),
        ("upload", LONG, "/data/model.keras"),
        ("request", LONG, "POST /api/2.0/mlflow/runs/update"),
    ],
)
def test_a_connection_that_breaks_costs_nothing(
    server: TeamServer, root: Path, undisturbed: tuple[dict[str, Any], int], loss: str, length: int, of: str
) -> None:
    """Whatever is lost, publishing again ends in the state of an undisturbed run, with nothing missing or doubled."""
    state, proxy = survives(server, root, re.sub("[^a-z]+", "-", f"{loss} {of}".lower()), lose(loss, length, of=of))
    assert len(proxy.lost) == length
    assert state == undisturbed[0]


def test_what_a_publisher_believed_before_a_failure_is_read_again(server: TeamServer, root: Path) -> None:
    """A request may fail and be carried out: the same publisher then goes on from what the store holds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", server.url)
        client, study = open_store(root), small(name="believes", seeds=1)
        tree = open_runs(client, study, run_key=study.digest(), repeat="", seeds=SEEDS, provenance={}, root=root)
        run_id = tree.seed_run("greedy", 0)
        publisher = Publisher(client, tree)
        publisher.metrics(run_id, [Point("live_units", 1, 1, 1)])
        with Proxy(server.port, lose("answer", LONG, of="POST /api/2.0/mlflow/logged-models")) as proxy:
            patched.setenv("MLFLOW_TRACKING_URI", proxy.url)
            publisher.client = open_store(root)
            with pytest.raises(TrackerAway, match=r"does not answer \("):
                publisher.models([model(run_id, 0, 1)])
        assert len(client.search_logged_models([tree.experiment_id])) == LONG
        publisher.client = client
        (made,) = publisher.models([model(run_id, 0, 1)])
        (stands,) = client.search_logged_models([tree.experiment_id])
        assert (stands.model_id, str(stands.status)) == (made, "READY")
        # Somebody else has published meanwhile: that is seen, too.
        client.log_metric(run_id, "live_units", 2, timestamp=7, step=2)
        with pytest.raises(TrackingError, match=r"holds live_units = 1\.0"):
            publisher.metrics(run_id, [Point("live_units", 3, 1, 1)])
        assert publisher.metrics(run_id, [Point("live_units", 2, 2, 9)]) == 0


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("loss", "length"), list(itertools.product(LOSSES, (ONE, LONG))))
def test_a_connection_may_break_at_any_request(
    server: TeamServer, root: Path, undisturbed: tuple[dict[str, Any], int], loss: str, length: int
) -> None:
    """The same at every request in turn."""
    expected, requests = undisturbed
    for at in range(1, requests + 1):
        state, proxy = survives(server, root, f"each-{loss}-{length}-{at}", lose(loss, length, at=at))
        assert state == expected, proxy.lost
    print(f"{requests} of {requests} cuts survived: {loss}, {length} in a row")  # noqa: T201 - what the trial found


def test_a_model_on_a_server_is_verified_before_it_is_handed_out(
    server: TeamServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files come through the server as they were published; one that was changed or lost there is named."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    publish(root, small(name="served", seeds=len(SEEDS)))
    client = open_store(root)
    found = find_model(client, "served")
    location = found.model.artifact_location
    assert location.startswith("mlflow-artifacts:/"), "only the server reaches it"
    assert dict(verified(client, found).files) == {NETWORK: WEIGHTS}
    folder = server.place / "artifacts" / location.removeprefix("mlflow-artifacts:/")
    for path, content in ((NETWORK, WEIGHTS[:-1] + b"!"), (DESCRIPTION, MLMODEL + b"\n"), (NETWORK, None)):
        file, before = folder / path, (folder / path).read_bytes()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(TrackingError, match=rf"^served/1 is not as it was published \({path}\), so it is not lo"):
            verified(client, found)
        file.write_bytes(before)
    assert dict(verified(client, found).files) == {NETWORK: WEIGHTS}


def test_a_server_that_is_away_has_not_lost_what_is_asked_for() -> None:
    """What cannot be read just now is not said to be deleted, or to be somebody else's."""
    with Proxy(0, lambda _: "503") as gone:
        client = mlflow.MlflowClient(gone.url, gone.url)
        version = SimpleNamespace(name="served", version="1", run_id="1" * 32, source="there")
        accepted = SimpleNamespace(
            tracking_uri=gone.url,
            get_experiment=lambda _: SimpleNamespace(tags={ACCEPTED: "1" * 32}),
            get_run=client.get_run,
        )
        for asking in (
            lambda: find_model(client, f"models:/m-{'1' * 32}"),
            lambda: find_model(SimpleNamespace(
                tracking_uri=gone.url, get_run=client.get_run, get_model_version=lambda *_: version,
                get_registered_model=lambda _: SimpleNamespace(name="served", aliases={})), "served/1"),
            lambda: accepted_run(accepted, "1"),
            lambda: judge_run(accepted, SimpleNamespace(info=SimpleNamespace(experiment_id="1"))),
        ):  # fmt: skip
            with pytest.raises(TrackerAway, match=r"does not answer \(503\)"):
                asking()
