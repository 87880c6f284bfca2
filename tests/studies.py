"""Small studies that several tests train."""

from __future__ import annotations

from typing import Any

from layerwise.study import Study, parse, shipped

READY = [name for name in shipped() if name != "mnist-small"]
"""The ready-made studies whose data come with the project."""


def small_document(depth: int = 3, **changes: Any) -> dict[str, Any]:
    """Blobs of 120 rows, ten ReLU units a layer, two epochs a stage; ``changes`` replace top-level keys."""
    return {
        "name": "small",
        "data": {"source": "blobs", "samples": 120, "split": {"train": 70, "test": 50}},
        "network": {"layers": [{"units": 10, "initializer": "he_uniform", "repeat": depth}]},
        "training": {"optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}, "epochs": 2},
        "seeds": 3,
        **changes,
    }


def small(depth: int = 3, **changes: Any) -> Study:
    """The study that :func:`small_document` describes."""
    return parse(small_document(depth, **changes))
