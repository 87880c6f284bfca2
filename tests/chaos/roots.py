"""The study that the trials run, roots to run it in, and commands as a shell starts them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows import environment
from tasks.tracking.store import open_store
from tests.chaos import state
from tests.studies import small_document
from tests.test_cli import Ended, begin
from tests.test_server import used_root

TUNING = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 0.001}}

THREE_ARMS: dict[str, Any] = small_document(
    depth=2,
    name="three-arms",
    question="Does fine tuning help?",
    arms={"greedy": "greedy", "tuned": {"fine_tune": TUNING}, "random_frozen": "random_frozen"},
    seeds=12,
    claims={"helps": {"kind": "compare", "arm": "tuned", "metric": "test_accuracy", "above": "greedy"}},
)
"""Three arms, two of which share every stage but the last; two blocks of seeds; a claim; 84 models."""

TWO_ARMS: dict[str, Any] = THREE_ARMS | {
    "name": "two-arms",
    "arms": {"greedy": "greedy", "tuned": {"fine_tune": TUNING}},
    "seeds": 2,
}
"""Less of it, for trials by the thousand: ten models."""

SECONDS_OF_A_RUN = 900.0
"""How long a run may take on a machine that has other work too."""

SECONDS_TO_END = 60.0
"""How long a server may take to notice that its command is gone."""


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed.

    Attributes:
        root: where it ran.
        state: what it left.
        first: seconds until its first stage was stored.
        rest: seconds from then to its end.
    """

    root: Path
    state: state.State
    first: float
    rest: float


def write_study(root: Path, document: Mapping[str, Any] = THREE_ARMS) -> None:
    """The study's file in ``root``."""
    (root / "study.yaml").write_text(yaml.safe_dump(dict(document), sort_keys=False))


def prepare(root: Path) -> Path:
    """A root in which both databases have been created and nothing has run; that takes ten seconds."""
    used_root(root)
    open_store(root)
    write_study(root)
    return root


def fresh_copy(prepared: Path, root: Path) -> Path:
    """A prepared root of one's own."""
    shutil.copytree(prepared, root)
    return root


def run(root: Path, **options: Any) -> subprocess.Popen[str]:
    """``layerwise run study.yaml`` in ``root``, in a process group of its own."""
    return begin(root, "run", "study.yaml", **options)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command; one that hangs is ended with all it started."""
    try:
        out, err = process.communicate(timeout=SECONDS_OF_A_RUN)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Ended(process.returncode, out, err)


def finish(root: Path) -> Ended:
    """Run the study to its end; every process of it has then ended."""
    ended = end(run(root))
    wait_for_end(root)
    return ended


def stages(root: Path) -> int:
    """How many stages are on disk; the data are stored first, and are none."""
    return max(0, len(list(environment.results_folder(root).glob("[!.]*"))) - 1)


def uninterrupted(root: Path) -> Reference:
    """Run the study in ``root`` to its end, and see what that leaves and how long it takes."""
    begun = time.monotonic()
    process = run(root)
    wait_until(lambda: stages(root), process)
    first = time.monotonic() - begun
    ended = end(process)
    rest = time.monotonic() - begun - first
    assert (ended.status, ended.err) == (0, ""), ended
    wait_for_end(root)
    return Reference(root, state.of(root), first, rest)


def wait_until(true: Callable[[], object], process: subprocess.Popen[str], seconds: float = SECONDS_OF_A_RUN) -> bool:
    """Wait for what a command brings about; whether it came about before the command ended."""
    deadline = time.monotonic() + seconds
    while not true():
        if process.poll() is not None:
            return bool(true())
        assert time.monotonic() < deadline, "the command does not come to it"
        time.sleep(0.01)
    return True


def wait_for_end(root: Path) -> None:
    """Wait until no process of ``root`` is left; one that stays is a defect."""
    deadline = time.monotonic() + SECONDS_TO_END
    while found := state.processes(root):
        assert time.monotonic() < deadline, f"left behind: {found}"
        time.sleep(0.05)


def kill(process: subprocess.Popen[str]) -> bool:
    """SIGKILL a command's whole process group; whether it was still running."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    return running and process.returncode == -signal.SIGKILL
