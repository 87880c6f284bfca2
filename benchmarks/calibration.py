"""Do the intervals cover, and do the tests keep their level? By simulation, where the truth is known.

``python -m benchmarks.calibration`` prints the table of docs/statistics.md; ``--runs 500`` is a quick look.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from layerwise import statistics
from layerwise.claims.deciding import holm_decisions

LEVEL = 0.05
MARGIN = 2.0
"""Of equivalence: so wide that only the limit that the truth lies on can be crossed by chance."""

CHUNK_FLIPS = 5_000_000
"""Signs held in memory at a time."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One rate to simulate.

    Attributes:
        what: the interval or test.
        data: the truth that is drawn from.
        seeds: values in each sample.
        hits: from random numbers and a number of samples to ``(samples,)`` bool: covered, or wrongly rejected.
        promise: ``"covers"`` (.93 to .97), ``"keeps"`` (at most the level, and two Monte-Carlo standard errors), or
            ``""`` where the text promises nothing.
        cost: how many times fewer samples to draw, since each is dear.
    """

    what: str
    data: str
    seeds: int
    hits: Callable[[np.random.Generator, int], np.ndarray]
    promise: str
    cost: int = 1

    def rate(self, runs: int) -> tuple[float, float, int]:
        """The rate, its Monte-Carlo standard error, and the number of samples; the same at every call."""
        count = max(1, runs // self.cost)
        hits = self.hits(np.random.default_rng(list(f"{self.what}, {self.data}, {self.seeds}".encode())), count)
        rate = float(np.mean(hits))
        # Under the null or at the nominal coverage: the error of a rate that is as promised.
        return rate, float(np.sqrt(LEVEL * (1 - LEVEL) / count)), count

    def kept(self, rate: float, error: float, errors: int = 2) -> bool:
        """Whether a rate is as promised, within so many Monte-Carlo standard errors; true where nothing is."""
        if self.promise == "covers":
            return 0.93 - errors * error <= rate <= 0.97 + errors * error
        return self.promise != "keeps" or rate <= LEVEL + errors * error


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal values with mean 0."""
    return rng.normal(size=shape)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Gamma values of shape 4, moved to mean 0: skewness 1."""
    return rng.gamma(4.0, size=shape) - 4.0


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Exponential values, moved to mean 0: skewness 2."""
    return rng.exponential(size=shape) - 1.0


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom: symmetric, with heavy tails."""
    return rng.standard_t(3, size=shape)


def two_peaks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Half the values near -1, half near 1, as of networks of which some train and some do not."""
    return rng.choice([-1.0, 1.0], size=shape) + 0.2 * rng.normal(size=shape)


def accuracies(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences of accuracies on 597 rows, with mean 0 and many ties."""
    return (rng.binomial(597, 0.95, size=shape) - rng.binomial(597, 0.95, size=shape)) / 597


def covered(interval: Callable[[np.ndarray], tuple[float, float]], draw: Draw, seeds: int, truth: float = 0.0):
    """Whether each sample's interval holds the truth."""

    def hits(rng: np.random.Generator, runs: int) -> np.ndarray:
        found = np.array([interval(values) for values in draw(rng, (runs, seeds))])
        return (found[:, 0] <= truth) & (truth <= found[:, 1])

    return hits


def sign_flips(values: np.ndarray) -> np.ndarray:
    """One-sided p-values of ``(samples, seeds)``, as many samples at a time as fit."""
    size = max(1, CHUNK_FLIPS // (values.shape[1] * 2 ** min(values.shape[1], 13)))
    chunks = np.array_split(values, -(-len(values) // size))
    return np.concatenate([statistics.sign_flip(chunk, "greater") for chunk in chunks])


def rejected(p_values: Callable[[np.ndarray], np.ndarray], draw: Draw, seeds: int):
    """Whether each sample's test rejects, vectorised over samples."""
    return lambda rng, runs: p_values(draw(rng, (runs, seeds))) <= LEVEL


def each(p_value: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], np.ndarray]:
    """A test of one sample at a time, over many."""
    return lambda samples: np.array([p_value(values) for values in samples])


def pairs_of_sds(rng: np.random.Generator, runs: int, seeds: int, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Two correlated arms, the first with twice the spread of the second."""
    shared, own, other = (draw(rng, (runs, seeds)) for _ in range(3))
    return 2 * (shared + own), shared + other


def ratio_covered(rng: np.random.Generator, runs: int, *, seeds: int, draw: Draw) -> np.ndarray:
    """Whether the Pitman-Morgan interval holds the true ratio, 2."""
    found = np.array(
        [statistics.sd_ratio_interval(*both) for both in zip(*pairs_of_sds(rng, runs, seeds, draw), strict=True)]
    )
    return (found[:, 0] <= 2) & (found[:, 1] >= 2)


def ratio_rejected(rng: np.random.Generator, runs: int, *, seeds: int, draw: Draw) -> np.ndarray:
    """Whether the Pitman-Morgan test finds the ratio above 2, which it is."""
    return statistics.sd_ratio_test(*pairs_of_sds(rng, runs, seeds, draw), 2.0, "greater") <= LEVEL


def outcomes(rng: np.random.Generator, runs: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """An outcome with rate .2 in two arms, half of it shared."""
    shared, first, second = rng.random((3, runs, seeds)) < 0.105
    return shared | first, shared | second


def mcnemar_rejected(rng: np.random.Generator, runs: int, *, seeds: int) -> np.ndarray:
    """Whether McNemar's test finds a difference of equal rates."""
    both = zip(*outcomes(rng, runs, seeds), strict=True)
    return np.array([statistics.mcnemar(first, second, "greater") for first, second in both]) <= LEVEL


def rate_difference_covered(rng: np.random.Generator, runs: int, *, seeds: int) -> np.ndarray:
    """Whether the interval of a difference of equal rates holds zero."""
    found = [statistics.rate_difference(*both) for both in zip(*outcomes(rng, runs, seeds), strict=True)]
    return np.array([one.low <= 0 <= one.high for one in found])


def ordered(rng: np.random.Generator, runs: int, *, seeds: int, rounded: bool) -> np.ndarray:
    """Whether Page's test finds an order of four equal columns."""
    scores = rng.normal(size=(runs, seeds, 4))
    scores = scores.round() if rounded else scores
    return np.array([statistics.ordered_trend(own).p for own in scores]) <= LEVEL


def family(rng: np.random.Generator, runs: int, *, seeds: int) -> np.ndarray:
    """Whether any of five true nulls, which share an arm, is rejected after Holm."""
    scores = rng.normal(size=(runs, 6, seeds))
    p = np.stack([statistics.mean_test(scores[:, arm] - scores[:, 0], "greater") for arm in range(1, 6)], axis=-1)
    return np.any(statistics.holm(p) <= LEVEL, axis=-1)


@functools.cache
def looked(looks: tuple[int, ...], test: str, runs: int) -> np.ndarray:
    """``(samples, 3)`` what becomes of three claims on the edge of their nulls that are looked at several times.

    There every decision is wrong: 1 for supported, -1 for refuted. The claims share an arm.
    """
    scores = np.random.default_rng([*looks, runs]).normal(size=(runs, 4, looks[-1]))
    differences = scores[:, 1:] - scores[:, :1]
    decided = np.zeros((runs, 3), int)
    for seeds in looks:
        seen = differences[:, :, :seeds]
        if test == "sign flip":
            support, refute = (sign_flips(side * seen.reshape(-1, seeds)).reshape(runs, 3) for side in (1, -1))
        else:
            support, refute = (
                statistics.equivalence(seen + MARGIN, MARGIN),
                statistics.difference_beyond(seen + MARGIN, MARGIN),
            )
        decided = np.where(decided == 0, holm_decisions(support, refute, LEVEL / len(looks)), decided)
    return decided


def wrongly(_: np.random.Generator, runs: int, *, looks: tuple[int, ...], test: str, wrong: int) -> np.ndarray:
    """Whether any of three claims gets the wrong verdict of one kind under the sequential rule."""
    return np.any(looked(looks, test, runs) == wrong, axis=-1)


DATA: dict[str, tuple[Draw, str, str]] = {
    "normal": (normal, "covers", "keeps"),
    "skewness 1": (skewed, "covers", ""),
    "skewness 2": (exponential, "", ""),
}
"""What intervals are tried on: how it is drawn, what is promised of intervals, and of tests whose null is symmetry."""


def interval_cases(seeds: int) -> Iterator[Case]:
    """Coverage of the 95 % intervals."""
    for data, (draw, covers, _) in DATA.items():
        yield Case("t interval", data, seeds, covered(statistics.t_interval, draw, seeds), covers)
        bootstrap = covered(statistics.bootstrap_interval, draw, seeds)
        yield Case("BCa bootstrap interval", data, seeds, bootstrap, covers if seeds >= 30 else "", cost=4)
    for chance, cut in ((0.3, 0.5244), (0.5, 0.0)):
        share = covered(
            lambda values, cut=cut: _limits(statistics.probability_above(values - cut)), normal, seeds, chance
        )
        data = f"probability .{chance * 10:.0f}"
        yield Case("Wilson interval of P(A > B)", data, seeds, share, "covers" if seeds >= 30 else "")
    yield Case(
        "interval of a rate difference",
        "rates .2, paired",
        seeds,
        functools.partial(rate_difference_covered, seeds=seeds),
        "",
    )
    for data, draw, promise in (("normal", normal, "covers"), ("two peaks", two_peaks, ""), ("heavy tails", heavy, "")):
        hits = functools.partial(ratio_covered, seeds=seeds, draw=draw)
        yield Case("Pitman-Morgan interval, sd ratio 2", data, seeds, hits, promise)


def _limits(found: statistics.Share) -> tuple[float, float]:
    return found.low, found.high


def test_cases(seeds: int) -> Iterator[Case]:
    """Type-I rates of the one-sided tests at .05."""
    symmetric: list[tuple[str, Draw, str]] = [
        ("normal", normal, "keeps"), ("heavy tails", heavy, "keeps"), ("ties", accuracies, "keeps"),
        ("skewness 2", exponential, ""), ("skewness -2", lambda rng, shape: -exponential(rng, shape), ""),
    ]  # fmt: skip
    for data, draw, promise in symmetric:
        yield Case("sign flip", data, seeds, rejected(sign_flips, draw, seeds), promise, cost=1 if seeds <= 13 else 8)
        wilcoxon = rejected(each(lambda values: statistics.wilcoxon(values, "greater")), draw, seeds)
        yield Case("Wilcoxon signed rank", data, seeds, wilcoxon, promise, cost=2)
        t = rejected(lambda values: statistics.mean_test(values, "greater"), draw, seeds)
        yield Case("t-test", data, seeds, t, "keeps" if data == "normal" else "")
    for data, draw, promise in (("normal", normal, "keeps"), ("skewness 2", exponential, "")):
        at_margin = rejected(lambda values: statistics.equivalence(values + MARGIN, MARGIN), draw, seeds)
        yield Case("equivalence, at the margin", data, seeds, at_margin, promise)
        beyond = rejected(lambda values: statistics.difference_beyond(values + MARGIN, MARGIN), draw, seeds)
        yield Case("difference beyond, at the margin", data, seeds, beyond, promise)
    yield Case(
        "McNemar, exact", "rates .2, paired", seeds, functools.partial(mcnemar_rejected, seeds=seeds), "keeps", cost=2
    )
    rate = rejected(
        each(lambda values: statistics.exact_rate(int((values < -0.8416).sum()), seeds, 0.2, "less")), normal, seeds
    )
    yield Case("binomial, exact", "rate .2", seeds, rate, "keeps", cost=2)
    yield Case(
        "Page's trend", "exchangeable", seeds, functools.partial(ordered, seeds=seeds, rounded=False), "keeps", cost=2
    )
    yield Case(
        "Page's trend", "with ties", seeds, functools.partial(ordered, seeds=seeds, rounded=True), "keeps", cost=2
    )
    for data, draw, promise in (("normal", normal, "keeps"), ("two peaks", two_peaks, ""), ("heavy tails", heavy, "")):
        hits = functools.partial(ratio_rejected, seeds=seeds, draw=draw)
        yield Case("Pitman-Morgan, sd ratio 2", data, seeds, hits, promise)
    yield Case("Holm, any of five", "normal, one shared arm", seeds, functools.partial(family, seeds=seeds), "keeps")


def looking_cases(looks: tuple[int, ...]) -> Iterator[Case]:
    """Rates of any wrong verdict of three claims under the sequential rule."""
    for test in ("sign flip", "equivalence"):
        for kind, wrong in (("supported", 1), ("refuted", -1)):
            hits = functools.partial(wrongly, looks=looks, test=test, wrong=wrong)
            what = f"{test}, any of 3 wrongly {kind}"
            data = f"normal, looks at {', '.join(map(str, looks))}"
            yield Case(what, data, looks[-1], hits, "keeps", cost=16 if test == "sign flip" and looks[-1] > 13 else 2)


def cases() -> list[Case]:
    """Everything that the table shows."""
    found = [case for seeds in (10, 30) for case in (*interval_cases(seeds), *test_cases(seeds))]
    return [*found, *looking_cases((4, 8, 12)), *looking_cases((10, 20, 30))]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="samples of a cheap case")
    parser.add_argument("--only", default="", help="part of the name of the cases to simulate")
    asked, started, broken = parser.parse_args(), time.perf_counter(), 0
    print("| what | data | seeds | rate | error | promised | |\n|---|---|--:|--:|--:|---|---|")
    promised = {"covers": ".93 to .97", "keeps": "at most .05", "": "-"}
    for case in sorted(cases(), key=lambda case: (case.what, case.data, case.seeds)):
        if asked.only not in case.what:
            continue
        rate, error, _ = case.rate(asked.runs)
        kept = case.kept(rate, error)
        broken += not kept
        word = ("yes" if kept else "NO") if case.promise else ""
        cells = (case.what, case.data, case.seeds, f"{rate:.3f}", f"{error:.4f}", promised[case.promise], word)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{broken} promises broken; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
