"""``layerwise compare``: tracked runs side by side, paired by seed; no Prefect, no TensorFlow, nothing trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from flows import environment
from flows.printing import DONE, Terminal, print_table, refuse_store, say
from flows.reporting import deliver, plain, reports_folder, safe_word
from layerwise.study import StudyError

if TYPE_CHECKING:
    from layerwise.across import Across, RunScores
    from layerwise.comparison import Difference
    from tasks.tracking.tracked import Tracked

COMPARED = ("layerwise.version.", "layerwise.machine", "layerwise.threads", "layerwise.git_", "layerwise.lock_digest")
"""Tags that say in which circumstances a run was made, by how they begin."""

SHOWN = ("arm", "depth", "seeds", "mean difference", "95 % interval", "ahead", "p", "p, Holm")
OUTCOMES = ("broken, here : there", "p, McNemar")


def compare_command(said: Sequence[str], *, output: Path | None, as_text: bool, may_open: bool, root: Path) -> int:
    """Print how runs differ from the first of them, and write it as a page. Returns the exit status.

    Args:
        said: the runs, as :func:`tasks.tracking.tracked.find_arm` takes them.
        output: the file to write; one in ``<root>/mlruns/reports``, if left out.
        as_text: whether the page is printed as Markdown instead.
        may_open: whether the file is opened in the user's browser, where standard output is a terminal.
        root: where runs are.

    Raises:
        StudyError: if there is no such run, or these cannot be compared.
    """
    environment.set_variables(root)
    if len(said) < 2:
        raise StudyError(f"compare: received {len(said)} run; expected two or more: name another one")
    from layerwise.across import compare_runs
    from tasks.tracking.store import TrackingError

    try:
        runs = _runs(said, root)
    except TrackingError as error:
        return refuse_store(error)
    found = compare_runs(runs)
    from layerwise import report

    page = report.across_page(found)
    if as_text:
        click.echo(plain(report.markdown(page)), nl=False)
        return DONE
    _print(found, Terminal())
    place = reports_folder(root) / f"compare-{'-'.join(safe_word(run.name) for run in found.runs)[:200]}.html"
    return deliver(report.html(page).encode(), output, place, may_open=may_open)


def _runs(said: Sequence[str], root: Path) -> list[RunScores]:
    from tasks.tracking.store import open_store_to_read
    from tasks.tracking.tracked import arm_settings, find_arm, read_tracked

    client = open_store_to_read(root)
    found = [find_arm(client, name) for name in said]
    held = [(read_tracked(client, run), arm, arm_settings(client, run)) for run, arm in found]
    # The same run twice is one name, which is then refused; two runs of one name are told apart.
    names = [name for name, _ in {(one.name, one.run.info.run_id) for one, _, _ in held}]
    return [run_scores(one, arm, settings, names) for one, arm, settings in held]


def run_scores(one: Tracked, arm: str, settings: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> RunScores:
    """A run under its name, its arm if one is meant, and the beginning of its id where another has the same name."""
    from layerwise.across import RunScores

    run = f"{one.name} ({one.run.info.run_id[:8]})" if names.count(one.name) > 1 else one.name
    called = "/".join(filter(None, (run, arm)))
    tags = {
        key.removeprefix("layerwise.").removeprefix("version."): value
        for key, value in one.run.data.tags.items()
        if key.startswith(COMPARED)
    }
    metrics = one.metrics[one.metrics["arm"] == arm] if arm else one.metrics
    return RunScores(called, one.run.info.run_id, settings, metrics, one.data_digest, tags)


def _print(across: Across, console: Console) -> None:
    first, *others = across.runs
    shared = ", ".join(f"{run.name} ({seeds} seeds shared)" for run, seeds in zip(others, across.seeds, strict=True))
    say(f"{shared}, each minus {first.name}: test {across.score}, paired by seed", console)
    # How seeds ended is part of every comparison, but columns of zeros tell nothing.
    ended = OUTCOMES if any(one.broken or one.other_broken for one in across.tested) else ()
    table = Table(box=None, pad_edge=False)
    for column in (*SHOWN, *ended):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for one, adjusted in zip(across.tested, across.adjusted, strict=True):
        table.add_row(*_cells(one, adjusted)[: len(table.columns)])
    print_table(table, console)
    for title, rows in _apart(across).items():
        if rows:
            say(f"\n{title}", console)
            print_table(rows_as_table(rows), console)
    for name, arms in across.arms_apart:
        say(f"in {name} alone: {', '.join(arms)}", console)
    say(
        "None of this was claimed before it was trained: it describes, and p says only how far chance alone would go.",
        console,
    )


def _apart(across: Across) -> dict[str, list[tuple[str, ...]]]:
    """What sets the runs apart besides their scores, as tables with a head each."""
    names = [run.name for run in across.runs]
    settings = [(arm, key, there, here) for arm, _, key, there, here in across.settings]
    circumstances = [(key, *values) for key, values in across.circumstances]
    return {
        "asked differently": [("arm", "setting", "here", f"in {names[0]}"), *settings] if settings else [],
        "made in other circumstances": [("", *names), *circumstances] if circumstances else [],
    }


def rows_as_table(rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first row is its head."""
    head, *others = rows
    table = Table(*head, box=None, pad_edge=False)
    for row in others:
        table.add_row(*row)
    return table


def _cells(one: Difference, adjusted: float) -> tuple[str, ...]:
    from layerwise.claims.wording import number, p_value

    values, depth = one.values, str(one.depth) if one.depth == one.other_depth else f"{one.depth}, {one.other_depth}"
    interval = f"{number(values.ci_low, signed=True)} to {number(values.ci_high, signed=True)}"
    tests = (p_value(one.sign_flip_p), p_value(adjusted))
    ahead = f"{one.probability.estimate:.2f}"
    ended = (f"{one.broken} : {one.other_broken}", p_value(one.outcomes_p))
    return one.arm, depth, str(values.seeds), number(values.mean, signed=True), interval, ahead, *tests, *ended
