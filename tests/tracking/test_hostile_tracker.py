"""A tracker that lies: whoever may write to one can change a table and the digest that vouches for it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.comparing import compare_command
from flows.reporting import report_command
from tasks.bounded import read_below
from tasks.tracking.answers import RESULTS, VERDICTS, finished_study_run, stored_answer
from tasks.tracking.files import require_inside
from tasks.tracking.held import MANIFEST
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import close_runs
from tasks.tracking.store import TrackingError, artifact_root
from tasks.tracking.tags import ARMS, ARTIFACT, RUN_KEY, SEEDS
from tasks.tracking.tracked import SCORES, STUDY_FILE, append_record, find_study_run, read_tracked
from tests.hostile import STUDIES

TABLE = pd.DataFrame({"arm": ["greedy"], "seed": [0], "depth": [1], "test_accuracy_mean": [0.5]})


@pytest.fixture
def tree(client, opened):
    """A finished study."""
    tree = opened()
    publisher = Publisher(client, tree)
    publisher.text(tree.study_run_id, STUDY_FILE, "name: small\nseeds: 2\n")
    publisher.text(tree.study_run_id, VERDICTS, '{"verdicts": []}')
    publisher.table(tree.study_run_id, SCORES, TABLE)
    publisher.table(tree.study_run_id, RESULTS, TABLE)
    publisher.manifest()
    close_runs(client, tree)
    return tree


@pytest.fixture
def replace(client, tree) -> Callable[[str, bytes], None]:
    """Puts other content in an artifact's place, with a digest that vouches for it."""

    def put(path: str, content: bytes) -> None:
        folder = Path(client.get_run(tree.study_run_id).info.artifact_uri.removeprefix("file://"))
        (folder / path).write_bytes(content)
        client.set_tag(tree.study_run_id, ARTIFACT + path, hashlib.sha256(content).hexdigest())

    return put


def refusal(client, tree) -> str:
    """The line with which the study run is refused when it is read."""
    with pytest.raises(TrackingError) as refused:
        read_tracked(client, find_study_run(client, tree.study_run_id))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    return str(refused.value)


BOMBS = ("billion laughs", "Python object", "merge", "lists in lists", "blocks in blocks", "long hexadecimal")


def test_a_study_of_a_tracker_is_read_as_a_file_is(client, tree, replace):
    """Aliases, tags, depth and endless numbers, other sizes, encodings and forms are refused by the run's name."""
    texts = {name: (STUDIES[name][0].encode(), STUDIES[name][1]) for name in BOMBS}
    texts["size"] = (b"#" * 1_000_001, "1,000,001 bytes; a study file holds at most 1,000,000")
    texts["bytes"] = (b"\xff\xfe", "is not UTF-8 text")
    texts["list"] = (b"- a", "holds a list; expected keys")
    for content, expected in texts.values():
        replace(STUDY_FILE, content)
        assert expected in refusal(client, tree)
        assert refusal(client, tree).startswith(f"study.yaml of run {tree.study_run_id}: ")


CONTENTS = [
    (SCORES, b"a," * 10_000_000, "10,000,001 columns; at most 2,000 are read"),
    (SCORES, b"arm,seed,depth\n" + b"1," * 1_000_000 + b"\n", "is not what Layerwise writes"),
    (SCORES, b"", "is not what Layerwise writes (EmptyDataError"),
    (SCORES, b"arm,depth\ngreedy,1\n", "KeyError: 'seed'"),
    (SCORES, b"arm,seed,depth\ngreedy,0,one\n", "its column 'depth' holds str, and no whole numbers"),
    (SCORES, b"arm,seed,depth\ngreedy,1e400,1\n", "its column 'seed' holds float64, and no whole numbers"),
    (SCORES, b"\x80\x04\x95", "is not what Layerwise writes"),
    (RESULTS, b"arm,depth\n\xff\xff,1\n", "is not what Layerwise writes (UnicodeDecodeError"),
    (VERDICTS, b"[" * 100_000, "is not what Layerwise writes (RecursionError"),
    (VERDICTS, b"[]", "is not what Layerwise writes (TypeError"),
    (VERDICTS, b'{"verdicts": [{"claim": "c"}]}', "is not what Layerwise writes (KeyError: 'verdict')"),
    (VERDICTS, b'{"verdicts": [{"claim": "c", "verdict": 1, "words": "w"}]}', "a verdict without words"),
    (VERDICTS, b'{"verdicts": 1}', "is not what Layerwise writes (TypeError"),
]


def test_tables_and_verdicts_that_lie_are_refused(client, tree, replace):
    """Columns by the million, lines of a million cells, other columns, depth and forms: one line, and no traceback."""
    sound = {SCORES: TABLE.to_csv(index=False), RESULTS: TABLE.to_csv(index=False), VERDICTS: '{"verdicts": []}'}
    for path, content, expected in CONTENTS:
        replace(path, content)
        assert expected in refusal(client, tree)
        replace(path, sound[path].encode())
    assert read_tracked(client, find_study_run(client, tree.study_run_id)).verdicts == {"verdicts": []}


def test_tags_that_lie_are_refused(client, study, tree):
    """Seeds by the billion, thousands of arms and a run key that would be a query are refused at once."""
    run = finished_study_run(client, study.name, tree.run_key)
    for tag, value, expected in (
        (SEEDS, "1000000000", "'1000000000' seeds, which no study has"),
        (SEEDS, "9" * 5000, "seeds, which no study has"),
        (SEEDS, "-1", "'-1' seeds, which no study has"),
        (SEEDS, "\u0663", "seeds, which no study has"),
        (ARMS, ",".join(["a"] * 2000), "2,000 arms"),
        (RUN_KEY, "x' OR '1' = '1", "which no study has"),
    ):
        client.set_tag(tree.study_run_id, tag, value)
        with pytest.raises(TrackingError, match=re.escape(expected)) as refused:
            stored_answer(client, client.get_run(run.info.run_id))
        assert "\n" not in str(refused.value)
        client.set_tag(tree.study_run_id, tag, run.data.tags[tag])
    assert stored_answer(client, client.get_run(run.info.run_id)).missing == ()


def test_a_manifest_that_lies_is_refused(client, study, tree, replace):
    """A list of what runs hold that has another form is refused in a line."""
    run = finished_study_run(client, study.name, tree.run_key)
    for content in (b"[]", b"{}", b'{"runs": {"study": 1}}', b'{"runs": {"study": {"metrics": [1]}}}', b"{"):
        replace(MANIFEST, content)
        with pytest.raises(TrackingError, match="is not what Layerwise writes"):
            stored_answer(client, client.get_run(run.info.run_id))


def test_a_manifest_cannot_name_files_elsewhere(client, study, tree, replace, root: Path):
    """Paths out of a run's folder, devices and pipes are missing files: nothing is read there, and nothing hangs."""
    (root / "secret").write_text("x")
    paths = ["../../../../secret", str(root / "secret"), "/dev/zero", "../" * 20 + "dev/zero", "a\0b"]
    replace(MANIFEST, json.dumps({"runs": {"study": {"metrics": {}, "models": {}, "artifacts": paths}}}).encode())
    found = stored_answer(client, finished_study_run(client, study.name, tree.run_key)).faults
    assert {(fault.what, fault.state) for fault in found if fault.kind == "file"} >= {
        (path, "missing") for path in paths
    }
    (root / "link").symlink_to("/dev/zero")
    assert read_below(root, "link") is None


def test_nothing_is_written_where_a_tracker_wants_it(client, opened, root: Path, rows: Callable[..., Any], monkeypatch):
    """Artifacts of a run whose place was moved out of the experiment's are not written; the message names the place."""
    elsewhere = root / "elsewhere"
    again = opened(repeat="again")
    publisher = Publisher(client, again)
    run = client.get_run(again.study_run_id)
    run.info._artifact_uri = elsewhere.as_uri()
    monkeypatch.setattr(client, "search_runs", lambda *_, **__: [run])
    with pytest.raises(TrackingError, match=rf"would have files written to {elsewhere}, which is no folder of a run"):
        publisher.text(again.study_run_id, "notes.txt", "x")
    assert not elsewhere.exists()
    assert rows("SELECT count(*) FROM tags WHERE key = 'layerwise.artifact.notes.txt'") == [(0,)]


def test_a_model_is_not_written_elsewhere_either(client, opened, root: Path, monkeypatch):
    """The folder of a model is below its experiment's, or the model is not written."""
    from tasks.tracking.folders import ModelFolder
    from tasks.tracking.publishing import SeedModel

    class Template:
        """In the place of Keras's: any files will do."""

        def folder(self, _weights, _preparation=None):
            return ModelFolder({"MLmodel": b"x"})

    elsewhere, tree = root / "elsewhere", opened()
    created = client.create_logged_model

    def moved(*arguments, **options):
        model = created(*arguments, **options)
        model._artifact_location = elsewhere.as_uri()
        return model

    monkeypatch.setattr(client, "create_logged_model", moved)
    model = SeedModel(tree.seed_run("greedy", 0), "depth-01", 1, Template(), [np.zeros(1)], "digest")
    with pytest.raises(TrackingError, match=rf"would have files written to {elsewhere}"):
        Publisher(client, tree).models([model])
    assert not elsewhere.exists()


def test_a_record_is_not_written_where_a_lying_tracker_says(root: Path, client, tree):  # noqa: ARG001 - a finished study is there
    """What `reproduce` and others add to a run goes to the run's own folder, or nowhere."""
    run, elsewhere = find_study_run(client, "small"), root / "elsewhere"
    run.info._artifact_uri = elsewhere.as_uri()
    with pytest.raises(TrackingError, match=rf"would have files written to {elsewhere}"):
        append_record(client, run, "reproductions/now.json", "{}", {})
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    "place",
    [
        "",
        "x",
        "../x",
        "0" * 32,
        f"{'0' * 32}/artifacts/x",
        f"{'0' * 32}/../artifacts",
        f"models/{'0' * 32}/artifacts",
        "/etc",
    ],
)
def test_a_place_is_a_run_s_or_a_model_s_folder(root: Path, place: str):
    """Only the folders that MLflow gives runs and models below an experiment's are written to."""
    store = artifact_root(root) / "small"
    for sound in (f"{'0' * 32}/artifacts", f"models/m-{'0' * 32}/artifacts"):
        assert require_inside(store / sound, store.as_uri()) == store / sound
    with pytest.raises(TrackingError, match="would have files written to"):
        require_inside(store / place, store.as_uri())
    with pytest.raises(TrackingError, match="would have files written to"):
        require_inside(store / f"{'0' * 32}/artifacts", "s3://bucket/small")


def test_commands_that_read_a_lying_tracker_end_in_one_line(root, tree, replace, capsys: pytest.CaptureFixture[str]):
    """`report` and `compare` fail of what is no table, and print nothing that a terminal obeys."""
    replace(SCORES, b"arm,seed,depth\ngreedy,0,\x1b[2J\n")
    shown = {"output": None, "as_text": True, "may_open": False, "root": root}
    commands = (partial(report_command, "small"), partial(compare_command, ["small", tree.study_run_id]))
    for command in commands:
        assert command(**shown) == 1
        captured = capsys.readouterr()
        assert "is not what Layerwise writes" in captured.err
        assert "\x1b" not in captured.out + captured.err
