"""``layerwise run`` from the request to the answer: the lock, what exists already, the server, the flow, the table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from flows import environment
from flows.locks import Busy, claim
from layerwise import sizes
from layerwise.study import Study, StudyError

if TYPE_CHECKING:
    import pandas as pd

    from flows.study import Outcome

DONE, FAILED, WRONG_REQUEST, BUSY = 0, 1, 2, 75


def run_study_command(study: Study, *, repeat: str, root: Path) -> int:
    """Answer a study: from MLflow if it is finished, else by training what is missing. Returns the exit status.

    Raises:
        StudyError: if the study needs more memory than there is.
    """
    sizes.refuse_oversize(study)
    environment.prepare(root)
    try:
        with claim(root, study.digest(repeat)):
            return _answer(study, repeat, root)
    except Busy as busy:
        return _refuse(f"{study.name}: {busy}", BUSY)


def _answer(study: Study, repeat: str, root: Path) -> int:
    console = Console()
    if console.width < TABLE_WIDTH:  # a narrow terminal wraps; cutting numbers short would lose them
        console = Console(width=TABLE_WIDTH)
    new = not (root / "mlruns" / "mlflow.db").exists()
    if new:
        # Nothing can be finished in a store that is not there, so the server may start while MLflow makes one.
        return _train(study, repeat, root, console)
    from tasks.tracking.store import TrackingError

    try:
        finished = _finished(study, repeat, root, console)
    except TrackingError as error:
        return _refuse(str(error), WRONG_REQUEST)
    return DONE if finished else _train(study, repeat, root, console)


def _finished(study: Study, repeat: str, root: Path, console: Console) -> bool:
    """Whether the study's run is finished and whole; if so its answer is printed, and nothing else happens."""
    from tasks.tracking.answers import finished_study_run, stored_answer
    from tasks.tracking.store import open_store

    client = open_store(root)
    run = finished_study_run(client, study.name, study.digest(repeat))
    if run is None:
        return False
    stored = stored_answer(client, run)
    if stored.missing or stored.table is None:
        lacking = "; ".join(stored.missing)
        _say(f"{study.name} is finished, but its runs lack {lacking}: completing them.", console)
        return False
    _print_results(study, stored.table, run.data.tags.get("layerwise.answer", ""), console)
    _say(
        f"{study.name} was finished before: {len(study.arms) * study.seeds} seed runs verified, nothing trained."
        " To compute it afresh: --repeat.",
        console,
    )
    return True


def _train(study: Study, repeat: str, root: Path, console: Console) -> int:
    from flows.server import ServerProblem, start

    with start(root) as server:
        # Imported while the server starts: this takes seconds.
        from tasks.tracking.store import TrackingError, open_store

        try:
            open_store(root)
        except TrackingError as error:
            return _refuse(str(error), WRONG_REQUEST)
        from flows.progress import shown
        from flows.study import in_one_line, run_study
        from tasks.results import results_block

        try:
            with server.ready(), shown(console):
                storage = results_block(environment.results_folder(root))
                outcome = run_study.with_options(result_storage=storage)(study, repeat)
        except ServerProblem as error:
            return _refuse(str(error), FAILED)
        except TrackingError as error:
            return _refuse(str(error), WRONG_REQUEST)
        except StudyError:
            raise
        except Exception as error:  # noqa: BLE001 - its traceback is on Prefect's page of the run
            return _refuse(f"{study.name} failed: {in_one_line(error)}; layerwise ui shows where.", FAILED)
    return _report(study, outcome, console)


def _report(study: Study, outcome: Outcome, console: Console) -> int:
    from layerwise.statistics import in_words

    if outcome.table is not None:
        _print_results(study, outcome.table, "\n".join(in_words(outcome.metrics)), console)
    _say("Look at the runs: layerwise ui", console)
    for place, reason in outcome.failures.items():
        _refuse(f"{place} failed: {reason}", FAILED)
    for reason in dict.fromkeys(outcome.unpublished):
        _refuse(f"trained, not published: {reason}; run again to publish it", FAILED)
    return FAILED if outcome.failures or outcome.unpublished else DONE


TABLE_WIDTH = 110
"""Columns that the widest table of results takes."""

COLUMNS = {
    "train_accuracy": "train accuracy",
    "test_accuracy": "test accuracy",
    "fine_tuned_train_accuracy": "tuned, train",
    "fine_tuned_test_accuracy": "tuned, test",
    "train_r2": "train R2",
    "test_r2": "test R2",
    "fine_tuned_train_r2": "tuned, train",
    "fine_tuned_test_r2": "tuned, test",
    "test_mae": "test MAE",
    "test_reconstruction_mse": "test error",
}
"""The scores that the terminal shows, where an arm has them; all others are in the results table."""


def _print_results(study: Study, table: pd.DataFrame, answer: str, console: Console) -> None:
    for arm, rows in table.groupby("arm", sort=False):
        shown = {name: label for name, label in COLUMNS.items() if _has(rows, name)}
        printed = Table(box=None, pad_edge=False, title=f"{study.name}, arm {arm}", title_justify="left")
        counts = ["seeds", *(name for name in ("diverged", "collapsed") if rows[name].any())]
        for column in ("depth", "layers", *counts, *shown.values()):
            printed.add_column(column, justify="right", no_wrap=True)
        for row in rows.to_dict("records"):
            scores = (_mean_and_sd(row, name) for name in shown)
            printed.add_row(*(str(int(row[name])) for name in ("depth", "layers", *counts)), *scores)
        console.print(printed)
        if len(counts) > 1:
            _say("Means are over the seeds that neither diverged nor collapsed.", console)
    for line in answer.splitlines():
        _say(line, console)


def _has(rows: pd.DataFrame, name: str) -> bool:
    return f"{name}_mean" in rows and bool(rows[f"{name}_median"].notna().any())


def _say(line: str, console: Console) -> None:
    """Print a line as it is: whole in a pipe, and with brackets that are no markup."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _mean_and_sd(row: dict[str, Any], name: str) -> str:
    mean, sd, median = (row[f"{name}_{key}"] for key in ("mean", "sd", "median"))
    if math.isnan(mean):  # no seed is intact, so there is no mean; the median is over all that are finite
        return "-" if math.isnan(median) else f"median {median:.3f}"
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} +- {sd:.3f}"


def _refuse(message: str, status: int) -> int:
    click.echo(f"layerwise: {' '.join(message.split())}", err=True)
    return status
