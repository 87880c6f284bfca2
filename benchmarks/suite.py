"""``make bench``: the same work by every way that one would go, side by side in one run on this machine.

    python -m benchmarks.suite [--quick] [--rounds N] [--only WORD] [--json FILE] [--write]

The work is the tutorial's: eleven supervised stages, or its six unsupervised ones. Every part runs in a process of its
own, and whatever is compared takes its turns within each round, so that a busy minute is shared. The tables say what
was measured and whether each aim is met; the exit status is 0 either way, since a slow machine is not a defect.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import aims, curves, growth, tables
from benchmarks.measuring import CHECKOUT, Child, run_module
from benchmarks.parts import Part
from tasks.provenance import provenance

STUDY = "blobs-supervised"
JAX_PYTHON = CHECKOUT / ".venv/jax/bin/python"
UNSUPERVISED_STAGES = 6


@dataclass(frozen=True)
class Size:
    """How much is measured: the work itself, or a quick look that only shows that everything runs.

    Attributes:
        stages: of the supervised work.
        epochs: of each stage.
        seeds: how many are trained side by side, each a part of its own; the first one is the main job's.
        most_seeds: a part that is measured once.
        depth: of the deep networks.
        rows: of the wide layers' data.
        wide_epochs: of the wide layers.
        common_stages: how many stages the common way trains, before the rest is extrapolated.
        repeats: warm, in each process.
        rounds: how often the parts take their turns.
    """

    stages: int = 11
    epochs: int = 100
    seeds: tuple[int, ...] = (30, 1, 10, 100)
    most_seeds: int = 1000
    depth: int = 50
    rows: int = 60_000
    wide_epochs: int = 3
    common_stages: int = 3
    repeats: int = 3
    rounds: int = 3

    def arguments(self, *, unsupervised: bool = False) -> list[str]:
        """As the timed modules take it."""
        stages = UNSUPERVISED_STAGES if unsupervised else self.stages
        return ["--stages", str(stages), "--epochs", str(self.epochs)]

    def settings(self, name: str, seeds: int, models: str) -> list[str]:
        """As ``layerwise run`` takes it."""
        settings = {
            "name": name,
            "network.layers.0.repeat": self.stages,
            "training.epochs": self.epochs,
            "track.models": models,
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return ["run", STUDY, "--seeds", str(seeds), *words]


QUICK = Size(2, 5, (10, 1, 20), 20, depth=3, rows=2000, wide_epochs=1, common_stages=1, repeats=1, rounds=1)


@dataclass(frozen=True)
class Probe:
    """How some parts are measured, all by one call.

    Attributes:
        group: the table that they belong to.
        rounds: in how many rounds it takes its turn.
        measure: gives the parts of one turn.
    """

    group: str
    rounds: int
    measure: Callable[[], Iterator[Part]]


class Suite:
    """Every probe, in scratch folders of its own."""

    def __init__(self, size: Size, scratch: Path) -> None:
        self.size, self.scratch, self.turn = size, scratch, 0
        self.main_seeds, self.many_seeds = size.seeds[0], size.seeds[-1]

    def probes(self) -> Iterator[Probe]:
        """In the order of their turns; the parts that aims compare stand side by side."""
        size, rounds = self.size, self.size.rounds
        yield Probe("plain", rounds, self.plain)
        yield Probe("run", rounds, self.command)
        for seeds in size.seeds:
            yield Probe("engine", rounds, lambda seeds=seeds: self.warm("engine_alone", seeds))
            if seeds in {self.main_seeds, self.many_seeds} and JAX_PYTHON.exists():
                yield Probe("engine", rounds, lambda seeds=seeds: self.warm("hand_written_jax", seeds))
        yield Probe("engine", rounds, lambda: self.warm("raw_tensorflow", self.main_seeds))
        yield Probe("engine", 1, lambda: self.warm("engine_alone", size.most_seeds, repeats=1))
        yield Probe("engine", rounds, self.two_processes)
        yield Probe("unsupervised", rounds, self.unsupervised)
        yield Probe("growth", 1, self.deep)
        yield Probe("growth", 1, self.growth)
        yield Probe("wide", 1, self.wide)
        yield Probe("common", 1, self.common_way)

    def module(self, name: str, *arguments: str) -> Child:
        """One of the timed modules, in a process of its own."""
        python = JAX_PYTHON if name == "hand_written_jax" else None
        return run_module(f"benchmarks.{name}", arguments, root=self.scratch, python=python)

    def plain(self) -> Iterator[Part]:
        """The tutorial's script and what one may do about it, one seed, whole processes."""
        asked = self.size.arguments()
        whole = f"1 seed, {self.size.stages} stages: whole process"
        yield Part.whole("plain", f"plain Keras, {whole}", self.module("plain_keras", *asked))
        child = self.module("plain_keras", *asked, "--compiled")
        yield Part.whole("plain-compiled", f"the same with jit_compile and steps_per_execution, {whole}", child)
        yield Part.whole("sklearn", f"scikit-learn, {whole}", self.module("scikit", *asked))

    def warm(
        self, module: str, seeds: int, *, unsupervised: bool = False, repeats: int | None = None
    ) -> Iterator[Part]:
        """A module that trains many seeds: its first run, imports and all, and those that follow."""
        title = {"engine_alone": "engine", "hand_written_jax": "JAX", "raw_tensorflow": "raw TensorFlow"}[module]
        asked = [*self.size.arguments(unsupervised=unsupervised), "--seeds", str(seeds)]
        asked += ["--repeats", str(repeats or self.size.repeats), *(["--unsupervised"] if unsupervised else [])]
        child = self.module(module, *asked)
        count = f"{seeds} seeds" if seeds > 1 else "1 seed"
        count += f", {UNSUPERVISED_STAGES} unsupervised stages" if unsupervised else ""
        name = f"{title.split()[0].lower()}-{'unsupervised' if unsupervised else seeds}"
        yield Part.repeated(f"{name}-cold", f"{title}, {count}, cold: imports, compiling, training", child, "cold")
        yield Part.repeated(name, f"{title}, {count}, warm", child, "warm")
        if module == "engine_alone" and not unsupervised:
            for number, seconds in enumerate(child.answer["compiling"], start=1):
                yield Part.told(f"shape-{number}", f"tracing and compiling, shape {number} of a stage", child, seconds)

    def two_processes(self) -> Iterator[Part]:
        """The engine in two processes at once, each with as many seeds as one alone."""
        asked = [*self.size.arguments(), "--seeds", str(self.many_seeds), "--repeats", str(self.size.repeats)]
        with ThreadPoolExecutor(2) as pool:
            children = list(pool.map(lambda _: self.module("engine_alone", *asked), range(2)))
        slower = max(children, key=lambda child: sum(times.wall for times in child.repeats("warm")))
        what = f"engine, {self.many_seeds} seeds in each of two processes at once, warm"
        yield Part.repeated("engine-both", what, slower, "warm")

    def command(self) -> Iterator[Part]:
        """``layerwise run``: in an empty folder, then beside what that left, then once it is finished."""
        self.turn += 1
        made, size = self.scratch / f"made-{self.turn}", self.size
        made.mkdir()
        small = ["run", STUDY, "--seeds", "1", "--set", "name=small", "--set", "training.epochs=1"]
        small += ["--set", "network.layers.0.repeat=1", "--set", "claims=null"]
        first = run_module("flows.cli", small, root=made)
        yield Part.whole("first", "layerwise run, one seed and stage, in an empty folder", first)
        seeds, many = self.main_seeds, self.many_seeds
        for name, asked, models, what in (
            ("run", seeds, "all", f"{seeds} seeds, every model tracked"),
            ("run-final", seeds, "final", f"{seeds} seeds, models of the last depth"),
            ("run-none", seeds, "none", f"{seeds} seeds, no model"),
            ("run-many", many, "all", f"{many} seeds, every model tracked"),
        ):
            root = shutil.copytree(made, self.scratch / f"{name}-{self.turn}")
            command = size.settings(name, asked, models)
            child = run_module("flows.cli", command, root=root)
            yield Part.whole(name, f"layerwise run, {what}, existing store", child)
            if name == "run":
                yield from self._afterwards(command, root)
            shutil.rmtree(root)

    def _afterwards(self, command: list[str], root: Path) -> Iterator[Part]:
        again = run_module("flows.cli", command, root=root)
        if "nothing trained" not in again.output:
            raise RuntimeError(f"the finished study was not answered from MLflow:\n{again.output}")
        yield Part.whole("finished", "layerwise run of the finished study", again)
        yield Part.whole("help", "layerwise --help", run_module("flows.cli", ["--help"], root=root))

    def unsupervised(self) -> Iterator[Part]:
        """Autoencoders, each with a head: the plain script, one seed; JAX and the engine, many."""
        # Seed 0 diverges in its first stage, and ends there.
        asked = ["--first", "1", "--seeds", "1", "--depths", str(UNSUPERVISED_STAGES)]
        asked += ["--epochs", str(self.size.epochs)]
        whole = f"1 seed, {UNSUPERVISED_STAGES} unsupervised stages: whole process"
        child = self.module("plain_autoencoder", *asked, "--plainly")
        if f"1 {UNSUPERVISED_STAGES} " not in child.output:
            raise RuntimeError(f"the plain autoencoder did not train every stage:\n{child.output}")
        yield Part.whole("plain-unsupervised", f"plain Keras, {whole}", child)
        child = self.module("plain_autoencoder", *asked)
        yield Part.whole(
            "plain-unsupervised-compiled", f"the same with jit_compile and steps_per_execution, {whole}", child
        )
        if JAX_PYTHON.exists():
            yield from self.warm("hand_written_jax", self.main_seeds, unsupervised=True)
        yield from self.warm("engine_alone", self.main_seeds, unsupervised=True)

    def deep(self) -> Iterator[Part]:
        """A stage at each depth: ten seeds of the engine, warm, and one of plain Keras."""
        for side, title in (("engine", "engine, 10 seeds, warm"), ("plain", "plain Keras, 1 seed")):
            asked = ["--side", side, "--depth", str(self.size.depth), "--epochs", str(self.size.epochs)]
            child = self.module("deep", *asked)
            for depth, seconds in child.answer["seconds"].items():
                yield Part.told(f"{side}-depth-{depth}", f"{title}: the stage at depth {depth}", child, seconds)

    def growth(self) -> Iterator[Part]:
        """The engine, warm, where one thing of its work grows."""
        for thing in curves.GROWN:
            asked = ["--thing", thing, "--epochs", str(self.size.epochs // 2), "--repeats", str(self.size.repeats)]
            child = self.module("growth", *asked)
            for size, times in zip(growth.SIZES[thing], child.answer, strict=True):
                seconds = statistics.median(wall for wall, _ in times)
                yield Part.told(f"growth-{thing}-{size}", f"engine, warm: {thing} {size}", child, seconds)

    def wide(self) -> Iterator[Part]:
        """An epoch of three stages of wide layers on many rows."""
        asked = ["--rows", str(self.size.rows), "--epochs", str(self.size.wide_epochs)]
        for name, side in (
            ("engine", "engine, 1 seed"),
            ("keras", "keras.fit"),
            ("steps", "keras.fit, 50 steps a call"),
        ):
            child = self.module("wide", *asked, "--side", side)
            seconds, _ = child.answer
            what = f"{side}: {self.size.rows:,} x 784 rows, 500-500-500, an epoch of all three stages"
            yield Part.told(f"wide-{name}", what, child, sum(seconds))

    def common_way(self) -> Iterator[Part]:
        """The plain script with MLflow's autologging and a Prefect task a step; a few stages, and the rest of them."""
        trained = self.size.common_stages
        asked = ["--stages", str(trained), "--epochs", str(self.size.epochs)]
        child = self.module("common_way", *asked)
        added = child.answer["stages"][-1]
        whole = child.times.wall + (self.size.stages - trained) * added
        stages = f"{self.size.stages} stages EXTRAPOLATED from {trained}"
        what = f"plain Keras, MLflow's autolog, a Prefect task a step, 1 seed: {stages}"
        yield Part.told("common", what, child, whole)


def measured(suite: Suite, only: str) -> list[Part]:
    """Every part, its times of all rounds together."""
    found: dict[str, Part] = {}
    probes = [probe for probe in suite.probes() if only in probe.group]
    for number in range(suite.size.rounds):
        for probe in probes:
            if number >= probe.rounds:
                continue
            for part in probe.measure():
                found[part.name] = found[part.name].with_more(part) if part.name in found else part
                print(f"round {number + 1}: {part.what}: {part.seconds:.2f} s", flush=True)
    return list(found.values())


def about(size: Size) -> dict[str, Any]:
    """When, where and of what something was measured."""
    tags = {name.removeprefix("layerwise."): value for name, value in provenance().items()}
    versions = {name.removeprefix("version."): value for name, value in tags.items() if name.startswith("version.")}
    for installed in JAX_PYTHON.parent.parent.glob("lib/*/site-packages/jax-*.dist-info"):
        versions["jax"] = installed.stem.removeprefix("jax-")
    changes = ", with changes" if tags.get("git_dirty") == "true" else ""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "machine": f"{tags['machine']}, {tags['cores']} cores",
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "commit": f"{tags.get('git_commit', 'unknown')}{changes}",
        "lock": tags.get("lock_digest", "unknown"),
        "size": ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(size).items()),
    }


def main() -> None:
    """Measure everything side by side, and say which aims are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=main.__doc__)
    parser.add_argument("--rounds", type=int, help="how often the parts take their turns (3)")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="plain, run, engine, unsupervised, growth, wide, common"
    )
    parser.add_argument("--quick", action="store_true", help="two stages of five epochs: shows that it runs, no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md and README.md")
    asked = parser.parse_args()
    size = QUICK if asked.quick else Size()
    size = dataclasses.replace(size, rounds=asked.rounds) if asked.rounds else size
    if not JAX_PYTHON.exists():
        print("JAX is not here: its parts are left out; `make bench` installs it", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="layerwise-bench-") as scratch:
        parts = measured(Suite(size, Path(scratch)), asked.only)
    named, tracked = {part.name: part for part in parts}, size.seeds[0] * size.stages
    models = {"run-none": 0, "run-final": size.seeds[0], "run": tracked}
    found = list(curves.fitted(named, models))
    result = tables.Measured(about(size), parts, found, aims.judged(named, size.seeds, tracked))
    tables.show(result)
    if asked.quick:
        print("A quick look: its figures and aims say nothing about the work itself.")
    if asked.json:
        asked.json.write_text(json.dumps(result.as_json(), indent=1) + "\n")
    if asked.write:
        tables.write(result)


if __name__ == "__main__":
    main()
