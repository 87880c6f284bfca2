"""Registered models: found, verified, encoded, and asked from files and over HTTP. Imports TensorFlow."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from flows import cli, environment, serving
from flows.predicting import Asked as Wanted
from flows.predicting import predict_command
from flows.processes import orphan_servers
from flows.registering import Asked, register_command
from layerwise import raw_rows
from layerwise.datasets import pieces
from tasks import durable, loading
from tasks.tracking import files
from tasks.tracking.files import local_path
from tasks.tracking.manifest import check_tree
from tasks.tracking.served import Served
from tasks.tracking.store import TrackingError, open_store
from tasks.tracking.verified import find_model, verified
from tests.shelves import PEOPLE, Shelved, people, shelved
from tests.studies import small
from tests.test_cli import and_modules, begin, end, refusal
from tests.test_server import clean_environ

with warnings.catch_warnings():
    # MLflow 3.17 warns of its own type hints while it imports this; to go when it stops.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
    import mlflow.pyfunc

# Keras 3.15 turns variables into arrays without NumPy 2's `copy` keyword; to go when keras.ops does it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:keras"
)

ROWS = PEOPLE.drop(columns="answer")
FLOAT32 = 1e-6
"""Within this two float32 computations of one probability agree."""


class Lab:
    """A root with a run on a table, which declares a network, and one on arrays."""

    def __init__(self, root: Path) -> None:
        self.root, self.client = root, open_store(root)
        self.people = shelved(root, people(root))
        self.plain = shelved(root, small(2, name="plain", seeds=2))

    def register(self, said: str, *, encoder: bool = False, name: str | None = None, **asked: Any) -> int:
        return register_command(said, Asked(**asked), encoder=encoder, name=name, root=self.root)

    def predict(self, model: str, file: Path, output: Path | None = None, **more: Any) -> int:
        return predict_command(Wanted(model, more.pop("version", None), file, **more), output, self.root)

    def model(self, name: str, depth: str) -> LoggedModel:
        """The model of seed 1 of a study that is called so."""
        run_id = getattr(self, name).tree.seed_run("greedy", 1)
        experiment = getattr(self, name).tree.experiment_id
        found = self.client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
        return next(one for one in found if one.name == depth)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root, before = tmp_path_factory.mktemp("shelves"), dict(os.environ)
    environment.prepare(root)
    lab = Lab(root)
    assert lab.register("people", depth=2, seed=1) == 0
    assert lab.register("people", encoder=True) == 0
    assert lab.register("plain", depth=1, seed=1) == 0
    os.environ.clear()
    os.environ.update(before)
    yield lab
    lab.client._tracking_client.store.engine.dispose()


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which a command refused, given its status; 1 is that of what is broken."""

    def line(status: int, expected: int = 2) -> str:
        said = capsys.readouterr()
        assert (status, said.out) == (expected, "")
        assert re.fullmatch(r"layerwise: [^\n]+\n", said.err), said.err
        return said.err.removeprefix("layerwise: ").rstrip()

    return line


@pytest.fixture
def file(lab: Lab) -> Path:
    """The table, with its label, which no model takes."""
    return lab.root / "people.csv"


# --- finding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["people", "people@named", "people/1", "models:/people/1", "models:/people@named"])
def test_a_registered_model_is_found_by_each_of_its_names(lab: Lab, said: str):
    """A name means the version with the first alias there is; an alias, a number and a URI mean what they say."""
    found = find_model(lab.client, said)
    assert (found.name, found.model.name) == ("people/1", "depth-02")
    assert found.model.source_run_id == lab.people.tree.seed_run("greedy", 1)
    assert find_model(lab.client, "people", 1).name == "people/1"


def test_a_logged_model_is_found_by_its_uri(lab: Lab):
    """A model that is not registered is served by its models:/ URI."""
    model = lab.model("people", "depth-01")
    assert find_model(lab.client, f"models:/{model.model_id}").model.model_id == model.model_id


@pytest.mark.parametrize(
    ("said", "version", "expected"),
    [
        (
            "nobody",
            None,
            r"there is no registered model, and no run, 'nobody'; there are people, people-encoder, plain",
        ),
        ("models:/nobody", None, r"there is no registered model 'nobody'; there are people, people-encoder, plain\.$"),
        ("people@best", None, r"no version of 'people' is called 'best'; there are people@named\.$"),
        ("people/7", None, r"'people' has no version 7; the last is 1\.$"),
        ("people", 7, r"'people' has no version 7; the last is 1\.$"),
        ("people@named", 1, r"people@named says which version it is; leave --version 1 out\.$"),
        (f"models:/m-{'0' * 32}", None, r"there is no model models:/m-0+; `layerwise ui` shows which there are\.$"),
        ("people:other", None, r"no finished run of 'people:other' is tracked here"),
        ("0" * 32, None, r"there is no run 0+; `layerwise ui` shows which there are\.$"),
    ],
)
def test_what_cannot_be_found_is_refused_in_one_line(lab: Lab, said: str, version: int | None, expected: str):
    """The line says what there is."""
    with pytest.raises(TrackingError, match=expected) as error:
        find_model(lab.client, said, version)
    assert "\n" not in str(error.value)


def test_where_nothing_is_registered_it_is_said_what_registers(tmp_path: Path):
    """Who registers nothing yet is told the command that does."""
    client = open_store(tmp_path)
    with pytest.raises(
        TrackingError, match=r"none is registered yet, which `layerwise register RUN --depth N` does\.$"
    ):
        find_model(client, "nobody")
    client._tracking_client.store.engine.dispose()


def test_a_run_is_found_by_the_version_that_it_registered(lab: Lab):
    """The id of a run means its own version, not one that a person asked for; without one the line says what to do."""
    run_id = lab.people.tree.study_run_id
    with pytest.raises(
        TrackingError, match=rf"the run {run_id} registered no model; .*`layerwise register {run_id} --d"
    ):
        find_model(lab.client, run_id)


# --- verifying ---------------------------------------------------------------------------------------------


@pytest.fixture
def copied(lab: Lab) -> Iterator[Path]:
    """The folder of the table's registered model, to be changed; it is put back."""
    folder = local_path(find_model(lab.client, "people").model.artifact_location)
    assert folder is not None
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.mark.parametrize("path", ["MLmodel", "data/model.keras", "data/preparation.skops", "data/serving.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_model_that_is_not_as_published_is_not_loaded(
    lab: Lab, copied: Path, path: str, how: str, file: Path, refused: Callable[..., str]
):
    """One flipped byte, or a missing file: refused by name before anything parses it."""
    content = bytearray((copied / path).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / path).write_bytes(content) if how == "changed" else (copied / path).unlink()
    said = refused(lab.predict("people", file), 1)
    assert (
        said == f"people/1 is not as it was published ({path}), so it is not loaded; `layerwise run people` mends it."
    )


def test_a_model_of_somebody_else_is_not_loaded(lab: Lab, tmp_path: Path):
    """What Layerwise did not publish has no digests, and nothing of it is read: a pickle in it stays one."""
    tree = lab.people.tree
    theirs = lab.client.create_logged_model(tree.experiment_id, "theirs", source_run_id=tree.seed_run("greedy", 0))
    lab.client.create_registered_model("theirs")
    lab.client.create_model_version("theirs", theirs.artifact_location, theirs.source_run_id)
    with pytest.raises(TrackingError, match="theirs/1 was not made by Layerwise: nothing vouches for its files"):
        verified(lab.client, find_model(lab.client, "theirs/1"))
    lab.client.create_model_version("theirs", (tmp_path / "elsewhere").as_uri())
    with pytest.raises(TrackingError, match="theirs/2 is of no model that a run of Layerwise logged"):
        find_model(lab.client, "theirs/2")
    lab.client.delete_registered_model("theirs")


def test_code_in_a_model_s_folder_is_not_run(lab: Lab, tmp_path: Path):
    """Where somebody changed a model's code and the digests with it, the weights answer, and the code stays unread."""
    mark, model = tmp_path / "mark", lab.model("people", "depth-01")
    folder = local_path(model.artifact_location)
    assert folder is not None
    (code,) = (folder / "code").glob("*.py")
    before = code.read_bytes(), model.tags["layerwise.files"]
    try:
        code.write_text(f"open({str(mark)!r}, 'w')\n")
        digests = json.loads(before[1]) | {f"code/{code.name}": _digest(code)}
        lab.client.set_logged_model_tags(model.model_id, {"layerwise.files": json.dumps(digests)})
        held = verified(lab.client, find_model(lab.client, f"models:/{model.model_id}"))
        held.stage(tmp_path / "staged")
        answer = mlflow.pyfunc.load_model(str(tmp_path / "staged")).predict(ROWS)
        np.testing.assert_allclose(answer.to_numpy(), lab.people.expected(1, 1), atol=FLOAT32)
        assert not mark.exists()
    finally:
        code.write_bytes(before[0])
        lab.client.set_logged_model_tags(model.model_id, {"layerwise.files": before[1]})


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


# --- batches -----------------------------------------------------------------------------------------------


def frame_of(file: Path) -> pd.DataFrame:
    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)


@pytest.mark.parametrize("written", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("read", ["rows.csv", "rows.parquet", "rows.tsv"])
def test_a_file_is_answered_as_the_logged_model_does(lab: Lab, tmp_path: Path, read: str, written: str):
    """Every format in and out: the probabilities of the Keras model to float32, in the order of the rows."""
    shuffled = ROWS[ROWS.columns[::-1]].assign(answer="?", extra=1.5)
    source, output = tmp_path / read, tmp_path / written
    if source.suffix == ".parquet":
        shuffled.to_parquet(source)
    else:
        shuffled.to_csv(source, index=False, sep="\t" if source.suffix == ".tsv" else ",")
    assert lab.predict("people", source, output) == 0
    found, expected = frame_of(output), lab.people.expected(2, 1)
    assert list(found.columns) == ["prediction", "probability_no", "probability_yes"]
    np.testing.assert_allclose(found.iloc[:, 1:].to_numpy(), expected, atol=FLOAT32)
    assert found["prediction"].tolist() == [["no", "yes"][best] for best in expected.argmax(axis=1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([read, written])


def test_without_a_file_to_write_the_answer_is_printed(lab: Lab, file: Path, capsys: pytest.CaptureFixture[str]):
    """CSV on standard output whose numbers read back as the very float32 that were computed."""
    assert lab.predict("people", file) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "prediction,probability_no,probability_yes"
    numbers = np.array([line.split(",")[1:] for line in printed[1:]], np.float32)
    model = loading.loaded(_staged(lab, file.parent / "staged") / "data")
    np.testing.assert_array_equal(numbers, loading.answers(model, ROWS).iloc[:, 1:].to_numpy())


def _staged(lab: Lab, folder: Path, said: str = "people") -> Path:
    verified(lab.client, find_model(lab.client, said)).stage(folder)
    return folder


@pytest.mark.slow
def test_output_that_cannot_be_written_is_told_in_a_line(lab: Lab, file: Path):
    """A full disk behind standard output is named as such, with exit 1, like a file that cannot be made."""
    with Path("/dev/full").open("w") as full:
        ended = end(begin(lab.root, "predict", "people", str(file), stdout=full))
    assert (ended.status, ended.err) == (
        1, "layerwise: standard output cannot be written (No space left on device); name a file with --output.\n"
    )  # fmt: skip
    place = lab.root / "nowhere" / "out.csv"
    ended = end(begin(lab.root, "predict", "people", str(file), "--output", str(place)))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"layerwise: {place} cannot be written (No such file or directory); name another file.\n"


def test_a_long_file_is_answered_piece_by_piece(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However a file is cut, every row has the answer that it has alone, and no piece is larger than asked."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 400)
    monkeypatch.setattr(pieces, "PIECE_NUMBERS", 35)
    seen: list[int] = []
    answers = loading.answers
    monkeypatch.setattr(loading, "answers", lambda model, rows: seen.append(len(rows)) or answers(model, rows))
    for name in ("rows.csv", "rows.parquet"):
        ROWS.to_parquet(tmp_path / name) if name.endswith("parquet") else ROWS.to_csv(tmp_path / name, index=False)
        seen.clear()
        assert lab.predict("people", tmp_path / name, tmp_path / f"{name}.out.csv") == 0
        assert sum(seen) == len(ROWS)
        assert max(seen) <= 20
        found = frame_of(tmp_path / f"{name}.out.csv").iloc[:, 1:].to_numpy()
        np.testing.assert_allclose(found, lab.people.expected(2, 1), atol=FLOAT32)


def test_rows_of_arrays_are_answered_by_place(lab: Lab, tmp_path: Path):
    """A model of arrays takes files of as many numbers, whatever the columns are called; classes are numbered."""
    pd.DataFrame(lab.plain.data.inputs, columns=["b", "a"]).to_csv(tmp_path / "rows.csv", index=False)
    assert lab.predict("plain", tmp_path / "rows.csv", tmp_path / "out.csv", version=1) == 0
    found, expected = frame_of(tmp_path / "out.csv"), lab.plain.expected(1, 1)
    assert list(found.columns) == ["prediction", "probability_0", "probability_1", "probability_2"]
    np.testing.assert_allclose(found.iloc[:, 1:].to_numpy(), expected, atol=FLOAT32)
    np.testing.assert_array_equal(found["prediction"], expected.argmax(axis=1))


WRONG: dict[str, tuple[str, str]] = {
    "no column": ("age,colour,visits,smokes\n1,red,2,true\n", r": has no column 'ward', which the model takes; it has"),
    "another name": ("age,color,visits,ward,smokes\n", r": has no column 'colour', .*; did you mean 'color'\? It has"),
    "several": ("age\n1\n", r": has no column 'colour' and 3 more, .* it has 'age'; say which --separator it has\.$"),
    "a separator": ("age;colour;visits;ward;smokes\n", r"say which --separator it has\.$"),
    "text": ("age,colour,visits,ward,smokes\n1,red,2,10,true\nold,red,2,10,true\n", r": line 3 has 'old' in column 1;"),
    "infinite": ("age,colour,visits,ward,smokes\ninf,red,2,10,true\n", r"people/1: column 'age' has infinite values"),
    "a short row": ("age,colour,visits,ward,smokes\n1,red\n", r": a row has 2 values, but the header names 5;"),
    "twice": ("age,colour,visits,ward,smokes,age\n", r": has the column 'age' twice; give every column a name"),
    "nothing": ("", r": is empty; expected a header, and one row for each example\.$"),
    "no rows": ("age,colour,visits,ward,smokes\n", r"rows\.csv: there are no rows to answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_does_not_fit_is_refused_in_one_line(
    lab: Lab, tmp_path: Path, case: str, refused: Callable[..., str]
):
    """Columns and values that are missing or wrong are named, and no file is written."""
    text, expected = WRONG[case]
    (tmp_path / "rows.csv").write_text(text)
    assert re.search(expected, refused(lab.predict("people", tmp_path / "rows.csv", tmp_path / "out.parquet")))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("values", ["old", [1, 2]], ids=["text", "lists"])
def test_a_parquet_column_of_another_type_is_named(lab: Lab, tmp_path: Path, values: Any, refused: Callable[..., str]):
    """What is no number is refused in one line that names the file and the column, and no file is written."""
    ROWS.assign(age=pd.Series([values] * len(ROWS), dtype=object)).to_parquet(tmp_path / "rows.parquet")
    said = refused(lab.predict("people", tmp_path / "rows.parquet", tmp_path / "out.csv"))
    assert re.search(r"rows\.parquet: column 'age' holds what is no number \(.+\); mend it\.$", said)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("output", ["rows.csv", "linked.csv"])
def test_answers_do_not_take_the_place_of_the_rows(lab: Lab, tmp_path: Path, output: str, refused: Callable[..., str]):
    """The file that is read is not written over, whatever name it is given by."""
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "linked.csv").symlink_to("rows.csv")
    before = (tmp_path / "rows.csv").read_bytes()
    said = refused(lab.predict("people", tmp_path / "rows.csv", tmp_path / output))
    assert said.endswith(f"{output}: is the file of the rows itself; name another file for the answers.")
    assert (tmp_path / "rows.csv").read_bytes() == before


def test_files_that_are_no_tables_are_refused_in_one_line(lab: Lab, tmp_path: Path, refused: Callable[..., str]):
    """By their names, by what they hold, and where there is none; a table of too many numbers, too."""
    for name, expected in {
        "none.csv": r"none\.csv: is no file; give the path of a CSV or Parquet file\.$",
        "rows.xlsx": r"rows\.xlsx: is no table that is known by its name",
        "rows.parquet": r"rows\.parquet: is no table of the kind that its name says",
    }.items():
        if not name.startswith("none"):
            (tmp_path / name).write_bytes(b"PAR1 and no more")
        assert re.search(expected, refused(lab.predict("people", tmp_path / name)))
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n")
    assert re.search(
        r"received 3 columns \('a', 'b', 'c'\); the model takes rows of 2",
        refused(lab.predict("plain", tmp_path / "rows.csv")),
    )
    said = refused(lab.predict("plain", tmp_path / "rows.csv", tmp_path / "out.json"))
    assert "out.json: expected a name that ends in .csv or .parquet." in said


def test_categories_are_read_as_they_were_in_training(lab: Lab, tmp_path: Path):
    """A ward of 10.0, and a truth value of 1, are those that training knew as 10 and true."""
    text = "age,colour,visits,ward,smokes\n20.5,red,3,10.0,1\n20.5,red,3.0,10,TRUE\n20.5,red,3,10,true\n"
    (tmp_path / "rows.csv").write_text(text)
    assert lab.predict("people", tmp_path / "rows.csv", tmp_path / "out.csv") == 0
    found = frame_of(tmp_path / "out.csv").iloc[:, 1:].to_numpy()
    np.testing.assert_allclose(found, lab.people.expected(2, 1)[[0, 0, 0]], atol=FLOAT32)


# --- encoders ----------------------------------------------------------------------------------------------


def hidden(shelf: Shelved, depth: int, seed: int, model: LoggedModel) -> np.ndarray:
    """What the top hidden layer of a logged Keras model makes of the rows: read off the model as MLflow loads it."""
    folder = local_path(model.artifact_location)
    whole = raw_rows.network(folder / "data" / "model.keras")
    top = keras.Model(whole.inputs, whole.get_layer(f"hidden_{depth:02d}").output)
    return np.asarray(top.predict(shelf.inputs(seed), verbose=0))


def test_an_encoder_gives_the_hidden_activations_of_its_model(lab: Lab, tmp_path: Path, file: Path):
    """Raw rows in, the very activations of the top hidden layer out, by MLflow and by the batch command."""
    expected = hidden(lab.people, 2, 1, lab.model("people", "depth-02"))
    staged = mlflow.pyfunc.load_model(str(_staged(lab, tmp_path / "staged", "people-encoder")))
    answer = staged.predict(ROWS)
    np.testing.assert_array_equal(answer.to_numpy(), expected)
    assert list(answer.columns) == [f"feature_{number}" for number in range(1, 11)]
    assert staged.metadata.signature.outputs.input_names() == list(answer.columns)
    assert [(one.name, one.type.name) for one in staged.metadata.signature.inputs] == [
        ("age", "double"), ("colour", "string"), ("visits", "long"), ("ward", "long"), ("smokes", "boolean")
    ]  # fmt: skip
    assert lab.predict("people-encoder", file, tmp_path / "out.parquet") == 0
    np.testing.assert_allclose(frame_of(tmp_path / "out.parquet").to_numpy(), expected, atol=FLOAT32)


def test_an_encoder_of_arrays_is_a_keras_model_too(lab: Lab, tmp_path: Path):
    """MLflow's keras flavour loads it, and without preparation its signature is that of arrays."""
    assert lab.register("plain", encoder=True, depth=2, seed=1, name="features") == 0
    found = find_model(lab.client, "features@encoder")
    assert found.model.name == "depth-02-encoder"
    folder = local_path(found.model.artifact_location)
    expected = hidden(lab.plain, 2, 1, lab.model("plain", "depth-02"))
    loaded = mlflow.keras.load_model(str(folder))
    np.testing.assert_array_equal(loaded.predict(lab.plain.data.inputs, verbose=0), expected)
    assert loaded.name == "encoder_depth_02"
    staged = mlflow.pyfunc.load_model(str(_staged(lab, tmp_path / "staged", "features")))
    np.testing.assert_array_equal(staged.predict(lab.plain.data.inputs), expected)
    lab.client.delete_registered_model("features")


def test_registering_again_changes_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]):
    """The same request finds its version and its model; the run is still as its manifest says."""
    models = lab.client.search_logged_models([lab.people.tree.experiment_id], max_results=100)
    assert lab.register("people", encoder=True) == 0
    assert lab.register("people", depth=2, seed=1) == 0
    place = "(people: greedy, depth 2, seed 1)"
    assert capsys.readouterr().out.splitlines() == [
        f"registered: people-encoder version 1, alias encoder: the encoder, 10 features a row {place}",
        f"registered: people version 1, alias named: the network {place}",
    ]
    after = lab.client.search_logged_models([lab.people.tree.experiment_id], max_results=100)
    assert {one.model_id for one in after} == {one.model_id for one in models}
    assert check_tree(lab.client, lab.client.get_run(lab.people.tree.study_run_id)) == []


def test_the_cards_say_what_it_is_and_how_it_was_chosen(lab: Lab):
    """Encoders and networks: layers, data, scores with intervals, limits, the run and its report, and how chosen."""
    page = f"#/experiments/{lab.people.tree.experiment_id}/runs/{lab.people.tree.study_run_id}"
    encoder = lab.client.get_model_version("people-encoder", "1")
    for said in (
        "An encoder: 2 hidden layers (10-10) of a classifier, without its output layer.",
        "It gives the features of the top one, 10 numbers a row. The network is what the arm `greedy` left",
        f"({page}/artifacts/report.html)",
        f"Digest `{lab.people.data.digest}`.",
        "table: 20 training rows and 10 test rows; each seed draws its own.",
        "The network that it is of has a test accuracy of 0.",
        "**How it was chosen.** It was not: the study declares arm, depth and seed, before anything is trained",
        "**Limits.**",
        "over 3 intact seeds at this depth is 0.",
    ):
        assert said in encoder.description
    assert encoder.description.startswith("Encoder, 2 hidden layers: greedy, seed 1\n\n**Question.** Yes or no?")
    described = lab.client.get_registered_model("people-encoder").description
    assert described == "Features of the top hidden layer of networks of the study people. Yes or no?"
    assert encoder.tags["layerwise.report"] == f"runs:/{lab.people.tree.study_run_id}/report.html"
    network = lab.client.get_model_version("plain", "1").description
    assert "A classifier with 1 hidden layer (10): what the arm `greedy` left at depth 1" in network
    assert "whoever registered it named arm, depth and seed after the run" in network
    assert "The probabilities are not calibrated." in network


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ("plain", {}, "plain: say which network, with --depth N, or --encoder for the hidden layers alone."),
        ("plain", {"encoder": True}, "plain: say which depth, with --depth: 1, 2."),
        ("plain", {"depth": 3}, "plain: greedy has no network at depth 3; there are 1, 2."),
        ("plain", {"depth": 1, "seed": 2}, "plain: greedy has no seed 2; there are 0, 1."),
        ("plain", {"depth": 1, "arm": "gredy"}, "plain: received the arm 'gredy'; did you mean greedy? Known: greedy."),
        ("plain", {"depth": 1, "untuned": True}, "plain: greedy is not fine-tuned at depth 1; leave --untuned out."),
        ("plain/greedy", {"depth": 1, "arm": "x"}, "plain/greedy names an arm, and --arm x another; leave one out."),
        ("plain", {"depth": 1, "name": "a/b"}, "--name 'a/b': use at most 80 letters, digits, '.', '_' and '-'."),
        ("plane", {"depth": 1}, "no run of a study 'plane' is tracked here; the nearest are plain, people."),
        ("plain", {"depth": 1, "name": "people"}, "there is a registered model 'people' that was not made by Layerwise"
            " for the study 'plain', whose network would stand in it; give another name with --name."),
    ],
)  # fmt: skip
def test_a_network_that_is_not_there_is_refused_in_one_line(
    lab: Lab, said: str, asked: dict[str, Any], expected: str, refused: Callable[..., str]
):
    """The line says what there is, and nothing is registered."""
    before = len(lab.client.search_model_versions())
    assert refused(lab.register(said, **asked)) == expected
    assert len(lab.client.search_model_versions()) == before


# --- over HTTP ---------------------------------------------------------------------------------------------


def asked(address: str, body: Any = None) -> Any:
    """What a server answers, as JSON."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"})  # noqa: S310 - ours
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def is_open(address: str, port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((address, port)) == 0


@contextmanager
def served(root: Path, *said: str) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """`layerwise serve` once it answers: the process, its port and the lines that it printed."""
    port = free_port()
    process = begin(root, "serve", *said, "--port", str(port))
    lines = list(itertools.takewhile(lambda line: "Ctrl-C" not in line, iter(process.stdout.readline, "")))
    try:
        yield process, port, lines
    finally:
        process.send_signal(signal.SIGINT)
        ended = end(process)
    assert (ended.status, ended.out, ended.err) == (0, "stopped\n", "")
    assert not is_open("127.0.0.1", port)
    assert orphan_servers(root) == []


@pytest.mark.slow
def test_a_served_model_answers_as_the_logged_model_does(lab: Lab):
    """Over HTTP: the probabilities of the Keras model to float32, on loopback alone, and gone with Ctrl-C."""
    with served(lab.root, "people@named") as (_, port, lines):
        address = f"http://127.0.0.1:{port}"
        assert len(lines) == 2
        assert lines[0].startswith(f"people/1 answers at {address}/invocations")
        curl = shlex.split(lines[1])
        assert (curl[0], curl[1]) == ("curl", f"{address}/invocations")
        (example,) = asked(curl[1], json.loads(curl[-1]))["predictions"]
        assert sum(example.values()) == pytest.approx(1, abs=FLOAT32)
        rows = json.loads(ROWS.to_json(orient="split", index=False))
        answer = pd.DataFrame(asked(f"{address}/invocations", {"dataframe_split": rows})["predictions"])
        np.testing.assert_allclose(answer.to_numpy(), lab.people.expected(2, 1), atol=FLOAT32)
        assert list(answer.columns) == ["no", "yes"]
        rows["data"][0][rows["columns"].index("age")] = math.inf
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(f"{address}/invocations", {"dataframe_split": rows})
        reason = json.load(refused.value)
        assert (refused.value.code, "stack_trace" in reason) == (400, False)
        assert reason["message"].endswith("column 'age' has infinite values; the model takes finite numbers")
        urllib.request.urlopen(f"{address}/ping", timeout=10).close()  # noqa: S310 - ours
        assert not is_open("127.0.0.2", port), "it listens on 127.0.0.1 alone"
        said = refusal(lab.root, "serve", "people", "--port", str(port))
        assert said == f"port {port} is taken; choose another with --port, or stop what uses it."


@pytest.mark.slow
def test_modules_of_the_working_directory_are_not_served(lab: Lab, tmp_path: Path):
    """Whatever lies where the command was given, a served model is answered by our code and the installed libraries."""
    for name in ("mlflow", "uvicorn", "tasks", "fastapi"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    port = free_port()
    command = [sys.executable, "-P", "-m", "flows.cli", "serve", "people@named", "--port", str(port)]
    environ = clean_environ() | {"LAYERWISE_ROOT": str(lab.root)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    lines = list(itertools.takewhile(lambda line: "Ctrl-C" not in line, iter(process.stdout.readline, "")))
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.status, ended.out, ended.err) == (0, "stopped\n", "")
    assert len(lines) == 2


@pytest.mark.slow
def test_a_served_encoder_gives_features_and_a_killed_command_leaves_what_doctor_finds(lab: Lab):
    """Features over HTTP are the hidden activations; a server whose command was killed is known for what it is."""
    expected = hidden(lab.people, 2, 1, lab.model("people", "depth-02"))
    port = free_port()
    process = begin(lab.root, "serve", "people-encoder", "--port", str(port))
    for line in iter(process.stdout.readline, ""):
        if "Ctrl-C" in line:
            break
    rows = json.loads(ROWS.to_json(orient="split", index=False))
    answer = asked(f"http://127.0.0.1:{port}/invocations", {"dataframe_split": rows})["predictions"]
    np.testing.assert_allclose(pd.DataFrame(answer).to_numpy(), expected, atol=1e-5)
    process.kill()
    end(process)
    (orphan,) = orphan_servers(lab.root)
    assert orphan.words == "a served model"
    os.killpg(orphan.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while is_open("127.0.0.1", port):
        assert time.monotonic() < deadline, "the server outlived its group"
        time.sleep(0.2)


def test_rows_that_a_served_model_refuses_are_answered_with_its_reason(lab: Lab, tmp_path: Path):
    """The server's answer is what MLflow makes of its own exceptions, without a stack; others stay what they are."""
    verified(lab.client, find_model(lab.client, "people")).stage(tmp_path / "people")
    model = mlflow.pyfunc.load_model(str(tmp_path / "people"))
    with pytest.raises(MlflowException, match="column 'age' has infinite values; the model takes finite") as refused:
        model.predict(ROWS.assign(age=math.inf))
    assert refused.value.get_http_status_code() == 400
    with pytest.raises(AttributeError):
        Served(object()).predict(ROWS)


def test_no_room_for_temporary_files_is_not_said_of_the_answers(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A model that finds no room where it is unpacked is a line about that disk, and no file of answers is made."""
    monkeypatch.setenv("TMPDIR", "/dev")
    monkeypatch.setattr(durable, "has_room", lambda folder: folder == lab.root)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_all", full)
    monkeypatch.setenv("LAYERWISE_ROOT", str(lab.root))
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    answers = tmp_path / "answers.csv"
    asked = ["predict", "people@named", str(tmp_path / "rows.csv"), "--output", str(answers)]
    monkeypatch.setattr("sys.argv", ["layerwise", *asked])
    assert cli.run_command() == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"layerwise: the disk of temporary files, \S+, is full; .+, and run again\.\n", said)
    assert not answers.exists()


def test_a_request_can_be_pasted_for_every_signature(lab: Lab, tmp_path: Path):
    """The example that `serve` prints is one that MLflow takes: of columns, of an array, and of several inputs."""
    for said in ("people", "plain"):
        model = verified(lab.client, find_model(lab.client, said))
        request = serving.example(model.signature)
        (kind,) = request
        rows = pd.DataFrame(**request[kind]) if kind == "dataframe_split" else np.array(request[kind], np.float32)
        model.stage(tmp_path / said)
        assert len(mlflow.pyfunc.load_model(str(tmp_path / said)).predict(rows)) == 1
    two = [TensorSpec(np.dtype(np.float32), (-1, width), name) for name, width in (("upper", 2), ("lower", 1))]
    assert serving.example(ModelSignature(Schema(two))) == {"inputs": {"upper": [[0.0, 0.0]], "lower": [[0.0]]}}
    wide = ModelSignature(Schema([TensorSpec(np.dtype(np.float32), (-1, 2000))]))
    long = serving._curl(wide, "http://x", tmp_path / "e")
    assert long == f"curl http://x/invocations -H 'Content-Type: application/json' -d @{tmp_path / 'e'}"
    assert json.loads((tmp_path / "e").read_text()) == {"inputs": [[0.0] * 2000]}


@pytest.mark.parametrize("command", [["serve", "nobody"], ["predict", "nobody", "people.csv"]])
def test_a_command_refuses_a_model_that_is_not_there(lab: Lab, command: list[str]):
    """In one line, without Prefect or TensorFlow, and nothing is left running."""
    ended, loaded = and_modules(lab.root, *command)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("layerwise: there is no registered model, and no run, 'nobody'; there are people,")
    assert ended.err.count("\n") == 1
    assert not loaded & {"tensorflow", "keras", "prefect"}
