"""Roots whose runs hold real models, with weights as they were drawn: nothing is trained for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient

from layerwise import datasets, models, network, stages
from layerwise.datasets import content_digest
from layerwise.stages import Block, Network
from layerwise.study import Study, declared_network, parse
from tasks import serving
from tasks.tracking.answers import RESULTS
from tasks.tracking.publishing import Publisher, SeedModel
from tasks.tracking.registry import DECLARED
from tasks.tracking.runs import RunTree, close_runs, open_runs
from tasks.tracking.store import open_store
from tasks.tracking.templates import ModelTemplate
from tasks.tracking.tracked import SCORES, STUDY_FILE
from tests.studies import small_document
from tests.test_report import run_of

PEOPLE = pd.DataFrame(
    {
        "age": [20.5, np.nan, 31, 44, 25, 60, 33, 52, 47, 29] * 3,
        "colour": ["red", "blue", "red", "red", "blue", "green", "red", "blue", "green", "red"] * 3,
        "visits": [3, 1, 2, 3, 1, 2, 3, 1, 2, 2] * 3,
        "ward": [10, 20, 20, 10, 30, 10, 20, 30, 30, 10] * 3,
        "smokes": [True, False, True, True, False, False, True, False, True, False] * 3,
        "answer": ["no", "yes"] * 15,
    }
)
"""Rows of every type that a column may have, numbers that are categories among them."""


@dataclass(frozen=True)
class Shelved:
    """A finished run: its study, its data and its networks.

    Attributes:
        study: what it is of.
        tree: its runs.
        data: its data.
        networks: depth -> the network of every seed of the one arm.
    """

    study: Study
    tree: RunTree
    data: datasets.Data
    networks: dict[int, Network]

    def expected(self, depth: int, seed: int) -> np.ndarray:
        """``(rows, outputs)``: what the network of a seed makes of all rows of the data, as Keras says."""
        kept = self.networks[depth]
        return models.outputs(models.keras_model(kept, seed, self.data), kept, self.inputs(seed))

    def inputs(self, seed: int) -> np.ndarray:
        """``(rows, features)``: all rows of the data as the networks of a seed take them."""
        seen = next(iter(self.networks.values())).block.view(self.data).inputs
        return seen[seed] if seen.ndim > 2 else seen


def people(folder: Path) -> Study:
    """A study of a table with every kind of column, two dense layers deep, which declares a network."""
    PEOPLE.to_csv(folder / "people.csv", index=False)
    data = {"source": "table", "path": str(folder / "people.csv"), "target": "answer", "categorical": ["ward"],
            "missing": "mean", "scaling": "standard", "split": {"train": 20, "test": 10}}  # fmt: skip
    more = {"training": {"batch_size": 10}, "declared": {"depth": 2, "seed": 1}}
    return parse(small_document(2, name="people", question="Yes or no?", data=data, **more))


def shelved(root: Path, study: Study) -> Shelved:
    """Publish a finished run of a study of one arm, with a model of every seed and depth, and scores that fit none."""
    client: MlflowClient = open_store(root)
    tree = open_runs(
        client, study, run_key=study.digest(), repeat="", seeds=range(study.seeds), provenance={}, root=root
    )
    publisher, data = Publisher(client, tree), datasets.generate(study.data)
    (block,) = stages.blocks(study, "greedy", data.digest)
    networks = {depth: _network(block, data, depth) for depth in block.procedure.depths}
    publisher.models([one for kept in networks.values() for one in _models(tree, data, kept)])
    run = run_of(study, data_digest=data.digest)
    publisher.text(tree.study_run_id, STUDY_FILE, yaml.safe_dump(study.canonical(), sort_keys=False))
    publisher.table(tree.study_run_id, SCORES, run.metrics)
    publisher.table(tree.study_run_id, RESULTS, run.table)
    publisher.dataset(tree.study_run_id, name="all", digest=data.digest, context="all", source={}, features=data.inputs,
                      labels=data.targets)  # fmt: skip
    if found := declared_network(study):
        publisher.tags(tree.study_run_id, {DECLARED: found.place})
    publisher.manifest()
    close_runs(client, tree)
    return Shelved(study, tree, data, networks)


def _network(block: Block, data: datasets.Data, depth: int) -> Network:
    hidden = models.hidden_layers(block, depth)
    pieces = [*hidden, models.answer_output(block, data, hidden[-1])]
    stacks = tuple(itertools.chain(*(network.initial_weights(piece, block.seeds) for piece in pieces)))
    kind = "regressor" if block.data.task == "regression" else "classifier"
    return Network(stages.model_name(depth), kind, block, depth, depth, stacks)


def _models(tree: RunTree, data: datasets.Data, kept: Network) -> Iterator[SeedModel]:
    prepared = serving.preparations(kept.block, data)
    served = serving.of(kept, data) if prepared else None
    template = ModelTemplate.of(models.built(models.architecture(kept, data)).model, serving=served)
    for position, seed in enumerate(kept.block.seeds[: kept.block.reported]):
        weights, run_id = models.weights(kept, position, data), tree.seed_run("greedy", seed)
        yield SeedModel(run_id, kept.name, kept.depth, template, weights, content_digest(*weights),
                        preparation=prepared.get(seed))  # fmt: skip
