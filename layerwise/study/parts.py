"""What all parts of a study share."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

LONGEST_LINE = 600
"""Characters of a refusal."""


class StudyError(ValueError):
    """A request that cannot be honoured; its message is one line: received, expected, remedy.

    A study file, and what it names, may hold anything: characters that do not print are escaped, and of a very long
    line its beginning and its end are kept.
    """

    def __init__(self, message: str) -> None:
        line = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in message)
        super().__init__(line if len(line) <= LONGEST_LINE else f"{line[:300]} ... {line[-200:]}")


Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """What all parts share: frozen once built, and no key that is not in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """The part as plain JSON values with defaults filled in and unused parts left out."""
        return self.model_dump(mode="json", exclude_none=True)


def digest_of(value: Any) -> str:
    """SHA-256 of plain JSON values, independent of key order, as 32 hex digits (128 bits)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that is meant, if one is near, and all there are."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    listed = ", ".join(known)
    return f"; did you mean {near[0]}? Known: {listed}" if near else f"; known: {listed}"


def short(value: Any) -> str:
    """What was received, as one would write it in Python, cut to a length that a line has room for."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
