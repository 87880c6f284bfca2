"""The part of a study's report that says what was trained: data, arms, network, seeds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from layerwise import figures
from layerwise.report.page import Block, Column, Drawing, Facts, Pieces, Section, Table, code
from layerwise.report.run import StudyRun
from layerwise.report.wording import (
    counted,
    depths_in_words,
    layers_in_words,
    listed,
    noise_in_words,
    procedure_in_words,
    training_in_words,
    tuning_in_words,
)
from layerwise.study import OwnData, Study, declared_network, looks

HIDDEN = {"split", "labels", "scaling", "shuffle", "source", "fresh"}
"""What a data set says that has words of its own here."""


MOST_DRAWN = 2000
"""Rows up to which data are drawn: each is a mark in the file."""


def trained(run: StudyRun) -> Section:
    """What was trained, on what, and how."""
    blocks: list[Block] = [
        Facts([*_data(run), *_network(run.study), ("seeds", _seeds(run)), *_growth(run), *_declared(run)]),
        _arms(run.study),
        _training(run.study),
        *_drawn(run),
    ]
    return Section("What was trained", blocks)


def _data(run: StudyRun) -> Iterator[tuple[str, str | Pieces]]:
    spec, (rows, features, classes) = run.study.data, run.study.data.shape()
    settings = [f"{key.replace('_', ' ')} {value}" for key, value in spec.canonical().items() if key not in HIDDEN]
    told = counted(classes, "class", "classes") if classes else "a number to predict"
    yield "data", f"{spec.source}: {counted(rows, 'row')}, {counted(features, 'feature')}, {told}"
    if settings:
        yield "its settings", "; ".join(settings)
    yield "parts", _parts(run.study)
    if spec.labels:
        yield "labels", f"{spec.labels:,} training rows keep their label, a stratified draw of each seed"
    if spec.scaling != "none":
        yield "scaling", f"{spec.scaling.replace('_', '-')}, fitted on each seed's training part"
    if "data_balance" in run.origin:
        yield "targets", run.origin["data_balance"]
    if run.data_digest:
        yield "digest of the data", (code(run.data_digest),)


def _parts(study: Study) -> str:
    spec, split = study.data, study.data.split
    sizes = {"training": split.train, "validation": split.validation, "test": split.test, "unused": split.unused}
    told = listed([f"{size:,} {part}" for part, size in sizes.items() if size]) + " rows"
    if getattr(spec, "fresh", False):
        return f"{told}; each seed draws new training rows, and all share the test rows"
    return (
        f"{told}; {'each seed draws its own' if spec.shuffle else 'the same for every seed, in the order of the rows'}"
    )


def _drawn(run: StudyRun) -> Iterator[Drawing]:
    """The data, where they have two features and are made anew from their description, as they were."""
    from layerwise import datasets, stages

    spec, shape = run.study.data, run.study.data.shape()
    if shape.features != 2 or not shape.classes or shape.rows > MOST_DRAWN or isinstance(spec, OwnData):
        return
    data = datasets.generate(spec)
    if data.digest == run.data_digest:
        block = next(stages.blocks(run.study, run.arms[0], data.digest))
        draw = partial(figures.scatter, block.view(data), data.classes, seed=block.seeds[0])
        yield Drawing(draw, f"The rows of both parts as seed {block.seeds[0]} sees them, by class.")


def _network(study: Study) -> Iterator[tuple[str, str]]:
    """What stands around the hidden layers, which the arms say."""
    network = study.network
    if network.input:
        yield "input", f"a row is seen as {' x '.join(map(str, network.input))}"
    for name, encoder in network.encoders.items():
        yield f"input {name}", f"{counted(len(encoder.features), 'feature')} through {layers_in_words(encoder.layers)}"
    if network.head:
        yield "head", f"{layers_in_words(network.head)}, below the output layer and trained with it"


def _seeds(run: StudyRun) -> str:
    study, first = run.study, run.study.blocks()[0]
    told = f"{counted(run.seeds, 'seed')} of every arm, {len(first)} side by side"
    if study.stop is not None:
        told += (
            f"; at most {study.seeds}, with looks at the claims after {listed([str(look) for look in looks(study)])},"
            " fixed beforehand; training ended at the first look that decided them all, or at the last"
        )
    return told


def _declared(run: StudyRun) -> Iterator[tuple[str, str]]:
    if found := declared_network(run.study):
        yield "network to register", f"{found.place}: declared beforehand, since no validation part chooses one"


def _growth(run: StudyRun) -> Iterator[tuple[str, str]]:
    grow = run.study.grow
    if grow is not None:
        yield (
            "growth",
            f"an arm ends with the first layer that its first {counted(grow.seeds, 'seed')} show to gain less than"
            f" {grow.worth:g} in validation {run.named}, and all later seeds, and controls, are as deep",
        )


def _arms(study: Study) -> Table:
    rows = [
        (
            arm,
            procedure_in_words(study, arm),
            layers_in_words(study.procedure(arm).layers),
            depths_in_words(study.procedure(arm).depths),
        )
        for arm in study.arms
    ]
    words = [
        Column(name, numeric=False) for name in ("arm", "what it does", "hidden layers, bottom up", "scored at depth")
    ]
    note = (
        "Arms share data, seeds, initial weights, the order of rows and every stage that they have in common. Depth"
        " counts hidden layers."
    )
    return Table("The arms", words, rows, note=note)


def _training(study: Study) -> Table:
    shared: dict[tuple[str, str], list[str]] = {}
    for arm in study.arms:
        for stage in _stages(study, arm):
            shared.setdefault(stage, []).append(arm)
    rows = [
        (*stage, "every arm" if len(arms) == len(study.arms) else ", ".join(arms)) for stage, arms in shared.items()
    ]
    words = [Column(name, numeric=False) for name in ("stage", "how it trains", "arms")]
    return Table("Training settings", words, rows)


def _stages(study: Study, arm: str) -> Iterator[tuple[str, str]]:
    """What an arm trains, stage by stage: the stage, and how."""
    asked = study.procedure(arm)
    if asked.control == "end_to_end":
        yield "all layers at once", f"{training_in_words(asked.training)} for every layer"
    elif asked.control is None or asked.control == "permuted":
        yield from _greedy(study, arm)
    if asked.control != "scratch" and (asked.objective == "reconstruction" or asked.control == "random_frozen"):
        yield "head on frozen features", training_in_words(asked.head)
    if asked.fine_tune is not None and asked.control == "scratch":
        yield "all layers at once", training_in_words(asked.fine_tune)
    elif asked.fine_tune is not None:
        yield "fine tuning of all weights", tuning_in_words(asked.fine_tune)


def _greedy(study: Study, arm: str) -> Iterator[tuple[str, str]]:
    """The greedy stages of an arm, those of equal settings together."""
    asked = study.procedure(arm)
    by_settings: dict[str, list[int]] = {}
    for depth in range(1, asked.depth + 1):
        noise = asked.noise_at(depth)
        told = training_in_words(asked.training_at(depth)) + (f"; {noise_in_words(noise)}" if noise else "")
        by_settings.setdefault(told, []).append(depth)
    for told, depths in by_settings.items():
        whole = depths == list(range(depths[0], depths[-1] + 1))
        numbers = depths_in_words(depths) if whole else listed(list(map(str, depths)))
        yield f"hidden layer{'s' if len(depths) > 1 else ''} {numbers}", told
