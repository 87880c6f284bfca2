"""What all parts of a study share."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LONGEST_LINE = 600
"""Characters of a refusal."""


TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that change the direction of writing, and can make a line read as another."""


def printable(text: str) -> str:
    r"""A text as a terminal shows it: characters that it would obey are escaped, but for line breaks and tabs.

    Files, and a tracker, may hold anything.

    Example:
        >>> from layerwise.study.parts import printable
        >>> print(printable("\x1b[2J cleared"))
        \x1b[2J cleared
    """
    return "".join(ascii(mark)[1:-1] if _is_obeyed(mark) else mark for mark in text)


def _is_obeyed(mark: str) -> bool:
    """Whether a terminal does something for a character in place of showing it: controls, and turned writing."""
    return (unicodedata.category(mark) in {"Cc", "Cs"} and mark not in "\n\t") or mark in TURNING


def in_a_line(text: str) -> str:
    """A message as one line that prints; of a very long one its beginning and its end."""
    line = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)
    return line if len(line) <= LONGEST_LINE else f"{line[:300]} ... {line[-200:]}"


class StudyError(ValueError):
    """A request that cannot be honoured; its message is one line: received, expected, remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(in_a_line(message))


def _is_import_path(path: str) -> str:
    if len(path) > 200 or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", path):
        raise ValueError(f"received {short(path)}; expected module:function")
    return path


ImportPath = Annotated[str, AfterValidator(_is_import_path)]
"""How a study names a function of the user's: ``module:function``. No other part of a study is imported."""

NAME, LABEL = r"^[a-z0-9][a-z0-9._-]{0,79}$", r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,79}$"
PATTERNS = {
    NAME: "at most 80 small letters, digits, '.', '_' and '-'; the first is a letter or a digit",
    LABEL: "at most 80 letters, digits, spaces, '.', '_' and '-'; the first is a letter or a digit",
}
"""The pattern of names that folders and addresses are made of, and of names that only people read; each in words."""

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
