"""The model registry: of every study that selects, the chosen network is a version of the model of the study's name.

A version is found again by the run key in its tags, so that registering twice, or after a kill between any two calls,
makes no second one. It is made with all its tags in one call; what comes after (the alias, the link from the model) is
looked at before it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
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
from tasks.tracking.store import TrackingError, failures_in_one_line

ALIAS = "chosen"
"""What the version of a study's newest form is called; ``models:/<study>@chosen`` loads it."""

CHOSEN = "layerwise.chosen"
"""The tag of the study's run that says which network validation chose: arm, depth and seed."""

REGISTERED = "layerwise.registered"
"""The one that says which version of the registered model that is."""

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
    """

    arm: str
    depth: int
    seed: int
    model: str
    card: str


def register(
    client: MlflowClient, tree: RunTree, candidate: Candidate, *, study: str, question: str = "", repeat: str = ""
) -> str | None:
    """Register a network as the version of its study's run key, unless it is; returns the version's number.

    Args:
        client: the store.
        tree: the study's runs.
        candidate: the network.
        study: the study's name, and the registered model's.
        question: what the study asks; the registered model's description.
        repeat: the name of the repeat. A repeat has a version of its own, and the alias stays where it is.

    Returns:
        The version's number; None where no finished model of the network is kept.

    Raises:
        TrackingError: if a model of that name is somebody else's, or another network was registered for this run key.
    """
    with failures_in_one_line(f"registering the model {study}", client.tracking_uri):
        model = _finished_model(client, tree.experiment_id, tree.seed_run(candidate.arm, candidate.seed), candidate)
        if model is None:
            return None
        named = _registered_model(client, study, question)
        version = _version(client, tree, candidate, model, study=study, repeat=repeat)
        _link(client, model, version)
        if not repeat and not _is_superseded(client, tree) and str(named.aliases.get(ALIAS)) != str(version.version):
            client.set_registered_model_alias(study, ALIAS, str(version.version))
        return str(version.version)


def registered_version(client: MlflowClient, study: str, run_key: str) -> ModelVersion | None:
    """The version that was registered for a run key; None if there is none."""
    found = _versions(client, study, run_key)
    return found[0] if found else None


def _finished_model(client: MlflowClient, experiment_id: str, run_id: str, candidate: Candidate) -> LoggedModel | None:
    models = search_models(client, experiment_id, [run_id])
    return next((one for one in models if one.name == candidate.model and one.status == "READY"), None)


def _registered_model(client: MlflowClient, study: str, question: str) -> RegisteredModel:
    try:
        found = client.get_registered_model(study)
    except MlflowException as error:
        _require(error, RESOURCE_DOES_NOT_EXIST)
        return _create_registered_model(client, study, question)
    if found.tags.get(STUDY) != study:
        raise TrackingError(
            f"there is a registered model {study!r} that was not made by Layerwise, and the study's would stand in it;"
            " rename the study, or set track.models to none, and nothing is registered."
        )
    return found


def _create_registered_model(client: MlflowClient, study: str, question: str) -> RegisteredModel:
    try:
        return client.create_registered_model(study, {STUDY: study}, question)
    except MlflowException as error:  # another process, at a repeat, was faster
        _require(error, RESOURCE_ALREADY_EXISTS)
        return client.get_registered_model(study)


def _require(error: MlflowException, code: int) -> None:
    if error.error_code != ErrorCode.Name(code):
        raise error


def _version(
    client: MlflowClient, tree: RunTree, candidate: Candidate, model: LoggedModel, *, study: str, repeat: str
) -> ModelVersion:
    """The version of this run key: the one there is, or a new one."""
    known = _versions(client, study, tree.run_key)
    for one in known:
        if one.tags.get(DIGEST) != model.tags[DIGEST]:
            raise TrackingError(
                f"version {one.version} of {study!r} has the weights {one.tags.get(DIGEST)}, but now"
                f" {model.tags[DIGEST]} were chosen; equal studies must choose equal models: see what changed, or"
                " compute afresh with --repeat."
            )
    # A version whose model was deleted and made anew is of files that may go; a request that a server answered too
    # late may have been sent twice.
    standing = next((one for one in known if one.source == model.artifact_location), None)
    _delete_versions(client, study, [one for one in known if one is not standing])
    if standing is not None:
        return standing
    place = {ARM: candidate.arm, SEED: str(candidate.seed), DEPTH: str(candidate.depth)}
    made = client.create_model_version(
        study,
        # MLflow would look up a models:/ URI in whatever store its global settings name.
        model.artifact_location,
        run_id=model.source_run_id,
        tags={STUDY: study, RUN_KEY: tree.run_key, REPEAT: repeat, **place, DIGEST: model.tags[DIGEST]},
        description=candidate.card[:MAX_DESCRIPTION],
        await_creation_for=0,
        model_id=model.model_id,
    )
    twins = [one for one in _versions(client, study, tree.run_key) if str(one.version) != str(made.version)]
    _delete_versions(client, study, twins)
    return made


def _delete_versions(client: MlflowClient, study: str, versions: Iterable[ModelVersion]) -> None:
    for one in versions:
        client.delete_model_version(study, str(one.version))


def _versions(client: MlflowClient, study: str, run_key: str) -> list[ModelVersion]:
    """The versions of a run key, the first one first."""
    query = f"name = '{study}' AND tags.`{RUN_KEY}` = '{run_key}'"
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
