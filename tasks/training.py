"""The training stages as Prefect tasks: the functions of :mod:`layerwise.pretraining`, cached by digest.

Each has the name and the arguments of the function it wraps, so that :func:`layerwise.pretraining.depths`, which
puts an arm's stages together, runs on either. Run names say arm, seeds and depth, so that the Prefect pages read
like the study. The cache is what lets arms share a prefix: the second arm finds the first one's results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.utilities.annotations import quote

from layerwise import datasets, identity, pretraining
from layerwise.datasets import Data
from layerwise.pretraining import permuted, unrolled, untrained
from layerwise.stages import Block, Chain, Evaluation, StageResult
from layerwise.study import DataSet, digest_of
from tasks.results import stage_task


@stage_task(name="generate data", task_run_name="data: {spec.source}")
def _generate_data(spec: DataSet, digest: str) -> Data:  # noqa: ARG001 - the result is stored under it
    return datasets.generate(spec)


def generate_data(spec: DataSet) -> Data:
    """The study's data: generated once, then found again by the digest of its specification."""
    known = {"data": spec.identity(), "version": datasets.VERSION, "libraries": identity.library_versions()}
    return _generate_data(spec, digest_of(known))


def _named(stage: str) -> Callable[[dict[str, Any]], str]:
    """How a stage's task runs are called: ``greedy seeds 0-9: add layer 3``."""

    def name(parameters: dict[str, Any]) -> str:
        block, below = parameters["block"], len(parameters.get("chain", ()))
        words = stage.format(depth=parameters.get("depth", below), next=below + 1)
        return f"{block.arm} seeds {block.seeds[0]}-{block.seeds[-1]}: {words}"

    return name


_base = stage_task(pretraining.base, name="base", task_run_name=_named("base"))
_add_layer = stage_task(pretraining.add_layer, name="add layer", task_run_name=_named("add layer {next}"))
_head = stage_task(pretraining.head, name="head", task_run_name=_named("head on depth {depth}"))
_fine_tune = stage_task(pretraining.fine_tune, name="fine tune", task_run_name=_named("fine tune depth {depth}"))
_jointly = stage_task(pretraining.jointly, name="train jointly", task_run_name=_named("jointly to depth {depth}"))
_evaluate = stage_task(pretraining.evaluate, name="evaluate", task_run_name=_named("evaluate depth {depth}"))

# Left to itself, Prefect looks through every argument for results of other tasks, so that each stage hangs on all
# below it, several times over. Quoted arguments it leaves alone, and wait_for names the one task that is built on:
# the graph is then the study's. A result's digest is a part of it that nothing else holds.


def base(block: Block, data: Data, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.base`."""
    return _base(quote(block), quote(data), digest, wait_for=[data.digest])


def add_layer(block: Block, data: Data, chain: Chain, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.add_layer`."""
    return _add_layer(quote(block), quote(data), quote(chain), digest, wait_for=[chain[-1].digest])


def head(block: Block, data: Data, chain: Chain, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.head`."""
    return _head(quote(block), quote(data), quote(chain), digest, wait_for=[data.digest, chain[-1].digest])


def fine_tune(block: Block, data: Data, chain: Chain, top: StageResult | None, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.fine_tune`."""
    after = chain[-1] if top is None else top
    return _fine_tune(quote(block), quote(data), quote(chain), quote(top), digest, wait_for=[after.digest])


def jointly(block: Block, data: Data, depth: int, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.jointly`."""
    return _jointly(quote(block), quote(data), depth, digest, wait_for=[data.digest])


def evaluate(block: Block, data: Data, chain: Chain, head: StageResult | None, digest: str) -> Evaluation:
    """The task of :func:`layerwise.pretraining.evaluate`."""
    after = chain[-1] if head is None else head
    return _evaluate(quote(block), quote(data), quote(chain), quote(head), digest, wait_for=[after.digest])


__all__ = [
    "add_layer",
    "base",
    "evaluate",
    "fine_tune",
    "generate_data",
    "head",
    "jointly",
    "permuted",
    "unrolled",
    "untrained",
]
