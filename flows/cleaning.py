"""``layerwise clean``: stored results that nobody needs any more. Runs are never touched.

Results are a cache: what is removed is computed again when it is wanted. Still nothing is removed that a run in
progress may be using, and what a run that was not finished might go on from is told from what only deleted runs used.
Damaged results are found by reading every one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows import environment
from flows.launching import Unanswered, unusable
from flows.locks import Busy, alone_with_results
from flows.printing import BUSY, DONE, FAILED, Terminal, refuse, say
from layerwise.sizes import in_words
from tasks.records import File, Folder, damaged, listed

LONG = 1_000_000_000
"""Bytes of results from which on reading them all takes so long that it is said."""


@dataclass(frozen=True)
class Wanted:
    """What is to be removed besides what is of no use to anybody.

    Attributes:
        older_than: seconds; results that were written before that; ``None`` for none.
        older_in_words: the same, as the user said it.
        of_deleted: whether to remove results that only deleted runs used.
    """

    older_than: float | None = None
    older_in_words: str = ""
    of_deleted: bool = False


def clean_command(wanted: Wanted, root: Path, *, really: bool) -> int:
    """Say what can be removed, and remove it if that is wanted. Returns the exit status.

    Args:
        wanted: what to remove.
        root: whose results.
        really: whether to remove it, and not only say so.
    """
    console = Terminal()
    folder = environment.results_folder(root)
    if not folder.is_dir():
        say(f"There are no results in {folder}.{_room(root, results=0)}", console)
        return DONE
    try:
        with alone_with_results(root):
            return _clean(listed(folder), wanted, root, console, really=really)
    except Busy as busy:
        return refuse(str(busy), BUSY)
    except Unanswered as problem:
        return refuse(str(problem), problem.status)


def _clean(found: Folder, wanted: Wanted, root: Path, console: Console, *, really: bool) -> int:
    size = sum(file.size for file in found.results)
    long = "; each is read now, to find damaged ones" if size > LONG else ""
    say(f"{_said(found.results, 'result')} in {environment.results_folder(root)}{long}", console)
    chosen = _chosen(found, wanted, root, console)
    for why, files in chosen.items():
        say(f"  {_said(files, 'file')} {why}", console)
    going = {file.path: file for files in chosen.values() for file in files}
    if not going:
        say(f"Nothing to remove.{_room(root, results=0 if wanted.older_than == 0 else size)}", console)
        return DONE
    if not really:
        say(f"To remove {_said(going.values(), 'file')}: the same with --yes.", console)
        return DONE
    kept = [file for file in going.values() if not _removed(file)]
    say(f"Removed {_said([file for file in going.values() if file not in kept], 'file')}.", console)
    for file in kept:
        refuse(f"{file.path} cannot be removed; see its permissions.", FAILED)
    return FAILED if kept else DONE


def _chosen(found: Folder, wanted: Wanted, root: Path, console: Console) -> dict[str, list[File]]:
    """Why -> the files that go for it."""
    useless = {
        "that are damaged, or none of ours": damaged(found.results)[1],
        "that were damaged, and set aside": [*found.damaged],
        "that were never finished": [*found.unfinished],
    }
    chosen = {why: files for why, files in useless.items() if files}
    if wanted.older_than is not None:
        before = time.time() - wanted.older_than
        old = [file for file in found.results if file.written < before]
        chosen[f"older than {wanted.older_in_words}"] = old
    if wanted.of_deleted:
        chosen["that only deleted runs used"] = _of_deleted(found, root, console)
    return chosen


def _of_deleted(found: Folder, root: Path, console: Console) -> list[File]:
    """The results that deleted runs used, and no other; of what was deleted by half it is said that it stays."""
    from tasks.tracking.store import TrackingError, is_new, open_store

    if is_new(root):
        return []
    environment.prepare(root)
    try:
        from tasks.tracking.ledgers import only_of_deleted

        unused = only_of_deleted(open_store(root))
    except TrackingError as error:
        raise unusable(error) from None
    for study, many in sorted(unused.partly.items()):
        left = f"{many} run{'s' * (many != 1)} of its arms and seeds {'are' if many != 1 else 'is'} not"
        say(f"  {study}: its study run is deleted, {left}; delete these too, or what they used stays", console)
    return [file for file in found.results if file.path.name in unused.digests]


def _room(root: Path, *, results: int) -> str:
    """What else takes room, for whoever needs some; nothing where there is nothing.

    Args:
        root: whose files.
        results: how many bytes of results there are that could go.
    """
    said = [f"results {in_words(results)} (--older-than 0h takes them all)"] if results else []
    for what, folder in (("runs", root / "mlruns"), ("Prefect's", environment.prefect_home(root))):
        if size := sum(_sizes(folder)):
            said.append(f"{what} {in_words(size)} in {folder}")
    return f" What takes room: {', '.join(said)}." if said else ""


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it is gone by now
                yield (Path(place) / name).lstat().st_size


def _said(files: Iterable[File], what: str) -> str:
    files = list(files)
    return f"{len(files):,} {what}{'s' * (len(files) != 1)} ({in_words(sum(file.size for file in files))})"


def _removed(file: File) -> bool:
    try:
        file.path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
