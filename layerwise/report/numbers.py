"""The parts of a study's report that hold its numbers: figures, results, differences, outcomes, the depth to keep."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from layerwise import comparison, figures, selection, statistics
from layerwise.report.page import Block, Column, Drawing, Paragraph, Section, Table
from layerwise.report.run import StudyRun
from layerwise.report.wording import counted, interval, listed, p, short, shown
from layerwise.study import StudyError, sides
from layerwise.study.claims import FINE_TUNED
from layerwise.study.scores import is_tuned

ARM = Column("arm", numeric=False)
PAIR = Column("arm minus other", numeric=False)
STATUS = Column("status", numeric=False)
NETWORKS = {"": "before tuning", FINE_TUNED: "fine-tuned"}


def drawings(run: StudyRun) -> Section:
    """Every score by depth, drawn."""
    captions = {
        f"{run.score}_by_depth": f"{statistics.SCORE_NAMES[run.score].capitalize()} on the training part and on the"
        " test part, by depth.",
        "reconstruction_by_depth": "Mean squared error of the reconstruction, by depth, on a logarithmic axis.",
        "live_units_by_depth": "Of the newest layer: units that still tell training rows apart, and the effective rank"
        " of its features.",
    }
    seeds = f" n = {counted(run.seeds, 'seed')} an arm; the title says what the marks are."
    blocks: list[Block] = [
        Drawing(draw, captions[name] + seeds) for name, draw in figures.of_scores(run.metrics, run.table)
    ]
    blocks.append(
        Paragraph(
            "Loss by epoch and, where there are any, decision regions and reconstructions are with each arm's run."
        )
    )
    return Section("Figures", blocks)


def results(run: StudyRun) -> Section:
    """Every score over seeds, by arm and depth."""
    named, parts = statistics.SCORE_NAMES[run.score], comparison.PARTS
    known = [part for part in parts if f"{part}_{run.score}" in run.metrics]
    means = [f"{part} {named}" for part in known if part != "test"]
    headings = [
        "depth",
        "seeds",
        "diverged",
        "collapsed",
        "n",
        *means,
        f"test {named}",
        "95 % t interval",
        "95 % BCa interval",
        "sd",
        "interquartile mean",
        "median",
    ]
    tuned = f"{FINE_TUNED}diverged" in run.metrics
    networks = [Column("network", numeric=False)] if tuned else []
    mae = ["test MAE"] if "test_mae" in run.metrics else []
    blocks: list[Block] = [
        Table(
            f"{named.capitalize()} by arm and depth: means over n intact seeds",
            [ARM, *networks, *headings, *mae],
            list(_result_rows(run, known, tuned=tuned)),
            note="n: seeds that neither diverged nor collapsed, over which means, intervals and sd (ddof 1)"
            " are taken. The median is over every seed that did not diverge. All scores, losses among them, are in"
            " results.csv and scores_by_seed.csv.",
        )
    ]
    if "train_reconstruction_mse" in run.metrics:
        blocks.append(_reconstruction(run))
    changes = comparison.from_first_to_last(run.metrics, f"test_{run.score}")
    if changes:
        rows, what = comparison.as_table(changes), f"last depth minus first, test {named}"
        blocks += [how_far(rows, [False] * len(rows), what), how_sure(rows, [False] * len(rows), what)]
    return Section("Results", blocks)


def _result_rows(run: StudyRun, parts: list[str], *, tuned: bool) -> Iterator[tuple[str, ...]]:
    for row in run.table.to_dict("records"):
        for prefix, network in NETWORKS.items():
            metric = f"{prefix}test_{run.score}"
            if prefix and not _scored(run, row, prefix):
                continue
            means = [shown(row.get(f"{prefix}{part}_{run.score}_mean")) for part in parts if part != "test"]
            scores = run.intact(str(row["arm"]), int(row["depth"]), metric)
            yield (
                str(row["arm"]),
                *((network if _can_be_tuned(run, row) else "as trained",) if tuned else ()),
                str(row["depth"]),
                str(row["seeds"]),
                str(row[f"{prefix}diverged"]),
                str(row[f"{prefix}collapsed"]),
                str(len(scores)),
                *means,
                shown(row[f"{metric}_mean"]),
                interval(row[f"{metric}_ci_low"], row[f"{metric}_ci_high"]),
                interval(*statistics.bootstrap_interval(scores)),
                shown(row[f"{metric}_sd"]),
                shown(statistics.interquartile_mean(scores)),
                shown(row[f"{metric}_median"]),
                *((shown(row[f"{prefix}test_mae_mean"]),) if "test_mae" in run.metrics else ()),
            )


def _can_be_tuned(run: StudyRun, row: dict[str, Any]) -> bool:
    return is_tuned(run.study.procedure(str(row["arm"])), int(row["depth"]))


def _scored(run: StudyRun, row: dict[str, Any], prefix: str) -> bool:
    """Whether an arm has such a network at a depth."""
    own = run.metrics[(run.metrics["arm"] == row["arm"]) & (run.metrics["depth"] == row["depth"])]
    return f"{prefix}diverged" in own and bool(own[f"{prefix}diverged"].notna().any())


def _reconstruction(run: StudyRun) -> Table:
    rows = [
        (
            str(row["arm"]),
            str(row["depth"]),
            shown(row["train_reconstruction_mse_mean"]),
            shown(row["test_reconstruction_mse_mean"]),
            interval(row["test_reconstruction_mse_ci_low"], row["test_reconstruction_mse_ci_high"]),
            shown(row["test_reconstruction_mse_median"]),
            shown(row.get("reconstruction_r2_mean")),
            short(row.get("live_units_mean")),
            short(row.get("effective_rank_mean")),
        )
        for row in run.table.to_dict("records")
        if pd.notna(row["train_reconstruction_mse_median"])
    ]
    return Table(
        "Reconstruction by arm and depth: means over intact seeds",
        [ARM, "depth", "train MSE", "test MSE", "95 % interval", "median", "train R2", "live units", "effective rank"],
        rows,
        note="MSE in squared units of the inputs as the network sees them. R2: share of the inputs' variance explained."
        " Live units and effective rank: of the newest layer, on training rows.",
    )


def differences(run: StudyRun) -> Section:
    """How the arms that the study compares differ, paired by seed."""
    found = run.differences
    if found is None or found.empty:
        why = "There is one arm" if len(run.study.arms) == 1 else "No two arms are complete"
        return Section("Differences between arms", [Paragraph(f"{why}, so there is nothing to compare between arms.")])
    metric, claimed = f"test_{run.score}", _claimed(run)
    nowhere = found["seeds"] == 0
    main = found[(found["metric"] == metric) & ~nowhere]
    marked = [_place(row) in claimed for row in main.to_dict("records")]
    named = statistics.SCORE_NAMES[run.score]
    blocks: list[Block] = [
        Paragraph(
            "Each seed's difference between the networks that two arms leave, over the seeds that are intact in both."
            " A pair marked claimed is decided above, with Holm's correction; every other one was not claimed before"
            " training: it explores, its p-values are two-sided and not corrected for how many there are, and it"
            " decides nothing."
        )
    ]
    if nowhere.any():
        lost = dict.fromkeys(f"{_pair(row)} at depth {_at(row)}" for row in found[nowhere].to_dict("records"))
        blocks.append(Paragraph(f"No seed is intact in both arms of {listed(list(lost))}."))
    if main.empty:
        return Section("Differences between arms", blocks)
    if (main["seeds"] > 1).any():
        blocks.append(
            Drawing(
                partial(figures.differences, main, marked, unit=f"mean difference in {run.unit}"),
                f"Mean difference in test {named}, paired by seed, with 95 % t intervals; right of the line the first"
                " arm is ahead. The number after each pair is n, the seeds intact in both.",
            )
        )
    blocks += [how_far(main, marked, f"test {named}"), how_sure(main, marked, f"test {named}")]
    others = found[(found["metric"] != metric) & ~nowhere]
    if not others.empty:
        blocks.append(how_far(others, [_place(row) in claimed for row in others.to_dict("records")], "other parts"))
    return Section("Differences between arms", blocks)


def _place(row: dict[str, Any]) -> tuple[frozenset[tuple[str, int]], str]:
    """What a difference is of, whichever arm is taken off."""
    return frozenset({(str(row["arm"]), int(row["depth"])), (str(row["minus"]), int(row["other_depth"]))}), str(
        row["metric"]
    )


def _claimed(run: StudyRun) -> set[tuple[frozenset[tuple[str, int]], str]]:
    """The differences between two networks that arms leave of which a claim speaks."""
    found = set()
    for claim in (run.study.claims or {}).values():
        if claim.kind not in {"compare", "equivalent", "bound"}:
            continue
        for scores in sides(run.study, claim):
            finished = all(bool(one.prefix) == is_tuned(run.study.procedure(one.arm), one.depth) for one in scores)
            if len(scores) == 2 and finished:
                places = frozenset((one.arm, one.depth) for one in scores)
                found.add((places, scores[0].column.removeprefix(scores[0].prefix)))
    return found


def _pair(row: dict[str, Any]) -> str:
    return f"{row['arm']} minus {row['minus']}"


def _at(row: dict[str, Any]) -> str:
    same = row["depth"] == row["other_depth"]
    return str(row["depth"]) if same else f"{row['depth']} / {row['other_depth']}"


def how_far(found: pd.DataFrame, claimed: list[bool], what: str) -> Table:
    """The differences described: means, intervals, spread.

    Args:
        found: a row for each pair and depth, as :func:`layerwise.comparison.as_table` gives.
        claimed: for each row, whether a claim speaks of it.
        what: of what they are.
    """
    several = found["metric"].nunique() > 1 or what == "other parts"
    scores = [Column("score", numeric=False)] if several else []
    rows = [
        (
            _pair(row),
            *((str(row["metric"]).replace("_", " "),) if several else ()),
            _at(row),
            str(row["seeds"]),
            shown(row["mean"], signed=True),
            interval(row["ci_low"], row["ci_high"], signed=True),
            interval(row["bootstrap_low"], row["bootstrap_high"], signed=True),
            shown(row["sd"]),
            shown(row["interquartile_mean"], signed=True),
            "claimed" if is_claimed else "explored",
        )
        for row, is_claimed in zip(found.to_dict("records"), claimed, strict=True)
    ]
    headings = ["depth", "n", "mean", "95 % t interval", "95 % BCa interval", "sd", "interquartile mean"]
    return Table(
        f"How far apart: {what}, first arm minus second",
        [PAIR, *scores, *headings, STATUS],
        rows,
    )


def how_sure(found: pd.DataFrame, claimed: list[bool], what: str) -> Table:
    """The differences tested; the arguments are those of :func:`how_far`."""
    rows = [
        (
            _pair(row),
            _at(row),
            str(row["seeds"]),
            short(row["probability"]),
            f"{short(row['probability_low'])} to {short(row['probability_high'])}" if row["seeds"] else shown(None),
            short(row["effect_size"]),
            p(row["sign_flip_p"]),
            p(row["wilcoxon_p"]),
            short(row["correlation"]),
            "claimed" if is_claimed else "explored",
        )
        for row, is_claimed in zip(found.to_dict("records"), claimed, strict=True)
    ]
    return Table(
        f"How sure: {what}",
        [
            PAIR,
            "depth",
            "n",
            "P(A>B)",
            "95 % interval",
            "effect size",
            "sign-flip p",
            "Wilcoxon p",
            "correlation",
            STATUS,
        ],
        rows,
        note="P(A>B): how often the first arm is ahead on the same seed, a tie counting half, with Wilson's interval."
        " Effect size: mean over sd of the differences, corrected for small samples (Hedges). Correlation of the two"
        " arms over seeds is what pairing bought: at equal spreads the variance of a difference is 1 minus it times"
        " that of unpaired arms. Wilcoxon's null is symmetry, not a mean; it is reported, and decides nothing.",
    )


def outcomes(run: StudyRun) -> Section:
    """How many seeds diverged or collapsed, and where arms differ in that."""
    rows = [
        (
            str(row["arm"]),
            *(
                (network if _can_be_tuned(run, row) else "as trained",)
                if f"{FINE_TUNED}diverged" in run.metrics
                else ()
            ),
            str(row["depth"]),
            str(row["seeds"]),
            *(
                cell
                for outcome in ("diverged", "collapsed")
                for cell in _rate(int(row[f"{prefix}{outcome}"]), int(row["seeds"]))
            ),
        )
        for row in run.table.to_dict("records")
        for prefix, network in NETWORKS.items()
        if (not prefix or _scored(run, row, prefix)) and row[f"{prefix}diverged"] + row[f"{prefix}collapsed"]
    ]
    meant = (
        "A seed has diverged if a loss, weight or score is not finite; it has collapsed if neither its reconstruction"
        " nor least squares on its features explains .85 of what PCA explains with as many components."
    )
    if not rows:
        return Section("Outcomes", [Paragraph(f"No seed diverged or collapsed, in any arm at any depth. {meant}")])
    networks = [Column("network", numeric=False)] if f"{FINE_TUNED}diverged" in run.metrics else []
    table = Table(
        "Seeds that diverged or collapsed; an arm and depth without any has no row",
        [ARM, *networks, "depth", "seeds", "diverged", "rate, 95 % interval", "collapsed", "rate, 95 % interval"],
        rows,
        note="Wilson's intervals.",
    )
    return Section(
        "Outcomes",
        [Paragraph(f"{meant} Both are counted, and no mean mixes them with intact seeds."), table, *_mcnemar(run)],
    )


def _rate(count: int, seeds: int) -> tuple[str, str]:
    found = statistics.share(count, seeds)
    return str(count), f"{found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})"


def _mcnemar(run: StudyRun) -> Iterator[Table]:
    """Pairs of arms of which either has broken seeds."""
    found = run.differences
    if found is None or found.empty:
        return
    main = found[(found["metric"] == f"test_{run.score}") & (found["broken"] + found["other_broken"] > 0)]
    if not main.empty:
        yield Table(
            "Do two arms differ in how many seeds broke? Diverged or collapsed, McNemar's test",
            [PAIR, "depth", "broken, first", "broken, second", "McNemar p"],
            [
                (_pair(row), _at(row), str(row["broken"]), str(row["other_broken"]), p(row["outcomes_p"]))
                for row in main.to_dict("records")
            ],
            note="Exact and two-sided. Where it is small, the seeds that are left do not speak for all.",
        )


def depth(run: StudyRun) -> Section:
    """The depth that the validation part chooses, where there is one."""
    never = "Nothing selects on the test part: it is scored once for each arm, seed and depth."
    if not run.study.data.split.validation:
        return Section(
            "Depth to keep",
            [
                Paragraph(
                    f"The study has no validation part, so no depth, arm or model is selected by its score. {never}"
                )
            ],
        )
    rows = [_choice(run, arm) for arm in run.arms]
    named = statistics.SCORE_NAMES[run.score]
    return Section(
        "Depth to keep",
        [
            Paragraph(
                f"The smallest depth within one standard error of the best mean validation {named}, paired by seed."
                f" {never}"
            ),
            Table(
                f"The depth that validation {named} chooses",
                [
                    ARM,
                    "chosen depth",
                    f"validation {named} there",
                    "best depth",
                    "shortfall",
                    "its standard error",
                    "n",
                ],
                rows,
                note="Shortfall: mean paired difference, best minus chosen. A dash: no depth at which two seeds, and"
                " half of all, are intact.",
            ),
            *_chosen(run, named),
        ],
    )


def _chosen(run: StudyRun, named: str) -> list[Block]:
    """The network to keep; none while seeds are missing, or where no arm has a depth to choose."""
    if run.missing():
        return []
    try:
        chosen = selection.chosen_network(run.metrics, run.arms)
    except StudyError:
        return []
    return [
        Paragraph(
            f"Of the arms at these depths the one with the best mean, and of its {chosen.intact} intact seeds the best:"
            f" the network to keep is that of {chosen.place}. Its own validation {named}, {chosen.score:.4f}, is"
            " flattered by that choice; the mean above says what the procedure gives."
        )
    ]


def _choice(run: StudyRun, arm: str) -> tuple[str, ...]:
    try:
        found = selection.chosen_depth(run.metrics, arm)
    except StudyError:
        return (arm, *[shown(None)] * 6)
    return (
        arm,
        str(found.depth),
        shown(found.mean),
        str(found.best_depth),
        shown(found.shortfall),
        shown(found.error),
        str(found.seeds),
    )
