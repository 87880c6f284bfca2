"""What MLflow's pages say about a study, in Markdown: its question, its answer, where to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from layerwise import answers
from layerwise.selection import Chosen
from layerwise.study import DeclaredNetwork, Study
from layerwise.study.scores import LABELS
from tasks.tracking.answers import REPORT
from tasks.tracking.runs import RunTree
from tasks.tracking.views import arms_page

MOST_ROWS = 40
"""Rows of the table in a note; a longer one shows the lowest and the highest depth of each arm."""


def study_note(
    study: Study,
    tree: RunTree,
    metrics: pd.DataFrame,
    table: pd.DataFrame,
    registered: Chosen | DeclaredNetwork | None = None,
) -> str:
    """The description of the study's run in MLflow."""
    arms = ", ".join(f"[{arm}]({_page(tree, run_id)})" for arm, run_id in tree.arm_run_ids.items())
    return _joined(
        answer_note(study, metrics, table, registered),
        "### Where to look",
        f"- [The report]({_page(tree, tree.study_run_id)}/artifacts/{REPORT}) has all of it on one page: claims,"
        " figures, paired differences, time and memory, and how to make it again.\n"
        f"- [The runs page]({arms_page(tree.experiment_id)}) overlays the curves of all arms.\n"
        f"- Each arm has a run beside this one: {arms}. Its *Model metrics* are the means over seeds, with the depth"
        " as step; the runs of its seeds lie below it, and hold the Keras model of every depth.\n"
        "- *Artifacts* here: `figures/`, the full table `results.csv`, every score in `scores_by_seed.csv`, and"
        " `study.yaml`, the study with every setting spelled out.",
    )


def arm_note(study: Study, arm: str, tree: RunTree, metrics: pd.DataFrame, table: pd.DataFrame) -> str:
    """The description of an arm's run in MLflow."""
    own = metrics[metrics["arm"] == arm]
    return _joined(
        _question(study),
        f"**Answer.** {' '.join(answers.in_words(study, own))}",
        f"**Trained.** {_seeds(study, table)}, {_depths(study, arm)}. *Model metrics* has each score over the seeds"
        " that neither diverged nor collapsed, with the depth as step: mean, sd and 95 % limits; accuracy is a share of"
        " rows (0 to 1), loss is cross-entropy in nats a row. The"
        f" [study's run]({_page(tree, tree.study_run_id)}) compares all arms.",
        _markdown(table[table["arm"] == arm]),
    )


def answer_note(
    study: Study, metrics: pd.DataFrame, table: pd.DataFrame, registered: Chosen | DeclaredNetwork | None = None
) -> str:
    """Question, answer, what was chosen or declared, and table of results."""
    return _joined(
        _question(study),
        _answer(answers.in_words(study, metrics)),
        *_registered(registered),
        f"**Trained.** {_seeds(study, table)} an arm; {'; '.join(_arms_by_depths(study))}.",
        _markdown(table),
        "Accuracy is a share of rows (0 to 1): mean and 95 % interval over the seeds that neither diverged nor"
        " collapsed, or where there is none of these the median over all that did not diverge.",
    )


def _registered(found: Chosen | DeclaredNetwork | None) -> Iterator[str]:
    if found is not None:
        yield f"**{'Chosen on validation' if isinstance(found, Chosen) else 'Declared'}.** {found.place}."


def _question(study: Study) -> str:
    return f"**Question.** {study.question}" if study.question else f"**Study.** {study.name}"


def _answer(sentences: Sequence[str]) -> str:
    """One arm's answer is a sentence; those of several stand below one another."""
    if len(sentences) == 1:
        return f"**Answer.** {sentences[0]}"
    return "\n".join(["**Answer.**", "", *(f"- {sentence}" for sentence in sentences)])


def _seeds(study: Study, table: pd.DataFrame) -> str:
    """How many seeds there are; of a study that may stop early, out of how many."""
    seeds = int(table["seeds"].max())
    most = f" of at most {study.seeds}" if study.stop is not None else ""
    return f"{seeds} seed{'s' if seeds > 1 else ''}{most}"


def _depths(study: Study, arm: str) -> str:
    depths = study.procedure(arm).depths
    return f"depth {depths[0]} to {depths[-1]}" if len(depths) > 1 else f"depth {depths[0]}"


def _arms_by_depths(study: Study) -> Iterator[str]:
    """Which arms are scored at which depths, those of the same depths together."""
    by_depths: dict[str, list[str]] = {}
    for arm in study.arms:
        by_depths.setdefault(_depths(study, arm), []).append(arm)
    return (f"{', '.join(arms)}: {depths}" for depths, arms in by_depths.items())


def _page(tree: RunTree, run_id: str) -> str:
    return f"#/experiments/{tree.experiment_id}/runs/{run_id}"


def _markdown(table: pd.DataFrame) -> str:
    """The results as a table, one row for each arm and depth."""
    ends = table["depth"].isin([table["depth"].min(), table["depth"].max()])
    shown = table if len(table) <= MOST_ROWS else table[ends]
    scores = {name: label for name, label in LABELS.items() if _scored(table, name)}
    lines = [
        f"| arm | depth | seeds | diverged | collapsed | {' | '.join(scores.values())} |",
        f"|:--|--:|--:|--:|--:|{':--|' * len(scores)}",
    ]
    for row in shown.to_dict("records"):
        counts = " | ".join(str(row[name]) for name in ("arm", "depth", "seeds", "diverged", "collapsed"))
        lines.append(f"| {counts} | {' | '.join(_interval(row, name) for name in scores)} |")
    return "\n".join(lines)


def _scored(table: pd.DataFrame, name: str) -> bool:
    return f"{name}_median" in table and bool(table[f"{name}_median"].notna().any())


def _interval(row: dict[str, Any], name: str) -> str:
    mean, low, high, median = (row[f"{name}_{key}"] for key in ("mean", "ci_low", "ci_high", "median"))
    if pd.isna(mean):
        return "-" if pd.isna(median) else f"median {median:.4f}"
    return f"{mean:.4f}" if pd.isna(low) else f"{mean:.4f} ({low:.4f} to {high:.4f})"


def _joined(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)
