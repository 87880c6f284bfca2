"""Where numbers come from: commit, lock, versions and machine, as tags. What cannot be found out is left out."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import layerwise
from layerwise.identity import library_versions

CHECKOUT = Path(layerwise.__file__).resolve().parent.parent
LOCK = CHECKOUT / "requirements.lock"

GIT_SECONDS = 10.0
"""How long git may take; without its answer a run goes on."""


def provenance() -> dict[str, str]:
    """Tags that say which code, libraries and machine made a run; ``layerwise.`` before each name."""
    known = {**_versions(), **_git(), **_lock(), **_machine()}
    return {f"layerwise.{name}": value for name, value in known.items()}


def _versions() -> dict[str, str]:
    found = {"version": layerwise.__version__, "python": platform.python_version(), **library_versions()}
    for name in ("mlflow", "prefect"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # library use without them
            continue
    return {("version" if name == "version" else f"version.{name}"): value for name, value in found.items()}


def _git() -> dict[str, str]:
    commit, changes = _asked_git("rev-parse", "HEAD"), _asked_git("status", "--porcelain")
    if commit is None or changes is None:
        return {}
    return {"git_commit": commit, "git_dirty": "true" if changes else "false"}


def _asked_git(*words: str) -> str | None:
    """Git's answer about our own checkout; None where the code is no checkout or git is not there."""
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _lock() -> dict[str, str]:
    try:
        return {"lock_digest": hashlib.sha256(LOCK.read_bytes()).hexdigest()[:32]}
    except OSError:
        return {}


def _machine() -> dict[str, str]:
    return {
        "machine": f"{platform.system()} {platform.machine()} {_processor()}".strip(),
        "cores": str(os.cpu_count()),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", ""),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
