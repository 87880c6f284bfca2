"""Finds the model that a person means, and hands out its files once they are known to be those that were published.

Whatever loads a model loads these bytes, from a folder of its own: not what stands in the store a moment later, and
never the code that a model's folder has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from layerwise import raw_rows
from layerwise.study.plain import read_plain
from tasks.bounded import read_below
from tasks.scratch import scratch
from tasks.tracking.files import local_path, write_all
from tasks.tracking.folders import MLMODEL, ModelFolder
from tasks.tracking.registry import ALIASES, registered_version
from tasks.tracking.runs import PAGE, search_models
from tasks.tracking.store import TrackingError, WrongRequest, failures_in_one_line, taken_as_ours
from tasks.tracking.tags import FILES, RUN_KEY, STUDY
from tasks.tracking.tracked import RUN_ID, find_study_run

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

URI = "models:/"
NETWORK = f"data/{raw_rows.NETWORK}"
LOADED = (NETWORK, f"data/{raw_rows.SERVING}", f"data/{raw_rows.PREPARATION}")
"""The files of a model that are loaded; the others describe it."""

MOST_FILES = 20
LOADER = "tasks.tracking.served"

MISSING = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's code of what is not there, told from a store that does not answer."""


@dataclass(frozen=True)
class Found:
    """The model that a person means.

    Attributes:
        name: how messages call it.
        model: the logged model.
        version: the version of a registered model that it is, if it was found by one.
    """

    name: str
    model: LoggedModel
    version: ModelVersion | None = None


@dataclass(frozen=True)
class VerifiedModel:
    """A model's files, as they were published.

    Attributes:
        files: content by relative path, of those that are loaded.
        signature: what it takes and gives.
    """

    files: Mapping[str, bytes]
    signature: ModelSignature

    @property
    def columns(self) -> dict[str, str] | None:
        """Name and MLflow type of the columns that it takes; None where it takes arrays."""
        inputs = self.signature.inputs
        return None if inputs.is_tensor_spec() else {str(column.name): column.type.name for column in inputs}

    def stage(self, folder: Path) -> None:
        """Make it an MLflow model below a new folder, whose code is this project's."""
        from mlflow.models import Model

        described = Model(signature=self.signature)
        described.add_flavor("python_function", loader_module=LOADER, data="data", env={})
        write_all(folder, self.files)
        described.save(str(folder / MLMODEL))


def find_model(client: MlflowClient, said: str, version: int | None = None) -> Found:
    """The model that a person means.

    Args:
        client: the store.
        said: a registered model's name, ``name@alias`` or ``name/version``, each perhaps behind ``models:/``;
            ``models:/m-…`` for a logged model; or a run, as :func:`tasks.tracking.tracked.find_study_run` takes it, for
            the version that it registered.
        version: of the registered model, where ``said`` is its name.

    Raises:
        TrackingError: if there is none; one line.
    """
    with failures_in_one_line(f"looking for the model {said}", client.tracking_uri):
        if re.fullmatch(r"models:/m-[0-9a-f]{32}", said):
            return Found(said, _logged(client, said.removeprefix(URI)))
        found = re.fullmatch(r"([^/:@]+)(?:@([^/:@]+)|/(\d{1,9}))?", said.removeprefix(URI))
        if found is None:
            return _by_run(client, said)
        name, alias, number = found.groups()
        if version is not None and (alias or number):
            raise WrongRequest(f"{said} says which version it is; leave --version {version} out.")
        registered = _registered(client, name)
        if registered is None and (said.startswith(URI) or alias or number or version is not None):
            raise WrongRequest(f"there is no registered model {name!r}{_known(client)}.")
        if registered is None:
            return _by_run(client, said)
        return _of_version(client, _version(client, registered, alias, number or version))


def verified(client: MlflowClient, found: Found) -> VerifiedModel:
    """A model's files, compared with the digests that were published with it.

    Raises:
        TrackingError: if Layerwise did not publish it, a file is missing or was changed, or it is not what Layerwise
            writes; one line.
    """
    with failures_in_one_line(f"reading the model {found.name}", client.tracking_uri):
        files = _files(client, found)
    with taken_as_ours(f"the model {found.name}"):
        return VerifiedModel({name: files[name] for name in LOADED if name in files}, _signature(files))


def _logged(client: MlflowClient, model_id: str) -> LoggedModel:
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        raise WrongRequest(f"there is no model {URI}{model_id}; `layerwise ui` shows which there are.") from None


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return None


def _version(
    client: MlflowClient, registered: RegisteredModel, alias: str | None, number: str | int | None
) -> ModelVersion:
    """The version of a number or an alias; without both, the one that the study stands for."""
    name, aliases = registered.name, registered.aliases
    if number is None:
        alias = alias or next((one for one in ALIASES if one in aliases), None)
        if alias not in aliases:
            what = f"no version of {name!r} is called {alias!r}" if alias else f"no version of {name!r} has an alias"
            there = ", ".join(f"{name}@{one}" for one in sorted(aliases))
            raise WrongRequest(
                f"{what}; there {f'are {there}' if there else 'are numbers alone, as in ' + name + '/1'}."
            )
        number = aliases[alias]
    try:
        return client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        last = max((int(one.version) for one in registered.latest_versions or ()), default=0)
        raise WrongRequest(f"{name!r} has no version {number}; the last is {last}.") from None


def _by_run(client: MlflowClient, said: str) -> Found:
    name, _, _ = said.partition("/")
    if not re.fullmatch(RUN_ID, name) and client.get_experiment_by_name(name.partition(":")[0]) is None:
        raise WrongRequest(f"there is no registered model, and no run, {said!r}{_known(client)}.")
    run = find_study_run(client, name)
    found = registered_version(client, run.data.tags.get(STUDY, ""), run.data.tags[RUN_KEY])
    if found is None:
        raise WrongRequest(
            f"the run {name} registered no model; name one of its networks with `layerwise register {name} --depth N`."
        )
    return _of_version(client, found)


def _of_version(client: MlflowClient, version: ModelVersion) -> Found:
    """The logged model that a version is of: of its run, with the very place of the version."""
    name = f"{version.name}/{version.version}"
    run = _run(client, version.run_id)
    models = () if run is None else search_models(client, run.info.experiment_id, [run.info.run_id])
    for model in models:
        if model.artifact_location == version.source:
            return Found(name, model, version)
    raise WrongRequest(
        f"{name} is of no model that a run of Layerwise logged, or of one that was deleted; see who made it."
    )


def _run(client: MlflowClient, run_id: str | None) -> Run | None:
    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return None


def _known(client: MlflowClient) -> str:
    names = [one.name for one in client.search_registered_models(max_results=PAGE)]
    return (
        f"; there are {', '.join(names[:5])}"
        if names
        else "; none is registered yet, which `layerwise register RUN --depth N` does"
    )


def _files(client: MlflowClient, found: Found) -> dict[str, bytes]:
    model, held = found.model, found.model.tags.get(FILES, "")
    try:
        listed = {str(path): str(digest) for path, digest in json.loads(held).items()}
    except (AttributeError, TypeError, ValueError):
        raise WrongRequest(f"{found.name} was not made by Layerwise: nothing vouches for its files.") from None
    if len(listed) > MOST_FILES or not {MLMODEL, NETWORK} <= set(listed):
        raise TrackingError(f"{found.name} is said to have files that no model of Layerwise has; see who changed it.")
    content = _content(client, model, listed)
    ids = {"model_id": model.model_id, "run_id": model.source_run_id or "", "location": model.artifact_location}
    digests = ModelFolder.of_named(content, **ids).digests()
    damaged = sorted(path for path, digest in listed.items() if digests.get(path) != digest)
    if damaged:
        study = f"`layerwise run {found.version.tags.get(STUDY, '')}`" if found.version else "its study's run"
        raise TrackingError(
            f"{found.name} is not as it was published ({', '.join(damaged)}), so it is not loaded; {study} mends it."
        )
    return content


def _content(client: MlflowClient, model: LoggedModel, listed: Mapping[str, str]) -> dict[str, bytes]:
    """The files that are there, by relative path."""
    folder = local_path(model.artifact_location)
    if folder is not None:
        return _below(folder, listed)
    with scratch() as folder:
        store = get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
        store.download_artifacts("", str(folder))
        return _below(folder, listed)


def _below(folder: Path, listed: Mapping[str, str]) -> dict[str, bytes]:
    return {path: content for path in listed if (content := read_below(folder, path)) is not None}


def _signature(files: Mapping[str, bytes]) -> ModelSignature:
    from mlflow.models import ModelSignature

    return ModelSignature.from_dict(read_plain(files[MLMODEL].decode())["signature"])
