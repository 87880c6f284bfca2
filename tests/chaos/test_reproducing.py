"""Reproduction where nothing is left of the process that ran: a fresh clone of the code, and a fresh process each time.

``LAYERWISE_REPRODUCTIONS=20`` makes it twenty; two, if left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.studies import small_document
from tests.test_server import clean_environ

CHECKOUT = Path(__file__).resolve().parents[2]
TIMES = int(os.environ.get("LAYERWISE_REPRODUCTIONS", "2"))

STUDY: dict[str, Any] = small_document(
    depth=2,
    seeds=12,  # a block that is full, and one that is not
    training={"epochs": 20, "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}},
    arms={
        "greedy": "greedy",
        "denoising": {
            "objective": "reconstruction",
            "noise": {"kind": "masking", "rate": 0.25},
            "fine_tune": {"objective": "labels", "epochs": 5},
        },
        "scratch": {"control": "scratch", "of": "denoising"},
    },
)


def layerwise(clone: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command with the code of a clone, which is not installed."""
    environ = clean_environ(PYTHONPATH=str(clone), LAYERWISE_ROOT=str(root))
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, timeout=280, check=False)


def cloned(to: Path) -> Path:
    """A fresh clone of what is committed here."""
    if not (CHECKOUT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout to clone")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(to)], check=True)
    return to


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which a study of three arms was run by the code of a clone, which is gone since."""
    folder = tmp_path_factory.mktemp("ran")
    clone, root = cloned(folder / "clone"), folder / "root"
    root.mkdir()
    (root / "study.yaml").write_text(json.dumps(STUDY))
    ended = layerwise(clone, root, "run", "study.yaml")
    assert ended.returncode == 0, ended.stderr
    shutil.rmtree(clone)
    shutil.rmtree(root / ".layerwise")
    (root / "study.yaml").unlink()
    return root


@pytest.mark.chaos
@pytest.mark.parametrize("attempt", range(TIMES))
def test_a_fresh_clone_reproduces_to_the_bit(root: Path, tmp_path: Path, attempt: int) -> None:
    """From the tracking store alone, by another clone in another process: every score, model and stage is equal."""
    ended = layerwise(cloned(tmp_path / "clone"), root, "reproduce", "small")
    assert (ended.returncode, ended.stderr) == (0, ""), attempt
    assert ended.stdout.splitlines()[-1].startswith("EXACT (R0): "), ended.stdout
    assert "Not as it was" not in ended.stdout


@pytest.mark.chaos
def test_a_clone_that_was_changed_refuses(root: Path, tmp_path: Path) -> None:
    """A line of code that is not the run's is noticed before anything is computed."""
    clone = cloned(tmp_path / "clone")
    engine = clone / "layerwise" / "engine.py"
    engine.write_text(engine.read_text() + "\n")
    ended = layerwise(clone, root, "reproduce", "small")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("layerwise: this checkout has uncommitted changes in layerwise/, tasks/, flows/")
