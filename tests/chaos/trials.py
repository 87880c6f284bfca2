"""Which trials are run: numbered from 1, so that many can be run in pieces, each with random numbers of its own.

``CHAOS_TRIALS`` says which of those that go on for ever: ``20`` the first twenty, ``26-50`` those. ``CHAOS_POINTS``
says which of those that are a list, such as every write of a run: ``20`` twenty of them, evenly spread, ``26-50``
those, ``kinds`` one of each kind, and ``all``. Without them a few are run.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

notes: list[str] = []
"""Lines for the end of the session: what was listed, and how many of how many succeeded."""


def numbers(few: int) -> range:
    """The trials to run; ``few`` from the first on, if nobody asks for others."""
    first, last = _asked("CHAOS_TRIALS", str(few))
    return range(first or 1, last + 1)


def points(listed: Sequence[T], few: int, kind: Callable[[T], Hashable] = lambda point: point) -> list[tuple[int, T]]:
    """Those of a list that are to be run, with their numbers; ``few`` of them, if nobody asks for others."""
    numbered = list(enumerate(listed, start=1))
    if os.environ.get("CHAOS_POINTS") == "all":
        return numbered
    if os.environ.get("CHAOS_POINTS") == "kinds":
        alike: dict[Hashable, list[tuple[int, T]]] = {}
        for number, point in numbered:
            alike.setdefault(kind(point), []).append((number, point))
        return sorted((those[len(those) // 2] for those in alike.values()), key=lambda chosen: chosen[0])
    first, last = _asked("CHAOS_POINTS", str(few))
    if first:
        return numbered[first - 1 : last]
    step = max(1.0, len(numbered) / last)
    return [numbered[int((place + 0.5) * step)] for place in range(min(last, len(numbered)))]


def chance(kind: str, number: int) -> random.Random:
    """The random numbers of one trial."""
    return random.Random(f"{kind} {number}")  # noqa: S311 - nobody is to be kept from guessing them


def count(kind: str, failures: Sequence[str], total: int) -> None:
    """Note how many trials of a kind succeeded, and fail if not all did."""
    notes.append(f"{kind}: {total - len(failures)} of {total}")
    assert not failures, "\n".join([f"{len(failures)} of {total} failed:", *failures])


def note(lines: Iterable[str]) -> None:
    """Have lines printed at the end."""
    notes.extend(lines)


def _asked(variable: str, otherwise: str) -> tuple[int, int]:
    asked = os.environ.get(variable, "") or otherwise
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)", asked)
    if not found:
        raise ValueError(f"{variable} is {asked!r}; expected a number, or two as in 26-50")
    return int(found[1] or 0), int(found[2])
