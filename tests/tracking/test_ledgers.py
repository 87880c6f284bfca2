"""Which results only deleted runs have used, by the ledgers that runs hold."""

from __future__ import annotations

import pandas as pd
import pytest

from flows import environment
from flows.cleaning import Wanted, clean_command
from tasks.tracking.answers import stored_table, table_of
from tasks.tracking.ledgers import only_of_deleted
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import RunTree, close_runs
from tasks.tracking.store import TrackingError
from tasks.tracking.tracked import STAGES
from tests.test_doctor import write_result


def ledger(*digests: str) -> pd.DataFrame:
    """The part of a ledger that says what a run has used."""
    return pd.DataFrame({"arm": "greedy", "stage": "base", "digest": digests, "content": "c"})


@pytest.fixture
def finished(client, opened):
    """Makes a finished repeat that has used some results, and deletes it if that is wanted."""

    def make(name: str, *digests: str, deleted: bool = False) -> RunTree:
        tree = opened(repeat=name)
        Publisher(client, tree).table(tree.study_run_id, STAGES, ledger(*digests))
        close_runs(client, tree)
        if deleted:
            for run_id in tree.run_ids():
                client.delete_run(run_id)
        return tree

    return make


def test_what_a_run_uses_that_is_there_is_nobody_else_s(client, finished):
    """Of what deleted runs have used, what runs that are there share with them stays."""
    finished("one", "aa", "bb")
    assert only_of_deleted(client).digests == set()
    finished("two", "bb", "cc", "123456789012", deleted=True)
    finished("three", "dd", "cc", deleted=True)
    assert only_of_deleted(client).digests == {"cc", "dd", "123456789012"}


def test_runs_of_a_deleted_study_are_deleted(client, opened, finished):
    """Deleting an experiment deletes what is in it."""
    finished("one", "aa")
    client.delete_experiment(opened().experiment_id)
    assert only_of_deleted(client).digests == {"aa"}


def test_a_study_of_which_runs_are_left_is_there(client, finished, root, capsys, monkeypatch):
    """Whose study run alone was deleted keeps what it used, and is named with how many of its runs are left."""
    finished("gone", "aa", "bb", deleted=True)
    tree = finished("half", "bb", "cc")
    client.delete_run(tree.study_run_id)
    found = only_of_deleted(client)
    assert (found.digests, found.partly) == ({"aa"}, {"small": 3})
    environment.results_folder(root).mkdir(parents=True)
    for name in ("aa", "bb", "cc"):
        write_result(root, name)
    monkeypatch.setattr(environment, "prepare", lambda _: None)  # which would outlive the test
    assert clean_command(Wanted(of_deleted=True), root, really=True) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  small: its study run is deleted, 3 runs of its arms and seeds are not; delete these too, or what they used"
        " stays",
        "  1 file (171 bytes) that only deleted runs used",
        "Removed 1 file (171 bytes).",
    ]
    for run_id in (*tree.seed_run_ids.values(), *tree.arm_run_ids.values()):
        client.delete_run(run_id)
    found = only_of_deleted(client)
    assert (found.digests, found.partly) == ({"aa", "bb", "cc"}, {})


def test_a_run_that_does_not_say_what_it_uses_keeps_everything(client, opened, finished):
    """One that was interrupted may go on from any result: nothing is told to be of deleted runs alone."""
    finished("one", "aa", deleted=True)
    tree = opened()
    with pytest.raises(
        TrackingError, match=r"of small \(RUNNING\) does not say which results it has used.*delete it too"
    ):
        only_of_deleted(client)
    for run_id in tree.run_ids():
        client.delete_run(run_id)
    assert only_of_deleted(client).digests == {"aa"}


def test_clean_removes_what_only_deleted_runs_used(opened, finished, root, capsys, monkeypatch):
    """By their digests; where that cannot be told the command refuses, and removes nothing at all."""
    environment.results_folder(root).mkdir(parents=True)
    for name in ("aa", "bb", "cc"):
        write_result(root, name)
    finished("one", "aa")
    finished("two", "aa", "bb", deleted=True)
    monkeypatch.setattr(environment, "prepare", lambda _: None)  # which would outlive the test
    assert clean_command(Wanted(of_deleted=True), root, really=True) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  1 file (171 bytes) that only deleted runs used",
        "Removed 1 file (171 bytes).",
    ]
    assert {file.name for file in environment.results_folder(root).iterdir()} == {"aa", "cc"}
    opened()
    assert clean_command(Wanted(0.0, "0h", of_deleted=True), root, really=True) == 2
    assert "does not say which results it has used" in capsys.readouterr().err
    assert {file.name for file in environment.results_folder(root).iterdir()} == {"aa", "cc"}


def test_names_and_digests_of_a_table_are_text(client, opened):
    """An arm called 007 or nan, and a digest of digits alone, come back as they are; a missing score is missing."""
    tree = opened()
    table = pd.DataFrame({"arm": ["007", "nan"], "digest": ["12e4", "0012"], "test_loss": [0.5, None]})
    Publisher(client, tree).table(tree.study_run_id, "table.csv", table)
    found = stored_table(client, client.get_run(tree.study_run_id), "table.csv")
    assert found is not None
    assert found[["arm", "digest"]].to_numpy().tolist() == [["007", "12e4"], ["nan", "0012"]]
    assert found["test_loss"].isna().tolist() == [False, True]
    assert table_of(b"a,arm\n1,x\n").to_dict("records") == [{"a": 1, "arm": "x"}]
