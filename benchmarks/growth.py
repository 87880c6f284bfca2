"""How the cost of training grows with seeds, depth, width, rows and arms: medians of warm repeats, and fitted slopes.

    python -m benchmarks.growth

One thing grows at a time, from a study that costs about a second. Each size is trained once, which compiles its
programs, and then a few times more, which are timed. Two slopes are fitted to the medians by least squares: seconds
for each unit more, and the exponent of growth, which is 1 where twice as much takes twice as long.

The rest is counted from whole runs (`layerwise run` in a scratch root): files, bytes and rows of tables.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from benchmarks.curves import slopes
from benchmarks.measuring import Times, machine, run_module

BASE = {"seeds": 10, "depth": 4, "width": 10, "rows": 500, "arms": 1}
"""Where all but one thing stand."""

SIZES = {
    "seeds": (10, 20, 40, 80),
    "depth": (2, 4, 8, 16),
    "width": (10, 20, 40, 80, 160, 320),
    "rows": (250, 500, 1000, 2000, 4000),
    "arms": (1, 2, 4, 8),
}

STORED = {"seeds": 30, "depth": 8, "arms": 3}
"""What grows, one thing at a time, in the whole runs that are counted."""

TABLES = (
    "runs",
    "metrics",
    "latest_metrics",
    "params",
    "tags",
    "logged_models",
    "logged_model_tags",
    "logged_model_metrics",
)


def document(epochs: int, **changes: int) -> dict[str, Any]:
    """The study of some sizes. Its arms share no stage, for each trains one epoch more than the one before."""
    at = BASE | changes
    training = {"optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}
    return {
        "name": "growth",
        "data": {"source": "blobs", "samples": at["rows"] + 500, "split": {"train": at["rows"], "test": 500}},
        "network": {"layers": [{"units": at["width"], "initializer": "he_uniform", "repeat": at["depth"]}]},
        "training": {**training, "epochs": epochs},
        "arms": {f"arm{arm}": {"training": {"epochs": epochs + arm}} for arm in range(at["arms"])},
        "seeds": at["seeds"],
    }


def trained(thing: str, size: int, *, epochs: int, repeats: int) -> list[Times]:
    """Times of warm repeats, in this process."""
    import layerwise
    from layerwise.study import parse

    study, times = parse(document(epochs, **{thing: size})), []
    for repeat in range(repeats + 1):
        begun = Times(time.perf_counter(), time.process_time())
        layerwise.run(study)
        if repeat:
            times.append(Times(time.perf_counter() - begun.wall, time.process_time() - begun.processor))
    return times


def stored(**changes: int) -> dict[str, int]:
    """What a whole run of some sizes leaves: files and bytes of results and of the tracking store, rows by table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "growth.yaml").write_text(yaml.safe_dump(document(2, **changes)))
        run_module("flows.cli", ["run", str(root / "growth.yaml")], root=root)
        found = {"results": _files(root / ".layerwise/results"), "artifacts": _files(root / "mlruns/artifacts")}
        with closing(sqlite3.connect(root / "mlruns/mlflow.db")) as store:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            rows = {table: store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}  # noqa: S608
        database = (root / "mlruns/mlflow.db").stat().st_size
    counted = {f"{what}: {kind}": value for what, pair in found.items() for kind, value in pair.items()}
    return counted | {"database: bytes": database} | {f"rows: {table}": many for table, many in rows.items()}


def _files(folder: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def print_times(epochs: int, repeats: int) -> None:
    """Time every size, each thing in a process of its own, and print a row for each thing."""
    print(f"Medians of {repeats} warm repeats, {epochs} epochs a stage; all but one thing at {BASE}.")
    print("Slopes are of processor time, which other work on the machine stretches less.\n")
    print("| what grows | sizes | processor s | wall s | s a unit | exponent |\n|---|---|---|---|--:|--:|")
    with tempfile.TemporaryDirectory() as root:
        for thing, sizes in SIZES.items():
            arguments = ["--thing", thing, "--epochs", str(epochs), "--repeats", str(repeats)]
            child = run_module("benchmarks.growth", arguments, root=Path(root))
            found = [
                list(map(statistics.median, zip(*times, strict=True)))
                for times in json.loads(child.output.splitlines()[-1])
            ]
            wall, processor = zip(*found, strict=True)
            unit, exponent = slopes(sizes, processor)
            columns = [
                " ".join(map(str, sizes)),
                *(" ".join(f"{one:.2f}" for one in both) for both in (processor, wall)),
            ]
            print(f"| {thing} | {' | '.join(columns)} | {unit:.4f} | {exponent:.2f} |", flush=True)


def print_stored() -> None:
    """Count what whole runs leave, and print how much each unit more adds."""
    base, grown = stored(), {thing: stored(**{thing: size}) for thing, size in STORED.items()}
    print(f"\nWhat a whole run leaves with every model tracked, at {BASE}, and what each unit more adds:\n")
    print(f"| what | in all | {' | '.join(f'each of {thing}' for thing in grown)} |\n|---|{'--:|' * (1 + len(grown))}")
    for what, value in base.items():
        each = (f"{(found[what] - value) / (STORED[thing] - BASE[thing]):,.1f}" for thing, found in grown.items())
        print(f"| {what} | {value:,} | {' | '.join(each)} |")


def main() -> None:
    """Measure, and print tables for docs/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="of every stage that is timed")
    parser.add_argument("--repeats", type=int, default=3, help="warm, after the first run")
    parser.add_argument("--thing", choices=SIZES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.thing:
        options = {"epochs": asked.epochs, "repeats": asked.repeats}
        print(json.dumps([trained(asked.thing, size, **options) for size in SIZES[asked.thing]]))
        return
    print(f"{machine()}\n")
    print_times(asked.epochs, asked.repeats)
    print_stored()


if __name__ == "__main__":
    main()
