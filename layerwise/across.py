"""Runs side by side: the same arm in two runs, paired by the seeds that they share, and what was asked differently.

Like :mod:`layerwise.comparison`, this describes: nothing here was claimed before the runs were trained, so its p-values
are adjusted over all that is shown, and still say less than those of a claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.comparison import PARTS, Difference, differences, finished
from layerwise.study import StudyError

DIVISION = ("data.split.", "data.shuffle", "data.fresh", "data.task")
"""Settings that decide which rows a seed trains on and is tested on, by how they begin."""


@dataclass(frozen=True)
class RunScores:
    """A run, as it is compared.

    Attributes:
        name: what it is called.
        run_id: the run's identity.
        settings: arm -> setting -> value, all that decides what the arm trains.
        metrics: one row per arm, seed and depth.
        data_digest: digest of its data.
        tags: its provenance: versions, machine, commit; by name.
    """

    name: str
    run_id: str
    settings: Mapping[str, Mapping[str, str]]
    metrics: pd.DataFrame
    data_digest: str
    tags: Mapping[str, str]

    def label(self, arm: str) -> str:
        """What one of its arms is called beside those of other runs."""
        return self.name if self.name.endswith(f"/{arm}") else f"{self.name}/{arm}"


@dataclass(frozen=True)
class Across:
    """What sets runs apart from the first of them.

    Attributes:
        runs: the runs; every other is compared with the first.
        score: what answers them: ``"accuracy"`` or ``"r2"``.
        differences: other run minus first run, for each arm, part and depth that they share.
        adjusted: the sign-flip p-values of the differences on the test part after Holm over all of these, in their
            order.
        seeds: for each other run, how many seeds it shares with the first.
        arms_apart: ``(run, arms)`` that stand in that run alone.
        settings: ``(arm, arm of the first run, setting, value, value in the first run)`` where they do not agree.
        circumstances: ``(what, value in each run)``, versions, machine and commit, where they do not agree.
    """

    runs: tuple[RunScores, ...]
    score: str
    differences: tuple[Difference, ...]
    adjusted: tuple[float, ...]
    seeds: tuple[int, ...]
    arms_apart: tuple[tuple[str, tuple[str, ...]], ...]
    settings: tuple[tuple[str, str, str, str, str], ...]
    circumstances: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def tested(self) -> tuple[Difference, ...]:
        """The differences on the test part, which the adjusted p-values belong to."""
        return tuple(one for one in self.differences if one.metric == f"test_{self.score}")


def compare_runs(runs: Sequence[RunScores]) -> Across:
    """Compare every other run with the first, arm by arm and depth by depth, paired by seed.

    Arms go together by name; where two runs have one arm each, those do, whatever they are called.

    Args:
        runs: two or more.

    Raises:
        StudyError: if there are fewer than two, or one twice; if their data or the division of these differ; if a run
            shares no arm or no seed with the first. One line each.
    """
    _check_distinct(runs)
    first, *others = runs
    found: list[Difference] = []
    for other in others:
        _check_comparable(first, other)
        found += _between(other, first)
    score = statistics.main_score(first.metrics)
    tests = np.array([one.sign_flip_p for one in found if one.metric == f"test_{score}"])
    return Across(
        runs=tuple(runs),
        score=score,
        differences=tuple(found),
        adjusted=tuple(float(p) for p in _holm(tests)),
        seeds=tuple(len(_seeds(other) & _seeds(first)) for other in others),
        arms_apart=tuple(_arms_apart(runs)),
        settings=tuple(one for other in others for one in _settings_apart(other, first)),
        circumstances=tuple(_unequal([run.tags for run in runs])),
    )


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Holm over the tests that could be made; NaN stays NaN."""
    known, adjusted = ~np.isnan(p_values), np.full(len(p_values), np.nan)
    if known.any():
        adjusted[known] = statistics.holm(p_values[known])
    return adjusted


def _check_distinct(runs: Sequence[RunScores]) -> None:
    if len(runs) < 2:
        raise StudyError(f"received {len(runs)} run; comparing takes two or more: name another one")
    held = [(run.run_id, arm) for run in runs for arm in _arms(run)]
    twice = next((place for place in held if held.count(place) > 1), None)
    if twice:
        name = next(run.name for run in runs if run.run_id == twice[0])
        raise StudyError(f"received {name} twice; name runs, or arms of one, that differ")


def _check_comparable(first: RunScores, other: RunScores) -> None:
    if other.data_digest != first.data_digest:
        raise StudyError(
            f"{other.name} has other data than {first.name} ({other.data_digest or 'none'} and"
            f" {first.data_digest or 'none'}); scores on different rows cannot be paired: name runs on the same data"
        )
    if not _pairs(other, first):
        raise StudyError(
            f"{other.name} shares no arm with {first.name} ({', '.join(_arms(other))} and {', '.join(_arms(first))});"
            f" name runs that have an arm in common, or one arm of each, as in {_example(first)} {_example(other)}"
        )
    _check_division(first, other)
    if not _seeds(other) & _seeds(first):
        raise StudyError(
            f"{other.name} shares no seed with {first.name}; they are paired by seed: name runs with common seeds"
        )


def _labels_alike(other: RunScores, first: RunScores, arm: str, of_first: str) -> bool:
    """Whether two arms train on the same labelled rows, so that their training scores can be paired."""
    keys = ("labels", "data.labels")
    there, here = other.settings.get(arm, {}), first.settings.get(of_first, {})
    return [there.get(key) for key in keys] == [here.get(key) for key in keys]


def _check_division(first: RunScores, other: RunScores) -> None:
    for _, _, key, there, here in _settings_apart(other, first):
        if key.startswith(DIVISION):
            raise StudyError(
                f"{other.name} divides its data otherwise than {first.name} ({key}: {there} and {here}); scores on"
                " different rows cannot be paired: name runs with the same division"
            )


def _between(other: RunScores, first: RunScores) -> Iterator[Difference]:
    left = {run.name: finished(run.metrics) for run in (other, first)}
    score = statistics.main_score(first.metrics)
    for arm, of_first in _pairs(other, first):
        one = left[other.name][left[other.name]["arm"] == arm]
        two = left[first.name][left[first.name]["arm"] == of_first]
        parts = PARTS if _labels_alike(other, first, arm, of_first) else [part for part in PARTS if part != "train"]
        for part in parts:
            metric = f"{part}_{score}"
            if metric in one and metric in two:
                names = (other.label(arm), first.label(of_first))
                yield from differences(one, two, metric, names=names)


def _example(run: RunScores) -> str:
    return run.label(_arms(run)[0])


def _pairs(other: RunScores, first: RunScores) -> list[tuple[str, str]]:
    """Which arm of the one goes with which of the other."""
    here, there = _arms(other), _arms(first)
    shared = [(arm, arm) for arm in here if arm in there]
    return shared or ([(here[0], there[0])] if len(here) == len(there) == 1 else [])


def _arms(run: RunScores) -> list[str]:
    return [str(arm) for arm in run.metrics["arm"].unique()]


def _seeds(run: RunScores) -> set[int]:
    return set(run.metrics["seed"].astype(int))


def _arms_apart(runs: Sequence[RunScores]) -> Iterator[tuple[str, tuple[str, ...]]]:
    first, *others = runs
    paired = [(other, _pairs(other, first)) for other in others]
    for other, pairs in paired:
        apart = tuple(arm for arm in _arms(other) if arm not in {arm for arm, _ in pairs})
        if apart:
            yield other.name, apart
    used = {arm for _, pairs in paired for _, arm in pairs}
    apart = tuple(arm for arm in _arms(first) if arm not in used)
    if apart:
        yield first.name, apart


def _settings_apart(other: RunScores, first: RunScores) -> Iterator[tuple[str, str, str, str, str]]:
    for arm, of_first in _pairs(other, first):
        for key, (there, here) in _unequal([other.settings.get(arm, {}), first.settings.get(of_first, {})]):
            yield other.label(arm), first.label(of_first), key, there, here


def _unequal(values: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in dict.fromkeys(key for one in values for key in one):
        found = tuple(one.get(key, "-") for one in values)
        if len(set(found)) > 1:
            yield key, found
