"""What a logged model needs beside its network in order to take raw rows, from the data that it was trained on."""

from __future__ import annotations

from layerwise import datasets, raw_rows
from layerwise.datasets import Data
from layerwise.stages import Block, Network
from tasks.tracking.templates import Serving


def preparations(block: Block, data: Data) -> dict[int, bytes]:
    """What turns raw rows into inputs for each seed that was asked for; nothing where raw rows are the inputs.

    Args:
        block: the seeds and how their data are divided and scaled.
        data: the study's data.
    """
    scaling = block.procedure.scaling
    if data.table is None and scaling == "none":
        return {}
    found = {}
    for seed in block.seeds[: block.reported]:
        fitted = datasets.preparation(block.data, data, seed=seed, scaling=scaling)
        if fitted is not None:
            found[seed] = raw_rows.packed(fitted.transformer, fitted.places)
    return found


def of(kept: Network, data: Data) -> Serving:
    """How a network that was trained on some data serves raw rows.

    A table's rows come in under the names of its columns, and class probabilities go out under the names of the
    classes, a number under the name of the target, and a reconstruction under those of the inputs. Arrays stay arrays.

    Args:
        kept: the :class:`layerwise.stages.Network`.
        data: the study's data.
    """
    feeds = tuple((name, encoder.features) for name, encoder in kept.block.procedure.bottom.inputs)
    if data.table is None:
        return Serving(None, (), data.features, None, feeds)
    table = data.table
    columns = tuple(zip(table.names, table.kinds, strict=True))  # a column's kinds are MLflow's own
    answers = data.classes or (table.target,)
    outputs = tuple(table.inputs) if kept.kind == "autoencoder" else answers
    return Serving(columns, tuple(table.numbers), data.features, outputs, feeds)
