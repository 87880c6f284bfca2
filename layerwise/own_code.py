"""Which code computed a stage: a digest of the modules that decide bits, kept with every result.

The digest under which a result is found holds versions of stages, which whoever changes the code raises by hand. Code
that was edited without that finds what it computed before, so the results of two programs can meet in one study. They
do not do so in silence: every result says which code made it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent

READS_RESULTS = (
    *("claims", "report", "statistics"),
    *("across.py", "agreement.py", "answers.py", "comparison.py", "costs.py", "figures.py", "growing.py"),
    *("judgement.py", "ledger.py", "own_code.py", "selection.py"),
)
"""What of this package only reads what was computed; all else may decide bits."""

DIGITS = 12


@functools.cache
def digest() -> str:
    """Digest of the modules of this package that decide bits, as they are on disk when it is first asked for."""
    found = hashlib.sha256()
    for file in sorted(FOLDER.rglob("*.py")):
        place = file.relative_to(FOLDER)
        if place.parts[0] not in READS_RESULTS:
            found.update(f"{place.as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:DIGITS]


def in_words(codes: Mapping[str, int]) -> str:
    """How many stages other code than this computed; empty where none.

    Args:
        codes: digest of the code -> how many stages it computed; an empty one for results that do not say.

    Example:
        >>> in_words({digest(): 3})
        ''
        >>> in_words({digest(): 3, "5f0c": 1})
        '1 of 4 stages and scores was computed by other code of Layerwise than this'
        >>> in_words({digest(): 3, "": 1})
        '1 of 4 stages and scores was computed by code that nobody recorded'
    """
    unknown = codes.get("", 0)
    other = sum(codes.values()) - codes.get(digest(), 0) - unknown
    parts = [(other, "by other code of Layerwise than this"), (unknown, "by code that nobody recorded")]
    (first, by), *more = [part for part in parts if part[0]] or [(0, "")]
    if not first:
        return ""
    words = f"{first} of {sum(codes.values())} stages and scores {'was' if first == 1 else 'were'} computed {by}"
    return words + "".join(f", and {count} {by}" for count, by in more)


def as_text(codes: Mapping[str, int]) -> str:
    """The same for a tag."""
    return json.dumps(dict(codes), sort_keys=True)


def from_text(text: str) -> dict[str, int]:
    """What :func:`as_text` made; empty for anything else, which others may have written, and for nothing.

    Example:
        >>> from_text(as_text({"5f0c": 2})), from_text("[1]")
        ({'5f0c': 2}, {})
    """
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    entries = found.items() if isinstance(found, dict) else [("no", 0)]
    sound = all(re.fullmatch(r"[0-9a-f]*", code) and type(count) is int and count > 0 for code, count in entries)
    return dict(entries) if sound else {}
