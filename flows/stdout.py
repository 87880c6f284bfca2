"""Standard output that nobody reads, or that takes nothing: the work goes on, and what is lost is told once.

A reader that leaves, such as ``head``, has seen what it wanted. A disk that is full loses the answer, which fails the
command in the end, whatever it did.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

_lost = threading.Event()


def leave_unread(file: IO[str] | None = None) -> None:
    """Have standard output, or what stands for it, go nowhere, since nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (file or sys.stdout).fileno())
    os.close(nowhere)


def lose(error: OSError) -> str:
    """Have standard output go nowhere, since it takes nothing; returns what to say of it, in one line."""
    _lost.set()
    leave_unread()
    return f"standard output cannot be written ({error.strerror or error}); send it where there is room, and ask again."


def is_lost() -> bool:
    """Whether something of what should have been printed was lost."""
    return _lost.is_set()
