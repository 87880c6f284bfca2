"""Selection by rule: which network to keep, and whether another layer is worth training.

Everything here sees validation scores alone. The first thing each function does is to drop every other score, so that
no path leads from a test score to a choice. That a seed diverged is told from its validation loss, which is missing
where it did, and no score on test rows has a part in that (:func:`layerwise.scoring.judged`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.study import StudyError
from layerwise.study.claims import FINE_TUNED

SEEN = ("arm", "seed", "depth", *(f"{prefix}{name}" for prefix in ("", FINE_TUNED) for name in (
    "collapsed", "validation_accuracy", "validation_r2", "validation_loss")))  # fmt: skip
"""All that a selection sees of the metrics. Whether a seed collapsed is judged on training rows."""

CHOOSING = ("validation_accuracy", "validation_r2")
"""What depths are chosen by: of classes, and of numbers."""

INTACT_SHARE = 0.5
"""Share of the seeds that must be intact at a depth for it to be chosen: no network is kept for its lucky seeds."""

GAIN_CONFIDENCE = 0.95
"""Level of the one-sided limit below which a gain is called over."""


@dataclass(frozen=True)
class Choice:
    """A depth, and what it was chosen by.

    Attributes:
        arm: of which arm.
        depth: the smallest depth within one standard error of the best.
        best_depth: the depth with the best mean validation score.
        seeds: seeds intact at both.
        mean: mean validation score at the chosen depth over its intact seeds: accuracy, or R2 of numbers.
        low: lower limit of Student's t interval for that mean, 95 %.
        high: its upper limit.
        shortfall: mean paired difference, best minus chosen; 0 where they are the same.
        error: standard error of that difference.
    """

    arm: str
    depth: int
    best_depth: int
    seeds: int
    mean: float
    low: float
    high: float
    shortfall: float
    error: float


@dataclass(frozen=True)
class Chosen:
    """The network to keep of a study, and what it was chosen by.

    Attributes:
        arm: the arm that left it.
        depth: its number of hidden layers.
        seed: its seed.
        score: its validation score: accuracy, or R2 of numbers.
        intact: seeds of its arm that are intact at its depth, of which it is the best.
        choices: of each arm that has one, the depth chosen; in the order of arms.
    """

    arm: str
    depth: int
    seed: int
    score: float
    intact: int
    choices: tuple[Choice, ...]

    @property
    def choice(self) -> Choice:
        """Its arm's."""
        return next(one for one in self.choices if one.arm == self.arm)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.arm}, depth {self.depth}, seed {self.seed}"


@dataclass(frozen=True)
class Gain:
    """What one layer gained in validation score over the depth below.

    Attributes:
        arm: of which arm.
        depth: of the layer.
        first: seeds that were asked, the first ones.
        intact: how many of them are intact at that depth.
        seeds: how many are intact there and at the depth below.
        mean: mean of each such seed's gain: in accuracy, or R2 of numbers; NaN for none.
        limit: one-sided 95 % upper t limit of that mean; NaN for fewer than two.
    """

    arm: str
    depth: int
    first: int
    intact: int
    seeds: int
    mean: float
    limit: float

    def is_small(self, worth: float) -> bool:
        """Whether the gain is shown to be less than a layer is worth."""
        return self.limit < worth

    def is_over(self, worth: float) -> bool:
        """Whether no further layer is to be added: the gain is small, or too few seeds are left to build on."""
        return self.is_small(worth) or self.intact < INTACT_SHARE * self.first


def chosen_depth(metrics: pd.DataFrame, arm: str) -> Choice:
    """The smallest depth within one standard error of the best mean validation score, paired by seed.

    The score is accuracy, or R2 where targets are numbers.

    The one-standard-error rule (Breiman et al., 1984), with the standard error of each seed's own difference. The
    network is the one that the arm leaves at a depth, fine-tuned where it fine-tunes. Depths at which fewer than half
    of the seeds are intact are left out, and so are those that share no intact seed with the best.

    Args:
        metrics: one row per arm, seed and depth. Of the scores, only those on the validation part are looked at.
        arm: which arm.

    Raises:
        StudyError: where there is no such arm, no validation part, or no depth with enough intact seeds.

    Example:
        >>> import pandas as pd
        >>> from layerwise.selection import chosen_depth
        >>> metrics = pd.DataFrame({
        ...     "arm": "greedy", "seed": [0, 1, 2] * 2, "depth": [1] * 3 + [2] * 3, "collapsed": False,
        ...     "validation_loss": 0.5, "validation_accuracy": [0.80, 0.82, 0.81, 0.81, 0.81, 0.82],
        ... })
        >>> choice = chosen_depth(metrics, "greedy")
        >>> choice.depth, choice.best_depth
        (1, 2)
    """
    scores = _validation_scores(metrics, arm)
    kept = scores.loc[:, scores.notna().mean() >= INTACT_SHARE]
    if kept.empty or len(kept) < 2:
        raise StudyError(
            f"{arm}: no depth has two intact seeds and half of all; a depth is chosen by validation scores over seeds"
        )
    best = int(kept.mean().idxmax())
    lost = {int(depth): (kept[best] - kept[depth]).dropna().to_numpy() for depth in kept.columns}
    small = (depth for depth, own in lost.items() if len(own) and own.mean() <= _standard_error(own))
    depth = min(best, next(small, best))
    found, mean = lost[depth], float(kept[depth].mean())
    low, high = statistics.t_interval(kept[depth].dropna().to_numpy())
    return Choice(arm, depth, best, len(found), mean, low, high, float(found.mean()), _standard_error(found))


def chosen_network(metrics: pd.DataFrame, arms: Sequence[str]) -> Chosen:
    """The network to keep of a study, by its validation score.

    Each arm is taken at its chosen depth (:func:`chosen_depth`); the arm with the best mean there is chosen, and of
    its intact seeds the best. Of equals the first arm and the lowest seed are taken. As that of the best of many, the
    seed's own score flatters it; the arm's mean does so less.

    Args:
        metrics: one row per arm, seed and depth. Of the scores, only those on the validation part are looked at.
        arms: those to choose among; one without a depth to choose is left out.

    Raises:
        StudyError: where no arm has a depth to choose, such as for want of a validation part.

    Example:
        >>> import pandas as pd
        >>> from layerwise.selection import chosen_network
        >>> metrics = pd.DataFrame({
        ...     "arm": ["greedy"] * 3 + ["scratch"] * 3, "seed": [0, 1, 2] * 2, "depth": 1, "collapsed": False,
        ...     "validation_loss": 0.5, "validation_accuracy": [0.80, 0.83, 0.81, 0.7, 0.9, 0.7],
        ... })
        >>> chosen_network(metrics, ["greedy", "scratch"]).place
        'greedy, depth 1, seed 1'
    """
    choices, reasons = [], []
    for arm in arms:
        try:
            choices.append(chosen_depth(metrics, arm))
        except StudyError as error:
            reasons.append(error)
    if not choices:
        raise reasons[0]
    best = max(choices, key=lambda one: one.mean)  # of equals the first, as of the seeds below
    scores = _validation_scores(metrics, best.arm)[best.depth].dropna()
    seed = int(scores.idxmax())
    return Chosen(best.arm, best.depth, seed, float(scores[seed]), len(scores), tuple(choices))


def _standard_error(values: np.ndarray) -> float:
    return statistics.sd(values) / float(np.sqrt(len(values))) if len(values) > 1 else float("nan")


def gain(metrics: pd.DataFrame, arm: str, *, depth: int, first_seeds: int) -> Gain:
    """What a layer gained on validation, over the depth below and by a fixed first block of seeds.

    Only seeds below ``first_seeds`` count, so seeds that are added later change nothing.

    Args:
        metrics: one row per arm, seed and depth. Of the scores, only those on the validation part are looked at.
        arm: which arm.
        depth: the newest depth, at least 2.
        first_seeds: size of the first block.

    Raises:
        StudyError: where there is no such arm or depth, or no validation part.

    Example:
        >>> import pandas as pd
        >>> from layerwise.selection import gain
        >>> metrics = pd.DataFrame({
        ...     "arm": "greedy", "seed": [0, 1, 2] * 2, "depth": [1] * 3 + [2] * 3, "collapsed": False,
        ...     "validation_loss": 0.5, "validation_accuracy": [0.80, 0.82, 0.81, 0.801, 0.82, 0.81],
        ... })
        >>> found = gain(metrics, "greedy", depth=2, first_seeds=3)
        >>> round(found.mean, 4), round(found.limit, 4), found.is_over(0.01)
        (0.0003, 0.0013, True)
    """
    scores = _validation_scores(metrics[metrics["seed"] < first_seeds], arm)
    if not {depth - 1, depth} <= set(scores.columns):
        raise StudyError(f"{arm}: no validation scores at depth {depth - 1} and {depth}; both are compared")
    gains = (scores[depth] - scores[depth - 1]).dropna().to_numpy()
    _, limit = statistics.t_interval(gains, 2 * GAIN_CONFIDENCE - 1)
    mean = float(gains.mean()) if len(gains) else float("nan")
    return Gain(arm, depth, len(scores), int(scores[depth].notna().sum()), len(gains), mean, limit)


def _validation_scores(metrics: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Validation scores of an arm's networks: a row for each seed, a column for each depth, NaN where not intact."""
    seen = metrics[[name for name in SEEN if name in metrics]]
    own = seen[seen["arm"] == arm]
    if own.empty:
        known = ", ".join(map(str, metrics["arm"].unique()))
        raise StudyError(f"received the arm {arm!r}; known: {known}")
    score = next((name for name in CHOOSING if name in own and own[name].notna().any()), None)
    if score is None:
        raise StudyError(
            f"{arm}: there is no validation part, and nothing is chosen by test scores; add data.split.validation"
        )
    columns = {int(str(depth)): _finished(rows.set_index("seed"), score) for depth, rows in own.groupby("depth")}
    return pd.DataFrame(columns).sort_index()


def _finished(rows: pd.DataFrame, score: str) -> pd.Series:
    """The score of the networks that an arm leaves at one depth, where they are intact."""
    marks = rows.get(f"{FINE_TUNED}collapsed")
    prefix = FINE_TUNED if marks is not None and marks.notna().any() else ""
    collapsed = rows[f"{prefix}collapsed"].astype("boolean").fillna(False).to_numpy(bool)
    finite = np.isfinite(rows[f"{prefix}validation_loss"].to_numpy(float))
    return rows[f"{prefix}{score}"].astype(float).where(finite & ~collapsed)
