"""Deciding: from a study's claims and its metrics to supported, refuted or undecided.

Each claim has two p-values: of the null that it is false, and of the null that it is true. A claim over several depths
holds if it holds at each, so the first is the largest of its tests' (an intersection-union test; Berger, 1982), and
the second the smallest, times their number (Bonferroni). Holm's procedure over all claims of the study is taken over
the first kind and, by itself, over the second: so the chance of any wrongly supported claim is at most alpha, and so
is that of any wrongly refuted one, however the claims depend on one another.

With looks, each has alpha divided by their number, and a claim keeps the verdict of the first look that decides it:
by Bonferroni over the looks, the same holds for the whole (Jennison and Turnbull, 2000, explain why some such price
must be paid, and dearer-to-compute ways of paying less).

A comparison is of the seeds that are intact on every side. Where significantly more seeds broke on one side than on the
other, those that are left do not speak for all, and the claim is undecided; unless it says itself ``among`` which.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from layerwise import statistics
from layerwise.claims.evidence import Asked, Evidence, asked, evidence, speaks_of_survivors
from layerwise.claims.wording import found_in_words, p_in_words, sentence, undecided_in_words, unlike_outcomes_in_words
from layerwise.growing import as_grown
from layerwise.study import ALPHA, Claim, Study, held_out, looks

Decision = Literal["supported", "refuted", "undecided"]

DECISIONS: dict[int, Decision] = {1: "supported", -1: "refuted", 0: "undecided"}


@dataclass(frozen=True)
class Verdict:
    """What a run says of one claim.

    Attributes:
        claim: its name.
        kind: what kind of claim it is.
        sentence: what it says, in words.
        verdict: the decision.
        words: the decision and what it rests on, in a sentence or two.
        seeds: seeds that had been trained at the look that decided it, or at the last one.
        p: of the null that the claim is false.
        p_adjusted: the same after Holm over the study's claims; compared with alpha divided by the number of looks.
        p_against: of the null that the claim is true.
        p_against_adjusted: the same after Holm.
        seeds_needed: of an undecided claim, how many seeds would decide it with probability .8 if the truth is what was
            seen; ``None`` if no number is known to.
        evidence: what each test found.
    """

    claim: str
    kind: str
    sentence: str
    verdict: Decision
    words: str
    seeds: int
    p: float
    p_adjusted: float
    p_against: float
    p_against_adjusted: float
    seeds_needed: int | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Verdicts:
    """What a run says of all claims of its study.

    Attributes:
        study: the study's name.
        alpha: of the family.
        looks: numbers of seeds at which claims are looked at, fixed beforehand.
        verdicts: one for each claim, in the study's order.
    """

    study: str
    alpha: float
    looks: tuple[int, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def level(self) -> float:
        """What adjusted p-values are held against: alpha divided by the number of looks."""
        return self.alpha / len(self.looks)

    @property
    def all_supported(self) -> bool:
        """Whether every claim is supported."""
        return all(verdict.verdict == "supported" for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """A line for each claim: its name, the verdict, and why."""
        return [f"{verdict.claim}: {verdict.words}" for verdict in self.verdicts]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain JSON values, with ``null`` for what is not known."""
        return _plain({**dataclasses.asdict(self), "level": self.level})


def decide(study: Study, metrics: pd.DataFrame) -> Verdicts:
    """Decide the claims of a study.

    Args:
        study: whose claims are decided.
        metrics: one row per arm, seed and depth, as :meth:`layerwise.answers.Result.metrics` gives. Seeds that it
            lacks have not been trained; looks that they belong to have not been taken.

    Example:
        >>> import layerwise
        >>> from layerwise.claims import decide
        >>> study = layerwise.load("blobs-supervised", seeds=10)
        >>> for line in decide(study, layerwise.run(study).metrics()).lines():  # doctest: +SKIP
        ...     print(line)
    """
    study = as_grown(study, metrics)
    planned, alpha = looks(study), study.alpha or ALPHA
    decided: dict[str, Verdict] = {}
    for seeds in _taken(planned, metrics) if study.claims else ():
        for verdict in _look(study, metrics[metrics["seed"] < seeds], seeds, alpha / len(planned)):
            if verdict.claim not in decided or decided[verdict.claim].verdict == "undecided":
                decided[verdict.claim] = verdict
    return Verdicts(study.name, alpha, planned, tuple(decided.values()))


def holm_decisions(support: np.ndarray, refute: np.ndarray, level: float) -> np.ndarray:
    """What the p-values of a family of claims decide.

    Args:
        support: ``(..., claims)`` p-values of the nulls that the claims are false.
        refute: ``(..., claims)`` p-values of the nulls that they are true.
        level: chance of any wrong decision of either kind.

    Returns:
        ``(..., claims)`` int: 1 for supported, -1 for refuted, 0 for undecided.

    Example:
        >>> import numpy as np
        >>> from layerwise.claims.deciding import holm_decisions
        >>> holm_decisions(np.array([0.001, 0.03, 0.9]), np.array([0.99, 0.97, 0.01]), 0.05).tolist()
        [1, 0, -1]
    """
    supported, refuted = statistics.holm(support) <= level, statistics.holm(refute) <= level
    return np.where(supported & (support <= refute), 1, np.where(refuted & (refute < support), -1, 0))


def should_stop(study: Study, metrics: pd.DataFrame, seeds_done: int) -> bool:
    """Whether no more seeds are to be trained: every claim is decided at a look, or all seeds are done.

    Args:
        study: with claims, and ``stop`` if it is to stop early.
        metrics: one row per arm, seed and depth.
        seeds_done: seeds 0 to this number, without it, have been trained.
    """
    if seeds_done >= study.seeds:
        return True
    if study.stop is None or seeds_done not in looks(study):
        return False
    verdicts = decide(study, metrics[metrics["seed"] < seeds_done]).verdicts
    return all(verdict.verdict != "undecided" for verdict in verdicts)


def _taken(planned: tuple[int, ...], metrics: pd.DataFrame) -> tuple[int, ...]:
    """The looks whose seeds have been trained; where not even the first has, it is taken of what there is."""
    done = int(metrics["seed"].max()) + 1 if len(metrics) else 0
    return tuple(look for look in planned if look <= done) or planned[:1]


def _look(study: Study, metrics: pd.DataFrame, seeds: int, level: float) -> Iterator[Verdict]:
    """One look at all claims."""
    claims = study.claims or {}
    found = {name: asked(study, claim, metrics) for name, claim in claims.items()}
    tested = [tuple(evidence(one, 1 - 2 * level / len(claims)) for one in ones) for ones in found.values()]
    p = np.array([max(one.p for one in ones) for ones in tested])
    against = np.array([min(1.0, len(ones) * min(one.p_against for one in ones)) for ones in tested])
    adjusted, against_adjusted = statistics.holm(p), statistics.holm(against)
    decisions = holm_decisions(p, against, level)
    for place, (name, claim) in enumerate(claims.items()):
        unlike = _unlike(claim, tested[place], study.alpha or ALPHA)
        decision = "undecided" if unlike else DECISIONS[int(decisions[place])]
        open_yet = decision == "undecided" and unlike is None
        verdict = Verdict(
            claim=name,
            kind=claim.kind,
            sentence=sentence(study, claim),
            verdict=decision,
            words="",
            seeds=seeds,
            p=float(p[place]),
            p_adjusted=float(adjusted[place]),
            p_against=float(against[place]),
            p_against_adjusted=float(against_adjusted[place]),
            seeds_needed=_needed(study, claim, found[name], level / len(claims), seeds) if open_yet else None,
            evidence=tested[place],
        )
        yield dataclasses.replace(verdict, words=_words(study, claim, verdict, level, unlike))


def _unlike(claim: Claim, ones: tuple[Evidence, ...], alpha: float) -> Evidence | None:
    """Where the sides differ in how many seeds broke, if the claim is about all seeds."""
    return next((one for one in ones if speaks_of_survivors(claim) and one.outcomes_p < alpha), None)


def _needed(study: Study, claim: Claim, ones: tuple[Asked, ...], level: float, seeds: int) -> int | None:
    """Seeds at which the claim would be supported at every depth or, if it points the other way, refuted at one."""
    support = [_trained(one, one.question.seeds_to("support", level)) for one in ones]
    if all(found is not None for found in support):
        wanted = max(found for found in support if found is not None)
    else:
        refute = [_trained(one, one.question.seeds_to("refute", level / len(ones))) for one in ones]
        wanted = min((found for found in refute if found is not None), default=None)
    return None if wanted is None else max(wanted + held_out(study, claim), seeds + 1)


def _trained(one: Asked, counting: int | None) -> int | None:
    """Seeds to train so that, at the share seen, so many count."""
    return None if counting is None or not one.share > 0 else math.ceil(counting / one.share)


def _words(study: Study, claim: Claim, verdict: Verdict, level: float, unlike: Evidence | None) -> str:
    """The decision and what it rests on; of several tests, the one that decides or is furthest from it."""
    ones, several = verdict.evidence, len(verdict.evidence) > 1
    refuted = verdict.verdict == "refuted"
    telling = min(ones, key=lambda one: one.p_against) if refuted else max(ones, key=lambda one: one.p)
    p = p_in_words(verdict.verdict, verdict.p_adjusted, verdict.p_against_adjusted, len(study.claims or {}), level)
    words = f"{verdict.verdict} ({p}). {_capital(verdict.sentence)}: {found_in_words(claim, telling, several=several)}."
    if held_out(study, claim):
        words += f" The first {held_out(study, claim)} seeds, which settled the depth, do not count."
    if verdict.verdict != "undecided":
        return words
    why = unlike_outcomes_in_words(unlike) if unlike else undecided_in_words(telling, verdict.seeds_needed)
    return f"{words} {_capital(why)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
