"""Real stores: one is made for the session, and every test works on a copy of its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from layerwise.study import Study
from tasks.tracking.runs import RunTree, open_runs
from tasks.tracking.store import database_path, open_store
from tests.studies import small

with warnings.catch_warnings():
    # MLflow 3.17 maps a table with a loader that SQLAlchemy 2.1 deprecates; to go when MLflow stops using it.
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

COUNTED = (
    "experiments",
    "runs",
    "metrics",
    "latest_metrics",
    "params",
    "tags",
    "inputs",
    "input_tags",
    "datasets",
)
COUNTED_OF_MODELS = ("logged_models", "logged_model_tags", "logged_model_metrics", "logged_model_params")


class Killed(BaseException):
    """What a test raises where a real process would have died."""


class Cut:
    """A client that dies at its n-th writing call: before it is made, or before it answers."""

    def __init__(self, client: MlflowClient, calls: int, *, answered: bool) -> None:
        self._client, self.left, self._answered = client, calls, answered

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        writes = name.startswith(("create_", "log_", "set_", "update_", "finalize_", "delete_"))
        return self._counting(found) if writes else found

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._answered:
                raise Killed
            result = call(*args, **kwargs)
            if self.left == 0:
                raise Killed
            return result

        return counted


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store that has its schema and nothing in it."""
    root = tmp_path_factory.mktemp("store")
    open_store(root)
    return database_path(root)


@pytest.fixture
def client(root: Path, empty_store: Path) -> Iterator[MlflowClient]:
    """A client of a new store below the test's root."""
    database_path(root).parent.mkdir()
    shutil.copy(empty_store, database_path(root))
    client = open_store(root)
    yield client
    client._tracking_client.store.engine.dispose()


@pytest.fixture
def study() -> Study:
    """One arm, two seeds, three depths."""
    return small(seeds=2)


@pytest.fixture
def opened(client: MlflowClient, study: Study, root: Path) -> Callable[..., RunTree]:
    """Opens the runs of the study, or of another one, as the flow does."""

    def open_again(by: Any = client, *, of: Study = study, repeat: str = "") -> RunTree:
        return open_runs(
            by,
            of,
            run_key=of.digest(repeat),
            repeat=repeat,
            seeds=range(of.seeds),
            provenance={"layerwise.git_commit": "c0ffee"},
            root=root,
        )

    return open_again


@pytest.fixture
def rows(root: Path) -> Callable[[str], list[tuple]]:
    """Asks the database itself."""

    def ask(query: str) -> list[tuple]:
        with closing(sqlite3.connect(database_path(root))) as connection:
            return connection.execute(query).fetchall()

    return ask


@pytest.fixture
def counts(rows: Callable[[str], list[tuple]], root: Path) -> Callable[[], dict[str, int]]:
    """Rows by table, and the number of artifact files: what must not grow when a call is made again."""

    def count() -> dict[str, int]:
        tables = (*COUNTED, *COUNTED_OF_MODELS)
        found = {table: rows(f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables}  # noqa: S608 - our own names
        return found | {"files": sum(path.is_file() for path in (root / "mlruns" / "artifacts").rglob("*"))}

    return count


def restored_by(client: MlflowClient, said: str) -> None:
    """Does what a refusal says, as a shell with our programs would."""
    command = said.split("`")[1]
    assert command.startswith(f"MLFLOW_TRACKING_URI={client.tracking_uri} mlflow ")
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    subprocess.run(["sh", "-c", command], env=kept | {"PATH": programs}, check=True, capture_output=True)
