"""Data: the tutorial's blobs to the bit, and a digest that sees every byte."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from layerwise.datasets import content_digest, generate
from layerwise.study import Blobs, StudyError


def test_blobs_are_the_tutorials():
    """The rows are those of make_blobs in order: the first 500 train, the last 500 test, unscaled."""
    inputs, targets = make_blobs(n_samples=1000, centers=3, n_features=2, cluster_std=2, random_state=2)[:2]
    data = generate(Blobs())
    np.testing.assert_array_equal(data.inputs, inputs.astype(np.float32))
    np.testing.assert_array_equal(data.targets, targets)
    np.testing.assert_array_equal(data.train, np.arange(500))
    np.testing.assert_array_equal(data.test, np.arange(500, 1000))
    assert data.classes == ("0", "1", "2")


def test_digest_is_of_the_full_content():
    """One changed value anywhere, another dtype or another shape is another digest."""
    one = np.zeros((300, 70), np.float32)
    last = one.copy()
    last[-1, -1] = np.float32(1e-45)
    digests = {content_digest(a) for a in (one, last, one.astype(np.float64), one.reshape(70, 300), -one)}
    assert len(digests) == 5
    assert content_digest(one, last) != content_digest(last, one)


def test_same_specification_same_data():
    """Generating twice gives the same digest; another random state gives another."""
    assert generate(Blobs()).digest == generate(Blobs()).digest
    assert generate(Blobs()).digest != generate(Blobs(random_state=3)).digest


def test_one_hot_is_the_class():
    """Each row has a single one, at its class."""
    data = generate(Blobs())
    np.testing.assert_array_equal(data.one_hot.argmax(axis=1), data.targets)
    assert (data.one_hot.sum(axis=1) == 1).all()


def test_a_class_that_no_training_row_has_is_refused():
    """A training part without one of the classes is named before anything trains."""
    with pytest.raises(StudyError, match=r"the training part of 3 rows has no row of class"):
        generate(Blobs(samples=100, classes=5, split={"train": 3, "test": 97}))


def test_values_beyond_float32_are_refused():
    """Inputs that overflow are refused, not trained on."""
    with pytest.warns(RuntimeWarning, match="overflow"), pytest.raises(StudyError, match="NaN or infinite"):
        generate(Blobs(cluster_std=1e300))
