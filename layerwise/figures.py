"""Figures: each a function from numbers to a Matplotlib figure, with nothing drawn on a screen.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; every line also differs in its style.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerwise.datasets import Data

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PARTS = {"train": "training part", "test": "test part"}


def accuracy_by_depth(metrics: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Accuracy against depth: the mean over intact seeds, its 95 % interval as a band, every seed as a thin line.

    Args:
        metrics: one row per arm, seed and depth, as :meth:`layerwise.pretraining.Result.metrics` gives.
        table: its summary, as :func:`layerwise.statistics.summarise` gives.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part in zip(panels, PARTS, strict=True):
        for index, (arm, rows) in enumerate(table.groupby("arm", sort=False)):
            _seed_lines(axes, metrics[metrics["arm"] == arm], f"{part}_accuracy", COLOURS[index % len(COLOURS)])
            _band(axes, rows, f"{part}_accuracy", str(arm), index)
        axes.set_title(PARTS[part])
        axes.set_xlabel("depth (hidden layers)")
        _whole_depths(axes, table)
    panels[0].set_ylabel("accuracy (share of rows)")
    panels[0].legend(loc="best", frameon=False)
    figure.suptitle(f"Accuracy by depth, n = {_seed_count(table)}: mean, 95 % interval and every seed", fontsize=11)
    return figure


def scatter(data: Data) -> Figure:
    """The two-dimensional data by class, training and test part side by side."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (part, rows) in zip(panels, {"train": data.train, "test": data.test}.items(), strict=True):
        for index, name in enumerate(data.classes):
            chosen = data.inputs[rows[data.targets[rows] == index]]
            style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            axes.scatter(chosen[:, 0], chosen[:, 1], s=14, alpha=0.7, linewidths=0, label=f"class {name}", **style)
        axes.set_title(f"{PARTS[part]}, {len(rows)} rows")
        axes.set_xlabel("feature 1 (unscaled)")
    panels[0].set_ylabel("feature 2 (unscaled)")
    panels[0].legend(loc="best", frameon=False)
    return figure


def loss_curves(curves: dict[str, list[np.ndarray]]) -> Figure:
    """Mean training loss of each epoch, stage after stage, one line for each arm.

    Args:
        curves: arm -> one ``(seeds, epochs)`` array for each stage, bottom up.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (arm, stages) in enumerate(curves.items()):
        start = 0
        for depth, curve in enumerate(stages, start=1):
            epochs = np.arange(start + 1, start + curve.shape[1] + 1)
            median = np.nanmedian(curve, axis=0) if np.isfinite(curve).any() else np.full(curve.shape[1], np.nan)
            label = arm if depth == 1 else None
            axes.plot(epochs, median, color=COLOURS[index % len(COLOURS)], linewidth=1.2, label=label)
            axes.axvline(start + 0.5, color="0.85", linewidth=0.8, zorder=0)
            start += curve.shape[1]
    axes.set_xlabel("epoch (a grey line opens each stage)")
    axes.set_ylabel("training loss (nats a row)")
    seeds = len(next(iter(curves.values()))[0])
    axes.set_title(f"Training loss, median of {seeds} seeds", fontsize=11)
    axes.legend(loc="best", frameon=False)
    return figure


def save(figure: Figure, path: str, *, metadata: dict[str, None] | None = None) -> None:
    """Write a figure, the same bytes for the same numbers: no date, fixed identifiers."""
    with mpl.rc_context({"svg.hashsalt": "layerwise", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=120, metadata=metadata or ({"Date": None} if path.endswith(".svg") else None))


def _seed_lines(axes: Axes, metrics: pd.DataFrame, name: str, colour: str) -> None:
    for _, seed in metrics.groupby("seed"):
        intact = seed[~seed["diverged"]]
        axes.plot(intact["depth"], intact[name], color=colour, alpha=0.18, linewidth=0.7, zorder=1)


def _band(axes: Axes, rows: pd.DataFrame, name: str, label: str, index: int) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    axes.fill_between(rows["depth"], rows[f"{name}_ci_low"], rows[f"{name}_ci_high"], color=colour, alpha=0.3, lw=0)
    axes.plot(rows["depth"], rows[f"{name}_mean"], color=colour, marker=marker, markersize=4, label=label, zorder=3)


def _whole_depths(axes: Axes, table: pd.DataFrame) -> None:
    depths = sorted(table["depth"].unique())
    axes.set_xticks(depths[:: max(1, len(depths) // 12)])


def _seed_count(table: pd.DataFrame) -> str:
    low, high = int(table["seeds"].min()), int(table["seeds"].max())
    return f"{low} seeds" if low == high else f"{low} to {high} seeds"
