"""``layerwise run`` from the request to the answer: the lock, what exists already, the server, the flow, the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows import environment
from flows.launching import Unanswered, close_crashed_flow_runs, run_flow, unusable
from flows.locks import Busy, claim
from flows.printing import BUSY, DONE, FAILED, Terminal, print_results, refuse, say
from layerwise import imported, own_code, sizes
from layerwise.study import Study, StudyError
from tasks.provenance import STAGE_CODE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

    from flows.cluster import Scale
    from flows.trained import Outcome

AFRESH = "To compute it afresh: --repeat."

TRIES = 3
"""How often a tracking store is asked whether it is there, before a study is trained without it."""


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
        chosen: arm, depth and seed of the network that validation chose; empty where nothing was chosen.
        declared: those of the network that the study declares; empty where it declares none.
        registered: its version of the registered model of the study's name; empty where it was not registered.
        other_code: how many of its stages other code than this computed, in words; empty where none.
        published: whether all of it is in the tracking store.
    """

    table: pd.DataFrame | None
    words: str
    verdicts: dict[str, Any] | None
    seeds: int
    finished: bool = False
    problems: tuple[str, ...] = ()
    chosen: str = ""
    declared: str = ""
    registered: str = ""
    other_code: str = ""
    published: bool = True

    @property
    def all_supported(self) -> bool:
        """Whether every claim is supported."""
        return self.verdicts is not None and all(one["verdict"] == "supported" for one in self.verdicts["verdicts"])


def run_study_command(
    study: Study,
    *,
    repeat: str,
    root: Path,
    require_claims: bool = False,
    scale: Scale | None = None,
    again: str = "",
) -> int:
    """Answer a study: from MLflow if it is finished, else by training what is missing. Returns the exit status.

    Args:
        study: what is asked.
        repeat: the name of a deliberate repeat, or empty.
        root: where runs and results are.
        require_claims: whether a claim that is not supported is a failure.
        scale: the workers that train it; without them, this process does.
        again: the command that goes on with a repeat, where it is to be said before anything trains.

    Raises:
        StudyError: if the study needs more memory than there is, or claims are required of a study without.
    """
    if require_claims and not study.claims:
        raise StudyError(f"--require-claims: {study.name} claims nothing; add claims to it, or leave the option out")
    sizes.refuse_oversize(study)
    if scale is not None:
        scale.refuse(study)
    environment.prepare(root)
    console = Terminal()
    for path in sorted(study.functions):
        imported.announce(path)
    try:
        with claim(root, study.digest(repeat)) as was_killed:
            if again:
                say(f"This repeat is called {repeat}. If it is interrupted, it goes on with: {again}", console)
            answer = answer_study(study, repeat, root, console, scale)
            if answer.finished and was_killed:  # after the last MLflow run was closed, and before the flow's end
                for name in close_crashed_flow_runs(root):
                    say(f"The flow run {name} was killed before it said that it had ended; it is marked so.", console)
    except Busy as busy:
        return refuse(f"{study.name}: {busy}", BUSY)
    except Unanswered as problem:
        return refuse(str(problem), problem.status)
    _print_answer(study, answer, console, repeat=repeat)
    return FAILED if answer.problems or (require_claims and not answer.all_supported) else DONE


def answer_study(study: Study, repeat: str, root: Path, console: Console, scale: Scale | None = None) -> Answer:
    """Answer a study whose run this process has claimed: from MLflow if it is finished, else by training.

    Raises:
        Unanswered: if the store, Prefect's server or the flow fails.
        StudyError: if the data are not what the study needs.
    """
    from tasks.tracking.store import is_new

    # Nothing can be finished in a store that is not there, so the server may start while MLflow makes one.
    finished = None if is_new(root) else _finished(study, repeat, root, console)
    if finished is not None:
        return finished
    from layerwise.claims import undecidable  # it loads pandas, and another process may be at the run

    for line in undecidable(study):
        say(f"Before training: {line}.", console)
    return _train(study, repeat, root, console, scale)


def _finished(study: Study, repeat: str, root: Path, console: Console) -> Answer | None:
    """The answer of a study whose run is finished and whole; nothing else happens then."""
    from tasks.tracking.answers import finished_study_run, stored_answer
    from tasks.tracking.manifest import set_aside_changed
    from tasks.tracking.store import TrackerAway, TrackingError, failures_in_one_line
    from tasks.tracking.tags import arms_and_seeds

    try:
        client = _opened_store(root)
        with failures_in_one_line(f"reading the runs of {study.name!r}", client.tracking_uri):
            run = finished_study_run(client, study.name, study.digest(repeat))
            stored = None if run is None else stored_answer(client, run, claims=bool(study.claims))
    except TrackerAway:
        return None  # what is missing is trained without it
    except TrackingError as error:
        raise unusable(error) from None
    if run is None or stored is None:
        return None
    if stored.missing:
        say(f"{study.name} is finished, but not as it was published: {'; '.join(stored.missing)}. Mending it.", console)
        try:
            with failures_in_one_line(f"setting aside what changed of {study.name!r}", client.tracking_uri):
                set_aside_changed(client, stored.faults)
        except TrackingError as error:
            raise unusable(error) from None
        return None
    tags = run.data.tags
    return Answer(
        stored.table,
        tags.get("layerwise.answer", ""),
        stored.verdicts,
        arms_and_seeds(tags)[1],
        finished=True,
        chosen=stored.chosen,
        declared=stored.declared,
        registered=stored.registered,
        other_code=own_code.in_words(own_code.from_text(tags.get(STAGE_CODE, ""))),
    )


def _opened_store(root: Path) -> MlflowClient:
    """The store, which may take a moment to answer: whoever starts both at once need not wait between them."""
    from tasks.tracking.store import TrackerAway, open_store

    for _ in range(TRIES - 1):
        try:
            return open_store(root)
        except TrackerAway:
            time.sleep(1)
    return open_store(root)


def _train(study: Study, repeat: str, root: Path, console: Console, scale: Scale | None) -> Answer:
    if scale is not None and scale.address is not None:
        from flows.elsewhere import check_cluster

        for line in check_cluster(scale, study, root):
            say(line, console)
    arguments = (study, repeat) if scale is None else (study, repeat, scale)
    return _answer_of(run_flow(study.name, lambda: _study_flow(root), root, console, *arguments))


def _study_flow(root: Path) -> Any:
    """The flow, once a store that is not there has been made."""
    from tasks.tracking.store import TrackingError, is_new, open_store

    if is_new(root):
        try:
            open_store(root)
        except TrackingError as error:
            raise unusable(error) from None
    from flows.study import run_study

    return run_study


def _answer_of(outcome: Outcome) -> Answer:
    from layerwise.answers import in_words

    lost = (f"trained, not published: {why}{_again(why)}" for why in dict.fromkeys(outcome.unpublished))
    return Answer(
        table=outcome.table,
        words="\n".join(in_words(outcome.study, outcome.metrics)) if outcome.table is not None else "",
        verdicts=outcome.verdicts.as_json() if outcome.verdicts else None,
        seeds=outcome.seeds,
        problems=(*(f"{place} failed: {reason}" for place, reason in outcome.failures.items()), *lost),
        chosen=outcome.chosen.place if outcome.chosen else "",
        declared=outcome.declared.place if outcome.declared else "",
        registered=outcome.registered or "",
        other_code=own_code.in_words(outcome.codes),
        published=not outcome.unpublished,
    )


def _again(why: str) -> str:
    return "" if "run again" in why else "; run again to publish it"


def _print_answer(study: Study, answer: Answer, console: Console, *, repeat: str = "") -> None:
    if answer.table is not None:
        print_results(study, answer.table, answer.words, console)
    for one in answer.verdicts["verdicts"] if answer.verdicts else ():
        say(f"claim {one['claim']}: {one['words']}", console)
    if study.claims and answer.verdicts is None:
        say("The claims are not decided: that takes every seed of every arm.", console)
    if study.stop is not None and answer.verdicts is not None and answer.seeds < study.seeds:
        say(f"Stopped at {answer.seeds} of at most {study.seeds} seeds: every claim is decided.", console)
    if answer.chosen or answer.declared:
        say(_registered_in_words(study, answer), console)
    if answer.other_code:
        remedy = "" if answer.finished else f" {AFRESH}"  # which the next line says, too
        say(f"Not of this code alone: {answer.other_code}.{remedy}", console)
    for line in _where_to_go(study, answer, repeat):
        say(line, console)
    for problem in answer.problems:
        refuse(problem, FAILED)


def _where_to_go(study: Study, answer: Answer, repeat: str) -> Iterator[str]:
    """What can be done with an answer."""
    if answer.finished:
        verified = len(study.arms) * answer.seeds
        yield f"{study.name} was finished before: {verified} seed runs verified, nothing trained. {AFRESH}"
        return
    if not answer.problems:
        yield f"Read the report: layerwise report {study.name}{repeat and f':{repeat}'}"
    if answer.published:
        yield "Look at the runs: layerwise ui"


def _registered_in_words(study: Study, answer: Answer) -> str:
    """Which network validation chose, or the study declares, and where it is registered, or why not."""
    place, how = (answer.chosen, "chosen on validation") if answer.chosen else (answer.declared, "declared")
    if answer.registered:
        said = how if answer.chosen else "as the study declares"
        return f"registered: {study.name} version {answer.registered} ({place}), {said}"
    if answer.problems:
        return f"{how}: {place}; not registered: run again to register it"
    # What a study declares is a model that it keeps, so only a seed that diverged has none.
    kept = f"track.models: {study.track.models} keeps no model of it" if answer.chosen else "that seed diverged"
    return f"{how}: {place}; not registered: {kept}"
