"""Figures: each a function from numbers to a Matplotlib figure, with nothing drawn on a screen.

The colours are Okabe and Ito's, then Tol's, which colour-blind readers can tell apart; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from layerwise.datasets import View
from layerwise.statistics import intact, main_score, t_interval

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#44AA99", "#332288", "#AA4499"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
PARTS = {"train": "training part", "test": "test part"}
MOST_WITH_SEEDS = 4
"""Lines in a panel up to which each seed has a thin line of its own; more would hide one another."""

MARKS = ("mean", "95 % interval", "every seed", "collapsed seeds (x)", "median where none is intact (dotted)")
"""What figures by depth may show, in the words of their titles."""


def of_scores(metrics: pd.DataFrame, table: pd.DataFrame) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Every figure of scores by depth that a study has numbers for: its name, and what draws it.

    Args:
        metrics: one row per arm, seed and depth.
        table: its summary.
    """
    yield f"{main_score(metrics)}_by_depth", partial(score_by_depth, metrics, table)
    if "train_reconstruction_mse" in metrics and metrics["train_reconstruction_mse"].notna().any():
        yield "reconstruction_by_depth", partial(reconstruction_by_depth, metrics, table)
    yield "live_units_by_depth", partial(live_units_by_depth, metrics, table)


def score_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Accuracy, or R2 where numbers are predicted, against depth.

    The mean over intact seeds, its 95 % interval as a band, every seed as a thin line. All arms share the axes, a
    little beside one another. Fine-tuned networks are dashed, collapsed seeds are crosses, and where no seed is intact
    a dotted line is the median. Seeds have no lines of their own where arms are many.

    Args:
        metrics: one row per arm, seed and depth, as :meth:`layerwise.answers.Result.metrics` gives.
        table: its summary, as :func:`layerwise.statistics.summarise` gives.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels, marks, score = figure.subplots(1, 2, sharey=True), set(), main_score(metrics)
    for axes, part in zip(panels, PARTS, strict=True):
        marks |= _draw(axes, metrics, table, f"{part}_{score}")
        axes.set_title(PARTS[part])
    name, unit = {"accuracy": ("Accuracy", "share of rows"), "r2": ("R2", "share of variance")}[score]
    panels[0].set_ylabel(f"{name if score == 'r2' else name.lower()} ({unit})")
    _finish(figure, panels[0], table, f"{name} by depth", marks)
    return figure


def reconstruction_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Mean squared reconstruction error against depth, on a logarithmic axis; drawn as :func:`score_by_depth`."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels, marks = figure.subplots(1, 2, sharey=True), set()
    for axes, part in zip(panels, PARTS, strict=True):
        if (metrics[f"{part}_reconstruction_mse"] > 0).any():
            axes.set_yscale("log")
        marks |= _draw(axes, metrics, table, f"{part}_reconstruction_mse")
        axes.set_title(PARTS[part])
    panels[0].set_ylabel("reconstruction error (squared input units)")
    _finish(figure, panels[0], table, "Reconstruction error by depth", marks)
    return figure


def live_units_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Units of the newest layer that still tell training rows apart, and the effective rank of its features."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels, marks = figure.subplots(1, 2), set()
    for axes, (name, label) in zip(
        panels, {"live_units": "live units", "effective_rank": "effective rank (units)"}.items(), strict=True
    ):
        marks |= _draw(axes, metrics, table, name)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    _finish(figure, panels[0], table, "What the newest layer's features still tell", marks)
    return figure


def decision_regions(
    points: np.ndarray, targets: np.ndarray, classify: dict[int, Callable[[np.ndarray], np.ndarray]], *, seed: int
) -> Figure:
    """The classes that the networks of one seed give the plane, one panel a depth, over the test rows.

    Args:
        points: ``(rows, 2)`` test rows, as the networks see them.
        targets: ``(rows,)`` their classes.
        classify: depth -> a function from ``(n, 2)`` float32 points to ``(n,)`` classes.
        seed: whose networks they are.
    """
    columns = min(4, len(classify))
    lines = -(-len(classify) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * lines + 0.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    low, high = points.min(axis=0) - 0.5, points.max(axis=0) + 0.5
    horizontal, vertical = np.meshgrid(np.linspace(low[0], high[0], 160), np.linspace(low[1], high[1], 160))
    grid = np.column_stack([horizontal.ravel(), vertical.ravel()]).astype(np.float32)
    classes = int(targets.max()) + 1
    shades = ListedColormap([COLOURS[index % len(COLOURS)] for index in range(classes)])
    for axes, (depth, decide) in zip(panels, classify.items(), strict=False):
        regions = decide(grid).reshape(horizontal.shape)
        axes.pcolormesh(horizontal, vertical, regions, cmap=shades, vmin=0, vmax=classes - 1, alpha=0.25, lw=0)
        axes.scatter(points[:, 0], points[:, 1], c=targets, cmap=shades, s=3, vmin=0, vmax=classes - 1, lw=0)
        axes.set_title(f"depth {depth}", fontsize=9)
    for axes in panels[len(classify) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(classify) - columns) : len(classify)]:
        axes.tick_params(labelbottom=True)  # the last of its column, where the row below is not full
    figure.supxlabel("feature 1", fontsize=9)
    figure.supylabel("feature 2", fontsize=9)
    figure.suptitle(f"Decision regions of seed {seed} over {len(points)} test rows", fontsize=11)
    return figure


def reconstructions(
    images: np.ndarray, rebuild: dict[int, Callable[[np.ndarray], np.ndarray]], shape: tuple[int, ...], *, seed: int
) -> Figure:
    """Test images, and what the autoencoders of one seed make of them at each depth, a row a depth.

    Args:
        images: ``(n, features)`` float32.
        rebuild: depth -> a function from images to images.
        shape: height and width of an image.
        seed: whose networks they are.
    """
    rows = {"input": images, **{f"depth {depth}": make(images) for depth, make in rebuild.items()}}
    figure = Figure(figsize=(0.7 * len(images) + 1, 0.75 * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), len(images), squeeze=False)
    for line, (label, shown) in zip(panels, rows.items(), strict=True):
        for axes, image in zip(line, shown, strict=True):
            axes.imshow(image.reshape(shape), cmap="gray_r", vmin=images.min(), vmax=images.max())
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(f"Reconstructions of {len(images)} test images, seed {seed}", fontsize=11)
    return figure


def scatter(view: View, classes: Sequence[str], *, seed: int) -> Figure:
    """The two-dimensional data of a block's first seed by class, training and test part side by side."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (part, rows) in zip(panels, {"train": view.train, "test": view.test}.items(), strict=True):
        points, targets = view.inputs_of(rows)[0], view.targets_of(rows)[0]
        for index, name in enumerate(classes):
            chosen = points[targets == index]
            style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=14,
                alpha=0.7,
                linewidths=0,
                label=f"class {name}".replace("$", r"\$"),
                **style,
            )
        axes.set_title(f"{PARTS[part]}, {len(points)} rows")
        axes.set_xlabel("feature 1")
    panels[0].set_ylabel("feature 2")
    panels[0].legend(loc="best", framealpha=0.9)
    figure.suptitle(f"The data as seed {seed} sees them", fontsize=11)
    return figure


def loss_curves(curves: dict[str, list[np.ndarray]]) -> Figure:
    """Mean training loss of each epoch, stage after stage, one line for each arm.

    Args:
        curves: arm -> one ``(seeds, epochs)`` array for each stage, bottom up.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (arm, stages) in enumerate(curves.items()):
        start, label = 0, arm
        for curve in stages:
            if curve.shape[1]:
                epochs = np.arange(start + 1, start + curve.shape[1] + 1)
                median = np.ma.median(np.ma.masked_invalid(curve), axis=0)
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(epochs, np.ma.filled(median, np.nan), color=colour, linewidth=1.2, label=label)
                label = "_nolegend_"
            axes.axvline(start + 0.5, color="0.85", linewidth=0.8, zorder=0)
            start += curve.shape[1]
    if any(
        (curve > 0).any() for stages in curves.values() for curve in stages
    ):  # not where every seed diverged at once
        axes.set_yscale("log")
    axes.set_xlabel("epoch (a grey line opens each stage)")
    axes.set_ylabel("training loss (nats a row, or squared units)")
    seeds = len(next(iter(curves.values()))[0])
    axes.set_title(f"Training loss, median of {seeds} seeds", fontsize=11)
    _legend(figure, axes)
    return figure


def by_arm(left: pd.DataFrame, metric: str, *, unit: str) -> Figure:
    """A score of every arm, a row each: seeds as dots, their mean with its 95 % interval, collapsed seeds as crosses.

    Args:
        left: one row per arm and seed, of one network of each arm.
        metric: the score.
        unit: what the horizontal axis shows, with its unit.
    """
    arms = list(left["arm"].unique())
    figure = Figure(figsize=(9, 1.3 + 0.34 * len(arms)), layout="constrained")
    axes, marks = figure.subplots(), {"mean", "95 % interval", "every seed"}
    for place, arm in enumerate(arms):
        own = left[left["arm"] == arm]
        sound, found = intact(own, metric), own[metric].to_numpy(float)
        colour, finite = COLOURS[place % len(COLOURS)], np.isfinite(found)
        values, crossed = found[sound & finite], found[~sound & finite]
        axes.scatter(values, np.full(len(values), place - 0.16), color=colour, s=12, alpha=0.45, linewidths=0, zorder=2)
        axes.scatter(crossed, np.full(len(crossed), place - 0.16), color=colour, s=16, marker="x", lw=0.8, zorder=2)
        marks |= {MARKS[3]} if len(crossed) else set()
        low, high = t_interval(values)
        axes.hlines(place + 0.16, low, high, color=colour, linewidth=2, zorder=3)
        if len(values):
            axes.plot(values.mean(), place + 0.16, MARKERS[place % len(MARKERS)], color=colour, ms=6, zorder=4)
    counts = [f"{arm}, n = {int((intact(own, metric) & own[metric].notna()).sum())}" for arm, own in _of_arms(left)]
    _rows_of(axes, counts, unit)
    figure.suptitle(f"At the last depth: {', '.join(mark for mark in MARKS if mark in marks)}", fontsize=11)
    return figure


def _of_arms(left: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((str(arm), own) for arm, own in left.groupby("arm", sort=False))


def _rows_of(axes: Axes, names: Sequence[str], what: str) -> None:
    """Rows with names, the first on top, along an axis of numbers."""
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))  # long names leave the axis little room
    axes.set_xlabel(what)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def differences(found: pd.DataFrame, claimed: Sequence[bool], *, unit: str) -> Figure:
    """How far arms are apart: the mean difference of each pair with its 95 % interval, a row each.

    Args:
        found: a row for each pair and depth, as :func:`layerwise.comparison.as_table` gives, of one metric.
        claimed: for each row, whether a claim speaks of it; its mark is filled then, and open otherwise.
        unit: what the horizontal axis shows, with its unit.
    """
    figure = Figure(figsize=(9, 1.3 + 0.28 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    for place, (row, is_claimed) in enumerate(zip(found.to_dict("records"), claimed, strict=True)):
        look: dict[str, Any] = {"color": COLOURS[0] if is_claimed else COLOURS[6], "zorder": 2}
        axes.hlines(place, row["ci_low"], row["ci_high"], linewidth=1.6, **look)
        axes.plot(row["mean"], place, "o" if is_claimed else "s", ms=5, mfc=None if is_claimed else "white", **look)
    _rows_of(axes, [_pair(row) for row in found.to_dict("records")], unit)
    marks = {"claimed (dot)": any(claimed), "explored (open square)": not all(claimed)}
    told = ", ".join(mark for mark, used in marks.items() if used)
    figure.suptitle(f"Paired mean difference, 95 % interval; {told}", fontsize=11)
    return figure


def _pair(row: dict[str, Any]) -> str:
    same = row["depth"] == row["other_depth"]
    depth = f"depth {row['depth']}" if same else f"depths {row['depth']} and {row['other_depth']}"
    return f"{row['arm']} minus {row['minus']}, {depth}, n = {row['seeds']}"


def evidence(
    found: Sequence[Mapping[str, Any]], low: float | None, high: float | None, *, names: Sequence[str], what: str
) -> Figure:
    """What the tests of a claim estimate, against the values for which it holds; a row each.

    Args:
        found: for each test ``seeds``, ``estimate``, ``low`` and ``high`` (95 %), ``family_low`` and
            ``family_high`` (at the level of the family of claims); ``None`` where a number is not known.
        low: below it the claim does not hold; ``None`` if there is no such limit.
        high: above it.
        names: what each test is of.
        what: what is estimated.
    """
    figure = Figure(figsize=(9, 1.1 + 0.26 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(found):
        number = {key: np.nan if one[key] is None else float(one[key]) for key in SPAN}
        axes.hlines(place, number["family_low"], number["family_high"], color=COLOURS[6], linewidth=0.9, zorder=2)
        axes.hlines(place, number["low"], number["high"], color=COLOURS[6], linewidth=2.6, zorder=3)
        axes.plot(number["estimate"], place, "o", color=COLOURS[6], ms=5.5, zorder=4)
    _shade(axes, low, high)
    _rows_of(axes, [f"{name}, n = {one['seeds']}" for name, one in zip(names, found, strict=True)], what)
    return figure


SPAN = ("estimate", "low", "high", "family_low", "family_high")


def _shade(axes: Axes, low: float | None, high: float | None) -> None:
    """Where a claim holds, with the limits as lines; the axis reaches beyond each."""
    known = [limit for limit in (low, high) if limit is not None]
    left, right = axes.get_xlim()
    left, right = min(left, *known), max(right, *known)
    margin = 0.06 * ((right - left) or 1)
    left, right = left - margin, right + margin
    axes.axvspan(left if low is None else low, right if high is None else high, color=COLOURS[5], alpha=0.22, lw=0)
    for limit in known:
        axes.axvline(limit, color=COLOURS[0], linewidth=1.2, linestyle="--")
    axes.set_xlim(left, right)


def save(figure: Figure, place: str | BinaryIO, *, metadata: dict[str, None] | None = None) -> None:
    """Write a figure, the same bytes for the same numbers: no date, fixed identifiers.

    Args:
        figure: what is drawn.
        place: a path, whose ending says the format, or a stream, which gets an SVG.
        metadata: what the file says of itself, by the format's names.
    """
    kind = place.rpartition(".")[2] if isinstance(place, str) else "svg"
    with mpl.rc_context({"svg.hashsalt": "layerwise", "svg.fonttype": "path"}):
        figure.savefig(place, format=kind, dpi=120, metadata=metadata or ({"Date": None} if kind == "svg" else None))


@dataclass(frozen=True)
class _Line:
    """One arm's metric by depth, ready to draw."""

    label: str
    name: str
    metrics: pd.DataFrame
    rows: pd.DataFrame
    index: int
    tuned: bool


def _lines(metrics: pd.DataFrame, table: pd.DataFrame, name: str) -> Iterator[_Line]:
    """A line for each arm that has the metric, and one for its fine-tuned networks."""
    for index, (arm, rows) in enumerate(table.groupby("arm", sort=False)):
        own = metrics[metrics["arm"] == arm]
        for prefix in ("", "fine_tuned_"):
            scored = f"{prefix}{name}"
            if scored in own and own[scored].notna().any():
                label = f"{arm}, fine-tuned" if prefix else str(arm)
                yield _Line(label, scored, own, rows[rows[f"{scored}_median"].notna()], index, bool(prefix))


def _draw(axes: Axes, metrics: pd.DataFrame, table: pd.DataFrame, name: str) -> set[str]:
    """A metric of every arm by depth, each a little beside the others, so that none hides another; the marks used."""
    lines, marks = list(_lines(metrics, table, name)), {"mean", "95 % interval"}
    span = max(1, int(table["depth"].max() - table["depth"].min()))
    step = min(0.4 / max(1, len(lines)), 0.02 * span)
    for place, line in enumerate(lines):
        shift = (place - (len(lines) - 1) / 2) * step
        marks |= _draw_seeds(axes, line, shift, singly=len(lines) <= MOST_WITH_SEEDS)
        marks |= _draw_mean(axes, line, shift)
    axes.set_xlabel("depth (hidden layers)")
    depths = sorted(table["depth"].unique())
    axes.set_xticks(depths[:: max(1, len(depths) // 12)])
    return marks


def _draw_seeds(axes: Axes, line: _Line, shift: float, *, singly: bool) -> set[str]:
    """Intact seeds as thin lines where there is room for them, collapsed seeds as crosses."""
    colour, sound = COLOURS[line.index % len(COLOURS)], intact(line.metrics, line.name)
    for _, seed in line.metrics[sound].groupby("seed") if singly else ():
        dot = "." if len(seed) == 1 else ""
        depths = seed["depth"] + shift
        axes.plot(depths, seed[line.name], marker=dot, color=colour, alpha=0.15, linewidth=0.6, ms=4, zorder=1)
    broken = line.metrics[~sound & np.isfinite(line.metrics[line.name].to_numpy(float))]
    depths = broken["depth"] + shift
    axes.scatter(depths, broken[line.name], color=colour, marker="x", s=14, linewidths=0.7, alpha=0.6, zorder=2)
    return {mark for mark, used in zip(MARKS[2:4], (singly, len(broken)), strict=True) if used}


def _draw_mean(axes: Axes, line: _Line, shift: float) -> set[str]:
    """The mean and its interval; where there is no mean, the median."""
    colour, marker = COLOURS[line.index % len(COLOURS)], MARKERS[line.index % len(MARKERS)]
    _draw_interval(axes, line, shift)
    depths, mean = line.rows["depth"] + shift, line.rows[f"{line.name}_mean"]
    look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4, "mfc": "white" if line.tuned else colour}
    axes.plot(depths, mean, ls="--" if line.tuned else "-", label=line.label, zorder=3, **look)
    if not mean.isna().any():
        return set()
    axes.plot(depths, line.rows[f"{line.name}_median"].where(mean.isna()), ls=":", alpha=0.7, zorder=3, **look)
    return {MARKS[4]}


def _draw_interval(axes: Axes, line: _Line, shift: float) -> None:
    """The interval of the mean: a band, or a bar where there is one depth."""
    colour, depths = COLOURS[line.index % len(COLOURS)], line.rows["depth"] + shift
    low, high = (line.rows[f"{line.name}_{limit}"] for limit in ("ci_low", "ci_high"))
    if axes.get_yscale() == "log":  # an interval that reaches below zero would fill the panel to its bottom
        low = low.clip(lower=line.metrics.loc[intact(line.metrics, line.name), line.name].min())
    if len(line.rows) == 1:
        axes.vlines(depths, low, high, color=colour, alpha=0.5, linewidth=2, zorder=2)
    else:
        axes.fill_between(depths, low, high, color=colour, alpha=0.3, lw=0)


def _finish(figure: Figure, axes: Axes, table: pd.DataFrame, what: str, marks: set[str]) -> None:
    """The legend, and a title that names every mark."""
    _legend(figure, axes)
    low, high = int(table["seeds"].min()), int(table["seeds"].max())
    seeds = f"{low} seeds" if low == high else f"{low} to {high} seeds"
    title = f"{what}, n = {seeds}: {', '.join(mark for mark in MARKS if mark in marks)}"
    figure.suptitle(title, fontsize=11 if len(title) < 90 else 9)


def _legend(figure: Figure, axes: Axes) -> None:
    """Inside the first panel while it is short; below both where many arms would cover the lines."""
    handles, labels = axes.get_legend_handles_labels()
    if 0 < len(labels) <= 3:
        axes.legend(loc="best", frameon=False)
    elif labels:
        lines = -(-len(labels) // 4)
        figure.set_figheight(figure.get_figheight() + 0.2 * lines)
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
