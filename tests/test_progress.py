"""What is said while a study trains: what is counted, what was found and what is trained, and the time left."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows import crew, environment, progress
from flows.survey import Survey
from layerwise import datasets, stages
from layerwise.growing import Growing
from tests.studies import small


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def said(clock: Clock, *steps: tuple[float, bool], total: int, terminal: bool = False) -> list[str]:
    """The lines of a phase of depths whose steps take so many seconds, and were found or not."""
    out = io.StringIO()
    with progress.shown(Console(file=out, width=200, force_terminal=terminal)):
        bar = progress.begin("training", total, "depths")
        for seconds, found in steps:
            clock.now += seconds
            bar.advance("greedy", found=found)
    return out.getvalue().splitlines()


def test_progress_says_what_it_counts_and_how_long_it_takes(clock: Clock):
    """A line has the phase, the depths done and to do, where it is, and the time gone and left."""
    assert said(clock, (6, False), (2, False), total=2) == [
        "training 1/2 depths  greedy  6 s, about 6 s left",
        "training 2/2 depths  greedy  8 s",
    ]


def test_nothing_is_said_to_train_where_all_was_stored(clock: Clock):
    """Where every depth was stored, progress reads them, and does not claim to train."""
    assert said(clock, (0, True), (0, True), total=2) == ["reading 2/2 depths, 2 stored before  greedy  0 s"]


def test_the_time_left_is_that_of_what_is_trained(clock: Clock):
    """Depths that were found stored are counted apart, and do not make those that train look short."""
    assert said(clock, *3 * [(0, True)], (10, False), (10, False), total=6) == [
        "training 4/6 depths, 3 stored before  greedy  10 s, about 20 s left",
        "training 5/6 depths, 3 stored before  greedy  20 s, about 10 s left",
    ]


def test_no_time_is_guessed_from_what_was_stored(clock: Clock):
    """As long as nothing was trained, nobody knows how long training takes."""
    assert said(clock, (6, True), total=2) == ["reading 1/2 depths, 1 stored before  greedy  6 s"]


def test_a_bar_says_what_a_line_says(clock: Clock):
    """On a terminal the bar has the same words."""
    lines = "\n".join(said(clock, (0, True), (7, False), total=3, terminal=True))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", lines)
    assert "training" in shown
    assert "2/3 depths, 1 stored before" in shown
    assert "about 7 s left" in shown


def test_what_was_stored_before_a_run_is_told_from_what_it_trains(root: Path):
    """A depth was there if all its stages and scores were; one of which anything is missing trains."""
    study = small(depth=3, seeds=2)
    data = datasets.generate(study.data)
    folder = environment.results_folder(root)
    folder.mkdir(parents=True)
    (block,) = stages.blocks(study, "greedy", data.digest)
    (_, groups), *_ = stages.rounds(study, data.digest)

    def trained() -> list[bool]:
        with crew.at_work(None, Growing(study), data) as here:
            ((_, depths),) = here.trained(groups, Survey(folder, data))
            return [here.new.isdisjoint(depth.digests) for depth in depths]

    assert trained() == [False, False, False]
    every = list(Growing(study).depths([block], data, steps=Survey(folder, data)))
    for depth in every[:2]:
        for digest in depth.digests:
            (folder / digest).touch()
    assert trained() == [True, True, False]
    (folder / every[0].chain[0].digest).unlink()
    assert trained() == [False, True, False]
