"""Figures: what is drawn, how it is labelled, and that equal numbers give equal bytes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure

from layerwise import datasets, figures, statistics
from layerwise.study import Blobs


def scores(*, seeds: int = 4, depths: int = 3, diverged: tuple[tuple[int, int], ...] = ()) -> pd.DataFrame:
    """Scores of one arm in which each value says its seed and depth; from (seed, depth) on a seed has diverged."""
    gone = dict(diverged)
    return pd.DataFrame(
        {
            "arm": "greedy",
            "seed": seed,
            "depth": depth,
            "diverged": (out := depth >= gone.get(seed, depths + 1)),
            "collapsed": False,
            "train_accuracy": np.nan if out else 0.5 + seed / 100 + depth / 1000,
            "test_accuracy": np.nan if out else 0.4 + seed / 100 + depth / 1000,
        }
        for depth in range(1, depths + 1)
        for seed in range(seeds)
    )


def by_depth(metrics: pd.DataFrame) -> Figure:
    return figures.score_by_depth(metrics, statistics.summarise(metrics))


def texts(figure: Figure) -> str:
    """Everything that a figure says outside its axes' numbers."""
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        legend = axes.get_legend()
        parts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        parts += [entry.get_text() for entry in legend.get_texts()] if legend else []
    return " | ".join(parts)


def seen(spec: Blobs) -> datasets.View:
    return datasets.view(spec, datasets.generate(spec), seeds=(0, 1), labels=None, scaling="none")


def scatter(spec: Blobs) -> Figure:
    return figures.scatter(seen(spec), ("0", "1", "2"), seed=0)


def rendered(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind)
    return stream.getvalue()


CURVES = {"greedy": [np.linspace(1, 0.5, 12, dtype=np.float32).reshape(2, 6)] * 3}


def drawn() -> dict[str, Figure]:
    """One of each."""
    return {
        "accuracy": by_depth(scores()),
        "data": scatter(Blobs()),
        "loss": figures.loss_curves(CURVES),
    }


def test_accuracy_says_what_it_shows() -> None:
    """Accuracy by depth names both parts, the unit of each axis, the arm, n and what the band is."""
    said = texts(by_depth(scores()))
    expected = ("training part", "test part", "depth (hidden layers)", "accuracy (share of rows)", "greedy")
    assert all(words in said for words in (*expected, "n = 4 seeds", "95 % interval"))


def test_loss_says_what_it_shows() -> None:
    """Loss curves name the unit of the loss, the epoch, the arm and the number of seeds, and have room for the name."""
    figure = figures.loss_curves(CURVES)
    said = texts(figure)
    assert all(words in said for words in ("epoch", "training loss (nats a row", "median of 2 seeds", "greedy"))
    assert figure.axes[0].get_yscale() == "log", "a stage falls by orders of magnitude"
    rendered(figure, "png")
    assert figure.axes[0].yaxis.label.get_window_extent().height < figure.bbox.height


def test_data_says_what_it_shows() -> None:
    """The scatter names both parts with their rows, both features, and every class."""
    said = texts(scatter(Blobs()))
    expected = ("training part, 500 rows", "test part, 500 rows", "feature 1", "feature 2", "class 0", "class 2")
    assert all(words in said for words in expected)


def test_every_row_is_drawn_in_its_part() -> None:
    """The scatter's points are the data's rows, the training part on the left."""
    own = seen(Blobs())
    for axes, rows in zip(scatter(Blobs()).axes, (own.train[0], own.test[0]), strict=True):
        points = np.concatenate([marks.get_offsets() for marks in axes.collections])
        assert sorted(map(tuple, points)) == sorted(map(tuple, own.inputs[rows].astype(float)))


def test_means_and_seeds_are_drawn_at_their_depth() -> None:
    """Each panel holds one line for each seed, and the mean over seeds, at the depths' numbers."""
    metrics = scores()
    for axes, part in zip(by_depth(metrics).axes, ("train", "test"), strict=True):
        *seeds, mean = axes.get_lines()
        name = f"{part}_accuracy"
        for seed, line in enumerate(seeds):
            own = metrics[metrics["seed"] == seed]
            np.testing.assert_array_equal(line.get_xydata(), own[["depth", name]].to_numpy())
        assert len(seeds) == 4
        np.testing.assert_array_equal(mean.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(mean.get_ydata(), metrics.groupby("depth")[name].mean())


def test_what_has_diverged_is_not_drawn() -> None:
    """A seed's line ends before the depth at which it diverged, and the mean is over those that are left."""
    metrics = scores(diverged=((1, 2), (3, 1)))
    train, _ = by_depth(metrics).axes
    *seeds, mean = train.get_lines()
    assert [list(line.get_xdata()) for line in seeds] == [[1, 2, 3], [1], [1, 2, 3]]
    assert np.isfinite(mean.get_ydata()).all()
    np.testing.assert_allclose(mean.get_ydata()[1], np.mean([0.502, 0.522]))


@pytest.mark.parametrize(
    "metrics",
    [
        scores(seeds=1),
        scores(depths=1),
        scores(seeds=1, depths=1),
        scores(seeds=2, diverged=((0, 1), (1, 1))),
        scores(depths=40),
    ],
    ids=["one seed", "one depth", "one of each", "none intact", "many depths"],
)
def test_little_or_much_can_be_drawn(metrics: pd.DataFrame) -> None:
    """One seed, one depth, no intact seed or many depths are drawn without complaint, with whole depths as ticks."""
    figure = by_depth(metrics)
    assert rendered(figure, "png")
    ticks = figure.axes[0].get_xticks()
    assert set(ticks) <= set(metrics["depth"])
    assert len(ticks) <= 14


@pytest.mark.parametrize("broken", ["one seed", "one epoch", "all"])
def test_losses_that_overflow_are_left_out(broken: str) -> None:
    """Curves that are no numbers, in part or all, leave a gap and no warning."""
    curve = np.ones((3, 4), np.float32)
    curve[{"one seed": np.s_[1, 2:], "one epoch": np.s_[:, 2:], "all": np.s_[:]}[broken]] = np.nan
    (axes,) = figures.loss_curves({"greedy": [curve]}).axes
    median = axes.get_lines()[0].get_ydata()
    expected = {"one seed": [1, 1, 1, 1], "one epoch": [1, 1, np.nan, np.nan], "all": [np.nan] * 4}
    np.testing.assert_array_equal(median, expected[broken])


def test_stages_follow_one_another() -> None:
    """Each stage's epochs begin where those of the one before end."""
    (axes,) = figures.loss_curves(CURVES).axes
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 6]
    assert [line.get_xdata()[0] for line in curves] == [1, 7, 13]


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("name", ["accuracy", "data", "loss"])
def test_equal_numbers_give_equal_bytes(tmp_path: Path, name: str, suffix: str) -> None:
    """A figure drawn twice from the same numbers is the same file, without a date."""
    written = [tmp_path / f"{count}.{suffix}" for count in range(2)]
    for file in written:
        figures.save(drawn()[name], str(file))
    first, second = (file.read_bytes() for file in written)
    assert first == second
    assert b"<dc:date>" not in first


@pytest.mark.parametrize("name", ["accuracy", "data", "loss"])
def test_other_numbers_give_other_bytes(name: str) -> None:
    """What is compared is the drawing: other numbers are another picture."""
    others = {
        "accuracy": by_depth(scores(seeds=5)),
        "data": scatter(Blobs(random_state=3)),
        "loss": figures.loss_curves({"greedy": [CURVES["greedy"][0] / 2]}),
    }
    assert rendered(drawn()[name], "png") != rendered(others[name], "png")


def test_no_window_is_opened() -> None:
    """Figures are not registered with pyplot, which would keep them all in memory."""
    from matplotlib import pyplot as plt

    drawn()
    assert plt.get_fignums() == []


def arms(**columns: object) -> pd.DataFrame:
    """Scores of two arms, the second of which has what ``columns`` say on top."""
    first, second = scores(), scores().assign(arm="autoencoder", **columns)
    return pd.concat([first, second], ignore_index=True)


def test_arms_share_the_axes_and_fine_tuned_networks_are_dashed() -> None:
    """Every arm has a line of its own in each panel, and its fine-tuned networks a dashed one."""
    tuned = {"fine_tuned_diverged": False, "fine_tuned_collapsed": False, "fine_tuned_train_accuracy": 0.9}
    train, test = by_depth(arms(**tuned)).axes
    labels = [line.get_label() for line in train.get_lines() if not line.get_label().startswith("_")]
    assert labels == ["greedy", "autoencoder", "autoencoder, fine-tuned"]
    assert [line.get_linestyle() for line in train.get_lines() if line.get_label() in labels] == ["-", "-", "--"]
    assert "autoencoder, fine-tuned" not in [line.get_label() for line in test.get_lines()]


def test_collapsed_seeds_are_crosses_and_in_no_mean() -> None:
    """A collapsed seed is drawn as a cross at its score, and the mean is over the others."""
    metrics = scores()
    metrics["collapsed"] = (metrics["seed"] == 3) & (metrics["depth"] == 2)
    train, _ = by_depth(metrics).axes
    [crosses] = [marks.get_offsets() for marks in train.collections if isinstance(marks, PathCollection)]
    np.testing.assert_allclose(crosses, [[2, 0.532]])
    np.testing.assert_allclose(train.get_lines()[-1].get_ydata()[1], np.mean([0.502, 0.512, 0.522]))


def many(count: int) -> pd.DataFrame:
    """Scores of several arms, each a little higher than the one before."""
    arms = (scores().assign(arm=f"arm_{place}") for place in range(count))
    return pd.concat([own.assign(test_accuracy=own["test_accuracy"] + place) for place, own in enumerate(arms)])


def test_arms_stand_beside_one_another() -> None:
    """Each arm's mean is drawn at a place of its own by every depth, nearer to it than to the next, in order."""
    (_, test), count = by_depth(many(12)).axes, 12
    means = [line.get_xdata() for line in test.get_lines() if not line.get_label().startswith("_")]
    assert len(means) == count
    for place, depth in enumerate([1, 2, 3]):
        drawn = [own[place] for own in means]
        assert drawn == sorted(set(drawn))
        assert depth - 0.25 < drawn[0] < drawn[-1] < depth + 0.25
    assert list(test.get_xticks()) == [1, 2, 3]


@pytest.mark.parametrize(("arms", "singly"), [(4, True), (5, False)])
def test_seeds_have_lines_where_there_is_room(arms: int, singly: bool) -> None:
    """Up to four lines in a panel every seed is drawn too, and the title says so; with more, the means alone."""
    figure = by_depth(many(arms))
    assert len(figure.axes[0].get_lines()) == arms * (5 if singly else 1)
    assert ("every seed" in texts(figure)) == singly


def test_a_legend_of_many_arms_leaves_the_panels_their_height() -> None:
    """The figure grows with the lines of its legend."""
    figures_drawn = [by_depth(many(count)) for count in (1, 4, 12)]
    assert [figure.get_figheight() for figure in figures_drawn] == pytest.approx([4.2, 4.4, 4.8])
    heights = []
    for figure in figures_drawn:
        rendered(figure, "png")
        heights.append(figure.axes[0].get_window_extent().height)
    assert min(heights) > 0.85 * max(heights)


def test_one_depth_has_a_bar_and_its_seeds() -> None:
    """Where an arm has one depth, its interval is a bar and each seed a dot, for a band and lines need two."""
    metrics = scores(depths=1)
    table = statistics.summarise(metrics)
    train, _ = figures.score_by_depth(metrics, table).axes
    [bar] = [marks for marks in train.collections if isinstance(marks, LineCollection)]
    limits = table[["train_accuracy_ci_low", "train_accuracy_ci_high"]].to_numpy()[0]
    np.testing.assert_allclose(bar.get_segments()[0][:, 1], limits)
    assert [line.get_marker() for line in train.get_lines()] == [".", ".", ".", ".", "o"]


def test_where_no_seed_is_intact_the_median_stands_dotted() -> None:
    """All seeds collapsed at depth 2: the mean has a gap there, and a dotted line the median; the title says both."""
    metrics = scores()
    assert not {"dotted", "collapsed"} & set(re.findall(r"\w+", texts(by_depth(metrics))))
    metrics["collapsed"] = metrics["depth"] == 2
    figure = by_depth(metrics)
    assert "collapsed seeds (x), median where none is intact (dotted)" in texts(figure)
    *_, mean, median = figure.axes[0].get_lines()
    assert np.isnan(mean.get_ydata()).tolist() == [False, True, False]
    assert median.get_linestyle() == ":"
    np.testing.assert_allclose(median.get_ydata(), [np.nan, 0.517, np.nan])


def test_an_interval_below_zero_does_not_fill_a_logarithmic_panel() -> None:
    """Where the interval of an error reaches below zero, its band ends at the smallest seed's error."""
    metrics = scores(depths=2)
    metrics["train_reconstruction_mse"] = metrics["test_reconstruction_mse"] = 10.0 ** -metrics["seed"]
    table = statistics.summarise(metrics)
    assert (table["train_reconstruction_mse_ci_low"] < 0).all()
    train, _ = figures.reconstruction_by_depth(metrics, table).axes
    [band] = [marks for marks in train.collections if isinstance(marks, PolyCollection)]
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(0.001)


def test_reconstruction_and_live_units_say_what_they_show() -> None:
    """Both name their units and the number of seeds, and leave out arms that have no such score."""
    values = {"train_reconstruction_mse": 0.1, "test_reconstruction_mse": 0.2, "live_units": 9.0, "effective_rank": 2.0}
    metrics = arms(**values)
    table = statistics.summarise(metrics)
    said = texts(figures.reconstruction_by_depth(metrics, table))
    assert all(words in said for words in ("squared input units", "4 seeds", "autoencoder", "depth (hidden layers)"))
    assert "greedy" not in said
    said = texts(figures.live_units_by_depth(metrics, table))
    assert all(words in said for words in ("live units", "effective rank", "(units)", "4 seeds"))


def test_decision_regions_are_what_the_networks_say() -> None:
    """Each depth has a panel whose colours are the classes its network gives, over the test rows."""
    own = seen(Blobs())
    points, targets = own.inputs_of(own.test)[0], own.targets_of(own.test)[0]
    split = {1: lambda rows: (rows[:, 0] > 0).astype(int), 2: lambda rows: np.full(len(rows), 2)}
    figure = figures.decision_regions(points, targets, split, seed=0)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["depth 1", "depth 2"]
    shown = [axes.collections[0].get_array() for axes in figure.axes[:2]]
    assert set(np.unique(shown[0])) == {0, 1}
    assert set(np.unique(shown[1])) == {2}
    assert "500 test rows" in texts(figure)


def test_every_column_of_decision_regions_has_its_scale() -> None:
    """Of six panels in rows of four, the last of each column has numbers below it, full row or not."""
    own = seen(Blobs())
    points, targets = own.inputs_of(own.test)[0], own.targets_of(own.test)[0]
    classify = dict.fromkeys(range(1, 7), lambda rows: np.zeros(len(rows), int))
    panels = figures.decision_regions(points, targets, classify, seed=0).axes[:6]
    shown = [axes.xaxis.get_tick_params()["labelbottom"] for axes in panels]
    assert shown == [False, False, True, True, True, True]


def test_reconstructions_stand_below_their_images() -> None:
    """The first row are the images, each further row what a depth's network makes of them."""
    images = np.random.default_rng(0).random((3, 64)).astype(np.float32)
    figure = figures.reconstructions(images, {1: lambda rows: rows / 2, 4: np.zeros_like}, (8, 8), seed=7)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_allclose(shown[1], images[1].reshape(8, 8))
    np.testing.assert_allclose(shown[4], images[1].reshape(8, 8) / 2)
    assert all(words in texts(figure) for words in ("input", "depth 1", "depth 4", "seed 7"))


def test_arms_are_rows_with_seeds_mean_and_interval() -> None:
    """Each arm has intact seeds as dots, collapsed ones as crosses, their mean and t interval, and n in its name."""
    left = arms()
    left = left[left["depth"] == 3].reset_index(drop=True)
    left.loc[(left["arm"] == "greedy") & (left["seed"] == 0), "collapsed"] = True
    figure = figures.by_arm(left, "test_accuracy", unit="test accuracy (share of rows)")
    (axes,) = figure.axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    sizes = left.groupby("arm", sort=False).size()
    assert names == [f"greedy, n = {sizes['greedy'] - 1}", f"autoencoder, n = {sizes['autoencoder']}"]
    assert "collapsed seeds (x)" in figure.get_suptitle()
    assert axes.get_xlabel() == "test accuracy (share of rows)"
    own = left[(left["arm"] == "greedy") & ~left["collapsed"]]["test_accuracy"].to_numpy()
    marks = [found.get_offsets() for found in axes.collections if isinstance(found, PathCollection)]
    dots, crosses = marks[:2]
    np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(own))
    np.testing.assert_allclose(crosses[:, 0], left[left["collapsed"]]["test_accuracy"])
    (mean, *_) = axes.get_lines()
    assert mean.get_xdata()[0] == pytest.approx(own.mean())
    bar = next(marks for marks in axes.collections if isinstance(marks, LineCollection))
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], statistics.t_interval(own))


def test_differences_are_rows_about_zero_and_say_what_was_claimed() -> None:
    """Each pair stands at its mean with its interval; a claimed one is filled, an explored one open; zero is a line."""
    found = pd.DataFrame(
        {
            "arm": ["a", "c"],
            "minus": ["b", "b"],
            "depth": [2, 3],
            "other_depth": [2, 1],
            "seeds": [5, 6],
            "mean": [0.1, -0.2],
            "ci_low": [0.05, -0.4],
            "ci_high": [0.15, 0.0],
        }
    )
    figure = figures.differences(found, [True, False], unit="mean difference (share of rows)")
    (axes,) = figure.axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["a minus b, depth 2, n = 5", "c minus b, depths 3 and 1, n = 6"]
    zero, claimed, explored = axes.get_lines()
    assert set(zero.get_xdata()) == {0}
    assert ([*claimed.get_xdata(), *explored.get_xdata()], axes.get_xlabel()) == (
        [0.1, -0.2],
        "mean difference (share of rows)",
    )
    assert explored.get_markerfacecolor() == "white" != claimed.get_markerfacecolor()
    spans = [marks.get_segments()[0][:, 0].tolist() for marks in axes.collections if isinstance(marks, LineCollection)]
    assert spans == [[0.05, 0.15], [-0.4, 0.0]]
    assert "claimed (dot), explored (open square)" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("low", "high", "inside", "outside"),
    [(0.0, None, 0.05, -0.01), (None, 0.3, -1, 0.31), (-0.02, 0.02, 0.0, 0.03)],
    ids=["above", "below", "between"],
)
def test_evidence_stands_against_the_values_for_which_a_claim_holds(
    low: float | None, high: float | None, inside: float, outside: float
) -> None:
    """What is claimed is shaded, its limits are on the axis, and both intervals of each test are drawn."""
    found = [
        {"seeds": 8, "estimate": 0.05, "low": 0.02, "high": 0.08, "family_low": 0.01, "family_high": 0.09},
        {"seeds": 1, "estimate": 0.04, "low": None, "high": None, "family_low": None, "family_high": None},
    ]
    figure = figures.evidence(found, low, high, names=["depth 1", "depth 2"], what="mean difference")
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["depth 1, n = 8", "depth 2, n = 1"]
    assert axes.get_xlabel() == "mean difference"
    (shade,) = axes.patches
    left, right = shade.get_x(), shade.get_x() + shade.get_width()
    assert left <= max(inside, axes.get_xlim()[0]) <= right
    assert not left <= outside <= right
    limits = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert limits == [limit for limit in (low, high) if limit is not None]
    assert axes.get_xlim()[0] < min([*limits, 0.01])
    assert max([*limits, 0.09]) < axes.get_xlim()[1]
    bars = [marks.get_segments()[0] for marks in axes.collections if isinstance(marks, LineCollection)]
    assert [bar[:, 0].tolist() for bar in bars[:2]] == [[0.01, 0.09], [0.02, 0.08]]
    assert rendered(figure, "png")


def test_names_of_classes_are_no_formulas() -> None:
    """A class whose name holds dollar signs is named as it is."""
    figure = figures.scatter(seen(Blobs()), (r"$\frac$", "$x$", "2"), seed=0)
    assert rendered(figure, "png")
    assert r"class \$\frac\$" in texts(figure)
