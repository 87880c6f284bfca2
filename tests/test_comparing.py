"""``layerwise compare`` in real processes, on a real store that holds three small finished studies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from flows import environment
from tasks.tracking.answers import RESULTS
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import close_runs, open_runs
from tasks.tracking.store import database_path, open_store
from tasks.tracking.tracked import SCORES, STUDY_FILE
from tests.mounts import read_only
from tests.studies import small

CHECKOUT = Path(__file__).parents[1]
SCORED = {"plain": 0.7, "longer": 0.75, "elsewhere": 0.7}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with three studies of five seeds: one with more epochs, one on other data."""
    root = tmp_path_factory.mktemp("tracked")
    environment.prepare(root)
    client = open_store(root)
    studies = {
        "plain": small(name="plain", seeds=5),
        "longer": small(name="longer", seeds=5, training={"epochs": 9}),
        "elsewhere": small(name="elsewhere", seeds=5),
    }
    for name, study in studies.items():
        tree = open_runs(client, study, run_key=study.digest(), repeat="", seeds=range(5), provenance={}, root=root)
        publisher = Publisher(client, tree)
        scores = pd.DataFrame([
            {"arm": "greedy", "seed": seed, "depth": depth, "diverged": False, "collapsed": False,
             "test_accuracy": SCORED[name] + seed / 100, "train_accuracy": 0.9}
            for depth in (1, 2, 3) for seed in range(5)
        ])  # fmt: skip
        publisher.text(tree.study_run_id, STUDY_FILE, "name: small\n")
        publisher.table(tree.study_run_id, SCORES, scores)
        publisher.table(tree.study_run_id, RESULTS, scores)
        features = scores[["seed"]].to_numpy()
        publisher.dataset(
            tree.study_run_id, name="blobs", digest="other" if name == "elsewhere" else "same", context="all",
            source={}, features=features, labels=features,
        )  # fmt: skip
        close_runs(client, tree)
    return root


MARK = """
INSERT INTO tags (key, value, run_uuid)
SELECT 'layerwise.machine', 'far away', run_uuid FROM tags WHERE key = 'layerwise.study' AND value = 'plain'
"""
"""A change that comparing shows."""


def copied(tracked: Path, root: Path, kept: Sequence[str]) -> None:
    """A copy of a root with one change more, that is in the store's log where this, or its index too, is kept."""
    shutil.copytree(tracked, root)
    path, aside = database_path(root), root.parent
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute(MARK)
        store.commit()
        for end in ("", *kept):
            shutil.copy(f"{path}{end}", aside / f"kept{end}")
    if kept:
        for end in ("", *kept):
            shutil.copy(aside / f"kept{end}", f"{path}{end}")


@pytest.mark.parametrize("kept", [(), ("-wal", "-shm")], ids=["no log", "a log"])
def test_runs_are_read_where_nothing_can_be_written(tracked: Path, tmp_path: Path, kept: Sequence[str]) -> None:
    """A read-only root is read, with what its log holds, and nothing changes there; a page goes elsewhere."""
    copied(tracked, root := tmp_path / "50% space", kept)
    before = sorted(root.rglob("*"))
    with read_only(root):
        done = compare(root, "--markdown", "longer", "plain")
        page = compare(root, "--no-open", "longer", "plain") if kept else None
    assert done.returncode == 0, said(done)
    assert "far away" in done.stdout
    assert sorted(root.rglob("*")) == before
    if page is not None:
        assert page.returncode == 1
        assert "Read-only file system); name another file with --output." in said(page)


def test_a_log_that_cannot_be_read_is_said(tracked: Path, tmp_path: Path) -> None:
    """Where SQLite would have to write to read the log, that is said with what to do, and no half is shown."""
    copied(tracked, root := tmp_path / "root", ("-wal",))
    with read_only(root):
        done = compare(root, "--markdown", "longer", "plain")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be read where nothing can be written: mlflow.db-wal beside it is still to be taken in" in said(done)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said on standard error, without how long imports took."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))


def compare(root: Path, *said: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environ = os.environ | {"LAYERWISE_ROOT": str(root), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli", "compare", *said]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_two_runs_are_paired_by_seed(tracked: Path):
    """Every depth has its row: five seeds, .05 more on each, p = 1/16 two-sided; and what was asked differently."""
    done = compare(tracked, "plain", "longer")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line for line in lines if line[:1] == ["longer/greedy"] and line[1].isdigit()] == [
        ["longer/greedy", depth, "5", "+0.0500", "+0.0500", "to", "+0.0500", "1.00", ".0625", ".1875"]
        for depth in "123"
    ]
    assert ["longer/greedy", "epochs", "9", "2"] in lines
    page = tracked / "mlruns" / "reports" / "compare-plain-longer.html"
    assert done.stdout.splitlines()[-1] == str(page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "mlflow" in imported
    assert not imported & {"tensorflow", "prefect", "keras"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["plain"], "compare: received 1 run; expected two or more: name another one"),
        (["plain", "plain"], "received plain twice; name runs, or arms of one, that differ"),
        (["plain", "elsewhere"], "elsewhere has other data than plain (other and same);"),
        (["plain", "longr"], "no run of a study 'longr' is tracked here; the nearest are longer, plain."),
        (["plain", "longer/gredy"], "longer has no arm 'gredy'; there are greedy."),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tracked: Path, said: list[str], message: str):
    """Exit 2, one line that says what was received and what to do."""
    done = compare(tracked, *said)
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, done.stdout, len(told)) == (2, "", 1)
    assert message in told[0]


def test_where_nothing_is_tracked_nothing_is_made(tmp_path: Path):
    """A command that reads refuses an empty folder, and leaves it empty."""
    done = compare(tmp_path, "plain", "longer")
    assert done.returncode == 2
    assert f"nothing is tracked in {tmp_path}; run a study there" in done.stderr
    assert list(tmp_path.iterdir()) == []
