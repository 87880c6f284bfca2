"""Reading files that somebody else may have put there: plain files alone, and no more than memory has room for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from layerwise.sizes import in_words, machine_bytes

SHARE = 4
"""A file of more than this part of the machine's memory is not read: what is made of it takes as much again."""


def read(file: Path, *, links: bool) -> bytes:
    """The content of a plain file.

    Args:
        file: the file. A pipe or a device, which may have no end, is refused.
        links: whether a symbolic link is followed.

    Raises:
        OSError: if there is none, or it is none of these.

    Example:
        >>> read(Path("/dev/zero"), links=True)
        Traceback (most recent call last):
        OSError: [Errno 22] no plain file: '/dev/zero'
    """
    follow = 0 if links else os.O_NOFOLLOW
    # Opening a pipe would wait for its writer.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(file))
        if found.st_size > machine_bytes() // SHARE:
            raise OSError(errno.EFBIG, f"{in_words(found.st_size)}, too much for this machine", str(file))
        return stream.read(found.st_size)


def read_below(folder: Path, path: str) -> bytes | None:
    """A file's content; None where it is not there, cannot be read, or its name would lead out of the folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        return None
    try:
        return read(folder / path, links=True)
    except (OSError, ValueError):
        return None
