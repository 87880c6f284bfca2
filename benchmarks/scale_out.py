"""A study of 90 blocks in one process and on Dask's workers: the same bits, and the time that each takes.

    python -m benchmarks.scale_out [--seeds N] [--workers N] [--epochs N]

Every ten seeds of each of three arms are a block; two of the arms share their pretraining. Both runs begin with an
empty root of their own. What is compared is what they tracked: every metric of every seed's run, and the digest of the
weights or scores that every stage left. The exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient

from benchmarks.measuring import Child, run_module
from layerwise.study import parse
from tasks.provenance import provenance
from tasks.tracking.store import open_store
from tasks.tracking.tracked import find_study_run, read_seed_runs, read_tracked

NAME = "ninety-blocks"


def document(seeds: int, epochs: int) -> dict[str, Any]:
    """The study: small layers, and epochs enough that training takes most of the time."""
    tune = {"objective": "labels", "epochs": epochs // 2}
    return {
        "name": NAME,
        "data": {"source": "blobs", "samples": 1000},
        "network": {"layers": [{"units": 10, "initializer": "he_uniform", "repeat": 3}]},
        "training": {"epochs": epochs, "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}},
        "arms": {
            "greedy": "greedy",
            "autoencoder": "autoencoder",
            "tuned": {"objective": "reconstruction", "fine_tune": tune},
        },
        "seeds": seeds,
        "track": {"models": "none"},
    }


def tracked(root: Path) -> dict[tuple[Any, ...], Any]:
    """All that a run left that can be compared: its place, and a number as it stands, or a digest of weights."""
    client = open_store(root)
    run = find_study_run(client, NAME)
    return {**_metrics(client, run), **_digests(client, run)}


def _metrics(client: MlflowClient, run: Any) -> dict[tuple[Any, ...], Any]:
    found = read_seed_runs(client, run)
    return {("metric", *seed, *score): value for seed, one in found.items() for score, value in one.scores.items()}


def _digests(client: MlflowClient, run: Any) -> dict[tuple[Any, ...], Any]:
    stages = read_tracked(client, run).stages
    if stages is None:
        raise RuntimeError(f"{NAME} logged no stages")
    keys = ["arm", "first_seed", "stage", "turn", "depth"]
    return {("digest", *row[:5]): row[5:] for row in stages[[*keys, "digest", "content"]].itertuples(index=False)}


def differences(local: Mapping[Any, Any], dask: Mapping[Any, Any]) -> list[str]:
    """What is not equal to the bit, line by line."""
    places = sorted({*local, *dask}, key=str)
    return [
        f"{place}: {local.get(place)} here, {dask.get(place)} on Dask"
        for place in places
        if repr(local.get(place)) != repr(dask.get(place))  # NaN is NaN
    ]


def run(folder: Path, name: str, study: Path, how: Sequence[str]) -> tuple[Child, dict[tuple[Any, ...], Any]]:
    """Train the study in a root of its own; how long it took, and what it tracked."""
    root = folder / name
    root.mkdir()
    child = run_module("flows.cli", ["run", str(study), *how], root=root)
    print(f"{name:<16} {child.times.wall:7.0f} s wall, {child.times.processor:7.0f} s processor, load {child.load:.1f}")
    return child, tracked(root)


def main() -> int:
    """Run both, compare, and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=200)
    asked = parser.parse_args()
    study = parse(document(asked.seeds, asked.epochs))
    blocks = len(study.arms) * len(list(study.blocks()))
    print(f"{blocks} blocks of 10 seeds, {asked.epochs} epochs a stage; load is that of the minute before")
    with tempfile.TemporaryDirectory(prefix="scale-out-") as scratch:
        file = Path(scratch) / f"{NAME}.yaml"
        file.write_text(yaml.safe_dump(document(asked.seeds, asked.epochs)))
        alone, local = run(Path(scratch), "local", file, [])
        words = ["--runner", "dask", "--workers", str(asked.workers)]
        together, dask = run(Path(scratch), f"dask, {asked.workers} workers", file, words)
    different = differences(local, dask)
    print(f"wall time on Dask over local: {together.times.wall / alone.times.wall:.2f}")
    metrics = sum(place[0] == "metric" for place in local)
    print(f"{metrics} metrics and {len(local) - metrics} digests of stages compared, {len(different)} differ")
    print("\n".join(different[:10]))
    _print_origin()
    return 1 if different or not local else 0


def _print_origin() -> None:
    known = {name.removeprefix("layerwise."): value for name, value in provenance().items()}
    for name in ("machine", "cores", "git_commit", "git_dirty", "lock_digest"):
        print(f"{name}: {known.get(name, '')}")
    print(" ".join(f"{name.removeprefix('version.')} {value}" for name, value in known.items() if "version" in name))
    print(f"load now: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
