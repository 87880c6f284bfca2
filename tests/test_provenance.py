"""Where numbers come from: what the tags say, and that their absence stops nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from layerwise.study import parse
from tasks import provenance
from tests.studies import small, small_document


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit that stands for the checkout of the code."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "requirements.lock").write_text("numpy==2.4.0\n")
    (folder / "layerwise").mkdir()
    (folder / "layerwise" / "engine.py").write_text("steps = 1\n")
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


def test_the_environment_names_no_other_repository(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR and its like, which git sets for its hooks, do not turn the question to another repository."""
    (checkout / "layerwise" / "engine.py").write_text("steps = 2\n")
    asked = {key: value for key, value in provenance.provenance().items() if ".git_" in key}
    assert len(asked) == 3
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(other), *identity, "commit", "--quiet", "-a", "-m", "Go on"], check=True)
    for name, value in {
        "GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git" / "index",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
        assert provenance.provenance().items() >= asked.items(), name


def changes() -> str:
    return provenance.provenance()["layerwise.git_changes"]


def test_changes_of_the_code_have_a_digest(checkout: Path) -> None:
    """It follows from the content of changed, new and deleted files of the code alone, whatever git's settings."""
    assert changes() == "none"
    (checkout / "README.md").write_text("Other words.\n")
    assert changes() == "none"
    code = checkout / "layerwise" / "engine.py"
    code.write_text("steps = 2\n")
    changed = changes()
    subprocess.run(["git", "-C", str(checkout), "config", "diff.noprefix", "true"], check=True)
    subprocess.run(["git", "-C", str(checkout), "add", "."], check=True)
    assert re.fullmatch("[0-9a-f]{32}", changed)
    assert changes() == changed
    code.write_text("steps = 3\n")
    other = changes()
    code.unlink()
    deleted = changes()
    code.write_text("steps = 1\n")
    assert changes() == "none"
    (checkout / "layerwise" / "new.py").write_text("steps = 2\n")
    new = changes()
    assert len({changed, other, deleted, new, "none"}) == 5


def test_what_is_the_user_s_own_is_told_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of own data the SHA-256, of own functions a digest of their file; generated data and our layers need none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert provenance.inputs(small()) == {}
    table, layers = tmp_path / "rows.csv", tmp_path / "own_gates.py"
    table.write_text("a,b\n" + "".join(f"{number % 7},{'yes' if number % 3 else 'no'}\n" for number in range(60)))
    layers.write_text("def gated():\n    return []\n")
    data = {"source": "table", "path": "rows.csv", "target": "b"}
    network = {"layers": [{"kind": "custom", "function": "own_gates:gated"}]}
    study = parse(small_document(data=data, network=network, training={"batch_size": 8}), folder=tmp_path)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (table, layers)]
    assert provenance.inputs(study) == {
        "layerwise.data_sha256": hashlib.sha256(bytes.fromhex(digests[0])).hexdigest(),
        "layerwise.code": json.dumps({"own_gates:gated": digests[1][:32]}),
    }


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
    assert not {"layerwise.git_commit", "layerwise.git_dirty", "layerwise.git_changes"} & tags.keys()
    assert {"layerwise.version", "layerwise.lock_digest", "layerwise.machine"} <= tags.keys()


def test_an_installed_package_has_no_lock(checkout: Path) -> None:
    """Where there is no lock file its digest is left out."""
    (checkout / "requirements.lock").unlink()
    assert "layerwise.lock_digest" not in provenance.provenance()
