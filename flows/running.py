"""``layerwise run`` from the request to the answer: the lock, what exists already, the server, the flow, the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flows import environment
from flows.locks import Busy, claim
from layerwise.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from flows.study import Outcome

DONE, FAILED, WRONG_REQUEST, BUSY = 0, 1, 2, 75


def run_study_command(study: Study, *, repeat: str, root: Path) -> int:
    """Answer a study: from MLflow if it is finished, else by training what is missing. Returns the exit status."""
    environment.prepare(root)
    try:
        with claim(root, study.digest(repeat)):
            return _answer(study, repeat, root)
    except Busy as busy:
        return _refuse(f"{study.name}: {busy}", BUSY)


def _answer(study: Study, repeat: str, root: Path) -> int:
    console = Console()
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
        console.print(f"{study.name} is finished, but its runs lack {'; '.join(stored.missing)}: completing them.")
        return False
    _print_results(study, stored.table, run.data.tags.get("layerwise.answer", ""), console)
    console.print(
        f"{study.name} was finished before: {len(study.arms) * study.seeds} seed runs verified, nothing trained."
        " To compute it afresh: --repeat.",
        highlight=False,
    )
    return True


def _train(study: Study, repeat: str, root: Path, console: Console) -> int:
    from flows.server import ServerProblem, start

    with start(root) as server:
        try:
            from tasks.tracking.store import TrackingError, open_store

            open_store(root)
        except TrackingError as error:
            return _refuse(str(error), WRONG_REQUEST)
        from flows.progress import shown
        from flows.study import run_study
        from tasks.results import results_block

        try:
            server.wait_ready()
        except ServerProblem as error:
            return _refuse(str(error), FAILED)
        configured = run_study.with_options(result_storage=results_block(environment.results_folder(root)))
        with shown(console):
            outcome = configured(study, repeat)
    return _report(study, outcome, console)


def _report(study: Study, outcome: Outcome, console: Console) -> int:
    from layerwise.statistics import in_words

    if outcome.table is not None:
        _print_results(study, outcome.table, " ".join(in_words(outcome.metrics)), console)
    console.print("Look at the runs: layerwise ui", highlight=False)
    for place, reason in outcome.failures.items():
        _refuse(f"{place} failed: {reason}", FAILED)
    for reason in outcome.unpublished:
        _refuse(f"trained, not published: {reason}; run again to publish it", FAILED)
    return FAILED if outcome.failures or outcome.unpublished else DONE


def _print_results(study: Study, table: pd.DataFrame, answer: str, console: Console) -> None:
    for arm, rows in table.groupby("arm", sort=False):
        printed = Table(box=None, pad_edge=False, title=f"{study.name}, arm {arm}", title_justify="left")
        for column in ("depth", "layers", "seeds", "train accuracy", "test accuracy"):
            printed.add_column(column, justify="right")
        for row in rows.to_dict("records"):
            intact = int(row["seeds"] - row["diverged"])
            seeds = f"{intact}" if intact == row["seeds"] else f"{intact} of {int(row['seeds'])}"
            scores = (_mean_and_sd(row, f"{part}_accuracy") for part in ("train", "test"))
            printed.add_row(str(int(row["depth"])), str(int(row["layers"])), seeds, *scores)
        console.print(printed)
    if answer:
        console.print(answer, highlight=False)


def _mean_and_sd(row: dict, name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean != mean:  # NaN: no seed is intact
        return "-"
    return f"{mean:.3f}" if sd != sd else f"{mean:.3f} +- {sd:.3f}"


def _refuse(message: str, status: int) -> int:
    print(f"layerwise: {' '.join(message.split())}", file=sys.stderr)
    return status
