"""What ``layerwise list`` and ``layerwise show`` print: studies, stages, what exists, what is left."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import environment
from layerwise.study import Layer, Study, load, shipped


def list_shipped() -> None:
    """Print the ready-made studies, one a line."""
    table = Table(box=None, pad_edge=False)
    for column in ("study", "arms", "depth", "seeds", "question"):
        table.add_column(column, overflow="fold", no_wrap=column != "question")
    for name in shipped():
        study = load(name)
        table.add_row(name, ", ".join(study.arms), str(study.depth), str(study.seeds), Text(study.question))
    Console().print(table)


def show_study(study: Study, root: Path, *, repeat: str = "") -> None:
    """Print what a study trains at each stage, which results exist, and roughly what the rest will take."""
    console = Console()
    heading = Text.assemble((study.name, "bold"), f"  {study.question}" if study.question else "")
    console.print(heading, soft_wrap=True)
    training, split = study.training, study.data.split
    console.print(
        f"data      {study.data.source}, {study.data.features} features, {study.data.classes} classes,"
        f" {split.train} training and {split.test} test rows\n"
        f"training  {training.optimizer.name}, learning rate {training.optimizer.learning_rate:g},"
        f" batch size {training.batch_size}, {training.epochs} epochs a stage\n"
        f"seeds     {study.seeds}, in {len(study.blocks())} blocks of {len(study.blocks()[0])} side by side",
        highlight=False,
        soft_wrap=True,
    )
    for arm in study.arms:
        _show_arm(study, arm, root, repeat, console)


def _show_arm(study: Study, arm: str, root: Path, repeat: str, console: Console) -> None:
    done = _finished_blocks(study, arm, root, repeat)
    table = Table(box=None, pad_edge=False, title=f"arm {arm}", title_justify="left")
    for column in ("depth", "stage", "trains", "frozen below", "weights that train", "blocks done"):
        table.add_column(column, justify="right" if column.startswith(("weights", "blocks")) else "left")
    width, blocks = study.data.features, len(study.blocks())
    for depth, layer in enumerate(study.network.hidden, start=1):
        stage = "base" if depth == 1 else "add_layer"
        frozen = "-" if depth == 1 else "hidden 1" if depth == 2 else f"hidden 1..{depth - 1}"
        weights = _weights(width, layer) + (layer.units + 1) * study.data.classes
        trains = f"hidden {depth} ({layer.units} {layer.activation}), output"
        table.add_row(str(depth), stage, trains, frozen, f"{weights:,}", f"{done[depth - 1]}/{blocks}")
        width = layer.units
    console.print(table)
    left = study.depth * blocks - sum(done)
    console.print(f"{left} of {study.depth * blocks} stages left to train", highlight=False)


def _weights(width: int, layer: Layer) -> int:
    return (width + 1) * layer.units


def _finished_blocks(study: Study, arm: str, root: Path, repeat: str) -> list[int]:
    """For each depth, how many blocks have their stage result on disk; found by digest, without TensorFlow."""
    folder = environment.results_folder(root)
    if not folder.is_dir():
        return [0] * study.depth
    from layerwise import datasets, pretraining

    counts = [0] * study.depth
    for block in pretraining.blocks(study, arm, datasets.generate(study.data).digest, repeat):
        parent = block.data_digest
        for depth in range(1, study.depth + 1):
            parent = pretraining.stage_digest(block, depth, parent)
            counts[depth - 1] += (folder / parent).is_file()
    return counts
