"""What the pages of MLflow and Prefect say about a study of several arms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from layerwise import statistics
from layerwise.study import Study
from tasks import notes
from tasks.tracking.runs import RunTree
from tests.studies import small

TREE = RunTree("7", "key", "study-id", {"tuned": "tuned-id", "plain": "plain-id", "scratch": "scratch-id"}, {})


@pytest.fixture
def asked() -> Study:
    encoder = {"objective": "reconstruction"}
    tuned = {**encoder, "fine_tune": {"epochs": 2}}
    return small(depth=2, seeds=3, question="Which?", arms={"tuned": tuned, "plain": encoder, "scratch": "scratch"})


@pytest.fixture
def metrics() -> pd.DataFrame:
    """Every score is .5; all seeds of plain have collapsed, and tuned alone is fine-tuned, at depth 2."""
    rows = [("tuned", 1), ("tuned", 2), ("plain", 1), ("plain", 2), ("scratch", 2)]
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "depth": depth,
            "diverged": False,
            "collapsed": arm == "plain",
            "train_accuracy": 0.5,
            "test_accuracy": 0.5,
            "fine_tuned_diverged": False,
            "fine_tuned_collapsed": False,
            "fine_tuned_test_accuracy": 0.75 if (arm, depth) == ("tuned", 2) else np.nan,
        }
        for arm, depth in rows
        for seed in range(3)
    )


def rows(note: str) -> dict[str, list[str]]:
    """The table of a note: arm and depth -> the cells of its scores."""
    lines = [line.strip("| ").split(" | ") for line in note.splitlines() if line.startswith("| ")]
    return {" ".join(line[:2]): line[5:] for line in lines}


def test_each_arm_answers_in_a_line_of_its_own(asked: Study, metrics: pd.DataFrame) -> None:
    """The answers of several arms are a list; that of one arm is a sentence."""
    table = statistics.summarise(metrics)
    said = notes.study_note(asked, TREE, metrics, table)
    assert said.startswith("**Question.** Which?\n\n**Answer.**\n\n- tuned: from depth 1 to 2, ")
    assert "\n- plain: no seed is intact" in said
    assert "\n- scratch: at depth 2" in said
    own = notes.answer_note(asked, metrics[metrics["arm"] == "tuned"], table)
    assert "**Answer.** tuned: from depth 1 to 2, " in own


def test_a_note_says_which_depths_an_arm_has(asked: Study, metrics: pd.DataFrame) -> None:
    """Arms of the same depths are named together, and the note of an arm says its own."""
    table = statistics.summarise(metrics)
    assert "**Trained.** 3 seeds an arm; tuned, plain: depth 1 to 2; scratch: depth 2." in notes.answer_note(
        asked, metrics, table
    )
    assert "**Trained.** 3 seeds, depth 2. " in notes.arm_note(asked, "scratch", TREE, metrics, table)


def test_a_note_s_table_has_the_scores_that_there_are(asked: Study, metrics: pd.DataFrame) -> None:
    """Fine-tuned scores have columns where an arm has them; where no seed is intact, the median stands for the mean."""
    table = statistics.summarise(metrics)
    mean, median = "0.5000 (0.5000 to 0.5000)", "median 0.5000"
    shown = rows(notes.study_note(asked, TREE, metrics, table))
    assert shown["arm depth"] == ["train accuracy", "test accuracy", "tuned, test"]
    assert shown["tuned 1"] == [mean, mean, "-"]
    assert shown["tuned 2"] == [mean, mean, "0.7500 (0.7500 to 0.7500)"]
    assert shown["plain 2"] == [median, median, "-"]
    assert rows(notes.arm_note(asked, "plain", TREE, metrics, table)) == {
        "arm depth": ["train accuracy", "test accuracy"],
        "plain 1": [median, median],
        "plain 2": [median, median],
    }


def test_a_note_leads_to_the_arms(asked: Study, metrics: pd.DataFrame) -> None:
    """The study's note links the page that overlays the arms, and the run of each."""
    said = notes.study_note(asked, TREE, metrics, statistics.summarise(metrics))
    assert "[The runs page](#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART&" in said
    for arm, run_id in TREE.arm_run_ids.items():
        assert f"[{arm}](#/experiments/7/runs/{run_id})" in said
