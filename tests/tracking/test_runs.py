"""The tree of runs: found again by what its runs are, completed after a kill, and closed."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from tasks import owners
from tasks.tracking.answers import finished_study_run
from tasks.tracking.runs import (
    OWNER,
    close_runs,
    close_stale_runs,
    identity,
    open_runs,
    parameters,
    tree_runs,
)
from tasks.tracking.store import StoreFull, TrackingError, WrongRequest, artifact_root, database_path, open_store
from tests.studies import small
from tests.tracking.conftest import Cut, Killed, restored_by

ARMS = {"greedy": {}, "other": {}}


def states(client, tree) -> Counter:
    """How many runs of the tree are in each state."""
    return Counter(run.info.status for run in tree_runs(client, tree.experiment_id, tree.run_key))


def test_a_study_is_one_tree(client, opened, root):
    """Arms are top-level, seeds nested under their arm, and the study run stands beside the arms."""
    study = small(seeds=2, arms=ARMS, question="Does it help?")
    tree = opened(of=study)
    runs = {identity(run): run for run in tree_runs(client, tree.experiment_id, study.digest())}
    assert set(runs) == {
        ("study", "", ""),
        *(("arm", arm, "") for arm in ARMS),
        *(("seed", arm, seed) for arm in ARMS for seed in "01"),
    }
    parents = {who: run.data.tags.get("mlflow.parentRunId") for who, run in runs.items()}
    assert {parents["study", "", ""], *(parents["arm", arm, ""] for arm in ARMS)} == {None}
    assert all(parents["seed", arm, seed] == tree.arm_run_ids[arm] for arm in ARMS for seed in "01")
    assert runs["seed", "other", "1"].info.run_id == tree.seed_run("other", 1)
    assert tree.seed_of[tree.seed_run("other", 1)] == ("other", 1)
    names = {who: run.info.run_name for who, run in runs.items()}
    assert names["study", "", ""] == "study"
    assert names["arm", "other", ""] == "other"
    assert names["seed", "other", "1"] == "other seed 01"
    assert client.get_experiment(tree.experiment_id).artifact_location == (artifact_root(root) / "small").as_uri()
    assert client.get_experiment(tree.experiment_id).tags["mlflow.note.content"] == "Does it help?"


def test_pages_list_the_study_then_its_arms_then_seeds_of_every_arm(client, opened):
    """Of the hundred newest runs, which a page shows first, no seed displaces an arm, nor one arm another's seeds."""
    opened(of=small(seeds=60, arms=ARMS))
    experiment = client.get_experiment_by_name("small").experiment_id
    page = client.search_runs([experiment], max_results=100, order_by=["attributes.start_time DESC"])
    listed = [run.info.run_name for run in page]
    assert listed[:7] == ["study", "greedy", "other", *(f"{arm} seed 0{seed}" for seed in (0, 1) for arm in ARMS)]
    assert Counter(name.partition(" ")[0] for name in listed) == {"study": 1, "greedy": 50, "other": 49}


def test_runs_say_what_they_are(client, opened, study):
    """Every run names its study, arm, seed, repeat and provenance in tags, and its settings in parameters."""
    tree = opened(repeat="again")
    run = client.get_run(tree.seed_run("greedy", 1))
    own = {key.removeprefix("layerwise."): value for key, value in run.data.tags.items() if "layerwise." in key}
    assert own == {
        "run_key": study.digest("again"),
        "kind": "seed",
        "study": "small",
        "arm": "greedy",
        "seed": "1",
        "digest": study.digest(),
        "repeat": "again",
        "owner": owners.this_process(),
        "git_commit": "c0ffee",
    }
    assert run.info.run_name == "greedy seed 01 · again"
    assert run.data.params == parameters(study, "greedy") | {"seed": "1"}
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.params["hidden_units"] == "10 x 3"
    assert client.get_run(tree.study_run_id).data.params["seeds"] == "2"


def test_opening_again_finds_the_same_runs(client, opened, counts):
    """A second start, and a start after the end, find the same runs, set them RUNNING, and add nothing."""
    tree = opened()
    before = counts()
    assert opened() == tree
    assert counts() == before
    close_runs(client, tree, end_time=1_790_000_000_000)
    closed = counts()
    assert opened() == tree
    assert counts() == closed
    assert states(client, tree) == {"RUNNING": 4}


def test_repeats_are_trees_of_their_own(client, opened):
    """A repeat shares the experiment of its study and no run with it."""
    plain, again = opened(), opened(repeat="again")
    assert plain.experiment_id == again.experiment_id
    assert not set(plain.run_ids()) & set(again.run_ids())
    assert states(client, plain) == states(client, again) == {"RUNNING": 4}


@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_at_any_moment_leaves_a_tree_that_can_be_completed(client, opened, counts, answered):
    """Wherever opening is cut short, the next start completes the same runs, with no run twice."""
    opened(repeat="uncut")
    one_tree = {table: number for table, number in counts().items() if table in {"runs", "params", "tags"}}
    kills = 0
    for calls in range(1, 30):
        repeat, before = f"cut-{calls}", counts()
        cut = Cut(client, calls, answered=answered)
        try:
            opened(cut, repeat=repeat)
        except Killed:
            kills += 1
        tree = opened(repeat=repeat)
        assert states(client, tree) == {"RUNNING": 4}
        grown = {table: counts()[table] - before[table] for table in one_tree}
        assert grown == one_tree
        if cut.left > 0:
            break
    assert kills == 8  # four runs, each created and then given its parameters


@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_at_the_experiment_is_completed(client, opened, counts, answered):
    """A start that dies at creating the experiment leaves at most the experiment."""
    with pytest.raises(Killed):
        opened(Cut(client, 1, answered=answered))
    opened()
    assert counts()["experiments"] == 2


def test_an_experiment_that_another_process_creates_first_is_used(client, opened):
    """Two processes that begin one study name at once share the experiment."""

    class Late(Cut):
        def create_experiment(self, *args, **kwargs):
            client.create_experiment(*args, **kwargs)
            return client.create_experiment(*args, **kwargs)

    assert opened(Late(client, 99, answered=True)) == opened()


def test_of_two_runs_with_one_identity_the_fuller_stays(client, opened, rows):
    """A run that a lost answer doubled is deleted with its models; the one with content stays."""
    tree = opened()
    run_id = tree.seed_run("greedy", 1)
    original = client.get_run(run_id)
    client.log_batch(run_id, metrics=[Metric("test_accuracy", 0.5, 1, 1)])
    double = client.create_run(tree.experiment_id, tags=original.data.tags, start_time=1).info.run_id
    model = client.create_logged_model(tree.experiment_id, "depth-01", source_run_id=double)
    assert opened() == tree
    assert client.get_run(double).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException):
        client.get_logged_model(model.model_id)
    assert len(tree_runs(client, tree.experiment_id, tree.run_key)) == 4
    assert rows("SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'active'") == [(4,)]


def test_a_seed_s_parent_is_put_right(client, opened):
    """A seed run whose arm run was deleted and made anew hangs under the new one."""
    tree = opened()
    client.delete_run(tree.arm_run_ids["greedy"])
    anew = opened()
    assert anew.arm_run_ids != tree.arm_run_ids
    assert anew.seed_run_ids == tree.seed_run_ids
    seed_run = client.get_run(anew.seed_run("greedy", 0))
    assert seed_run.data.tags["mlflow.parentRunId"] == anew.arm_run_ids["greedy"]


def test_runs_of_the_dead_are_closed(client, opened):
    """Runs that a dead process of this machine left RUNNING are KILLED, at their last sign of life."""
    process = subprocess.Popen(["sleep", "60"])
    owner = f"{socket.gethostname()}/{process.pid}/{owners._start_of(process.pid)}"
    tree = opened(repeat="abandoned")
    for run_id in tree.run_ids():
        client.set_tag(run_id, OWNER, owner)
    seed_run = tree.seed_run("greedy", 0)
    late = client.get_run(seed_run).info.start_time + 5000
    client.log_batch(seed_run, metrics=[Metric("test_accuracy", 0.5, late - step, step) for step in (0, 1)])
    opened()
    assert states(client, tree) == {"RUNNING": 4}, "its process lives"
    process.kill()
    process.wait()
    opened()
    assert states(client, tree) == {"KILLED": 4}
    assert client.get_run(seed_run).info.end_time == late
    assert client.get_run(tree.study_run_id).info.end_time == client.get_run(tree.study_run_id).info.start_time


@pytest.mark.parametrize(
    ("owner", "gone"),
    [
        (owners.this_process(), False),
        (f"{socket.gethostname()}/{os.getpid()}/1", True),  # a later process with the number of the dead one
        (f"elsewhere/{os.getpid()}/1", False),
        ("somebody", False),
    ],
    ids=["lives", "a later process of its number", "elsewhere", "cannot be told"],
)
def test_only_the_dead_of_this_machine_are_known_to_be_dead(client, opened, owner, gone):
    """A run is left alone if its process lives, is on another machine, or cannot be told."""
    tree = opened(repeat="other")
    for run_id in tree.run_ids():
        client.set_tag(run_id, OWNER, owner)
    assert len(close_stale_runs(client, tree.experiment_id)) == (4 if gone else 0)


def test_runs_found_are_taken_over(client, opened):
    """What a dead process left of the same study becomes ours, and is not closed as KILLED on the way."""
    tree = opened()
    for run_id in tree.run_ids():
        client.set_tag(run_id, OWNER, f"{socket.gethostname()}/{os.getpid()}/1")
    assert opened() == tree
    assert states(client, tree) == {"RUNNING": 4}
    runs = [client.get_run(run_id) for run_id in tree.run_ids()]
    assert {(run.data.tags[OWNER], run.info.end_time) for run in runs} == {(owners.this_process(), None)}


def test_nothing_is_running_after_closing(client, opened, counts):
    """Closing ends every run once; closing again changes nothing, not even the time."""
    tree = opened()
    close_runs(client, tree, end_time=1_790_000_000_000)
    before = counts()
    close_runs(client, tree, end_time=1_800_000_000_000)
    close_runs(client, tree, status="FAILED")
    assert counts() == before
    runs = tree_runs(client, tree.experiment_id, tree.run_key)
    assert {(run.info.status, run.info.end_time) for run in runs} == {("FINISHED", 1_790_000_000_000)}


def test_a_failed_arm_fails_its_runs_and_the_study(client, opened):
    """Other arms are FINISHED, and the study is not answered."""
    study = small(seeds=1, arms=ARMS)
    tree = opened(of=study)
    close_runs(client, tree, failed_arms=["other"])
    by_identity = {identity(run): run.info.status for run in tree_runs(client, tree.experiment_id, tree.run_key)}
    assert by_identity == {
        ("study", "", ""): "FAILED",
        ("arm", "greedy", ""): "FINISHED",
        ("seed", "greedy", "0"): "FINISHED",
        ("arm", "other", ""): "FAILED",
        ("seed", "other", "0"): "FAILED",
    }
    assert finished_study_run(client, study.name, study.digest()) is None


def test_an_unfinished_model_fails_its_arm(client, opened):
    """A tree with a PENDING model is not closed as FINISHED."""
    tree = opened()
    client.create_logged_model(tree.experiment_id, "depth-01", source_run_id=tree.seed_run("greedy", 0))
    close_runs(client, tree)
    assert states(client, tree) == {"FAILED": 4}


@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_while_closing_is_completed(client, opened, study, answered):
    """The study run closes last, so that a tree cut short while closing is not taken for finished."""
    for calls in range(1, 20):
        tree = opened(repeat=f"cut-{calls}")
        cut = Cut(client, calls, answered=answered)
        try:
            close_runs(cut, tree)
        except Killed:
            whole = states(client, tree) == {"FINISHED": 4}
            assert (finished_study_run(client, study.name, tree.run_key) is not None) == whole
        close_runs(client, opened(repeat=f"cut-{calls}"))
        assert states(client, tree) == {"FINISHED": 4}
        if cut.left > 0:
            break
    assert calls == 5  # four runs, each ended; and once without a kill


def test_older_answers_are_marked_as_superseded(client, opened):
    """A finished study marks the study and arm runs of its older forms, and no repeat and not itself."""
    old, repeat = opened(of=small(seeds=1)), opened(of=small(seeds=1), repeat="again")
    close_runs(client, old)
    close_runs(client, repeat)
    new = opened(of=small(seeds=2))
    close_runs(client, new, status="KILLED")
    tag = "layerwise.superseded_by"
    assert tag not in client.get_run(old.study_run_id).data.tags, "the new answer is not there yet"
    close_runs(client, opened(of=small(seeds=2)))
    marked = {
        run_id: client.get_run(run_id).data.tags[tag]
        for tree in (old, repeat, new)
        for run_id in tree.run_ids()
        if tag in client.get_run(run_id).data.tags
    }
    assert marked == {old.study_run_id: new.run_key, old.arm_run_ids["greedy"]: new.run_key}


def test_a_deleted_experiment_is_refused(client, opened):
    """What somebody deleted is not brought back unasked; the refusal has the command that does it, of this store."""
    tree = opened()
    client.delete_experiment(tree.experiment_id)
    with pytest.raises(WrongRequest, match=r"has been deleted; bring it back with `[^`]+`, or rename") as refused:
        opened()
    restored_by(client, str(refused.value))
    assert opened() == tree


def test_a_store_that_was_moved_is_refused(client, opened, study, root, tmp_path_factory):
    """Artifacts are not begun anew at the place that the store remembers from before it was moved."""
    opened()
    elsewhere = Path(tmp_path_factory.mktemp("elsewhere"))
    shutil.move(artifact_root(root), elsewhere)
    with pytest.raises(TrackingError, match=r"which is gone; if it was moved, move it back"):
        open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=elsewhere)


def test_a_store_that_was_copied_is_refused(opened, study, root, tmp_path_factory):
    """A copy of a root knows the original's places: a run there would write into the original."""
    opened()
    copy = Path(tmp_path_factory.mktemp("copies")) / "copy"
    shutil.copytree(root, copy)
    with pytest.raises(TrackingError, match=rf"are kept in {root}/mlruns/artifacts/small, outside {copy}: this folder"):
        open_runs(open_store(copy), study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=copy)


def test_parameters_are_plain_and_named_shortly():
    """The runs page shows each setting under the name that the field uses."""
    study = small(network={"layers": [{"units": 50, "activation": "tanh"}, {"units": 10, "repeat": 2}]})
    found = parameters(study, "greedy")
    assert found["hidden_units"] == "50, 10 x 2"
    assert found["hidden_activation"] == "tanh, relu"
    assert found["depth"] == "3"
    assert (found["optimizer"], found["momentum"], found["epochs"]) == ("sgd", "0.9", "2")
    assert (found["objective"], found["data.source"], found["data.split.train"]) == ("supervised", "blobs", "70")


def test_parameters_of_an_arm_are_what_it_does():
    """An arm with settings of its own shows these, not the study's; the study run names its arms."""
    own = {
        "objective": "reconstruction",
        "training": {"optimizer": {"name": "adam"}, "epochs": 7},
        "head": {"epochs": 3},
        "network": {"layers": [{"units": 5}]},
        "noise": {"kind": "masking", "rate": 0.25},
    }
    study = small(arms={"greedy": {}, "denoising": own})
    found = parameters(study, "denoising")
    assert (found["optimizer"], found["epochs"], found["hidden_units"], found["depth"]) == ("adam", "7", "5", "1")
    assert (found["objective"], found["head.epochs"], found["noise.kind"]) == ("reconstruction", "3", "masking")
    assert not any(key.startswith(("noise", "head", "fine_tune", "control")) for key in parameters(study, "greedy"))
    assert (found["scaling"], "data.scaling" in found) == ("none", False)
    assert parameters(study)["arms"] == "greedy, denoising"


def test_a_store_that_fails_says_so_in_one_line(client, opened, root):
    """What MLflow and its database raise while runs are opened or closed comes as one line."""
    tree = opened()
    with closing(sqlite3.connect(database_path(root))) as connection:
        connection.execute("ALTER TABLE tags RENAME TO lost")
        connection.commit()
    with pytest.raises(TrackingError, match=r"^opening the runs of 'small' failed: no such table: tags; [^\n]*$"):
        opened()
    with pytest.raises(TrackingError, match=r"^closing the runs failed: no such table: tags; [^\n]*$"):
        close_runs(client, tree)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("(sqlite3.OperationalError) database or disk is full", StoreFull, "the disk of the tracking store is full ("),
        ("INVALID", TrackingError, "opening the runs of 'small' failed: INVALID; mend it and run again"),
    ],
)
def test_an_experiment_that_cannot_be_made_says_why(client, opened, monkeypatch, said, kind, words):
    """The line is that of any other failure of the store, a full disk's among them."""

    def refuse(*_: object, **__: object):
        raise MlflowException(said)

    monkeypatch.setattr(client, "create_experiment", refuse)
    with pytest.raises(kind) as found:
        opened()
    assert str(found.value).startswith(words)
