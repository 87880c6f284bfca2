"""Opening the store: created once and whole, refused in one line where it cannot serve."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from tasks import durable, scratch
from tasks.tracking.store import (
    StoreFull,
    TrackerAway,
    TrackingError,
    _on_network,
    _revisions,
    absolute_uri,
    answers,
    artifact_root,
    artifacts_of,
    database_path,
    failures_in_one_line,
    open_store,
    shown,
    store_uri,
)
from tests.trackers import Proxy, unused_port

CHECKOUT = Path(__file__).resolve().parents[2]


def put_store(empty: Path, root: Path) -> Path:
    """A copy of the session's store as the default store of a root."""
    path = database_path(root)
    path.parent.mkdir(parents=True)
    shutil.copy(empty, path)
    return path


def execute(path: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(statement).fetchall()
        connection.commit()
        return found


def refusal(root: Path) -> str:
    """The one line with which the root's store is refused."""
    with pytest.raises(TrackingError) as refused:
        open_store(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_default_store_lies_below_the_root_absolutely(root):
    """Without MLFLOW_TRACKING_URI, runs go to an absolute place below the root, wherever one stands."""
    assert store_uri(Path()) == f"sqlite:///{root}/mlruns/mlflow.db"
    assert artifact_root(Path()) == root / "mlruns" / "artifacts"


def test_a_file_is_named_so_that_it_is_found_from_elsewhere(root, monkeypatch):
    """A relative path becomes absolute, and what follows it stays; an address of a server is as it was."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db?timeout=5")
    assert absolute_uri(root) == f"sqlite:///{root}/runs.db?timeout=5"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert absolute_uri(root) == "http://tracking.example:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert absolute_uri(root) == store_uri(root)


def test_a_team_server_is_honoured(root, monkeypatch):
    """MLFLOW_TRACKING_URI names the store if it is set, and not if it is blank."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert store_uri(root) == "http://tracking.example:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert store_uri(root).startswith("sqlite:")


def test_a_store_is_made_where_there_is_none(root, capfd):
    """An interrupted creation, or an empty file in the store's place, gives way to a whole store, quietly."""
    path = database_path(root)
    path.parent.mkdir()
    path.touch()
    (path.parent / ".mlflow.db.creating").write_bytes(b"half of a database")
    client = open_store(root)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert client.get_experiment("0").artifact_location.startswith(artifact_root(root).as_uri().removeprefix("file://"))
    assert not list(path.parent.glob(".mlflow.db.creating*"))
    assert (root / ".layerwise").stat().st_mode & 0o777 == 0o700
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["with space", "50% of", "%41", "ha#sh", "ünïcode"])
def test_a_root_may_have_nearly_any_name(root, name, empty_store):
    """The store is found, and written, in folders whose names mean something in a URI."""
    here = root / name
    path = put_store(empty_store, here)
    open_store(here).create_experiment("found")
    assert ("found",) in execute(path, "SELECT name FROM experiments")


def test_the_store_is_written_ahead(client, root):
    """The write-ahead log is on, and commits do not wait for the disk."""
    assert execute(database_path(root), "PRAGMA journal_mode") == [("wal",)]
    with client._tracking_client.store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_a_store_that_mlflow_made_is_taken_as_it_is(root, empty_store):
    """A store without a write-ahead log gets one, and keeps what it holds."""
    path = put_store(empty_store, root)
    execute(path, "PRAGMA journal_mode=DELETE")
    SqlAlchemyStore(f"sqlite:///{path}", str(root)).create_experiment("kept")
    assert open_store(root).get_experiment_by_name("kept") is not None
    assert execute(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("kind", "network"), [("nfs4", True), ("ext4", False)])
def test_network_file_systems_are_known(tmp_path, kind, network):
    """The innermost mount that holds the store decides whether it is on a network."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"dev / ext4 rw 0 0\nhost:/x /srv/my\\040lab {kind} rw 0 0\ndev /srv/my\\040lab2 nfs rw 0 0\n")
    assert _on_network(Path("/srv/my lab/mlruns/mlflow.db"), mounts) is network
    assert _on_network(Path("/srv/my lab/mlruns/mlflow.db"), tmp_path / "none") is False


def test_a_newer_store_is_refused(root, empty_store):
    """A schema revision that this MLflow does not know is refused, and the store left as it is."""
    path = put_store(empty_store, root)
    execute(path, "UPDATE alembic_version SET version_num = 'fffffffffff0'")
    assert re.search(r"made by a newer MLflow than 3\.\d+\.\d+ \(schema fffffffffff0 is unknown", refusal(root))
    assert execute(path, "SELECT version_num FROM alembic_version") == [("fffffffffff0",)]


def test_an_older_store_is_not_migrated_unasked(root, empty_store):
    """An older schema is refused with the command that migrates it; MLflow by itself would just do it."""
    path = put_store(empty_store, root)
    execute(path, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    execute(path, "DROP TABLE logged_model_metrics")
    assert f"back it up, then run `mlflow db upgrade sqlite:///{path}`" in refusal(root)
    assert execute(path, "SELECT version_num FROM alembic_version") == [("451aebb31d03",)]


def test_a_file_that_is_no_database_is_refused(root):
    """Anything but an SQLite file in the store's place is refused, and left as it is."""
    path = database_path(root)
    path.parent.mkdir()
    path.write_text("notes of the week\n" * 100)
    assert "is not an SQLite database; move it away" in refusal(root)
    assert path.read_text() == "notes of the week\n" * 100


def test_a_damaged_database_is_refused_with_the_way_out(root, empty_store):
    """A store whose first page is damaged is refused with what to do, and is left as it is."""
    path = database_path(root)
    path.parent.mkdir()
    content = bytearray(empty_store.read_bytes())
    content[100:108] = b"\xff" * 8  # the first page's tree
    path.write_bytes(content)
    said = refusal(root)
    assert re.search(r"is damaged \(.*malformed.*\); move the file away, together with those of its name ", said)
    assert "then put a backup of it in its place if you have one, and run the study again" in said
    assert path.read_bytes() == content


def test_a_folder_in_the_place_of_the_store_is_said_to_be_one(root):
    """A folder of the store's name is refused as what it is, and left as it is."""
    path = database_path(root)
    path.mkdir(parents=True)
    said = f"{path} is a folder, and the tracking store is a file of that name; move it away, and a new store is made."
    assert refusal(root) == said
    assert list(path.iterdir()) == []


@contextmanager
def no_larger(pages: int) -> Iterator[None]:
    """Lets no database that is opened meanwhile grow beyond some pages, or its size: a full disk, as SQLite sees it."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


def test_a_store_that_finds_no_room_is_said_as_such(root):
    """Where the disk is full before MLflow's tables are made that is one line, and nothing half-made takes space."""
    with (
        no_larger(20),
        pytest.raises(StoreFull, match=r"cannot be created \(.* full\); free space on that disk, and run"),
    ):
        open_store(root)
    assert [path.name for path in database_path(root).parent.iterdir()] == ["artifacts"]


def test_a_store_that_grows_full_is_said_as_such(client):
    """Where the disk is full later on, the line is the same whatever was being done."""
    client._tracking_client.store.engine.dispose()

    def fill() -> None:
        with failures_in_one_line("sending", "sqlite:///x"):
            for number in range(1000):
                client.create_experiment(f"{number} {'x' * 400}")

    with no_larger(1), pytest.raises(StoreFull) as full:
        fill()
    client._tracking_client.store.engine.dispose()
    words = "the disk of the tracking store is full (database or disk is full); free space on that disk, and run again."
    assert str(full.value) == words


def test_a_store_for_whose_log_there_is_no_room_is_said_as_full(root, client, monkeypatch):
    """SQLite says of a full disk that it cannot open its write-ahead log; a byte that cannot be written tells why."""
    client._tracking_client.store.engine.dispose()
    refused = sqlite3.OperationalError("unable to open database file")

    def refuse(*_: object, **__: object):
        raise OperationalError("SELECT 1", {}, refused)

    monkeypatch.setattr(mlflow, "MlflowClient", refuse)
    assert refusal(root).startswith("opening the tracking store failed: unable to open database file; mend it and run")
    monkeypatch.setattr(durable, "finds_no_room", lambda folder: folder == database_path(root).parent)
    with pytest.raises(StoreFull) as full:
        open_store(root)
    assert str(full.value).startswith("the disk of the tracking store is full (unable to open database file); free")


def test_an_error_of_the_disk_is_a_full_disk_where_there_is_no_room(client, monkeypatch):
    """SQLite says so of a full one, too, and SQLAlchemy passes on as it is what fails while it makes a connection."""
    for error in (
        sqlite3.OperationalError("disk I/O error"),
        OperationalError("SELECT 1", {}, Exception("disk I/O error")),
    ):
        with pytest.raises(TrackingError) as other, failures_in_one_line("sending", client.tracking_uri):
            raise error
        assert "full" not in str(other.value)
        with monkeypatch.context() as full:
            full.setattr(durable, "has_room", lambda _: False)
            with pytest.raises(StoreFull) as found, failures_in_one_line("sending", client.tracking_uri):
                raise error
        assert str(found.value).startswith("the disk of the tracking store is full (disk I/O error); free space")


def test_a_connection_that_cannot_be_given_back_is_no_traceback(client, caplog):
    """What SQLAlchemy then logs, where a disk is full, would reach the terminal."""

    def fail(*_: object):
        raise sqlite3.OperationalError("disk I/O error")

    engine = client._tracking_client.store.engine
    event.listen(engine, "reset", fail)
    try:
        with failures_in_one_line("reading", client.tracking_uri):
            assert len(client.search_experiments()) == 1
    finally:
        event.remove(engine, "reset", fail)
    assert caplog.records == []


def test_a_store_without_room_for_temporary_files_says_which_disk(client, monkeypatch):
    """SQLite's temporary files are on another disk than its database: where that one is full, that one is named."""
    monkeypatch.setenv("TMPDIR", "/dev")
    monkeypatch.setattr(durable, "has_room", lambda folder: folder != Path("/dev"))
    for error in (OSError(28, "No space left on device"), scratch.ScratchFull(scratch.in_words())):
        with pytest.raises(StoreFull) as full, failures_in_one_line("sending", client.tracking_uri):
            raise error
        assert str(full.value).startswith("the disk of temporary files, /dev, is full; ")


@pytest.mark.parametrize("path", ["mlruns", "mlruns/artifacts"])
def test_a_file_where_a_folder_belongs_is_said_with_a_remedy(root, path):
    """What is in the way is left as it is."""
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("mine")
    said = refusal(root)
    assert said.startswith(f"{root / path} cannot be created (")
    assert said.endswith("; runs are tracked there: mend what is in the way, or set LAYERWISE_ROOT to another place.")
    assert (root / path).read_text() == "mine"


def test_a_database_of_others_is_refused(root):
    """An SQLite file without MLflow's tables is refused, and left as it is."""
    path = database_path(root)
    path.parent.mkdir()
    execute(path, "CREATE TABLE recipes (name TEXT)")
    assert "is a database without MLflow's tables" in refusal(root)
    assert execute(path, "SELECT name FROM sqlite_master") == [("recipes",)]


def test_a_file_in_the_folder_s_place_is_refused(root):
    """A store that cannot be created says which folder and why."""
    (root / "mlruns").write_text("")
    assert re.search(r"/mlruns(/artifacts)? cannot be created \((File exists|Not a directory)\)", refusal(root))


@pytest.mark.parametrize("place", ["mlruns", "mlruns/mlflow.db", "mlruns/artifacts"])
def test_a_store_that_may_not_be_written_is_refused(root, empty_store, place):
    """Every part of the store must be writable, or it is refused before anything else happens."""
    put_store(empty_store, root)
    artifact_root(root).mkdir()
    # Root may write everywhere, so somebody else asks.
    script = f"""
import os, sys
from pathlib import Path
from tasks.tracking.store import TrackingError, open_store
if os.getuid() == 0:
    os.setuid(65534)
try:
    open_store(Path({str(root)!r}))
except TrackingError as error:
    sys.exit(str(error))
"""
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/") and folder.is_relative_to("/tmp"):  # noqa: S108
            folder.chmod(folder.stat().st_mode | 0o055)
    for part in ("mlruns", "mlruns/mlflow.db", "mlruns/artifacts"):
        (root / part).chmod(0o555 if part == place else 0o777)
    refused = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{root / place} is not writable" in refused.stderr
    assert refused.stderr.count("\n") == 1


def away(root: Path) -> str:
    """How the root's store is said to be away, its address left out."""
    with pytest.raises(TrackerAway) as found:
        open_store(root)
    assert not answers(root)
    return str(found.value).partition("the tracking store ")[2].partition(" ")[2]


def test_a_server_that_is_away_is_told_in_one_line(root, monkeypatch, capfd, caplog):
    """A server that is not there is told from one that refuses, at once, quietly, its password untold."""
    port = unused_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:secret@127.0.0.1:{port}")
    line = refusal(root)
    assert line == f"the tracking store http://127.0.0.1:{port} does not answer (Connection refused)"
    assert away(root) == "does not answer (Connection refused)"
    assert capfd.readouterr() == ("", "")
    assert not caplog.records, "urllib3 would print its retries"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_away(root, monkeypatch, status):
    """What a server answers that is overwhelmed, or whose own database is gone, is worth waiting for."""
    with Proxy(0, lambda _: str(status)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        assert away(root) == f"does not answer ({status})"
    assert server.seen == 2, "it is asked once each time; who wants to wait asks again"


def test_a_server_that_hangs_is_away(root, monkeypatch):
    """A server that takes the request and says nothing is not waited for longer than a sign of life may take."""
    monkeypatch.setattr("tasks.tracking.store.PROBE_SECONDS", 0.2)
    with Proxy(0, delay=1) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        assert away(root) == "does not answer in time"


def test_a_connection_that_breaks_is_an_absence(root, monkeypatch):
    """A server that goes away between request and answer has not refused anything."""
    with Proxy(0, lambda _: "request") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        assert away(root).startswith("does not answer (")


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_server_that_refuses_is_not_away(root, monkeypatch, status):
    """Wrong credentials, or an address where something else lives, would be refused again."""
    with Proxy(0, lambda _: str(status)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        line = refusal(root)
        assert f"{server.url} cannot be used (API request to endpoint " in line
        assert f" failed with error code {status} != 200." in line
        assert line.endswith("; correct or unset MLFLOW_TRACKING_URI, or who you are there.")
        assert answers(root)


@pytest.mark.parametrize(
    ("user", "word", "received"),
    [
        (None, None, "no user name"),
        ("ada", "not her word", "the user 'ada'"),
        (None, "in the address", "the user 'bob'"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_told(root, monkeypatch, user, word, received):
    """The line says as whom we came, and what to set; never what proves it."""
    for name, value in (("MLFLOW_TRACKING_USERNAME", user), ("MLFLOW_TRACKING_PASSWORD", user and word)):
        if value:
            monkeypatch.setenv(name, value)
    with Proxy(0, lambda _: "401") as server:
        address = server.url if user or not word else server.url.replace("://", "://bob:in%20the%20address@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert refusal(root) == (
            f"the tracking store {server.url} does not let us in (401): received {received}; set"
            " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account there, or unset MLFLOW_TRACKING_URI."
        )
        assert answers(root)


def test_a_driver_that_is_missing_is_named(root, monkeypatch):
    """Which driver an address means changes with SQLAlchemy; the line says what to write instead, and no password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+pg8000://ada:secret@127.0.0.1:1/runs")
    assert refusal(root) == (
        "the tracking store postgresql+pg8000://127.0.0.1:1/runs cannot be used (No module named 'pg8000'); install"
        " that, or name the driver that is there, as in postgresql+psycopg2://."
    )


def test_artifacts_of_a_database_that_others_use_go_where_all_reach_them(root, monkeypatch):
    """Of a database server they go below the address for them, if there is one; of a file of one's own never."""
    own = (root / "mlruns/artifacts/blobs").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "file:///srv/shared")
    assert artifacts_of("blobs", root) == own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://db.example/runs")
    assert artifacts_of("blobs", root) == "file:///srv/shared/blobs"
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "/srv/shared")
    assert artifacts_of("blobs", root) == "file:///srv/shared/blobs"
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    assert artifacts_of("blobs", root) == own


def test_a_locked_store_is_away(root, empty_store, monkeypatch):
    """A store that another process keeps locked is waited for like a server, and named."""
    path = put_store(empty_store, root)
    monkeypatch.setattr("tasks.tracking.store.BUSY_SECONDS", 0.1)
    execute(path, "PRAGMA journal_mode=DELETE")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert refusal(root) == f"the tracking store {path} is locked by another process"
        assert not answers(root)
    assert answers(root)


def test_passwords_are_not_shown():
    """What is said about a store names its place and not who uses it."""
    assert shown("postgresql://ada:secret@db.example:5432/runs") == "postgresql://db.example:5432/runs"
    assert shown("postgresql://db.example/runs?user=ada&password=secret") == "postgresql://db.example/runs"
    assert shown("sqlite:////srv/lab/mlflow.db") == "/srv/lab/mlflow.db"


@pytest.mark.parametrize("uri", ["file:///srv/mlruns", "/srv/mlruns", "databricks"])
def test_a_store_that_mlflow_no_longer_writes_is_refused(root, monkeypatch, uri):
    """A file store, and anything else that is neither server nor database, is refused before it is tried."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert "expected http(s)://, sqlite:/// or another database" in refusal(root)


def test_asking_where_the_store_is_loads_nothing():
    """The store's module imports without MLflow, and the package without Prefect, Keras or TensorFlow."""
    script = """
import sys
import tasks.tracking.store
assert not {"mlflow", "sqlalchemy", "pandas"} & set(sys.modules), "store"
import tasks.tracking.answers, tasks.tracking.publishing, tasks.tracking.runs, tasks.tracking.templates
assert not {"prefect", "keras", "tensorflow", "matplotlib"} & set(sys.modules), "package"
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(CHECKOUT)})


def test_revisions_are_those_that_alembic_finds():
    """Read as text, MLflow's migrations have the heads and the history that its own tool sees."""
    migrations = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    newest, older = _revisions()
    assert newest == set(migrations.get_heads())
    assert newest | older == {revision.revision for revision in migrations.walk_revisions()}
