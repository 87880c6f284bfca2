"""Reading a finished study back: whole, or with what is missing in words."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from tasks.tracking import rows
from tasks.tracking.answers import RESULTS, VERDICTS, finished_study_run, stored_answer
from tasks.tracking.files import stored_file
from tasks.tracking.folders import MODEL_ID
from tasks.tracking.held import MANIFEST, in_words
from tasks.tracking.manifest import set_aside_changed, verified
from tasks.tracking.publishing import Point, Publisher, SeedModel
from tasks.tracking.runs import RunTree, close_runs
from tasks.tracking.store import database_path
from tasks.tracking.templates import _WEIGHTS, ModelTemplate

CHECKOUT = Path(__file__).resolve().parents[2]
TABLE = pd.DataFrame({"arm": ["greedy"] * 3, "depth": [1, 2, 3], "test_accuracy_mean": [0.1 + 0.2, 1 / 3, 0.8]})


@pytest.fixture
def tree(client, opened):
    """A finished study: metrics on seeds and arm, a finished model a seed, and the table of results."""
    tree = opened()
    publisher = Publisher(client, tree)
    publish(publisher, tree)
    close_runs(client, tree)
    return tree


def publish(publisher: Publisher, tree: RunTree) -> None:
    """What a study publishes, in small: scores, a model a seed, aggregates, the table of results, the manifest."""
    template = ModelTemplate({"MLmodel": f"model_id: {MODEL_ID}".encode()}, {_WEIGHTS: b""}, ())
    for seed in (0, 1):
        run_id, points = tree.seed_run("greedy", seed), scores(seed)
        publisher.metrics(run_id, points)
        publisher.models([SeedModel(run_id, "depth-03", 3, template, [], f"weights-{seed}", points[-1:])])
    publisher.metrics(tree.arm_run_ids["greedy"], [Point("test_accuracy_mean", 0.5, 1, 1)])
    publisher.table(tree.study_run_id, RESULTS, TABLE)
    publisher.manifest()


def scores(seed: int) -> list[Point]:
    return [Point("test_accuracy", seed + step / 3, step, 1) for step in (1, 2, 3)]


@pytest.fixture
def answer(client, study, tree, root):
    """Asks the store for the study's answer; whoever reads its rows without MLflow finds the same of it."""

    def ask():
        found = stored_answer(client, finished_study_run(client, study.name, tree.run_key))
        by_rows = rows.verified(database_path(root))
        assert in_words([one for _, faults in by_rows.faults for one in faults]) == found.missing
        assert by_rows == verified(client)
        return found

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
    assert answer().missing == ("1 run missing (greedy seed 1)",)
    client.delete_run(tree.arm_run_ids["greedy"])
    assert answer().missing == ("2 runs missing (greedy, greedy seed 1)",)


def test_a_run_that_is_not_finished_is_missed(client, tree, answer):
    """Each run of the tree must be FINISHED, not only the study's."""
    client.update_run(tree.seed_run("greedy", 0), status="RUNNING")
    assert answer().missing == ("1 run open (greedy seed 0)",)


def test_a_lost_metric_is_missed(answer, root):
    """Every point that was published must be there."""
    assert answer().missing == ()
    change(root, "DELETE FROM metrics WHERE step = 2")
    both = "greedy seed 0: test_accuracy, greedy seed 1: test_accuracy"
    assert answer().missing == (f"2 metrics missing ({both})",)


CHANGES = {
    "a value": "UPDATE metrics SET value = value + 1e-9 WHERE step = 1 AND value > 1",
    "a step": "UPDATE metrics SET step = 5 WHERE step = 2 AND value > 1.5",
    "a name": "UPDATE metrics SET key = 'test_bccuracy' WHERE step = 2 AND value > 1.5",
    "a point twice": """
        INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
        SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE step = 1 AND value > 1
        """,
    "the value that tables show": "UPDATE latest_metrics SET value = 1.75 WHERE value = 2",
    "its name": "UPDATE latest_metrics SET key = 'test_bccuracy' WHERE value = 2",
    "the digest of weights": "UPDATE logged_model_tags SET tag_value = 'weights-2' WHERE tag_value = 'weights-1'",
    "a model's score": "UPDATE logged_model_metrics SET metric_value = 1.75 WHERE metric_value = 2",
}
"""Of the scores of the second seed, which are 1 1/3, 1 2/3 and 2."""


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_in_the_database_is_found_and_its_run_made_anew(client, opened, tree, answer, root, what):
    """One changed value, name or step, or a point twice, is named; its run is made anew, and all is whole."""
    change(root, CHANGES[what])
    found = r"1 (metric (missing|changed|doubled)|model changed) \(greedy seed 1: (test_accuracy|depth-03)\)"
    assert answer().missing
    assert all(re.fullmatch(found, words) for words in answer().missing)
    assert any("doubled" in words for words in answer().missing) == (what == "a point twice")
    assert set_aside_changed(client, answer().faults) == [tree.seed_run("greedy", 1)]
    anew = opened()
    assert anew.seed_run("greedy", 0) == tree.seed_run("greedy", 0)
    assert anew.seed_run("greedy", 1) != tree.seed_run("greedy", 1)
    publish(Publisher(client, anew), anew)
    close_runs(client, anew)
    assert answer().missing == ()


def test_what_people_add_is_no_fault(client, tree, answer):
    """Metrics, tags and artifacts that somebody logs on a finished run are theirs, under their own names or ours."""
    run_id = tree.seed_run("greedy", 0)
    client.log_metric(run_id, "my_score", 0.5, step=1)
    client.log_metric(run_id, "test_accuracy", 0.25, step=9)
    client.log_text(run_id, "mine", "notes.txt")
    client.set_tag(run_id, "mine", "yes")
    assert answer().missing == ()


def test_a_changed_file_is_no_reason_to_make_a_run_anew(client, answer, root):
    """A model's file that changed is named; it is written again where it is, so that no run is set aside."""
    next((root / "mlruns").rglob("model.keras")).write_bytes(b"PK")
    (words,) = answer().missing
    assert re.fullmatch(r"1 file changed \(greedy seed \d: depth-03/data/model.keras\)", words)
    assert set_aside_changed(client, answer().faults) == []


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{}")])
def test_a_lost_or_changed_manifest_is_missed(answer, root, damage):
    """Without its manifest a study is not known to be whole."""
    damage(next((root / "mlruns").rglob(MANIFEST)))
    assert answer().missing == (f"1 file missing (study: {MANIFEST})",)


def test_a_manifest_is_the_same_whoever_finishes(client, opened):
    """Two trees of one study have the same manifest, though their ids differ; published again it is not sent again."""
    texts = []
    for repeat in ("one", "other"):
        publisher = Publisher(client, opened(repeat=repeat))
        publish(publisher, publisher.tree)
        assert publisher.manifest() is False
        assert Publisher(client, publisher.tree).tree is publisher.tree
        texts.append(stored_file(client, client.get_run(publisher.tree.study_run_id), MANIFEST))
    assert texts[0] == texts[1] != b""


def change(root: Path, statement: str) -> None:
    """Change the database behind MLflow's back; the statement must find something to change."""
    with closing(sqlite3.connect(database_path(root))) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


def test_a_deleted_model_is_missed(client, tree, answer):
    """Every model that was published must be there, and finished."""
    models = client.search_logged_models([tree.experiment_id])
    client.delete_logged_model(models[0].model_id)
    (words,) = answer().missing
    assert re.fullmatch(r"1 model missing \(greedy seed \d: depth-03\)", words)
    client.finalize_logged_model(models[1].model_id, "FAILED")
    assert answer().missing == ("2 models missing (greedy seed 0: depth-03, greedy seed 1: depth-03)",)


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("arm\nother\n")])
def test_a_lost_or_changed_table_is_missed(answer, root, damage):
    """The table of results must be what was published."""
    damage(next((root / "mlruns").rglob(RESULTS)))
    (words,) = answer().missing
    assert re.fullmatch(rf"1 file (missing|changed) \(study: {RESULTS}\)", words)
    assert answer().table is None


def test_verdicts_come_back(client, study, opened, tree):
    """Verdicts are read as they were published; of a study with claims they are missed where they are not there."""
    run = finished_study_run(client, study.name, tree.run_key)
    assert stored_answer(client, run, claims=True).missing == (f"1 file missing (study: {VERDICTS})",)
    said = {"study": study.name, "verdicts": [{"claim": "rises", "verdict": "refuted", "words": "It falls."}]}
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
    assert (found.table, found.missing) == (None, (f"2 files missing (study: {MANIFEST}, study: {RESULTS})",))


def test_what_is_missing_is_completed(client, opened, tree, answer):
    """After the missing is published and the tree closed again, the answer is whole."""
    client.delete_run(tree.seed_run("greedy", 1))
    anew = opened()
    publish(Publisher(client, anew), anew)
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
