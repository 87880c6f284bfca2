"""What every test gets: our environment, before anything reads it, and a root of its own to work in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import environment

_SESSION_ROOT = tempfile.TemporaryDirectory(prefix="layerwise-tests-")
# The libraries read their settings when they are imported, which collecting the tests already does.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("PREFECT_API_URL", None)
environment.prepare(Path(_SESSION_ROOT.name))


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """What a command sets for the process that it ends with is not there for the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty root folder that is also the working directory and ``LAYERWISE_ROOT``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERWISE_ROOT", str(tmp_path))
    return tmp_path
