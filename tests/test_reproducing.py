"""`layerwise reproduce` on real stores: a run computed again, compared with what is tracked, and told the verdict."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import environment
from flows.registering import Asked, register_command
from flows.reproducing import Allowed, reproduce_command
from layerwise import engine, pretraining
from layerwise.study import Study, StudyError, parse
from tasks.results import ResultFolder, read_back
from tasks.tracking.answers import stored_answer
from tests.studies import small, small_document
from tests.test_cli import and_modules, database
from tests.test_flow import Lab, lab  # noqa: F401 - the fixture

HERE = Allowed(other_code=not (Path(__file__).resolve().parents[1] / ".git").exists())
"""Where the tests' own code is no checkout, nobody can tell that it is the run's."""

TUNED = {
    "objective": "reconstruction",
    "noise": {"kind": "masking", "rate": 0.25},
    "fine_tune": {"objective": "both", "epochs": 2, "at": "every_depth", "carry": True},
}
ARMS = {"greedy": "greedy", "tuned": TUNED, "scratch": {"control": "scratch", "of": "tuned"}, "random": "random_frozen"}


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a reproduction in this process ended, and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture
def reproduce(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:  # noqa: F811
    """Reproduces a run of the lab as a new process would: no features are left over."""

    def command(said: str, allowed: Allowed = HERE) -> Ended:
        monkeypatch.setattr(pretraining, "_FEATURES", type(pretraining._FEATURES)())
        capsys.readouterr()
        status = reproduce_command(said, allowed, lab.root)
        said_now = capsys.readouterr()
        return Ended(status, said_now.out, said_now.err)

    return command


@pytest.fixture(scope="module")
def asked(lab: Lab) -> Study:  # noqa: F811
    """A study that has been run."""
    study = small(name="reproduced", depth=2, seeds=3)
    assert lab.run(study).failures == {}
    return study


@pytest.fixture
def change(lab: Lab) -> Iterator[Callable[..., int]]:  # noqa: F811
    """Changes rows of the tracking store by hand, and puts the store back afterwards."""
    kept = lab.root / "before.db"
    with closing(sqlite3.connect(database(lab.root))) as store, closing(sqlite3.connect(kept)) as copy:
        store.backup(copy)

    def sql(statement: str, *values: Any) -> int:
        with closing(sqlite3.connect(database(lab.root), timeout=20)) as store:
            rows = store.execute(statement, values).rowcount
            store.commit()
        return rows

    yield sql
    with closing(sqlite3.connect(kept)) as copy, closing(sqlite3.connect(database(lab.root))) as store:
        copy.backup(store)


# --- exact --------------------------------------------------------------------------------------------------


def test_a_run_is_reproduced_to_the_bit(lab: Lab, asked: Study, reproduce: Callable[..., Ended]) -> None:  # noqa: F811
    """Every score, model and stage is computed again without the stored results, and found equal."""
    results = lab.written()
    ended = reproduce(asked.name)
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    (run,) = lab.runs(asked, "study")
    assert re.fullmatch(rf"Reproducing reproduced, run {run.info.run_id}, of \d{{4}}-\d\d-\d\d\.", lines[0])
    assert re.match(r"reproducing 2/2 depths  greedy, seeds 0-9, depth 2  \d+ s", lines[-2])
    # Three seeds at two depths: six scores on their run; those, and two outcomes, in the table.
    assert lines[-1] == "EXACT (R0): 84 scores and outcomes, 6 models and 4 stages, all equal."
    assert lab.written() == results


def test_the_verdict_is_added_to_the_run(lab: Lab, asked: Study, reproduce: Callable[..., Ended]) -> None:  # noqa: F811
    """Tags say the latest verdict, when, where and by which code; every attempt has a record; results stay."""
    before = {name: count for name, count in lab.rows().items() if name != "tags"}
    (run,) = lab.runs(asked, "study")
    kept = len(lab.client.list_artifacts(run.info.run_id, "reproductions"))
    assert reproduce(run.info.run_id).status == reproduce(lab.runs(asked, "seed")[1].info.run_id).status == 0
    assert {name: count for name, count in lab.rows().items() if name != "tags"} == before
    (after,) = lab.runs(asked, "study")
    tags = after.data.tags
    new = {name: value for name, value in tags.items() if run.data.tags.get(name) != value}
    assert {name.partition("reproductions/")[0] for name in new} <= {
        "layerwise.reproduced",
        "layerwise.reproduced_at",
        "layerwise.reproduced_machine",
        "layerwise.reproduced_commit",
        "layerwise.reproduced_counts",
        "layerwise.artifact.",
    }
    assert (tags["layerwise.reproduced"], after.info.status) == ("EXACT", "FINISHED")
    assert tags["layerwise.reproduced_machine"] == tags["layerwise.machine"]
    records = [item.path for item in lab.client.list_artifacts(run.info.run_id, "reproductions")]
    assert len(records) == kept + 2
    record = json.loads(lab.artifact(run, max(records)).read_text())
    assert (record["verdict"], record["level"], record["differing"]) == ("EXACT", "R0", 0)
    assert record["compared"] == {"scores": 84, "digests": 10, "models": 6, "stages": 4}
    assert record["made_by"]["layerwise.version.numpy"] == np.__version__
    assert record["at"] == tags["layerwise.reproduced_at"]
    assert stored_answer(lab.client, after).missing == ()


OTHERS = {
    "arms": small_document(depth=2, arms=ARMS),
    "lost seeds": small_document(depth=2, training={"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 50.0}}),
    "regression": small_document(
        depth=1, data={"source": "diabetes"}, arms={"greedy": "greedy", "auto": {"objective": "reconstruction"}}
    ),
    "stopped": small_document(
        depth=1,
        seeds=30,
        claims={"stays": {"kind": "bound", "arm": "greedy", "metric": "test_accuracy", "at_most": 1.0}},
        stop={"every": 10},
    ),
    "no models": small_document(depth=1, track={"models": "none"}),
    "last models": small_document(depth=2, track={"models": "final"}),
}


SLOW = {"arms", "regression", "last models"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in OTHERS]
)
def test_every_kind_of_study_is_reproduced(lab: Lab, reproduce: Callable[..., Ended], kind: str) -> None:  # noqa: F811
    """Arms with all their stages, seeds that diverge, numbers, a study that stops, and whatever models are kept."""
    study = parse({**OTHERS[kind], "name": kind.replace(" ", "-")})
    outcome = lab.run(study)
    assert outcome.failures == {}
    ended = reproduce(study.name)
    assert (ended.status, ended.err) == (0, "")
    assert re.search(
        r"^EXACT \(R0\): [\d,]+ scores and outcomes, \d+ models and \d+ stages, all equal\.$", ended.out, re.M
    )
    if kind == "stopped":
        assert outcome.seeds == 10
    if kind == "lost seeds":
        assert 0 < outcome.metrics["diverged"].sum() < len(outcome.metrics)
    if kind == "no models":
        assert ", 0 models and 2 stages, all equal." in ended.out


def test_a_repeat_is_reproduced_by_its_name(lab: Lab, asked: Study, reproduce: Callable[..., Ended]) -> None:  # noqa: F811
    """A repeat, whose stages have digests of their own, is compared with itself."""
    lab.run(asked, "again")
    ended = reproduce("reproduced:again")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("Reproducing reproduced:again, run ")
    assert ended.out.splitlines()[-1].startswith("EXACT (R0): 84 scores")


@pytest.mark.usefixtures("change")
def test_an_encoder_that_was_registered_is_no_part_of_what_is_compared(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
) -> None:
    """What a person had made of a run's models afterwards makes it no other run."""
    assert register_command(asked.name, Asked(depth=1), encoder=True, name=None, root=lab.root) == 0
    ended = reproduce(asked.name)
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "EXACT (R0): 84 scores and outcomes, 6 models and 4 stages, all equal."


def test_a_run_that_lost_a_seed_is_not_compared(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
    change: Callable[..., int],
) -> None:
    """What is not there differs from nothing: which run is missing is said, and what makes it again."""
    lost = lab.runs(asked, "seed")[1].info.run_id
    assert change("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", lost) == 1
    ended = reproduce(asked.name)
    assert (ended.status, "DIFFERENT" in ended.out) == (1, False)
    assert ended.err == (
        "layerwise: reproduced is not as it was published: 1 run missing (greedy seed 1); run its study again, which"
        " makes it whole, and reproduce it then.\n"
    )


def test_a_run_without_a_ledger_is_compared_by_the_rest(
    asked: Study, reproduce: Callable[..., Ended], change: Callable[..., int]
) -> None:
    """Where it was lost, scores and models are compared all the same; that it was is said, and the status is 1."""
    assert change("DELETE FROM tags WHERE key = 'layerwise.artifact.stages.csv'") > 0
    ended = reproduce(asked.name)
    assert ended.status == 1
    assert "Not as it was published: 1 file changed (study: stages.csv). `layerwise run` of its study" in ended.out
    assert ended.out.splitlines()[-1] == "EXACT (R0): 84 scores and outcomes, 6 models and 0 stages, all equal."


def test_what_is_not_as_it_was_published_is_said(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
) -> None:
    """A computation gives the digests that stand there; that a model's file is no longer what they are of is found."""
    (run,) = lab.runs(asked, "study")
    model = next(lab.root.glob(f"mlruns/**/{lab.models(lab.runs(asked, 'seed')[0])['depth-01'].model_id}/**/*.keras"))
    kept, damaged = model.read_bytes(), bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)
    try:
        ended = reproduce(asked.name)
    finally:
        model.write_bytes(kept)
    assert (ended.status, ended.err) == (1, "")
    said = (
        r"^Not as it was published: 1 file changed \(greedy seed 0: depth-01/.*keras\)\. `layerwise run` of its study"
    )
    assert re.search(said, ended.out, re.MULTILINE)
    assert ended.out.splitlines()[-1].startswith("EXACT (R0): ")
    latest = max(item.path for item in lab.client.list_artifacts(run.info.run_id, "reproductions"))
    assert len(json.loads(lab.artifact(run, latest).read_text())["not_as_published"]) == 1
    assert reproduce(asked.name).status == 0


OWN_LAYER = "import keras\n\n\ndef gated(units=4):\n    return [keras.layers.Dense(units), keras.layers.ReLU()]\n"


@pytest.mark.slow
def test_own_data_and_layers_are_reproduced(
    lab: Lab,  # noqa: F811
    tmp_path: Path,
    reproduce: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table and a function of the user's are found by their content, and named before they are used."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_gate.py").write_text(OWN_LAYER)
    rows = "".join(f"{number % 7},{number % 5},{'yes' if number % 3 else 'no'}\n" for number in range(60))
    (tmp_path / "rows.csv").write_text("a,b,answer\n" + rows)
    network = {"layers": [{"kind": "custom", "function": "own_gate:gated", "options": {"units": 3}}]}
    data = {"source": "table", "path": "rows.csv", "target": "answer", "scaling": "standard"}
    study = parse(
        small_document(name="own", data=data, network=network, seeds=2, training={"epochs": 2, "batch_size": 8})
    )
    assert lab.run(study).failures == {}
    ended = reproduce("own")
    assert (ended.status, ended.err) == (0, "")
    assert f"code of your own: own_gate:gated, in {tmp_path / 'own_gate.py'}\n" in ended.out
    assert ended.out.splitlines()[-1].startswith("EXACT (R0): ")
    (tmp_path / "own_gate.py").write_text(OWN_LAYER.replace("units=4", "units=5"))
    with pytest.raises(StudyError, match=r"own_gate\.py is not the code that the run was made with"):
        reproduce("own")


@pytest.mark.usefixtures("asked")
def test_a_run_carries_the_ledger_of_its_stages(lab: Lab) -> None:  # noqa: F811
    """A row for each stored stage, under the digest it is stored by; going through the run again changes no byte."""
    before = set(lab.written())
    study = small(name="ledger", depth=2, seeds=12)
    lab.run(study, "afresh")
    (run,) = lab.runs(study, "study", "afresh")
    table = pd.read_csv(lab.artifact(run, "stages.csv"))
    assert set(table["digest"]) == set(lab.written()) - before  # the data are stored since the first study of them
    assert table[["first_seed", "last_seed", "stage", "depth"]].to_numpy().tolist() == [
        [first, last, stage, depth]
        for first, last in ((0, 9), (10, 11))
        for depth, trained in ((1, "base"), (2, "add_layer"))
        for stage in (trained, "evaluate")
    ]
    for digest, finished in zip(table["digest"], table["finished"], strict=True):
        assert read_back(digest, ResultFolder(folder=str(environment.results_folder(lab.root)))).finished == finished
    rows, artifact = lab.rows(), lab.artifact(run, "stages.csv").read_bytes()
    lab.run(study, "afresh")
    assert lab.artifact(run, "stages.csv").read_bytes() == artifact
    assert {name: count for name, count in lab.rows().items() if count != rows[name]} == {}


# --- not exact ----------------------------------------------------------------------------------------------

METRIC = """
UPDATE metrics SET value = ? WHERE key = 'test_loss' AND step = 2 AND run_uuid IN (
    SELECT run_uuid FROM tags WHERE key = 'layerwise.run_key' AND value = ? INTERSECT
    SELECT run_uuid FROM tags WHERE key = 'layerwise.seed' AND value = '1')
"""


def tracked_loss(lab: Lab, asked: Study) -> float:  # noqa: F811
    """The test loss of seed 1 at depth 2."""
    return lab.history(lab.runs(asked, "seed")[1])["test_loss"][2]


def test_a_changed_value_is_found(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
    change: Callable[..., int],
) -> None:
    """A score that somebody changed in the database is named with its place and both values; the exit status is 1."""
    loss = tracked_loss(lab, asked)
    assert change(METRIC, loss + 0.1, asked.digest()) > 0
    ended = reproduce(asked.name)
    assert (ended.status, ended.err) == (1, "")
    verdict, first = ended.out.splitlines()[-2:]
    assert verdict == (
        "DIFFERENT (neither R0 nor R1): 1 of 84 scores and outcomes and 0 of 6 models and 4 stages are not equal to"
        " the bit."
    )
    assert (
        first == f"First difference: greedy, seed 1, scores, depth 2: test_loss: {loss + 0.1!r} before, {loss!r} now."
    )
    (run,) = lab.runs(asked, "study")
    assert run.data.tags["layerwise.reproduced"] == "DIFFERENT"


def test_a_value_that_differs_in_its_last_bit_is_within_tolerance(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
    change: Callable[..., int],
) -> None:
    """It is no exact reproduction, and said to be none, with the tolerance; who changed it after all is not known."""
    loss = tracked_loss(lab, asked)
    assert change(METRIC, float(np.nextafter(loss, 9)), asked.digest()) > 0
    ended = reproduce(asked.name)
    assert (ended.status, ended.err) == (1, "")
    assert "Not as it was published: 1 metric changed (greedy seed 1: test_loss)" in ended.out
    verdict, tolerance, first = ended.out.splitlines()[-3:]
    assert verdict.startswith("WITHIN TOLERANCE (R1): 1 of 84 scores and outcomes and 0 of 6 models")
    assert tolerance.startswith("Within tolerance means: scores within 0.001 of their size, accuracies within 0.005,")
    assert first.startswith("First difference: greedy, seed 1, scores, depth 2: test_loss: ")


MODEL = """
UPDATE logged_model_tags SET tag_value = 'f00d' WHERE tag_key = 'layerwise.digest' AND model_id IN (
    SELECT m.model_id FROM logged_models m JOIN tags s ON s.run_uuid = m.source_run_id
    WHERE m.name = 'depth-02' AND s.key = 'layerwise.seed' AND s.value = '2'
    AND m.source_run_id IN (SELECT run_uuid FROM tags WHERE key = 'layerwise.run_key' AND value = ?))
"""


def test_a_model_with_other_weights_is_found(
    asked: Study, reproduce: Callable[..., Ended], change: Callable[..., int]
) -> None:
    """Weights that differ where all scores are equal are no rounding."""
    assert change(MODEL, asked.digest()) == 1
    ended = reproduce(asked.name)
    assert ended.status == 1
    verdict, first = ended.out.splitlines()[-2:]
    assert verdict.startswith("DIFFERENT (neither R0 nor R1): 0 of 84 scores and outcomes and 1 of 6 models")
    assert re.fullmatch(
        r"First difference: greedy, seed 2, depth-02, depth 2: weights: f00d before, [0-9a-f]{32} now\.", first
    )


def altered(monkeypatch: pytest.MonkeyPatch, at: int, change_of: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the engine leave other weights in its so-many-th stage from one."""
    fit, calls = engine.fit, []

    def other(*arguments: Any) -> engine.Fitted:
        calls.append(1)
        fitted = fit(*arguments)
        if len(calls) != at:
            return fitted
        return dataclasses.replace(fitted, weights=tuple(change_of(values) for values in fitted.weights))

    monkeypatch.setattr(engine, "fit", other)


def test_another_engine_is_found_by_the_first_stage_that_differs(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stage that left other weights is named, then the first score beyond tolerance with both values."""
    altered(monkeypatch, 2, lambda values: -values)
    ended = reproduce(asked.name)
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert lines[-3].startswith("DIFFERENT (neither R0 nor R1): ")
    assert re.fullmatch(
        r"First difference: greedy, seeds 0-2, add_layer, depth 2: content: \w{32} before, \w{32} now\.", lines[-2]
    )
    assert re.match(
        r"First score that differs: greedy, seed 0, scores, depth 2: \w+: [\d.]+ before, [\d.]+ now", lines[-1]
    )
    (run,) = lab.runs(asked, "study")
    newest = max(item.path for item in lab.client.list_artifacts(run.info.run_id, "reproductions"))
    record = json.loads(lab.artifact(run, newest).read_text())
    assert record["differences"][0]["stage"] == "add_layer"
    assert {one["depth"] for one in record["differences"]} == {2}


def test_an_engine_that_rounds_otherwise_is_within_tolerance(
    asked: Study, reproduce: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that differ in their last bits, and scores that follow, are what another processor gives."""
    altered(monkeypatch, 1, lambda values: np.nextafter(values, np.float32(9)))
    ended = reproduce(asked.name)
    assert (ended.status, ended.err) == (0, "")
    assert "\nWITHIN TOLERANCE (R1): " in ended.out
    assert "\nFirst difference: greedy, seeds 0-2, base, depth 1: content: " in ended.out


def test_versions_that_differ_are_said(
    asked: Study, reproduce: Callable[..., Ended], change: Callable[..., int]
) -> None:
    """What is not as it was stands before the work and, where the verdict is DIFFERENT, below it."""
    assert change("UPDATE tags SET value = '2.0.0' WHERE key = 'layerwise.version.numpy'") > 0
    ended = reproduce(asked.name)
    assert f"\nNot as it was: numpy 2.0.0 then, {np.__version__} now.\n" in ended.out
    assert ended.out.splitlines()[-1].startswith("EXACT")


# --- refusals -----------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_refused(
    lab: Lab,  # noqa: F811
    asked: Study,
    reproduce: Callable[..., Ended],
    change: Callable[..., int],
) -> None:
    """Not all of it is tracked."""
    (run,) = lab.runs(asked, "study")
    change("UPDATE runs SET status = 'KILLED' WHERE run_uuid = ?", run.info.run_id)
    ended = reproduce(run.info.run_id)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"layerwise: run {run.info.run_id} of reproduced is KILLED, so not all of it is tracked; finish it with"
        " `layerwise run`, and reproduce it then.\n"
    )


def test_what_fails_in_the_middle_is_one_line(
    asked: Study, reproduce: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A computation that fails says so with exit status 1; no verdict is written."""

    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(engine, "fit", fail)
    ended = reproduce(asked.name)
    assert ended.status == 1
    assert ended.err == "layerwise: reproduced: computing it again failed: MemoryError: no room.\n"


def test_the_command_reproduces_in_a_process_of_its_own(lab: Lab, asked: Study) -> None:  # noqa: F811
    """Without Prefect, and from the tracking store alone: the stored results are elsewhere."""
    results = environment.results_folder(lab.root)
    results.rename(lab.root / "elsewhere")
    options = ["--allow-other-code"] if HERE.other_code else []
    try:
        ended, loaded = and_modules(lab.root, "reproduce", asked.name, *options)
    finally:
        shutil.rmtree(results, ignore_errors=True)
        (lab.root / "elsewhere").rename(results)
    assert (ended.status, ended.err, loaded) == (0, "", {"tensorflow", "keras", "mlflow"})
    assert ended.out.splitlines()[-1] == "EXACT (R0): 84 scores and outcomes, 6 models and 4 stages, all equal."


def test_refusals_load_no_tensorflow(lab: Lab, asked: Study, change: Callable[..., int]) -> None:  # noqa: F811
    """Other code is refused before TensorFlow or Prefect are loaded, and nothing is written to the run."""
    change("DELETE FROM tags WHERE key = 'layerwise.git_commit'")
    change("INSERT INTO tags SELECT 'layerwise.git_commit', 'beef', run_uuid FROM runs")
    before = lab.rows()
    ended, loaded = and_modules(lab.root, "reproduce", asked.name)
    assert (ended.status, ended.out, loaded) == (2, "", {"mlflow"})
    assert re.fullmatch(
        r"layerwise: the run was made by commit beef, and this c[^\n]+ with --allow-other-code\.\n", ended.err
    )
    assert lab.rows() == before


def test_a_root_without_runs_is_refused_and_stays_empty(tmp_path: Path) -> None:
    """Before MLflow is loaded, and without making a store."""
    ended, loaded = and_modules(tmp_path, "reproduce", "small")
    assert (ended.status, ended.out, loaded) == (2, "", set())
    assert re.fullmatch(
        r"layerwise: nothing is tracked here: there is no \S+/mlruns/mlflow\.db; go to [^\n]+\n", ended.err
    )
    assert not list(tmp_path.iterdir())
