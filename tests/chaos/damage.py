"""Ways to damage a file: a bit flipped, an end cut off, nothing left, something else in its place."""

from __future__ import annotations

import random
from pathlib import Path

KINDS = ("flipped", "cut", "empty", "foreign")


def damage(file: Path, kind: str, chance: random.Random) -> str:
    """Damage a file as ``kind`` says; returns what was done, in words."""
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    if kind == "flipped":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "empty":
        content.clear()
    else:
        content[:] = b"PK\3\4" + chance.randbytes(place)
    file.write_bytes(content)
    return f"{file.name} {kind} at byte {place}"
