"""Where numbers come from: commit, lock, versions, machine and inputs, as tags. What cannot be known is left out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import layerwise
from layerwise import imported
from layerwise.identity import library_versions
from layerwise.study import Loader, OwnData, Study, digest_of

CHECKOUT = Path(layerwise.__file__).resolve().parent.parent
LOCK = CHECKOUT / "requirements.lock"

PACKAGES = ("layerwise", "tasks", "flows")
"""The folders of the checkout that hold the code of a run."""

NO_CHANGES = "none"

DATA_SHA256 = "layerwise.data_sha256"
CODE = "layerwise.code"

STAGE_CODE = "layerwise.stage_code"
"""The tag of a study run that says which code of Layerwise computed its stages, and how many of them."""

GIT_SECONDS = 10.0
"""How long git may take; without its answer a run goes on."""


def provenance() -> dict[str, str]:
    """Tags that say which code, libraries and machine made a run; ``layerwise.`` before each name."""
    known = {**_versions(), **_git(), **_lock(), **_machine()}
    return {f"layerwise.{name}": value for name, value in known.items()}


def inputs(study: Study) -> dict[str, str]:
    """Tags that say what of the user's own a run takes: the SHA-256 of their data, the digests of their functions."""
    data, known = study.data, {}
    if isinstance(data, OwnData):
        known[DATA_SHA256] = data.identity()["sha256"]
    functions = study.functions | ({data.loader} if isinstance(data, Loader) else set())
    if functions:
        known[CODE] = json.dumps({path: imported.code_digest(path) for path in sorted(functions)})
    return known


def content_sha256(file: Path) -> str:
    """SHA-256 of a file in hexadecimal; empty if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _versions() -> dict[str, str]:
    found = {"version": layerwise.__version__, "python": platform.python_version(), **library_versions()}
    for name in ("mlflow", "prefect"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # library use without them
            continue
    return {("version" if name == "version" else f"version.{name}"): value for name, value in found.items()}


def _git() -> dict[str, str]:
    commit, changes, own = _asked_git("rev-parse", "HEAD"), _asked_git("status", "--porcelain"), _changes()
    if commit is None or changes is None or own is None:
        return {}
    return {"git_commit": commit, "git_dirty": "true" if changes else "false", "git_changes": own}


def _changes() -> str | None:
    """Digest of what has changed in the code since the commit: the content of every file that is changed or new."""
    # The names alone, since how a difference is written depends on the user's settings of git.
    changed = _asked_git("diff", "--name-only", "--no-renames", "-z", "HEAD", "--", *PACKAGES)
    new = _asked_git("ls-files", "--others", "--exclude-standard", "-z", "--", *PACKAGES)
    if changed is None or new is None:
        return None
    names = sorted({*changed.split("\0"), *new.split("\0")} - {""})
    return digest_of([(name, content_sha256(CHECKOUT / name)) for name in names]) if names else NO_CHANGES


def _asked_git(*words: str) -> str | None:
    """Git's answer about our own checkout; None where the code is no checkout or git is not there."""
    if not (CHECKOUT / ".git").exists():
        return None
    # In a hook of git's, as in a shell where somebody set it, GIT_DIR and others name the repository to ask instead.
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    command = ["git", "-C", str(CHECKOUT), *words]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _lock() -> dict[str, str]:
    digest = content_sha256(LOCK)[:32]
    return {"lock_digest": digest} if digest else {}


def _machine() -> dict[str, str]:
    return {
        "machine": f"{platform.system()} {platform.machine()} {processor()}".strip(),
        "cores": str(os.cpu_count()),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", ""),
    }


def processor() -> str:
    """What the machine's processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
