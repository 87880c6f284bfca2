"""The tests behind the claims, each with both of its p-values: that the claim holds, and that its opposite does.

A question holds one array entry a seed, none of them NaN. The *support* p-value belongs to the null that the claim is
false, the *refute* p-value to the null that it is true. Arrays may have leading axes, by which
:func:`layerwise.claims.power_curve` puts many resampled studies at once; ``quick`` is the vectorised way there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np

from layerwise import statistics
from layerwise.statistics.estimates import NAN, RESAMPLES
from layerwise.statistics.significance import EXACT_PAIRS

Pair = tuple[float, float]
"""Something for supporting a claim, and the same for refuting it."""

Arrays = tuple[np.ndarray, np.ndarray]

Sign = Literal[1, -1]


class Question(Protocol):
    """What every test offers."""

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        ...

    def p_values(self) -> Pair:
        """The support and the refute p-value."""
        ...

    def quick(self) -> Arrays:
        """Both p-values along the last axis, by a way that is fast for many samples."""
        ...

    def taken(self, index: np.ndarray) -> Self:
        """The question put to resampled seeds; ``index`` is ``(..., seeds)``."""
        ...

    def smallest(self, seeds: int) -> Pair:
        """The smallest p-values that so many seeds can give."""
        ...

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """Seeds that reach the goal at a level with power .8 if the truth is what was seen; ``None`` for no number."""
        ...

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """What is estimated, and its interval."""
        ...

    def numbers(self) -> dict[str, float]:
        """What else there is to report."""
        ...


@dataclass(frozen=True)
class Mean:
    """Is the mean above (``sign`` 1) or below (-1) a value? By the sign-flip test.

    Attributes:
        values: ``(..., seeds)``: scores, differences of paired scores, or slopes.
        value: what the mean is held against.
        sign: the direction that is claimed.
        correlation: of the two sides over seeds, NaN where there are not two.
    """

    values: np.ndarray
    value: float
    sign: Sign
    correlation: float = NAN

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.values.shape[-1]

    @property
    def claimed(self) -> np.ndarray:
        """The values measured from what they are held against, in the direction claimed."""
        return self.sign * (self.values - self.value)

    def p_values(self) -> Pair:
        """The sign-flip test on either side; 1 without two seeds, which it takes."""
        if self.seeds < 2:
            return 1.0, 1.0
        return float(statistics.sign_flip(self.claimed, "greater")), float(statistics.sign_flip(self.claimed, "less"))

    def quick(self) -> Arrays:
        """The t-test, but never below what the sign-flip test can give."""
        floor, claimed = self.smallest(self.seeds)[0], self.claimed
        above, below = statistics.mean_test(claimed, "greater"), statistics.mean_test(claimed, "less")
        return np.maximum(above, floor), np.maximum(below, floor)

    def taken(self, index: np.ndarray) -> Mean:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, values=_respread(self.values, index))

    def smallest(self, seeds: int) -> Pair:
        """One over the number of combinations of signs, or over the draws and the data."""
        smallest = 0.5**seeds if seeds <= EXACT_PAIRS else 1 / (RESAMPLES + 1)
        return smallest, smallest

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By the noncentral t distribution of the effect seen, and no fewer than the sign-flip test can do with."""
        claimed = self.claimed if goal == "support" else -self.claimed
        spread = statistics.sd(claimed)
        if not spread > 0 or claimed.mean() <= 0:
            return None
        effect = float(claimed.mean() / spread)
        found = statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, level))
        return None if found is None else max(found, int(np.ceil(-np.log2(level))))

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The mean, with Student's t interval."""
        return _mean(self.values), *statistics.t_interval(self.values, confidence)

    def numbers(self) -> dict[str, float]:
        """The values described; effect size and share of seeds in the direction claimed; Wilcoxon's p-value."""
        ahead = statistics.probability_above(self.claimed)
        return {
            **_described(self.values),
            "effect_size": statistics.effect_size(self.claimed),
            "probability": ahead.estimate,
            "probability_low": ahead.low,
            "probability_high": ahead.high,
            "wilcoxon_p": statistics.wilcoxon(self.claimed, "greater"),
            "correlation": self.correlation,
        }


@dataclass(frozen=True)
class Within:
    """Does the mean difference lie within plus or minus a margin? By two one-sided t-tests.

    Attributes:
        values: ``(..., seeds)`` differences of paired scores.
        margin: above zero.
        correlation: of the two sides over seeds.
    """

    values: np.ndarray
    margin: float
    correlation: float = NAN

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.values.shape[-1]

    def p_values(self) -> Pair:
        """Equivalence, and a difference beyond the margin."""
        support, refute = self.quick()
        return float(support), float(refute)

    def quick(self) -> Arrays:
        """The same, vectorised."""
        beyond = statistics.difference_beyond(self.values, self.margin)
        return statistics.equivalence(self.values, self.margin), beyond

    def taken(self, index: np.ndarray) -> Within:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, values=_respread(self.values, index))

    def smallest(self, seeds: int) -> Pair:
        """A t-test can give any p-value from two seeds on."""
        return (0.0, 0.0) if seeds > 1 else (1.0, 1.0)

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By the noncentral t distribution of the mean and spread seen."""
        spread, mean = statistics.sd(self.values), _mean(self.values)
        if not spread > 0 or (abs(mean) < self.margin) != (goal == "support"):
            return None
        if goal == "refute":
            effect = (abs(mean) - self.margin) / spread
            return statistics.fewest_seeds(lambda seeds: statistics.mean_power(effect, seeds, level / 2))
        return statistics.fewest_seeds(
            lambda seeds: statistics.equivalence_power(mean, spread, self.margin, seeds, level)
        )

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The mean, with Student's t interval."""
        return _mean(self.values), *statistics.t_interval(self.values, confidence)

    def numbers(self) -> dict[str, float]:
        """The differences described."""
        effect = statistics.effect_size(self.values)
        return {**_described(self.values), "effect_size": effect, "correlation": self.correlation}


@dataclass(frozen=True)
class Order:
    """Do several columns increase (``sign`` 1) or decrease (-1) in the order given? By Page's test.

    Attributes:
        scores: ``(seeds, columns)``.
        sign: the direction that is claimed.
    """

    scores: np.ndarray
    sign: Sign

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.scores.shape[-2]

    @property
    def correlations(self) -> np.ndarray:
        """``(..., seeds)`` rank correlation of each seed's columns with their order, in the direction claimed."""
        from scipy import stats

        ranks = stats.rankdata(self.sign * self.scores, axis=-1)
        return statistics.slopes(ranks, np.arange(1, ranks.shape[-1] + 1))

    def p_values(self) -> Pair:
        """Page's test of the order claimed, and of its reverse."""
        claimed = self.sign * self.scores
        return statistics.ordered_trend(claimed).p, statistics.ordered_trend(-claimed).p

    def quick(self) -> Arrays:
        """The normal distribution of Page's statistic."""
        from scipy import stats

        total = self.correlations.sum(axis=-1) * np.sqrt((self.scores.shape[-1] - 1) / max(self.seeds, 1))
        return stats.norm.sf(total), stats.norm.cdf(total)

    def taken(self, index: np.ndarray) -> Order:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, scores=self.scores[index])

    def smallest(self, seeds: int) -> Pair:
        """That every seed has the order claimed."""
        from scipy.special import gammaln

        smallest = float(np.exp(-seeds * gammaln(self.scores.shape[-1] + 1))) if seeds > 1 else 1.0
        return smallest, smallest

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By the normal distribution of Page's statistic about the mean correlation seen."""
        found = self.correlations if goal == "support" else -self.correlations
        mean, spread, columns = _mean(found), statistics.sd(found), self.scores.shape[-1]
        if not mean > 0 or np.isnan(spread):
            return None
        return statistics.fewest_seeds(lambda seeds: statistics.ordered_power(mean, spread, columns, seeds, level))

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The mean rank correlation with the order claimed, with Student's t interval."""
        return _mean(self.correlations), *statistics.t_interval(self.correlations, confidence)

    def numbers(self) -> dict[str, float]:
        """The correlations described, Page's L, and the mean of every column."""
        means = {f"mean_{place}": _mean(values) for place, values in enumerate(self.scores.T, start=1)}
        trend = statistics.ordered_trend(self.sign * self.scores)
        return {**_described(self.correlations), "page_l": trend.statistic, **means}


@dataclass(frozen=True)
class Rarer:
    """Is an outcome rarer (``sign`` -1) or more frequent (1) in the first arm than in the second? By McNemar's test.

    Attributes:
        first: ``(..., seeds)`` bool, the outcome in the claim's own arm.
        second: ``(..., seeds)`` bool, that of the same seeds in the other.
        sign: the direction that is claimed.
    """

    first: np.ndarray
    second: np.ndarray
    sign: Sign

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.first.shape[-1]

    def p_values(self) -> Pair:
        """McNemar's exact test on either side."""
        more, fewer = self._as_claimed()
        return statistics.mcnemar(more, fewer, "greater"), statistics.mcnemar(fewer, more, "greater")

    def _as_claimed(self) -> Arrays:
        """The outcome in the arm that is claimed to have it more often, and in the other."""
        return (self.first, self.second) if self.sign > 0 else (self.second, self.first)

    def quick(self) -> Arrays:
        """The same, vectorised."""
        from scipy import stats

        more, fewer = self._as_claimed()
        only_more, only_fewer = (np.count_nonzero(one, axis=-1) for one in (more & ~fewer, fewer & ~more))
        discordant = only_more + only_fewer
        return stats.binom.sf(only_more - 1, discordant, 0.5), stats.binom.sf(only_fewer - 1, discordant, 0.5)

    def taken(self, index: np.ndarray) -> Rarer:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, first=self.first[index], second=self.second[index])

    def smallest(self, seeds: int) -> Pair:
        """That every seed has the outcome in one arm alone."""
        return 0.5**seeds, 0.5**seeds

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By the exact power at the discordant shares seen."""
        first, second = self._as_claimed()
        more, fewer = _mean(first & ~second), _mean(second & ~first)
        if goal == "refute":
            more, fewer = fewer, more
        if not more > fewer:
            return None
        return statistics.fewest_seeds(lambda seeds: statistics.mcnemar_power(more, fewer, seeds, level))

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The first rate less the second, with the interval of Bonett and Price."""
        found = statistics.rate_difference(self.first, self.second, confidence)
        return found.estimate, found.low, found.high

    def numbers(self) -> dict[str, float]:
        """Both rates, and the seeds that have the outcome in one arm alone."""
        return {
            "rate": _mean(self.first),
            "other_rate": _mean(self.second),
            "only_here": float(np.count_nonzero(self.first & ~self.second)),
            "only_there": float(np.count_nonzero(self.second & ~self.first)),
        }


@dataclass(frozen=True)
class RateBound:
    """Is an outcome's rate at most (``sign`` -1) or at least (1) a value? By the exact binomial test.

    Attributes:
        found: ``(..., seeds)`` bool, which seeds have the outcome.
        rate: what its rate is held against, in 0..1.
        sign: the direction that is claimed.
    """

    found: np.ndarray
    rate: float
    sign: Sign

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.found.shape[-1]

    def p_values(self) -> Pair:
        """The binomial test on either side."""
        support, refute = self.quick()
        return float(support), float(refute)

    def quick(self) -> Arrays:
        """The same, vectorised."""
        from scipy import stats

        count = np.count_nonzero(self.found, axis=-1)
        above, below = stats.binom.sf(count - 1, self.seeds, self.rate), stats.binom.cdf(count, self.seeds, self.rate)
        return (above, below) if self.sign > 0 else (below, above)

    def taken(self, index: np.ndarray) -> RateBound:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, found=self.found[index])

    def smallest(self, seeds: int) -> Pair:
        """That every seed has the outcome, or none."""
        every, none = self.rate**seeds, (1 - self.rate) ** seeds
        return (every, none) if self.sign > 0 else (none, every)

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By the exact power at the rate seen."""
        seen = _mean(self.found)
        if not self.seeds or seen == self.rate or (self.sign * (seen - self.rate) > 0) != (goal == "support"):
            return None
        return statistics.fewest_seeds(lambda seeds: statistics.rate_power(seen, self.rate, seeds, level))

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The rate, with Wilson's interval."""
        found = statistics.share(float(np.count_nonzero(self.found)), self.seeds, confidence)
        return found.estimate, found.low, found.high

    def numbers(self) -> dict[str, float]:
        """How many seeds have the outcome."""
        return {"count": float(np.count_nonzero(self.found))}


@dataclass(frozen=True)
class Spread:
    """Is the ratio of two arms' sds above ``low``, below ``high``, or between them? By the Pitman-Morgan test.

    Attributes:
        first: ``(..., seeds)`` scores of the first arm.
        second: ``(..., seeds)`` those of the same seeds in the second.
        low: what the ratio is claimed to be above, if anything.
        high: what it is claimed to be below, if anything.
    """

    first: np.ndarray
    second: np.ndarray
    low: float | None
    high: float | None

    @property
    def seeds(self) -> int:
        """Seeds that count."""
        return self.first.shape[-1]

    def p_values(self) -> Pair:
        """The Pitman-Morgan test at each bound."""
        support, refute = self.quick()
        return float(support), float(refute)

    def quick(self) -> Arrays:
        """The same, vectorised: both bounds must hold, and either may fail."""
        low = [] if self.low is None else [self._tested(self.low)]
        high = [] if self.high is None else [self._tested(self.high)[::-1]]
        support, refute = zip(*low, *high, strict=True)
        return np.max(support, axis=0), np.minimum(1.0, len(refute) * np.min(refute, axis=0))

    def _tested(self, bound: float) -> Arrays:
        """P-values that the ratio is above a bound, and below it."""
        above = statistics.sd_ratio_test(self.first, self.second, bound, "greater")
        return above, statistics.sd_ratio_test(self.first, self.second, bound, "less")

    def taken(self, index: np.ndarray) -> Spread:
        """The question put to resampled seeds."""
        return dataclasses.replace(self, first=self.first[index], second=self.second[index])

    def smallest(self, seeds: int) -> Pair:
        """A test of a correlation can give any p-value from three seeds on."""
        return (0.0, 0.0) if seeds > 2 else (1.0, 1.0)

    def seeds_to(self, goal: Literal["support", "refute"], level: float) -> int | None:
        """By Fisher's z at the ratio and the correlation seen."""
        ratio = statistics.sd_ratio(self.first, self.second)
        correlation = statistics.pairing_correlation(self.first, self.second)
        if not ratio > 0 or np.isnan(correlation):
            return None
        above = [ratio / self.low] if self.low is not None else []
        below = [self.high / ratio] if self.high is not None else []
        margins = above + below
        if (min(margins) > 1) != (goal == "support"):
            return None
        if goal == "refute":
            margins, level = [1 / min(margins)], level / len(margins)
        # All bounds are met at least as often as no one of them is missed, by the sum of what each is missed by.
        return statistics.fewest_seeds(
            lambda seeds: 1 - sum(1 - statistics.sd_ratio_power(one, correlation, seeds, level) for one in margins)
        )

    def estimate(self, confidence: float) -> tuple[float, float, float]:
        """The ratio of the sds, with Pitman's and Morgan's interval."""
        ratio = statistics.sd_ratio(self.first, self.second)
        return ratio, *statistics.sd_ratio_interval(self.first, self.second, confidence)

    def numbers(self) -> dict[str, float]:
        """Both spreads, and the bootstrap interval of their ratio."""
        low, high = NAN, NAN
        if self.seeds > 2:  # it leaves one seed out in turn, and one alone has no spread
            low, high = statistics.bootstrap_interval(
                self.first, self.second, statistic=lambda a, b, axis: a.std(axis, ddof=1) / b.std(axis, ddof=1)
            )
        return {
            "sd": statistics.sd(self.first),
            "other_sd": statistics.sd(self.second),
            "bootstrap_low": low,
            "bootstrap_high": high,
            "correlation": statistics.pairing_correlation(self.first, self.second),
        }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else NAN


def _described(values: np.ndarray) -> dict[str, float]:
    found = statistics.describe(values)
    return {
        "sd": found.sd,
        "interquartile_mean": found.interquartile_mean,
        "bootstrap_low": found.bootstrap_low,
        "bootstrap_high": found.bootstrap_high,
    }


def _respread(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Resampled values whose expected sample variance is that of the values; a plain bootstrap's is (n-1)/n of it."""
    count, mean = len(values), values.mean()
    return mean + (values[index] - mean) * np.sqrt(count / (count - 1))
