"""What MLflow's pages say about a study, in Markdown: its question, its answer, where to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from layerwise import answers, comparison, statistics
from layerwise.selection import Chosen
from layerwise.study import Study
from layerwise.study.scores import LABELS, is_tuned
from tasks.tracking.answers import REPORT
from tasks.tracking.runs import RunTree
from tasks.tracking.views import arms_page

MOST_ROWS = 40
"""Rows of the table in a note; a longer one shows the lowest and the highest depth of each arm."""


def study_note(
    study: Study, tree: RunTree, metrics: pd.DataFrame, table: pd.DataFrame, chosen: Chosen | None = None
) -> str:
    """The description of the study's run in MLflow."""
    arms = ", ".join(f"[{arm}]({_page(tree, run_id)})" for arm, run_id in tree.arm_run_ids.items())
    return _joined(
        answer_note(study, metrics, table, chosen),
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


def model_card(study: Study, tree: RunTree, chosen: Chosen, metrics: pd.DataFrame, *, data_digest: str) -> str:
    """The description of the registered version of the chosen network: what it is, and what its scores are worth."""
    return _joined(
        _question(study),
        _what_it_is(study, tree, chosen),
        _its_data(study, chosen.arm, data_digest),
        _how_chosen(study, chosen, metrics),
        _how_good(study, chosen, metrics),
    )


def _what_it_is(study: Study, tree: RunTree, chosen: Chosen) -> str:
    procedure, classes = study.procedure(chosen.arm), study.data.shape().classes
    layers = "-".join(layer.label for layer in procedure.layers[: chosen.depth])
    tuned = ", fine-tuned" if is_tuned(procedure, chosen.depth) else ""
    return (
        f"**What it is.** {f'A classifier of {classes} classes' if classes else 'A predictor of numbers'} with"
        f" {chosen.depth} hidden layer{'s' * (chosen.depth > 1)} ({layers}){tuned}: what the arm `{chosen.arm}` left at"
        f" depth {chosen.depth} with [seed {chosen.seed}]({_page(tree, tree.seed_run(chosen.arm, chosen.seed))})."
        f" [The study's run]({_page(tree, tree.study_run_id)}) has every score, and"
        f" [its report]({_page(tree, tree.study_run_id)}/artifacts/{REPORT}) the answer."
    )


def _its_data(study: Study, arm: str, digest: str) -> str:
    spec, shape, labels = study.data, study.data.shape(), study.procedure(arm).labels
    kept = f", of which {labels} keep their label" if labels else ""
    drawn = "; each seed draws its own" if spec.shuffle else ""
    return (
        f"**Data.** {spec.source}, {shape.features} features; {spec.split.train} training rows{kept},"
        f" {spec.split.validation} validation and {spec.split.test} test rows{drawn}. Digest `{digest}`."
    )


def _how_chosen(study: Study, chosen: Chosen, metrics: pd.DataFrame) -> str:
    score, choice = statistics.SCORE_NAMES[statistics.main_score(metrics)], chosen.choice
    depths = ", ".join(f"{one.arm} {one.depth}" for one in chosen.choices)
    mean = f"{choice.mean:.4f} (95 % interval over {chosen.intact} seeds: {choice.low:.4f} to {choice.high:.4f})"
    arms = (
        f" Of the arms at these depths the one with the best mean: {chosen.arm}," if len(study.arms) > 1 else " There"
    )
    return (
        "**How it was chosen.** By the validation part alone. Of each arm the smallest depth whose mean validation"
        f" {score} lies within one standard error of its best, paired by seed: {depths}.{arms} {mean}. Of these seeds"
        f" the best: seed {chosen.seed}, {chosen.score:.4f}. As the best of {chosen.intact} it is flattered by its own"
        " score; the mean says what the procedure gives."
    )


def _how_good(study: Study, chosen: Chosen, metrics: pd.DataFrame) -> str:
    name = f"test_{statistics.main_score(metrics)}"
    own = metrics[(metrics["arm"] == chosen.arm) & (metrics["depth"] == chosen.depth)]
    left = comparison.finished(own).set_index("seed")
    scores = left.loc[statistics.intact(left, name), name].astype(float)
    low, high = statistics.t_interval(scores.to_numpy())
    return (
        f"**Test.** Its test {statistics.SCORE_NAMES[statistics.main_score(metrics)]} is {scores[chosen.seed]:.4f} on"
        f" {study.data.split.test} rows; the mean over {len(scores)} seeds at this depth is {scores.mean():.4f} (95 %"
        f" interval {low:.4f} to {high:.4f}). Test scores chose nothing."
    )


def answer_note(study: Study, metrics: pd.DataFrame, table: pd.DataFrame, chosen: Chosen | None = None) -> str:
    """Question, answer, what was chosen, and table of results."""
    return _joined(
        _question(study),
        _answer(answers.in_words(study, metrics)),
        *([] if chosen is None else [f"**Chosen on validation.** {chosen.place}."]),
        f"**Trained.** {_seeds(study, table)} an arm; {'; '.join(_arms_by_depths(study))}.",
        _markdown(table),
        "Accuracy is a share of rows (0 to 1): mean and 95 % interval over the seeds that neither diverged nor"
        " collapsed, or where there is none of these the median over all that did not diverge.",
    )


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
