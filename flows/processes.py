"""Servers of a root that have outlived the command that started them, found by their environment (Linux alone)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

SERVERS = {
    "flows/server.py": "Prefect's server of a run",
    "prefect server": "Prefect's pages",
    "mlflow server": "MLflow's pages",
    "mlflow models serve": "a served model",
}
"""What the command line of a server holds, and what the server is."""


@dataclass(frozen=True)
class Orphan:
    """A server without its parent."""

    pid: int
    words: str


def orphan_servers(root: Path, proc: Path = PROC) -> list[Orphan]:
    """Servers that a command on ``root`` started, and that are still there though the command is not."""
    return sorted(_orphans(root, proc), key=lambda orphan: orphan.pid)


def _orphans(root: Path, proc: Path) -> Iterator[Orphan]:
    mark = f"LAYERWISE_ROOT={root.absolute()}".encode()
    for process in proc.glob("[0-9]*"):
        try:
            if mark not in (process / "environ").read_bytes().split(b"\0"):
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            words = next((words for sign, words in SERVERS.items() if sign in command), None)
            if words is not None and not _has_its_parent(process, proc):
                yield Orphan(int(process.name), words)
        except OSError:  # it has just ended, or is not ours
            continue


def _has_its_parent(process: Path, proc: Path) -> bool:
    """A command runs in the Python that its servers run in; whoever adopts orphans does not."""
    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    try:
        return (proc / parent / "exe").readlink() == (process / "exe").readlink()
    except OSError:  # it is gone, or somebody else's
        return False
