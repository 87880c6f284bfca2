"""The registry: one version for each run key, found again after any kill, and nothing of anybody else's touched."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from layerwise.study import Study
from tasks.tracking.answers import finished_study_run, stored_answer
from tasks.tracking.publishing import Publisher
from tasks.tracking.registry import (
    CHOSEN,
    CHOSEN_ALIAS,
    DECLARED_ALIAS,
    ENCODER_ALIAS,
    NAMED_ALIAS,
    REGISTERED,
    Candidate,
    Shelf,
    register,
    register_as_asked,
    registered_version,
)
from tasks.tracking.runs import RunTree, close_runs
from tasks.tracking.store import TrackingError
from tests.studies import small
from tests.tracking.conftest import Cut, Killed

CANDIDATE = Candidate("greedy", 2, 1, "depth-02", "# What it is", "runs:/1d1d/report.html")
SHELF = Shelf("small", "small")
REGISTRY = ("registered_models", "registered_model_tags", "registered_model_aliases", "model_versions",
            "model_version_tags")  # fmt: skip


@pytest.fixture
def keep(client: MlflowClient) -> Callable[..., str]:
    """Keeps a finished model of seed 1 at depth 2 on its run; returns its id."""

    def kept(tree: RunTree, digest: str = "weights", status: str = "READY") -> str:
        model = client.create_logged_model(
            tree.experiment_id, "depth-02", source_run_id=tree.seed_run("greedy", 1), tags={"layerwise.digest": digest}
        )
        client.finalize_logged_model(model.model_id, status)
        return model.model_id

    return kept


@pytest.fixture
def registry(rows: Callable[[str], list[tuple]]) -> Callable[[], list]:
    """What stands in the registry's tables, deleted versions aside, without times."""

    def read() -> list:
        named = rows("SELECT name, description FROM registered_models")
        tags = rows("SELECT name, key, value FROM registered_model_tags")
        alias = rows("SELECT name, alias, version FROM registered_model_aliases")
        versions = "SELECT version, description, run_id, source FROM model_versions WHERE current_stage = 'None'"
        said = "SELECT version, key, value FROM model_version_tags ORDER BY version, key"
        return [named, tags, alias, rows(versions), rows(said)]

    return read


def test_the_chosen_network_is_a_version(client, opened, study, keep):
    """It says which run, arm, depth, seed and weights it is, has the card and the alias, and its model names it."""
    tree = opened()
    model = client.get_logged_model(keep(tree))
    assert register(client, tree, CANDIDATE, shelf=Shelf("small", "small", "Why?")) == "1"
    version = client.get_model_version_by_alias(study.name, CHOSEN_ALIAS)
    assert (version.description, version.run_id) == ("# What it is", tree.seed_run("greedy", 1))
    assert version.tags == {
        "layerwise.study": study.name,
        "layerwise.run_key": tree.run_key,
        "layerwise.repeat": "",
        "layerwise.arm": "greedy",
        "layerwise.depth": "2",
        "layerwise.seed": "1",
        "layerwise.digest": "weights",
        "layerwise.report": "runs:/1d1d/report.html",
    }
    assert client.get_model_version_download_uri(study.name, "1") == model.artifact_location
    assert client.get_registered_model(study.name).description == "Why?"
    said = json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"])
    assert said == [{"name": study.name, "version": 1}]


def test_registering_again_changes_nothing(client, opened, keep, rows):
    """The second time every row of the store is as it was."""
    tree = opened()
    keep(tree)
    tables = [*REGISTRY, "logged_model_tags"]
    register(client, tree, CANDIDATE, shelf=SHELF)
    before = {table: rows(f"SELECT * FROM {table}") for table in tables}  # noqa: S608 - MLflow's names
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "1"
    assert {table: rows(f"SELECT * FROM {table}") for table in tables} == before  # noqa: S608


@pytest.mark.parametrize("answered", [False, True], ids=["before it is made", "before it answers"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_kill_at_any_call_leaves_one_version(client, opened, study, keep, registry, call, answered):
    """After a kill between any two calls, registering again ends where an uninterrupted one does."""
    tree = opened()
    model = keep(tree)
    with pytest.raises(Killed):
        register(Cut(client, call, answered=answered), tree, CANDIDATE, shelf=SHELF)
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "1"
    named, _, alias, versions, tags = registry()
    assert (named, alias) == ([("small", "")], [("small", CHOSEN_ALIAS, 1)])
    assert [row[0] for row in versions] == [1]
    assert len(tags) == 8
    assert len(json.loads(client.get_logged_model(model).tags["mlflow.modelVersions"])) == 1
    with pytest.raises(MlflowException):
        client.get_model_version(study.name, "2")


def test_an_uninterrupted_registration_makes_four_calls(client, opened, keep):
    """The calls of which the test above kills each: the model, the version, the link and the alias."""
    tree = opened()
    keep(tree)
    counting = Cut(client, 100, answered=False)
    register(counting, tree, CANDIDATE, shelf=SHELF)
    assert counting.left == 96


def test_a_newer_form_of_the_study_takes_the_alias_and_keeps_it(client, opened, keep):
    """More seeds are another run key and another version; what they superseded is completed without the alias."""
    older, newer = small(seeds=2), small(seeds=3)
    trees = []
    for asked in (older, newer):
        trees.append(tree := opened(of=asked))
        keep(tree)
        register(client, tree, CANDIDATE, shelf=SHELF)
        close_runs(client, tree)
    versions = [registered_version(client, "small", asked.digest()) for asked in (older, newer)]
    assert [version.version for version in versions] == [1, 2]
    client.delete_model_version("small", "1")
    assert register(client, trees[0], CANDIDATE, shelf=SHELF) == "3"
    assert client.get_registered_model("small").aliases == {CHOSEN_ALIAS: 2}


def test_a_repeat_has_a_version_of_its_own_and_leaves_the_alias(client, opened, study, keep):
    """The alias stays with the plain run, and where there is none it is not given."""
    repeated, plain = opened(repeat="again"), opened()
    keep(repeated)
    keep(plain)
    assert register(client, repeated, CANDIDATE, shelf=SHELF, repeat="again") == "1"
    assert client.get_registered_model(study.name).aliases == {}
    assert register(client, plain, CANDIDATE, shelf=SHELF) == "2"
    assert register(client, repeated, CANDIDATE, shelf=SHELF, repeat="again") == "1"
    assert client.get_registered_model(study.name).aliases == {CHOSEN_ALIAS: 2}
    assert client.get_model_version(study.name, "1").tags["layerwise.repeat"] == "again"


@pytest.mark.parametrize("finalized", [False, True], ids=["unfinished", "failed"])
def test_what_is_not_kept_is_not_registered(client, opened, keep, finalized):
    """Without a finished model of the network nothing is made, not even the registered model."""
    tree = opened()
    assert register(client, tree, CANDIDATE, shelf=SHELF) is None
    if finalized:
        keep(tree, status="FAILED")
    else:
        client.create_logged_model(tree.experiment_id, "depth-02", source_run_id=tree.seed_run("greedy", 1))
    assert register(client, tree, CANDIDATE, shelf=SHELF) is None
    assert client.search_registered_models() == []


def test_a_version_of_a_model_that_was_made_anew_is_replaced(client, opened, study, keep):
    """Its files are of a deleted model and may go; the new version is of the model that stands."""
    tree = opened()
    client.delete_logged_model(keep(tree))
    gone = keep(tree)
    register(client, tree, CANDIDATE, shelf=SHELF)
    client.delete_logged_model(gone)
    new = client.get_logged_model(keep(tree))
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "2"
    assert client.get_registered_model(study.name).aliases == {CHOSEN_ALIAS: 2}
    assert client.get_model_version_download_uri(study.name, "2") == new.artifact_location
    (only,) = client.search_model_versions(f"name = '{study.name}'")
    assert only.version == 2


def test_of_two_versions_of_one_run_key_one_stays(client, opened, study, keep):
    """A request that a server answered too late may have been sent twice."""
    tree = opened()
    keep(tree)
    register(client, tree, CANDIDATE, shelf=SHELF)
    first = client.get_model_version(study.name, "1")
    client.create_model_version(study.name, first.source, first.run_id, first.tags, await_creation_for=0)
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "1"
    assert [one.version for one in client.search_model_versions(f"name = '{study.name}'")] == [1]


def test_another_choice_for_the_same_run_key_is_refused(client, opened, study, keep):
    """Equal studies choose equal models; where they do not, one line says so and the version stays."""
    tree = opened()
    first = keep(tree, digest="one")
    register(client, tree, CANDIDATE, shelf=SHELF)
    client.delete_logged_model(first)
    keep(tree, digest="other")
    with pytest.raises(TrackingError, match="version 1 of 'small' has the weights one, but now other were chosen") as e:
        register(client, tree, CANDIDATE, shelf=SHELF)
    assert "\n" not in str(e.value)
    assert client.get_model_version(study.name, "1").tags["layerwise.digest"] == "one"


def test_a_model_of_somebody_else_is_left_alone(client, opened, study, keep):
    """A registered model of the study's name that Layerwise did not make gets no version and no alias."""
    client.create_registered_model(study.name, {"team": "vision"})
    tree = opened()
    keep(tree)
    with pytest.raises(TrackingError, match=r"'small' that was not made by Layerwise.*; rename the study, or set"):
        register(client, tree, CANDIDATE, shelf=SHELF)
    found = client.get_registered_model(study.name)
    assert (found.tags, found.aliases, found.latest_versions) == ({"team": "vision"}, {}, [])


def test_a_process_that_was_faster_is_no_failure(client, opened, study, keep, monkeypatch):
    """Two repeats of one study may make the registered model at once; the second finds it."""
    tree = opened()
    keep(tree)
    client.create_registered_model(study.name, {"layerwise.study": study.name})
    seen = client.get_registered_model

    def late(name: str):
        monkeypatch.setattr(client, "get_registered_model", seen)
        return seen(f"not-{name}")

    monkeypatch.setattr(client, "get_registered_model", late)
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "1"


@pytest.mark.parametrize("delete", [
    lambda client: client.delete_model_version("small", "1"), lambda client: client.delete_registered_model("small")
], ids=["the version", "the registered model"])  # fmt: skip
def test_a_version_that_was_deleted_is_missed_and_made_again(
    client: MlflowClient, opened: Callable[..., RunTree], study: Study, keep: Callable[..., str], delete: Callable
):
    """A finished study whose registered version is gone is not whole; the run that completes it registers it."""
    tree = opened()
    keep(tree)
    version = register(client, tree, CANDIDATE, shelf=SHELF)
    tags = {REGISTERED: f"models:/small/{version}", CHOSEN: "greedy, depth 2, seed 1"}
    Publisher(client, tree).tags(tree.study_run_id, tags)
    close_runs(client, tree)

    def answer():
        return stored_answer(client, finished_study_run(client, study.name, tree.run_key))

    assert (answer().chosen, answer().registered) == ("greedy, depth 2, seed 1", "1")
    unpublished = "2 files missing (study: manifest.json, study: results.csv)"
    assert answer().missing == (unpublished,)
    delete(client)
    assert answer().missing == (unpublished, "1 registered model missing (models:/small/1)")
    assert register(client, tree, CANDIDATE, shelf=SHELF) in {"1", "2"}
    assert answer().missing == (unpublished,)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_declared_network_takes_the_place_of_a_chosen_one(client, opened, keep, call):
    """Where the newest form declares its network, no version is called chosen any more, whatever call a kill meets."""
    older, newer = opened(of=small(seeds=2)), opened(of=small(seeds=3))
    for tree in (older, newer):
        keep(tree)
    register(client, older, CANDIDATE, shelf=SHELF)
    close_runs(client, older)
    close_runs(client, newer)
    with pytest.raises(Killed):
        register(Cut(client, call, answered=True), newer, CANDIDATE, shelf=SHELF, alias=DECLARED_ALIAS)
    assert register(client, newer, CANDIDATE, shelf=SHELF, alias=DECLARED_ALIAS) == "2"
    assert client.get_registered_model("small").aliases == {DECLARED_ALIAS: 2}
    assert register(client, older, CANDIDATE, shelf=SHELF) == "1", "it is superseded, and takes no alias"
    assert client.get_registered_model("small").aliases == {DECLARED_ALIAS: 2}


def test_what_a_person_asks_for_has_versions_beside_the_run_s(client, opened, keep):
    """Each network asked for is one version, however often; the run's own stays its own; neither removes another."""
    tree = opened()
    model = client.get_logged_model(keep(tree))
    run = client.get_run(tree.study_run_id)
    other = Candidate("greedy", 1, 1, "depth-01", "# Another")

    def ask(candidate: Candidate) -> str:
        return register_as_asked(client, run, candidate, model, shelf=SHELF, alias=NAMED_ALIAS)

    assert [ask(CANDIDATE), ask(other), ask(CANDIDATE)] == ["1", "2", "1"]
    assert registered_version(client, "small", tree.run_key) is None
    assert register(client, tree, CANDIDATE, shelf=SHELF) == "3"
    assert [ask(other), register(client, tree, CANDIDATE, shelf=SHELF)] == ["2", "3"]
    found = registered_version(client, "small", tree.run_key)
    assert found is not None
    assert str(found.version) == "3"
    assert client.get_registered_model("small").aliases == {NAMED_ALIAS: 2, CHOSEN_ALIAS: 3}
    assert client.get_model_version("small", "2").tags["layerwise.asked"] == "depth-01"
    assert len(client.search_model_versions("name = 'small'")) == 3


def test_encoders_and_networks_do_not_share_a_registered_model(client, opened, keep):
    """A registered model gives answers or features, whichever its first version does."""
    tree = opened()
    model, run = client.get_logged_model(keep(tree)), client.get_run(tree.study_run_id)
    encoders = Shelf("small", "small", holds="encoder")
    register(client, tree, CANDIDATE, shelf=SHELF)
    with pytest.raises(
        TrackingError, match=r"'small' holds other things than the encoder of a study; give another name"
    ):
        register_as_asked(client, run, CANDIDATE, model, shelf=encoders, alias=ENCODER_ALIAS)
    client.create_registered_model("taken")
    taken = Shelf("taken", "small", holds="encoder")
    with pytest.raises(TrackingError, match=r"'taken' that was not made .* for the study 'small'.*; give another name"):
        register_as_asked(client, run, CANDIDATE, model, shelf=taken, alias=ENCODER_ALIAS)
