"""Numbers, and what was trained, in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from layerwise.claims.wording import number, p_value
from layerwise.study import AnyLayer, Custom, FineTune, Noise, Procedure, Study, Training

NOTHING = "-"
"""What stands where there is no number."""

SHORT = {"learning_rate": "learning rate"}


def shown(value: Any, *, signed: bool = False) -> str:
    """A number with four decimals; a dash where there is none.

    Example:
        >>> shown(0.82512), shown(float("nan")), shown(0.5, signed=True)
        ('0.8251', '-', '+0.5000')
    """
    return NOTHING if is_missing(value) else number(float(value), signed=signed)


def interval(low: Any, high: Any, *, signed: bool = False) -> str:
    """Two limits; a dash where there are none.

    Example:
        >>> interval(-0.001, 0.25, signed=True)
        '-0.0010 to +0.2500'
    """
    missing = is_missing(low) or is_missing(high)
    return NOTHING if missing else f"{shown(low, signed=signed)} to {shown(high, signed=signed)}"


def p(value: Any) -> str:
    """A p-value; a dash where there is none."""
    return NOTHING if is_missing(value) else p_value(float(value))


def short(value: Any) -> str:
    """A number with two decimals: an effect size, a correlation, a share."""
    return NOTHING if is_missing(value) else f"{float(value):.2f}"


def is_missing(value: Any) -> bool:
    """Whether there is no such number."""
    return value is None or math.isnan(float(value))


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and its noun: ``1 seed``, ``2 seeds``.

    Example:
        >>> counted(1, "seed"), counted(1200, "row")
        ('1 seed', '1,200 rows')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: Any) -> str:
    """A time as people say it.

    Example:
        >>> duration(0.234), duration(75), duration(4000)
        ('0.2 s', '75 s', '67 min')
    """
    if is_missing(seconds):
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def depths_in_words(depths: Sequence[int]) -> str:
    """Depths: ``2``, ``1 to 11``."""
    return str(depths[0]) if len(depths) == 1 else f"{depths[0]} to {depths[-1]}"


def training_in_words(training: Training) -> str:
    """How a stage trains.

    Example:
        >>> from layerwise.study import Training
        >>> training_in_words(Training())
        'sgd, learning rate 0.01; batch size 32; 100 epochs'
    """
    said = training.optimizer.canonical()
    settings = [
        f"{key.replace('_', ' ')} {value:g}" for key, value in said.items() if key not in {"name", "nesterov"} and value
    ]
    nesterov = ["Nesterov"] if said.get("nesterov") else []
    optimizer = ", ".join([said["name"], *settings, *nesterov])
    return f"{optimizer}; batch size {training.batch_size}; {counted(training.epochs, 'epoch')}"


def noise_in_words(noise: Noise) -> str:
    """Noise on a stage's inputs."""
    return f"masking noise, {100 * noise.rate:g} %" if noise.kind == "masking" else f"Gaussian noise, sd {noise.sd:g}"


def layers_in_words(layers: Sequence[AnyLayer]) -> str:
    """Hidden layers, bottom up, equal ones together.

    Example:
        >>> from layerwise.study import load
        >>> layers_in_words(load("blobs-supervised").procedure("greedy").layers)
        '11 x dense 10 relu (he_uniform)'
    """
    groups = [(said, len(list(same))) for said, same in itertools.groupby(map(_layer, layers))]
    return ", ".join(said if count == 1 else f"{count} x {said}" for said, count in groups)


def _layer(layer: AnyLayer) -> str:
    if isinstance(layer, Custom):
        return f"{layer.function} {layer.options or ''}".strip()
    said = layer.canonical()
    size = next(str(said[key]) for key in ("units", "filters") if key in said)
    plain = f"{layer.kind} {size} {said.get('activation', '')} ({said.get('initializer', '')})"
    usual = {"kind", "units", "filters", "activation", "initializer", "repeat"}
    more = [f"{key.replace('_', ' ')} {_plainly(value)}" for key, value in said.items() if key not in usual]
    return ", ".join([plain, *more])


def _plainly(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key.replace('_', ' ')} {_plainly(inner)}" for key, inner in value.items())
    return str(value)


def procedure_in_words(study: Study, arm: str) -> str:
    """What an arm does."""
    asked, of = study.procedure(arm), study.arms[arm].of
    kept = f"; {asked.labels:,} labelled rows" if asked.labels else ""
    scaled = "" if asked.scaling == "none" else f"; inputs scaled ({asked.scaling.replace('_', '-')})"
    return f"{_kind(asked, of)}{kept}{scaled}"


def _kind(asked: Procedure, of: str | None) -> str:
    trained = "on labels" if asked.objective == "supervised" else "on reconstruction"
    control = f"control{f' of {of}' if of else ''}"
    match asked.control:
        case "end_to_end":
            return f"{control}: all layers at once, {trained}, for as many epochs in all"
        case "scratch":
            return f"{control}: all layers at once from initial weights, on labels, with the fine-tuning budget"
        case "random_frozen":
            return f"{control}: untrained, frozen hidden layers under a trained head"
        case "permuted":
            return f"{control}: pretrained weights shuffled within each layer, then head and fine tuning"
    noise = f", with {noise_in_words(asked.noise)}" if asked.noise else ""
    return f"greedy, layer by layer, {trained}{noise}"


def tuning_in_words(tune: FineTune) -> str:
    """How all weights are fine-tuned."""
    on = {"labels": "on labels", "reconstruction": "on reconstruction", "both": "on reconstruction, then on labels"}
    at = "at every depth" if tune.at == "every_depth" else "at the last depth"
    carried = "; the tuned layers are built on" if tune.carry else ""
    fresh = "; from a fresh output layer" if tune.output == "fresh" else ""
    factors = tune.learning_rate_factors
    scaled = f"; learning rate factors {', '.join(f'{factor:g}' for factor in factors)}" if factors else ""
    return f"{on[tune.objective]}, {at}: {training_in_words(tune)}{scaled}{carried}{fresh}"
