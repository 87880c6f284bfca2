"""The tutorial's data and settings, which every side of a comparison shares; no library decides them."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import make_blobs

ROWS, TRAIN, CLASSES, UNITS = 1000, 500, 3, 10
BATCH, LEARNING_RATE, MOMENTUM = 32, 0.01, 0.9


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs ``(rows, 2)`` and one-hot targets ``(rows, 3)``, float32; the first half trains, the second tests."""
    inputs, classes = make_blobs(n_samples=ROWS, centers=CLASSES, n_features=2, cluster_std=2, random_state=2)[:2]
    return inputs.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[classes]
