"""The first parts of a study's report: its answer in words, and what was found of each claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from layerwise import answers, figures, statistics
from layerwise.claims import undecidable
from layerwise.report.page import (
    Block,
    Card,
    Column,
    Drawing,
    Facts,
    Items,
    Notice,
    Paragraph,
    Piece,
    Section,
    Table,
    badge,
    strong,
)
from layerwise.report.run import BEST_RULE, StudyRun
from layerwise.report.wording import counted, depths_in_words, interval, listed, p, short, shown
from layerwise.study import ALPHA, Bound, Claim, Compare, Equivalent, Ordered, Rate, Ratio, Trend, looks
from layerwise.study.claims import FINE_TUNED

UNITS = {
    "accuracy": "Accuracy is a share of rows, 0 to 1.",
    "r2": "R2 is a share of the targets' variance: 1 is perfect, 0 is no better than their mean.",
}
ENOUGH_FOR_TESTS = 6
"""Pairs from which the two-sided sign-flip test can fall below .05: with five, its smallest p-value is .0625."""


def answer(run: StudyRun) -> Section:
    """The answer in words."""
    blocks: list[Block] = list(_notices(run))
    if run.verdicts is not None:
        blocks += _verdicts_in_short(run.verdicts)
    elif run.study.claims:
        blocks.append(Paragraph("The claims are not decided: that takes every seed of every arm."))
    else:
        blocks.append(Paragraph("The study claims nothing beforehand, so what follows describes and decides nothing."))
    blocks += _left(run)
    deep = [arm for arm in run.arms if len(run.study.procedure(arm).depths) > 1]
    if deep:
        tuned = ", before any fine tuning" if f"{FINE_TUNED}diverged" in run.metrics else ""
        blocks.append(Paragraph(strong(f"From the first depth to the last{tuned}.")))
        blocks.append(Items(answers.in_words(run.study, run.metrics[run.metrics["arm"].isin(deep)])))
    return Section("Answer", blocks)


def _notices(run: StudyRun) -> Iterator[Notice]:
    """What has to be known before anything else is read."""
    missing = run.missing()
    if missing:
        told = listed([f"{arm} ({counted(seeds, 'seed')} at its last depth)" for arm, seeds in missing.items()])
        yield Notice(strong("Incomplete."), f" Not all was trained of {told}; run the study again to complete it.")
    for arm, depth, mean in run.leaks():
        yield Notice(
            strong("Leak or bug, until shown otherwise."),
            f" The mean test accuracy of {arm} at depth {depth} is {mean:.4f}, and the best possible rule scores"
            f" {BEST_RULE:.3f} on these test rows.",
        )
    if run.seeds == 1:
        yield Notice(strong("One seed."), " It has no spread, no interval and no test: an example, and no evidence.")
    elif run.seeds < ENOUGH_FOR_TESTS:
        yield Notice(
            strong(f"{counted(run.seeds, 'seed')}."),
            " No difference of two arms can be significant at .05 in a two-sided sign-flip test, however large:"
            f" its smallest p-value is {p(2 * 0.5**run.seeds)}.",
        )
    lines = undecidable(run.study)
    if lines:
        yield Notice(strong("Too few seeds."), f" {'. '.join(lines)}.")


def _verdicts_in_short(verdicts: Mapping[str, Any]) -> Iterator[Block]:
    found = Counter(one["verdict"] for one in verdicts["verdicts"])
    told = [f"{found[verdict]} {verdict}" for verdict in ("supported", "refuted", "undecided") if found[verdict]]
    yield Paragraph(f"Of {counted(len(verdicts['verdicts']), 'claim')}, {listed(told)}:")
    yield Items([(badge(one["verdict"]), f" {_capital(one['sentence'])}.") for one in verdicts["verdicts"]])


def _left(run: StudyRun) -> Iterator[Block]:
    """The networks that arms leave at their last depth, by the score that answers the study."""
    left, metric, named = run.left(), f"test_{run.score}", statistics.SCORE_NAMES[run.score]
    rows = [
        (
            str(row["arm"]),
            str(row["depth"]),
            f"{len(run.intact_of(left, str(row['arm']), metric))} of {row['seeds']}",
            shown(row[f"{metric}_mean"]),
            interval(row[f"{metric}_ci_low"], row[f"{metric}_ci_high"]),
            shown(row[f"{metric}_sd"]),
        )
        for row in statistics.summarise(left).to_dict("records")
    ]
    yield Table(
        f"What each arm leaves at its last depth: test {named} over its intact seeds",
        [Column("arm", numeric=False), "depth", "intact seeds", f"mean test {named}", "95 % interval", "sd over seeds"],
        rows,
        note=f"The finished network: fine-tuned where the arm fine-tunes. {UNITS[run.score]}",
    )
    if len(rows) > 1 and left[metric].notna().any():
        yield Drawing(
            partial(figures.by_arm, left, metric, unit=run.unit),
            f"Test {named} of the network that each arm leaves at its last depth, every seed a dot; n counts intact"
            " seeds. Arms are compared seed by seed below, for their spread over seeds is partly shared.",
        )


def claims(run: StudyRun) -> Section | None:
    """What was found of each claim; nothing where none is decided."""
    if run.verdicts is None:
        return None
    told = run.verdicts
    held = f"alpha {told['alpha']:g} for the whole family"
    looked = looks(run.study)
    if len(looked) > 1:
        held += f", divided by {len(looked)} looks ({listed([str(look) for look in looked])} seeds)"
    return Section(
        "Claims",
        [
            Paragraph(
                "Each was stated in the study file before training. It is supported where data such as these would be"
                " rare were it false, refuted where they would be rare were it true, and undecided otherwise. With"
                " Holm's procedure over all claims, a wrong verdict of either kind is given in no more studies than"
                f" {held} says."
            ),
            *(_card(run, one) for one in told["verdicts"]),
        ],
    )


def _card(run: StudyRun, told: Mapping[str, Any]) -> Card:
    claim = (run.study.claims or {})[told["claim"]]
    level = run.verdicts["level"] if run.verdicts else ALPHA
    blocks: list[Block] = [Paragraph(f"{_capital(told['sentence'])}."), Paragraph(_reason(told))]
    if any(one["seeds"] > 1 for one in told["evidence"]):
        drawn = partial(
            figures.evidence,
            told["evidence"],
            *_bounds(claim),
            names=[f"depth {_where(claim, one)}" for one in told["evidence"]],
            what=_estimate_with_unit(claim, told),
        )
        blocks.append(Drawing(drawn, _drawing_caption(claim, told)))
    blocks += [_evidence(claim, told), *_numbers(claim, told), Facts([*_facts(told, level)])]
    return Card(told["claim"], told["verdict"], blocks)


def _reason(told: Mapping[str, Any]) -> str:
    """The words of a verdict after the sentence, which stands above them already."""
    sentence = f"{_capital(told['sentence'])}: "
    verdict, found, reason = told["words"].partition(sentence)
    return f"{_capital(reason)} {_capital(verdict.strip())}" if found else told["words"]


def _facts(told: Mapping[str, Any], level: float) -> Iterator[tuple[str, Piece]]:
    yield "p after Holm", f"{p(told['p_adjusted'])} were the claim false; {p(told['p_against_adjusted'])} were it true"
    yield "level", f"{level:.3g}"
    yield "seeds trained", f"{told['seeds']}"
    if told["verdict"] == "undecided":
        needed = told["seeds_needed"]
        yield (
            "seeds needed",
            f"about {needed:,}, to decide it with probability .8 if the truth is what was seen"
            if needed
            else "no number is known to decide it, if the truth is what was seen",
        )


def _evidence(claim: Claim, told: Mapping[str, Any]) -> Table:
    rows = [
        (
            _where(claim, one),
            str(one["seeds"]),
            shown(one["estimate"]),
            interval(one["low"], one["high"]),
            interval(one["family_low"], one["family_high"]),
            p(one["p"]),
            p(one["p_against"]),
            *_broken(one),
        )
        for one in told["evidence"]
    ]
    headings = ["n", _estimate(claim, told), "95 % interval", "family interval"]
    return Table(
        "What each test found",
        ["depth", *headings, "p, were it false", "p, were it true", "broken seeds", "McNemar p"],
        rows,
        note="n: seeds that count. Family interval: the same interval at alpha divided by looks and claims, at each"
        " depth by itself; the tests, with Holm's procedure, decide, and not this interval. p: before Holm, were the"
        " claim false, or true. Broken: seeds that diverged or collapsed, on either side.",
    )


def _broken(one: Mapping[str, Any]) -> tuple[str, str]:
    """Seeds that broke on each side, and McNemar's p; of more than two sides, the fewest and the most."""
    counts = [side["diverged"] + side["collapsed"] for side in one["outcomes"]]
    seeds = one["outcomes"][0]["seeds"]
    if len(counts) > 2:
        counts = sorted({min(counts), max(counts)})
    told = (" / " if len(one["outcomes"]) == 2 else " to ").join(map(str, counts))
    return f"{told} of {seeds}", p(one["outcomes_p"])


NUMBERS = {
    "sd": "sd",
    "other_sd": "other sd",
    "interquartile_mean": "interquartile mean",
    "effect_size": "effect size",
    "rate": "rate",
    "other_rate": "other rate",
    "only_here": "seeds, here alone",
    "only_there": "seeds, there alone",
    "count": "seeds",
    "page_l": "Page's L",
    "wilcoxon_p": "Wilcoxon p, one-sided",
    "correlation": "correlation",
}
"""What else a test reports, as it is headed."""


def _numbers(claim: Claim, told: Mapping[str, Any]) -> Iterator[Table]:
    """What else the tests have to report: the values described."""
    numbers = [one["numbers"] if one["seeds"] > 1 else {} for one in told["evidence"]]
    known = [key for key in NUMBERS if any(own.get(key) is not None for own in numbers)]
    spans = {"BCa interval": ("bootstrap_low", "bootstrap_high")} if _has(numbers, "bootstrap_low") else {}
    if _has(numbers, "probability"):
        spans["its interval"] = ("probability_low", "probability_high")
    if not known and not spans:
        return
    shares = ["share as claimed"] if "its interval" in spans else []
    rows = [
        (
            _where(claim, one),
            *(_cell(key, own.get(key)) for key in known),
            *((short(own.get("probability")),) if shares else ()),
            *(interval(own.get(low), own.get(high)) for low, high in reversed(spans.values())),
        )
        for one, own in zip(told["evidence"], numbers, strict=True)
    ]
    yield Table(
        "The values over seeds, described",
        ["depth", *(_heading(claim, key) for key in known), *shares, *reversed(spans)],
        rows,
    )


def _heading(claim: Claim, key: str) -> str:
    """What a number is called; an effect is measured from what is claimed, and of an equivalence from zero."""
    from_bound = key == "effect_size" and not isinstance(claim, Equivalent)
    return f"{NUMBERS[key]}, from the bound as claimed" if from_bound else NUMBERS[key]


def _has(numbers: list[dict[str, Any]], key: str) -> bool:
    return any(own.get(key) is not None for own in numbers)


def _cell(key: str, value: Any) -> str:
    if key == "wilcoxon_p":
        return p(value)
    if key in {"correlation", "effect_size"}:
        return short(value)
    if key in {"only_here", "only_there", "count", "page_l"}:
        return f"{value:g}" if value is not None else shown(value)
    return shown(value)


def _where(claim: Claim, one: Mapping[str, Any]) -> str:
    """The depths that a test is of; a trend's is of all."""
    if claim.kind != "trend":
        return str(one["depth"])
    return depths_in_words([side["depth"] for side in one["outcomes"]])


ESTIMATES = {
    "compare": "mean difference",
    "equivalent": "mean difference",
    "trend": "mean slope a layer",
    "ordered": "mean rank correlation",
    "ratio": "ratio of sds",
}


def _estimate(claim: Claim, told: Mapping[str, Any]) -> str:
    """What a claim's tests estimate."""
    two = len(told["evidence"][0]["outcomes"]) > 1
    if claim.kind in {"bound", "rate"}:
        plain = "mean" if claim.kind == "bound" else "rate"
        return f"{plain} difference" if two and claim.kind == "bound" else "difference of rates" if two else plain
    return ESTIMATES[claim.kind]


def _estimate_with_unit(claim: Claim, told: Mapping[str, Any]) -> str:
    """The same, with the metric and its unit."""
    metric = getattr(claim, "metric", "").removeprefix(FINE_TUNED)
    plain = next((unit for ending, unit in METRIC_UNITS.items() if metric.endswith(ending)), "")
    per_layer = " a layer" if claim.kind == "trend" else ""
    unit = "" if claim.kind in {"ordered", "ratio"} or not plain else f" ({plain}{per_layer})"
    name = _estimate(claim, told).removesuffix(per_layer)
    return f"{name}, {metric.replace('_', ' ')}{unit}" if metric else f"{name}, {getattr(claim, 'outcome', '')}"


METRIC_UNITS = {
    "accuracy": "share of rows",
    "loss": "nats a row, or squared sds of the target",
    "reconstruction_mse": "squared units of the inputs",
    "mae": "units of the target",
    "live_units": "units",
    "effective_rank": "units",
}


def _bounds(claim: Claim) -> tuple[float | None, float | None]:
    """Between which limits the estimate lies if the claim holds."""
    match claim:
        case Equivalent():
            found = -claim.within, claim.within
        case Ratio(within=float(most)):
            found = 1 / most, most
        case Ratio():
            found = claim.above, claim.below
        case Compare(above=None) | Trend(direction="down"):
            found = None, -claim.by
        case Compare() | Trend():
            found = claim.by, None
        case Ordered():
            found = 0.0, None
        case Bound() | Rate(above=None, below=None):
            found = claim.at_least, claim.at_most
        case Rate():  # the own rate minus the other
            found = (None, 0.0) if claim.above is None else (0.0, None)
    return found


def _drawing_caption(claim: Claim, told: Mapping[str, Any]) -> str:
    counts = sorted({one["seeds"] for one in told["evidence"]})
    seeds = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    return (
        f"{_capital(_estimate(claim, told))}, {seeds} seeds: dots with 95 % intervals (thick), and intervals at the"
        " family's level (thin). Shaded: where the claim holds."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


__all__ = ["answer", "claims"]
