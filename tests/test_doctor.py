"""`layerwise doctor`: each illness has a line that says what to do, and `--fix` mends what can be made again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows import checks, environment
from flows.doctor import doctor_command
from flows.locks import claim, using_results
from tasks import records
from tasks.tracking import health, rows
from tasks.tracking import store as tracking_store
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import close_runs, open_runs
from tasks.tracking.store import artifact_root, database_path, open_store
from tasks.tracking.tags import OWNER
from tests.studies import small
from tests.test_cli import and_modules
from tests.tracking.test_answers import publish

DEAD = f"{socket.gethostname()}/1/0"
"""A process of this machine that began at no time."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the runs of a study that are being worked on by this process, in a file to be copied."""
    root = tmp_path_factory.mktemp("stored")
    study = small(seeds=2)
    client = open_store(root)
    open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(2), provenance={}, root=root)
    client._tracking_client.store.engine.dispose()
    return database_path(root)


@pytest.fixture
def sick(root: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root as a run leaves it: folders, two results, a store; versions as a lock has them."""
    before = dict(os.environ)
    environment.prepare(root)
    artifact_root(root).mkdir(parents=True)
    shutil.copy(stored, database_path(root))
    places = [str(database_path(root).parent), str(stored.parent)]
    sql(root, "UPDATE experiments SET artifact_location = replace(artifact_location, ?2, ?1)", *places)
    for name in ("aa", "bb"):
        write_result(root, name)
    lock = root / "requirements.lock"
    lock.write_text(f"pytest=={pytest.__version__} \\\n    --hash=sha256:0\nno-such-thing==1 ; sys_platform == 'x'\n")
    monkeypatch.setattr(checks, "LOCK", lock)
    monkeypatch.setattr(checks, "LEAST_DISK", 1)
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
    return root


@pytest.fixture
def logged(sick: Path) -> Path:
    """The root of a run that left the log of its store, as processes do that end without closing it."""
    path, kept = database_path(sick), sick / "kept"
    kept.mkdir()
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA user_version = 7")
        store.commit()
        for end in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{end}", kept)
    for file in kept.iterdir():
        file.replace(path.with_name(file.name))
    return sick


def test_looking_changes_nothing(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log of a store is read, and neither taken in nor removed."""
    folder = database_path(logged).parent
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir() if file.is_file()}
    assert len(before) == 3
    assert looked(logged, capsys)[0] == 0
    index = database_path(logged).with_name("mlflow.db-shm")  # in which readers note that they read
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    assert {file for file in after if after[file] != before[file]} <= {index}


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_a_log_without_its_store_is_told(logged: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    """A store that was emptied or lost is no new one, as the log beside it tells."""
    path = database_path(logged)
    path.unlink()
    if how == "empty":
        path.touch()
    status, lines = looked(logged, capsys)
    (line,) = [line for line in lines if line.startswith("look ")]
    assert status == 1
    assert "mlflow.db-wal beside it is of one that was there; move the file away, together with those of" in line


def write_result(root: Path, name: str, stored_as: str = "") -> Path:
    """A sound record, as Prefect and our serializer leave one."""
    record = {"metadata": {"serializer": {"type": "layerwise"}, "storage_key": stored_as or name}, "result": "x"}
    file = environment.results_folder(root) / name
    file.write_bytes(records.envelope(json.dumps(record).encode()))
    return file


def sql(root: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database_path(root))) as store:
        store.execute(statement, values)
        store.commit()


def looked(root: Path, capsys: pytest.CaptureFixture[str], **options: bool) -> tuple[int, list[str]]:
    """The exit status, and the lines."""
    capsys.readouterr()
    status = doctor_command(root, **{"fix": False, "thorough": False} | options)
    out, err = capsys.readouterr()
    return status, out.splitlines() + err.splitlines()


def test_all_is_well(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line says ok, and the exit status is 0; nothing is written."""
    before = {file: file.stat().st_mtime_ns for file in sick.rglob("*") if file.is_file()}
    status, lines = looked(sick, capsys)
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert status == 0
    said = "\n".join(lines)
    for words in (
        f"store      {database_path(sick)}, ",
        "with a write-ahead log",
        "results    2 stages and scores, ",
        "all verified",
        "versions   all 1 as requirements.lock",
        "MLFLOW_DISABLE_TELEMETRY",
        "locks      nobody is at work",
        "servers    none has outlived",
        f"free for {sick}",
    ):
        assert words in said
    assert {file: file.stat().st_mtime_ns for file in sick.rglob("*") if file.is_file()} == before


def orphans(root: Path) -> str:
    sql(root, "UPDATE tags SET value = ? WHERE key = ?", DEAD, OWNER)
    return (
        r"look  runs       RUNNING, but their process has ended: small \(4\);"
        r" `layerwise run` takes them over, `layerwise doctor --fix` closes them"
    )


def half_made(root: Path) -> str:
    with_model(root, "KILLED", status=1)
    return r"look  models     never finished: small \(1\); .*`layerwise doctor --fix` deletes them"


def with_model(root: Path, of_run: str, status: int, *, ours: bool = True) -> None:
    """A model of a seed's run that ended in that state; one that Layerwise made says of which run key it is."""
    sql(root, "UPDATE runs SET status = ?", of_run)
    sql(
        root,
        "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,"
        " last_updated_timestamp_ms, status, lifecycle_stage, source_run_id)"
        " SELECT 'm-1', experiment_id, 'depth-01', '', 1, 1, ?, 'active', run_uuid FROM runs LIMIT 1",
        status,
    )
    if ours:
        sql(
            root,
            "INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value)"
            " SELECT model_id, experiment_id, 'layerwise.run_key', 'x' FROM logged_models",
        )


def no_log(root: Path) -> str:
    sql(root, "PRAGMA journal_mode=DELETE")
    return r"note  store      \S+mlflow.db, \S+ kB, has no write-ahead log; the next `layerwise run` switches it on"


def newer(root: Path) -> str:
    sql(root, "UPDATE alembic_version SET version_num = 'f00000000000'")
    return (
        r"look  store      .* made by a newer MLflow than 3\S+ \(schema f0+ is unknown here\); install that version, or"
    )


def older(root: Path) -> str:
    sql(root, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    return r"look  store      .* made by an older MLflow than 3\S+ .*; back it up, then run `mlflow db upgrade sqlite:"


def no_database(root: Path) -> str:
    database_path(root).write_text("My notes.\n" * 100)
    return r"look  store      \S+mlflow.db is not an SQLite database; move it away, and a new store is made\."


def flipped(root: Path) -> str:
    file = write_result(root, "cc")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # inside of the result: the record is still one, but for its checksum
    file.write_bytes(content)
    return r"look  results    1 of 3 that were verified is damaged or not ours, in \S+: cc; `layerwise clean --yes` "


def foreign(root: Path) -> str:
    write_result(root, "cc", stored_as="dd")
    return r"look  results    1 of 3 that were verified is damaged or not ours, in \S+: cc; "


def left_behind(root: Path) -> str:
    folder = environment.results_folder(root)
    (folder / ".aa.damaged").touch()
    for name, age in ((".bb.0123", 100), (".cc.0123", 1)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    return r"note  results    1 set aside as damaged, 1 never finished; `layerwise clean --yes` removes them"


def open_folder(root: Path) -> str:
    environment.results_folder(root).chmod(0o755)
    return r"look  folders    \S+/results is open to others \(mode 0755\); chmod 700 \S+/results"


def stale_lock(root: Path) -> str:
    (environment.locks_folder(root) / "abc.holder").write_text(json.dumps({"pid": 2**22 + 1, "since": "then"}))
    return (
        r"note  locks      1 left by processes that have ended, which hold nothing up; `layerwise doctor --fix` removes"
    )


def other_version(root: Path) -> str:
    (root / "requirements.lock").write_text("pytest==0.1\npytest==0.2 ; x\nno-such-thing==1\n")
    return (
        rf"look  versions   pytest {pytest.__version__} \(locked: 0\.1 or 0\.2\), no-such-thing is not installed"
        r" \(locked: 1\); `make setup` installs what is locked"
    )


def folder_for_database(root: Path) -> str:
    for file in database_path(root).parent.glob("mlflow.db*"):
        file.unlink()
    database_path(root).mkdir()
    return (
        r"look  store      \S+mlflow.db is a folder, and the tracking store is a file of that name; move it away, and a"
        " new store is made"
    )


def damaged_page(root: Path) -> str:
    spoil_page(database_path(root), "params")
    return r"look  store      \S+mlflow.db is damaged \(.*[Pp]age \d+.*\); move the file away, together"


def damaged_page_of_prefect(root: Path) -> str:
    file = environment.prefect_home(root) / "prefect.db"
    with closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE flow_run (id)")
    spoil_page(file, "flow_run")
    return (
        r"look  prefect    \S+/prefect/prefect.db is damaged \(.*[Pp]age \d+.*\); move it away with its -wal and -shm"
        r" files: a new one is made"
    )


def spoil_page(file: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = made.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
        (size,) = made.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xff" * size)


ILLNESSES = [
    orphans, half_made, newer, older, no_database, folder_for_database, damaged_page, damaged_page_of_prefect, flipped,
    foreign, open_folder, other_version,
]  # fmt: skip

TRIFLES = [no_log, left_behind, stale_lock]


@pytest.mark.parametrize("illness", [*ILLNESSES, *TRIFLES])
def test_what_is_wrong_has_a_line_with_a_remedy(
    sick: Path, capsys: pytest.CaptureFixture[str], illness: Callable[[Path], str]
) -> None:
    """Each illness makes the exit status 1, and a trifle does not; either is told in a line, and the others stay ok."""
    expected = illness(sick)
    status, lines = looked(sick, capsys)
    assert status == (illness in ILLNESSES)
    (line,) = [line for line in lines if not line.startswith("ok ")]

    assert re.match(expected, line), line


@pytest.mark.parametrize(
    "name",
    ["mlruns", "mlruns/artifacts", ".layerwise", ".layerwise/locks", ".layerwise/prefect", ".layerwise/results"],
)
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Whichever folder it is, the file is named; it is left alone, and nothing is made."""
    file = tmp_path / name
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch()
    status, lines = looked(tmp_path, capsys)
    assert status == 1
    assert f"look  folders    {file} is no folder, and has to be one; move it away" in lines
    assert [line for line in lines if line.startswith("look ") and f" {file} " not in line] == []
    assert [made for made in tmp_path.rglob("*") if made.is_file()] == [file]


def test_a_root_in_which_nothing_can_run_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, and a folder that takes no files: each has its line."""
    file, closed = tmp_path / "file", tmp_path / "closed"
    file.touch()
    closed.mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: place != closed and allowed(place, mode))
    no_folder = f"look  folders    {file} is no folder, and has to be one; name a folder in LAYERWISE_ROOT"
    no_way_in = (
        f"look  folders    {closed} cannot be written to; run in a folder of your own, or name one in LAYERWISE_ROOT"
    )
    for root, expected in ((file, no_folder), (file / "x", no_folder), (closed, no_way_in)):
        status, lines = looked(root, capsys)
        assert (status, [line for line in lines if line.startswith("look ")]) == (1, [expected])


def test_folders_that_others_own_or_that_take_nothing_are_told(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of folders that cannot be written to the uppermost are named; a run refuses those of other users."""
    monkeypatch.setattr(os, "access", lambda place, _: not Path(place).is_relative_to(sick))
    remedy = "run in a folder of your own, or name one in LAYERWISE_ROOT"
    (environment.prefect_home(sick) / "prefect.db").touch()
    status, lines = looked(sick, capsys)
    assert status == 1
    assert [line for line in lines if not line.startswith("ok ")] == [
        f"look  folders    {sick}/.layerwise and {sick}/mlruns cannot be written to; {remedy}",
        f"look  store      {database_path(sick)} is not writable; runs are tracked there: change its permissions, or"
        " set LAYERWISE_ROOT to another place.",
        f"note  prefect    {sick}/.layerwise/prefect/prefect.db is not looked at: nothing can be written beside it",
    ]
    monkeypatch.undo()
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    status, lines = looked(sick, capsys)
    assert status == 1
    assert f"look  folders    {sick}/.layerwise belongs to another user (id {own}, not {own + 1}); {remedy}" in lines


def test_a_root_that_is_not_there_is_said_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a slip of the pen, or the first run's to make; nothing is said of folders that are not there."""
    root = tmp_path / "none"
    lines = looked(root, capsys)[1]
    assert lines[0] == f"note  folders    there is no {root} yet; the first run makes it"
    assert "open to its owner" not in "\n".join(lines)
    assert not root.exists()
    database_path(root).parent.mkdir(parents=True)
    database_path(root).touch()
    assert looked(root, capsys)[1][:2] == [
        f"ok    folders    there is no {root}/.layerwise yet; the first run makes it",
        f"ok    store      nothing is tracked yet: {database_path(root)} is empty",
    ]


def test_what_cannot_be_read_is_a_line_as_well(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that fails, and a database that somebody holds, end no check but their own, without a traceback."""

    def failing(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    def locked(_: Path) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(checks, "listed", failing)
    monkeypatch.setattr(health, "leftovers", locked)
    status, lines = looked(sick, capsys)
    assert status == 1
    assert [line for line in lines if not line.startswith("ok ")] == [
        "look  store      the database cannot be read (database is locked); close what holds it",
        f"look  results    {environment.results_folder(sick)} cannot be read (Permission denied); mend that",
    ]
    assert lines[-1].startswith("ok    disk")


# --- what was published -------------------------------------------------------------------------------------


@pytest.fixture
def published(sick: Path) -> Iterator[Path]:
    """A root with a finished study and a finished repeat of it, beside one that is being worked on."""
    study, client = small(name="done", seeds=2), open_store(sick)
    for repeat, ended in (("", 1), ("again", 2)):
        key = study.digest(repeat or "first")
        tree = open_runs(client, study, run_key=key, repeat=repeat, seeds=range(2), provenance={}, root=sick)
        publish(Publisher(client, tree), tree)
        close_runs(client, tree, end_time=ended)
    yield sick
    client._tracking_client.store.engine.dispose()


def files_of(root: Path, pattern: str) -> list[Path]:
    """Files below the artifacts, by when they were written."""
    return sorted(artifact_root(root).rglob(pattern), key=lambda file: file.stat().st_mtime_ns)


def flipped_model(root: Path) -> str:
    file = files_of(root, "model.keras")[0]
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    return r"done is .*: 1 file changed \(greedy seed \d: depth-03/.*\); `layerwise run done` mends it, with the file"


def lost_model(root: Path) -> str:
    files_of(root, "model.keras")[-1].unlink()
    return r"done:again is .*: 1 file changed \(greedy seed .*\); `layerwise run done --repeat again` mends it, "


def lost_table(root: Path) -> str:
    files_of(root, "results.csv")[0].unlink()
    return r"done is not as it was published: 1 file missing \(study: results\.csv\); `layerwise run done` mends it"


def lost_manifest(root: Path) -> str:
    files_of(root, "manifest.json")[0].unlink()
    return r"done is not as it was published: 1 file missing \(study: manifest\.json\); "


def deleted_run(root: Path) -> str:
    sql(root, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'greedy seed 01' AND end_time = 1")
    return r"done is not as it was published: 1 run missing \(greedy seed 1\); "


def changed_metric(root: Path) -> str:
    sql(
        root,
        "UPDATE metrics SET value = value + 1e-9 WHERE step = 1 AND value > 1"
        " AND run_uuid IN (SELECT run_uuid FROM runs WHERE end_time = 2)",
    )
    return r"done:again is not as it was published: 1 metric changed \(greedy seed 1: test_accuracy\); "


@pytest.mark.parametrize("loss", [flipped_model, lost_model, lost_table, lost_manifest, deleted_run, changed_metric])
def test_a_study_that_is_not_as_it_was_published_is_told(
    published: Path, capsys: pytest.CaptureFixture[str], loss: Callable[[Path], str]
) -> None:
    """Whatever was lost or changed of a finished study is named, with the command that mends it."""
    status, lines = looked(published, capsys)
    assert (status, [line for line in lines if not line.startswith("ok ")]) == (0, [])
    assert "ok    studies    2 finished, 8 runs verified, as they were published" in lines
    expected = loss(published)
    status, lines = looked(published, capsys)
    assert status == 1
    (line,) = [line for line in lines if not line.startswith("ok ")]
    assert re.match("look  studies    " + expected, line), line


def test_a_manifest_that_lies_is_a_line_as_well(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever may write to a store can vouch for anything; what is none of ours is said, without a traceback."""
    content = b'{"runs": {"study": 3}}'
    files_of(published, "manifest.json")[-1].write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    sql(published, "UPDATE tags SET value = ? WHERE key = 'layerwise.artifact.manifest.json'", digest)
    status, lines = looked(published, capsys)
    assert status == 1
    (line,) = [line for line in lines if not line.startswith("ok ")]
    assert re.fullmatch(
        r"look  store      what \S+mlflow.db holds is not what Layerwise writes \(.*\); see who .*", line
    )
    sql(published, "DELETE FROM tags WHERE key = 'layerwise.run_key'")
    assert "ok    studies    none is finished yet" in looked(published, capsys)[1]


def test_files_behind_a_server_are_not_missed(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server's database may be looked at as a file: what the server alone can read is said to be unread."""
    sql(published, "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/' || experiment_id")
    sql(published, "UPDATE runs SET artifact_uri = 'mlflow-artifacts:/' || run_uuid")
    status, lines = looked(published, capsys)
    assert (status, [line for line in lines if not line.startswith("ok ")]) == (0, [])
    assert "ok    studies    2 finished, 0 runs verified; files behind a server are not read" in lines
    sql(published, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'greedy seed 01' AND end_time = 1")
    assert any("1 run missing (greedy seed 1)" in line for line in looked(published, capsys)[1])


def test_a_root_that_was_moved_or_copied_is_told(
    published: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow keeps absolute places: where the artifacts are is said once, as a run says it, and nothing verified."""
    other = tmp_path_factory.mktemp("other") / "copy"
    shutil.copytree(published, other)
    kept = rf"look  studies    the artifacts of 'done' are kept in {artifact_root(published)}/done, "
    for expected in (
        rf"outside {other}: this folder was copied from there; run there, or set {other}/mlruns aside for a new .*",
        rf"which is gone; if it was moved, move it back or leave a link there; else set {other}/mlruns aside .*",
    ):
        status, lines = looked(other, capsys)
        (line,) = [line for line in lines if not line.startswith("ok ")]
        assert status == 1
        assert re.fullmatch(kept + expected, line), line
        assert not [line for line in lines if line.startswith("ok    studies")]
        shutil.rmtree(published / "mlruns", ignore_errors=True)
    places = [str(other), str(published)]
    sql(
        other,
        "UPDATE experiments SET artifact_location = replace(artifact_location, ?2, ?1) WHERE name = 'done'",
        *places,
    )
    sql(other, "UPDATE runs SET artifact_uri = replace(artifact_uri, ?2, ?1)", *places)
    sql(other, "UPDATE logged_models SET artifact_location = replace(artifact_location, ?2, ?1)", *places)
    lines = looked(other, capsys)[1]
    assert len([line for line in lines if line.startswith("look  studies    the artifacts of 'small'")]) == 1
    assert [line for line in lines if line.startswith("ok    studies    2 finished, 8 runs verified")]


def test_time_bounds_which_studies_are_verified(
    published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are verified first, and it is said how many; `--all` verifies every one, and all pages."""
    flipped_model(published)
    monkeypatch.setattr(checks, "VERIFYING_SECONDS", -1.0)
    status, lines = looked(published, capsys)
    assert status == 0
    assert "ok    studies    2 finished, the newest 0 of 8 runs verified (--all: every one)" in lines
    assert ", not all of its pages verified (--all: every one), with a write-ahead log" in lines[1]
    assert looked(published, capsys, thorough=True)[0] == 1


def test_studies_of_a_server_are_verified_if_all_is_wanted(
    published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server holds is asked of it, which takes a while; without `--all` it is said that it is not."""
    flipped_model(published)
    client = open_store(published)
    monkeypatch.setattr(checks, "open_store", lambda _: client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, lines = looked(published, capsys)
    answers = "ok    store      the server that MLFLOW_TRACKING_URI names answers"
    assert (status, f"{answers}; its runs are not looked at (--all)" in lines) == (0, True)
    status, lines = looked(published, capsys, thorough=True)
    assert (status, answers in lines) == (1, True)
    assert [line[:49] for line in lines if " studies " in line] == [
        "look  studies    done is not as it was published:",
        "ok    studies    2 finished, 8 runs verified",
    ]
    client._tracking_client.store.engine.dispose()


def test_what_is_no_illness_is_left_alone(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finished models, runs of another machine, and what somebody is at work on, need no attention."""
    with_model(sick, "RUNNING", status=1)
    status, lines = looked(sick, capsys)
    assert (status, [line for line in lines if " models " in line]) == (0, ["ok    models     none is left half-made"])
    sql(sick, "UPDATE tags SET value = 'elsewhere/1/2' WHERE key = ?", OWNER)
    status, lines = looked(sick, capsys)
    assert status == 0
    assert "note  runs       RUNNING on another machine, or nobody's: small (4); no telling from here" in lines
    with claim(sick, "abc"):
        status, lines = looked(sick, capsys)
    assert status == 0
    assert [line for line in lines if f"Process {os.getpid()} (since " in line and line.startswith("ok    locks")]


def test_too_little_disk_and_telemetry_are_told(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full, and a switch that would not be set, need attention."""
    monkeypatch.setattr(checks, "LEAST_DISK", 2**62)
    monkeypatch.delitem(environment.SETTINGS, "MLFLOW_DISABLE_TELEMETRY")
    status, lines = looked(sick, capsys)
    assert status == 1
    bad = [line for line in lines if not line.startswith("ok ")]
    assert bad[0] == "look  telemetry  not switched off: MLFLOW_DISABLE_TELEMETRY; see flows/environment.py"
    assert bad[1].endswith(f" free for {sick}; make room; `layerwise clean` shows what takes it")


def test_a_server_that_does_not_answer_is_told(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's server is asked whether it is there; its password is not shown."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:secret@127.0.0.1:{port}")
    status, lines = looked(sick, capsys)
    (line,) = [line for line in lines if not line.startswith("ok ")]
    assert status == 1
    assert line.startswith(f"look  store      the tracking store http://127.0.0.1:{port} does not answer")
    assert line.endswith("; start it, or correct or unset MLFLOW_TRACKING_URI")
    assert "secret" not in line


def test_time_bounds_what_is_verified_unless_all_is_wanted(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest results are verified for a second; with `--all` every one is, and a damaged old one found."""
    flipped(sick)
    os.utime(environment.results_folder(sick) / "cc", (1, 1))
    monkeypatch.setattr(checks, "VERIFYING_SECONDS", -1.0)
    status, lines = looked(sick, capsys)
    assert status == 0
    assert "the newest 0 verified (--all: every one)" in "\n".join(lines)
    assert looked(sick, capsys, thorough=True)[0] == 1


def start_orphan(root: Path) -> int:
    """A process that looks like a server of a root, started by a shell that has ended since; its number."""
    command = f"{sys.executable} -c 'import time; time.sleep(60)' flows/server.py >/dev/null 2>&1 & echo $!"
    environ = {"LAYERWISE_ROOT": str(root), "PATH": os.environ["PATH"]}
    return int(subprocess.run(["sh", "-c", command], env=environ, capture_output=True, check=True).stdout)


@pytest.fixture
def orphan(sick: Path) -> Iterator[int]:
    """A server of the root that has lost its parent, beside one of another root."""
    started = [start_orphan(sick), start_orphan(sick / "other")]
    yield started[0]
    for pid in started:
        os.kill(pid, 9)


def test_a_server_without_its_parent_is_told(sick: Path, capsys: pytest.CaptureFixture[str], orphan: int) -> None:
    """Its process is named, with the command that ends it; one whose parent is there is not, nor another root's."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "flows/server.py"]
    with subprocess.Popen(command, env={"LAYERWISE_ROOT": str(sick)}) as child:
        status, lines = looked(sick, capsys)
        child.kill()
    assert status == 1
    assert [line for line in lines if not line.startswith("ok ")] == [
        f"look  servers    process {orphan} (Prefect's server of a run) has lost its parent; kill {orphan}"
    ]


# --- mending ------------------------------------------------------------------------------------------------


def test_fix_mends_what_can_be_made_again(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of the dead are closed, models nobody will finish deleted, stale locks and open folders put right."""
    stale_lock(sick)
    open_folder(sick)
    with_model(sick, "RUNNING", status=1)
    orphans(sick)
    status, lines = looked(sick, capsys, fix=True)
    assert (status, [line for line in lines if not line.startswith(("ok ", "fixed "))]) == (0, [])
    assert [line for line in lines if line.startswith("fixed ")] == [
        f"fixed {environment.results_folder(sick)} is open to its owner alone now",
        "fixed abc.holder is removed",
        "fixed closed as KILLED: small (4)",
        "fixed deleted models that were never finished: small (1)",
    ]
    with closing(sqlite3.connect(database_path(sick))) as store:
        assert store.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall() == [("KILLED", 4)]
        assert store.execute("SELECT lifecycle_stage FROM logged_models").fetchall() == [("deleted",)]
    assert [line for line in looked(sick, capsys, fix=True)[1] if line.startswith("fixed ")] == []


def test_fix_writes_to_no_damaged_store(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writing could harm it more: what to do about it is said instead."""
    orphans(sick)
    damaged_page(sick)
    before = database_path(sick).read_bytes()
    status, lines = looked(sick, capsys, fix=True)
    assert status == 1
    assert re.fullmatch(r"layerwise: --fix: \S+mlflow.db is damaged \(.*\); move the file away, together .*", lines[-1])
    assert database_path(sick).read_bytes() == before


def test_models_of_others_are_theirs(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that somebody else has not finished, in the same store, is neither reported nor deleted."""
    with_model(sick, "KILLED", status=1, ours=False)
    status, lines = looked(sick, capsys, fix=True)
    assert (status, [line for line in lines if " models " in line]) == (0, ["ok    models     none is left half-made"])
    with closing(sqlite3.connect(database_path(sick))) as store:
        assert store.execute("SELECT lifecycle_stage FROM logged_models").fetchall() == [("active",)]


def test_a_store_that_somebody_holds_is_said_in_one_line(
    sick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process writes to the database, `--fix` says so and gives up, without a traceback."""
    orphans(sick)

    def locked(*_: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database is locked")

    monkeypatch.setattr(health, "mend", locked)
    status, lines = looked(sick, capsys, fix=True)
    assert status == 1
    assert lines[-1].startswith(
        "layerwise: --fix: mending the store failed: (sqlite3.OperationalError) database is locked"
    )
    monkeypatch.undo()
    monkeypatch.setattr(rows, "SECONDS", 0.1)
    monkeypatch.setattr(tracking_store, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(database_path(sick))) as holding:
        holding.execute("PRAGMA locking_mode=EXCLUSIVE")
        holding.execute("BEGIN EXCLUSIVE")
        status, lines = looked(sick, capsys, fix=True)
    assert status == 1
    assert re.fullmatch(r"layerwise: --fix: .*(locked|cannot be read).*", lines[-1]), lines


def test_fix_waits_for_nobody(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a run is in progress nothing is mended: what looks abandoned may just be taken over."""
    orphans(sick)
    with using_results(sick):
        status, lines = looked(sick, capsys, fix=True)
    assert (status, lines) == (75, ["layerwise: --fix: Another process is using the results; wait for it."])
    assert health.leftovers(database_path(sick)).orphans


def test_a_root_without_anything_is_well_and_stays_empty(tmp_path: Path) -> None:
    """The command loads none of the heavy libraries, and leaves no file."""
    ended, loaded = and_modules(tmp_path, "doctor", "--fix")
    assert (ended.err, loaded) == ("", set())
    assert f"ok    store      nothing is tracked yet: there is no {database_path(tmp_path)}\n" in ended.out
    assert not list(tmp_path.iterdir())


def test_a_root_with_a_store_is_looked_at_without_mlflow(published: Path) -> None:
    """The database is read as it stands, and read the same way as MLflow reads it; so is what was published."""
    orphans(published)
    lost_table(published)
    ended, loaded = and_modules(published, "doctor", "--all")
    assert (ended.status, ended.err, loaded) == (1, "", set())
    assert "done is not as it was published: 1 file missing (study: results.csv)" in ended.out
    client: MlflowClient = open_store(published)
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    assert set(health.leftovers(database_path(published)).orphans) == {run.info.run_id for run in running}
    client._tracking_client.store.engine.dispose()
