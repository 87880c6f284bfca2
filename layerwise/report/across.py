"""The page of a comparison: tracked runs side by side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from layerwise import figures, statistics
from layerwise.across import Across
from layerwise.comparison import as_table
from layerwise.report.numbers import how_far, how_sure
from layerwise.report.page import Block, Column, Drawing, Items, Page, Paragraph, Pieces, Section, Table, strong
from layerwise.report.wording import counted, is_missing, listed, p, shown


def across_page(found: Across) -> Page:
    """The page of a comparison: :func:`layerwise.report.html` and :func:`layerwise.report.markdown` render it.

    Args:
        found: as :func:`layerwise.across.compare_runs` gives.
    """
    first, *others = found.runs
    named = statistics.SCORE_NAMES[found.score]
    sections = [
        _answer(found),
        _differences(found),
        _outcomes(found),
        _settings(found),
        _circumstances(found),
        Section("How to read this", [Items(list(_caveats(found)))]),
    ]
    return Page(
        title=f"{listed([run.name for run in others])} against {first.name}",
        kicker="Comparison of runs",
        lead=f"Test {named} of the networks that arms leave, paired by the seeds that both runs have.",
        sections=[section for section in sections if section is not None],
        footer="This file holds all that it shows: no script, nothing from elsewhere.",
    )


def _answer(found: Across) -> Section:
    """Each pair of arms at the last depth that both have, in words; and what stands in one run alone."""
    last = {(one.arm, one.minus): place for place, one in enumerate(found.tested)}
    words = [_in_words(found, place) for place in last.values()]
    blocks: list[Block] = [Items(words)]
    if found.arms_apart:
        apart = [f"{listed(list(arms))} in {name}" for name, arms in found.arms_apart]
        blocks.append(Paragraph(f"Without a counterpart, and left out: {'; '.join(apart)}."))
    return Section("Answer", blocks)


def _in_words(found: Across, place: int) -> Pieces:
    one, adjusted = found.tested[place], found.adjusted[place]
    depth = f"depth {one.depth}" if one.depth == one.other_depth else f"depths {one.depth} and {one.other_depth}"
    pair = strong(f"{one.arm} minus {one.minus}")
    if not one.values.seeds:
        return (pair, f" at {depth}: no seed is intact in both, so there is nothing to compare.")
    limits = (
        ""
        if is_missing(one.values.ci_low)
        else f" (95 % interval {shown(one.values.ci_low, signed=True)} to {shown(one.values.ci_high, signed=True)})"
    )
    return (
        pair,
        f" at {depth}: {shown(one.values.mean, signed=True)}{limits} over {counted(one.values.seeds, 'seed')};"
        f" p {p(one.sign_flip_p)}, {p(adjusted)} after Holm.",
    )


def _differences(found: Across) -> Section:
    rows, named = as_table(found.tested), f"test {statistics.SCORE_NAMES[found.score]}"
    claimed, blocks = [False] * len(rows), list[Block]()
    if (rows["seeds"] > 1).any():
        share = "share of rows" if found.score == "accuracy" else "share of variance"
        blocks.append(
            Drawing(
                partial(
                    figures.differences,
                    rows,
                    claimed,
                    unit=f"mean difference in test {statistics.SCORE_NAMES[found.score]} ({share})",
                ),
                f"Mean difference in {named}, paired by seed, with 95 % t intervals; right of the line the first is"
                " ahead. The number after each pair is n, the seeds intact in both.",
            )
        )
    blocks += [how_far(rows, claimed, named), how_sure(rows, claimed, named), _holm(found)]
    others = as_table([one for one in found.differences if one not in found.tested])
    if len(others):
        blocks.append(how_far(others, [False] * len(others), "other parts"))
    return Section("Differences between runs", blocks)


def _holm(found: Across) -> Table:
    rows = [
        (f"{one.arm} minus {one.minus}", str(one.depth), p(one.sign_flip_p), p(adjusted))
        for one, adjusted in zip(found.tested, found.adjusted, strict=True)
    ]
    return Table(
        f"Sign-flip tests on the test part, two-sided, and after Holm over all {len(rows)}",
        [Column("pair", numeric=False), "depth", "p", "p after Holm"],
        rows,
    )


def _outcomes(found: Across) -> Section:
    rows = [
        (f"{one.arm} minus {one.minus}", str(one.depth), str(one.broken), str(one.other_broken), p(one.outcomes_p))
        for one in found.tested
        if one.broken or one.other_broken
    ]
    if not rows:
        return Section("Outcomes", [Paragraph("No seed that is compared diverged or collapsed, in any run.")])
    return Section(
        "Outcomes",
        [
            Table(
                "Shared seeds that diverged or collapsed; a pair without any has no row",
                [Column("pair", numeric=False), "depth", "broken, first", "broken, second", "McNemar p"],
                rows,
                note="Where the two differ in that, the seeds that are left do not speak for all.",
            )
        ],
    )


def _settings(found: Across) -> Section:
    if not found.settings:
        return Section("Asked differently", [Paragraph("Nothing: the arms that are compared have the same settings.")])
    words = [Column(heading, numeric=False) for heading in ("arm", "against", "setting", "here", "there")]
    return Section(
        "Asked differently", [Table("Settings in which arms that are compared differ", words, found.settings)]
    )


def _circumstances(found: Across) -> Section:
    if not found.circumstances:
        told = "The runs were made with the same code and libraries, on the same machine type."
        return Section("Made differently", [Paragraph(told)])
    names = [Column(run.name, numeric=False) for run in found.runs]
    rows = [(what, *values) for what, values in found.circumstances]
    return Section(
        "Made differently",
        [Table("Versions, machine and code in which runs differ", [Column("", numeric=False), *names], rows)],
    )


def _caveats(found: Across) -> Iterator[Pieces]:
    first, *others = found.runs
    shared = [f"{counted(seeds, 'seed')} with {run.name}" for run, seeds in zip(others, found.seeds, strict=True)]
    yield (
        strong("Paired by seed. "),
        f"{first.name} shares {listed(shared)}; seeds that one run alone has are left out.",
    )
    yield (
        strong("Explored, not claimed. "),
        "None of this was claimed before it was trained. The p-values after Holm allow for all that is tested here, but"
        " not for why these runs were chosen.",
    )
    yield (
        strong("p-values speak of seeds "),
        "and splits of this one data set, not of other data. Means are over the seeds that neither diverged nor"
        " collapsed in either run.",
    )
    yield (strong("No difference "), "is shown by an equivalence claim with a margin, never by a large p-value.")


__all__ = ["across_page"]
