"""A scheduled run judges itself against the accepted run of its study, and ``layerwise accept`` says which that is.

Prefect and TensorFlow are not needed: both runs are read back from the tracker.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment
from flows.printing import DONE, Terminal, refuse_store, say
from layerwise.study import StudyError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from layerwise.judgement import Judgement
    from tasks.tracking.tracked import Tracked

JUDGED = "layerwise.judged"
"""The tag of a study run that holds its latest verdict; longer ones say against which run, when, and why."""

RECORDS = "judgements"
"""The folder of artifacts that keeps a record of every judgement."""

MOST_TAG = 1000


def accept_command(said: str, root: Path) -> int:
    """Make a run the one that later runs of its study are judged against. Returns the exit status.

    Args:
        said: the run, as :func:`tasks.tracking.tracked.find_study_run` takes it.
        root: where runs are tracked.
    """
    from tasks.tracking.store import TrackingError, open_existing_store

    environment.set_variables(root)
    try:
        from tasks.tracking.accepted import accept
        from tasks.tracking.tracked import find_study_run

        client = open_existing_store(root)
        run = find_study_run(client, said)
        before = accept(client, run)
    except TrackingError as error:
        return refuse_store(error)
    moved = "" if before is None or before.info.run_id == run.info.run_id else f", in the place of {_called(before)}"
    say(f"Accepted: {_called(run)}{moved}. Scheduled runs of it are judged against this one.", Terminal())
    return DONE


def judge_run(client: MlflowClient, run: Run) -> Judgement:
    """Judge a finished study run against the accepted one of its study, and write on the run what was found.

    Where none has been accepted, it is accepted itself.

    Raises:
        TrackingError: if the store fails.
    """
    from layerwise.judgement import Judgement
    from tasks.tracking.accepted import accept, accepted_run
    from tasks.tracking.store import TrackerAway, TrackingError

    try:
        accepted = accepted_run(client, run.info.experiment_id)
    except TrackerAway:  # which says nothing of the run
        raise
    except TrackingError as error:
        found, accepted = Judgement("NOT COMPARABLE", str(error)), None
    else:
        if accepted is None:
            accept(client, run)
            words = "nothing had been accepted, so it is the accepted run now; move the mark with `layerwise accept`"
            found = Judgement("FIRST", words)
        else:
            found = _judged(client, accepted, run)
    _write(client, run, accepted, found)
    return found


def _judged(client: MlflowClient, accepted: Run, run: Run) -> Judgement:
    from layerwise.judgement import Judgement, by_bits, by_scores, lost_claims
    from tasks.tracking.tracked import read_tracked

    before, now = read_tracked(client, accepted), read_tracked(client, run)
    claims = lost_claims(before.verdicts, now.verdicts)
    unlike = _unlike(before, now)
    if unlike is None:
        return Judgement(
            "NOT COMPARABLE", f"{before.name} is another form of the study, or on other data; {_remedy(now)}"
        )
    bits = by_bits(_agreement(client, before, now), claims)
    if not unlike or not bits.regressed:
        return bits
    try:
        return by_scores(_across(client, before, now), claims)
    except StudyError as error:
        return Judgement("NOT COMPARABLE", f"{error}; {_remedy(now)}")


def _unlike(before: Tracked, now: Tracked) -> list[str] | None:
    """Versions and machine where they differ; None where the two runs were not asked the same."""
    from flows import origins
    from tasks.tracking.runs import DIGEST

    then, tags = before.run.data.tags, now.run.data.tags
    same = then.get(DIGEST) == tags.get(DIGEST) and before.data_digest == now.data_digest
    return origins.unlike(then, tags) if same else None


def _agreement(client: MlflowClient, before: Tracked, now: Tracked) -> Any:
    from flows.reproducing import tracked_values
    from layerwise.agreement import compare
    from tasks.tracking.tracked import read_seed_runs

    values = [tracked_values(one, read_seed_runs(client, one.run)) for one in (before, now)]
    return compare(*values)


def _across(client: MlflowClient, before: Tracked, now: Tracked) -> Any:
    from flows.comparing import run_scores
    from layerwise.across import compare_runs
    from tasks.tracking.tracked import arm_settings

    names = [before.name, now.name]
    return compare_runs([run_scores(one, "", arm_settings(client, one.run), names) for one in (before, now)])


def _remedy(now: Tracked) -> str:
    return f"if that is meant, layerwise accept {now.name}"


def _write(client: MlflowClient, run: Run, accepted: Run | None, found: Judgement) -> None:
    """A record that stays, and tags that say what the latest one says."""
    from tasks.provenance import provenance
    from tasks.tracking.tracked import append_record

    now, against = datetime.now(UTC), "" if accepted is None else accepted.info.run_id
    record = {
        "verdict": found.verdict,
        "regressed": found.regressed,
        "words": found.words,
        "findings": list(found.findings),
        "run": run.info.run_id,
        "against": against,
        "at": now.isoformat(timespec="seconds"),
        "made_by": provenance(),
    }
    tags = {
        JUDGED: found.verdict,
        f"{JUDGED}_against": against,
        f"{JUDGED}_at": record["at"],
        f"{JUDGED}_words": found.words[:MOST_TAG],
    }
    append_record(client, run, f"{RECORDS}/{now:%Y%m%dT%H%M%S.%fZ}.json", json.dumps(record, indent=1), tags)


def in_markdown(client: MlflowClient, run: Run, found: Judgement) -> str:
    """What Prefect's page of the run shows: verdict, reason, findings, and where to look."""
    tags = client.get_run(run.info.run_id).data.tags
    against = tags.get(f"{JUDGED}_against")
    lines = [f"## {_called(run)}: {found.verdict}", "", f"{_capital(found.words)}."]
    if against:
        lines += ["", f"Judged against {_called(client.get_run(against))}, run `{against}`."]
    if found.findings:
        shown = [f"- {line}" for line in found.findings[:MOST_FINDINGS]]
        more = len(found.findings) - len(shown)
        lines += ["", "### Findings", "", *shown, *([f"- and {more:,} more, in the run's `{RECORDS}`"] if more else [])]
    lines += ["", f"`layerwise report {_called(run)}` shows the run, `layerwise accept {_called(run)}` accepts it."]
    return "\n".join(lines)


MOST_FINDINGS = 20
"""Findings on Prefect's page."""


def _called(run: Run) -> str:
    from tasks.tracking.runs import REPEAT, STUDY

    return ":".join(filter(None, (run.data.tags.get(STUDY, ""), run.data.tags.get(REPEAT, ""))))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
