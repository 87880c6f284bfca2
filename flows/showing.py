"""What ``layerwise list`` and ``layerwise show`` print: studies, stages, what exists, what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import environment
from flows.printing import say
from layerwise import sizes
from layerwise.study import Study, StudyError, load, shipped

if TYPE_CHECKING:
    from layerwise.datasets import Data
    from layerwise.stages import Block, Chain, Evaluation, StageResult


def list_shipped() -> None:
    """Print the ready-made studies: name, size, and the question below it."""
    console = Console()
    for name in shipped():
        try:
            study = load(name)
        except StudyError as error:  # it is of a file that has to be brought along
            console.print(Text.assemble((f"{name:<20}", "bold"), f" not ready: {error}"), soft_wrap=True)
            continue
        arms = f"{len(study.arms)} arm{'s' if len(study.arms) > 1 else ''}"
        size = f"{arms}, depth {study.depth}, {study.seeds} seeds"
        console.print(Text.assemble((f"{name:<20}", "bold"), f" {size}"), soft_wrap=True)
        console.print(Text(f"    {study.question}"), soft_wrap=True)


def show_study(study: Study, root: Path, *, repeat: str = "") -> None:
    """Print what a study trains at each stage, and which results exist already."""
    from layerwise import datasets

    sizes.refuse_oversize(study)
    data = datasets.generate(study.data)
    datasets.check_seeds(study, data)
    console = Console()
    heading = Text.assemble((study.name, "bold"), f"  {study.question}" if study.question else "")
    console.print(heading, soft_wrap=True)
    blocks, needed = study.blocks(), sum(sizes.estimated_bytes(study, study.data.shape()).values())
    for line in _data_in_words(study):
        say(line, console)
    console.print(
        f"seeds  {study.seeds}, in {len(blocks)} block{'s' * (len(blocks) > 1)} of {len(blocks[0])} side by side;"
        f" about {sizes.in_words(needed)} of memory",
        highlight=False,
        soft_wrap=True,
    )
    survey = Survey(environment.results_folder(root), data)
    for arm in study.arms:
        _show_arm(study, arm, repeat, survey, console)
    left, known = len(survey.wanted - survey.found), len(survey.wanted)
    console.print(f"{left} of {known} stages left to train; arms share those they have in common", highlight=False)


def _data_in_words(study: Study) -> Iterator[str]:
    """What the data are, how they are divided, and how even the classes are."""
    from layerwise import datasets

    spec, (_, features, classes) = study.data, study.data.shape()
    validation = f", {spec.split.validation} validation" if spec.split.validation else ""
    unused = f"; {spec.split.unused} rows unused" if spec.split.unused else ""
    answer = f"{classes} classes" if classes else "a number to predict"
    yield (
        f"data   {spec.source}, {features} features, {answer}, {spec.split.train} training{validation} and"
        f" {spec.split.test} test rows{unused}"
    )
    yield f"       {spec.task}; {datasets.class_balance(datasets.generate(spec))}"


def _show_arm(study: Study, arm: str, repeat: str, survey: Survey, console: Console) -> None:
    asked, said = study.procedure(arm), study.arms[arm]
    training, noise = asked.training, f", {asked.noise.kind} noise" if asked.noise else ""
    labels = f", {asked.labels} labels" if asked.labels else ""
    kind = f"{asked.control} of {said.of or 'the first arm'}, " if asked.control else ""
    console.print(
        f"\narm {arm}: {kind}{asked.objective}{noise}{labels}; layers "
        + "-".join(layer.label for layer in asked.layers)
        + f"; {training.optimizer.name} {training.optimizer.learning_rate:g}, batch size {training.batch_size},"
        f" {training.epochs} epochs a stage",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("depth", "stage", "trains", "frozen"):
        table.add_column(column)
    table.add_column("blocks done", justify="right")
    for (depth, stage), (done, blocks) in survey.stages(study, arm, repeat).items():
        table.add_row(str(depth), stage, *_in_words(stage, depth), f"{done}/{blocks}")
    console.print(table)


def _in_words(stage: str, depth: int) -> tuple[str, str]:
    """What a stage trains, and what it leaves frozen."""
    every = "hidden 1" if depth == 1 else f"hidden 1..{depth}"
    below = "-" if depth == 1 else "hidden 1" if depth == 2 else f"hidden 1..{depth - 1}"
    return {
        "head": ("a new output layer", every),
        "fine_tune": (f"{every}, output", "-"),
        "jointly": (f"{every}, output", "-"),
    }.get(stage, (f"hidden {depth}, output", below))


@dataclass
class Survey:
    """The stages of an arm as digests alone: runs the algorithm's own order of stages, and trains none of them."""

    folder: Path
    data: Data
    wanted: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    met: list[tuple[int, str, str]] = field(default_factory=list)

    def stages(self, study: Study, arm: str, repeat: str) -> dict[tuple[int, str], tuple[int, int]]:
        """``(depth, stage)`` -> how many blocks have it on disk, and how many there are."""
        from layerwise import pretraining, stages

        self.met = []
        for block in stages.blocks(study, arm, self.data.digest, repeat):
            for _ in pretraining.depths(block, self.data, steps=self):
                pass
        done, blocks = Counter(), Counter()
        for depth, stage, digest in dict.fromkeys(self.met):
            self.wanted.add(digest)
            blocks[depth, stage] += 1
            if (self.folder / digest).is_file():
                self.found.add(digest)
                done[depth, stage] += 1
        return {key: (done[key], count) for key, count in blocks.items()}

    def base(self, block: Block, _data: Data, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "base", 1, digest)

    def add_layer(self, block: Block, _data: Data, chain: Chain, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "add_layer", len(chain) + 1, digest)

    def head(self, block: Block, _data: Data, chain: Chain, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "head", len(chain), digest)

    def fine_tune(self, block: Block, _data: Data, chain: Chain, _top: StageResult | None, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "fine_tune", len(chain), digest)

    def jointly(self, block: Block, _data: Data, depth: int, digest: str) -> StageResult:
        """Note the stage."""
        return self._met(block, "jointly", depth, digest)

    def evaluate(self, block: Block, _data: Data, chain: Chain, _head: object, digest: str) -> Evaluation:
        """Say nothing of scores: they cost next to nothing."""
        from layerwise.stages import Evaluation

        none = np.zeros(len(block.seeds), bool)
        return Evaluation(len(chain), {}, none, none, digest, 0)

    def untrained(self, block: Block, chain: Chain) -> StageResult:
        """A layer that no stage trains."""
        from layerwise import pretraining

        return pretraining.untrained(block, chain, hidden=())

    def permuted(self, block: Block, chain: Chain) -> Chain:
        """The chain, shuffled."""
        from layerwise import pretraining

        return pretraining.permuted(block, chain)

    def unrolled(self, block: Block, result: StageResult) -> Chain:
        """The result as a chain."""
        from layerwise import pretraining

        return pretraining.unrolled(block, result)

    def _met(self, block: Block, stage: str, depth: int, digest: str) -> StageResult:
        from layerwise.pretraining import without_training

        self.met.append((depth, stage, digest))
        return without_training(block, stage, depth, (), digest)
