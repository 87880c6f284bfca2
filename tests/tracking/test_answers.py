"""Reading a finished study back: whole, or with what is missing in words."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from tasks.tracking.answers import RESULTS, VERDICTS, finished_study_run, stored_answer
from tasks.tracking.publishing import Point, Publisher
from tasks.tracking.runs import close_runs
from tasks.tracking.store import database_path

CHECKOUT = Path(__file__).resolve().parents[2]
TABLE = pd.DataFrame({"arm": ["greedy"] * 3, "depth": [1, 2, 3], "test_accuracy_mean": [0.1 + 0.2, 1 / 3, 0.8]})


@pytest.fixture
def tree(client, opened):
    """A finished study: metrics on seeds and arm, a finished model a seed, and the table of results."""
    tree = opened()
    publisher = Publisher(client, tree)
    for seed in (0, 1):
        run_id = tree.seed_run("greedy", seed)
        publisher.metrics(run_id, [Point("test_accuracy", seed + step, step, 1) for step in (1, 2, 3)])
        model = client.create_logged_model(tree.experiment_id, "depth-03", source_run_id=run_id)
        client.finalize_logged_model(model.model_id, "READY")
    publisher.metrics(tree.arm_run_ids["greedy"], [Point("test_accuracy_mean", 0.5, 1, 1)])
    publisher.table(tree.study_run_id, RESULTS, TABLE)
    close_runs(client, tree)
    return tree


@pytest.fixture
def answer(client, study, tree):
    """Asks the store for the study's answer."""

    def ask():
        return stored_answer(client, finished_study_run(client, study.name, tree.run_key))

    return ask


def test_a_finished_study_is_answered(answer):
    """The table comes back to the bit, and nothing is missing."""
    assert answer().missing == ()
    pd.testing.assert_frame_equal(answer().table, TABLE, check_exact=True)


def test_what_is_not_finished_is_not_answered(client, opened, study, tree):
    """Another key, a study that never ran, a run taken up again and a deleted experiment have no answer."""
    assert finished_study_run(client, study.name, tree.run_key).info.run_id == tree.study_run_id
    assert finished_study_run(client, study.name, study.digest("again")) is None
    assert finished_study_run(client, "never-run", tree.run_key) is None
    opened()
    assert finished_study_run(client, study.name, tree.run_key) is None
    close_runs(client, tree)
    assert finished_study_run(client, study.name, tree.run_key) is not None
    client.delete_experiment(tree.experiment_id)
    assert finished_study_run(client, study.name, tree.run_key) is None


def test_a_deleted_run_is_missed(client, tree, answer):
    """A seed or arm run that somebody deleted is named."""
    client.delete_run(tree.seed_run("greedy", 1))
    assert answer().missing == ("1 runs (greedy seed 1)",)
    client.delete_run(tree.arm_run_ids["greedy"])
    assert answer().missing == ("2 runs (greedy, greedy seed 1)",)


def test_a_run_that_is_not_finished_is_missed(client, tree, answer):
    """Each run of the tree must be FINISHED, not only the study's."""
    client.update_run(tree.seed_run("greedy", 0), status="RUNNING")
    assert answer().missing == ("the end of 1 runs (greedy seed 0)",)


def test_a_lost_metric_is_missed(answer, root):
    """The points that runs held when they were closed are counted."""
    assert answer().missing == ()
    with closing(sqlite3.connect(database_path(root))) as connection:
        connection.execute("DELETE FROM metrics WHERE step = 2")
        connection.commit()
    assert answer().missing == ("2 metric points",)


def test_a_deleted_model_is_missed(client, tree, answer):
    """The models that runs held when they were closed are counted, the finished ones."""
    models = client.search_logged_models([tree.experiment_id])
    client.delete_logged_model(models[0].model_id)
    assert answer().missing == ("1 models",)
    client.finalize_logged_model(models[1].model_id, "FAILED")
    assert answer().missing == ("2 models",)


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("arm\nother\n")])
def test_a_lost_or_changed_table_is_missed(answer, root, damage):
    """The table of results must be what was published."""
    damage(next((root / "mlruns").rglob(RESULTS)))
    assert answer().missing == (f"the artifact {RESULTS}",)
    assert answer().table is None


def test_verdicts_come_back(client, study, opened, tree):
    """Verdicts are read as they were published; of a study with claims they are missed where they are not there."""
    run = finished_study_run(client, study.name, tree.run_key)
    assert stored_answer(client, run, claims=True).missing == (f"the artifact {VERDICTS}",)
    said = {"study": study.name, "verdicts": [{"claim": "rises", "verdict": "refuted"}]}
    opened()
    Publisher(client, tree).text(tree.study_run_id, VERDICTS, json.dumps(said))
    close_runs(client, tree)
    found = stored_answer(client, client.get_run(tree.study_run_id), claims=True)
    assert (found.missing, found.verdicts) == ((), said)


def test_a_study_without_a_table_is_not_answered(client, opened):
    """A tree that was closed without results has no answer."""
    tree = opened(repeat="empty")
    close_runs(client, tree)
    found = stored_answer(client, client.get_run(tree.study_run_id))
    assert (found.table, found.missing) == (None, (f"the artifact {RESULTS}",))


def test_what_is_missing_is_completed(client, opened, tree, answer):
    """After the missing is published and the tree closed again, the answer is whole."""
    client.delete_run(tree.seed_run("greedy", 1))
    anew = opened()
    publisher = Publisher(client, anew)
    publisher.metrics(anew.seed_run("greedy", 1), [Point("test_accuracy", 1 + step, step, 1) for step in (1, 2, 3)])
    close_runs(client, anew)
    assert answer().missing == ()


def test_answering_needs_neither_prefect_nor_tensorflow(tree, root, study):
    """A process that prints a stored answer loads neither Prefect nor Keras nor TensorFlow."""
    script = f"""
import sys
from pathlib import Path
from flows import environment
environment.prepare(Path({str(root)!r}))
from tasks.tracking.answers import finished_study_run, stored_answer
from tasks.tracking.store import open_store
client = open_store(Path({str(root)!r}))
answer = stored_answer(client, finished_study_run(client, {study.name!r}, {tree.run_key!r}))
assert len(answer.table) == 3 and not answer.missing
assert not {{"prefect", "keras", "tensorflow", "matplotlib"}} & set(sys.modules)
"""
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
