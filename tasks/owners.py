"""Who is at work: a process of a machine, told apart from every later one of the same number.

What a process leaves unfinished carries its owner's name, so that the next one can tell whether it may take it over.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

TAG = "process "
"""What a tag begins with that names a process."""


def this_process() -> str:
    """The name of this process: machine, number, and when it began.

    Example:
        >>> this_process()  # doctest: +SKIP
        'lab/4711/93848'
    """
    return f"{socket.gethostname()}/{os.getpid()}/{_start_of(os.getpid())}"


def mark() -> str:
    """The name of this process in the names of files: short, and without what these may not hold.

    Example:
        >>> mark()  # doctest: +SKIP
        '3e1f0b-4711-93ad01'
    """
    return f"{_short(socket.gethostname())}-{os.getpid()}-{_short(_start_of(os.getpid()))}"


def is_mark_of_gone(name: str) -> bool:
    """Whether a name begins with the mark of a process of this machine that has ended.

    Example:
        >>> is_mark_of_gone(f"{mark()}-7x2k"), is_mark_of_gone("of somebody else")
        (False, False)
    """
    host, process, began, *_ = [*name.split("-"), "", ""]
    return host == _short(socket.gethostname()) and process.isdecimal() and _short(_start_of(int(process))) != began


def tag() -> str:
    """The tag by which Prefect's runs name this process as theirs."""
    return f"{TAG}{this_process()}"


def tagged(tags: Iterable[str]) -> list[str]:
    """The processes that some tags name.

    Example:
        >>> tagged(["nightly", "process lab/4711/93848"])
        ['lab/4711/93848']
    """
    return [one.removeprefix(TAG) for one in tags if one.startswith(TAG)]


def is_gone(owner: str) -> bool:
    """Whether ``owner`` was a process of this machine that has ended; of another machine's nothing is known."""
    place, _, started = owner.rpartition("/")
    host, _, process = place.partition("/")
    return host == socket.gethostname() and process.isdecimal() and _start_of(int(process)) != started


def is_here(owner: str) -> bool:
    """Whether ``owner`` is a process of this machine that is running."""
    return owner.partition("/")[0] == socket.gethostname() and owner.count("/") == 2 and not is_gone(owner)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _start_of(process: int) -> str:
    """When a process began; empty if there is none."""
    try:
        # Field 22 of the line; the program's name before it may hold spaces and brackets.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False)
    return answer.stdout.strip().replace("/", "-")
