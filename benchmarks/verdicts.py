"""Every ready-made study and what its run said of its claims: ``python -m benchmarks.verdicts`` writes README's table.

Each study is run by the one command that its row gives, with every setting as it stands in its file. What is finished
in ``LAYERWISE_ROOT`` already is read, not trained again; with ``--read-only`` nothing is trained at all. The times are
those between the opening of a study's runs and their closing, so they say something only of runs made in one go.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import marked
from benchmarks.measuring import CHECKOUT
from flows import environment
from layerwise.claims.wording import p_value
from layerwise.study import StudyError, load, shipped

if TYPE_CHECKING:
    from tasks.tracking.tracked import Tracked

PLACE = ("verdicts", "make verdicts")
README = CHECKOUT / "README.md"


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--read-only", action="store_true", help="train nothing; studies that were not run are left out"
    )
    asked = parser.parse_args()
    root = environment.root()
    environment.prepare(root)
    names = list(_ready())
    if not asked.read_only:
        for name in names:
            print(f"\n{name}", flush=True)
            subprocess.run([sys.executable, "-m", "flows.cli", "run", name], cwd=root, env=_environ(), check=True)
    text = in_markdown(list(_tracked(root, names)))
    marked.write(README, *PLACE, text)
    print(text)


def in_markdown(runs: Sequence[Tracked]) -> str:
    """The table and the line above it.

    Args:
        runs: one for each study, in the order of the rows.
    """
    verdicts = [one for run in runs for one in _verdicts(run)]
    counts = Counter(one["verdict"] for one in verdicts)
    said = ", ".join(f"{counts[word]} {word}" for word in ("supported", "refuted", "undecided"))
    minutes = sum(map(_seconds, runs)) / 60
    tags = runs[0].run.data.tags
    lines = [
        f"{len(verdicts)} claims of {len(runs)} studies: {said}. All of them took {minutes:.0f} minutes, one after the"
        f" other, on {tags.get('layerwise.cores', '?')} cores ({tags.get('layerwise.machine', 'unknown')}).",
        "",
        "| `layerwise run` | claim | verdict | what was found |",
        "|:--|:--|:--|:--|",
    ]
    return "\n".join([*lines, *(row for run in runs for row in _rows(run))])


def _ready() -> Iterator[str]:
    """The studies whose data are there."""
    for name in shipped():
        try:
            load(name)
        except StudyError as problem:
            print(f"{name} is left out: {problem}")
            continue
        yield name


def _environ() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT)}


def _tracked(root: Path, names: Sequence[str]) -> Iterator[Tracked]:
    from tasks.tracking.store import TrackingError, open_store
    from tasks.tracking.tracked import find_study_run, read_tracked

    client = open_store(root)
    for name in names:
        try:
            yield read_tracked(client, find_study_run(client, name))
        except TrackingError as problem:
            print(f"{name} is left out: {problem}")


def _rows(run: Tracked) -> Iterator[str]:
    """A row for each claim; the first one names the study and says how long it took."""
    verdicts = _verdicts(run)
    study = f"[{run.name}](studies/{run.name}.yaml), {_seconds(run):.0f} s"
    if not verdicts:
        yield f"| {study} | none | | {_cell(run.run.data.tags.get('layerwise.answer', ''))} |"
    for place, one in enumerate(verdicts):
        cells = ("" if place else study, _cell(one["sentence"]), f"**{one['verdict']}**", _cell(_found(one)))
        yield f"| {' | '.join(cells)} |"


def _verdicts(run: Tracked) -> list[dict[str, Any]]:
    return run.verdicts["verdicts"] if run.verdicts else []


def _found(one: dict[str, Any]) -> str:
    """What decided a claim, in a line: the estimate and p; or why nothing did. The report has the rest."""
    sentence = one["sentence"][:1].upper() + one["sentence"][1:]
    found, *why = one["words"].partition(f"{sentence}: ")[2].removesuffix(".").split(". ")
    estimate = re.split(r"; |(?<=seeds), ", found)[0]
    if one["verdict"] == "undecided":
        return f"{estimate}. {why[-1]}"
    p = one["p_adjusted"] if one["verdict"] == "supported" else one["p_against_adjusted"]
    return f"{estimate}; p {p_value(p)}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _seconds(run: Tracked) -> float:
    info = run.run.info
    return ((info.end_time or info.start_time) - info.start_time) / 1000


if __name__ == "__main__":
    main()
