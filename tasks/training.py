"""The training stages as Prefect tasks: the functions of :mod:`layerwise.pretraining`, cached by digest.

Each has the name and the arguments of the function it wraps, so that :func:`layerwise.pretraining.depths`, which
puts an arm's stages together, runs on either. Run names say arm, seeds and depth, so that the Prefect pages read
like the study. The cache is what lets arms share a prefix: the second arm finds the first one's results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerwise import datasets, pretraining
from layerwise.datasets import Data
from layerwise.study import DataSet, digest_of
from tasks.results import stage_task


@stage_task(name="generate data", task_run_name="data: {spec.source}")
def _generate_data(spec: DataSet, digest: str) -> Data:
    return datasets.generate(spec)


def generate_data(spec: DataSet) -> Data:
    """The study's data: generated once, then found again by the digest of its specification."""
    identity = {"data": spec.canonical(), "version": datasets.VERSION, "libraries": pretraining.library_versions()}
    return _generate_data(spec, digest_of(identity))


def _named(stage: str) -> Callable[[dict[str, Any]], str]:
    """How a stage's task runs are called: ``greedy seeds 0-9: add layer 3``."""

    def name(parameters: dict[str, Any]) -> str:
        block, below = parameters["block"], len(parameters.get("chain", ()))
        depth = parameters.get("depth", below)
        words = stage.format(depth=depth, next=below + 1)
        return f"{block.arm} seeds {block.seeds[0]}-{block.seeds[-1]}: {words}"

    return name


base = stage_task(pretraining.base, name="base", task_run_name=_named("base"))
add_layer = stage_task(pretraining.add_layer, name="add layer", task_run_name=_named("add layer {next}"))
head = stage_task(pretraining.head, name="head", task_run_name=_named("head on depth {depth}"))
fine_tune = stage_task(pretraining.fine_tune, name="fine tune", task_run_name=_named("fine tune depth {depth}"))
jointly = stage_task(pretraining.jointly, name="train jointly", task_run_name=_named("jointly to depth {depth}"))
evaluate = stage_task(pretraining.evaluate, name="evaluate", task_run_name=_named("evaluate depth {depth}"))
