"""The walk-through with a table of one's own is true: its code runs, its study is answered, its model is served."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.showing import show_study
from layerwise.study import load, parse

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def run(code: str) -> str:
    """What a reader sees who runs the code in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def beside(root: Path) -> Path:
    """A folder with the table and the study, as the walk-through makes them."""
    exec(compile(blocks("python")[0], "own-data.md", "exec"), {"__name__": "walk"})  # noqa: S102 - our own file
    (root / "tumours.yaml").write_text(blocks("yaml")[0])
    return root


def test_the_study_is_one(beside: Path, capsys: pytest.CaptureFixture[str]):
    """The table is written, the study of it is valid, and what show says of the data is what the text shows."""
    study = load(beside / "tumours.yaml")
    assert (study.name, study.depth, study.data.task) == ("tumours", 3, "classification")
    show_study(study, beside)
    shown = capsys.readouterr().out
    for line in re.findall(r"^    (data   .*|       classification.*)$", TEXT, flags=re.MULTILINE):
        assert line in shown
    assert "classification; largest class: benign" in TEXT


def test_every_key_is_one_of_the_schema(beside: Path):
    """The keys in the table of keys are those of a table, and the other studies name sources that there are."""
    study = load(beside / "tumours.yaml")
    rows = re.findall(r"^\| (`.*?) \|", TEXT, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z]+)`", row)}
    assert named | {"source", "path"} == set(type(study.data).model_fields)
    sources = [yaml.safe_load(block)["data"]["source"] for block in blocks("yaml")]
    assert sources == ["table", "arrays", "loader"]


def test_a_frame_from_python_trains(beside: Path, capsys: pytest.CaptureFixture[str]):
    """The last example runs in the folder of the walk-through, and leaves nothing in it."""
    before = sorted(beside.iterdir())
    exec(compile(blocks("python")[2], "own-data.md", "exec"), {"__name__": "walk"})  # noqa: S102 - our own file
    assert re.search(r"0\.[6-9]", capsys.readouterr().out)
    assert sorted(beside.iterdir()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("beside")
def test_the_walk_through_ends_with_predictions():
    """The study is answered by one command, and a model of it tells classes of raw rows in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "tumours.yaml", "--seeds", "2", "--set", "training.epochs=5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tumours, arm greedy" in done.stdout
    shown = run(blocks("python")[1])
    header, *rows = shown.strip().splitlines()
    assert header.split() == ["benign", "malignant"]
    assert len(rows) == 5
    for row in rows:
        assert sum(float(value) for value in row.split()[1:]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("block", blocks("yaml")[1:])
def test_the_other_studies_are_understood(block: str, beside: Path):
    """What the text says of arrays and loaders is refused for nothing but the files that it does not bring."""
    network = {"name": "other", "network": {"layers": [{"units": 4}]}}
    with pytest.raises(ValueError, match=r"'mnist.npz' is no file|my_rows"):
        parse({**yaml.safe_load(block), **network}, folder=beside)
