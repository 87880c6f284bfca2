"""What a store holds of a finished study's runs, compared with what was published; however it was read.

What people add to runs later is theirs and is no fault. Nothing here loads MLflow.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from tasks.bounded import read_below
from tasks.tracking.folders import DIGITS, ModelFolder
from tasks.tracking.tags import ARTIFACT, DIGEST, FILES, REPEAT, STUDY, STUDY_RUN, Identity, arms_and_seeds

MANIFEST = "manifest.json"
"""The artifact of the study run that says what its runs hold."""

Kind = Literal["run", "metric", "model", "file"]
State = Literal["missing", "changed", "doubled", "open"]
Series = Mapping[int, float]
"""A metric: step -> value."""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was published.

    Attributes:
        run: the run, in words.
        run_id: its id; none where there is no such run.
        kind: what it is.
        state: how it is found: missing, changed, a metric with two points at a step, or a run that is not FINISHED.
        what: the metric, model or file; empty where it is the run itself.
    """

    run: str
    run_id: str | None
    kind: Kind
    state: State
    what: str = ""

    def __str__(self) -> str:
        return f"{self.run}: {self.what}" if self.what else self.run


@dataclass(frozen=True)
class HeldModel:
    """A model as a store has it.

    Attributes:
        model_id: its id.
        name: as in ``depth-01``.
        ready: whether it is whole, as the store says.
        is_output: whether its run says that it made it.
        location: of its files, a URI.
        folder: the same on this machine's disk; None where only a server reaches it.
        tags: of the model.
        points: metric, step and value of what is linked to it.
    """

    model_id: str
    name: str
    ready: bool
    is_output: bool
    location: str
    folder: Path | None
    tags: Mapping[str, str]
    points: Sequence[tuple[str, int, float]]

    def damaged_files(self, run_id: str) -> list[str]:
        """Files that are missing or not as they were published, by relative path; none where nobody can tell."""
        if self.folder is None:
            return []
        try:
            listed = dict(json.loads(self.tags.get(FILES, "")))
        except (TypeError, ValueError):  # whatever the files are like, nothing vouches for them
            return ["MLmodel"]
        content = {path: held for path in listed if (held := read_below(self.folder, path)) is not None}
        found = ModelFolder.of_named(content, model_id=self.model_id, run_id=run_id, location=self.location).digests()
        return sorted(path for path, digest in listed.items() if found.get(path) != digest)


@dataclass(frozen=True)
class Held:
    """A run as a store has it.

    Attributes:
        who: what it is within its tree.
        run_id: its id.
        folder: of its artifacts, on this machine's disk; None where only a server reaches them.
        tags: of the run.
        latest: metric -> the value that tables and searches see.
        points: metric -> step and value of every point, twice where there are two.
        models: name -> model; of several of one name the newest.
    """

    who: Identity
    run_id: str
    folder: Path | None
    tags: Mapping[str, str]
    latest: Mapping[str, float]
    points: Mapping[str, Sequence[tuple[int, float]]]
    models: Mapping[str, HeldModel]

    def faults(self, entry: Mapping[str, Any], *, files: bool = True) -> Iterator[Fault]:
        """What is not as the manifest's entry of this run says.

        Args:
            entry: of the manifest.
            files: whether the files of models and artifacts are read, too.
        """
        held: dict[str, Series] = {}
        for name, (steps, digest) in entry["metrics"].items():
            held[name] = series = dict(self.points.get(name, ()))
            if not set(steps) <= set(series):
                yield self._fault("metric", "missing", name)
            elif digest_of({step: series[step] for step in steps}) != digest or not self._latest_is(name, series):
                yield self._fault("metric", "changed", name)
            elif len([step for step, _ in self.points[name] if step in steps]) > len(steps):
                yield self._fault("metric", "doubled", name)
        for name, listed in entry["models"].items():
            yield from self._faults_of_model(name, tuple(listed), held, files=files)
        for path in entry["artifacts"] if files else ():
            yield from self._faults_of_artifact(path)

    def _latest_is(self, name: str, series: Series) -> bool:
        """Whether the value that tables and searches see is that of the last step."""
        return self.latest[name] == series[max(series)]

    def _faults_of_model(
        self, name: str, listed: tuple[str, int], held: Mapping[str, Series], *, files: bool
    ) -> Iterator[Fault]:
        model = self.models.get(name)
        if model is None or not model.ready:
            yield self._fault("model", "missing", name)
            return
        linked = [point for point in model.points if point[0] in held]
        same = all(held[metric].get(step) == value for metric, step, value in linked)
        if not same or not model.is_output or (model.tags.get(DIGEST), len(linked)) != listed:
            yield self._fault("model", "changed", name)
        for path in model.damaged_files(self.run_id) if files else ():
            yield self._fault("file", "changed", f"{name}/{path}")

    def _faults_of_artifact(self, path: str) -> Iterator[Fault]:
        if self.folder is None:
            return
        content = read_below(self.folder, path)
        if content is None:
            yield self._fault("file", "missing", path)
        elif hashlib.sha256(content).hexdigest() != self.tags.get(ARTIFACT + path):
            yield self._fault("file", "changed", path)

    def _fault(self, kind: Kind, state: State, what: str) -> Fault:
        return Fault(name_of(self.who), self.run_id, kind, state, what)


@dataclass(frozen=True)
class Finished:
    """A study whose run says that it is finished.

    Attributes:
        run_id: of the study's run.
        tags: of the same.
    """

    run_id: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """As people name it: the study, and its repeat where it is one."""
        return ":".join(filter(None, (self.tags.get(STUDY, self.run_id), self.tags.get(REPEAT, ""))))

    @property
    def num_runs(self) -> int:
        """How many runs it has, its own among them.

        Raises:
            TrackingError: if its tags say what no study can.
        """
        arms, seeds = arms_and_seeds(self.tags)
        return 1 + len(arms) * (1 + seeds)

    @property
    def mends(self) -> str:
        """The command that publishes again what was lost of it."""
        repeat = self.tags.get(REPEAT, "")
        return shlex.join(["layerwise", "run", self.tags.get(STUDY, ""), *(["--repeat", repeat] if repeat else [])])


@dataclass(frozen=True)
class Verified:
    """What was found of the finished studies of a store.

    Attributes:
        num_studies: how many there are.
        num_runs: how many runs they have.
        num_verified: how many of these were compared with what was published.
        complete: whether there was time for all.
        faults: studies that are not as they were published, the newest first.
        unreached: whether files lie where only a server reaches them, so that they were not read.
    """

    num_studies: int
    num_runs: int
    num_verified: int
    complete: bool
    faults: Sequence[tuple[Finished, Sequence[Fault]]]
    unreached: bool


def faults_of_runs(tags: Mapping[str, str], runs: Mapping[Identity, tuple[str, str]]) -> Iterator[Fault]:
    """Runs of a finished study that are not there, or not FINISHED.

    Args:
        tags: of the study's run, which say which runs there are to be.
        runs: id and status of those that are there.
    """
    for who in _expected(tags):
        if who not in runs:
            yield Fault(name_of(who), None, "run", "missing")
    for who, (run_id, status) in runs.items():
        if status != "FINISHED":
            yield Fault(name_of(who), run_id, "run", "open")


def entries_of(manifest: bytes | None, study_run_id: str) -> tuple[dict[str, Any], list[Fault]]:
    """What a manifest says of each run, by :func:`key_of`; where there is none that is the fault.

    Args:
        manifest: its content; None where it is not there, or not as it was published.
        study_run_id: whose artifact it is.
    """
    listed = {} if manifest is None else json.loads(manifest)["runs"]
    return listed, [] if listed else [Fault(name_of(STUDY_RUN), study_run_id, "file", "missing", MANIFEST)]


def in_words(faults: Iterable[Fault]) -> tuple[str, ...]:
    """Faults by kind and state, with examples.

    Example:
        >>> in_words([Fault("greedy seed 3", "1d1d", "metric", "changed", "test_loss")])
        ('1 metric changed (greedy seed 3: test_loss)',)
    """
    ordered = sorted(faults, key=lambda one: (one.kind, one.state))
    return tuple(
        f"{len(same)} {kind if len(same) == 1 else f'{kind}s'} {state} ({_some([str(one) for one in same])})"
        for (kind, state), group in groupby(ordered, key=lambda one: (one.kind, one.state))
        for same in [list(group)]
    )


def digest_of(series: Series) -> str:
    """Of steps and values to the bit."""
    text = " ".join(f"{step} {float(series[step]).hex()}" for step in sorted(series))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def key_of(who: Identity) -> str:
    """How a manifest calls a run."""
    return "/".join(filter(None, who))


def name_of(who: Identity) -> str:
    """How people call a run."""
    kind, arm, seed = who
    return f"{arm} seed {seed}" if kind == "seed" else arm or kind


def _expected(tags: Mapping[str, str]) -> Iterator[Identity]:
    yield STUDY_RUN
    arms, seeds = arms_and_seeds(tags)
    for arm in arms:
        yield "arm", arm, ""
        for seed in range(seeds):
            yield "seed", arm, str(seed)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
