"""YAML as plain data: how study files, settings and what a tracker holds are read, and the only way.

YAML can name Python types, refer to itself until a kilobyte means a terabyte, nest until the reader's stack is full,
let a later key silently replace an earlier one, and read numbers in eights and sixties. A study needs none of that.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MOST_NESTED = 30
"""Lists and mappings inside one another; a study has about ten."""

LONGEST_NUMBER = 100
"""Characters of a number: beyond, turning it into one and back takes a time that grows with their square."""

WHOLE, FRACTION = NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE = "tag:yaml.org,2002:merge"


class NotPlain(ValueError):
    """A text is no plain YAML; the message says why, and ``line`` where, from 1, if that is known."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.line = line


def read_plain(text: str) -> Any:
    """What a text says: mappings, lists, text, numbers, dates, truth values and ``None``.

    The time is that of reading through the text, about 10 s for a megabyte.

    Raises:
        NotPlain: if it is no YAML, or more than plain.

    Example:
        >>> from layerwise.study.plain import read_plain
        >>> read_plain("{a: [1, x]}")
        {'a': [1, 'x']}
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - derives from SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise NotPlain(str(error.problem or error.context), line) from None
    except (yaml.YAMLError, ValueError) as error:  # a character or a date that cannot be
        raise NotPlain(str(error).splitlines()[0], None) from None


class _PlainLoader(yaml.SafeLoader):
    """Refuses while it reads, so that what stands behind the first offence is never looked at."""

    nested = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(
                None, None, f"the alias *{event.anchor} is not read; write the value out", event.start_mark
            )
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, f"the tag {event.tag} is not read; write a plain value", event.start_mark)
        if self.nested == MOST_NESTED:
            raise ComposerError(None, None, f"nested more than {MOST_NESTED} deep", event.start_mark)
        self.nested += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.nested -= 1

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            reason = f"a number of {len(node.value):,} characters; at most {LONGEST_NUMBER} are read"
            raise ComposerError(None, None, reason, node.start_mark)
        if node.tag in NUMBERS and self._is_read_otherwise(node):
            meant = self.construct_yaml_int(node) if node.tag == WHOLE else self.construct_yaml_float(node)
            remedy = "write that, or quote it if it is text"
            reason = f"{node.value} is no decimal number, and would be read as {meant}; {remedy}"
            raise ComposerError(None, None, reason, node.start_mark)
        return node

    def _is_read_otherwise(self, node: yaml.ScalarNode) -> bool:
        """Whether YAML takes digits for another number than a person: 010 for eight, 1:30 for ninety."""
        octal = node.tag == WHOLE and re.fullmatch(r"[-+]?0[0-7_]+", node.value)
        return bool(octal) or ":" in node.value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == MERGE:
                raise ConstructorError(None, None, "the merge key << is not read; write the keys out", key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused as no key
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
