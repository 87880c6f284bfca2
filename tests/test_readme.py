"""The README is true: its code runs, its commands, files and figures exist, its study is one."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from flows.cli import cli
from flows.schedules import read_schedules
from layerwise import datasets
from layerwise.study import load, parse

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def _commands(program: str) -> list[str]:
    """Every command of a program that the documents name: between backticks, or indented on a line of its own."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        found += re.findall(rf"`(?:\.venv/bin/)?({program} [^`\n]+)`", text)
        found += re.findall(rf"^    ({program} .+)$", text, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("code", _blocks("python"))
def test_example_runs(code: str, capsys: pytest.CaptureFixture[str], root: Path):
    """A reader who pastes the example sees it print accuracies that are possible on these data, and no files."""
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - our own file
    shown = [float(number) for number in re.findall(r"\b0\.\d+", capsys.readouterr().out)]
    assert len(shown) == 5
    assert all(0.7 < accuracy < 0.88 for accuracy in shown)
    assert list(root.iterdir()) == []


def test_study_file_is_a_study():
    """The studies in the README are valid, and the first shows the parts that a study has."""
    first, second, third, _ = _blocks("yaml")
    study = parse(yaml.safe_load(first))
    assert (study.name, study.depth, study.seeds) == ("four-blobs", 4, 20)
    assert "depth 4 in all" in first
    assert set(study.model_dump()) - set(yaml.safe_load(first)) == {"arms", "alpha", "stop", "grow", "declared"}
    arms = parse(yaml.safe_load(second)).arms
    assert list(arms) == ["denoising", "scratch", "random_frozen", "end_to_end"]
    layers = parse(yaml.safe_load(third)).network.hidden
    assert [layer.label for layer in layers] == ["conv 16", "32", "32"]


def test_schedules_are_schedules(tmp_path: Path):
    """The file of schedules in the README is one, of a study that is there."""
    (tmp_path / "schedules.yaml").write_text(_blocks("yaml")[-1])
    (one,) = read_schedules(tmp_path / "schedules.yaml")
    assert (one.study, one.entry.cron) == (load("blobs-supervised"), "0 2 * * *")


PLACEHOLDERS = {"four-blobs.yaml", "tumours.yaml", "tumours", "tcp://127.0.0.1:8786"}
"""What stands in the documents for what a reader has."""


@pytest.mark.parametrize("command", sorted(set(_commands("layerwise"))))
def test_command_exists(command: str):
    """The command line knows every command and option that the documents name, and the studies they name exist."""
    _, name, *rest = shlex.split(command)
    if name.startswith("-"):
        assert {name} <= {"--help", "--version"}
        return
    assert name in cli.commands, f"no command {name!r}; there are {', '.join(cli.commands)}"
    known = cli.commands[name]
    options = {text: option for option in known.params if isinstance(option, click.Option) for text in option.opts}
    assert {word for word in rest if word.startswith("-")} <= options.keys() | {"--help"}
    arguments = [parameter for parameter in known.params if isinstance(parameter, click.Argument)]
    if arguments and rest and not rest[0].startswith("-") and rest[0] not in PLACEHOLDERS:
        settings = [value for option, value in pairwise(rest) if option == "--set"]
        load(rest[0], overrides=settings)


@pytest.mark.parametrize("command", sorted(set(_commands("make"))))
def test_make_target_exists(command: str):
    """The Makefile has every target, and reads every variable, that the documents name."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    _, target, *settings = shlex.split(command)
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"no target {target!r} in the Makefile"
    for setting in settings:
        assert f"$({setting.partition('=')[0]})" in makefile


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path):
    """Every linked file is there, and every linked heading is one of the document's."""
    text = document.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), f"{document.name} links to {target}"


def test_python_modules_named_exist():
    """What the documents call with ``python -m`` is there."""
    named = {
        name for path in DOCUMENTS for name in re.findall(r"python -m ([a-z_.]+)", path.read_text(encoding="utf-8"))
    }
    assert "benchmarks.readme_figure" in named
    for name in named:
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file()


def test_optimal_rule_scores_what_the_readme_says():
    """The Bayes-optimal rule, the nearest true centre, scores .824 on the training rows and .840 on the test rows."""
    from sklearn.datasets import make_blobs

    spec = load("blobs-supervised").data
    data = datasets.generate(spec)
    centres = make_blobs(
        n_samples=spec.samples, centers=spec.classes, n_features=spec.features, cluster_std=spec.cluster_std,
        random_state=spec.random_state, return_centers=True,
    )[2]  # fmt: skip
    distances = np.linalg.norm(data.inputs[:, np.newaxis] - centres, axis=2)
    right = distances.argmin(axis=1) == data.targets
    assert (right[:500].mean(), right[500:].mean()) == (0.824, 0.840)
    assert "scores .824 on these training rows and **.840 on these test rows**" in TEXT


def test_figure_is_small():
    """The README's figure loads quickly."""
    assert (ROOT / "docs/images/accuracy-by-depth.png").stat().st_size < 150_000


def test_texts_name_no_place():
    """The documents hold no path of a machine."""
    for document in DOCUMENTS:
        assert not re.search(r"(?<![\w.])/(?:tmp|work|srv|opt)/", document.read_text(encoding="utf-8"))
