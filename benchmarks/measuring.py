"""How things are timed: each in a child process of its own, so that its memory and its imports are its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent

SAMPLE_SECONDS = 0.1
"""How often the memory of a child and its own children is added up."""


class Times(NamedTuple):
    """Seconds by the clock, and seconds of processor time: what other work on the machine stretches less."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Child:
    """A process that has ended.

    Attributes:
        times: from its start to its end, the processor time of its own children included.
        largest_mb: peak resident memory of its largest process, in 10^6 bytes, as the kernel counted it.
        together_mb: highest sum of resident memory over its processes, sampled; pages they share count twice.
            ``None`` where there is no ``/proc``.
        load: the machine's load average over a minute when it began.
        output: what it wrote to standard output.
    """

    times: Times
    largest_mb: float
    together_mb: float | None
    load: float
    output: str

    @property
    def answer(self) -> Any:
        """What it printed on the last line of its output, as JSON."""
        return json.loads(self.output.splitlines()[-1])

    def repeats(self, key: str) -> list[Times]:
        """The times that :func:`repeat` printed: ``"cold"`` or ``"warm"``."""
        return [Times(*times) for times in self.answer[key]]


def machine() -> str:
    """This machine, how busy it is, and the versions that are measured, in a line."""
    from tasks.provenance import provenance

    tags = {name.removeprefix("layerwise."): value for name, value in provenance().items()}
    versions = (f"{name.removeprefix('version.')} {value}" for name, value in tags.items() if "version." in name)
    place = f"{tags['machine']}, {tags['cores']} cores, load {os.getloadavg()[0]:.1f}"
    return f"{place}; {', '.join(versions)}; commit {tags.get('git_commit', 'unknown')[:10]}"


def run_module(module: str, arguments: Sequence[str] = (), *, root: Path, python: Path | None = None) -> Child:
    """Run ``python -m module`` to its end, in a scratch root.

    Args:
        module: its dotted name.
        arguments: its own.
        root: its ``LAYERWISE_ROOT``.
        python: the interpreter, where it is not this one.

    Raises:
        RuntimeError: if it fails; the message ends with what it wrote.
    """
    environ = {
        name: value for name, value in os.environ.items() if name not in {"MLFLOW_TRACKING_URI", "PREFECT_API_URL"}
    }
    environ |= {"LAYERWISE_ROOT": str(root), "PYTHONPATH": str(CHECKOUT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    load = os.getloadavg()[0]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(python or sys.executable), "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            env=environ,
        )
        with _Sampled(process.pid) as sampled:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with status {process.returncode}:\n{text[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Child(
        times=Times(seconds, usage.ru_utime + usage.ru_stime),
        largest_mb=usage.ru_maxrss * unit / 1e6,
        together_mb=sampled.highest_mb,
        load=load,
        output=text,
    )


class _Sampled:
    """The highest sum of resident memory over a process and all below it, while the body runs."""

    def __init__(self, process: int) -> None:
        self.process, self.highest_mb = process, None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            if now := sum(map(resident_mb, with_descendants(self.process))):
                self.highest_mb = max(now, self.highest_mb or 0.0)

    def __enter__(self) -> _Sampled:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def with_descendants(process: int) -> Iterator[int]:
    """A process and all below it; where there is no ``/proc``, itself alone."""
    yield process
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = listing.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from with_descendants(int(child))


def resident_mb(process: int) -> float:
    """Memory that a process holds, in 10^6 bytes; 0 where that cannot be known."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_seconds(process: int) -> float:
    """Processor time of a process and all below it, of those that have ended too; 0 where it cannot be known."""
    ticks = 0
    for one in with_descendants(process):
        with suppress(OSError):  # it has just ended
            # Fields 14 to 17 of the line: its own, and of children that it has waited for.
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Asked(argparse.Namespace):
    """What the timed modules take."""

    seeds: int
    stages: int
    epochs: int
    repeats: int
    unsupervised: bool


def arguments(description: str | None) -> Asked:
    """What this process was asked for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--stages", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="warm repeats, after the first run")
    parser.add_argument("--unsupervised", action="store_true", help="autoencoders, each with a head")
    return parser.parse_args(namespace=Asked())


def repeat(
    work: Callable[[], object], repeats: int, *, started: float, more: Callable[[], dict[str, Any]] = dict
) -> None:
    """Do the work once cold and then warm, and print the seconds as JSON.

    Args:
        work: what to time.
        repeats: how many times warm.
        started: ``time.perf_counter()`` before the imports; ``cold`` counts from there.
        more: gives what else is to be printed.
    """
    work()
    times = [Times(time.perf_counter() - started, time.process_time())]
    for _ in range(repeats):
        begun = Times(time.perf_counter(), time.process_time())
        work()
        times.append(Times(time.perf_counter() - begun.wall, time.process_time() - begun.processor))
    print(json.dumps({"cold": times[:1], "warm": times[1:], **more()}))
