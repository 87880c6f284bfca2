"""What the suite found, as tables: on the terminal, in the documents, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import marked
from benchmarks.aims import Aim
from benchmarks.curves import Curve
from benchmarks.measuring import CHECKOUT
from benchmarks.parts import Part

COMMAND = "make bench"

IN_README = (
    "plain",
    "plain-compiled",
    "sklearn",
    "common",
    "jax-30-cold",
    "jax-30",
    "engine-1-cold",
    "engine-30-cold",
    "engine-30",
    "engine-100",
    "run",
    "run-none",
    "run-many",
    "finished",
)
"""The parts that README shows."""


@dataclass(frozen=True)
class Measured:
    """A run of the suite: where and of what, every part, how costs grow, every aim."""

    about: dict[str, Any]
    parts: list[Part]
    curves: list[Curve]
    aims: list[Aim]

    def as_json(self) -> dict[str, Any]:
        """All of it, with medians."""
        rows = [
            {**dataclasses.asdict(part), "seconds": part.seconds, "processor_seconds": part.processor_seconds}
            for part in self.parts
        ]
        bounds = [{**dataclasses.asdict(aim), "met": aim.met} for aim in self.aims]
        grown = [{**dataclasses.asdict(one), "unit_ms": one.unit_ms, "exponent": one.exponent} for one in self.curves]
        return {**self.about, "parts": rows, "curves": grown, "aims": bounds}

    @property
    def shown(self) -> list[Part]:
        """The parts that have rows of their own; the others are points of curves."""
        return [part for part in self.parts if "-depth-" not in part.name and not part.name.startswith("growth-")]


def show(found: Measured) -> None:
    """Print the machine, the parts and the aims."""
    console = Console(width=160)
    print()
    for name, value in found.about.items():
        console.print(f"{name:<10}{value}", highlight=False)
    for title, header, rows in (
        ("parts", _PART_COLUMNS, _part_rows(found.shown)),
        ("growth", _CURVE_COLUMNS, _curve_rows(found.curves)),
        ("aims", _AIM_COLUMNS, _aim_rows(found.aims)),
    ):
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for place, column in enumerate(header):
            table.add_column(column, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write(found: Measured) -> None:
    """Put the tables into docs/performance.md and README.md."""
    about = found.about
    head = f"{about['date'][:10]}, {about['machine']}; {about['versions']}; commit {about['commit'][:10]}."
    parts = _markdown(_PART_COLUMNS, _part_rows(found.shown))
    grown = _markdown(_CURVE_COLUMNS, _curve_rows(found.curves))
    aims = _markdown(_AIM_COLUMNS, _aim_rows(found.aims))
    text = "\n\n".join([head, aims, parts, grown])
    marked.write(CHECKOUT / "docs/performance.md", "bench", COMMAND, text)
    few = [part for part in found.parts if part.name in IN_README]
    marked.write(CHECKOUT / "README.md", "bench", COMMAND, _markdown(_PART_COLUMNS[:3], _part_rows(few)))


_PART_COLUMNS = ("what", "median s", "times one seed of plain Keras", "min to max s", "CPU s", "repeats", "MB", "load")
_CURVE_COLUMNS = ("what grows", "sizes", "seconds", "ms a unit more", "exponent")
_AIM_COLUMNS = ("aim", "measured", "bound", "met")


def _part_rows(parts: Sequence[Part]) -> Iterator[list[str]]:
    plain = next((part.seconds for part in parts if part.name == "plain"), None)
    for part in parts:
        several, processor = len(part.times) > 1, part.processor_seconds
        yield [
            part.what,
            f"{part.seconds:.2f}",
            f"{part.seconds / plain:.2f}" if plain else "",
            f"{min(part.times).wall:.2f} to {max(part.times).wall:.2f}" if several else "",
            f"{processor:.2f}" if processor == processor else "",  # noqa: PLR0124 - not a number where nobody counted
            str(len(part.times)),
            f"{part.largest_mb:.0f}",
            f"{max(part.load):.1f}",
        ]


def _curve_rows(curves: Sequence[Curve]) -> Iterator[list[str]]:
    for one in curves:
        shown = [*range(0, len(one.sizes), max(1, len(one.sizes) // 6))]
        shown = sorted({*shown, len(one.sizes) - 1})
        yield [
            one.what,
            " ".join(str(one.sizes[place]) for place in shown),
            " ".join(f"{one.seconds[place]:.3g}" for place in shown),
            f"{one.unit_ms:.2f}",
            "" if one.exponent is None else f"{one.exponent:.2f}",
        ]


def _aim_rows(aims: Sequence[Aim]) -> Iterator[list[str]]:
    for aim in aims:
        yield [aim.what, aim.found, aim.asked, {True: "yes", False: "**no**", None: ""}[aim.met]]


def _markdown(columns: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row[: len(columns)])} |" for row in rows)])
