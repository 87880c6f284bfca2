"""What a block of seeds sees of a data set: its own random parts, labelled rows and scaling, or its own rows.

Everything random is drawn from a named stream; everything fitted is fitted on each seed's training part alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise import streams
from layerwise.datasets.data import Data, RawTable, View
from layerwise.datasets.generating import fresh
from layerwise.study import DataSet, Scaling, Split, Study, StudyError

if TYPE_CHECKING:
    from layerwise.datasets.preparing import Preparation


def view(spec: DataSet, data: Data, *, seeds: Sequence[int], labels: int | None, scaling: Scaling) -> View:
    """What a block of seeds sees.

    Args:
        spec: how the data set is divided.
        data: the whole data set, from :func:`generate`.
        seeds: the block.
        labels: training rows that keep their label, all of them if ``None``.
        scaling: of the inputs, fitted on each seed's training part only.

    Raises:
        StudyError: if a feature is constant on a training part that is to be scaled.
    """
    return _view(spec, _ByDigest(data), tuple(seeds), labels, scaling)


def check_seeds(study: Study, data: Data) -> None:
    """Refuse data of which some seed would see too little, before any seed trains.

    Args:
        study: its parts, seeds and scalings.
        data: its data set, from :func:`generate`.

    Raises:
        StudyError: if a seed's training part lacks a class, or a feature that is to be scaled is constant on it.

    Example:
        >>> from layerwise.datasets import check_seeds, generate
        >>> from layerwise.study import load
        >>> study = load("blobs-supervised")
        >>> check_seeds(study, generate(study.data))
    """
    scalings = {study.procedure(arm).scaling for arm in study.arms} - {"none"}
    for seeds in study.blocks():
        seen = view(study.data, data, seeds=seeds, labels=None, scaling="none")
        if data.classes:
            for seed, targets in zip(seeds, seen.targets_of(seen.pool), strict=True):
                _require_classes(data, seed, targets)
        if data.table is None and scalings:
            from layerwise.datasets import preparing  # loads pandas

            for rows in seen.inputs_of(seen.pool):
                preparing.refuse_constants(rows, min(scalings))


def _require_classes(data: Data, seed: int, targets: np.ndarray) -> None:
    present = np.bincount(targets, minlength=len(data.classes)) > 0
    if not present.all():
        raise StudyError(
            f"data: the training part of {len(targets)} rows that seed {seed} draws has no row of class"
            f" {data.classes[present.argmin()]}; give train more rows (data.split)."
        )


class _ByDigest:
    """Data that compares by digest, so that a view of it can be remembered."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __hash__(self) -> int:
        return hash(self.data.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and other.data.digest == self.data.digest


@functools.lru_cache(maxsize=2)
def _view(spec: Any, known: _ByDigest, seeds: tuple[int, ...], labels: int | None, scaling: Scaling) -> View:
    data = known.data
    pool, validation, test = _parts(spec, data, seeds)
    inputs, targets = (data.inputs, data.targets) if not getattr(spec, "fresh", False) else fresh(spec, data, seeds)
    unlabelled = View(inputs, targets, len(data.classes), pool, pool, validation, test)
    train = pool if labels is None else _labelled(unlabelled, seeds, labels)
    if data.table is not None and (scaling != "none" or data.table.is_fitted):
        scaled = _prepared(data.table, pool, scaling, shared_parts=not spec.shuffle)
    else:
        scaled = _scaled(inputs, pool, scaling, shared_parts=not spec.shuffle)
    return View(scaled, targets, len(data.classes), pool, train, validation, test)


def _parts(spec: Any, data: Data, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the training, validation and test part: ``(seeds, n)`` each."""
    rows, split = np.arange(len(data.inputs), dtype=np.int32), spec.split
    if spec.shuffle and spec.stratified and data.classes:
        orders = np.stack([_stratified_order(data, split, streams.generator(seed, "split")) for seed in seeds])
    elif spec.shuffle and not getattr(spec, "fresh", False):
        orders = np.stack([streams.generator(seed, "split").permutation(rows) for seed in seeds])
    else:
        orders = np.tile(rows, (len(seeds), 1))
    train, validation = split.train, split.validation or 0
    return orders[:, :train], orders[:, train : train + validation], orders[:, -split.test :]


def _stratified_order(data: Data, split: Split, rng: np.random.Generator) -> np.ndarray:
    """Rows in a random order of which each part, taken in turn, has every class in proportion."""
    left, order = np.arange(len(data.targets), dtype=np.int32), []
    for size, least in ((split.train, 1), (split.validation or 0, 0), (split.unused or 0, 0)):
        chosen = _stratified(data.targets[left], size, len(data.classes), rng, least=least)
        order.append(left[chosen])
        left = np.delete(left, chosen)
    return np.concatenate([*order, rng.permutation(left)])


def _labelled(seen: View, seeds: Sequence[int], labels: int) -> np.ndarray:
    """``(seeds, labels)``: a draw from each seed's pool; every class has its share, and at least one row."""
    if not seen.classes:
        return np.stack([
            rows[streams.generator(seed, "labels").permutation(len(rows))[:labels]]
            for seed, rows in zip(seeds, seen.pool, strict=True)
        ])  # fmt: skip
    classes = seen.targets_of(seen.pool)
    return np.stack([
        rows[_stratified(targets, labels, seen.classes, streams.generator(seed, "labels"))]
        for seed, rows, targets in zip(seeds, seen.pool, classes, strict=True)
    ])  # fmt: skip


def _stratified(
    targets: np.ndarray, size: int, classes: int, rng: np.random.Generator, *, least: int = 1
) -> np.ndarray:
    """Positions of ``size`` rows: shares by largest remainder, each class ``least`` times or more, in random order."""
    counts = np.bincount(targets, minlength=classes)
    if (counts < least).any():
        raise StudyError(
            f"data: a training part has no row of class {counts.argmin()}, so none of its rows can keep a label; give"
            " train more rows (data.split)."
        )
    exact = size * counts / max(counts.sum(), 1)
    shares = np.maximum(np.floor(exact).astype(int), least)
    while shares.sum() != size:
        room = exact - shares
        if shares.sum() < size:
            shares[np.argmax(np.where(shares < counts, room, -np.inf))] += 1
        else:
            shares[np.argmin(np.where(shares > least, room, np.inf))] -= 1
    chosen = [rng.permutation(np.flatnonzero(targets == label))[:share] for label, share in enumerate(shares)]
    return rng.permutation(np.concatenate(chosen))


def _scaled(inputs: np.ndarray, pool: np.ndarray, scaling: Scaling, *, shared_parts: bool) -> np.ndarray:
    """Inputs scaled by what each seed's training part shows; one shared copy where the seeds share their parts."""
    if scaling == "none":
        return inputs
    from layerwise.datasets import preparing  # loads pandas

    if inputs.ndim == 2 and shared_parts:
        return preparing.scaled(inputs, preparing.fitted_to_array(inputs, pool[0], scaling))
    every = inputs if inputs.ndim == 3 else np.broadcast_to(inputs, (len(pool), *inputs.shape))
    return np.stack([
        preparing.scaled(own, preparing.fitted_to_array(own, rows, scaling))
        for own, rows in zip(every, pool, strict=True)
    ])  # fmt: skip


def _prepared(table: RawTable, pool: np.ndarray, scaling: Scaling, *, shared_parts: bool) -> np.ndarray:
    """A table's inputs, prepared by what each seed's training part shows; one copy where the seeds share parts."""
    from layerwise.datasets import preparing  # loads pandas

    if shared_parts:
        return preparing.prepared_table(table, preparing.fitted_to_table(table, pool[0], scaling))
    return np.stack([
        preparing.prepared_table(table, preparing.fitted_to_table(table, rows, scaling)) for rows in pool
    ])  # fmt: skip


def preparation(spec: Any, data: Data, *, seed: int, scaling: Scaling) -> Preparation | None:
    """What turns a seed's raw rows into the inputs that :func:`view` gives it; ``None`` where they are the inputs.

    Args:
        spec: how the data set is divided.
        data: the whole data set, from :func:`generate`.
        seed: which seed.
        scaling: of the inputs.
    """
    from layerwise.datasets import preparing  # loads pandas

    own = view(spec, data, seeds=(seed,), labels=None, scaling="none") if getattr(spec, "fresh", False) else None
    pool = _parts(spec, data, (seed,))[0][0]
    if data.table is not None:
        return preparing.fitted_to_table(data.table, pool, scaling)
    if scaling == "none":
        return None
    return preparing.fitted_to_array(data.inputs if own is None else own.inputs[0], pool, scaling)
