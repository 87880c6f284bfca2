"""The finished studies of a store that is a file, read from its rows as they stand, and verified; without MLflow.

The revision of the schema is known to be this MLflow's (:func:`tasks.tracking.store.check_database`), so that rows mean
here what they mean to it.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.bounded import read_below
from tasks.tracking.addresses import address_to_look
from tasks.tracking.held import MANIFEST, Fault, Finished, Held, HeldModel, Verified, entries_of, faults_of_runs, key_of
from tasks.tracking.tags import ARM, ARTIFACT, KIND, RUN_KEY, SEED, STUDY, Identity

SECONDS = 5.0
"""How long to wait for a writer to let go of the store."""

READY = 2
"""The status of a model that is whole, as the database writes it."""

STUDIES = """
SELECT runs.run_uuid FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
JOIN tags keys ON keys.run_uuid = runs.run_uuid AND keys.key = ?
JOIN experiments ON experiments.experiment_id = runs.experiment_id
WHERE tags.key = ? AND tags.value = 'study' AND runs.status = 'FINISHED'
    AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
ORDER BY runs.end_time DESC
"""

PLACES = """
SELECT DISTINCT experiments.name, experiments.artifact_location FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
JOIN experiments ON experiments.experiment_id = runs.experiment_id
WHERE tags.key = ? AND tags.value = 'study' AND runs.lifecycle_stage = 'active'
    AND experiments.lifecycle_stage = 'active'
ORDER BY experiments.name
"""

RUNS = """
SELECT runs.run_uuid, runs.status, runs.artifact_uri,
    coalesce(kind.value, ''), coalesce(arm.value, ''), coalesce(seed.value, '')
FROM tags ours JOIN runs ON runs.run_uuid = ours.run_uuid
LEFT JOIN tags kind ON kind.run_uuid = runs.run_uuid AND kind.key = ?
LEFT JOIN tags arm ON arm.run_uuid = runs.run_uuid AND arm.key = ?
LEFT JOIN tags seed ON seed.run_uuid = runs.run_uuid AND seed.key = ?
WHERE ours.key = ? AND ours.value = ? AND runs.lifecycle_stage = 'active'
ORDER BY runs.start_time DESC
"""

MODELS = """
SELECT models.source_run_id, models.model_id, models.name, models.status, models.artifact_location
FROM logged_models models JOIN tags ours ON ours.run_uuid = models.source_run_id
WHERE ours.key = ? AND ours.value = ? AND models.lifecycle_stage = 'active'
ORDER BY models.creation_timestamp_ms
"""

TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"
LATEST = "SELECT key, CASE is_nan WHEN 0 THEN value ELSE 'nan' END FROM latest_metrics WHERE run_uuid = ?"
POINTS = "SELECT key, step, CASE is_nan WHEN 0 THEN value ELSE 'nan' END FROM metrics WHERE run_uuid = ?"
OUTPUTS = "SELECT destination_id FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ?"
MODEL_TAGS = "SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = ?"
MODEL_POINTS = "SELECT metric_name, metric_step, metric_value FROM logged_model_metrics WHERE model_id = ?"


@contextmanager
def reading(database: Path) -> Generator[sqlite3.Connection]:
    """A database as it is at this moment, to be read and not changed.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    opened = sqlite3.connect(address_to_look(database), timeout=SECONDS, isolation_level=None, uri=True)
    with closing(opened) as store:
        store.execute("PRAGMA query_only = ON")
        store.execute("BEGIN")
        yield store


def damage(database: Path, seconds: float = math.inf) -> str | None:
    """What SQLite finds damaged of a file's pages, in one line; empty where it finds nothing, None for want of time.

    Args:
        database: the file.
        seconds: for how long to look; however long it takes, where left out.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    until = time.monotonic() + seconds
    try:
        with reading(database) as store:
            store.set_progress_handler(lambda: time.monotonic() > until, 1000)
            found = store.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else " ".join(found.split()).removeprefix("*** in database main *** ")


def places(database: Path) -> list[tuple[str, Path]]:
    """The studies of a store by name, and where it has their artifacts; without those that only a server reaches.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    with reading(database) as store:
        found = [(name, _folder(place)) for name, place in store.execute(PLACES, [KIND])]
    return [(name, place) for name, place in found if place is not None]


def verified(database: Path, seconds: float = math.inf, *, without: Collection[str] = ()) -> Verified:
    """Compare the finished studies of a store with what was published, the newest first.

    Args:
        database: its file.
        seconds: for how long; however long it takes, where left out.
        without: studies that are left out, by name.

    Raises:
        sqlite3.Error: if it cannot be read.
        TrackingError: if tags say what no study has.
    """
    until = time.monotonic() + seconds
    with reading(database) as store:
        ids = store.execute(STUDIES, [RUN_KEY, KIND]).fetchall()
        all_studies = [Finished(run_id, dict(store.execute(TAGS, [run_id]))) for (run_id,) in ids]
        studies = [study for study in all_studies if study.tags.get(STUDY) not in without]
        runs = ((study, found) for study in studies for found in _Tree(store, study).looked_at())
        done: list[tuple[Finished, _Found]] = []
        while (in_time := time.monotonic() <= until) and (one := next(runs, None)) is not None:
            done.append(one)
    faults: dict[str, list[Fault]] = defaultdict(list)
    for study, found in done:
        faults[study.run_id] += found.faults
    return Verified(
        len(studies),
        sum(study.num_runs for study in studies),
        sum(found.verified for _, found in done),
        complete=in_time,
        faults=[(study, faults[study.run_id]) for study in studies if faults[study.run_id]],
        unreached=any(found.run.folder is None for _, found in done),
    )


@dataclass(frozen=True)
class _Row:
    """A run of a study."""

    run_id: str
    status: str
    folder: Path | None
    who: Identity


@dataclass(frozen=True)
class _Found:
    """What was found of a run, and whether the manifest says what it has to hold."""

    run: _Row
    faults: list[Fault]
    verified: bool


@dataclass(frozen=True)
class _Tree:
    """The runs of a finished study."""

    store: sqlite3.Connection
    study: Finished

    def looked_at(self) -> Iterator[_Found]:
        """Each run, the study's first, and what is not as it was published; with the first what is missing at all."""
        rows = [*self._rows()]
        runs = {run.who: run for run in rows}
        there = {who: (run.run_id, run.status) for who, run in runs.items()}
        listed, unlisted = self._listed(next((run.folder for run in rows if run.run_id == self.study.run_id), None))
        missing = [*faults_of_runs(self.study.tags, there), *unlisted]
        models = self._models()
        for who, run in runs.items():
            entry = listed.get(key_of(who))
            found = [] if entry is None else [*self._held(run, models[run.run_id]).faults(entry)]
            yield _Found(run, [*missing, *found], entry is not None)
            missing = []

    def _rows(self) -> Iterator[_Row]:
        for run_id, status, place, *who in self._ask(RUNS, KIND, ARM, SEED, RUN_KEY, self._key):
            kind, arm, seed = who
            yield _Row(run_id, status, _folder(place), (kind, arm, seed))

    def _models(self) -> Mapping[str, list[tuple[Any, ...]]]:
        by_run: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for run_id, *model in self._ask(MODELS, RUN_KEY, self._key):
            by_run[run_id].append(tuple(model))
        return by_run

    def _listed(self, folder: Path | None) -> tuple[dict[str, Any], list[Fault]]:
        """What the manifest says of each run, and what is wrong with it; nothing where it lies behind a server."""
        if folder is None:
            return {}, []
        content, digest = read_below(folder, MANIFEST), self.study.tags.get(ARTIFACT + MANIFEST)
        vouched = content is not None and hashlib.sha256(content).hexdigest() == digest
        return entries_of(content if vouched else None, self.study.run_id)

    def _held(self, run: _Row, models: Sequence[tuple[Any, ...]]) -> Held:
        latest = {name: float(value) for name, value in self._ask(LATEST, run.run_id)}
        points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for name, step, value in self._ask(POINTS, run.run_id):
            if name in latest:  # MLflow's client shows no others
                points[name].append((step, float(value)))
        outputs = {model_id for (model_id,) in self._ask(OUTPUTS, run.run_id)}
        held = (self._held_model(*model, outputs) for model in models)
        tags = dict(self._ask(TAGS, run.run_id))
        return Held(run.who, run.run_id, run.folder, tags, latest, points, {model.name: model for model in held})

    def _held_model(self, model_id: str, name: str, status: int, location: str, outputs: set[str]) -> HeldModel:
        return HeldModel(
            model_id,
            name,
            status == READY,
            model_id in outputs,
            location,
            _folder(location),
            dict(self._ask(MODEL_TAGS, model_id)),
            self._ask(MODEL_POINTS, model_id),
        )

    @property
    def _key(self) -> str:
        return self.study.tags.get(RUN_KEY, "")

    def _ask(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        return self.store.execute(query, values).fetchall()


def _folder(location: str | None) -> Path | None:
    """Where a place of the store's is on this machine's disk; None where only a server reaches it."""
    parts = urlsplit(location or "")
    if not location or parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return None
    return Path(url2pathname(parts.path if parts.scheme else location))
