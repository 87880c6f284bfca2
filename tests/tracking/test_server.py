"""A team's server in place of the file below the root: the same calls, over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from tasks.tracking.answers import RESULTS, finished_study_run, stored_answer
from tasks.tracking.publishing import Point, Publisher
from tasks.tracking.registry import Candidate, register, registered_version
from tasks.tracking.runs import close_runs, open_runs
from tasks.tracking.store import open_store
from tests.studies import small


@pytest.fixture
def server(root, monkeypatch):
    """A real MLflow server with a store of its own; MLFLOW_TRACKING_URI names it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    place = root / "server"
    place.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{place}/team.db", "--artifacts-destination", str(place / "artifacts")]
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # half of its start, for nothing used here
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command + stores, stdout=log, stderr=log)
    try:
        for _ in range(120):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield place
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_study_is_tracked_on_a_server(server, root, capfd):
    """Runs, metrics, artifacts and the answer go through a server as they go to a file, once each and quietly."""
    study, client = small(seeds=2), open_store(root)
    tables = []
    for _ in range(2):
        tree = open_runs(
            client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={"layerwise.a": "b"}, root=root
        )
        publisher = Publisher(client, tree)
        for seed in (0, 1):
            points = [Point("test_accuracy", 0.1 + seed / 3, step, 1) for step in (1, 2, 3)]
            tables.append(publisher.metrics(tree.seed_run("greedy", seed), points))
        publisher.table(tree.study_run_id, RESULTS, pd.DataFrame({"mean": [1 / 3]}))
        close_runs(client, tree)
    assert tables == [3, 3, 0, 0]
    answer = stored_answer(client, finished_study_run(client, study.name, study.digest()))
    assert answer.missing == ()
    assert answer.table["mean"].tolist() == [1 / 3]
    assert len(client.search_runs([tree.experiment_id])) == 4
    assert list((server / "artifacts").rglob(RESULTS)), "the server decides where artifacts go"
    assert not (root / "mlruns").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_network_is_registered_on_a_server(root, capfd):
    """The version is made once, and again where it was deleted; it loads from where the server keeps the model."""
    study, client = small(seeds=2), open_store(root)
    tree = open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=root)
    run_id = tree.seed_run("greedy", 1)
    model = client.create_logged_model(
        tree.experiment_id, "depth-02", source_run_id=run_id, tags={"layerwise.digest": "weights"}
    )
    (root / "MLmodel").write_text("flavors: {}")
    client.log_model_artifact(model.model_id, str(root / "MLmodel"))
    client.finalize_logged_model(model.model_id, "READY")
    candidate = Candidate("greedy", 2, 1, "depth-02", "What it is")
    assert registered_version(client, study.name, tree.run_key) is None
    assert [register(client, tree, candidate, study=study.name) for _ in range(2)] == ["1", "1"]
    version = client.get_model_version_by_alias(study.name, "chosen")
    assert (str(version.version), version.run_id, version.description) == ("1", run_id, "What it is")
    assert version.tags["layerwise.run_key"] == tree.run_key
    assert str(registered_version(client, study.name, tree.run_key).version) == "1"
    loaded = mlflow.artifacts.download_artifacts("models:/small@chosen/MLmodel", dst_path=str(root / "loaded"))
    assert Path(loaded).read_text() == "flavors: {}"
    client.delete_model_version(study.name, "1")
    assert registered_version(client, study.name, tree.run_key) is None
    assert register(client, tree, candidate, study=study.name) == "2"
    assert "mlflow.modelVersions" in client.get_logged_model(model.model_id).tags
    assert capfd.readouterr() == ("", "")
