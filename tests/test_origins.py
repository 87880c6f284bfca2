"""What a run was made of: whether it can be had here, and each refusal in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag

from flows import origins
from flows.reproducing import Allowed
from layerwise import datasets, imported
from layerwise.study import Study, StudyError, parse
from tasks.provenance import inputs
from tasks.tracking.tracked import Tracked
from tests.studies import small, small_document

HERE = {
    "layerwise.git_commit": "c0ffee",
    "layerwise.git_changes": "none",
    "layerwise.git_dirty": "false",
    "layerwise.version.numpy": "2.4.1",
    "layerwise.machine": "Linux x86_64 EPYC",
    "layerwise.cores": "2",
}
EMPTY = pd.DataFrame()


def refusal(call: Callable[[], Any]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(StudyError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What this code and machine say of themselves."""
    known = dict(HERE)
    monkeypatch.setattr(origins, "provenance", lambda: known)
    return known


def tracked(study: Study, document: dict[str, Any] | None = None, repeat: str = "", **tags: str | None) -> Tracked:
    """What the tracker holds of a study that was run; with other tags, where they are named, or none."""
    known: dict[str, str | None] = {
        "layerwise.study": study.name,
        "layerwise.digest": study.digest(),
        "layerwise.run_key": study.digest(repeat),
        "layerwise.repeat": repeat,
        **inputs(study),
        **{f"layerwise.{name}": value for name, value in tags.items()},
    }
    info = RunInfo("r" * 32, "1", "ada", "FINISHED", 0, 1, "active")
    data = RunData(tags=[RunTag(key, value) for key, value in known.items() if value is not None])
    digest = datasets.generate(study.data).digest
    return Tracked(
        Run(info, data),
        document or study.canonical(),
        metrics=EMPTY,
        table=EMPTY,
        verdicts=None,
        differences=None,
        costs=None,
        data_digest=digest,
    )


# --- code ---------------------------------------------------------------------------------------------------


def test_the_same_code_is_let_through(here: dict[str, str]) -> None:
    """The commit and the changes since are those of the run; cores and other tags do not matter."""
    origins.check_code({**here, "layerwise.cores": "64"})
    here["layerwise.git_changes"] = "abc"
    origins.check_code({**here, "layerwise.git_dirty": "true"})


CODE = {
    "no commit": ({"git_commit": None}, {}, "the run has no git commit recorded, so nobody can tell its code"),
    "no git here": ({}, {"git_commit": None}, "this code is no git checkout that answers; clone the repository and"),
    "another commit": (
        {"git_commit": "beef"},
        {},
        "the run was made by commit beef, and this checkout is at c0ffee; `git checkout beef`, or compare all the same",
    ),
    "changes here": ({}, {"git_changes": "abc"}, "this checkout has uncommitted changes in layerwise/, tasks/, flows/"),
    "changes there": (
        {"git_changes": "abc"},
        {},
        "made with uncommitted changes in layerwise/, tasks/, flows/ (digest",
    ),
    "other changes": ({"git_changes": "abc"}, {"git_changes": "abd"}, "(digest abc) that this checkout has not"),
    "changes nobody recorded": (
        {"git_changes": None, "git_dirty": "true"},
        {},
        "made with uncommitted changes that nobody recorded",
    ),
}


@pytest.mark.parametrize("state", CODE)
def test_other_code_is_refused(here: dict[str, str], state: str) -> None:
    """Another commit, other changes, or none that is known: each is refused, with a way on and a way round."""
    then, now, expected = CODE[state]
    tags = HERE | {f"layerwise.{name}": value for name, value in then.items()}
    here.update({f"layerwise.{name}": value for name, value in now.items()})
    for known in (tags, here):
        for name in [name for name, value in known.items() if value is None]:
            del known[name]
    said = refusal(lambda: origins.check_code(tags))
    assert expected in said
    assert said.endswith("or compare all the same with --allow-other-code.")


def test_versions_and_machine_that_differ_are_said(here: dict[str, str]) -> None:
    """Each with what it was and what it is; the number of cores changes no bit and is not said."""
    then = HERE | {"layerwise.version.numpy": "2.4.0", "layerwise.version.jax": "1", "layerwise.cores": "64"}
    here["layerwise.machine"] = "Linux aarch64"
    assert origins.unlike(then) == [
        "jax 1 then, unknown now",
        "numpy 2.4.0 then, 2.4.1 now",
        "machine Linux x86_64 EPYC then, Linux aarch64 now",
    ]
    assert origins.unlike(here) == []


# --- data ---------------------------------------------------------------------------------------------------


@pytest.fixture
def table(root: Path) -> Study:
    """A study of a CSV file that lies beside it, in a folder of its own."""
    folder = root / "then"
    folder.mkdir()
    rows = [f"{number % 7},{number % 5},{'yes' if number % 3 else 'no'}" for number in range(60)]
    (folder / "rows.csv").write_text("\n".join(["a,b,answer", *rows]) + "\n")
    document = small_document(
        data={"source": "table", "path": "rows.csv", "target": "answer"}, training={"batch_size": 8}
    )
    return parse(document, folder=folder)


def test_a_study_comes_back_with_its_data(table: Study, root: Path) -> None:
    """Generated data, a file where it was, one that now lies in the working directory, one that is named."""
    for study in (small(), small(seeds=4)):
        again, data = origins.study_of(tracked(study, repeat="again"), Allowed())
        assert (again, data.digest) == (study, datasets.generate(study.data).digest)
    held, file = tracked(table), root / "then" / "rows.csv"
    assert origins.study_of(held, Allowed())[0].digest() == table.digest()
    file.rename(root / "rows.csv")
    assert origins.study_of(held, Allowed())[0].data.path == str(root / "rows.csv")
    (root / "rows.csv").rename(root / "moved.csv")
    assert origins.study_of(held, Allowed(data=(Path("moved.csv"),)))[0].digest() == table.digest()


def test_data_that_cannot_be_had_are_refused(table: Study, root: Path) -> None:
    """A file that is gone is named with where it was looked for, and the option that says where it is."""
    held, file = tracked(table), root / "then" / "rows.csv"
    file.unlink()
    assert refusal(lambda: origins.study_of(held, Allowed())) == (
        f"the run's data are neither at {file} nor at {root / 'rows.csv'}; say where they are with --data FILE."
    )
    assert "--data x.csv: there is no such file" in refusal(lambda: origins.study_of(held, Allowed((Path("x.csv"),))))
    two = Allowed((Path("x.csv"), Path("y.csv")))
    assert "the study has 1 data files, but 2 were given" in refusal(lambda: origins.study_of(held, two))
    blobs = tracked(small())
    assert "--data: the study's data (blobs) are no file" in refusal(lambda: origins.study_of(blobs, two))


def test_data_that_differ_are_refused(table: Study, root: Path) -> None:
    """A file with other content is refused with both digests, also where it holds the same numbers."""
    held, file = tracked(table), root / "then" / "rows.csv"
    file.write_text(file.read_text().replace("\n", "\r\n"))
    said = refusal(lambda: origins.study_of(held, Allowed()))
    assert said.startswith(f"the data differ: {file} has the digest ")
    assert held.run.data.tags["layerwise.data_sha256"] in said
    assert said.endswith("give the run's with --data FILE.")
    file.write_text(file.read_text().replace("yes", "no", 1))
    assert "the data differ" in refusal(lambda: origins.study_of(held, Allowed(other_code=True)))


def test_generated_data_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another generator of the same name is noticed by what it makes."""
    held = tracked(small())
    made = datasets.generate(small().data)
    other = datasets.Data(made.inputs + 1, made.targets, made.classes, made.image_shape, "f00d")
    monkeypatch.setattr(datasets, "generate", lambda _: other)
    assert "the data differ: blobs has the digest f00d here" in refusal(lambda: origins.study_of(held, Allowed()))


def test_data_of_a_program_are_refused() -> None:
    """What was given in Python is not in the tracker."""
    document = small_document(data={"source": "memory"})
    assert "were given to it in Python" in refusal(lambda: origins.study_of(tracked(small(), document), Allowed()))


def test_a_study_file_that_was_changed_is_refused() -> None:
    """The run key tells whether the study file is the one that was run; with other code it may read differently."""
    held = tracked(small(), small(seeds=4).canonical())
    assert "one of them was changed in the tracker" in refusal(lambda: origins.study_of(held, Allowed()))
    assert origins.study_of(held, Allowed(other_code=True))[0].seeds == 4
    held = tracked(small(), run_key="0" * 32)
    assert "one of them was changed in the tracker" in refusal(lambda: origins.study_of(held, Allowed()))
    held = tracked(small(), {"name": "small", "seeds": -1})
    assert "study.yaml of small: data: is missing" in refusal(lambda: origins.study_of(held, Allowed()))


# --- functions ----------------------------------------------------------------------------------------------

LOADER = """
from subprocess import run


def load(rows=60):
    open('called', 'w').close()
    return [[number % 7, number % 5] for number in range(rows)], [number % 2 for number in range(rows)]
"""


@pytest.fixture
def loaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    """A run whose data come from a function in the working directory; nobody has called it since."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (root / "own_rows.py").write_text(LOADER)
    data = {"source": "loader", "loader": "own_rows:load"}
    held = tracked(parse(small_document(data=data, training={"batch_size": 8}), folder=root))
    monkeypatch.delitem(sys.modules, "own_rows")
    (root / "called").unlink()
    return held


def called(root: Path) -> bool:
    """Whether the user's function, or its module, has run."""
    return (root / "called").exists() or "own_rows" in sys.modules


def test_a_function_with_the_recorded_content_is_called(loaded: Tracked, root: Path) -> None:
    """The file in the working directory has the very content that the run recorded; it is named before it is used."""
    datasets.reading._read.cache_clear()
    told: list[tuple[str, bool]] = []
    imported.tell(lambda line: told.append((line, called(root))))
    study, _ = origins.study_of(loaded, Allowed())
    imported.tell(lambda _line: None)
    assert told == [(f"code of your own: own_rows:load, in {root / 'own_rows.py'}", False)]
    assert study.digest() == loaded.run.data.tags["layerwise.digest"]
    assert called(root)


def test_another_folder_that_the_tracker_names_is_not_looked_in(loaded: Tracked, root: Path) -> None:
    """Neither the function nor anything that its module imports is taken from there."""
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "own_rows.py").write_text("open('hostile', 'w').close()\n" + LOADER)
    loaded.document["data"]["folder"] = str(root / "elsewhere")
    datasets.reading._read.cache_clear()
    origins.study_of(loaded, Allowed())
    assert called(root)
    assert not (root / "hostile").exists()
    assert str(root / "elsewhere") not in sys.path


def test_functions_are_found_wherever_a_study_names_them() -> None:
    """In layers, heads, arms and inputs, and as a loader; what the functions are given is theirs."""
    layer = {"kind": "custom", "function": "own:gated", "options": {"function": "tanh", "loader": "x"}}
    document = small_document(
        data={"source": "loader", "loader": "own:load", "options": {"function": "y"}},
        network={"layers": [layer], "head": [{**layer, "function": "own:head"}]},
        arms={"wide": {"network": {"inputs": {"a": {"layers": [{**layer, "function": "own:wide"}]}}}}},
    )
    assert origins.functions(document) == ["own:gated", "own:head", "own:load", "own:wide"]


@pytest.mark.parametrize("place", ["an input", "an arm"])
def test_what_is_called_options_hides_no_function(loaded: Tracked, root: Path, place: str) -> None:
    """Names in a study are the tracker's choice: a function below one that is called options is refused as any."""
    layer = {"kind": "custom", "function": "subprocess:run", "options": {"args": ["touch", "hostile"]}}
    network = {"layers": [{"units": 4}], "inputs": {"options": {"features": "0-0", "layers": [layer]}}}
    network["inputs"]["other"] = {"features": "1-1", "layers": [{"units": 4}]}
    arms = {"function": "greedy", "options": {"network": network}}
    loaded.document.update({"network": network} if place == "an input" else {"arms": arms})
    said = (
        "calls subprocess:run, and the run has not recorded" if place == "an input" else "names the function 'greedy'"
    )
    with pytest.raises(StudyError, match=said):
        origins.study_of(loaded, Allowed())
    assert not (root / "hostile").exists()


def gone(root: Path, _: Tracked) -> str:
    (root / "own_rows.py").unlink()
    return f"the study calls own_rows:load, and there is no {root / 'own_rows.py'}; go to the folder that has it"


def changed(root: Path, _: Tracked) -> str:
    (root / "own_rows.py").write_text(LOADER + "\n")
    return "own_rows.py is not the code that the run was made with (digest "


def not_recorded(_: Path, held: Tracked) -> str:
    del held.run.data.tags["layerwise.code"]
    return "the study calls own_rows:load, and the run has not recorded what code that was"


def damaged_record(_: Path, held: Tracked) -> str:
    held.run.data.tags["layerwise.code"] = "[1"
    return "the run's tag layerwise.code is not what Layerwise writes"


def imported_name(_: Path, held: Tracked) -> str:
    held.document["data"] |= {"loader": "own_rows:run", "options": {"args": "true", "shell": True}}
    known = json.loads(held.run.data.tags["layerwise.code"])
    held.run.data.tags["layerwise.code"] = json.dumps({"own_rows:run": known["own_rows:load"]})
    return "own_rows.py does not define run itself"


def installed(_: Path, held: Tracked) -> str:
    held.document["data"] |= {"loader": "os:system", "options": {"command": "touch called"}}
    held.run.data.tags["layerwise.code"] = json.dumps({"os:system": "0" * 32})
    return "or, if it is installed and you trust it with what the study gives it, allow it with --code os:system."


def hidden_by_another(root: Path, held: Tracked) -> str:
    (root / "json.py").write_text(LOADER)
    held.document["data"] |= {"loader": "json:load"}
    known = json.loads(held.run.data.tags["layerwise.code"])
    held.run.data.tags["layerwise.code"] = json.dumps({"json:load": known["own_rows:load"]})
    return f"for it, not {root / 'json.py'}; rename it."


def no_name(_: Path, held: Tracked) -> str:
    held.document["data"] |= {"loader": "../own_rows:load"}
    return "the study names the function '../own_rows:load'; expected module:function."


def in_a_layer(_: Path, held: Tracked) -> str:
    held.document["network"] = {
        "layers": [{"kind": "custom", "function": "own_layers:gated", "options": {"loader": "x"}}]
    }
    return "the study calls own_layers:gated, and the run has not recorded what code that was"


def other_folder(root: Path, held: Tracked) -> str:
    """The tracker says to look for modules elsewhere."""
    (root / "elsewhere").mkdir()
    (root / "own_rows.py").rename(root / "elsewhere" / "own_rows.py")
    held.document["data"]["folder"] = str(root / "elsewhere")
    return f"there is no {root / 'own_rows.py'}"


@pytest.mark.parametrize(
    "state",
    [
        gone, changed, not_recorded, damaged_record, imported_name, installed, hidden_by_another, no_name, in_a_layer,
        other_folder,
    ],
)  # fmt: skip
def test_a_function_that_is_not_the_recorded_one_is_not_called(
    loaded: Tracked, root: Path, state: Callable[[Path, Tracked], str]
) -> None:
    """Nothing is imported or called for a run before its functions are known to be those that it recorded."""
    expected = state(root, loaded)
    datasets.reading._read.cache_clear()
    assert expected in refusal(lambda: origins.study_of(loaded, Allowed()))
    assert not called(root)


def test_an_installed_function_is_called_if_the_user_names_it(root: Path) -> None:
    """`--code` lets a function be called that is not in the working directory; its content must still be the same."""
    data = {"source": "loader", "loader": "sklearn.datasets:load_iris", "options": {"return_X_y": True}}
    study = parse(small_document(data=data, training={"batch_size": 8}), folder=root)
    allowed = Allowed(code=("sklearn.datasets:load_iris",))
    assert origins.study_of(tracked(study), allowed)[0].digest() == study.digest()
    other = tracked(study, code=json.dumps({"sklearn.datasets:load_iris": "0" * 32}))
    assert "is not the code that the run was made with" in refusal(lambda: origins.study_of(other, allowed))
