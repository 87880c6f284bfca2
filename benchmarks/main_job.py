"""``make bench``: the main job beside plain Keras and raw TensorFlow, in one run on this machine.

    python -m benchmarks.main_job [--quick] [--repeats N] [--whole-repeats N] [--json FILE]

Every part runs in a child process of its own. The table says what was measured and whether each aim is met; the exit
status is 0 either way, since a slow machine is not a defect.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Child, Times, run_module
from tasks.provenance import provenance

STUDY = "blobs-supervised"


@dataclass(frozen=True)
class Size:
    """How much is measured: the main job itself, or a quick look that only shows that everything runs."""

    stages: int = 11
    epochs: int = 100
    seeds: int = 30
    many_seeds: int = 100
    repeats: int = 3
    whole_repeats: int = 1

    @property
    def arguments(self) -> list[str]:
        """As the timed modules take it."""
        return ["--stages", str(self.stages), "--epochs", str(self.epochs)]

    @property
    def settings(self) -> list[str]:
        """As ``layerwise run`` takes it."""
        return [
            *("--seeds", str(self.seeds)),
            *("--set", f"network.layers.0.repeat={self.stages}", "--set", f"training.epochs={self.epochs}"),
        ]


QUICK = Size(stages=2, epochs=5, seeds=10, many_seeds=20, repeats=1)


@dataclass(frozen=True)
class Part:
    """One line of the table.

    Attributes:
        name: how the aims refer to it.
        what: what was timed.
        times: of each repeat.
        largest_mb: peak memory of the largest process.
        together_mb: highest sum over its processes; pages they share count twice.
        load: load averages of the machine when its processes began.
    """

    name: str
    what: str
    times: list[Times]
    largest_mb: float
    together_mb: float | None
    load: list[float]

    @property
    def seconds(self) -> float:
        """The median by the clock."""
        return statistics.median(times.wall for times in self.times)

    @property
    def processor_seconds(self) -> float:
        """The median of processor time."""
        return statistics.median(times.processor for times in self.times)

    @classmethod
    def of(cls, name: str, what: str, children: list[Child], times: list[Times] | None = None) -> Part:
        """A part from the processes that ran it; their own times unless ``times`` says otherwise."""
        sums = [child.together_mb for child in children if child.together_mb is not None]
        return cls(
            name,
            what,
            [child.times for child in children] if times is None else times,
            max(child.largest_mb for child in children),
            max(sums) if sums else None,
            [child.load for child in children],
        )


@dataclass(frozen=True)
class Aim:
    """A bound, and what was measured against it."""

    what: str
    measured: float
    bound: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the figure is below the bound."""
        return self.measured < self.bound


def measure(size: Size, scratch: Path) -> Iterator[Part]:
    """Every part, one after the other."""
    yield Part.of(
        "plain",
        f"plain Keras, 1 seed, {size.stages} stages: whole process",
        [run_module("benchmarks.plain_keras", size.arguments, root=scratch) for _ in range(size.whole_repeats)],
    )
    for name, module, seeds in (
        ("raw", "raw_tensorflow", size.seeds),
        ("engine", "engine_alone", size.seeds),
        ("engine-many", "engine_alone", size.many_seeds),
    ):
        yield from _cold_and_warm(name, module, seeds, size, scratch)
    yield from _command(size, scratch)
    children = [run_module("flows.cli", ["--help"], root=scratch) for _ in range(size.repeats + 2)]
    yield Part.of("help", "layerwise --help", children)


def _cold_and_warm(name: str, module: str, seeds: int, size: Size, scratch: Path) -> Iterator[Part]:
    asked = [*size.arguments, "--seeds", str(seeds), "--repeats", str(size.repeats)]
    child = run_module(f"benchmarks.{module}", asked, root=scratch)
    title = {"raw_tensorflow": "raw TensorFlow", "engine_alone": "engine"}[module]
    yield Part.of(
        f"{name}-cold", f"{title}, {seeds} seeds, cold: imports, compiling, training", [child], child.answer("cold")
    )
    yield Part.of(name, f"{title}, {seeds} seeds, warm", [child], child.answer("warm"))


def _command(size: Size, scratch: Path) -> Iterator[Part]:
    """``layerwise run``: first in an empty folder, then the main job beside it, then the main job once finished."""
    small = ["run", STUDY, "--seeds", "1", "--set", "name=small", "--set", "training.epochs=1"]
    small += ["--set", "network.layers.0.repeat=1", "--set", "claims=null"]
    main_job = ["run", STUDY, *size.settings]
    roots = [scratch / f"root-{number}" for number in range(size.whole_repeats)]
    first, whole = [], []
    for root in roots:
        root.mkdir()
        first.append(run_module("flows.cli", small, root=root))
        whole.append(run_module("flows.cli", main_job, root=root))
    finished = [run_module("flows.cli", main_job, root=roots[-1]) for _ in range(size.repeats)]
    if not all("nothing trained" in child.output for child in finished):
        raise RuntimeError(f"the finished study was not answered from MLflow:\n{finished[0].output}")
    yield Part.of("first", "layerwise run, one seed and stage, in an empty folder", first)
    yield Part.of("run", f"layerwise run, {size.seeds} seeds, every model tracked, existing store", whole)
    yield Part.of("finished", "layerwise run of the finished study", finished)


def aims(parts: dict[str, Part], size: Size) -> list[Aim]:
    """The bounds that this project has set itself."""
    seconds = {name: part.seconds for name, part in parts.items()}
    return [
        Aim("engine, warm / raw TensorFlow, warm", seconds["engine"] / seconds["raw"], 1.3, ""),
        Aim(
            f"layerwise run, {size.seeds} seeds / plain Keras, 1 seed: whole processes",
            seconds["run"] / seconds["plain"],
            1.0,
            "",
        ),
        Aim("layerwise run: peak memory of its largest process", parts["run"].largest_mb, 1500, "MB"),
        Aim("layerwise --help", seconds["help"], 0.5, "s"),
        Aim("layerwise run of the finished study", seconds["finished"], 6.0, "s"),
    ]


def show(parts: list[Part], found: list[Aim], about: dict[str, Any], console: Console) -> None:
    """Print the machine, the parts and the aims."""
    for name, value in about.items():
        console.print(f"{name:<10}{value}", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    for column in ("median s", "min .. max s", "CPU s", "repeats", "largest MB", "together MB", "load"):
        table.add_column(column, justify="right")
    for part in parts:
        table.add_row(
            part.what,
            f"{part.seconds:.2f}",
            f"{min(part.times).wall:.2f} .. {max(part.times).wall:.2f}" if len(part.times) > 1 else "-",
            f"{part.processor_seconds:.2f}",
            str(len(part.times)),
            f"{part.largest_mb:.0f}",
            "-" if part.together_mb is None else f"{part.together_mb:.0f}",
            f"{max(part.load):.1f}",
        )
    console.print(table)
    bounds = Table(box=None, pad_edge=False)
    for column, justify in (("aim", "left"), ("measured", "right"), ("bound", "right"), ("met", "left")):
        bounds.add_column(column, justify=justify)
    for aim in found:
        bounds.add_row(
            aim.what, f"{aim.measured:.2f} {aim.unit}", f"{aim.bound:g} {aim.unit}", "yes" if aim.met else "no"
        )
    console.print(bounds)


def _about(size: Size) -> dict[str, Any]:
    tags = {name.removeprefix("layerwise."): value for name, value in provenance().items()}
    versions = {name.removeprefix("version."): value for name, value in tags.items() if name.startswith("version.")}
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
    """Time the main job against plain Keras and raw TensorFlow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.main_job", description=main.__doc__)
    parser.add_argument("--repeats", type=int, help="repeats of what is warm or short (3)")
    parser.add_argument("--whole-repeats", type=int, help="repeats of the two whole processes that train (1)")
    parser.add_argument("--quick", action="store_true", help="two stages of five epochs: shows that it runs, no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    asked = parser.parse_args()
    given = {name: getattr(asked, name) for name in ("repeats", "whole_repeats") if getattr(asked, name)}
    size = dataclasses.replace(QUICK if asked.quick else Size(), **given)

    console, parts = Console(width=140), []
    with tempfile.TemporaryDirectory(prefix="layerwise-bench-") as scratch:
        for part in measure(size, Path(scratch)):
            parts.append(part)
            print(f"{part.what}: {part.seconds:.2f} s", flush=True)
    found, about = aims({part.name: part for part in parts}, size), _about(size)
    print()
    show(parts, found, about, console)
    if asked.quick:
        print("A quick look: its figures and aims say nothing about the main job.")
    if asked.json:
        rows = [{**dataclasses.asdict(part), "seconds": part.seconds} for part in parts]
        bounds = [{**dataclasses.asdict(aim), "met": aim.met} for aim in found]
        asked.json.write_text(json.dumps({**about, "parts": rows, "aims": bounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
