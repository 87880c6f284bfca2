"""Figures: each a function from numbers to a Matplotlib figure, with nothing drawn on a screen.

The colours are Okabe and Ito's, then Tol's, which colour-blind readers can tell apart; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from layerwise.datasets import View
from layerwise.statistics import intact

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#44AA99", "#332288", "#AA4499"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
PARTS = {"train": "training part", "test": "test part"}


def accuracy_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Accuracy against depth: the mean over intact seeds, its 95 % interval as a band, every seed as a thin line.

    All arms share the axes; fine-tuned networks are dashed, and collapsed seeds are crosses.

    Args:
        metrics: one row per arm, seed and depth, as :meth:`layerwise.answers.Result.metrics` gives.
        table: its summary, as :func:`layerwise.statistics.summarise` gives.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, PARTS, strict=True):
        for line in _lines(metrics, table, f"{part}_accuracy"):
            _draw_line(axes, line)
        axes.set_title(PARTS[part])
        _depth_axis(axes, table)
    panels[0].set_ylabel("accuracy (share of rows)")
    _legend(figure, panels[0])
    figure.suptitle(f"Accuracy by depth, n = {_seed_count(table)}: mean, 95 % interval and every seed", fontsize=11)
    return figure


def reconstruction_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Mean squared reconstruction error against depth, on a logarithmic axis; collapsed seeds are crosses."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, PARTS, strict=True):
        for line in _lines(metrics, table, f"{part}_reconstruction_mse"):
            _draw_line(axes, line)
        axes.set_title(PARTS[part])
        axes.set_yscale("log")
        _depth_axis(axes, table)
    panels[0].set_ylabel("reconstruction error (squared input units)")
    _legend(figure, panels[0])
    figure.suptitle(f"Reconstruction error by depth, n = {_seed_count(table)}", fontsize=11)
    return figure


def live_units_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Units of the newest layer that still tell training rows apart, and the effective rank of its features."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (name, label) in zip(
        panels, {"live_units": "live units", "effective_rank": "effective rank"}.items(), strict=True
    ):
        for line in _lines(metrics, table, name):
            _draw_line(axes, line)
        axes.set_ylabel(f"{label} of the newest layer (units)")
        axes.set_ylim(bottom=0)
        _depth_axis(axes, table)
    _legend(figure, panels[0])
    figure.suptitle(f"What the newest layer's features still tell, n = {_seed_count(table)}", fontsize=11)
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
            axes.scatter(chosen[:, 0], chosen[:, 1], s=14, alpha=0.7, linewidths=0, label=f"class {name}", **style)
        axes.set_title(f"{PARTS[part]}, {len(points)} rows")
        axes.set_xlabel("feature 1")
    panels[0].set_ylabel("feature 2")
    panels[0].legend(loc="best", frameon=False)
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
    axes.set_xlabel("epoch (a grey line opens each stage)")
    axes.set_ylabel("training loss (nats a row; reconstruction: squared units)")
    seeds = len(next(iter(curves.values()))[0])
    axes.set_title(f"Training loss, median of {seeds} seeds", fontsize=11)
    _legend(figure, axes)
    return figure


def save(figure: Figure, path: str, *, metadata: dict[str, None] | None = None) -> None:
    """Write a figure, the same bytes for the same numbers: no date, fixed identifiers."""
    with mpl.rc_context({"svg.hashsalt": "layerwise", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=120, metadata=metadata or ({"Date": None} if path.endswith(".svg") else None))


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


def _draw_line(axes: Axes, line: _Line) -> None:
    colour, marker = COLOURS[line.index % len(COLOURS)], MARKERS[line.index % len(MARKERS)]
    sound = intact(line.metrics, line.name)
    for _, seed in line.metrics[sound].groupby("seed"):
        axes.plot(seed["depth"], seed[line.name], color=colour, alpha=0.15, linewidth=0.6, zorder=1)
    broken = line.metrics[~sound & np.isfinite(line.metrics[line.name].to_numpy(float))]
    axes.scatter(
        broken["depth"], broken[line.name], color=colour, marker="x", s=14, linewidths=0.7, alpha=0.6, zorder=2
    )
    depths, name = line.rows["depth"], line.name
    axes.fill_between(depths, line.rows[f"{name}_ci_low"], line.rows[f"{name}_ci_high"], color=colour, alpha=0.3, lw=0)
    style = "--" if line.tuned else "-"
    axes.plot(depths, line.rows[f"{name}_mean"], style, color=colour, marker=marker, ms=4, label=line.label, zorder=3)


def _legend(figure: Figure, axes: Axes) -> None:
    """Inside the first panel while it is short; below both where many arms would cover the lines."""
    handles, labels = axes.get_legend_handles_labels()
    if 0 < len(labels) <= 3:
        axes.legend(loc="best", frameon=False)
    elif labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _depth_axis(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_xlabel("depth (hidden layers)")
    depths = sorted(table["depth"].unique())
    axes.set_xticks(depths[:: max(1, len(depths) // 12)])


def _seed_count(table: pd.DataFrame) -> str:
    low, high = int(table["seeds"].min()), int(table["seeds"].max())
    return f"{low} seeds" if low == high else f"{low} to {high} seeds"
