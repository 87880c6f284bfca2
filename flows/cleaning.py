"""``layerwise clean``: stored results that nobody needs any more. Runs are never touched.

Results are a cache: what is removed is computed again when it is wanted. Still nothing is removed that a run in
progress may be using, and what a run that was not finished might go on from is told from what only deleted runs used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows import environment
from flows.launching import Unanswered, unusable
from flows.locks import Busy, alone_with_results
from flows.printing import BUSY, DONE, FAILED, Terminal, refuse, say
from layerwise.sizes import in_words
from tasks.records import File, Folder, listed


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
        say(f"There are no results in {folder}.", console)
        return DONE
    try:
        with alone_with_results(root):
            return _clean(listed(folder), wanted, root, console, really=really)
    except Busy as busy:
        return refuse(str(busy), BUSY)
    except Unanswered as problem:
        return refuse(str(problem), problem.status)


def _clean(found: Folder, wanted: Wanted, root: Path, console: Console, *, really: bool) -> int:
    say(f"{_said(found.results, 'result')} in {environment.results_folder(root)}", console)
    chosen = _chosen(found, wanted, root)
    for why, files in chosen.items():
        say(f"  {_said(files, 'file')} {why}", console)
    going = {file.path: file for files in chosen.values() for file in files}
    if not going:
        say("Nothing to remove.", console)
        return DONE
    if not really:
        say(f"To remove {_said(going.values(), 'file')}: the same with --yes.", console)
        return DONE
    kept = [file for file in going.values() if not _removed(file)]
    say(f"Removed {_said([file for file in going.values() if file not in kept], 'file')}.", console)
    for file in kept:
        refuse(f"{file.path} cannot be removed; see its permissions.", FAILED)
    return FAILED if kept else DONE


def _chosen(found: Folder, wanted: Wanted, root: Path) -> dict[str, list[File]]:
    """Why -> the files that go for it."""
    useless = {"that were damaged, and set aside": [*found.damaged], "that were never finished": [*found.unfinished]}
    chosen = {why: files for why, files in useless.items() if files}
    if wanted.older_than is not None:
        before = time.time() - wanted.older_than
        old = [file for file in found.results if file.written < before]
        chosen[f"older than {wanted.older_in_words}"] = old
    if wanted.of_deleted:
        unused = _of_deleted(root)
        chosen["that only deleted runs used"] = [file for file in found.results if file.path.name in unused]
    return chosen


def _of_deleted(root: Path) -> set[str]:
    """The digests of results that deleted runs used, and no other."""
    from tasks.tracking.store import TrackingError, is_new, open_store

    if is_new(root):
        return set()
    environment.prepare(root)
    try:
        from tasks.tracking.ledgers import only_of_deleted

        return only_of_deleted(open_store(root))
    except TrackingError as error:
        raise unusable(error) from None


def _said(files: Iterable[File], what: str) -> str:
    files = list(files)
    return f"{len(files):,} {what}{'s' * (len(files) != 1)} ({in_words(sum(file.size for file in files))})"


def _removed(file: File) -> bool:
    try:
        file.path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
