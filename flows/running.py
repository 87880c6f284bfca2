"""``layerwise run`` from the request to the answer: the lock, what exists already, the server, the flow, the table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from flows import environment
from flows.locks import Busy, claim
from layerwise import imported, sizes
from layerwise.study import Study, StudyError

if TYPE_CHECKING:
    import pandas as pd

    from flows.trained import Outcome

DONE, FAILED, WRONG_REQUEST, BUSY = 0, 1, 2, 75


class Unanswered(RuntimeError):
    """A study cannot be answered now; the message is one line, and ``status`` what the command ends with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What there is to print about a study.

    Attributes:
        table: the table of results, if anything was trained.
        words: how each arm's scores change, line by line.
        verdicts: what was found of each claim, as plain JSON; none without claims, or where something failed.
        seeds: how many were trained.
        finished: whether the study was finished before, so that nothing had to be trained.
        problems: what failed, or is trained and not published, in one line each.
    """

    table: pd.DataFrame | None
    words: str
    verdicts: dict[str, Any] | None
    seeds: int
    finished: bool = False
    problems: tuple[str, ...] = ()

    @property
    def all_supported(self) -> bool:
        """Whether every claim is supported."""
        return self.verdicts is not None and all(one["verdict"] == "supported" for one in self.verdicts["verdicts"])


def run_study_command(study: Study, *, repeat: str, root: Path, require_claims: bool = False) -> int:
    """Answer a study: from MLflow if it is finished, else by training what is missing. Returns the exit status.

    Args:
        study: what is asked.
        repeat: the name of a deliberate repeat, or empty.
        root: where runs and results are.
        require_claims: whether a claim that is not supported is a failure.

    Raises:
        StudyError: if the study needs more memory than there is, or claims are required of a study without.
    """
    if require_claims and not study.claims:
        raise StudyError(f"--require-claims: {study.name} claims nothing; add claims to it, or leave the option out")
    sizes.refuse_oversize(study)
    environment.prepare(root)
    console = wide_console()
    for path in sorted(study.functions):
        say(f"code of your own: {path}, in {imported.source(path)}", console)
    try:
        with claim(root, study.digest(repeat)):
            answer = _answer(study, repeat, root, console)
    except Busy as busy:
        return _refuse(f"{study.name}: {busy}", BUSY)
    except Unanswered as problem:
        return _refuse(str(problem), problem.status)
    _print_answer(study, answer, console)
    return FAILED if answer.problems or (require_claims and not answer.all_supported) else DONE


def wide_console() -> Console:
    """Standard output, at least as wide as a table: a narrow terminal wraps, cutting numbers short would lose them."""
    console = Console()
    return console if console.width >= TABLE_WIDTH else Console(width=TABLE_WIDTH)


def _answer(study: Study, repeat: str, root: Path, console: Console) -> Answer:
    new = not (root / "mlruns" / "mlflow.db").exists()
    # Nothing can be finished in a store that is not there, so the server may start while MLflow makes one.
    finished = None if new else _finished(study, repeat, root, console)
    if finished is not None:
        return finished
    from layerwise.claims import undecidable  # it loads pandas, and another process may be at the run

    for line in undecidable(study):
        say(f"Before training: {line}.", console)
    return _train(study, repeat, root, console)


def _finished(study: Study, repeat: str, root: Path, console: Console) -> Answer | None:
    """The answer of a study whose run is finished and whole; nothing else happens then."""
    from tasks.tracking.answers import finished_study_run, stored_answer
    from tasks.tracking.runs import SEEDS
    from tasks.tracking.store import TrackingError, open_store

    try:
        client = open_store(root)
    except TrackingError as error:
        raise Unanswered(str(error), WRONG_REQUEST) from None
    run = finished_study_run(client, study.name, study.digest(repeat))
    if run is None:
        return None
    stored = stored_answer(client, run, claims=bool(study.claims))
    if stored.missing:
        say(f"{study.name} is finished, but its runs lack {'; '.join(stored.missing)}: completing them.", console)
        return None
    tags = run.data.tags
    return Answer(stored.table, tags.get("layerwise.answer", ""), stored.verdicts, int(tags[SEEDS]), finished=True)


def _train(study: Study, repeat: str, root: Path, console: Console) -> Answer:
    from flows.server import ServerProblem, start

    with start(root) as server:
        # Imported while the server starts: this takes seconds.
        from tasks.tracking.store import TrackingError, open_store

        try:
            open_store(root)
        except TrackingError as error:
            raise Unanswered(str(error), WRONG_REQUEST) from None
        from flows.progress import shown
        from flows.study import run_study
        from flows.trained import in_one_line
        from tasks.results import results_block

        try:
            with server.ready(), shown(console):
                storage = results_block(environment.results_folder(root))
                outcome = run_study.with_options(result_storage=storage)(study, repeat)
        except ServerProblem as error:
            raise Unanswered(str(error), FAILED) from None
        except TrackingError as error:
            raise Unanswered(str(error), WRONG_REQUEST) from None
        except StudyError:
            raise
        except Exception as error:  # noqa: BLE001 - its traceback is on Prefect's page of the run
            raise Unanswered(f"{study.name} failed: {in_one_line(error)}; layerwise ui shows where.", FAILED) from None
    return _answer_of(outcome)


def _answer_of(outcome: Outcome) -> Answer:
    from layerwise.statistics import in_words

    lost = (f"trained, not published: {why}; run again to publish it" for why in dict.fromkeys(outcome.unpublished))
    return Answer(
        table=outcome.table,
        words="\n".join(in_words(outcome.metrics)) if outcome.table is not None else "",
        verdicts=outcome.verdicts.as_json() if outcome.verdicts else None,
        seeds=outcome.seeds,
        problems=(*(f"{place} failed: {reason}" for place, reason in outcome.failures.items()), *lost),
    )


def _print_answer(study: Study, answer: Answer, console: Console) -> None:
    if answer.table is not None:
        _print_results(study, answer.table, answer.words, console)
    for one in answer.verdicts["verdicts"] if answer.verdicts else ():
        say(f"claim {one['claim']}: {one['words']}", console)
    if study.claims and answer.verdicts is None:
        say("The claims are not decided: that takes every seed of every arm.", console)
    if study.stop is not None and answer.verdicts is not None and answer.seeds < study.seeds:
        say(f"Stopped at {answer.seeds} of at most {study.seeds} seeds: every claim is decided.", console)
    if answer.finished:
        verified = len(study.arms) * answer.seeds
        say(
            f"{study.name} was finished before: {verified} seed runs verified, nothing trained."
            " To compute it afresh: --repeat.",
            console,
        )
    else:
        say("Look at the runs: layerwise ui", console)
    for problem in answer.problems:
        _refuse(problem, FAILED)


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
            say("Means are over the seeds that neither diverged nor collapsed.", console)
    for line in answer.splitlines():
        say(line, console)


def _has(rows: pd.DataFrame, name: str) -> bool:
    return f"{name}_mean" in rows and bool(rows[f"{name}_median"].notna().any())


def say(line: str, console: Console) -> None:
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
