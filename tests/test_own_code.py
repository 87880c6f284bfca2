"""Which code computed a stage: what its digest is of, and that an answer from two programs says that it is one."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from flows import origins, running
from flows.reproducing import Allowed, reproduce_command
from layerwise import own_code
from layerwise.study import Study, StudyError
from tasks.tracking.tracked import read_tracked
from tests.studies import small
from tests.test_flow import Lab, lab  # noqa: F401 - a fixture

OLDER = "0ddc0de0ddc0"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, for the digest to be of."""
    copy = tmp_path / "layerwise"
    shutil.copytree(own_code.FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(own_code, "FOLDER", copy)
    monkeypatch.setattr(own_code, "digest", own_code.digest.__wrapped__)
    return copy


@pytest.mark.parametrize("place", ["network.py", "datasets/generating.py", "study/layers.py", "study/growing.py"])
def test_the_digest_is_of_what_decides_bits(package: Path, place: str) -> None:
    """A changed module, or one more, is other code."""
    before = own_code.digest()
    assert re.fullmatch("[0-9a-f]{12}", before)
    file = package / place
    file.write_text(file.read_text() + "\n# changed\n")
    after = own_code.digest()
    file.with_name("more.py").write_text("")
    assert len({before, after, own_code.digest()}) == 3


@pytest.mark.parametrize("place", ["report/page.py", "claims/deciding.py", "growing.py", "figures.py"])
def test_what_reads_results_is_no_part_of_it(package: Path, place: str) -> None:
    """Words, figures and tests of claims may change without a doubt on what was trained."""
    before, file = own_code.digest(), package / place
    file.write_text(file.read_text() + "\n# changed\n")
    assert own_code.digest() == before


def test_nothing_that_decides_bits_uses_what_only_reads_results() -> None:
    """The list is true: no module that the digest is of imports one that it is not of, but for the digest itself."""
    beside = {Path(name).stem for name in own_code.READS_RESULTS}
    assert all((own_code.FOLDER / name).exists() for name in own_code.READS_RESULTS)
    used = set()
    for file in own_code.FOLDER.rglob("*.py"):
        place = file.relative_to(own_code.FOLDER)
        if place.parts[0] in own_code.READS_RESULTS or place == Path("__init__.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "layerwise":
                used |= {(str(place), name.name) for name in node.names if name.name in beside}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("layerwise."):
                module = str(node.module).split(".")[1]
                used |= {(str(place), module)} if module in beside else set()
    assert used == {("pretraining.py", "own_code")}


@pytest.mark.parametrize("text", ["", "no", "[1]", '{"5f": 0}', '{"5f": true}', '{"5f": "3"}', '{"<b>": 3}', "{}"])
def test_a_tag_that_somebody_else_wrote_says_nothing(text: str) -> None:
    """What is not as we write it is taken for none."""
    assert own_code.from_text(text) == {}


def test_results_that_do_not_say_are_counted_by_themselves() -> None:
    """Whether they are of other code nobody knows."""
    assert own_code.in_words({"": 2}) == "2 of 2 stages and scores were computed by code that nobody recorded"


@pytest.fixture
def mixed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Study:  # noqa: F811
    """A study whose first block of seeds other code has trained."""
    with monkeypatch.context() as older:
        older.setattr(own_code, "digest", lambda: OLDER)
        outcome = lab.run(small(name="mixed", depth=1, seeds=3))
        assert (outcome.codes, own_code.in_words(outcome.codes)) == ({OLDER: 2}, "")
    return small(name="mixed", depth=1, seeds=12)


def test_an_answer_from_two_programs_says_so(
    lab: Lab,  # noqa: F811
    mixed: Study,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where it is printed, where it is printed again, and in the report; no level of reproducibility is claimed."""
    outcome = lab.run(mixed)
    here = own_code.digest()
    assert outcome.codes == {OLDER: 2, here: 2}
    line = "Not of this code alone: 2 of 4 stages and scores were computed by other code of Layerwise than this."
    for answer in (running._answer_of(outcome), running._finished(mixed, "", lab.root, Console())):
        assert answer is not None
        running._print_answer(mixed, answer, Console())
        assert f"\n{line}" in capsys.readouterr().out
    (run,) = lab.runs(mixed, "study")
    assert json.loads(run.data.tags["layerwise.stage_code"]) == {OLDER: 2, here: 2}
    report = lab.artifact(run, "report.md").read_text()
    assert "no level of reproducibility" in report
    assert "its stages were not all computed by the same code" in report
    assert f"{OLDER} computed 2 stages and scores" in report
    assert set(read_tracked(lab.client, run).stages["code"]) == {OLDER, here}
    afresh = lab.run(mixed, "afresh")
    assert afresh.codes == {here: 4}


def test_what_no_code_makes_again_is_not_reproduced(lab: Lab, mixed: Study) -> None:  # noqa: F811
    """The refusal says which stages are of which code, and what to do; asked all the same, it is compared."""
    lab.run(mixed)
    (run,) = lab.runs(mixed, "study")
    with pytest.raises(StudyError, match="not all computed by the same code") as refused:
        reproduce_command("mixed", Allowed(), lab.root)
    assert f"2 by {OLDER}" in str(refused.value)
    assert "compute it afresh with --repeat, or compare all the same with --allow-other-code" in str(refused.value)
    assert reproduce_command("mixed", Allowed(other_code=True), lab.root) == 0
    tags = run.data.tags | {"layerwise.stage_code": json.dumps({OLDER: 4})}
    with pytest.raises(StudyError, match=f"the run's stages were computed by code {OLDER}, though the run ended with"):
        origins.check_code(tags)
    with pytest.raises(StudyError, match="the run's stages were computed by code that nobody recorded, though the run"):
        origins.check_code(tags | {"layerwise.stage_code": json.dumps({"": 4})})
