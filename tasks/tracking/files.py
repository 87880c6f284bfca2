"""Files in the store: the artifacts of runs, and the folders of models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from tasks import bounded, durable
from tasks.scratch import scratch
from tasks.tracking.store import TrackingError
from tasks.tracking.tags import ARTIFACT


def local_path(location: str | None) -> Path | None:
    """Where a place of MLflow's is on this machine's disk; None where only a server reaches it."""
    return Path(local_file_uri_to_path(location)) if location and is_local_uri(location) else None


def require_inside(place: Path, store: str | None) -> Path:
    """A folder of a run or a model, if it is where MLflow puts those of an experiment.

    A tracking server says where files go. It may choose the experiment's place, and not a folder of somebody else's.

    Args:
        place: the folder.
        store: where the experiment keeps its artifacts.

    Raises:
        TrackingError: if it is anywhere else.
    """
    home = local_path(store)
    inside = place.relative_to(home).as_posix() if home is not None and place.is_relative_to(home) else ""
    if not re.fullmatch(r"[0-9a-f]{32}/artifacts|models/m-[0-9a-f]{32}/artifacts", inside):
        raise TrackingError(
            f"the tracking store would have files written to {place}, which is no folder of a run or model below"
            f" {store}; see who changed it."
        )
    return place


def stored_file(client: MlflowClient, run: Run, path: str) -> bytes | None:
    """An artifact of a run; None if it is not there or not as it was published."""
    digest = run.data.tags.get(ARTIFACT + path)
    if digest is None:
        return None
    content = _fetched(client, run, path)
    return content if content is not None and hashlib.sha256(content).hexdigest() == digest else None


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, each whole or not at all; :func:`tasks.durable.settle` is left to the caller.

    Args:
        folder: need not exist.
        files: content by relative path.
    """
    for parent in {str(PurePosixPath(name).parent) for name in files}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        durable.write_soon(folder / name, content, temporary=_part(folder / name))


def write_artifact(folder: Path, path: str, content: bytes) -> None:
    """Write one artifact of a run whose artifacts lie in ``folder``, whole or not at all."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.write(file, content, temporary=_part(file))


def send_artifact(client: MlflowClient, place: str, store: str | None, path: str, content: bytes) -> None:
    """Put one artifact where a run keeps its own, on this machine or through a server.

    Args:
        client: the store.
        place: of the run's artifacts. It is asked for once: a second answer might name another.
        store: where the experiment keeps its artifacts.
        path: of the artifact, below the run's.
        content: of the artifact.

    Raises:
        TrackingError: if that is a folder of this machine which is no run's.
    """
    folder = local_path(place)
    if folder is not None:
        write_artifact(require_inside(folder, store), path, content)
        return
    parent = PurePosixPath(path).parent.as_posix()
    with scratch() as folder:
        local = folder / PurePosixPath(path).name
        local.write_bytes(content)
        get_artifact_repository(place, tracking_uri=client.tracking_uri).log_artifact(
            str(local), None if parent == "." else parent
        )


def _part(file: Path) -> Path:
    """Where a file is collected. One process writes to a run, so that what a kill leaves here is written over."""
    return file.with_name(f".{file.name}.part")


def _fetched(client: MlflowClient, run: Run, path: str) -> bytes | None:
    folder = local_path(run.info.artifact_uri)
    if folder is not None:
        return bounded.read_below(folder, path)
    try:
        with scratch() as folder:
            return bounded.read(Path(client.download_artifacts(run.info.run_id, path, str(folder))), links=False)
    except (MlflowException, OSError):
        return None
