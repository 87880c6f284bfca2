"""A study's mistakes in words: where, what was received, what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from layerwise.study.claims import KINDS_OF_CLAIM
from layerwise.study.data import DATA_SETS
from layerwise.study.layers import KINDS_OF_LAYER
from layerwise.study.parts import PATTERNS, Part, nearest, short
from layerwise.study.study import Study
from layerwise.study.training import NOISES, OPTIMIZERS


def complaints(error: ValidationError, schema: type[Part] = Study) -> Iterator[str]:
    """Each thing wrong with a file in a few words: where, what was received, what was expected.

    Args:
        error: what pydantic found.
        schema: what the file should have been.
    """
    found = error.errors(include_url=False)
    # A list with a wrong item is also reported as too short; only the innermost complaint helps.
    inner = [item for item in found if not any(_encloses(item["loc"], other["loc"]) for other in found)]
    for item in inner[:3]:
        place = ".".join(str(step) for step in (*_written(item["loc"]), *_tag_key(item)))
        yield f"{place}: {_explain(item, schema)}" if place else _explain(item, schema)
    if len(inner) > 3:
        yield f"and {len(inner) - 3} more"


def _written(location: Sequence[Any]) -> list[Any]:
    """The steps of a place that stand in the study. A claim's kind follows its name; keys may be called like kinds."""
    if location[:1] == ("claims",):
        return [*location[:2], *location[3:]]
    if location[:1] == ("data",):
        return [location[0], *location[2:]]
    return [step for step in location if step not in TAGS]


def _tag_key(item: Any) -> list[str]:
    """Which key tells several kinds of part apart, where an error is about it."""
    return [item["ctx"]["discriminator"].strip("'")] if item["type"] == "union_tag_invalid" else []


TAGS: dict[str, type[Part]] = {**OPTIMIZERS, **DATA_SETS, **NOISES, **KINDS_OF_LAYER}
"""What pydantic adds to the place of an error inside one of several kinds; not written in a study."""


KINDS = {"name": list(OPTIMIZERS), "source": list(DATA_SETS), "kind": list(NOISES)}


def _encloses(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _explain(item: Any, schema: type[Part]) -> str:  # noqa: PLR0911 - one answer for each kind of error
    kind, received, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(item['loc'][-1]), _keys_at(item['loc'][:-1], schema))}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"received {short(received)}{nearest(str(received), _quoted(context['expected']))}"
    if kind.startswith("union_tag"):
        key = context.get("discriminator", "").strip("'")
        name = received.get(key) if isinstance(received, dict) else received
        if name is None:
            return f"{key} is missing; known: {', '.join(_kinds(key, item['loc']))}"
        return f"received {short(name)}{nearest(str(name), _quoted(context.get('expected_tags', '')))}"
    if kind in {"model_type", "model_attributes_type"}:
        return f"received {short(received)}; expected keys such as {', '.join(_keys_at(item['loc'], schema)[:4])}"
    if kind == "dict_type":
        return f"received {short(received)}; expected a name for each, as in greedy: {{}}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"received {short(received)}; expected {context['min_length']} or more"
    return f"received {short(received)}; {_expected(item['msg'], context.get('pattern', ''))}"


def _expected(message: str, pattern: str) -> str:
    """What pydantic says; of a pattern that has words the words."""
    if pattern in PATTERNS:
        return f"expected {PATTERNS[pattern]}"
    return f"{message[:1].lower()}{message[1:]}"  # no more than its first letter: the rest may be a name


def _kinds(key: str, location: Sequence[Any]) -> list[str]:
    """What the key that tells kinds of part apart can be, at a place."""
    return list(KINDS_OF_CLAIM) if location[:1] == ("claims",) else KINDS[key]


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _keys_at(location: Sequence[Any], schema: type[Part]) -> list[str]:
    """The keys that the schema knows at a place, found by walking its types along the location."""
    part: Any = schema
    if location[:1] == ("claims",) and len(location) > 2:
        part, location = KINDS_OF_CLAIM[location[2]], location[3:]
    for step in location:
        part = _inner(part, step)
    return list(part.model_fields) if part is not None else []


def _inner(part: Any, step: Any) -> Any:
    if part is None:
        return None
    if isinstance(step, int):
        return part
    field = part.model_fields.get(step) if hasattr(part, "model_fields") else None
    if field is None:
        return TAGS.get(step, part)
    pending, parts = [field.annotation], []
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, Part):
            parts.append(kind)
        pending.extend(get_args(kind))
    return parts[0] if parts else None
