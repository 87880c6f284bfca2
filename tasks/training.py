"""The training stages as Prefect tasks: the functions of :mod:`layerwise.pretraining`, cached by digest.

Each has the name and the arguments of the function it wraps, so that the loop over depths,
:func:`layerwise.pretraining.depths`, runs on either. Run names say arm, seeds and depth, so that the Prefect pages
read like the study.
"""

from __future__ import annotations

from typing import Any

from prefect.utilities.annotations import quote

from layerwise import datasets, pretraining
from layerwise.datasets import Data
from layerwise.pretraining import Block, Evaluation, StageResult
from layerwise.study import Blobs, digest_of
from tasks.results import stage_task


def _run_name(parameters: dict[str, Any], stage: str) -> str:
    block, depth = parameters["block"], len(parameters.get("chain", ()))
    return f"{block.arm} seeds {block.seeds[0]}-{block.seeds[-1]}: {stage.format(depth=depth, next=depth + 1)}"


@stage_task(name="generate data", task_run_name="data: {spec.source}")
def _generate_data(spec: Blobs, digest: str) -> Data:
    return datasets.generate(spec)


def generate_data(spec: Blobs) -> Data:
    """The study's data: generated once, then found again by the digest of its specification."""
    identity = {"data": spec.canonical(), "version": datasets.VERSION, "libraries": pretraining.library_versions()}
    return _generate_data(spec, digest_of(identity))


_base = stage_task(
    pretraining.base,
    name="base",
    task_run_name=lambda parameters: _run_name(parameters, "base"),
)
_add_layer = stage_task(
    pretraining.add_layer,
    name="add layer",
    task_run_name=lambda parameters: _run_name(parameters, "add layer {next}"),
)
_evaluate = stage_task(
    pretraining.evaluate,
    name="evaluate",
    task_run_name=lambda parameters: _run_name(parameters, "evaluate depth {depth}"),
)

# Left to itself, Prefect looks through every argument for results of other tasks, so that each stage hangs on all
# below it, several times over. Quoted arguments it leaves alone, and wait_for names the one task that is built on:
# the graph is then the study's. A result's digest is a part of it that nothing else holds.


def base(block: Block, data: Data, digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.base`."""
    return _base(quote(block), quote(data), digest, wait_for=[data.digest])


def add_layer(block: Block, data: Data, chain: tuple[StageResult, ...], digest: str) -> StageResult:
    """The task of :func:`layerwise.pretraining.add_layer`."""
    return _add_layer(quote(block), quote(data), quote(chain), digest, wait_for=[chain[-1].digest])


def evaluate(block: Block, data: Data, chain: tuple[StageResult, ...], digest: str) -> Evaluation:
    """The task of :func:`layerwise.pretraining.evaluate`."""
    return _evaluate(quote(block), quote(data), quote(chain), digest, wait_for=[chain[-1].digest])
