"""Model cards: what a registered version is, where it comes from, what its scores are worth, and what they do not say.

A card is the description of the version in MLflow, in Markdown. A run writes it from its study; whoever registers a
model afterwards, from what the tracker holds of the run, for which no data are read and no code is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from layerwise import comparison, statistics
from layerwise.selection import Chosen
from layerwise.study import DeclaredNetwork, Study
from layerwise.study.scores import is_tuned
from tasks.tracking.answers import REPORT
from tasks.tracking.runs import RunTree


@dataclass(frozen=True)
class Pages:
    """Where MLflow shows what a card speaks of.

    Attributes:
        seed: the run of the seed.
        study: the study's run.
    """

    seed: str
    study: str

    @classmethod
    def of(cls, experiment_id: str, seed_run: str, study_run: str) -> Pages:
        """Those of two runs of an experiment, as links on any page of the same server."""
        return cls(*(f"#/experiments/{experiment_id}/runs/{run_id}" for run_id in (seed_run, study_run)))


@dataclass(frozen=True)
class Subject:
    """What a card is of.

    Attributes:
        study: the study's name.
        question: what it asks.
        arm: the arm that left the network.
        depth: its number of hidden layers.
        seed: its seed.
        layers: its hidden layers, bottom up, in a word each.
        tuned: whether it was fine-tuned.
        data: the data set, as a study says it.
        labels: training rows that keep their label; all of them if ``None``.
        digest: of the data.
        pages: where to look.
        features: numbers a row that an encoder gives; 0 of a network that answers.
    """

    study: str
    question: str
    arm: str
    depth: int
    seed: int
    layers: tuple[str, ...]
    tuned: bool
    data: Mapping[str, Any]
    labels: int | None
    digest: str
    pages: Pages
    features: int = 0


def of_study(
    study: Study, tree: RunTree, found: Chosen | DeclaredNetwork, metrics: pd.DataFrame, *, data_digest: str
) -> str:
    """The card of the network that a run registers.

    Args:
        study: what was run.
        tree: its runs.
        found: the network.
        metrics: one row per arm, seed and depth.
        data_digest: digest of the data.
    """
    procedure = study.procedure(found.arm)
    subject = Subject(
        study.name,
        study.question,
        found.arm,
        found.depth,
        found.seed,
        layers=tuple(layer.label for layer in procedure.layers[: found.depth]),
        tuned=is_tuned(procedure, found.depth),
        data=study.data.canonical(),
        labels=procedure.labels,
        digest=data_digest,
        pages=Pages.of(tree.experiment_id, tree.seed_run(found.arm, found.seed), tree.study_run_id),
    )
    how = chosen(found, metrics, len(study.arms)) if isinstance(found, Chosen) else declared()
    return card(subject, metrics, how)


def card(subject: Subject, metrics: pd.DataFrame, how: str) -> str:
    """The card of a network, or of its encoder.

    Args:
        subject: what it is of.
        metrics: one row per arm, seed and depth.
        how: how it came to be this one.
    """
    told = [_what(subject, metrics), _data(subject), f"**How it was chosen.** {how}", _test(subject, metrics)]
    numbers = statistics.main_score(metrics) == "r2"
    return "\n\n".join([_lead(subject, metrics), _question(subject), *told, _limits(subject, numbers=numbers)])


def _lead(subject: Subject, metrics: pd.DataFrame) -> str:
    """A line without marks, for MLflow's table of versions, which shows the beginning as it stands."""
    kind = "Encoder" if subject.features else _answering(metrics).capitalize()
    return f"{kind}, {_count(subject.depth, 'hidden layer')}: {subject.arm}, seed {subject.seed}"


def _question(subject: Subject) -> str:
    return f"**Question.** {subject.question}" if subject.question else f"**Study.** {subject.study}"


def _what(subject: Subject, metrics: pd.DataFrame) -> str:
    layers = f"{_count(subject.depth, 'hidden layer')} ({'-'.join(subject.layers)})"
    tuned = ", fine-tuned" if subject.tuned else ""
    if subject.features:
        made = f"the features of the top one, {_count(subject.features, 'number')} a row"
        what = f"An encoder: {layers} of a {_answering(metrics)}{tuned}, without its output layer. It gives {made}. The"
        what += " network is"
    else:
        what = f"A {_answering(metrics)} with {layers}{tuned}:"
    return (
        f"**What it is.** {what} what the arm `{subject.arm}` left at depth {subject.depth} with"
        f" [seed {subject.seed}]({subject.pages.seed}). [The study's run]({subject.pages.study}) has every score, and"
        f" [its report]({subject.pages.study}/artifacts/{REPORT}) the answer."
    )


def _answering(metrics: pd.DataFrame) -> str:
    return "predictor of numbers" if statistics.main_score(metrics) == "r2" else "classifier"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def _data(subject: Subject) -> str:
    said, split = subject.data, subject.data["split"]
    parts = [f"{split['train']} training rows", *_kept_labels(subject)]
    if split.get("validation"):
        parts.append(f"{split['validation']} validation rows")
    drawn = "; each seed draws its own" if said.get("shuffle") else ""
    rows = f"{', '.join(parts)} and {split['test']} test rows{drawn}"
    return f"**Data.** {said['source']}: {rows}. Digest `{subject.digest}`."


def _kept_labels(subject: Subject) -> Iterator[str]:
    if subject.labels:
        yield f"of which {subject.labels} keep their label"


def chosen(found: Chosen, metrics: pd.DataFrame, arms: int) -> str:
    """How validation chose a network, out of so many arms."""
    score, choice = statistics.SCORE_NAMES[statistics.main_score(metrics)], found.choice
    depths = ", ".join(f"{one.arm} {one.depth}" for one in found.choices)
    mean = f"{choice.mean:.4f} (95 % interval over {found.intact} seeds: {choice.low:.4f} to {choice.high:.4f})"
    best = f" Of the arms at these depths the one with the best mean: {found.arm}," if arms > 1 else " There"
    return (
        f"By the validation part alone. Of each arm the smallest depth whose mean validation {score} lies within one"
        f" standard error of its best, paired by seed: {depths}.{best} {mean}. Of these seeds the best: seed"
        f" {found.seed}, {found.score:.4f}. As the best of {found.intact} it is flattered by its own score; the mean"
        " says what the procedure gives. Test scores chose nothing."
    )


def declared() -> str:
    """How it came to be the network that a study declares."""
    return (
        "It was not: the study declares arm, depth and seed, before anything is trained, and has no validation part."
        " Whether another depth, arm or seed is better was not asked, and no score had a part in it."
    )


def named() -> str:
    """How it came to be the network that a person names after the run."""
    return (
        "It was not, by a rule: whoever registered it named arm, depth and seed after the run, when every score of it"
        " could be seen, those on test rows too. Its own scores may flatter it for that."
    )


def _test(subject: Subject, metrics: pd.DataFrame) -> str:
    main = statistics.main_score(metrics)
    name, score = f"test_{main}", statistics.SCORE_NAMES[main]
    rows = metrics[(metrics["arm"] == subject.arm) & (metrics["depth"] == subject.depth)]
    left = comparison.finished(rows).set_index("seed")
    own = float(left.loc[subject.seed, name])
    intact = pd.Series(statistics.intact(left, name), left.index)
    scores = left.loc[intact, name].to_numpy(float)
    network = "The network that it is of has a" if subject.features else "Its"
    has = " of" if subject.features else " is"
    words = f"**Test.** {network} test {score}{has} {own:.4f} on {subject.data['split']['test']} rows"
    if not intact[subject.seed]:
        words += ", but it is **collapsed**, and counts in no mean"
    if len(scores) > 1:
        low, high = statistics.t_interval(scores)
        interval = f"95 % interval {low:.4f} to {high:.4f}"
        words += f"; the mean over {len(scores)} intact seeds at this depth is {scores.mean():.4f} ({interval})"
    return f"{words}."


def _limits(subject: Subject, *, numbers: bool) -> str:
    """What the scores do not say."""
    if subject.features:
        told = "What a feature means is not known, and an encoder of another seed has others"
    elif numbers:
        told = "It does not say how sure it is of a number"
    else:
        told = "The probabilities are not calibrated"
    return (
        "**Limits.** The intervals are over seeds (initial weights, batch order and, where each seed draws its own, the"
        " split), on this data set: they say nothing of rows from elsewhere or from another time. Rows unlike those of"
        f" training are answered all the same. {told}."
    )
