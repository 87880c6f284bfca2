"""An encoder alone, made of a model that was logged: its hidden layers, published as a model of the same seed's run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from layerwise import raw_rows
from layerwise.datasets import content_digest
from tasks.scratch import scratch
from tasks.tracking.publishing import DEPTH, Publisher, SeedModel
from tasks.tracking.runs import RunTree
from tasks.tracking.store import TrackingError
from tasks.tracking.templates import ModelTemplate, Serving
from tasks.tracking.verified import NETWORK, Found, VerifiedModel, verified

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

SUFFIX = "-encoder"
"""What an encoder's model is called, behind the name of its network's. No training leaves one."""


def publish_encoder(client: MlflowClient, tree: RunTree, model: LoggedModel) -> tuple[LoggedModel, int]:
    """Publish the hidden layers of a logged model as a model beside it, unless that is there.

    Args:
        client: the store.
        tree: the runs of its study.
        model: of a network that answers.

    Returns:
        The encoder, and how many features it gives for a row.

    Raises:
        TrackingError: if the model's files are not as they were published, or are no network of Layerwise; one line.
    """
    name = f"{model.name} of run {model.source_run_id}"
    source = verified(client, Found(name, model))
    encoder = _encoder(source, name, depth := int(model.tags[DEPTH]))
    weights, run_id = encoder.get_weights(), str(model.source_run_id)
    preparation = source.files.get(f"data/{raw_rows.PREPARATION}")
    template = ModelTemplate.of(encoder, serving=_serving(source, encoder.output_shape[1:]))
    own = SeedModel(
        run_id, f"{model.name}{SUFFIX}", depth, template, weights, content_digest(*weights), preparation=preparation
    )
    (model_id,) = Publisher(client, tree).models([own])
    features = 1
    for size in encoder.output_shape[1:]:
        features *= size
    return client.get_logged_model(model_id), features


def _encoder(source: VerifiedModel, name: str, depth: int) -> Any:
    with scratch() as folder:
        file = folder / raw_rows.NETWORK
        file.write_bytes(source.files[NETWORK])
        try:
            model = raw_rows.network(file)
            from layerwise import network  # loads TensorFlow, as reading the model did

            return network.encoder(model, f"encoder_depth_{depth:02d}")
        except ValueError as error:
            raise TrackingError(f"{name}: {error}") from None


def _serving(source: VerifiedModel, shape: tuple[int, ...]) -> Serving | None:
    """How it takes raw rows, as its model does; a flat row of features has names where columns have."""
    said = source.files.get(f"data/{raw_rows.SERVING}")
    if said is None:
        return None
    serving, columns = json.loads(said), source.columns
    feeds = tuple((name, tuple(positions)) for name, positions in serving["feeds"].items())
    if columns is None:
        return Serving(None, (), serving["width"], None, feeds)
    outputs = tuple(f"feature_{number}" for number in range(1, shape[0] + 1)) if len(shape) == 1 else None
    return Serving(tuple(columns.items()), tuple(serving["columns"]["numbers"]), serving["width"], outputs, feeds)
