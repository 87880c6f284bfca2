"""The two experiments against plain Keras loops that share nothing with the engine: slow, and worth it."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

import layerwise
from benchmarks import plain_autoencoder, plain_keras

PLAIN_SEEDS = 16
"""Of which some ten are intact at the first depth."""

LOST_ERROR = 0.15 * 10.4
"""Reconstruction error of a representation that lost a sixth of the inputs' variance, which is 10.4."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def test_supervised_means_agree_with_plain_keras():
    """At every depth the mean of three plain seeds lies within the spread of thirty of ours."""
    result = layerwise.run(layerwise.load("blobs-supervised"))
    table = result.table().set_index("depth")
    assert (table["test_accuracy_mean"] <= 0.840).all()
    inputs, targets = plain_keras.load_data()
    rows = slice(plain_keras.TRAIN, None)
    scores: dict[int, list[tuple[float, float]]] = {}
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        model = plain_keras.build(1)
        for depth in range(1, 12):
            model = model if depth == 1 else plain_keras.deepen(model)
            plain_keras.fit(model, inputs, targets, epochs=100)
            right = model.predict(inputs, verbose=0).argmax(axis=1) == targets.argmax(axis=1)
            scores.setdefault(depth, []).append((right[: plain_keras.TRAIN].mean(), right[rows].mean()))
    for depth, found in scores.items():
        for part, mean in zip(("train", "test"), np.mean(found, axis=0), strict=True):
            sd = table.loc[depth, f"{part}_accuracy_sd"]
            assert mean == pytest.approx(
                table.loc[depth, f"{part}_accuracy_mean"], abs=4 * sd * np.sqrt(1 / 3 + 1 / 30)
            )


def test_autoencoder_modes_agree_with_plain_keras():
    """Plain seeds diverge and collapse as often as ours, by Fisher's exact test; broken and intact ones look alike."""
    study = layerwise.load("blobs-autoencoder", overrides=["arms={raw: {objective: reconstruction}}", "claims=null"])
    ours = layerwise.run(study).metrics()
    plain = pd.DataFrame(
        [(seed, *scores) for seed in range(PLAIN_SEEDS) for scores in plain_autoencoder.run(seed)],
        columns=["seed", "depth", "error", "accuracy"],
    )
    compared = 0
    for depth, own in ours.groupby("depth"):
        theirs = plain[plain["depth"] == depth].set_index("seed").reindex(range(PLAIN_SEEDS))
        diverged = ~np.isfinite(theirs["error"])  # a diverged seed stops, and has no row above
        collapsed = ~diverged & (theirs["error"] > LOST_ERROR)
        assert_as_often(own["diverged"], diverged)
        assert_as_often(own.loc[~own["diverged"], "collapsed"], collapsed[~diverged])
        intact = own[~own["diverged"] & ~own["collapsed"]], theirs[~diverged & ~collapsed]
        if min(map(len, intact)) >= 10:
            assert intact[0]["test_accuracy"].mean() == pytest.approx(intact[1]["accuracy"].mean(), abs=0.01)
            compared += 1
    assert compared >= 1
    modes = ours.loc[ours["collapsed"], "train_reconstruction_mse"]
    assert (modes.between(1.9, 3.2) | modes.between(9, 12)).mean() > 0.9


def assert_as_often(ours: pd.Series, theirs: pd.Series) -> None:
    counts = [[int(side.sum()), int((~side.astype(bool)).sum())] for side in (ours, theirs)]
    assert fisher_exact(counts).pvalue > 0.01
