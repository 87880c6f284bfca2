"""The model registry: the network that validation chose, or a study declares, is a version of the model of its name.

A person may ask for more: another network of a run, or an encoder alone, which is a version of another model.

A version is found again by the run key in its tags, so that registering twice, or after a kill between any two calls,
makes no second one. It is made with all its tags in one call; what comes after (the alias, the link from the model) is
looked at before it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from tasks.tracking.publishing import DEPTH
from tasks.tracking.runs import (
    ARM,
    DIGEST,
    PAGE,
    REPEAT,
    RUN_KEY,
    SEED,
    STUDY,
    SUPERSEDED_BY,
    RunTree,
    search_models,
)
from tasks.tracking.store import TrackingError, WrongRequest, failures_in_one_line

CHOSEN_ALIAS = "chosen"
"""What the version of a study's newest form is called that validation chose; ``models:/<study>@chosen`` loads it."""

DECLARED_ALIAS = "declared"
"""What the one is called that the study declares."""

NAMED_ALIAS = "named"
"""What the one is called that a person named last, after a run."""

ENCODER_ALIAS = "encoder"
"""What the newest version is called of a registered model of encoders."""

ALIASES = (CHOSEN_ALIAS, DECLARED_ALIAS, NAMED_ALIAS, ENCODER_ALIAS)
"""The first of these that a registered model has is meant where nobody says which version."""

CHOSEN = "layerwise.chosen"
"""The tag of the study's run that says which network validation chose: arm, depth and seed."""

DECLARED = "layerwise.declared"
"""The one that says which network the study declares."""

REGISTERED = "layerwise.registered"
"""The one that says which version of the registered model that is."""

ASKED = "layerwise.asked"
"""The tag of a version that a person asked for, and no run: the name of its model."""

HOLDS = "layerwise.holds"
"""The tag of a registered model that says what its versions are; none where they answer the study's question."""

REPORTED = "layerwise.report"
"""The tag of a version that says where the report of its run is."""

Holding = Literal["network", "encoder"]
"""What the versions of a registered model are: they answer the study's question, or give features."""

RENAME = "rename the study, or set track.models to none, and nothing is registered"
ANOTHER_NAME = "give another name with --name"

MAX_DESCRIPTION = 5000
"""Characters of a description; a database keeps no more."""


@dataclass(frozen=True)
class Candidate:
    """The network to register.

    Attributes:
        arm: the arm that left it.
        depth: its number of hidden layers.
        seed: its seed.
        model: the name of its model on the run of its seed, as in ``depth-02-fine-tuned``.
        card: what it is and how it was chosen, in Markdown.
        report: where the report of its run is.
    """

    arm: str
    depth: int
    seed: int
    model: str
    card: str
    report: str = ""


@dataclass(frozen=True)
class Shelf:
    """The registered model that a version goes to.

    Attributes:
        name: of the registered model.
        study: the study whose networks it holds.
        question: what that asks; the description.
        holds: what its versions are.
    """

    name: str
    study: str
    question: str = ""
    holds: Holding = "network"


def register(
    client: MlflowClient,
    tree: RunTree,
    candidate: Candidate,
    *,
    shelf: Shelf,
    alias: str = CHOSEN_ALIAS,
    repeat: str = "",
) -> str | None:
    """Register a network as the version of its study's run key, unless it is; returns the version's number.

    Args:
        client: the store.
        tree: the study's runs.
        candidate: the network.
        shelf: the registered model of the study's name.
        alias: what the version of the study's newest form is called.
        repeat: the name of the repeat. A repeat has a version of its own, and the alias stays where it is.

    Returns:
        The version's number; None where no finished model of the network is kept.

    Raises:
        TrackingError: if a model of that name is somebody else's, or another network was registered for this run key.
    """
    with failures_in_one_line(f"registering the model {shelf.name}", client.tracking_uri):
        model = _finished_model(client, tree.experiment_id, tree.seed_run(candidate.arm, candidate.seed), candidate)
        if model is None:
            return None
        named = _registered_model(client, shelf, RENAME)
        version = _version(client, _Entry(shelf, tree.run_key, repeat), candidate, model)
        _link(client, model, version)
        if not repeat and not _is_superseded(client, tree):
            _give_alias(client, named, alias, version)
            if alias == DECLARED_ALIAS and CHOSEN_ALIAS in named.aliases:  # of an older form, which is not meant now
                client.delete_registered_model_alias(shelf.name, CHOSEN_ALIAS)
        return str(version.version)


def register_as_asked(
    client: MlflowClient, study_run: Run, candidate: Candidate, model: LoggedModel, *, shelf: Shelf, alias: str
) -> str:
    """Register a finished model that a person asked for, unless it is, and give it the alias.

    Args:
        client: the store.
        study_run: the run of its study.
        candidate: what it is.
        model: the model.
        shelf: the registered model that it becomes a version of.
        alias: what the version is called.

    Returns:
        The version's number.

    Raises:
        TrackingError: if a model of that name is somebody else's.
    """
    with failures_in_one_line(f"registering the model {shelf.name}", client.tracking_uri):
        named, tags = _registered_model(client, shelf, ANOTHER_NAME), study_run.data.tags
        entry = _Entry(shelf, tags[RUN_KEY], tags.get(REPEAT, ""), asked=True)
        version = _version(client, entry, candidate, model)
        _link(client, model, version)
        _give_alias(client, named, alias, version)
        return str(version.version)


@dataclass(frozen=True)
class _Entry:
    """Where a version belongs: the registered model and the run that it is of, and whether a person asked for it."""

    shelf: Shelf
    run_key: str
    repeat: str
    asked: bool = False

    def tags(self, candidate: Candidate, model: LoggedModel) -> dict[str, str]:
        """All that a version is made with."""
        place = {ARM: candidate.arm, SEED: str(candidate.seed), DEPTH: str(candidate.depth)}
        origin = {STUDY: self.shelf.study, RUN_KEY: self.run_key, REPEAT: self.repeat}
        more = {REPORTED: candidate.report, ASKED: candidate.model if self.asked else ""}
        return origin | place | {DIGEST: model.tags[DIGEST]} | {key: said for key, said in more.items() if said}

    def is_of(self, version: ModelVersion, candidate: Candidate) -> bool:
        """Whether a version of the run key is this one: a run has one, and a person may ask for any network."""
        if not self.asked:
            return ASKED not in version.tags
        place = (candidate.arm, str(candidate.seed), candidate.model)
        return tuple(version.tags.get(key) for key in (ARM, SEED, ASKED)) == place


def registered_version(client: MlflowClient, study: str, run_key: str) -> ModelVersion | None:
    """The version that a run registered, by its run key; None if there is none."""
    found = [one for one in _versions(client, study, run_key) if ASKED not in one.tags]
    return found[0] if found else None


def _finished_model(client: MlflowClient, experiment_id: str, run_id: str, candidate: Candidate) -> LoggedModel | None:
    models = search_models(client, experiment_id, [run_id])
    return next((one for one in models if one.name == candidate.model and one.status == "READY"), None)


def _registered_model(client: MlflowClient, shelf: Shelf, remedy: str) -> RegisteredModel:
    try:
        found = client.get_registered_model(shelf.name)
    except MlflowException as error:
        _require(error, RESOURCE_DOES_NOT_EXIST)
        return _create_registered_model(client, shelf)
    if found.tags.get(STUDY) != shelf.study:
        raise WrongRequest(
            f"there is a registered model {shelf.name!r} that was not made by Layerwise for the study {shelf.study!r},"
            f" whose {shelf.holds} would stand in it; {remedy}."
        )
    if found.tags.get(HOLDS, "network") != shelf.holds:
        raise WrongRequest(
            f"the registered model {shelf.name!r} holds other things than the {shelf.holds} of a study; {remedy}."
        )
    return found


def _create_registered_model(client: MlflowClient, shelf: Shelf) -> RegisteredModel:
    tags = {STUDY: shelf.study} | ({} if shelf.holds == "network" else {HOLDS: shelf.holds})
    try:
        return client.create_registered_model(shelf.name, tags, shelf.question)
    except MlflowException as error:  # another process, at a repeat, was faster
        _require(error, RESOURCE_ALREADY_EXISTS)
        return client.get_registered_model(shelf.name)


def _give_alias(client: MlflowClient, named: RegisteredModel, alias: str, version: ModelVersion) -> None:
    if str(named.aliases.get(alias)) != str(version.version):
        client.set_registered_model_alias(named.name, alias, str(version.version))


def _require(error: MlflowException, code: int) -> None:
    if error.error_code != ErrorCode.Name(code):
        raise error


def _version(client: MlflowClient, entry: _Entry, candidate: Candidate, model: LoggedModel) -> ModelVersion:
    """The version of this run key, and of this network if a person asked for it: the one there is, or a new one."""
    name = entry.shelf.name
    known = [one for one in _versions(client, name, entry.run_key) if entry.is_of(one, candidate)]
    for one in known:
        if one.tags.get(DIGEST) != model.tags[DIGEST]:
            raise TrackingError(
                f"version {one.version} of {name!r} has the weights {one.tags.get(DIGEST)}, but now"
                f" {model.tags[DIGEST]} were chosen; equal studies must choose equal models: see what changed, or"
                " compute afresh with --repeat."
            )
    # A version whose model was deleted and made anew is of files that may go; a request that a server answered too
    # late may have been sent twice.
    standing = next((one for one in known if one.source == model.artifact_location), None)
    _delete_versions(client, name, [one for one in known if one is not standing])
    if standing is not None:
        return standing
    made = client.create_model_version(
        name,
        # MLflow would look up a models:/ URI in whatever store its global settings name.
        model.artifact_location,
        run_id=model.source_run_id,
        tags=entry.tags(candidate, model),
        description=candidate.card[:MAX_DESCRIPTION],
        await_creation_for=0,
        model_id=model.model_id,
    )
    same = [one for one in _versions(client, name, entry.run_key) if entry.is_of(one, candidate)]
    _delete_versions(client, name, [one for one in same if str(one.version) != str(made.version)])
    return made


def _delete_versions(client: MlflowClient, name: str, versions: Iterable[ModelVersion]) -> None:
    for one in versions:
        client.delete_model_version(name, str(one.version))


def _versions(client: MlflowClient, name: str, run_key: str) -> list[ModelVersion]:
    """The versions of a run key, the first one first."""
    query = f"name = '{name}' AND tags.`{RUN_KEY}` = '{run_key}'"
    return sorted(client.search_model_versions(query, max_results=PAGE), key=lambda one: int(one.version))


def _link(client: MlflowClient, model: LoggedModel, version: ModelVersion) -> None:
    """Let the model's own page name its version, as registering through the fluent API does."""
    said = json.loads(model.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if (version.name, str(version.version)) not in {(one["name"], str(one["version"])) for one in said}:
        named = {"name": version.name, "version": version.version}
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*said, named])})


def _is_superseded(client: MlflowClient, tree: RunTree) -> bool:
    """Whether a newer form of the study has been answered: its version keeps the alias."""
    return SUPERSEDED_BY in client.get_run(tree.study_run_id).data.tags
