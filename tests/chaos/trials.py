"""Which trials are run: numbered from 1, so that many can be run in pieces, each with random numbers of its own.

``CHAOS_TRIALS`` says which: ``20`` the first twenty, ``26-50`` those. Without it a few are run.
"""

from __future__ import annotations

import os
import random
import re


def numbers(few: int) -> range:
    """The trials to run; ``few`` from the first on, if nobody asks for others."""
    asked = os.environ.get("CHAOS_TRIALS", "") or str(few)
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)", asked)
    if not found:
        raise ValueError(f"CHAOS_TRIALS is {asked!r}; expected a number, or two as in 26-50")
    return range(int(found[1] or 1), int(found[2]) + 1)


def chance(kind: str, number: int) -> random.Random:
    """The random numbers of one trial."""
    return random.Random(f"{kind} {number}")  # noqa: S311 - nobody is to be kept from guessing them
