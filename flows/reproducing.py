"""``layerwise reproduce``: a tracked run computed again from what it logged, and compared to the bit."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows import environment, progress
from flows.launching import Unanswered, unusable
from flows.printing import DONE, FAILED, WRONG_REQUEST, Terminal, in_one_line, refuse, say
from layerwise import agreement, comparison, imported, sizes, stages
from layerwise.agreement import Agreement, Difference, Place, Value
from layerwise.study import Study
from tasks.scratch import own_place

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from layerwise.datasets import Data
    from layerwise.stages import Depth
    from tasks.tracking.tracked import SeedRun, Tracked

REPRODUCED = "layerwise.reproduced"
"""The tag of a study run that holds the verdict of its latest reproduction; longer ones say when and where."""

RECORDS = "reproductions"
"""The folder of artifacts that keeps a record of every reproduction."""

NOTHING_TRACKED = (
    "nothing is tracked here: there is no {}; go to the folder of your runs, or name it in LAYERWISE_ROOT."
)

MOST_DIFFERENCES = 1000
"""Differences in a record; the first ones tell what there is to tell."""


@dataclass(frozen=True)
class Allowed:
    """What the user says of a reproduction, who alone can know.

    Attributes:
        data: files to take for those that the study names, in its order.
        code: functions that may be called although they are not in the working directory.
        other_code: whether to go on where the code is another than the run's.
    """

    data: tuple[Path, ...] = ()
    code: tuple[str, ...] = ()
    other_code: bool = False


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction found.

    Attributes:
        agreement: how it compares with what is tracked.
        stages: how many stages' content was compared.
        networks: how many models' weights were compared.
        unlike: versions and machine, where they are not those of the run.
        faults: what of the run is not as it was published, in words; a computation cannot tell.
        seconds: how long it took.
    """

    agreement: Agreement
    stages: int
    networks: int
    unlike: tuple[str, ...]
    faults: tuple[str, ...]
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the run is what a computation gives, and all of it is still there."""
        return self.agreement.verdict != "DIFFERENT" and not self.faults

    @property
    def counts(self) -> str:
        """What was compared, and how much of it has not the same bits."""
        scores, differing = self.agreement.compared["scores"], self.agreement.differences
        if not differing:
            return f"{scores:,} scores and outcomes, {self.networks:,} models and {self.stages:,} stages, all equal"
        digests = sum(found.is_digest for found in differing)
        return (
            f"{len(differing) - digests:,} of {scores:,} scores and outcomes and {digests:,} of"
            f" {self.networks:,} models and {self.stages:,} stages are not equal to the bit"
        )


def reproduce_command(said: str, allowed: Allowed, root: Path) -> int:
    """Compute a tracked run again and compare. Returns the exit status.

    Args:
        said: the run, as :func:`tasks.tracking.tracked.find_study_run` takes it.
        allowed: what only the user can know.
        root: where runs are tracked.

    Raises:
        StudyError: if the run's data or code differ here, or cannot be had.
    """
    console = Terminal()
    # It warns of every shape that it compiles a program for; a study has several.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        client, tracked = _tracked(said, root)
        with own_place():
            return _reproduce(client, tracked, allowed, console)
    except Unanswered as problem:
        return refuse(str(problem), problem.status)


def _tracked(said: str, root: Path) -> tuple[MlflowClient, Tracked]:
    """The run that is meant, if it is one that was finished."""
    from tasks.tracking.store import TrackingError, WrongRequest, failures_in_one_line, file_of, is_new, open_store

    if is_new(root):
        raise Unanswered(NOTHING_TRACKED.format(file_of(root)), WRONG_REQUEST)
    environment.prepare(root)
    try:
        from tasks.tracking.tracked import find_study_run, read_tracked

        client = open_store(root)
        with failures_in_one_line(f"reading run {said}", client.tracking_uri):
            run = find_study_run(client, said)
            tracked = read_tracked(client, run) if run.info.status == "FINISHED" else None
        if tracked is None:
            name = run.data.tags.get("layerwise.study", said)
            raise WrongRequest(
                f"run {run.info.run_id} of {name} is {run.info.status}, so not all of it is tracked;"
                f" finish it with `layerwise run`, and reproduce it then."
            )
        return client, tracked
    except TrackingError as error:
        raise unusable(error) from None


def _reproduce(client: MlflowClient, tracked: Tracked, allowed: Allowed, console: Console) -> int:
    from flows import origins
    from tasks.tracking.store import TrackingError

    tags = tracked.run.data.tags
    if not allowed.other_code:
        origins.check_code(tags)
    imported.tell(lambda line: say(line, console))
    study, data = origins.study_of(tracked, allowed)
    sizes.refuse_oversize(study)
    for path in sorted(study.functions):
        imported.announce(path)
    say(f"Reproducing {tracked.name}, run {tracked.run.info.run_id}, of {_day(tracked)}.", console)
    for line in (unlike := tuple(origins.unlike(tags))):
        say(f"Not as it was: {line}.", console)
    try:
        faults = _faults(client, tracked)
        _refuse_lost_runs(tracked, faults)
        if faults:
            say(f"Not as it was published: {'; '.join(faults)}. `layerwise run` of its study mends that.", console)
        with progress.shown(console):
            found = _compared(client, tracked, study, data, unlike=unlike, faults=faults)
        _print(found, console)
        _write_back(client, tracked, found)
    except TrackingError as error:
        return refuse(str(error), FAILED)
    return DONE if found.is_good else FAILED


def _faults(client: MlflowClient, tracked: Tracked) -> tuple[str, ...]:
    """What of a run is lost or changed since: what is compared are digests, and the files may no longer be theirs."""
    from tasks.tracking.held import in_words
    from tasks.tracking.manifest import check_tree
    from tasks.tracking.store import failures_in_one_line, taken_as_ours

    run_id = tracked.run.info.run_id
    with failures_in_one_line(f"reading run {run_id}", client.tracking_uri), taken_as_ours(f"what run {run_id} holds"):
        return in_words(check_tree(client, tracked.run))


def _refuse_lost_runs(tracked: Tracked, faults: tuple[str, ...]) -> None:
    """Without the run of an arm or a seed there is nothing to compare with; what was never there is no difference."""
    if lost := [words for words in faults if re.match(r"\d+ runs? missing ", words)]:
        raise Unanswered(
            f"{tracked.name} is not as it was published: {lost[0]}; run its study again, which makes it whole, and"
            " reproduce it then.",
            FAILED,
        )


def _compared(
    client: MlflowClient,
    tracked: Tracked,
    study: Study,
    data: Data,
    *,
    unlike: tuple[str, ...],
    faults: tuple[str, ...],
) -> Reproduction:
    from layerwise import datasets, pretraining
    from tasks.tracking.tracked import read_seed_runs

    began = time.monotonic()
    before = tracked_values(tracked, read_seed_runs(client, tracked.run))
    datasets.check_seeds(study, data)
    pretraining.check_functions(study)
    try:
        now = _computed_values(study, data, tracked)
    except Exception as error:
        raise Unanswered(f"{tracked.name}: computing it again failed: {in_one_line(error)}.", FAILED) from error
    networks, num_stages = (sum(place.name == name for place in now) for name in ("weights", "content"))
    seconds = time.monotonic() - began
    return Reproduction(agreement.compare(before, now), num_stages, networks, unlike, faults, seconds)


def _print(found: Reproduction, console: Console) -> None:
    agreed = found.agreement
    say(f"{agreed.verdict} ({agreement.LEVELS[agreed.verdict]}): {found.counts}.", console)
    if agreed.verdict == "WITHIN TOLERANCE":
        say(f"Within tolerance means: {agreement.TOLERANCE}.", console)
    for words, first in _firsts(agreed).items():
        say(f"{words}: {first}.", console)
    if agreed.verdict == "DIFFERENT" and found.unlike:
        say("The same bits are promised on the same type of machine with the same versions alone.", console)


def _firsts(agreed: Agreement) -> dict[str, Difference]:
    """The first difference by stage, the first in a score, and the first beyond tolerance, where these are others."""
    found = {
        "First difference": agreed.first(),
        "First score that differs": agreed.first(digests=False),
        "First beyond tolerance": agreed.first(tolerable=False),
    }
    kept: dict[str, Difference] = {}
    for words, first in found.items():
        if first is not None and first not in kept.values():
            kept[words] = first
    return kept


def _write_back(client: MlflowClient, tracked: Tracked, found: Reproduction) -> None:
    """Add the verdict to the run: a record that stays, and tags that say what the latest one says."""
    from tasks.provenance import provenance
    from tasks.tracking.tracked import append_record

    here, now, agreed = provenance(), datetime.now(UTC), found.agreement
    record = {
        "verdict": agreed.verdict,
        "level": agreement.LEVELS[agreed.verdict],
        "tolerance": agreement.TOLERANCE,
        "at": now.isoformat(timespec="seconds"),
        "seconds": round(found.seconds, 1),
        "compared": {**agreed.compared, "models": found.networks, "stages": found.stages},
        "differing": len(agreed.differences),
        "unlike": list(found.unlike),
        "not_as_published": list(found.faults),
        "differences": [_plain(one) for one in agreed.differences[:MOST_DIFFERENCES]],
        "made_by": here,
    }
    latest = {
        "": agreed.verdict,
        "_at": record["at"],
        "_machine": here.get("layerwise.machine", ""),
        "_commit": here.get("layerwise.git_commit", ""),
        "_counts": "; not as it was published: ".join([found.counts, *found.faults[:1]]),
    }
    append_record(
        client,
        tracked.run,
        f"{RECORDS}/{now:%Y%m%dT%H%M%S.%fZ}.json",
        json.dumps(record, indent=1),
        {f"{REPRODUCED}{name}": value for name, value in latest.items()},
    )


def _plain(one: Difference) -> dict[str, Any]:
    """A difference as plain JSON; its values as text, for JSON has no word for some."""
    return {**dataclasses.asdict(one.place), "before": str(one.before), "now": str(one.now), "tolerable": one.tolerable}


def _day(tracked: Tracked) -> str:
    return f"{datetime.fromtimestamp(tracked.run.info.start_time / 1000, UTC):%Y-%m-%d}"


# --- values by place ---------------------------------------------------------------------------------------


def tracked_values(tracked: Tracked, runs: Mapping[tuple[str, int], SeedRun]) -> dict[Place, Value]:
    """All that the tracker holds of a run and that a computation can be compared with.

    Encoders are left out: they were made of the run's models afterwards, and a computation makes none.
    """
    from tasks.encoding import SUFFIX

    found: dict[Place, Value] = {}
    if tracked.stages is not None:
        found |= _stage_values(tracked.stages.to_dict("records"))
    for (arm, seed), run in runs.items():
        found |= {Place(arm, seed, seed, "scores", depth, name): value for (name, depth), value in run.scores.items()}
        found |= {
            Place(arm, seed, seed, name, depth, "weights"): value
            for (name, depth), value in run.weights.items()
            if not name.endswith(SUFFIX)
        }
    for row in tracked.metrics.to_dict("records"):
        found |= _row_values(row)
    return found


def _computed_values(study: Study, data: Data, tracked: Tracked) -> dict[Place, Value]:
    """The same of a computation with nothing but the data."""
    from layerwise import answers
    from layerwise.growing import as_grown
    from layerwise.ledger import Ledger
    from tasks.tracking.tags import REPEAT, SEEDS, arms_and_seeds

    tags, ledger = tracked.run.data.tags, Ledger(answers.Memory())
    seeds = arms_and_seeds(tags)[1] if SEEDS in tags else study.seeds
    grown = as_grown(study, tracked.metrics)
    bar = progress.begin("reproducing", _num_depths(grown, data, seeds), "depths")
    found: dict[Place, Value] = {}
    begun = 0
    for depth in answers.depths(study, data, steps=ledger, repeat=tags.get(REPEAT, "")):
        if tracked.stages is not None:
            found |= _stage_values(ledger.rows[begun:])
            begun = len(ledger.rows)
        found |= _depth_values(study, data, depth)
        bar.advance(depth.place)
    return found


def _num_depths(study: Study, data: Data, seeds: int) -> int:
    """How many depths of how many blocks so many seeds take."""
    every = (block for arm in study.arms for block in stages.blocks(study, arm, data.digest))
    return sum(len(block.procedure.depths) for block in every if block.seeds[0] < seeds)


def _stage_values(rows: Iterable[Mapping[Any, Any]]) -> dict[Place, Value]:
    """What stages left, by the rows of a ledger."""
    found: dict[Place, Value] = {}
    for row in rows:
        stage = row["stage"] if row["turn"] == 1 else f"{row['stage']} {row['turn']}"
        place = Place(row["arm"], row["first_seed"], row["last_seed"], stage, row["depth"], "content")
        found[place] = row["content"]
    return found


def _depth_values(study: Study, data: Data, depth: Depth) -> dict[Place, Value]:
    """What is tracked of a depth: scores and weights of its seeds, and their rows of the table of all scores."""
    from tasks import content

    found: dict[Place, Value] = {}
    arm, number = depth.block.arm, depth.depth
    for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
        for point in content.points(depth, position):
            if math.isfinite(point.value):  # others are not sent
                found[Place(arm, seed, seed, "scores", number, point.key)] = point.value
        for kept in content.networks(depth, position, data, study.track.models):
            found[Place(arm, seed, seed, kept.network.name, number, "weights")] = kept.digest
    for row in depth.records():
        found |= _row_values(row)
    return found


def _row_values(row: Mapping[Any, Any]) -> dict[Place, Value]:
    """A row of the table of all scores; what an arm or a diverged seed does not have is no value."""
    from tasks.tracking.tracked import SCORES

    arm, seed, depth = str(row["arm"]), int(row["seed"]), int(row["depth"])
    return {
        Place(arm, seed, seed, SCORES, depth, name): value
        for name, value in row.items()
        if name not in comparison.PLACES and value == value  # noqa: PLR0124 - NaN
    }
