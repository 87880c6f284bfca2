"""Ten thousand seed runs into PostgreSQL, through a team's MLflow server, by Layerwise's own publisher.

    python -m benchmarks.tracker_load --minutes 60
    python -m benchmarks.tracker_load --minutes 60 --seeds 10 --copies 39

Starts PostgreSQL (the distribution's, with data of its own) and `mlflow server` with basic auth, as in docs/team.md, on
loopback. Then study runs of one study, repeats of it as a schedule makes them, are opened, published, closed and read
back, one after the other, as `layerwise run` does it, but for the training: every seed run has its parameters, tags and
a point for every score and depth; some of them have Keras models, whose files are made up. A line says after each
repeat how long a seed run took in each phase and how long readers wait, so that it shows what grows with the tables.

With `--copies` the rows of each repeat are also copied within the database, under new ids, so that the tables are as
full in a fraction of the time; what is timed goes through the server all the same.

It ends after as many runs or minutes as are asked for, removes its data, and prints what gave way first.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measuring import machine, processor_seconds, resident_mb, with_descendants
from layerwise.study import Study, parse
from tests.team.servers import Postgres, Tracking, login

ARMS, DEPTH = 5, 5
SCORES = (
    *(f"{part}_{score}" for part in ("train", "test") for score in ("accuracy", "loss")),
    *("live_units", "effective_rank", "reconstruction_mse", "reconstruction_r2"),
)
PAGE = 100
"""Runs that the runs page loads at a time."""

WEIGHTS = np.random.default_rng(0).bytes(30_000)
"""What a model's file holds: as much as a Keras model of a few small layers."""


@dataclass
class Batch:
    """What one study run cost.

    Attributes:
        runs: seed runs in the store after it.
        seconds: of each phase.
        models: how many were published.
        processor: seconds of the server and of the database, for publishing.
        server_mb: resident memory of the server and its workers.
        database_mb: size of the database.
    """

    runs: int
    seconds: dict[str, float] = field(default_factory=dict)
    models: int = 0
    processor: tuple[float, float] = (0.0, 0.0)
    server_mb: float = 0.0
    database_mb: float = 0.0

    @contextmanager
    def timed(self, phase: str) -> Generator[None]:
        """Add the time of the body to a phase."""
        begun = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begun


def study(seeds: int) -> Study:
    """What is published: five arms of five depths."""
    return parse(
        {
            "name": "tracker-load",
            "data": {"source": "blobs", "samples": 120, "split": {"train": 70, "test": 50}},
            "network": {"layers": [{"units": 10, "repeat": DEPTH}]},
            "arms": {f"arm{arm}": {"training": {"epochs": arm + 1}} for arm in range(ARMS)},
            "seeds": seeds,
        }
    )


def publish(root: Path, asked: Study, repeat: str, *, models: int, batch: Batch) -> None:
    """A study run from its opening to its end.

    Args:
        root: the client's.
        asked: the study.
        repeat: its name.
        models: how many seed runs have a model of every depth.
        batch: where times go.
    """
    from tasks.tracking.answers import RESULTS
    from tasks.tracking.publishing import Point, Publisher
    from tasks.tracking.runs import close_runs, open_runs
    from tasks.tracking.store import open_store

    client, seeds = open_store(root), range(asked.seeds)
    with batch.timed("open"):
        tree = open_runs(
            client, asked, run_key=asked.digest(repeat), repeat=repeat, seeds=seeds, provenance=PROVENANCE, root=root
        )
    publisher, run_ids = Publisher(client, tree), list(tree.seed_of)
    with batch.timed("points"):
        for number, run_id in enumerate(run_ids[models:]):
            publisher.metrics(run_id, [Point(*point) for point in points(number)])
    with batch.timed("models"):
        for number, run_id in enumerate(run_ids[:models]):
            publisher.models([model(run_id, number, depth) for depth in range(1, DEPTH + 1)])
    batch.models = models * DEPTH
    with batch.timed("close"):
        publisher.table(tree.study_run_id, RESULTS, pd.DataFrame({"mean": [1 / 3]}))
        publisher.manifest()
        close_runs(client, tree)


PROVENANCE = {f"layerwise.provenance.{number}": "x" * 40 for number in range(20)}
"""As many tags as say which code, libraries and machine made a run."""


def points(number: int, depth: int | None = None) -> Iterator[tuple[str, float, int, int]]:
    """Key, value, step and time of every score of a seed, of all depths or of one."""
    for step in range(1, DEPTH + 1) if depth is None else [depth]:
        for place, key in enumerate(SCORES):
            yield key, number + place / 7 + step / 13, step, 1_700_000_000_000 + number


def model(run_id: str, number: int, depth: int) -> Any:
    """A model as the flow publishes it, but for its architecture, which takes TensorFlow."""
    from tasks.tracking.publishing import Point, SeedModel
    from tasks.tracking.templates import ModelFolder

    folder = ModelFolder({"MLmodel": b"name: it", "requirements.txt": b"keras", "data/model.keras": WEIGHTS})
    template: Any = SimpleNamespace(folder=lambda *_: folder)
    linked = [Point(*point) for point in points(number, depth)]
    return SeedModel(run_id, f"depth-{depth:02d}", depth, template, [], f"weights-{number}-{depth}", linked)


def read(root: Path, asked: Study, repeat: str, batch: Batch) -> None:
    """What readers wait for: the answer of a finished study, a page of runs, the arms, the best runs.

    Raises:
        RuntimeError: if anything that was published is not there.
    """
    from tasks.tracking.answers import finished_study_run, stored_answer
    from tasks.tracking.store import open_store

    client = open_store(root)
    with batch.timed("answer"):
        run = finished_study_run(client, asked.name, asked.digest(repeat))
        missing = ("the study run",) if run is None else stored_answer(client, run).missing
    if run is None or missing:
        raise RuntimeError(f"{repeat} was published, and is not there: {missing}")
    place, newest, best = [run.info.experiment_id], ["attributes.start_time DESC"], ["metrics.test_accuracy DESC"]
    with batch.timed("page"):
        client.search_runs(place, max_results=PAGE, order_by=newest)
    with batch.timed("arms"):
        client.search_runs(place, "tags.`layerwise.kind` = 'arm'", max_results=PAGE)
    with batch.timed("best"):
        client.search_runs(place, "metrics.test_accuracy > 0", max_results=PAGE, order_by=best)


HEAD = (
    "seed runs", "open ms", "points ms", "close ms", "a model ms", "server processor ms", "database processor ms",
    "answer s", "page s", "arms s", "best s", "server MB", "database MB",
)  # fmt: skip
"""Columns: times of a seed run, of a model, processor times of a seed run with its share of models, of one reading."""


def line(batch: Batch, seed_runs: int) -> str:
    """A batch as a row of the table."""
    of_phase = {
        "open": seed_runs,
        "points": seed_runs - batch.models // DEPTH,
        "close": seed_runs,
        "models": batch.models,
    }
    each = [1000 * batch.seconds[phase] / max(1, many) for phase, many in of_phase.items()]
    reading = [batch.seconds[phase] for phase in ("answer", "page", "arms", "best")]
    each += [1000 * one / seed_runs for one in batch.processor]
    cells = [f"{batch.runs:,}", *(f"{one:.0f}" for one in each), *(f"{one:.2f}" for one in reading)]
    return f"| {' | '.join([*cells, f'{batch.server_mb:,.0f}', f'{batch.database_mb:,.0f}'])} |"


def load(asked: argparse.Namespace, postgres: Postgres, server: Tracking, root: Path) -> list[Batch]:
    """Publish repeat after repeat, and print a row for each."""
    from flows import environment

    environment.prepare(root)
    wanted = study(asked.seeds)
    seed_runs, done, until = ARMS * asked.seeds, [], time.monotonic() + 60 * asked.minutes
    there = 0
    while there < asked.runs and time.monotonic() < until:
        batch, repeat = Batch(there + seed_runs), f"night-{len(done):03d}"
        before = _processor(server, postgres)
        publish(root, wanted, repeat, models=asked.models, batch=batch)
        after = _processor(server, postgres)
        batch.processor = after[0] - before[0], after[1] - before[1]
        read(root, wanted, repeat, batch)
        batch.server_mb = sum(map(resident_mb, with_descendants(server.process.pid))) if server.process else 0.0
        batch.database_mb = postgres.rows("tracking", "SELECT pg_database_size('tracking')")[0][0] / 1e6
        done.append(batch)
        print(line(batch, seed_runs), flush=True)
        there += seed_runs * (1 + asked.copies)
        if asked.copies:
            copy(postgres, repeat, asked.copies)
    return done


NEW_IDS = {
    "runs": {"run_uuid": "md5(run_uuid || %(new)s)"},
    "metrics": {"run_uuid": "md5(run_uuid || %(new)s)"},
    "latest_metrics": {"run_uuid": "md5(run_uuid || %(new)s)"},
    "params": {"run_uuid": "md5(run_uuid || %(new)s)"},
    "tags": {
        "run_uuid": "md5(run_uuid || %(new)s)",
        "value": "CASE key WHEN 'layerwise.run_key' THEN value || %(new)s WHEN 'layerwise.repeat' THEN value || %(new)s"
        " WHEN 'mlflow.parentRunId' THEN md5(value || %(new)s) ELSE value END",
    },
    "logged_models": {
        "model_id": "'m-' || md5(model_id || %(new)s)",
        "source_run_id": "md5(source_run_id || %(new)s)",
    },
    "logged_model_tags": {"model_id": "'m-' || md5(model_id || %(new)s)"},
    "logged_model_metrics": {"model_id": "'m-' || md5(model_id || %(new)s)", "run_id": "md5(run_id || %(new)s)"},
    "inputs": {
        "input_uuid": "md5(input_uuid || %(new)s)",
        "source_id": "md5(source_id || %(new)s)",
        "destination_id": "'m-' || md5(destination_id || %(new)s)",
    },
}
"""What a copied row has instead, by table and column."""

OF_REPEAT = "(SELECT run_uuid FROM tags WHERE key = 'layerwise.repeat' AND value = %(repeat)s)"
OWNER = {
    "runs": "run_uuid", "metrics": "run_uuid", "latest_metrics": "run_uuid", "params": "run_uuid", "tags": "run_uuid",
    "logged_models": "source_run_id", "logged_model_metrics": "run_id", "inputs": "source_id",
}  # fmt: skip
"""The column that names a row's run; a model's tag has none."""


def copy(postgres: Postgres, repeat: str, copies: int) -> None:
    """Copy the rows of a repeat within the database, under new ids, as often as asked."""
    with closing(postgres.connect("tracking")) as connection, connection, connection.cursor() as cursor:
        for table, changes in NEW_IDS.items():
            cursor.execute(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608 - our own names, here and below
            columns = [column.name for column in cursor.description]
            chosen = ", ".join(changes.get(name, name) for name in columns)
            of = f"{OWNER[table]} IN {OF_REPEAT}" if table in OWNER else (
                f"model_id IN (SELECT model_id FROM logged_models WHERE source_run_id IN {OF_REPEAT})"  # noqa: S608
            )  # fmt: skip
            for number in range(copies):
                cursor.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table} WHERE {of}",  # noqa: S608
                    {"new": f"-copy-{number}", "repeat": repeat},
                )
    with closing(postgres.connect("tracking")) as connection:
        connection.autocommit = True
        connection.cursor().execute("ANALYZE")  # as autovacuum does in time


def _processor(server: Tracking, postgres: Postgres) -> tuple[float, float]:
    both = (server.process, postgres.process)
    of_server, of_database = (processor_seconds(one.pid) if one else 0.0 for one in both)
    return of_server, of_database


def sizes(postgres: Postgres) -> str:
    """The largest tables, with what their indexes take."""
    found = postgres.rows(
        "tracking",
        "SELECT relname, n_live_tup, pg_total_relation_size(relid) / 1e6 FROM pg_stat_user_tables"
        " ORDER BY 3 DESC LIMIT 7",
    )
    return ", ".join(f"{name} {rows:,} rows {float(size):,.0f} MB" for name, rows, size in found)


def growth(done: list[Batch]) -> Iterator[tuple[float, str]]:
    """How many times as long each thing takes in the last quarter as in the first, the worst first."""
    quarter = max(1, len(done) // 4)
    for phase in done[0].seconds:
        first, last = (
            statistics.median(one.seconds[phase] for one in some) for some in (done[:quarter], done[-quarter:])
        )
        if first > 0:
            yield last / first, f"{phase} {first:.2f} s -> {last:.2f} s"


def main() -> None:
    """Fill a tracking server, and print how it bears it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="seed runs in all")
    parser.add_argument("--minutes", type=float, default=30, help="after which no further repeat begins")
    parser.add_argument("--seeds", type=int, default=100, help=f"seeds of each of {ARMS} arms in a repeat")
    parser.add_argument("--models", type=int, default=10, help=f"seed runs of a repeat with {DEPTH} models each")
    parser.add_argument("--copies", type=int, default=0, help="of each repeat's rows, made within the database")
    parser.add_argument("--remembered", type=int, default=60, help="seconds that the server remembers a password")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers end with us
    with tempfile.TemporaryDirectory() as folder, Postgres() as postgres:
        postgres.create("tracking", "users")
        server = Tracking(Path(folder) / "server", postgres, remembered=asked.remembered)
        try:
            server.start()
            server.admit("ada")
            os.environ.update(login(server, None))
            print_load(asked, postgres, server, Path(folder) / "client")
        finally:
            server.stop()


def print_load(asked: argparse.Namespace, postgres: Postgres, server: Tracking, root: Path) -> None:
    """Fill the server, and print the tables."""
    version = postgres.rows("tracking", "SHOW server_version")[0][0]
    print(f"{machine()}; PostgreSQL {version}, one worker of MLflow's server\n")
    print(f"| {' | '.join(HEAD)} |\n|{'--:|' * len(HEAD)}")
    done = load(asked, postgres, server, root)
    print(f"\n{sizes(postgres)}; load {os.getloadavg()[0]:.1f} at the end")
    worst = sorted(growth(done), reverse=True)
    print("Last quarter against first:", "; ".join(f"{times:.1f} x ({what})" for times, what in worst))


if __name__ == "__main__":
    main()
