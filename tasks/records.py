"""The records of stage results as they lie on disk: a line that vouches for the rest, then what Prefect stores.

This module knows what a sound record is and parses nothing but its frame; it imports no Prefect, so that whoever only
looks at results can do so at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import bounded

MAGIC = b"layerwise result 1"

DAMAGED = ".damaged"
"""What the name of a file ends with that was no sound record, and was set aside; it begins with a dot."""


@dataclass(frozen=True)
class File:
    """A file in the folder of results; its size in bytes, and when it was written, in seconds since 1970."""

    path: Path
    size: int
    written: float


@dataclass(frozen=True)
class Folder:
    """What lies in the folder of results.

    Attributes:
        results: records, by their names; the newest first.
        damaged: what was set aside.
        unfinished: what is being written, or was when its writer was killed.
    """

    results: tuple[File, ...]
    damaged: tuple[File, ...]
    unfinished: tuple[File, ...]


def listed(folder: Path) -> Folder:
    """What lies in a folder of results; nothing where there is none."""
    found: dict[str, list[File]] = {"results": [], "damaged": [], "unfinished": []}
    for file in _files_in(folder):
        name = file.path.name
        hidden = "damaged" if name.endswith(DAMAGED) else "unfinished"
        found[hidden if name.startswith(".") else "results"].append(file)
    newest_first = (sorted(files, key=lambda file: -file.written) for files in found.values())
    return Folder(*map(tuple, newest_first))


def damaged(files: Sequence[File], seconds: float = math.inf) -> tuple[int, list[File]]:
    """How many results were verified, and which of these are no sound records. It reads every one.

    Args:
        files: of the results.
        seconds: for how long; the others are then left.
    """
    until, found = time.monotonic() + seconds, []
    for number, file in enumerate(files):
        if time.monotonic() > until:
            return number, found
        try:
            opened(bounded.read(file.path, links=False), file.path.name)
        except FileNotFoundError:  # a clean is under way
            continue
        except (OSError, ValueError):
            found.append(file)
    return len(files), found


def _files_in(folder: Path) -> Iterator[File]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    yield File(Path(entry.path), stat.st_size, stat.st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return


def sha256(*parts: bytes) -> bytes:
    """The SHA-256 of the parts in a row, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def envelope(record: bytes) -> bytes:
    """What a file holds whose record is ``record``."""
    return b"".join((MAGIC, b" ", sha256(record), b"\n", record))


def opened(content: bytes, name: str) -> bytes:
    """The record that a file of that name holds.

    Raises:
        ValueError: if it holds none, or none that is sound; the message says why.
    """
    head, newline, record = content.partition(b"\n")
    magic, _, digest = head.rpartition(b" ")
    if magic != MAGIC or not newline:
        raise ValueError("it does not begin as a record of ours")
    if sha256(record) != digest:
        raise ValueError("its checksum does not match its content")
    check(record, name)
    return record


def check(record: bytes, name: str) -> None:
    """Refuse a record that Prefect would hand to any other serializer than ours.

    Prefect takes the deserializer from the record, in its present place or in older ones, and whatever a
    second key of the same name says. So nothing but the exact present form passes.

    Raises:
        ValueError: if it is no such record; the message says why.
    """
    try:
        parsed = json.loads(record, object_pairs_hook=_without_duplicates)
        serializer, stored_as = parsed["metadata"]["serializer"], parsed["metadata"]["storage_key"]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"it is not a result record ({error})") from error
    if parsed.keys() != {"metadata", "result"} or serializer != {"type": "layerwise"}:
        raise ValueError(f"its serializer is {serializer!r}, not ours")
    if stored_as != name:
        raise ValueError(f"it was stored as {stored_as!r}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(keys := dict(pairs)):
        raise ValueError("a key occurs twice")
    return keys
