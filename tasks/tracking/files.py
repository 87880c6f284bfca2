"""Files in the store: the artifacts of runs, and the folders of models."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from tasks import durable

ARTIFACT = "layerwise.artifact."
"""Prefix of tags that name an artifact's SHA-256; written after the file, such a tag vouches for it."""


def local_path(location: str | None) -> Path | None:
    """Where a place of MLflow's is on this machine's disk; None where only a server reaches it."""
    return Path(local_file_uri_to_path(location)) if location and is_local_uri(location) else None


def read_below(folder: Path, path: str) -> bytes | None:
    """A file's content; None where it is not there, cannot be read, or its name would lead out of the folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        return None
    try:
        return (folder / path).read_bytes()
    except OSError:
        return None


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


def _part(file: Path) -> Path:
    """Where a file is collected. One process writes to a run, so that what a kill leaves here is written over."""
    return file.with_name(f".{file.name}.part")


def _fetched(client: MlflowClient, run: Run, path: str) -> bytes | None:
    folder = local_path(run.info.artifact_uri)
    if folder is not None:
        return read_below(folder, path)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return Path(client.download_artifacts(run.info.run_id, path, scratch)).read_bytes()
    except (MlflowException, OSError):
        return None
