"""``layerwise plan``: a pilot of a few seeds, and how many seeds it would take to decide each claim."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows import environment
from flows.launching import Unanswered, run_flow
from flows.locks import Busy, claim
from flows.printing import BUSY, DONE, Terminal, print_table, refuse, say
from layerwise import imported, sizes
from layerwise.study import Study, StudyError

if TYPE_CHECKING:
    import pandas as pd

PILOT = 10
"""Seeds of a pilot, where nothing else is said: one block, and a block of few seeds costs what a full one does."""

SHOWN = (10, 20, 30, 50, 100, 200, 500, 1000)
"""Numbers of seeds that have a column in the table of power."""

BETWEEN = (15, 40, 70, 150, 300, 700)
"""More of them, so that the number that has the power wanted is found between two that are near."""

WANTED = 0.8
"""Power that a study is planned for (Cohen, 1988)."""


def plan_study_command(study: Study, *, pilot: int | None, root: Path) -> int:
    """Pilot a study, and print how likely so many seeds are to decide each claim. Returns the exit status.

    Args:
        study: what is planned.
        pilot: seeds to train now; ten if ``None``.
        root: where results are.

    Raises:
        StudyError: if there is nothing to plan, or too few seeds to plan it from.
    """
    few = piloted(study, pilot)
    sizes.refuse_oversize(few)
    environment.prepare(root)
    console = Terminal()
    for path in sorted(few.functions):
        imported.announce(path)
    try:
        with claim(root, few.digest()):
            metrics = run_flow(study.name, _pilot_flow, root, console, few)
    except Busy as busy:
        return refuse(f"{study.name}: {busy}", BUSY)
    except Unanswered as problem:
        return refuse(str(problem), problem.status)
    _print_plan(study, few, metrics, console)
    return DONE


def piloted(study: Study, seeds: int | None) -> Study:
    """The pilot of a study: as it is, with few seeds, which decide nothing.

    Args:
        study: what is planned.
        seeds: how many; if ``None`` ten, or as many as settle how deep arms grow.

    Raises:
        StudyError: if there is nothing to plan, or too few seeds to plan it from.
    """
    settling = study.grow.seeds if study.grow is not None else 0
    seeds = max(PILOT, settling) if seeds is None else seeds
    if not study.claims:
        raise StudyError(f"{study.name} claims nothing, so there is nothing to plan; add claims to it")
    if seeds < settling:
        raise StudyError(f"--seeds {seeds}: {settling} seeds settle how deep arms grow; use {settling} or more")
    if seeds < 2:
        raise StudyError(f"--seeds {seeds}: a pilot has to see how seeds differ; use 2 or more")
    return study.model_copy(update={"seeds": seeds, "claims": None, "alpha": None, "stop": None})


def _pilot_flow() -> Any:
    from flows.pilot import pilot_study

    return pilot_study


def _print_plan(study: Study, few: Study, metrics: pd.DataFrame, console: Console) -> None:
    from layerwise.claims import power_curve, undecidable
    from layerwise.growing import growth_in_words

    curve = power_curve(study, metrics, sorted({*SHOWN, *BETWEEN}))
    say(f"{study.name}: power, the probability that a claim is decided, by the number of seeds", console)
    table = Table(box=None, pad_edge=False)
    table.add_column("claim", no_wrap=True)
    for seeds in SHOWN:
        table.add_column(str(seeds), justify="right", no_wrap=True)
    for name, power in curve.groupby("claim", sort=False):
        decided = power.set_index("seeds")["decided"]
        table.add_row(str(name), *(_share(decided[seeds]) for seeds in SHOWN))
    print_table(table, console)
    for line in (*_found(study, few.seeds, metrics, curve), *growth_in_words(study, metrics)):
        say(line, console)
    for line in undecidable(study):
        say(f"As the study stands, {line}.", console)
    say(
        f"This supposes that the truth is what {few.seeds} seeds saw, and they do not know it well. They are the first"
        " seeds of the run: settle on a number now, or give the study a stop, which looks at fixed numbers of seeds.",
        console,
    )


def _found(study: Study, seeds: int, metrics: pd.DataFrame, curve: pd.DataFrame) -> list[str]:
    """A line for each claim: the seeds that would decide it, which way, and what the pilot saw."""
    from layerwise.claims import decide
    from layerwise.claims.wording import found_in_words
    from layerwise.growing import as_grown

    lines = []
    looked = as_grown(study, metrics).model_copy(update={"seeds": seeds, "stop": None, "grow": None})
    for one in decide(looked, metrics).verdicts:
        power = curve[curve["claim"] == one.claim]
        furthest = max(one.evidence, key=lambda found: found.p)
        saw = found_in_words((study.claims or {})[one.claim], furthest, several=len(one.evidence) > 1)
        told = seeds_in_words(power) if furthest.seeds > 1 else "the pilot cannot tell"
        lines.append(f"{one.claim}: {told}. It saw: {saw}.")
    return lines


def seeds_in_words(power: pd.DataFrame) -> str:
    """How many seeds one claim takes, and which way it would be decided.

    Args:
        power: rows of :func:`layerwise.claims.power_curve` of that claim, by growing numbers of seeds.
    """
    enough, most = seeds_for(power, WANTED), power.iloc[-1]
    if enough is None:
        return f"{int(most['seeds']):,} seeds decide it with probability {_share(most['decided'])} only"
    way = "support" if most["supported"] >= most["refuted"] else "refute"
    about = "or fewer " if enough == power.iloc[0]["seeds"] else ""
    return f"about {enough:,} seeds {about}{way} it with probability {_share(WANTED)}"


def seeds_for(power: pd.DataFrame, wanted: float) -> int | None:
    """The number of seeds that decides a claim with the power wanted, to two digits; ``None`` if none that was tried.

    Between two numbers that were tried, power is taken to grow in a straight line. More seeds than that have the power
    too: few may decide a claim only because they do not show that seeds break on one side more than on the other.

    Args:
        power: ``seeds``, growing, and ``decided``, in 0..1.
        wanted: in 0..1.
    """
    seeds, decided = power["seeds"].tolist(), power["decided"].tolist()
    place = 1 + max((place for place, share in enumerate(decided) if share < wanted), default=-1)
    if place in {0, len(seeds)}:
        return None if place else int(seeds[0])
    below, above = decided[place - 1], decided[place]
    exact = seeds[place - 1] + (seeds[place] - seeds[place - 1]) * (wanted - below) / (above - below)
    step = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return math.ceil(round(exact / step, 6)) * step


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
