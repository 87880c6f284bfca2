"""Metrics, artifacts, tags and data sets: each published once, whatever is sent again, and when."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow.data
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tasks import durable
from tasks.tracking.publishing import Point, Publisher
from tasks.tracking.store import TrackingError, database_path
from tests.tracking.conftest import Cut, Killed

NOW = 1_790_000_000_000
KEYS = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")


def points(depths: int, *, timestamp: int = NOW) -> list[Point]:
    """Four metrics at each depth, with values of many digits."""
    return [
        Point(key, number / 3 + depth / 7, depth, timestamp)
        for depth in range(1, depths + 1)
        for number, key in enumerate(KEYS)
    ]


@pytest.fixture
def tree(opened):
    return opened()


@pytest.fixture
def publisher(client, tree):
    return Publisher(client, tree)


@pytest.fixture
def seed_run(tree):
    return tree.seed_run("greedy", 0)


def test_metrics_arrive_to_the_bit(publisher, client, seed_run):
    """A metric has its value, step and time on the run."""
    assert publisher.metrics(seed_run, points(3)) == 12
    for key in KEYS:
        stored = [(metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(seed_run, key)]
        assert sorted(stored) == [(point.step, point.value, NOW) for point in points(3) if point.key == key]


def test_sending_again_changes_nothing(publisher, client, tree, seed_run, counts):
    """Equal values are left alone, whenever they were computed, by this publisher and by the next process's."""
    publisher.metrics(seed_run, points(3))
    before = counts()
    assert publisher.metrics(seed_run, points(3, timestamp=NOW + 1)) == 0
    assert Publisher(client, tree).metrics(seed_run, points(3, timestamp=NOW + 1)) == 0
    assert counts() == before


def test_only_what_is_missing_is_sent(publisher, client, tree, seed_run, rows):
    """A run that holds some of the points receives the others."""
    publisher.metrics(seed_run, points(1))
    assert Publisher(client, tree).metrics(seed_run, points(3, timestamp=NOW + 1)) == 8
    assert rows("SELECT COUNT(*), COUNT(DISTINCT key || ' ' || step) FROM metrics") == [(12, 12)]
    assert rows("SELECT DISTINCT timestamp FROM metrics WHERE step = 1") == [(NOW,)]


@pytest.mark.parametrize("fresh", [False, True])
def test_an_unequal_value_is_a_defect(publisher, client, tree, seed_run, counts, fresh):
    """Another value at the same key and step is refused with run, key, step and both values; nothing is sent."""
    publisher.metrics(seed_run, [Point("test_loss", 0.1, 2, NOW)])
    before = counts()
    sender = Publisher(client, tree) if fresh else publisher
    with pytest.raises(TrackingError) as refused:
        sender.metrics(seed_run, [Point("other", 1.0, 2, NOW), Point("test_loss", 0.10000000000000002, 2, NOW)])
    assert f"run {seed_run} holds test_loss = 0.1 at step 2, but now 0.10000000000000002" in str(refused.value)
    assert counts() == before


def test_a_call_that_contradicts_itself_is_a_defect(publisher, seed_run):
    """Two values for one key and step are refused; the same value twice is one point."""
    with pytest.raises(TrackingError, match=r"holds x = 1\.0 at step 1, but now 2\.0"):
        publisher.metrics(seed_run, [Point("x", 1.0, 1, NOW), Point("x", 2.0, 1, NOW)])
    assert publisher.metrics(seed_run, [Point("x", 1.0, 1, NOW), Point("x", 1.0, 1, NOW)]) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_what_is_not_finite_is_not_sent(publisher, seed_run, rows, value):
    """Values that are not finite never reach the store, which would keep infinity as a huge number."""
    assert publisher.metrics(seed_run, [Point("loss", value, 1, NOW), Point("loss", 0.5, 2, NOW)]) == 1
    assert rows("SELECT step, value FROM metrics") == [(2, 0.5)]


def test_single_precision_is_widened_once(publisher, client, tree, seed_run):
    """A float32 is sent as the double it equals, and found equal again."""
    assert publisher.metrics(seed_run, [Point("loss", np.float32(0.1), 1, NOW)]) == 1
    assert Publisher(client, tree).metrics(seed_run, [Point("loss", np.float32(0.1), 1, NOW)]) == 0
    with pytest.raises(TrackingError, match="equal studies must give equal values"):
        Publisher(client, tree).metrics(seed_run, [Point("loss", 0.1, 1, NOW)])


def test_more_than_a_request_holds_is_sent_in_parts(publisher, seed_run, rows):
    """MLflow takes 1000 metrics at once; a study may have more."""
    many = [Point("loss", float(step), step, NOW) for step in range(2100)]
    assert publisher.metrics(seed_run, many) == 2100
    assert rows("SELECT COUNT(*) FROM metrics") == [(2100,)]


@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_between_requests_is_completed(client, tree, seed_run, rows, answered):
    """A publication cut short is completed by the next process, without doubles."""
    many = [Point("loss", float(step), step, NOW) for step in range(2100)]
    with pytest.raises(Killed):
        Publisher(Cut(client, 2, answered=answered), tree).metrics(seed_run, many)
    assert Publisher(client, tree).metrics(seed_run, many) == (100 if answered else 1100)
    assert rows("SELECT COUNT(*), COUNT(DISTINCT step) FROM metrics") == [(2100, 2100)]


def test_a_run_that_was_deleted_is_named(publisher, client, seed_run):
    """Publishing onto a run that somebody deleted says so."""
    client.delete_run(seed_run)
    with pytest.raises(TrackingError, match=f"run {seed_run} is not in experiment .*: somebody deleted it"):
        publisher.metrics(seed_run, points(1))


def test_an_artifact_is_sent_once(publisher, client, tree, counts, root):
    """Equal content is sent once, by whichever process; new content takes its place."""
    run_id = tree.study_run_id
    assert publisher.text(run_id, "notes/today.md", "naïve") is True
    file = next((root / "mlruns").rglob("today.md"))
    before, first = counts(), file.stat().st_mtime_ns
    assert publisher.text(run_id, "notes/today.md", "naïve") is False
    assert Publisher(client, tree).text(run_id, "notes/today.md", "naïve") is False
    assert (counts(), file.stat().st_mtime_ns) == (before, first)
    assert publisher.text(run_id, "notes/today.md", "new") is True
    assert counts() == before
    assert file.read_text(encoding="utf-8") == "new"


def test_an_artifact_that_was_lost_is_sent_again(publisher, client, tree, root):
    """An artifact whose file is gone is published again, though its digest is known."""
    publisher.text(tree.study_run_id, "study.yaml", "name: small")
    next((root / "mlruns").rglob("study.yaml")).unlink()
    assert Publisher(client, tree).text(tree.study_run_id, "study.yaml", "name: small") is True
    assert [item.path for item in client.list_artifacts(tree.study_run_id)] == ["study.yaml"]


@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_while_sending_an_artifact_is_completed(client, tree, counts, answered):
    """Cut short before or after its digest is kept, the next process leaves one file and one digest."""
    with pytest.raises(Killed):
        Publisher(Cut(client, 1, answered=answered), tree).text(tree.study_run_id, "a.txt", "text")
    assert Publisher(client, tree).text(tree.study_run_id, "a.txt", "text") is not answered
    assert counts()["files"] == 1


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_an_artifact_is_whole_or_as_it_was(client, tree, root, monkeypatch, place):
    """A process that dies while it writes an artifact leaves the old one; the next leaves the new one and no scrap."""
    publisher = Publisher(client, tree)
    publisher.text(tree.study_run_id, "a.txt", "old")

    def die(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*{"fsync": (durable.os, "fsync", die), "replace": (Path, "replace", die)}[place])
        with pytest.raises(Killed):
            publisher.text(tree.study_run_id, "a.txt", "new")
    file = next((root / "mlruns").rglob("a.txt"))
    assert file.read_text() == "old"
    assert Publisher(client, tree).text(tree.study_run_id, "a.txt", "new") is True
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"Text"), lambda file: file.write_bytes(b"")])
def test_an_artifact_that_was_changed_is_written_again(client, tree, root, caplog, damage):
    """An artifact whose content is no longer what was published is named, and published again."""
    run_id = tree.study_run_id
    Publisher(client, tree).text(run_id, "a.txt", "text")
    file = next((root / "mlruns").rglob("a.txt"))
    damage(file)
    assert Publisher(client, tree).text(run_id, "a.txt", "text") is True
    assert file.read_text() == "text"
    assert caplog.messages == [f"Artifact a.txt of run {run_id} was not as published, and is written again."]


def test_a_table_reads_back_to_the_bit(publisher, client, tree):
    """The CSV of a table holds every digit of its numbers."""
    table = pd.DataFrame({"arm": ["greedy", "other"], "mean": [0.1 + 0.2, 1 / 3], "seeds": [30, 29]})
    publisher.table(tree.study_run_id, "results.csv", table)
    content = Path(client.download_artifacts(tree.study_run_id, "results.csv")).read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(content)), table, check_exact=True)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_equal_figures_are_sent_once(publisher, tree, suffix):
    """A figure drawn again from the same numbers is the same artifact."""

    def drawn(height: float) -> Figure:
        figure = Figure()
        figure.subplots().plot([0, 1], [0, height])
        return figure

    path = f"figures/line.{suffix}"
    assert publisher.figure(tree.study_run_id, path, drawn(1)) is True
    assert publisher.figure(tree.study_run_id, path, drawn(1)) is False
    assert publisher.figure(tree.study_run_id, path, drawn(2)) is True


def test_tags_are_set_once(publisher, client, tree, seed_run):
    """A tag that stands is not sent again; another value replaces it."""
    publisher.tags(seed_run, {"layerwise.outcome": "intact"})
    Publisher(Cut(client, 1, answered=False), tree).tags(seed_run, {"layerwise.outcome": "intact"})
    publisher.tags(seed_run, {"layerwise.outcome": "diverged"})
    assert client.get_run(seed_run).data.tags["layerwise.outcome"] == "diverged"


def send_data(publisher: Publisher, run_id: str, part: str = "train", *, digest: str = "d" * 36) -> bool:
    return publisher.dataset(
        run_id,
        name=f"blobs-{part}",
        digest=digest,
        context=part,
        source={"source": "blobs", "random_state": "2"},
        features=np.zeros((70, 2), "float32"),
        labels=np.zeros(70, "int64"),
    )


def test_a_data_set_is_an_input_of_the_run_once(publisher, client, tree, counts):
    """Train and test parts are two inputs with their contexts; sending them again adds none."""
    run_id = tree.study_run_id
    assert [send_data(publisher, run_id, part) for part in ("train", "test")] == [True, True]
    before = counts()
    again = Publisher(client, tree)
    assert not any(send_data(sender, run_id, part) for sender in (publisher, again) for part in ("train", "test"))
    assert counts() == before
    inputs = client.get_run(run_id).inputs.dataset_inputs
    contexts = {used.dataset.name: [(tag.key, tag.value) for tag in used.tags] for used in inputs}
    assert contexts == {f"blobs-{part}": [("mlflow.data.context", part)] for part in ("train", "test")}


def test_a_data_set_is_described(publisher, client, tree):
    """MLflow's own reader understands the source, and the schema says shapes and types."""
    send_data(publisher, tree.study_run_id)
    stored = client.get_run(tree.study_run_id).inputs.dataset_inputs[0].dataset
    assert (stored.name, stored.digest) == ("blobs-train", "d" * 36)
    assert mlflow.data.get_source(stored).to_dict() == {"tags": {"source": "blobs", "random_state": "2"}}
    features = json.loads(json.loads(stored.schema)["mlflow_tensorspec"]["features"])
    assert features[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 2]}
    assert json.loads(stored.profile) == {"features_shape": [70, 2], "targets_shape": [70]}


def test_a_digest_that_mlflow_would_cut_is_refused(publisher, tree):
    """MLflow keeps 36 characters of a data set's digest."""
    with pytest.raises(TrackingError, match=r"digest of data set 'blobs-train' has 37 characters"):
        send_data(publisher, tree.study_run_id, digest="d" * 37)


def break_database(root: Path) -> None:
    with closing(sqlite3.connect(database_path(root))) as connection:
        connection.execute("ALTER TABLE metrics RENAME TO lost")
        connection.commit()


def test_a_store_that_fails_says_so_in_one_line(publisher, seed_run, root, capfd):
    """What MLflow and its database raise comes as one line that says what was being done."""
    break_database(root)
    with pytest.raises(TrackingError) as failed:
        publisher.metrics(seed_run, points(1))
    said = f"publishing metrics on run {seed_run} failed: no such table: metrics; mend it and run again"
    assert str(failed.value).startswith(said)
    assert "\n" not in str(failed.value)
    assert capfd.readouterr() == ("", "")


def test_a_disk_that_fails_says_so_in_one_line(publisher, tree, root):
    """What the disk raises comes as one line, too."""
    (root / "mlruns" / "artifacts" / "small").write_text("a file where a folder should be")
    with pytest.raises(TrackingError, match=r"^publishing study\.yaml failed: .*; mend it and run again"):
        publisher.text(tree.study_run_id, "study.yaml", "name: small")
