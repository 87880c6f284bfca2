"""Where numbers come from: what the tags say, and that their absence stops nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit that stands for the checkout of the code."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "requirements.lock").write_text("numpy==2.4.0\n")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "Begin"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    monkeypatch.setattr(provenance, "CHECKOUT", folder)
    monkeypatch.setattr(provenance, "LOCK", folder / "requirements.lock")
    return folder


def test_tags_say_code_libraries_and_machine() -> None:
    """Every tag is ours by its name and a text; versions are those that are installed."""
    tags = provenance.provenance()
    assert all(name.startswith("layerwise.") and isinstance(value, str) for name, value in tags.items())
    for library in ("keras", "mlflow", "numpy", "prefect", "scikit-learn", "scipy"):
        assert tags[f"layerwise.version.{library}"] == version(library)
    assert {"layerwise.version", "layerwise.version.python", "layerwise.version.tensorflow"} <= tags.keys()
    assert tags["layerwise.cores"] == str(os.cpu_count())
    assert tags["layerwise.machine"].split()[0] == os.uname().sysname
    assert tags["layerwise.threads"] == os.environ["TF_NUM_INTRAOP_THREADS"]


def test_commit_and_changes_are_told(checkout: Path) -> None:
    """The commit is the checkout's, and a changed or new file makes it dirty."""
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    tags = provenance.provenance()
    assert re.fullmatch("[0-9a-f]{40}", tags["layerwise.git_commit"])
    assert (tags["layerwise.git_commit"], tags["layerwise.git_dirty"]) == (head.stdout.strip(), "false")
    (checkout / "new.py").touch()
    assert provenance.provenance()["layerwise.git_dirty"] == "true"


def test_lock_is_told_by_its_content(checkout: Path) -> None:
    """The lock's digest is that of its bytes."""
    digest = hashlib.sha256((checkout / "requirements.lock").read_bytes()).hexdigest()
    assert provenance.provenance()["layerwise.lock_digest"] == digest[:32]


def without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))


def without_repository(checkout: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(checkout / ".git")


def with_a_broken_repository(checkout: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git" / "HEAD").write_text("nonsense")


def with_a_git_that_hangs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = checkout / "git"
    git.write_text("#!/bin/sh\nexec sleep 60\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{checkout}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)


@pytest.mark.parametrize("state", [without_git, without_repository, with_a_broken_repository, with_a_git_that_hangs])
def test_what_cannot_be_found_out_is_left_out(checkout: Path, monkeypatch: pytest.MonkeyPatch, state) -> None:
    """Without git, a repository, or an answer, the commit is left out; everything else is told."""
    state(checkout, monkeypatch)
    tags = provenance.provenance()
    assert not {"layerwise.git_commit", "layerwise.git_dirty"} & tags.keys()
    assert {"layerwise.version", "layerwise.lock_digest", "layerwise.machine"} <= tags.keys()


def test_an_installed_package_has_no_lock(checkout: Path) -> None:
    """Where there is no lock file its digest is left out."""
    (checkout / "requirements.lock").unlink()
    assert "layerwise.lock_digest" not in provenance.provenance()
