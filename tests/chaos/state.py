"""The state of a root: everything that counts about it when the work is done, in a form that can be compared.

Runs and models go by what they are (kind, arm, seed, name), never by id. Left out is what cannot be the same twice:
ids, owners, and when something happened; :func:`times` has those times that must outlive a kill. Tables are read as
they stand in the database, so that a row that is there twice is seen twice.

>>> differences({"run greedy 3: status": "FINISHED"}, {"run greedy 3: status": "RUNNING"})
["run greedy 3: status: 'FINISHED' there, 'RUNNING' here"]
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from prefect.results import ResultRecord

from flows import environment
from tasks.results import ResultFolder, StageSerializer
from tasks.tracking.tags import FILES

State = dict[str, Any]

TIMED = ("costs.csv", "stages.csv", "report.html", "report.md")
"""Artifacts that say when something happened or how long it took: of tables the rest is compared, of pages that they
are there."""

WHEN = ["seconds", "peak_memory_bytes", "finished"]
"""The columns of such a table that say so."""

PASSING = (
    "layerwise.owner",
    "layerwise.git_",
    "mlflow.sharedViewState.",
    *(f"layerwise.artifact.{name}" for name in TIMED),
)
"""Beginnings of tags that say who, when, or from what state of the code, which may change while trials run."""

NOBODYS = "file of nobody: "
"""What the names of files begin with that belong to no run and no model."""


def of(root: Path, *, deleted: bool = True) -> State:
    """The state of ``root``: a flat table of what stands where.

    Args:
        root: a root on which no process works.
        deleted: whether runs that were deleted in MLflow count.
    """
    with database(root) as store:
        if not deleted:
            _forget_deleted(store)
        names = _names(store)
        found = {
            **dict(_rows(store)),
            **dict(_experiments(store, names)),
            **dict(_runs(store, names)),
            **dict(_models(store, names, root)),
            "page: order of runs": _page(store, names),
            **dict(_artifacts(store, names, root)),
            **dict(_results(root)),
            "leftovers": leftovers(root),
        }
    return {key: value for key, value in found.items() if deleted or not key.startswith(NOBODYS)}


def differences(there: State, here: State) -> list[str]:
    """In what two states differ, a line each; nothing where they are the same."""
    return [
        f"{key}: {_short(there.get(key))} there, {_short(here.get(key))} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]


def times(root: Path) -> dict[str, int]:
    """When each point was computed: that must not change when the run goes on after a kill."""
    with database(root) as store:
        if not _is_made(store):
            return {}
        names = _names(store)
        rows = store.execute("SELECT run_uuid, key, step, timestamp FROM metrics").fetchall()
        return {f"{names[run]}: {key} at {step}": when for run, key, step, when in rows}


def statuses(root: Path) -> Counter[str]:
    """How many runs stand in which status; nothing where there is no store."""
    with database(root) as store:
        if not _is_made(store):
            return Counter()
        return Counter(dict(store.execute("SELECT status, count(*) FROM runs GROUP BY status")))


def flow_runs(root: Path) -> list[str]:
    """How Prefect's flow runs ended, or that they are still Running, in the order in which they began."""
    with database(root, ".layerwise/prefect/prefect.db") as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'flow_run'").fetchone():
            return []
        return [name for (name,) in store.execute("SELECT state_name FROM flow_run ORDER BY created")]


def task_runs_under_way(root: Path) -> list[str]:
    """Prefect's task runs that say they are still at work."""
    with database(root, ".layerwise/prefect/prefect.db") as store:
        rows = store.execute("SELECT name FROM task_run WHERE state_type IN ('RUNNING', 'PENDING')")
        return [name for (name,) in rows]


def stored(root: Path) -> dict[str, tuple[int, int, str]]:
    """Stage results on disk: digest -> inode, time of writing, content. A stage that is computed anew changes them."""
    files = [file for file in environment.results_folder(root).glob("[!.]*") if file.is_file()]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns, _sha256(file.read_bytes())) for file in files}


def leftovers(root: Path) -> list[str]:
    """Files that somebody forgot: temporary ones, half-made ones, notes of lock holders."""
    kept = re.compile(r"\.layerwise(/prefect/.*|/results/\w+|/locks/\w+\.lock)?$")
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    temporary = re.compile(r"(^|/)\.[^/]+$|\.layerwise/(results|locks)/")
    return sorted(path for path in paths if temporary.search(path) and not kept.match(path))


def processes(root: Path) -> dict[int, str]:
    """Processes that name ``root`` in their command, environment or working directory: pid -> command."""
    found, here = {}, str(root).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:  # it has just ended, or is not ours
            continue
        if any(here in words for words in said):
            found[int(process.name)] = said[0].replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@contextmanager
def database(root: Path, place: str = "mlruns/mlflow.db") -> Iterator[sqlite3.Connection]:
    """A copy of a database of ``root``, with what its log holds: to look at it changes nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        for suffix in ("", "-wal"):
            file = root / f"{place}{suffix}"
            if file.exists():
                shutil.copy(file, f"{scratch}/copy.db{suffix}")
        with closing(sqlite3.connect(f"{scratch}/copy.db")) as store:
            yield store


# --- the store ----------------------------------------------------------------------------------------------


def _is_made(store: sqlite3.Connection) -> bool:
    return bool(store.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone())


def _forget_deleted(store: sqlite3.Connection) -> None:
    """Take out of a copy of the store whatever belongs to runs that were deleted."""
    runs = "(SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
    models = f"(SELECT model_id FROM logged_models WHERE source_run_id IN {runs})"  # noqa: S608 - our own words
    for table in ("logged_model_metrics", "logged_model_tags", "logged_models"):
        store.execute(f"DELETE FROM {table} WHERE model_id IN {models}")  # noqa: S608 - the same
    store.execute(f"DELETE FROM inputs WHERE source_id IN {runs} OR destination_id IN {runs}")  # noqa: S608 - the same
    for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
        store.execute(f"DELETE FROM {table} WHERE run_uuid IN {runs}")  # noqa: S608 - the same


def _names(store: sqlite3.Connection) -> dict[str, str]:
    """Ids of experiments, runs and models -> what they are."""
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for run, key, value in store.execute("SELECT run_uuid, key, value FROM tags"):
        tags[run][key.removeprefix("layerwise.")] = value
    names = {
        run: " ".join(filter(None, ["run", said.get("kind"), said.get("arm"), said.get("seed")]))
        for run, said in tags.items()
    }
    for model, run, name in store.execute("SELECT model_id, source_run_id, name FROM logged_models"):
        names[model] = f"model {name} of {names[run]}"
    return names


def _rows(store: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        yield f"rows of {table}", store.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]  # noqa: S608


def _experiments(store: sqlite3.Connection, names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    rows = store.execute("SELECT experiment_id, name, lifecycle_stage FROM experiments")
    for number, name, stage in rows.fetchall():
        tags = store.execute("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", (number,))
        yield f"experiment {name}", (stage, _plain(tags, names))


def _runs(store: sqlite3.Connection, names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for run, name, status, stage, parent in store.execute(
        "SELECT r.run_uuid, r.name, r.status, r.lifecycle_stage, t.value FROM runs r"
        " LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'mlflow.parentRunId'"
    ).fetchall():
        own = names[run]
        yield f"{own}: itself", (name, status, stage, names.get(parent or "", ""))
        yield f"{own}: tags", _plain(store.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,)), names)
        for table, columns in {
            "params": "key, value",
            "metrics": "key, step, value, is_nan",
            "latest_metrics": "key, step, value, is_nan",
        }.items():
            rows = store.execute(f"SELECT {columns} FROM {table} WHERE run_uuid = ?", (run,))  # noqa: S608
            yield f"{own}: {table}", sorted(rows)
        yield f"{own}: inputs", sorted(_inputs(store, run))
        outputs = store.execute("SELECT destination_id, step FROM inputs WHERE source_id = ?", (run,))
        yield f"{own}: outputs", sorted((names.get(model, model), step) for model, step in outputs)


def _inputs(store: sqlite3.Connection, run: str) -> Iterator[tuple[Any, ...]]:
    yield from store.execute(
        "SELECT d.name, d.digest, d.dataset_source, d.dataset_schema, d.dataset_profile, t.name, t.value FROM inputs i"
        " JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid"
        " WHERE i.destination_id = ?",
        (run,),
    )


def _models(store: sqlite3.Connection, names: Mapping[str, str], root: Path) -> Iterator[tuple[str, Any]]:
    rows = store.execute("SELECT model_id, status, lifecycle_stage, artifact_location FROM logged_models").fetchall()
    for model, status, stage, location in rows:
        own = names[model]
        yield f"{own}: itself", (status, stage)
        tags = store.execute("SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = ?", (model,))
        said = _plain(tags, names)
        listed = json.loads(said.pop(FILES, "{}"))
        yield f"{own}: tags", said
        yield f"{own}: files that are not as their digest says", _wrong(_path(location), listed)
        linked = store.execute(
            "SELECT metric_name, metric_step, metric_value, run_id FROM logged_model_metrics WHERE model_id = ?",
            (model,),
        )
        yield f"{own}: metrics", sorted((key, step, value, names.get(run, run)) for key, step, value, run in linked)
        yield f"{own}: files", _model_files(_path(location), names, root)


def _wrong(folder: Path, listed: Mapping[str, str]) -> list[str]:
    """Files whose digest is not the one listed; the one file in which ids stand is compared by itself."""
    others = [path for path in listed if path != "MLmodel"]
    return [path for path in others if not _sha256((folder / path).read_bytes()).startswith(listed[path])]


def _page(store: sqlite3.Connection, names: Mapping[str, str]) -> list[str]:
    """The runs as the page lists them, the newest first."""
    return [names[run] for (run,) in store.execute("SELECT run_uuid FROM runs ORDER BY start_time DESC, name")]


def _plain(rows: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Tags without times, and with names in place of ids."""
    return {key: _without_ids(value, names) for key, value in rows if not key.startswith(PASSING)}


def _without_ids(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\b(m-)?[0-9a-f]{32}\b", lambda found: names.get(found[0], found[0]), text)


# --- files --------------------------------------------------------------------------------------------------


def _path(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def _model_files(folder: Path, names: Mapping[str, str], root: Path) -> dict[str, str]:
    """A model's files by relative path: weights by their bits, texts without ids and times, others by their bytes."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if file.suffix == ".keras":
            found |= {f"{file.name}/{part}": digest for part, digest in _archive(content)}
            continue
        text = content.decode(errors="replace").replace(str(root), "ROOT")
        text = re.sub(r"utc_time_created: .*", "", _without_ids(text, names))
        found[file.relative_to(folder).as_posix()] = _sha256(text.encode())
    return found


def _archive(content: bytes) -> Iterator[tuple[str, str]]:
    """The parts of a ``.keras`` file; each weight for itself, as its bits say."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                yield from _weights(archive.read(name))
            elif name == "metadata.json":
                yield name, json.loads(archive.read(name))["keras_version"]
            else:  # objects that are shared are named by where they stood in memory
                yield name, _sha256(re.sub(rb'"shared_object_id": \d+', b"", archive.read(name)))


def _weights(content: bytes) -> Iterator[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((name, f"{item.dtype} {item.shape} {_sha256(item[()].tobytes())}"))

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(note)
    yield from found


def _artifacts(store: sqlite3.Connection, names: Mapping[str, str], root: Path) -> Iterator[tuple[str, Any]]:
    """Artifacts of runs by their bytes, where they name ids without them; and files that belong to nobody."""
    places = {_path(location): names[run] for run, location in store.execute("SELECT run_uuid, artifact_uri FROM runs")}
    models = {_path(location) for (location,) in store.execute("SELECT artifact_location FROM logged_models")}
    for file in sorted(path for path in (root / "mlruns" / "artifacts").rglob("*") if path.is_file()):
        owner = next((place for place in places if file.is_relative_to(place)), None)
        if owner is not None:
            yield f"artifact {file.relative_to(owner)} of {places[owner]}", _content(file)
        elif not any(file.is_relative_to(place) for place in models):
            yield f"{NOBODYS}{file.relative_to(root)}", _sha256(file.read_bytes())


def _content(file: Path) -> str:
    """What counts of an artifact's content."""
    if file.name in TIMED and file.suffix == ".csv":
        return pd.read_csv(file).drop(columns=WHEN, errors="ignore").to_csv(index=False)
    return "there" if file.name in TIMED else _sha256(file.read_bytes())


def _results(root: Path) -> Iterator[tuple[str, str]]:
    """Stage results by digest: their values to the bit, but for when they were computed and how long that took."""
    folder = ResultFolder(folder=str(environment.results_folder(root)))
    for digest in sorted(stored(root)):
        value = ResultRecord[Any].deserialize(folder.read_path(digest)).result
        took = {name: 0 for name in ("finished", "seconds", "peak_memory") if hasattr(value, name)}
        value = dataclasses.replace(value, **took)
        yield f"result {digest}", _sha256(StageSerializer().dumps(value))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]} … {text[-200:]}"
