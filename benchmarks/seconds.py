"""Where the main job's seconds go: ``layerwise run blobs-supervised``, looked at a hundred times a second.

    python -m benchmarks.seconds [--seeds N] [--runs N]

Each run is a process of its own, with an existing store and every model tracked. A thread in it notes what every other
thread is at, by its stack: the first of :data:`PLACES`, from the outermost call in, whose file and function are there.
Of an import the outermost package is named. The table holds medians over the runs, for the thread that trains and for
the one that publishes; the looking itself takes a few per cent.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

INTERVAL = 0.01
IMPORTING = "<frozen importlib._bootstrap>"

PLACES = (
    ("tasks/tracking/store.py", "", "opening MLflow's store"),
    ("flows/server.py", "start", "starting Prefect's server"),
    ("flows/server.py", "wait_ready", "waiting for Prefect's server"),
    ("flows/server.py", "__exit__", "ending Prefect's server"),
    ("flows/server.py", "stop", "ending Prefect's server"),
    ("flows/crashed.py", "", "asking Prefect for runs that were killed"),
    ("layerwise/engine.py", "fit", "training"),
    ("layerwise/engine.py", "apply", "features and answers"),
    ("layerwise/pretraining.py", "evaluate", "scoring"),
    ("layerwise/orders.py", "", "drawing orders"),
    ("layerwise/network.py", "initial_weights", "drawing initial weights"),
    ("tasks/results.py", "", "stage results: writing, reading"),
    ("tasks/durable.py", "", "stage results: writing, reading"),
    ("layerwise/figures.py", "", "figures"),
    ("layerwise/report/", "", "report"),
    ("tasks/tracking/templates.py", "", "model files"),
    ("tasks/tracking/publishing.py", "", "model files and rows"),
    ("tasks/publishing.py", "", "publishing: the rest"),
    ("flows/publishing.py", "finish", "waiting for what is published"),
    ("layerwise/claims", "", "claims and statistics"),
    ("layerwise/statistics", "", "claims and statistics"),
    ("layerwise/npy.py", "", "stage results: writing, reading"),
    ("tasks/training.py", "", "Prefect's task runs"),
    ("layerwise/", "", "the algorithm's own Python"),
    ("prefect/", "", "Prefect: the rest"),
    ("mlflow/", "", "MLflow: the rest"),
)
"""Part of a file's path, a function's name or nothing, and what it is at."""

THREADS = {"trains": "MainThread", "publishes": "ThreadPoolExecutor-0_0", "draws orders": "orders_0"}
"""Those that work, the second one of Prefect's task runner; Prefect's client has others, which wait."""

COMPILING = "tracing and compiling"
RESTING = {"wait", "select", "_worker", "get", "_wait_for_tstate_lock", "poll", "accept"}
"""Functions in which a thread waits for another one, or for an event."""


class Watch(threading.Thread):
    """Counts what each thread of this process is at."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="watch")
        self.counts: dict[str, dict[str, float]] = {}
        self.last = time.perf_counter()

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            time.sleep(INTERVAL)
            now = time.perf_counter()
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - how one sees other threads
                if ident != self.ident:
                    counted, place = self.counts.setdefault(names.get(ident, "?"), {}), at(frame)
                    counted[place] = counted.get(place, 0.0) + now - self.last
            self.last = now


compiling = threading.Event()
"""Set while a stage's program is called for the first time."""


def at(frame: FrameType | None) -> str:
    """What a stack is at."""
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_name, frame))
        frame = frame.f_back
    if imported := [package for one in reversed(stack) if (package := _imported(*one))]:
        return f"imports: {imported[0]}"
    for part, function, place in PLACES:
        if any(part in path and function in {"", name} for path, name, _ in stack):
            return COMPILING if place == "training" and compiling.is_set() else place
    return "at rest" if stack[0][1] in RESTING else "other"


def _imported(path: str, name: str, frame: FrameType) -> str:
    """The package of others that a frame is importing, or nothing."""
    if path != IMPORTING or name != "_find_and_load":
        return ""
    package = frame.f_locals["name"].partition(".")[0]
    return "" if package in {"flows", "tasks", "layerwise", "benchmarks"} else package


def child(arguments: list[str]) -> None:
    """Run a command under the watch; its last line is what was counted, as JSON."""
    started, watch = time.perf_counter(), Watch()
    watch.start()
    sys.meta_path.insert(0, _Engine())
    from flows import cli

    sys.argv = ["layerwise", *arguments]
    if status := cli.run_command():
        sys.exit(status)
    print(json.dumps({"whole": time.perf_counter() - started, "threads": watch.counts}))


class _Engine(importlib.abc.MetaPathFinder):
    """Finds the engine once, so that the first call of each of its programs can be told from the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Its place, with a loader that marks ``fit``; nothing for any other module."""
        found = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "layerwise.engine" else None
        if found is not None:
            found.loader = _Marking("layerwise.engine", str(found.origin))
        return found


class _Marking(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.fit = _marked(module.fit)  # ty: ignore[missing-attribute]


def _marked(fit: Callable[..., Any]) -> Callable[..., Any]:
    seen = set()

    def marked(problem: Hashable, *arguments: Any) -> Any:
        if problem not in seen:
            seen.add(problem)
            compiling.set()
        try:
            return fit(problem, *arguments)
        finally:
            compiling.clear()

    return marked


def rows(runs: list[dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Thread, place, and the median of its seconds; those that take a twentieth of a second at least."""
    for title, thread in THREADS.items():
        seconds = [run["threads"].get(thread, {}) for run in runs]
        places = {place for one in seconds for place in one}
        medians = {place: statistics.median(one.get(place, 0.0) for one in seconds) for place in places}
        for place, median in sorted(medians.items(), key=lambda pair: -pair[1]):
            if median >= 0.05:
                yield title, place, median


def main() -> None:
    """Run the main job a few times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    from benchmarks.measuring import machine, run_module

    runs = []
    for _ in range(asked.runs):
        with tempfile.TemporaryDirectory(prefix="layerwise-seconds-") as scratch:
            small = ["run", "blobs-supervised", "--seeds", "1", "--set", "name=small", "--set", "claims=null"]
            run_module("flows.cli", [*small, "--set", "training.epochs=1"], root=Path(scratch))
            job = ["run", "blobs-supervised", "--seeds", str(asked.seeds)]
            runs.append(run_module("benchmarks.seconds", ["--", *job], root=Path(scratch)).answer)
    print(f"{machine()}\n\nwhole process: {statistics.median(run['whole'] for run in runs):.1f} s\n")
    print("| thread | at | seconds |\n|---|---|--:|")
    for thread, place, seconds in rows(runs):
        print(f"| {thread} | {place} | {seconds:.2f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        child(sys.argv[2:])
    else:
        main()
