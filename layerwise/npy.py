"""NumPy's files, read without trust: what one says it holds is held against what it has before it is given memory.

A header of a hundred bytes can ask for a terabyte, or for Python objects, whose reading can run code.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

MOST_ARRAYS = 10_000
"""Arrays in an archive."""

HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
"""How the header of each version is read; version 3 is for fields with names, which no data here have."""


class NotAnArray(ValueError):
    """A file is no array, or does not hold what it says; the message is what a name in front of it would go on with."""


def read_array(stream: Any, size: int, *, weigh: Callable[[int], None] | None = None) -> np.ndarray:
    """The array in an NPY file, of numbers, truth values or text.

    Args:
        stream: the file, which can be read from its beginning again.
        size: its bytes.
        weigh: is called with the number of elements before they are read, and may refuse them.

    Raises:
        NotAnArray: if it is none, or holds less than it says, or Python objects.

    Example:
        >>> import io, numpy as np
        >>> from layerwise.npy import read_array
        >>> file = io.BytesIO()
        >>> np.save(file, np.arange(3))
        >>> size = file.tell()
        >>> read_array(io.BytesIO(file.getvalue()), size).tolist()
        [0, 1, 2]
    """
    shape, dtype = _described(stream)
    if dtype.hasobject:
        raise NotAnArray("holds Python objects, which are not read, since they can run code; save numbers or text.")
    if any(type(length) is not int or length < 0 for length in shape):
        raise _unreadable(f"its shape is {shape!r:.60}")
    count, there = math.prod(shape), size - stream.tell()
    if count * max(dtype.itemsize, 1) > there:
        raise _unreadable(f"it says that it holds {shape!r:.60} of {dtype}, and has {there:,} bytes")
    if weigh is not None:
        weigh(count)
    stream.seek(0)
    try:
        return npy.read_array(stream, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - NumPy, zlib and zipfile each have their own
        raise _unreadable(str(error) or type(error).__name__) from None


class Archive(Mapping[str, np.ndarray]):
    """The arrays of an NPZ file by name, each read, as by :func:`read_array`, when it is asked for.

    Args:
        file: the open file.
        weigh: as for :func:`read_array`.

    Raises:
        NotAnArray: if it is none, or holds very many arrays.
    """

    def __init__(self, file: BinaryIO, *, weigh: Callable[[int], None] | None = None) -> None:
        try:
            self.zip = zipfile.ZipFile(file)
        except Exception as error:  # noqa: BLE001 - a damaged directory can end in any error
            raise _unreadable(str(error) or type(error).__name__) from None
        ending = ".npy"
        self.members = {
            member.filename.removesuffix(ending): member
            for member in self.zip.infolist()
            if member.filename.endswith(ending)
        }
        self.weigh = weigh
        if len(self.members) > MOST_ARRAYS:
            raise NotAnArray(f"holds {len(self.members):,} arrays; at most {MOST_ARRAYS:,} are read.")

    def __getitem__(self, name: str) -> np.ndarray:
        member = self.members[name]
        try:
            stream = self.zip.open(member)
        except Exception as error:  # noqa: BLE001 - encrypted, compressed in an unknown way, elsewhere
            raise _unreadable(str(error) or type(error).__name__) from None
        with stream:
            return read_array(stream, member.file_size, weigh=self.weigh)

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


def _described(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, from its header."""
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = HEADERS[version](stream)
    except Exception as error:  # noqa: BLE001 - the header is a Python literal, whose parser can raise anything
        raise _unreadable(str(error) or type(error).__name__) from None
    return shape, dtype


def _unreadable(reason: str) -> NotAnArray:
    return NotAnArray(
        f"cannot be read as NumPy's ({reason.splitlines()[0][:120]}); save it anew with numpy.save or savez."
    )
