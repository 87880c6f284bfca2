"""Random numbers: named independent streams, keyed and never consumed in sequence.

A draw depends only on (seed, stream, stage, depth). So arms share what they can share, a deeper study changes
nothing below, and a stage that is resumed draws what an uninterrupted one would have drawn.
"""

import hashlib
from typing import Literal

import numpy as np

Stream = Literal["split", "labels", "init", "order", "noise"]


def generator(seed: int, stream: Stream, stage: str = "", depth: int = 0) -> np.random.Generator:
    """The generator of one key; equal keys give equal numbers, different keys independent ones.

    Args:
        seed: the repeat, 0 or more.
        stream: what the numbers are for.
        stage: the training phase that draws, such as ``"add_layer"``; empty where no stage is concerned.
        depth: number of hidden layers at that stage.

    Example:
        >>> from layerwise.streams import generator
        >>> generator(3, "order").integers(100) == generator(3, "order").integers(100)
        np.True_
    """
    key = hashlib.sha256(f"{seed}/{stream}/{stage}/{depth}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(key, "big"))))
