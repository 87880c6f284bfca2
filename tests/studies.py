"""Small studies that several tests train."""

from __future__ import annotations

from typing import Any

from layerwise.study import Study, parse


def small(depth: int = 3, **changes: Any) -> Study:
    """Blobs of 120 rows, ten ReLU units a layer, two epochs a stage; ``changes`` replace top-level keys."""
    document: dict[str, Any] = {
        "name": "small",
        "data": {"source": "blobs", "samples": 120, "split": {"train": 70, "test": 50}},
        "network": {"layers": [{"units": 10, "initializer": "he_uniform", "repeat": depth}]},
        "training": {"optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}, "epochs": 2},
        "seeds": 3,
    }
    return parse({**document, **changes})
