"""What ``layerwise list`` and ``layerwise show`` print: studies, stages, what exists, what is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import environment
from flows.printing import Terminal, say
from flows.survey import Survey, grown_as_stored, growth_in_words
from layerwise import sizes
from layerwise.study import Study, StudyError, declared_network, load, shipped


def list_shipped() -> None:
    """Print the ready-made studies: name, size, and the question below it."""
    console = Terminal()
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
    console = Terminal()
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
    if study.grow is not None:
        study, scores = grown_as_stored(study, data, repeat, root)
        for line in growth_in_words(study, scores):
            say(line, console)
    if found := declared_network(study):
        say(f"registers {found.place}, as declared", console)
    survey = Survey(environment.results_folder(root), data)
    for arm in study.arms:
        _show_arm(study, arm, repeat, survey, console)
    left, known = len(survey.wanted - survey.found), len(survey.wanted)
    depths = sum(len(study.procedure(arm).depths) for arm in study.arms) * len(blocks)
    say(f"{left} of {known} stages left to train; arms share those they have in common", console)
    say(f"Progress counts {depths} depths, each of an arm and a block, of one stage or more and its scores.", console)


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
