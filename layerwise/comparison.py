"""Arms side by side: the networks that they leave, and each seed's difference between two of them.

What stands here was not claimed before training: it describes. Verdicts are in :mod:`layerwise.claims`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.statistics import OUTCOMES, Description, Share
from layerwise.study import Ordered, Study, sides
from layerwise.study.claims import FINE_TUNED

PARTS = ("train", "validation", "test")
PLACES = ("arm", "seed", "depth")


@dataclass(frozen=True)
class Difference:
    """How a metric differs between the networks that two arms leave, over the seeds intact in both.

    Attributes:
        arm: the arm.
        minus: the arm that is taken off.
        metric: the score.
        depth: number of hidden layers of the first.
        other_depth: that of the second.
        values: the differences described, in the metric's unit.
        probability: how often the first is ahead on the same seed, a tie counting half.
        effect_size: standardised mean difference, without a unit.
        sign_flip_p: two-sided p-value of the sign-flip test.
        wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test.
        correlation: of the two arms over seeds.
        broken: seeds of the first that diverged or collapsed.
        other_broken: those of the second.
        outcomes_p: McNemar's two-sided p-value for a difference between those two counts.
    """

    arm: str
    minus: str
    metric: str
    depth: int
    other_depth: int
    values: Description
    probability: Share
    effect_size: float
    sign_flip_p: float
    wilcoxon_p: float
    correlation: float
    broken: int
    other_broken: int
    outcomes_p: float

    @property
    def name(self) -> str:
        """Both arms."""
        return f"{self.arm} minus {self.minus}"

    def row(self) -> dict[str, Any]:
        """All of it as one flat record."""
        flat = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values, ahead = flat.pop("values"), flat.pop("probability")
        ahead = {"probability": ahead.estimate, "probability_low": ahead.low, "probability_high": ahead.high}
        places = {name: flat.pop(name) for name in ("arm", "minus", "metric", "depth", "other_depth")}
        return places | dataclasses.asdict(values) | ahead | flat


def finished(metrics: pd.DataFrame) -> pd.DataFrame:
    """The networks that arms leave at each depth: fine-tuned where there was fine tuning, else as they were before.

    Args:
        metrics: one row per arm, seed and depth.

    Returns:
        The same rows, with outcomes and scores under their plain names.

    Example:
        >>> import pandas as pd
        >>> from layerwise.comparison import finished
        >>> metrics = pd.DataFrame({"arm": ["a", "a"], "seed": 0, "depth": [1, 2], "diverged": False,
        ...     "test_accuracy": [0.7, 0.8], "fine_tuned_diverged": [None, False],
        ...     "fine_tuned_test_accuracy": [float("nan"), 0.9]})
        >>> finished(metrics)["test_accuracy"].tolist()
        [0.7, 0.9]
    """
    plain = metrics[[name for name in metrics if not str(name).startswith(FINE_TUNED)]].copy()
    if f"{FINE_TUNED}diverged" not in metrics:
        return plain
    tuned = metrics[f"{FINE_TUNED}diverged"].notna()
    for name in plain.columns.drop([*PLACES]):
        kind = "boolean" if name in OUTCOMES else "float"
        own = metrics.get(f"{FINE_TUNED}{name}", pd.Series(pd.NA if kind == "boolean" else np.nan, metrics.index))
        plain[name] = own.astype(kind).where(tuned, plain[name].astype(kind))
    return plain


def differences(
    first: pd.DataFrame, second: pd.DataFrame, metric: str, *, names: tuple[str, str] | None = None
) -> Iterator[Difference]:
    """Two arms compared at every depth that both have; where they share none, at the last of each.

    Args:
        first: the rows of one arm, as :func:`finished` gives them.
        second: those of the arm that is taken off.
        metric: the score.
        names: what the arms are called, if not as in the rows.
    """
    called = names or (str(first["arm"].iloc[0]), str(second["arm"].iloc[0]))
    shared = sorted(set(first["depth"]) & set(second["depth"]))
    last = (int(first["depth"].max()), int(second["depth"].max()))
    for depth, other in [(depth, depth) for depth in shared] or [last]:
        one, two = (rows[rows["depth"] == at].set_index("seed") for rows, at in ((first, depth), (second, other)))
        yield _difference(one, two, metric, called, (int(depth), int(other)))


def from_first_to_last(metrics: pd.DataFrame, metric: str) -> list[Difference]:
    """The networks that each arm leaves at its last depth against those at its first, on the same seeds.

    Args:
        metrics: one row per arm, seed and depth.
        metric: the score.
    """
    found = []
    for arm, rows in finished(metrics).groupby("arm", sort=False):
        first, last = int(rows["depth"].min()), int(rows["depth"].max())
        if first < last:
            high, low = (rows[rows["depth"] == depth].set_index("seed") for depth in (last, first))
            found.append(_difference(high, low, metric, (str(arm), str(arm)), (last, first)))
    return found


def _difference(
    one: pd.DataFrame, two: pd.DataFrame, metric: str, called: tuple[str, str], depths: tuple[int, int]
) -> Difference:
    seeds = one.index.intersection(two.index).sort_values()
    one, two = one.loc[seeds], two.loc[seeds]
    sound = [statistics.intact(rows, metric) for rows in (one, two)]
    scores = np.stack([rows[metric].to_numpy(float) for rows in (one, two)])
    scores = scores[:, np.logical_and(*sound) & np.isfinite(scores).all(axis=0)]
    values = scores[0] - scores[1]
    testable = len(values) > 1
    return Difference(
        *called,
        metric,
        *depths,
        values=statistics.describe(values),
        probability=statistics.probability_above(values),
        effect_size=statistics.effect_size(values),
        sign_flip_p=float(statistics.sign_flip(values)) if testable else float("nan"),
        wilcoxon_p=statistics.wilcoxon(values) if testable else float("nan"),
        correlation=statistics.pairing_correlation(*scores),
        broken=int(np.count_nonzero(~sound[0])),
        other_broken=int(np.count_nonzero(~sound[1])),
        outcomes_p=statistics.mcnemar(~sound[0], ~sound[1]),
    )


def pairs(study: Study) -> tuple[tuple[str, str], ...]:
    """The arms that a study compares, each with the one that is taken off.

    These are the arms that its claims compare, every control with the arm it controls for, and every other arm with
    the first.

    Example:
        >>> from layerwise.comparison import pairs
        >>> from layerwise.study import load
        >>> pairs(load("few-labels"))[:2]
        (('denoising_tuned', 'scratch'), ('denoising_frozen', 'scratch'))
    """
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in (*_claimed(study), *_controlled(study)):
        if len(set(pair)) == 2:
            found.setdefault(frozenset(pair), pair)
    return tuple(found.values())


def _claimed(study: Study) -> Iterator[tuple[str, str]]:
    for claim in (study.claims or {}).values():
        for scores in sides(study, claim):
            arms = [score.arm for score in scores]
            # A claim on two differences has four scores; an order of differences has two for each.
            if len(arms) in {2, 4} or (isinstance(claim, Ordered) and not isinstance(claim.arms[0], str)):
                yield from zip(arms[0::2], arms[1::2], strict=True)


def _controlled(study: Study) -> Iterator[tuple[str, str]]:
    first = next(iter(study.arms))
    plain = [arm for arm, said in study.arms.items() if said.control is None]
    for arm, said in study.arms.items():
        if said.control is not None:
            yield said.of or plain[0], arm
        else:
            yield arm, first


def all_differences(study: Study, metrics: pd.DataFrame) -> list[Difference]:
    """Every pair of arms that a study compares, by the score that answers it on every part of the data.

    Args:
        study: whose arms are compared; those that ``metrics`` lacks are left out.
        metrics: one row per arm, seed and depth.
    """
    left, score = finished(metrics), statistics.main_score(metrics)
    by_arm = {str(arm): rows for arm, rows in left.groupby("arm", sort=False)}
    return [
        difference
        for arm, minus in pairs(study)
        if {arm, minus} <= by_arm.keys()
        for part in PARTS
        if f"{part}_{score}" in left
        for difference in differences(by_arm[arm], by_arm[minus], f"{part}_{score}")
    ]


def as_table(found: Sequence[Difference]) -> pd.DataFrame:
    """Differences as a table, one row each."""
    return pd.DataFrame([difference.row() for difference in found])


def final_scores(metrics: pd.DataFrame, arm: str) -> dict[str, float]:
    """An arm in a few numbers: means over intact seeds, and counts, of the networks that it leaves at its last depth.

    Args:
        metrics: one row per arm, seed and depth.
        arm: which arm.

    Returns:
        ``final_depth``, ``final_diverged``, ``final_collapsed``, and for each part ``final_test_accuracy`` (or
        ``_r2``) and ``final_test_loss``; NaN where no seed is intact.
    """
    own = metrics[metrics["arm"] == arm]
    (row,) = statistics.summarise(finished(own[own["depth"] == own["depth"].max()])).to_dict("records")
    scores = [f"{part}_{score}" for score in (statistics.main_score(metrics), "loss") for part in PARTS]
    counts = {f"final_{name}": float(row[name]) for name in ("depth", "diverged", "collapsed")}
    return counts | {f"final_{name}": row[f"{name}_mean"] for name in scores if f"{name}_mean" in row}
