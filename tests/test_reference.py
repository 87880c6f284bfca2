"""The two experiments against plain Keras loops that share nothing with the engine: slow, and worth it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.stats import fisher_exact

import layerwise
from benchmarks import plain_autoencoder, plain_keras

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
    """Ten plain seeds diverge and collapse as often as thirty of ours, by Fisher's exact test, and look alike then."""
    study = layerwise.load("blobs-autoencoder", overrides=["arms={raw: {objective: reconstruction}}", "claims=null"])
    ours = layerwise.run(study).metrics()
    plain = [list(plain_autoencoder.run(seed)) for seed in range(10)]
    last = ours[ours["depth"] == 6]
    theirs = [run[-1] for run in plain]
    diverged = [not np.isfinite(error) for _, error, _ in theirs]
    assert fisher_exact([
        [last["diverged"].sum(), len(last) - last["diverged"].sum()], [sum(diverged), len(diverged) - sum(diverged)]
    ]).pvalue > 0.01  # fmt: skip
    kept = last[~last["diverged"]]
    collapsed = [error > 0.15 * 10.4 for (_, error, _), gone in zip(theirs, diverged, strict=True) if not gone]
    ours_collapsed = kept["collapsed"].sum()
    assert fisher_exact([
        [ours_collapsed, len(kept) - ours_collapsed], [sum(collapsed), len(collapsed) - sum(collapsed)]
    ]).pvalue > 0.01  # fmt: skip
    modes = kept.loc[kept["collapsed"], "train_reconstruction_mse"]
    assert ((modes.between(1.9, 3.2)) | (modes.between(9, 12))).mean() > 0.8
