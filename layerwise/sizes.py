"""Memory: what a study needs, estimated from its shapes, against what the machine has, before work starts."""

from __future__ import annotations

import math
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from layerwise.study.layers import incoming_shapes, shape_below
from layerwise.study.parts import StudyError

LIBRARIES = 850_000_000
"""Bytes of TensorFlow and the rest before any data come in; measured on Linux."""

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's memory limit stands."""

STATUS = Path("/proc/self/status")
"""Where Linux says how much memory a process holds, and has held."""

FLOAT, DOUBLE = 4, 8

NUMBER = FLOAT + 2 * DOUBLE + 2 * FLOAT
"""Bytes that a number of the data comes to: as read, in double precision while it is fitted, as seeds see it, as a
tensor."""


def estimated_bytes(study: Any, shape: Any) -> dict[str, int]:
    """How much memory a study needs at its peak, by what needs it; within a quarter of what was measured on Linux.

    Args:
        study: the :class:`layerwise.study.Study`.
        shape: rows, features and classes of its data.

    Returns:
        Bytes under words such as ``"inputs"``; their sum is the need.

    Example:
        >>> from layerwise.sizes import estimated_bytes
        >>> from layerwise.study import load
        >>> study = load("blobs-supervised")
        >>> sum(estimated_bytes(study, study.data.shape()).values()) < 1e9
        True
    """
    needs = [_arm_bytes(study, arm, shape) for arm in study.arms]
    return {"libraries": LIBRARIES} | {what: max(need[what] for need in needs) for what in needs[0]}


def _arm_bytes(study: Any, arm: str, shape: Any) -> dict[str, int]:
    asked, spec, seeds = study.procedure(arm), study.data, len(study.blocks()[0])
    own_rows = spec.shuffle or getattr(spec, "fresh", False)
    fitted = asked.scaling != "none" or spec.source in {"table", "loader", "memory"}
    copies = seeds if (fitted and own_rows) or getattr(spec, "fresh", False) else 1
    inputs, widest = shape.rows * shape.features, max(_widths(asked, shape.features))
    outputs = shape.features if asked.objective == "reconstruction" else max(shape.classes, 1)
    epochs = max(stage.epochs for stage in (asked.training, asked.head, asked.fine_tune) if stage is not None)
    if asked.control == "end_to_end":
        epochs *= asked.depth
    return {
        # Seeds that see data of their own have them twice.
        "inputs": inputs * NUMBER + 2 * (copies - 1) * inputs * FLOAT,
        # Those of the last two stages are kept, and the newest are a tensor too.
        "features": 3 * seeds * shape.rows * widest * FLOAT,
        # Drawn, stacked, and as a tensor.
        "the orders of rows in every epoch": 3 * seeds * epochs * spec.split.train * FLOAT,
        # Of every row of every seed, and what scoring makes of them in double precision.
        "outputs": seeds * shape.rows * outputs * (FLOAT + 4 * DOUBLE),
        # Weights, gradients, and up to two slots of the optimizer.
        "weights": 5 * seeds * _weights(asked, shape.features, outputs) * FLOAT,
    }


def _widths(asked: Any, features: int) -> list[int]:
    """Numbers that a row has below each hidden layer and above the last, as far as that shows before it is built."""
    below = shape_below(asked.bottom)
    shapes = incoming_shapes(asked.layers, below) if below else []
    return [math.prod(shape) for shape in shapes] or [features]


def _weights(asked: Any, features: int, outputs: int) -> int:
    widths = [*_widths(asked, features), outputs]
    return sum(below * above for below, above in pairwise(widths))


def machine_bytes() -> int:
    """The memory of this machine, or what the container, or ``ulimit -v``, leaves of it."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [most] if most != resource.RLIM_INFINITY else []
    for limit in LIMITS:
        try:
            text = limit.read_text().strip()
        except OSError:
            continue
        found += [int(text)] if text.isdecimal() else []
    return min(found)


_peaks: list[int] = []


def peak_bytes() -> int | None:
    """The most memory that this process has held at once since it began (its resident set); None on Windows.

    Example:
        >>> from layerwise.sizes import peak_bytes
        >>> (peak_bytes() or 1e7) > 1e6
        True
    """
    try:
        # What getrusage says on Linux reaches back to the process that started this one. Threads count some pages for
        # themselves for a while, so that a later answer of the kernel's can be a little lower.
        _peaks.append(int(re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[0]) * 1024)
        _peaks[:] = [max(_peaks)]
        return _peaks[0]
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # it counts bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def refuse_oversize(study: Any, *, available: int | None = None) -> None:
    """Refuse a study that needs more memory than there is.

    Args:
        study: the :class:`layerwise.study.Study`.
        available: bytes; the machine's, if left out.

    Raises:
        StudyError: with both numbers, and what needs most.
    """
    available = machine_bytes() if available is None else available
    needs = estimated_bytes(study, study.data.shape())
    needed, most = sum(needs.values()), max(needs, key=lambda what: needs[what])
    if needed > available:
        raise StudyError(
            f"{study.name}: would need about {in_words(needed)} of memory, {in_words(needs[most])} of it for {most},"
            f" and there is {in_words(available)} here; use fewer rows, units or epochs, or a larger machine."
        )


def refuse_oversize_file(where: str, needed: int, *, available: int | None = None) -> None:
    """Refuse to read a file whose content would not fit into memory.

    Args:
        where: how messages call it.
        needed: bytes; :data:`NUMBER` for each number that it says it holds.
        available: bytes; the machine's, if left out.

    Raises:
        StudyError: with both numbers.
    """
    available = machine_bytes() if available is None else available
    if needed > available:
        raise StudyError(
            f"{where}: reading it would take about {in_words(needed)} of memory, and there is {in_words(available)}"
            " here; use fewer rows or columns, or a larger machine."
        )


def in_words(size: int) -> str:
    """A number of bytes as people say it.

    Example:
        >>> from layerwise.sizes import in_words
        >>> in_words(1_500_000_000)
        '1.5 GB'
    """
    power = min(max(int(math.log10(max(size, 1)) // 3), 0), 5)
    return f"{size / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
