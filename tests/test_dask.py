"""Studies on real Dask workers: the bits of the local run, whatever the study; and a cluster that exists already."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import layerwise
from flows import environment, server
from flows.cluster import Scale
from flows.launching import Incomplete
from flows.study import run_study
from flows.trained import Outcome
from layerwise import Study
from layerwise.study import load
from tasks.results import results_block
from tasks.tracking.store import open_store
from tests.studies import small, small_document
from tests.test_cli import ask, begin, clean_environ, end
from tests.test_growing import ending
from tests.trackers import unused_port

pytestmark = pytest.mark.slow

TWO = Scale(workers=2)

LAYERS = '''"""A layer of the user's own, which says which process trains with it."""
import os, pathlib
import keras


def layer(units):
    (pathlib.Path(__file__).parent / f"process-{os.getpid()}").touch()
    return keras.layers.Dense(units, activation="tanh")
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root with its servers."""
    root = tmp_path_factory.mktemp("lab")
    before = dict(os.environ)
    environment.prepare(root)
    with server.start(root) as prefect:
        open_store(root)
        with prefect.ready():
            yield root
    os.environ.clear()
    os.environ.update(before)


def run(root: Path, study: Study, scale: Scale | None = TWO) -> Outcome:
    """Run a study as the command does."""
    storage = results_block(environment.results_folder(root))
    try:
        return run_study.with_options(result_storage=storage)(study, "", scale)
    except Incomplete as ended:
        return ended.outcome


def check(outcome: Outcome, study: Study) -> None:
    """An outcome has exactly the scores of the plain loop, in its order."""
    assert (outcome.failures, outcome.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(outcome.metrics, layerwise.run(study).metrics(), check_exact=True)


def test_arms_with_a_common_prefix_have_the_bits_of_the_plain_loop(lab: Path):
    """Blocks of arms that share stages score as if one process had trained them, each stage computed once."""
    tune = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 0.001}}
    arms = {"greedy": "greedy", "tuned": {"fine_tune": tune}, "frozen": "random_frozen"}
    study = small(depth=2, name="shared", arms=arms, seeds=12)
    check(run(lab, study), study)
    times = (
        "SELECT name, COUNT(*) FROM task_run WHERE state_name = 'Completed' AND name LIKE '%seeds 0-9: {}%' GROUP BY 1"
    )
    prefect = environment.prefect_home(lab) / "prefect.db"
    done = dict(ask_at(prefect, times.format("add layer 2")))
    assert done == {"greedy seeds 0-9: add layer 2": 1}, "a stage that arms share was trained twice"


def ask_at(database: Path, query: str) -> list[Any]:
    import sqlite3
    from contextlib import closing

    server.deliver()
    with closing(sqlite3.connect(database)) as store:
        return store.execute(query).fetchall()


def test_arms_that_grow_by_rule_grow_alike(lab: Path):
    """The first blocks settle in a worker how deep an arm becomes; all others are as deep, with the same bits."""
    study = ending()
    outcome = run(lab, study)
    check(outcome, study)
    assert [outcome.study.procedure(arm).depth for arm in study.arms] == [3, 2, 3]


def test_looks_at_the_claims_come_when_they_do(lab: Path):
    """A study that stops when its claims are decided stops after as many seeds."""
    claim = {"kind": "bound", "arm": "greedy", "metric": "test_accuracy", "at_least": 0.0}
    study = small(depth=2, name="stops", seeds=40, claims={"low": claim}, stop={"every": 10})
    outcome = run(lab, study)
    assert outcome.seeds == layerwise.run(study).metrics()["seed"].max() + 1
    check(outcome, study)


def test_layers_of_the_users_own_train_in_workers(lab: Path, tmp_path: Path):
    """A module beside the study file is found by workers, which train with it; the flow's process does not."""
    (tmp_path / "own_layers_for_dask.py").write_text(LAYERS)
    custom = {"kind": "custom", "function": "own_layers_for_dask:layer", "options": {"units": 4}}
    document = small_document(name="own", network={"layers": [custom]}, seeds=11)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    study = load(tmp_path / "own.yaml")
    outcome = run(lab, study)
    processes = {int(file.name.removeprefix("process-")) for file in tmp_path.glob("process-*")}
    assert len(processes - {os.getpid()}) == 2
    check(outcome, study)


LOADER = '''"""Data of the user's own, which say which process makes them."""
import os, pathlib
import numpy as np


def rows(number):
    (pathlib.Path(__file__).parent / f"made-{os.getpid()}").touch()
    inputs = np.random.default_rng(1).normal(size=(number, 3))
    return inputs, (inputs.sum(axis=1) > 0).astype(int)
'''


def test_data_of_the_users_own_function_train_in_workers(lab: Path, tmp_path: Path):
    """Data that a loader beside the study file makes are made where the study is read, and workers find them."""
    (tmp_path / "own_rows_for_dask.py").write_text(LOADER)
    data = {"source": "loader", "loader": "own_rows_for_dask:rows", "options": {"number": 60}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(small_document(name="loaded", data=data, seeds=11)))
    study = load(tmp_path / "own.yaml")
    check(run(lab, study), study)
    assert [file.name for file in tmp_path.glob("made-*")] == [f"made-{os.getpid()}"]


def test_a_block_that_fails_does_not_stop_the_others(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What fails in a worker is said as it is locally, and all other blocks are trained."""
    (tmp_path / "failing_for_dask.py").write_text(
        "import keras, os\n\n\ndef layer(units):\n    if os.environ.get('DASK_FAILS_HERE') != str(os.getpid()):\n"
        "        raise ValueError('not in a worker')\n    return keras.layers.Dense(units)\n"
    )
    monkeypatch.setenv("DASK_FAILS_HERE", str(os.getpid()))
    custom = [{"kind": "custom", "function": "failing_for_dask:layer", "options": {"units": 4}}]
    arms = {"greedy": "greedy", "own": {"network": {"layers": custom}}}
    (tmp_path / "failing.yaml").write_text(yaml.safe_dump(small_document(depth=1, name="failing", arms=arms, seeds=2)))
    outcome = run(lab, load(tmp_path / "failing.yaml"))
    assert list(outcome.failures) == ["own, seeds 0-9"]
    assert "not in a worker" in outcome.failures["own, seeds 0-9"]
    assert set(outcome.metrics["arm"]) == {"greedy"}


# --- a cluster that exists ---------------------------------------------------------------------------------


@pytest.fixture
def scheduler(root: Path) -> Iterator[str]:
    """The address of a Dask scheduler without workers."""
    address = f"tcp://127.0.0.1:{unused_port()}"
    command = ["-m", "distributed.cli.dask_scheduler", "--host", address, "--dashboard-address", "127.0.0.1:0"]
    environ = clean_environ() | {"DASK_LOGGING": "{'distributed': 'critical'}"}
    with subprocess.Popen([sys.executable, *command], cwd=root, env=environ) as process:
        try:
            yield address
        finally:
            process.terminate()


def test_workers_that_exist_train_or_are_refused(root: Path, scheduler: str):
    """Without workers, and with one of another environment, a run is refused; with those of `layerwise worker` it is
    as the plain loop, twice, though the second has another Prefect server; they end with their scheduler."""
    (root / "study.yaml").write_text(yaml.safe_dump(small_document(depth=2, seeds=11)))
    asked = ("run", "study.yaml", "--runner", "dask", "--address", scheduler)
    none = end(begin(root, *asked))
    assert (none.status, none.out) == (1, "")
    assert (
        none.err
        == f"layerwise: --address {scheduler}: the cluster has no worker; start some: layerwise worker {scheduler}\n"
    )
    other = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-dashboard"]
    with subprocess.Popen(other, cwd=root, env=clean_environ(), stderr=subprocess.DEVNULL) as process:
        refused = wait_for_workers(root, asked)
        process.terminate()
    assert refused.status == 2
    assert re.fullmatch(
        r"layerwise: --address \S+: worker \S+ is not as this process: CUDA_VISIBLE_DEVICES is unset there and -1 here;"
        r" start it with `layerwise worker`, from the same code and packages\.\n",
        refused.err,
    )
    workers = begin(root, "worker", scheduler, "--workers", "1")
    try:
        assert "1 worker, " in (workers.stdout.readline() if workers.stdout else "")
        for options in ((), ("--repeat", "again")):
            ended = end(begin(root, *asked, *options))
            assert (ended.status, ended.err) == (0, ""), ended
    finally:
        workers.terminate()
        workers.communicate(timeout=30)
    assert workers.returncode == 1
    scores = "SELECT DISTINCT m.key, m.step, m.value, t.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid"
    rows = ask(root, f"{scores} AND t.key = 'layerwise.seed' WHERE m.key = 'test_loss'")
    plain = layerwise.run(small(depth=2, seeds=11)).metrics()
    expected = {(row.depth, str(row.seed)): row.test_loss for row in plain.itertuples()}
    assert {(step, seed): value for _, step, value, seed in rows} == expected
    assert len(rows) == len(expected), "a repeat has other bits"


def wait_for_workers(root: Path, asked: tuple[str, ...]) -> Any:
    """The command's end once the cluster has a worker."""
    for _ in range(20):
        ended = end(begin(root, *asked))
        if "no worker" not in ended.err:
            return ended
    pytest.fail("the worker did not come")
