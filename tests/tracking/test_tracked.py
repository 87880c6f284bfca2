"""Finding a study's run by what a person says, and reading back what it holds."""

from __future__ import annotations

import pandas as pd
import pytest

from tasks.tracking.answers import RESULTS
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import close_runs
from tasks.tracking.store import TrackingError, WrongRequest
from tasks.tracking.tracked import SCORES, STUDY_FILE, find_arm, find_study_run, read_tracked
from tests.tracking.conftest import restored_by

TABLE = pd.DataFrame({"arm": ["greedy"], "seed": [0], "depth": [1], "test_accuracy_mean": [0.1 + 0.2]})


@pytest.fixture
def tree(client, opened):
    """A finished study, its tables published."""
    tree = opened()
    publisher = Publisher(client, tree)
    publisher.text(tree.study_run_id, STUDY_FILE, "name: small\nseeds: 2\n")
    publisher.table(tree.study_run_id, SCORES, TABLE)
    publisher.table(tree.study_run_id, RESULTS, TABLE)
    close_runs(client, tree)
    return tree


def test_a_run_is_found_by_its_id_by_those_of_its_parts_and_by_the_study_s_name(client, tree):
    """Every way leads to the study run."""
    for said in (tree.study_run_id, tree.arm_run_ids["greedy"], tree.seed_run("greedy", 1), "small"):
        assert find_study_run(client, said).info.run_id == tree.study_run_id


def test_an_arm_is_found_by_its_name_behind_the_study_and_by_its_run(client, tree):
    """``small/greedy`` and the ids of the arm's and of a seed's run mean the arm; the study alone means all of them."""
    for said in ("small/greedy", tree.arm_run_ids["greedy"], tree.seed_run("greedy", 1)):
        run, arm = find_arm(client, said)
        assert (run.info.run_id, arm) == (tree.study_run_id, "greedy")
    for said in ("small", tree.study_run_id):
        assert find_arm(client, said)[1] == ""
    with pytest.raises(TrackingError, match="small has no arm 'gready'; there are greedy"):
        find_arm(client, "small/gready")


def test_a_repeat_is_found_by_study_and_name(client, opened, tree):
    """``small:again`` is the repeat, ``small`` stays the plain run, though the repeat is newer."""
    repeat = opened(repeat="again")
    close_runs(client, repeat)
    assert find_study_run(client, "small:again").info.run_id == repeat.study_run_id
    assert find_study_run(client, "small").info.run_id == tree.study_run_id
    with pytest.raises(TrackingError, match=r"no finished run of 'small:agian' is tracked here; there are small:again"):
        find_study_run(client, "small:agian")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("smal", r"no run of a study 'smal' is tracked here; the nearest are small\."),
        ("", r"no run of a study '' is tracked here; there are small\."),
        ("../small", r"no run of a study '\.\.' is tracked here"),
        ("small/greedy", r"^'small/greedy' is one arm of run \w{32}, and the whole of it is asked for: name small\."),
        ("smal/greedy", r"no run of a study 'smal' is tracked here; the nearest are small\."),
        ("no/such.yml", r"^no/such\.yml is a study file, and a run is what is asked for: name it by its study\.$"),
        ("0" * 32, r"there is no run 0{32}; `layerwise ui` shows which there are"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_is_not_there_is_refused_in_one_line(client, said, message):
    """The message names the nearest, or says where to look."""
    with pytest.raises(TrackingError, match=message) as refused:
        find_study_run(client, said)
    assert "\n" not in str(refused.value)


def test_runs_of_others_and_deleted_ones_are_refused(client, tree):
    """A run without our tags is none of ours; a deleted one is not read."""
    foreign = client.create_run(tree.experiment_id).info.run_id
    with pytest.raises(TrackingError, match="was not made by Layerwise"):
        find_study_run(client, foreign)
    client.delete_run(tree.study_run_id)
    with pytest.raises(WrongRequest, match=r"has been deleted; bring it back with `[^`]+`, or name") as refused:
        find_study_run(client, tree.study_run_id)
    with pytest.raises(WrongRequest, match="belongs to a study whose own run has been deleted"):
        find_study_run(client, tree.arm_run_ids["greedy"])
    restored_by(client, str(refused.value))
    assert find_study_run(client, tree.study_run_id).info.lifecycle_stage == "active"


@pytest.mark.parametrize("find", [find_study_run, find_arm])
@pytest.mark.usefixtures("tree")
def test_a_study_file_is_told_from_its_run(client, tmp_path, find):
    """A study file named for a run is refused with the name that its run has."""
    file = tmp_path / "mine.yaml"
    file.write_text("name: small\ndata: {source: loader, loader: 'nobody:knows'}\n")
    with pytest.raises(WrongRequest, match=r"mine\.yaml is a study file, and a run .*: name it by its study, small\.$"):
        find(client, str(file))


@pytest.mark.usefixtures("tree")
def test_what_a_run_holds_is_read_back_to_the_bit(client):
    """Study, scores and table; what was never published is absent, not an error."""
    held = read_tracked(client, find_study_run(client, "small"))
    assert held.document == {"name": "small", "seeds": 2}
    assert held.name == "small"
    pd.testing.assert_frame_equal(held.table, TABLE, check_exact=True)
    pd.testing.assert_frame_equal(held.metrics, TABLE, check_exact=True)
    assert held.verdicts is None
    assert held.differences is None


def test_a_table_that_was_changed_is_not_read(client, tree):
    """An artifact that is not as it was published counts as missing, in one line."""
    run = find_study_run(client, "small")
    client.log_text(tree.study_run_id, "other", SCORES)
    with pytest.raises(TrackingError, match=r"has no scores_by_seed\.csv, or not as it was published"):
        read_tracked(client, run)
