"""What the pages of MLflow and Prefect say about a study, in Markdown: its question, its answer, where to look."""

from __future__ import annotations

from typing import Any

import pandas as pd

from layerwise import statistics
from layerwise.study import Study
from tasks.tracking.runs import RunTree

MOST_ROWS = 40
"""Rows of the table in a note; a longer one shows the lowest and the highest depth of each arm."""


def study_note(study: Study, tree: RunTree, metrics: pd.DataFrame, table: pd.DataFrame) -> str:
    """The description of the study's run in MLflow."""
    arms = ", ".join(f"[{arm}]({_page(tree, run_id)})" for arm, run_id in tree.arm_run_ids.items())
    return _joined(
        answer_note(study, metrics, table),
        "### Where to look",
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
        f"**Answer.** {' '.join(statistics.in_words(own))}",
        f"**Trained.** {_trained(study)}. *Model metrics* has each score over the seeds that neither diverged nor"
        " collapsed, with the depth as step: mean, sd and 95 % limits; accuracy is a share of rows (0 to 1), loss is"
        f" cross-entropy in nats a row. The [study's run]({_page(tree, tree.study_run_id)}) compares all arms.",
        _markdown(table[table["arm"] == arm]),
    )


def answer_note(study: Study, metrics: pd.DataFrame, table: pd.DataFrame) -> str:
    """Question, answer and table of results: the flow run's artifact in Prefect."""
    return _joined(
        _question(study),
        f"**Answer.** {' '.join(statistics.in_words(metrics))}",
        f"**Trained.** {', '.join(study.arms)}: {_trained(study)}.",
        _markdown(table),
        "Accuracy is a share of rows (0 to 1): mean and 95 % interval over the seeds that neither diverged nor"
        " collapsed.",
    )


def _question(study: Study) -> str:
    return f"**Question.** {study.question}" if study.question else f"**Study.** {study.name}"


def _trained(study: Study) -> str:
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    depths = f"depth 1 to {study.depth}" if study.depth > 1 else "depth 1"
    return f"{seeds}, {depths}"


def _page(tree: RunTree, run_id: str) -> str:
    return f"#/experiments/{tree.experiment_id}/runs/{run_id}"


def _markdown(table: pd.DataFrame) -> str:
    """The results as a table, one row for each arm and depth."""
    ends = table["depth"].isin([table["depth"].min(), table["depth"].max()])
    shown = table if len(table) <= MOST_ROWS else table[ends]
    lines = [
        "| arm | depth | seeds | diverged | collapsed | train accuracy | test accuracy |",
        "|:--|--:|--:|--:|--:|:--|:--|",
    ]
    for row in shown.to_dict("records"):
        scores = " | ".join(_interval(row, f"{part}_accuracy") for part in ("train", "test"))
        counts = " | ".join(str(row[name]) for name in ("arm", "depth", "seeds", "diverged", "collapsed"))
        lines.append(f"| {counts} | {scores} |")
    return "\n".join(lines)


def _interval(row: dict[str, Any], name: str) -> str:
    mean, low, high = (row[f"{name}_{key}"] for key in ("mean", "ci_low", "ci_high"))
    if pd.isna(mean):
        return "-"
    return f"{mean:.4f}" if pd.isna(low) else f"{mean:.4f} ({low:.4f} to {high:.4f})"


def _joined(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)
