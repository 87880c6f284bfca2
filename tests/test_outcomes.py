"""Outcomes: live units, effective rank and collapse, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from layerwise.outcomes import collapsed, effective_rank, linear_r2, live_units, pca_r2, reconstruction_r2

RNG = np.random.default_rng(0)


def test_a_unit_that_never_changes_is_dead():
    """Units with one value for every row do not count, whatever that value is."""
    features = RNG.normal(size=(2, 50, 4)).astype(np.float32)
    features[0, :, 1] = 0
    features[1, :, :] = 7.5
    assert live_units(features).tolist() == [3, 0]


def test_effective_rank_of_known_spectra():
    """Equal directions count fully, a single one counts as one, and none at all as zero."""
    square = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
    line = np.outer(np.arange(5), [1.0, 2.0])
    assert effective_rank(square[np.newaxis]) == pytest.approx(2)
    assert effective_rank(line[np.newaxis]) == pytest.approx(1)
    assert effective_rank(np.ones((1, 5, 3))) == pytest.approx(0)
    assert np.isnan(effective_rank(np.full((1, 5, 3), np.nan))).all()


def test_pca_share_is_scikit_learns():
    """The share of variance that the first components explain is scikit-learn's."""
    inputs = RNG.normal(size=(1, 60, 5)) * [5, 3, 1, 0.5, 0.1]
    for components in (1, 3, 5):
        expected = PCA(components).fit(inputs[0]).explained_variance_ratio_.sum()
        assert pca_r2(inputs, components) == pytest.approx(expected)


def test_r2_of_perfect_and_mean_reconstruction():
    """A copy explains everything, the mean nothing, and what has overflowed is not a number that passes."""
    inputs = RNG.normal(size=(1, 40, 3))
    mean = np.broadcast_to(inputs.mean(axis=1, keepdims=True), inputs.shape)
    assert reconstruction_r2(inputs, inputs) == pytest.approx(1)
    assert reconstruction_r2(inputs, mean) == pytest.approx(0)
    assert collapsed(inputs, np.full(inputs.shape, np.nan), np.full((1, 40, 4), np.nan), 3).all()


def test_a_bottleneck_is_no_collapse():
    """The best reconstruction through one unit is no collapse for a layer of one unit, but is for one of two."""
    inputs = RNG.normal(size=(1, 200, 2)) * [1.5, 1]
    centred = inputs[0] - inputs[0].mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][:1]
    rank_one = (centred @ direction.T @ direction + inputs[0].mean(axis=0))[np.newaxis]
    features = centred[np.newaxis] @ direction.T
    assert not collapsed(inputs, rank_one, features, 1).any()
    assert collapsed(inputs, rank_one, features, 2).all()


def test_a_poor_decoder_is_no_collapse():
    """A reconstruction shrunk by half explains too little, but features that hold the inputs have not collapsed."""
    inputs = RNG.normal(size=(1, 200, 3))
    features = inputs @ RNG.normal(size=(3, 5))
    assert reconstruction_r2(inputs, inputs / 2) < 0.85
    assert linear_r2(features, inputs) == pytest.approx(1)
    assert not collapsed(inputs, inputs / 2, features, 5).any()
    assert collapsed(inputs, inputs / 2, np.ones((1, 200, 5)), 5).all()


def test_rounding_in_the_features_holds_no_information():
    """Directions of the size of rounding errors are not counted as if they held the inputs."""
    inputs = RNG.normal(size=(1, 200, 2))
    line = inputs[..., :1]
    features = np.concatenate([line, line + 1e-6 * inputs[..., 1:]], axis=2)
    assert linear_r2(features, inputs) < 0.7
