"""The flow on real parts: one Prefect server and one MLflow store, on which small studies run in this process."""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Cancelled, Running
from rich.console import Console

import layerwise
from flows import crashed, environment, planning, publishing, running, server
from flows.crashed import close_crashed
from flows.launching import Incomplete
from flows.pilot import pilot_study
from flows.printing import warnings_shown
from flows.server import ServerLost
from flows.showing import show_study
from flows.study import run_study
from flows.trained import Outcome
from layerwise import datasets, engine, report
from layerwise.answers import Result
from layerwise.claims import decide
from layerwise.comparison import finished
from layerwise.growing import growth_in_words
from layerwise.selection import chosen_depth, chosen_network
from layerwise.statistics import t_interval
from layerwise.study import Study, StudyError, Track
from tasks import durable, owners
from tasks.publishing import publish_depths
from tasks.results import ResultFolder, StorageProblem, read_back, results_block
from tasks.tracking.store import TrackingError, open_store, store_uri
from tasks.tracking.tracked import read_tracked
from tasks.tracking.views import SECTIONS
from tests.studies import small
from tests.test_growing import FINAL, ending
from tests.test_server import ask
from tests.trackers import Proxy, unused_port

SEEDS = 3
DEPTH = 3
SCORES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "live_units", "effective_rank")
AGGREGATES = ("mean", "sd", "ci_low", "ci_high", "median")


@dataclass(frozen=True)
class Lab:
    """A root with its servers, and what stands in its stores."""

    root: Path
    url: str
    client: MlflowClient

    def run(self, asked: Study, repeat: str = "") -> Outcome:
        """Run a study as the command does."""
        storage = results_block(environment.results_folder(self.root))
        try:
            return run_study.with_options(result_storage=storage)(asked, repeat)
        except Incomplete as ended:
            return ended.outcome

    def runs(self, asked: Study, kind: str, repeat: str = "") -> list[Run]:
        """The runs of a study of one kind, in the order of seeds."""
        experiment = self.client.get_experiment_by_name(asked.name)
        assert experiment is not None
        query = f"tags.layerwise.run_key = '{asked.digest(repeat)}' AND tags.layerwise.kind = '{kind}'"
        found = self.client.search_runs([experiment.experiment_id], query)
        return sorted(found, key=lambda run: int(run.data.tags.get("layerwise.seed", 0)))

    def history(self, run: Run) -> dict[str, dict[int, float]]:
        """Every metric of a run: name -> step -> value; each step holds one value."""
        found: dict[str, dict[int, float]] = {}
        for name in run.data.metrics:
            points = self.client.get_metric_history(run.info.run_id, name)
            found[name] = {point.step: point.value for point in points}
            assert len(points) == len(found[name])
        return found

    def models(self, run: Run) -> dict[str, Any]:
        """The logged models of a run by name."""
        found = self.client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", max_results=100
        )
        return {model.name: model for model in found}

    def artifact(self, run: Run, path: str) -> Path:
        """An artifact of a run, as a file."""
        return Path(self.client.download_artifacts(run.info.run_id, path))

    def rows(self) -> dict[str, int]:
        """How many rows each table of the tracking store has."""
        with closing(sqlite3.connect(self.root / "mlruns" / "mlflow.db")) as store:
            names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608

    def written(self) -> dict[str, int]:
        """The stage results on disk, and when each was written."""
        files = environment.results_folder(self.root).glob("[!.]*")
        return {file.name: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab")
    before = dict(os.environ)
    environment.prepare(root)
    with server.start(root) as prefect:
        client = open_store(root)
        with prefect.ready():
            yield Lab(root, prefect.url, client)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def asked() -> Study:
    return small(depth=DEPTH, seeds=SEEDS, question="Does [depth] help?")


@pytest.fixture(scope="module")
def plain(asked: Study) -> Result:
    """The study's numbers by the plain loop, with nothing stored."""
    return layerwise.run(asked)


@pytest.fixture(scope="module")
def outcome(lab: Lab, asked: Study) -> Outcome:
    return lab.run(asked)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by one with every stage that is trained."""
    trained: list[str] = []
    fit = engine.fit

    def counting(problem: engine.Problem, *arguments: Any) -> engine.Fitted:
        trained.append(f"{problem.seeds} seeds")
        return fit(problem, *arguments)

    monkeypatch.setattr(engine, "fit", counting)
    return trained


def other_data(asked: Study) -> Study:
    """The study on blobs of its own, by its name, of which nothing has been trained yet."""
    own = zlib.crc32(asked.name.encode())
    return asked.model_copy(update={"data": asked.data.model_copy(update={"random_state": own})})


# --- numbers -----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_plain_loop(outcome: Outcome, plain: Result) -> None:
    """Every score of the flow has the bits of `layerwise.run`, and so has the table."""
    assert (outcome.failures, outcome.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(outcome.metrics, plain.metrics(), check_exact=True)
    pd.testing.assert_frame_equal(outcome.table, plain.table(), check_exact=True)


@pytest.mark.usefixtures("outcome")
def test_weights_are_those_of_the_plain_loop(lab: Lab, plain: Result) -> None:
    """Every stored stage has, by its digest, the bits of the weights that `layerwise.run` trains."""
    folder = ResultFolder(folder=str(environment.results_folder(lab.root)))
    chain = plain.trained["greedy"][-1].chain
    assert len(chain) == DEPTH
    for computed in chain:
        stored = read_back(computed.digest, folder)
        weights = zip(stored.hidden + stored.output, computed.hidden + computed.output, strict=True)
        assert all(one.tobytes() == other.tobytes() for one, other in weights)
        np.testing.assert_array_equal(stored.loss_curve, computed.loss_curve)


# --- MLflow ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("outcome")
def test_runs_form_one_tree(lab: Lab, asked: Study) -> None:
    """One study run, one top-level run an arm, one run a seed nested under its arm; all FINISHED."""
    (study_run,), (arm,), seeds = (lab.runs(asked, kind) for kind in ("study", "arm", "seed"))
    assert [int(run.data.tags["layerwise.seed"]) for run in seeds] == list(range(SEEDS))
    assert {run.data.tags["mlflow.parentRunId"] for run in seeds} == {arm.info.run_id}
    assert all("mlflow.parentRunId" not in run.data.tags for run in (study_run, arm))
    assert {run.info.status for run in (study_run, arm, *seeds)} == {"FINISHED"}
    for run in (study_run, arm, *seeds):
        tags = run.data.tags
        assert tags["layerwise.run_key"] == tags["layerwise.digest"] == asked.digest()
        assert (tags["layerwise.study"], tags["layerwise.repeat"]) == ("small", "")


@pytest.mark.usefixtures("outcome")
def test_seed_runs_carry_their_scores_by_depth(lab: Lab, asked: Study, plain: Result) -> None:
    """A seed's run holds accuracy and loss of both parts at step = depth, to the bit, and nothing else."""
    metrics = plain.metrics()
    for seed, run in enumerate(lab.runs(asked, "seed")):
        own = metrics[metrics["seed"] == seed].set_index("depth")
        assert lab.history(run) == {name: own[name].to_dict() for name in SCORES}


@pytest.mark.usefixtures("outcome")
def test_arm_runs_carry_aggregates_by_depth(lab: Lab, asked: Study, plain: Result) -> None:
    """An arm's run holds mean, sd, interval and median of each score and the counts of seeds, at step = depth."""
    (arm,) = lab.runs(asked, "arm")
    names = {f"{score}_{aggregate}" for score in SCORES for aggregate in AGGREGATES} | {"seeds", "diverged"}
    table, history = plain.table().set_index("depth"), lab.history(arm)
    assert names <= history.keys()
    for name in names:
        assert history[name] == table[name].to_dict(), name


@pytest.mark.usefixtures("outcome")
def test_study_run_carries_study_tables_figures_and_data(lab: Lab, asked: Study, plain: Result) -> None:
    """The study's run holds its file, both tables, figures, the answer, and the data set under its own digest."""
    (run,) = lab.runs(asked, "study")
    assert layerwise.load(lab.artifact(run, "study.yaml")).digest() == asked.digest()
    for name, expected in {"results.csv": plain.table(), "scores_by_seed.csv": plain.metrics()}.items():
        read = pd.read_csv(lab.artifact(run, name))
        pd.testing.assert_frame_equal(read, expected, check_exact=True, check_dtype=False)
    figures = {Path(item.path).name for item in lab.client.list_artifacts(run.info.run_id, "figures")}
    names = ("accuracy_by_depth", "live_units_by_depth", "data")
    assert figures == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    assert run.data.tags["layerwise.answer"].startswith(f"greedy: from depth 1 to {DEPTH}, training accuracy")
    inputs = {used.tags[0].value: (used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs}
    digest = datasets.generate(asked.data).digest
    assert inputs == {"train": ("blobs-train", digest), "test": ("blobs-test", digest)}


@pytest.mark.usefixtures("outcome")
def test_every_depth_of_every_seed_is_a_model(lab: Lab, asked: Study) -> None:
    """Each seed's run has one READY model a depth, at step = depth, linked to that depth's scores."""
    for run in lab.runs(asked, "seed"):
        models, history = lab.models(run), lab.history(run)
        assert sorted(models) == [f"depth-{depth:02d}" for depth in range(1, DEPTH + 1)]
        assert {model.status for model in models.values()} == {"READY"}
        steps = {output.model_id: output.step for output in run.outputs.model_outputs}
        for depth in range(1, DEPTH + 1):
            model = models[f"depth-{depth:02d}"]
            assert steps[model.model_id] == depth
            linked = {metric.key: metric.value for metric in model.metrics}
            assert linked == {name: history[name][depth] for name in SCORES}


@pytest.mark.usefixtures("outcome")
def test_models_predict_what_was_scored(lab: Lab, asked: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model loads without our code and, on newly generated data, scores the accuracy that was logged."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(lab.root))
    data = datasets.generate(asked.data)
    run = lab.runs(asked, "seed")[1]
    for name, model in lab.models(run).items():
        loaded = mlflow.pyfunc.load_model(model.model_uri)
        hit = loaded.predict(data.inputs).argmax(axis=1) == data.targets
        depth = int(name.removeprefix("depth-"))
        for part, rows in {"train": slice(0, 70), "test": slice(70, None)}.items():
            assert hit[rows].mean() == lab.history(run)[f"{part}_accuracy"][depth]


@pytest.mark.usefixtures("outcome")
def test_frozen_layers_are_the_same_in_deeper_models(lab: Lab, asked: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden layers 1..k have the same bits in the models of depth k and k + 1, and do not train in the latter."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(lab.root))
    models = lab.models(lab.runs(asked, "seed")[0])
    loaded = [mlflow.keras.load_model(models[f"depth-{depth:02d}"].model_uri) for depth in range(1, DEPTH + 1)]
    for depth, (lower, higher) in enumerate(itertools.pairwise(loaded), start=1):
        layers = list(zip(lower.layers[:depth], higher.layers[:depth], strict=True))
        assert [layer.trainable for layer in higher.layers[1:]] == [False] * depth + [True, True]
        for low, high in layers:
            for one, other in zip(low.get_weights(), high.get_weights(), strict=True):
                assert one.tobytes() == other.tobytes()
        assert lower.layers[-1].get_weights()[0].tobytes() != higher.layers[-1].get_weights()[0].tobytes()


# --- claims ------------------------------------------------------------------------------------------------

CLAIMS = {
    "alike": {"kind": "equivalent", "arm": "greedy", "metric": "test_accuracy", "to": "end_to_end", "within": 0.9},
    "breaks": {"kind": "rate", "outcome": "broken", "arm": "greedy", "at_least": 0.99},
    "rises": {"kind": "trend", "arm": "greedy", "metric": "train_accuracy", "direction": "up"},
}


@pytest.fixture(scope="module")
def claiming() -> Study:
    """Two arms with a validation part, and three claims of which so few seeds can decide two."""
    return small(
        name="claims",
        depth=2,
        data={"source": "blobs", "samples": 120, "split": {"train": 60, "validation": 20, "test": 40}},
        arms=["greedy", "end_to_end"],
        track={"models": "none"},
        claims=CLAIMS,
    )


@pytest.fixture(scope="module")
def claimed(lab: Lab, claiming: Study) -> Outcome:
    return lab.run(claiming)


def test_a_run_decides_its_claims(lab: Lab, claiming: Study, claimed: Outcome) -> None:
    """The verdicts are those of `decide`; the study's run has a tag for each, and all of it as an artifact."""
    expected = decide(claiming, claimed.metrics)
    assert claimed.verdicts is not None
    assert claimed.verdicts.as_json() == expected.as_json()
    assert [one.verdict for one in expected.verdicts] == ["supported", "refuted", "undecided"]
    (run,) = lab.runs(claiming, "study")
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("layerwise.claim.")}
    assert tags == {f"layerwise.claim.{one.claim}": one.verdict for one in expected.verdicts}
    stored = json.loads(lab.artifact(run, "verdicts.json").read_text())
    assert stored == json.loads(json.dumps(expected.as_json()))


def test_study_run_carries_differences_of_arms(lab: Lab, claiming: Study, claimed: Outcome) -> None:
    """The study's run holds the paired difference of its arms at step = depth, and the whole as a table."""
    (run,) = lab.runs(claiming, "study")
    history, metrics = lab.history(run), claimed.metrics
    last = metrics[metrics["depth"] == 2].pivot_table(index="seed", columns="arm", values="test_accuracy")
    differences = (last["greedy"] - last["end_to_end"]).to_numpy()
    pair = "paired/greedy_minus_end_to_end_test_accuracy"
    assert history[f"{pair}_mean"] == {2: differences.mean()}
    assert history[f"{pair}_seeds"] == {2: 3}
    assert (history[f"{pair}_ci_low"][2], history[f"{pair}_ci_high"][2]) == t_interval(differences)
    table = pd.read_csv(lab.artifact(run, "differences.csv"))
    assert set(table["metric"]) == {f"{part}_accuracy" for part in ("train", "validation", "test")}
    assert {
        "sd",
        "interquartile_mean",
        "probability",
        "effect_size",
        "sign_flip_p",
        "wilcoxon_p",
        "correlation",
    } <= set(table)


def test_study_run_carries_the_report(lab: Lab, claiming: Study, claimed: Outcome) -> None:
    """The report stands with the study's run as HTML and Markdown, and is what its tables and tags give again."""
    (run,) = lab.runs(claiming, "study")
    held = read_tracked(lab.client, run)
    pd.testing.assert_frame_equal(held.table, claimed.table, check_exact=True, check_dtype=False)
    tables = (held.metrics, held.table, held.verdicts, held.differences, held.costs)
    page = report.study_page(
        report.StudyRun(claiming, *tables, report.origin_of(run.data.tags), datasets.generate(claiming.data).digest)
    )
    assert lab.artifact(run, "report.html").read_text() == report.html(page)
    assert lab.artifact(run, "report.md").read_text() == report.markdown(page)
    assert "largest class" in report.markdown(page), "what the data's targets are is kept with the run"
    assert "artifacts/report.html) has all of it on one page" in run.data.tags["mlflow.note.content"]


def test_study_run_carries_the_costs_of_its_stages(lab: Lab, claiming: Study, claimed: Outcome) -> None:  # noqa: ARG001
    """A table has time and memory of every stage, each of which is one that was stored."""
    (run,) = lab.runs(claiming, "study")
    costs = pd.read_csv(lab.artifact(run, "costs.csv"), keep_default_na=False)
    assert costs[["arm", "shared_with", "stage", "depth", "blocks"]].to_numpy().tolist() == [
        ["greedy", "", "base", 1, 1],
        ["greedy", "", "evaluate", 1, 1],
        ["greedy", "", "add_layer", 2, 1],
        ["greedy", "", "evaluate", 2, 1],
        ["end_to_end", "", "jointly", 2, 1],
        ["end_to_end", "", "evaluate", 2, 1],
    ]
    assert (costs["seconds"] > 0).all()
    assert costs["peak_memory_bytes"].between(1e8, 1e11).all()
    assert costs["peak_memory_bytes"].is_monotonic_increasing, "a process's peak never falls"


def test_prefect_shows_the_report(lab: Lab, claiming: Study, claimed: Outcome) -> None:  # noqa: ARG001
    """The flow run's artifact is the Markdown report, with no picture in it."""
    (run,) = lab.runs(claiming, "study")
    asked = {"artifacts": {"key": {"any_": ["claims"]}}, "sort": "CREATED_DESC", "limit": 1}
    (artifact,) = ask(f"{lab.url}/artifacts/filter", asked)
    assert artifact["data"] == lab.artifact(run, "report.md").read_text()
    assert "<svg" not in artifact["data"]


def test_arm_runs_carry_their_last_word(lab: Lab, claiming: Study, claimed: Outcome) -> None:
    """An arm's run says in single numbers what it left at its last depth, and which depth validation chose."""
    for run in lab.runs(claiming, "arm"):
        arm, values = run.data.tags["layerwise.arm"], run.data.metrics
        own = claimed.metrics[claimed.metrics["arm"] == arm]
        assert values["final_depth"] == 2
        assert values["final_test_accuracy"] == own[own["depth"] == 2]["test_accuracy"].mean()
        assert (values["final_diverged"], values["final_collapsed"]) == (0, 0)
        choice = chosen_depth(claimed.metrics, arm)
        assert (values["best_depth"], values["best_depth_validation"]) == (choice.depth, choice.mean)


@pytest.mark.usefixtures("outcome")
def test_no_depth_is_chosen_without_a_validation_part(lab: Lab, asked: Study) -> None:
    """Where there is no validation part an arm's run has no best depth, and says its last depth all the same."""
    (arm,) = lab.runs(asked, "arm")
    assert arm.data.metrics["final_depth"] == DEPTH
    assert not [name for name in arm.data.metrics if name.startswith("best")]


def test_a_study_that_failed_decides_nothing(lab: Lab, claiming: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """While seeds of an arm are missing there is no verdict on a claim; the run that completes the study has them."""
    asked = other_data(claiming.model_copy(update={"name": "claims-broken"}))
    with monkeypatch.context() as patched:
        failing_from(patched, call=3)  # the second arm
        broken = lab.run(asked)
    assert broken.failures
    assert broken.verdicts is None
    (run,) = lab.runs(asked, "study")
    assert not [key for key in run.data.tags if key.startswith("layerwise.claim.")]
    assert lab.history(run) == {}
    completed = lab.run(asked)
    assert completed.verdicts is not None
    assert set(lab.history(lab.runs(asked, "study")[0])["paired/greedy_minus_end_to_end_test_accuracy_mean"]) == {2}


# --- choosing ----------------------------------------------------------------------------------------------

VALIDATED = {"source": "blobs", "samples": 120, "split": {"train": 60, "validation": 20, "test": 40}}


@pytest.fixture(scope="module")
def choosing() -> Study:
    """A control, and an autoencoder that is fine-tuned at every depth and ahead on validation."""
    tuned = {"objective": "reconstruction", "noise": {"kind": "masking", "rate": 0.25},
             "fine_tune": {"epochs": 6, "at": "every_depth"}}  # fmt: skip
    arms, data = {"scratch": "scratch", "denoising": tuned}, {**VALIDATED, "scaling": "standard"}
    return small(name="chooses", depth=2, data=data, arms=arms, question="Which?")


@pytest.fixture(scope="module")
def chose(lab: Lab, choosing: Study) -> Outcome:
    return lab.run(choosing)


def test_the_chosen_network_is_registered(
    lab: Lab, choosing: Study, chose: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version under the alias is the network that validation chose: it scores on validation rows what was said."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(lab.root))
    chosen = chosen_network(layerwise.run(choosing).metrics(), list(choosing.arms))
    assert (chose.chosen, chose.registered, chose.unpublished) == (chosen, "1", [])
    version = lab.client.get_model_version_by_alias("chooses", "chosen")
    assert (version.tags["layerwise.run_key"], version.version) == (choosing.digest(), 1)
    place = tuple(version.tags[f"layerwise.{name}"] for name in ("arm", "depth", "seed"))
    assert place == (chosen.arm, str(chosen.depth), str(chosen.seed))
    data = datasets.generate(choosing.data)
    loaded, rows = mlflow.pyfunc.load_model("models:/chooses@chosen"), slice(60, 80)
    hit = loaded.predict(data.inputs[rows]).argmax(axis=1) == data.targets[rows]
    assert hit.mean() == chosen.score
    (seed_run,) = [run for run in lab.runs(choosing, "seed") if run.info.run_id == version.run_id]
    assert chosen.arm == "denoising"
    assert version.source == lab.models(seed_run)[f"depth-{chosen.depth:02d}-fine-tuned"].artifact_location
    assert lab.history(seed_run)["fine_tuned_validation_accuracy"][chosen.depth] == chosen.score


def test_the_card_and_the_pages_say_what_was_chosen_and_how(lab: Lab, choosing: Study, chose: Outcome) -> None:
    """The version's description has the validation score with its interval, and the test score as no reason."""
    chosen, metrics = chose.chosen, finished(chose.metrics)
    card = lab.client.get_model_version("chooses", "1").description
    (run,) = lab.runs(choosing, "study")
    own = metrics[(metrics["arm"] == chosen.arm) & (metrics["depth"] == chosen.depth)].set_index("seed")
    low, high = t_interval(own["validation_accuracy"].to_numpy())
    assert f"{chosen.choice.mean:.4f} (95 % interval over 3 seeds: {low:.4f} to {high:.4f})" in card
    assert f"Its test accuracy is {own['test_accuracy'][chosen.seed]:.4f} on 40 rows" in card
    assert "By the validation part alone." in card
    assert "Test scores chose nothing." in card
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert f"({page})" in card
    assert f"({page}/artifacts/report.html)" in card
    assert f"the network to keep is that of {chosen.place}." in lab.artifact(run, "report.md").read_text()
    assert datasets.generate(choosing.data).digest in card
    assert len(card) < 5000
    assert run.data.tags["layerwise.chosen"] == chosen.place
    assert run.data.tags["layerwise.registered"] == "models:/chooses/1"
    assert f"**Chosen on validation.** {chosen.place}." in run.data.tags["mlflow.note.content"]


def test_a_finished_study_says_what_is_registered_and_makes_it_whole(
    lab: Lab, choosing: Study, chose: Outcome, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is answered with the line of its first run; a version that was deleted is made again, and nothing trains."""
    line = f"registered: chooses version 1 ({chose.chosen.place}), chosen on validation"
    console = Console()
    for answer in (running._answer_of(chose), running._finished(choosing, "", lab.root, console)):
        running._print_answer(choosing, answer, console)
        assert line in capsys.readouterr().out.splitlines()
    lab.client.delete_model_version("chooses", "1")
    assert running._finished(choosing, "", lab.root, console) is None
    assert (
        "but not as it was published: 1 registered model missing (models:/chooses/1). Mending it."
        in capsys.readouterr().out
    )
    assert lab.run(choosing).registered == "2"
    assert fits == []
    assert lab.client.get_registered_model("chooses").aliases == {"chosen": 2}
    assert running._finished(choosing, "", lab.root, console) is not None


@pytest.mark.slow
def test_a_choice_that_cannot_be_registered_fails_the_run_and_the_next_registers_it(
    lab: Lab, choosing: Study, chose: Outcome
) -> None:
    """A registered model of the study's name that is somebody else's is left alone, and the answer says why."""
    asked = choosing.model_copy(update={"name": "taken"})
    lab.client.create_registered_model("taken")
    refused = lab.run(asked)
    assert refused.registered is None
    assert "there is a registered model 'taken' that was not made by Layerwise" in refused.unpublished[0]
    assert [run.info.status for run in lab.runs(asked, "study")] == ["FAILED"]
    assert running._registered_in_words(asked, running._answer_of(refused)) == (
        f"chosen on validation: {chose.chosen.place}; not registered: run again to register it"
    )
    lab.client.delete_registered_model("taken")
    assert lab.run(asked).registered == "1"
    assert [run.info.status for run in lab.runs(asked, "study")] == ["FINISHED"]


def test_what_is_not_kept_is_chosen_and_not_registered(lab: Lab, claiming: Study, claimed: Outcome) -> None:
    """Without models the choice is said all the same, and that nothing is registered."""
    chosen = chosen_network(claimed.metrics, list(claiming.arms))
    assert (claimed.chosen, claimed.registered) == (chosen, None)
    assert lab.client.search_registered_models("name = 'claims'") == []
    (run,) = lab.runs(claiming, "study")
    assert run.data.tags["layerwise.chosen"] == chosen.place
    assert "layerwise.registered" not in run.data.tags
    assert running._registered_in_words(claiming, running._answer_of(claimed)) == (
        f"chosen on validation: {chosen.place}; not registered: track.models: none keeps no model of it"
    )


def test_the_declared_network_is_registered(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a validation part the network that a study declares is a version, and its card says it was not chosen."""
    asked = small(name="declares", depth=2, declared={"depth": 1, "seed": 2})
    found = lab.run(asked)
    assert (found.chosen, found.registered, found.unpublished) == (None, "1", [])
    version = lab.client.get_model_version_by_alias("declares", "declared")
    place = tuple(version.tags[f"layerwise.{name}"] for name in ("arm", "depth", "seed"))
    assert place == ("greedy", "1", "2")
    (run,) = lab.runs(asked, "study")
    assert version.tags["layerwise.report"] == f"runs:/{run.info.run_id}/report.html"
    assert "**How it was chosen.** It was not: the study declares arm, depth and seed" in version.description
    assert "Test scores chose" not in version.description
    own = found.metrics[(found.metrics["depth"] == 1)].set_index("seed")["test_accuracy"]
    low, high = t_interval(own.to_numpy())
    assert f"Its test accuracy is {own[2]:.4f} on 50 rows" in version.description
    assert f"the mean over 3 intact seeds at this depth is {own.mean():.4f}" in version.description
    assert f"(95 % interval {low:.4f} to {high:.4f})" in version.description
    assert run.data.tags["layerwise.declared"] == "greedy, depth 1, seed 2"
    assert "**Declared.** greedy, depth 1, seed 2." in run.data.tags["mlflow.note.content"]
    console = Console()
    for answer in (running._answer_of(found), running._finished(asked, "", lab.root, console)):
        running._print_answer(asked, answer, console)
        line = "registered: declares version 1 (greedy, depth 1, seed 2), as the study declares"
        assert line in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_what_is_declared_changes_no_stage(lab: Lab, fits: list[str]) -> None:
    """Another declared network is another run of the same results: nothing trains, and its version is the next."""
    lab.run(small(name="declares", depth=2, declared={"depth": 1, "seed": 2}))
    fits.clear()
    found = lab.run(small(name="declares", depth=2, declared={"depth": 2}))
    assert (found.registered, fits) == ("2", [])
    assert lab.client.get_registered_model("declares").aliases == {"declared": 2}


def test_a_declared_seed_that_diverged_is_not_replaced(lab: Lab) -> None:
    """It has no model: nothing is registered, no other seed is taken, and the answer says so."""
    training = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 1e30}}
    asked = small(name="lost", depth=1, training=training, declared={"depth": 1})
    found = lab.run(asked)
    assert found.metrics["diverged"].all()
    assert (found.registered, found.unpublished) == (None, [])
    said = running._registered_in_words(asked, running._answer_of(found))
    assert said == "declared: greedy, depth 1, seed 0; not registered: that seed diverged"
    assert lab.client.search_registered_models("name = 'lost'") == []


@pytest.mark.usefixtures("outcome")
def test_without_a_validation_part_nothing_is_chosen(
    lab: Lab, asked: Study, outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is registered, and the answer says nothing of a choice."""
    assert (outcome.chosen, outcome.registered) == (None, None)
    assert lab.client.search_registered_models("name = 'small'") == []
    running._print_answer(asked, running._answer_of(outcome), Console())
    assert "chosen" not in capsys.readouterr().out
    (run,) = lab.runs(asked, "study")
    assert "layerwise.chosen" not in run.data.tags


@pytest.mark.slow
def test_numbers_are_chosen_by_r2_and_repeats_have_their_own_version(lab: Lab) -> None:
    """A regression study's arm run has its best depth; a repeat registers a version, and the alias stays."""
    data = {"source": "diabetes", "scaling": "standard", "split": {"train": 200, "validation": 100, "test": 142}}
    asked = small(name="regresses", depth=2, data=data)
    found = lab.run(asked)
    assert (found.failures, found.unpublished, found.registered) == ({}, [], "1")
    choice = chosen_depth(found.metrics, "greedy")
    own = found.metrics[found.metrics["depth"] == choice.depth]
    assert choice.mean == own["validation_r2"].mean()
    (arm,) = lab.runs(asked, "arm")
    assert (arm.data.metrics["best_depth"], arm.data.metrics["best_depth_validation"]) == (choice.depth, choice.mean)
    assert "A predictor of numbers" in lab.client.get_model_version("regresses", "1").description
    assert lab.run(asked, "again").registered == "2"
    assert lab.client.get_registered_model("regresses").aliases == {"chosen": 1}
    assert lab.client.get_model_version("regresses", "2").tags["layerwise.repeat"] == "again"


# --- stopping ----------------------------------------------------------------------------------------------

HOLDS = {"kind": "rate", "outcome": "broken", "arm": "greedy", "at_most": 0.2}
"""Of ten seeds none of which breaks .8^10 = .11 is left, of twenty .8^20 = .012."""


def stopping(seeds: int = 30, **changes: Any) -> Study:
    """Two arms that are looked at every ten seeds; the claim is decided at the second look."""
    arms = ["greedy", "end_to_end"]
    return small(
        **{
            "name": "stops",
            "depth": 1,
            "data": {"source": "blobs", "samples": 120, "split": {"train": 70, "test": 50}, "random_state": 9},
            "seeds": seeds,
            "arms": arms,
            "claims": {"holds": HOLDS},
            "stop": {"every": 10},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def stopped(lab: Lab) -> Outcome:
    return lab.run(stopping())


def test_training_ends_when_every_claim_is_decided(lab: Lab, stopped: Outcome) -> None:
    """Twenty of thirty seeds are trained, with the bits of the plain loop, and no run is made for the others."""
    assert (stopped.failures, stopped.unpublished, stopped.seeds) == ({}, [], 20)
    assert [(one.verdict, one.seeds) for one in stopped.verdicts.verdicts] == [("supported", 20)]
    pd.testing.assert_frame_equal(stopped.metrics, layerwise.run(stopping()).metrics(), check_exact=True)
    seeds = lab.runs(stopping(), "seed")
    assert Counter(run.data.tags["layerwise.arm"] for run in seeds) == {"greedy": 20, "end_to_end": 20}
    (run,), arms = lab.runs(stopping(), "study"), lab.runs(stopping(), "arm")
    assert (run.data.tags["layerwise.seeds"], run.data.params["seeds"]) == ("20", "30")
    assert "20 seeds of at most 30" in run.data.tags["mlflow.note.content"]
    assert {lab.history(arm)["seeds"][1] for arm in arms} == {20}
    last = next(run for run in seeds if run.data.tags["layerwise.seed"] == "19")
    assert lab.models(last)["depth-01"].tags["layerwise.seed"] == "19"
    assert {one.info.status for one in (run, *arms, *seeds)} == {"FINISHED"}


@pytest.mark.usefixtures("stopped")
def test_runs_of_later_seeds_stand_below_the_earlier_ones(lab: Lab) -> None:
    """The page lists the newest first: study, arms, seeds in order, though the later seeds came to be last."""
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(stopping(), kind)]
    runs.sort(key=lambda run: -run.info.start_time)
    assert [run.data.tags["layerwise.kind"] for run in runs[:3]] == ["study", "arm", "arm"]
    numbers = [int(run.data.tags["layerwise.seed"]) for run in runs[3:]]
    assert numbers == sorted(numbers)


@pytest.mark.usefixtures("stopped")
def test_a_study_that_stopped_is_answered_again(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """It is finished with the seeds that it has: nothing is missing, and how many it took is said."""
    console = Console()
    answer = running._finished(stopping(), "", lab.root, console)
    assert answer is not None
    running._print_answer(stopping(), answer, console)
    said = capsys.readouterr().out.splitlines()
    assert "Stopped at 20 of at most 30 seeds: every claim is decided." in said
    assert said[-1].startswith("stops was finished before: 40 seed runs verified, nothing trained.")


def test_more_seeds_change_nothing_that_was_trained(lab: Lab, stopped: Outcome, fits: list[str]) -> None:
    """With forty seeds to go, the first two looks are taken of the very results that are there."""
    more = lab.run(stopping(seeds=40))
    assert fits == []
    pd.testing.assert_frame_equal(more.metrics, stopped.metrics, check_exact=True)


@pytest.mark.slow
def test_no_look_is_taken_while_seeds_are_missing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that fails ends the run, so that no seed is trained that the look might not want; the next completes."""
    asked = other_data(stopping(name="stops-broken"))
    with monkeypatch.context() as patched:
        failing_from(patched, call=2)
        broken = lab.run(asked)
    assert broken.failures == {"end_to_end, seeds 0-9": "Broken: no more memory"}
    assert set(broken.metrics["seed"]) == set(range(10))
    completed = lab.run(asked)
    assert (completed.failures, completed.seeds) == ({}, 20)
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)]
    assert {run.info.status for run in runs} == {"FINISHED"}


# --- growing -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grows() -> Study:
    """An arm that ends at depth 3 of at most 5, one that ends at depth 2, and a control of the first."""
    return ending(track={"models": "final"}, claims={"better": FINAL})


@pytest.fixture(scope="module")
def grown(lab: Lab, grows: Study) -> Outcome:
    return lab.run(grows)


def test_growth_is_settled_as_in_the_plain_loop(lab: Lab, grows: Study, grown: Outcome) -> None:
    """Scores and verdicts have the bits of `layerwise.run`; runs say how deep arms grew, and are FINISHED."""
    plain = layerwise.run(grows)
    assert (grown.failures, grown.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(grown.metrics, plain.metrics(), check_exact=True)
    assert grown.verdicts.as_json() == decide(grows, plain.metrics()).as_json()
    depths = {run.data.tags["layerwise.arm"]: run.data.metrics["final_depth"] for run in lab.runs(grows, "arm")}
    assert depths == {"greedy": 3, "autoencoder": 2, "end_to_end": 3}
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(grows, kind)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    (run,) = lab.runs(grows, "study")
    assert layerwise.load(lab.artifact(run, "study.yaml")).digest() == grows.digest()


def test_models_of_the_depth_that_growth_ended_at_are_the_final_ones(lab: Lab, grows: Study, grown: Outcome) -> None:
    """With `track.models: final` each seed keeps the model of the last depth of its arm, whenever it was trained."""
    names = {(run.data.tags["layerwise.arm"], tuple(sorted(lab.models(run)))) for run in lab.runs(grows, "seed")}
    assert names == {
        ("greedy", ("depth-03",)),
        ("autoencoder", ("depth-02", "depth-02-autoencoder")),
        ("end_to_end", ("depth-03",)),
    }
    assert grown.chosen is not None
    assert (grown.registered is None) == (grown.chosen.depth != {"autoencoder": 2}.get(grown.chosen.arm, 3))


def test_where_growth_ended_and_why_is_said_everywhere(
    lab: Lab, grows: Study, grown: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer, asked again too, the pages and the report have the sentence; the claim says which seeds count."""
    (line, other) = growth_in_words(grows, grown.metrics)
    console = Console()
    for answer in (running._answer_of(grown), running._finished(grows, "", lab.root, console)):
        running._print_answer(grows, answer, console)
        said = capsys.readouterr().out.splitlines()
        assert [line, other] == [one for one in said if ": grew to depth " in one]
        assert any("The first 10 seeds, which settled the depth, do not count." in one for one in said)
    (run,) = lab.runs(grows, "study")
    assert line in run.data.tags["mlflow.note.content"]
    assert line in lab.artifact(run, "report.md").read_text()
    greedy = next(run for run in lab.runs(grows, "arm") if run.data.tags["layerwise.arm"] == "greedy")
    assert line in greedy.data.tags["mlflow.note.content"]
    assert other not in greedy.data.tags["mlflow.note.content"]


def test_what_is_shown_of_a_study_that_grew(
    lab: Lab, grows: Study, grown: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    """`layerwise show` has the rule, where stored results ended growth, and the depths that are trained, no others."""
    before = lab.written()
    show_study(grows, lab.root)
    said = capsys.readouterr().out
    assert (
        "grow   no further layer once the newest is shown to gain less than 0.03 on validation, by the first 10" in said
    )
    for line in growth_in_words(grows, grown.metrics):
        assert f"       {line}" in said
    assert re.search(r"^0 of \d+ stages left to train", said, re.MULTILINE)
    assert lab.written() == before
    show_study(other_data(grows.model_copy(update={"name": "unseen"})), lab.root)
    said = capsys.readouterr().out
    assert "       greedy: not settled yet; what follows is the most" in said
    assert re.search(r"^5 +add_layer", said, re.MULTILINE)


@pytest.mark.slow
def test_more_seeds_train_the_depths_that_the_first_settled(
    lab: Lab, grows: Study, grown: Outcome, fits: list[str]
) -> None:
    """Another block of seeds trains as many stages as the arms have, and nothing is trained anew."""
    more = lab.run(grows.model_copy(update={"seeds": 25, "claims": None, "track": Track(models="none")}))
    assert (more.failures, more.unpublished) == ({}, [])
    assert len(fits) == 3 + 2 * 2 + 1  # greedy; the autoencoder and a head at each depth; end to end
    assert more.metrics.groupby("arm")["depth"].max().to_dict() == {"greedy": 3, "autoencoder": 2, "end_to_end": 3}
    few = more.metrics[more.metrics["seed"] < 12].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, grown.metrics, check_exact=True)


@pytest.mark.slow
def test_growth_goes_on_where_it_was_cut_short(lab: Lab, grows: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows an arm whose first seeds failed is not trained; the next run settles what an uncut one does."""
    asked = other_data(grows.model_copy(update={"name": "grows-broken", "claims": None}))
    with monkeypatch.context() as patched:
        failing_from(patched, call=2)
        broken = lab.run(asked)
    assert broken.failures["greedy, seeds 0-9"] == "Broken: no more memory"
    for place in ("greedy, seeds 10-19", "end_to_end, seeds 0-9"):
        assert "not trained: its depth is that of greedy, whose first seeds failed" in broken.failures[place]
    assert (broken.chosen, set(broken.metrics["depth"])) == (None, {1})
    completed = lab.run(asked)
    assert (completed.failures, completed.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(completed.metrics, layerwise.run(asked).metrics(), check_exact=True)
    assert {run.info.status for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)} == {"FINISHED"}


def test_a_pilot_grows_as_the_study_does(
    lab: Lab, grows: Study, grown: Outcome, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains the depths that the first seeds settle, and says so below the power of each claim."""
    few = planning.piloted(grows, None)
    metrics = pilot_study.with_options(result_storage=results_block(environment.results_folder(lab.root)))(few)
    assert fits == []
    first = grown.metrics[grown.metrics["seed"] < 10].reset_index(drop=True)
    pd.testing.assert_frame_equal(metrics, first, check_exact=True)
    planning._print_plan(grows, few, metrics, Console())
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if ": grew to depth " in line] == growth_in_words(grows, grown.metrics)
    powers = next(line.split() for line in said if line.startswith("better "))
    assert powers[1] == ".00", "of ten seeds, none is left to decide a claim about the depth they settle"


# --- planning ----------------------------------------------------------------------------------------------


def test_a_pilot_is_trained_and_not_tracked(lab: Lab, fits: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A pilot has the bits of the study's first seeds and leaves no run; the study then trains the other seeds alone.

    What it prints is a row of power for each claim, the seeds that would decide it, and what was seen.
    """
    claims = {"holds": HOLDS, "rises": CLAIMS["rises"]}
    asked = other_data(small(name="planned", depth=2, seeds=20, claims=claims, track={"models": "none"}))
    few, rows = planning.piloted(asked, 10), lab.rows()
    metrics = pilot_study.with_options(result_storage=results_block(environment.results_folder(lab.root)))(few)
    assert lab.rows() == rows
    assert len(fits) == 2
    pd.testing.assert_frame_equal(metrics, layerwise.run(few).metrics(), check_exact=True)
    fits.clear()
    ended = lab.run(asked)
    assert len(fits) == 2, "the second block's two stages"
    pd.testing.assert_frame_equal(ended.metrics[ended.metrics["seed"] < 10].reset_index(drop=True), metrics)

    capsys.readouterr()
    planning._print_plan(asked, few, metrics, Console())
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "planned: power, the probability that a claim is decided, by the number of seeds"
    assert said[1].split() == ["claim", *(str(seeds) for seeds in planning.SHOWN)]
    powers = {line.split()[0]: line.split()[1:] for line in said[2:4]}
    assert powers["holds"][0] == ".00", "none of ten seeds broke, and .8^10 is above .05 / 2"
    assert powers["holds"][2:] == ["1.00"] * 6
    assert re.match(r"holds: about \d+ seeds support it with probability .80. It saw: rate 0.0000 \(95 % ", said[4])
    assert said[-1].startswith("This supposes that the truth is what 10 seeds saw")


# --- Prefect -----------------------------------------------------------------------------------------------


def test_prefect_shows_a_run_that_lacks_something_as_failed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that failed fails the flow run, whose state says why; the run that makes it good is Completed."""
    asked = other_data(small(name="lacking", depth=1))
    with monkeypatch.context() as patched:
        failing_from(patched, call=1)
        assert lab.run(asked).failures == {"greedy, seeds 0-9": "Broken: no more memory"}
    assert lab.run(asked).failures == {}
    names = {"flow_runs": {"name": {"any_": [asked.name]}}, "sort": "EXPECTED_START_TIME_ASC"}
    failed, again = ask(f"{lab.url}/flow_runs/filter", names)
    assert (failed["state_type"], again["state_type"]) == ("FAILED", "COMPLETED")
    assert failed["state"]["message"].endswith("Incomplete: greedy, seeds 0-9: Broken: no more memory")


@pytest.mark.usefixtures("outcome")
def test_prefect_pages_read_like_the_study(lab: Lab, asked: Study) -> None:
    """The server has recorded the flow run and each stage, COMPLETED, under names that say arm, seeds and depth."""
    names = {"flow_runs": {"name": {"any_": [asked.name]}}, "sort": "EXPECTED_START_TIME_ASC"}
    flow_run = ask(f"{lab.url}/flow_runs/filter", names)[0]
    assert (flow_run["state_type"], flow_run["parameters"]["study"]["seeds"]) == ("COMPLETED", SEEDS)
    of_this_run = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    tasks = ask(f"{lab.url}/task_runs/filter", of_this_run)
    stages = ["base", *(f"add layer {depth}" for depth in range(2, DEPTH + 1))]
    scores = [f"evaluate depth {depth}" for depth in range(1, DEPTH + 1)]
    expected = {f"greedy seeds 0-9: {name}" for name in [*stages, *scores]}
    found = {task["name"]: task["state_type"] for task in tasks}
    assert expected | {"data: blobs", "open MLflow runs", "summarise and draw", "close MLflow runs"} <= found.keys()
    assert any(re.fullmatch(r"publish greedy seeds 0-9: depths? 1(-\d)?", name) for name in found)
    assert set(found.values()) == {"COMPLETED"}


def test_a_form_can_ask_for_a_study() -> None:
    """The flow's parameters describe a study part by part, so that Prefect's page can render it as a form."""
    schema = run_study.parameters.model_dump()
    assert schema["properties"]["study"]["$ref"] == "#/definitions/Study"
    assert set(schema["definitions"]["Study"]["properties"]) == set(Study.model_fields)
    assert {"Blobs", "Network", "Dense", "Training", "Arm"} <= schema["definitions"].keys()


# --- again, deeper, more seeds, afresh ---------------------------------------------------------------------


def test_a_second_run_changes_nothing(lab: Lab, asked: Study, outcome: Outcome, fits: list[str]) -> None:
    """The flow on a finished study trains nothing, writes no result, and leaves every table as it is."""
    before = lab.rows(), lab.written()
    again = lab.run(asked)
    assert fits == []
    assert (lab.rows(), lab.written()) == before
    assert again.unpublished == []
    pd.testing.assert_frame_equal(again.metrics, outcome.metrics, check_exact=True)
    assert {run.info.status for run in lab.runs(asked, "seed")} == {"FINISHED"}


def test_a_larger_study_computes_only_what_is_new(lab: Lab, asked: Study, outcome: Outcome, fits: list[str]) -> None:
    """One more depth and nine more seeds train one stage of the old block and every stage of the new one."""
    larger = small(depth=DEPTH + 1, seeds=12, question=asked.question)
    before = lab.written()
    grown = lab.run(larger)
    assert len(fits) == 1 + (DEPTH + 1)
    assert before.items() <= lab.written().items()
    shared = grown.metrics[(grown.metrics["seed"] < SEEDS) & (grown.metrics["depth"] <= DEPTH)]
    pd.testing.assert_frame_equal(shared.reset_index(drop=True), outcome.metrics, check_exact=True)
    assert grown.metrics.groupby("depth").size().tolist() == [12] * (DEPTH + 1)
    assert len(lab.runs(larger, "seed")) == 12
    assert len(lab.runs(asked, "seed")) == SEEDS


@pytest.mark.usefixtures("outcome")
def test_an_outgrown_study_is_marked(lab: Lab, asked: Study) -> None:
    """The study and arm runs of the smaller study name the run key of the one that supersedes them."""
    larger = small(depth=DEPTH + 1, seeds=12, question=asked.question)
    lab.run(larger)
    for kind in ("study", "arm"):
        (old,), (new,) = lab.runs(asked, kind), lab.runs(larger, kind)
        assert old.data.tags["layerwise.superseded_by"] == larger.digest()
        assert "layerwise.superseded_by" not in new.data.tags


def test_a_repeat_computes_everything_afresh(lab: Lab, asked: Study, outcome: Outcome, fits: list[str]) -> None:
    """A repeat trains every stage again, gets the same bits, and stands in runs of its own; so does no other."""
    before = {run.info.run_id for run in lab.runs(asked, "seed")}
    repeated = lab.run(asked, "again")
    assert len(fits) == DEPTH
    pd.testing.assert_frame_equal(repeated.metrics, outcome.metrics, check_exact=True)
    own = lab.runs(asked, "seed", "again")
    assert len(own) == SEEDS
    assert not before & {run.info.run_id for run in own}
    assert {run.data.tags["layerwise.repeat"] for run in own} == {"again"}
    lab.run(asked, "again")
    assert len(fits) == DEPTH, "a repeat can be resumed"


# --- what goes wrong ---------------------------------------------------------------------------------------


class Broken(RuntimeError):
    """What a stage raises that fails."""


def failing_from(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Let the engine fail at its n-th stage and after."""
    fit, calls = engine.fit, iter(range(1, 1000))

    def fails(*arguments: Any) -> engine.Fitted:
        if next(calls) >= call:
            raise Broken("no more\nmemory")
        return fit(*arguments)

    monkeypatch.setattr(engine, "fit", fails)


def test_a_failing_block_does_not_stop_the_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fails is named, the rest is published, and the runs are FAILED; the next run completes them."""
    asked = other_data(small(name="fails", depth=2, seeds=12))
    with monkeypatch.context() as patched:
        failing_from(patched, call=4)  # the second block, at depth 2
        broken = lab.run(asked)
    assert broken.failures == {"greedy, seeds 10-19": "Broken: no more memory"}
    assert broken.unpublished == []
    assert Counter(broken.metrics["depth"]) == {1: 12, 2: 10}
    (study_run,), (arm,) = lab.runs(asked, "study"), lab.runs(asked, "arm")
    assert (study_run.info.status, arm.info.status) == ("FAILED", "FAILED")
    assert lab.history(arm) == {}, "aggregates are published once, of a complete arm"
    assert set(lab.history(lab.runs(asked, "seed")[11])["test_accuracy"]) == {1}

    completed = lab.run(asked)
    assert (completed.failures, completed.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(completed.metrics, layerwise.run(asked).metrics(), check_exact=True)
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert (
        lab.history(runs[1])["test_accuracy_mean"] == completed.table.set_index("depth")["test_accuracy_mean"].to_dict()
    )


def test_a_failing_arm_does_not_stop_the_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that fails is FAILED with its study; the other arm's runs are FINISHED, with their aggregates."""
    arms = {"first": {}, "second": {"training": {"epochs": 1}}}  # equal arms would share their stages
    asked = other_data(small(name="arms", depth=2, arms=arms))
    with monkeypatch.context() as patched:
        failing_from(patched, call=3)
        broken = lab.run(asked)
    assert broken.failures == {"second, seeds 0-9": "Broken: no more memory"}
    first, second = sorted(lab.runs(asked, "arm"), key=lambda run: run.data.tags["layerwise.arm"])
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert set(lab.history(first)["test_accuracy_mean"]) == {1, 2}
    assert lab.history(second) == {}
    assert lab.run(asked).failures == {}
    assert {run.info.status for run in lab.runs(asked, "arm")} == {"FINISHED"}


def test_what_could_not_be_published_is_published_by_the_next_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store refuses models nothing is FINISHED; the next run sends them, and trains nothing."""
    asked = other_data(small(name="unpublished", depth=2))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tasks.tracking.publishing.Publisher.models", refuse)
        first = lab.run(asked)
    assert first.unpublished
    assert all("No space left on device" in reason for reason in first.unpublished)
    assert {run.info.status for run in lab.runs(asked, "study")} == {"FAILED"}

    failing_from(monkeypatch, call=1)
    second = lab.run(asked)
    assert (second.failures, second.unpublished) == ({}, [])
    for run in lab.runs(asked, "seed"):
        assert [model.status for model in lab.models(run).values()] == ["READY", "READY"]


def test_a_disk_that_takes_no_result_ends_the_run(lab: Lab, fits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a result cannot be stored nothing more is trained, and no run stays open; the next run completes all."""
    asked = other_data(small(name="full", depth=2, seeds=12, track={"models": "none"}))
    write = durable.write_first

    def full(file: Path, *arguments: Any, **named: Any) -> None:
        if file.parent == environment.results_folder(lab.root) and fits:
            raise OSError(28, "No space left on device")
        write(file, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_first", full)
        with pytest.raises(
            StorageProblem, match=r"^Cannot store result \w+ in .*: No space left on device; free space"
        ):
            lab.run(asked)
    assert len(fits) == 1
    assert {run.info.status for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)} == {"FAILED"}
    assert lab.run(asked).failures == {}
    assert {run.info.status for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)} == {"FINISHED"}


def test_a_damaged_result_is_said_once_and_computed_again(
    lab: Lab, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged result is a line on the terminal; its stage alone is trained again, and the scores are the same."""
    asked = other_data(small(name="damaged", depth=2, track={"models": "none"}))
    first = lab.run(asked)
    known = {computed.digest for computed in layerwise.run(asked).trained["greedy"][-1].chain}
    (upper, lower) = sorted(known, key=lambda digest: -lab.written()[digest])
    file = environment.results_folder(lab.root) / upper
    file.write_bytes(file.read_bytes()[:-1])
    fits.clear()
    capsys.readouterr()
    for expected in ([f"Result {upper} is set aside and will be computed again: its checksum"], []):
        with warnings_shown(Console(width=40)):
            again = lab.run(asked)
        said = capsys.readouterr().out.splitlines()
        assert [line[: len(start)] for line, start in zip(said, expected, strict=True)] == expected
        assert len(fits) == 1
        pd.testing.assert_frame_equal(again.metrics, first.metrics, check_exact=True)
    assert lower in lab.written()


@pytest.mark.usefixtures("lab")
def test_flow_runs_of_the_dead_crash() -> None:
    """A flow run whose process is gone, and its tasks, are Crashed with the reason; any other goes on."""
    gone = owners.this_process().rpartition("/")[0] + "/1"
    with get_client(sync_client=True) as client:
        made = {}
        for owner in (gone, owners.this_process(), "elsewhere/1/1", None):
            said = [f"process {owner}"] if owner else []
            made[owner] = client.create_flow_run(run_study, state=Running(), name=f"of {owner}", tags=said)
            client.create_task_run(publish_depths, made[owner].id, "0", state=Running())
        assert close_crashed() == [f"of {gone}"]
        assert close_crashed() == []
        for owner, run in made.items():
            now, (task,) = client.read_flow_run(run.id), client.read_task_runs(flow_run_filter=of_run(run.id))
            expected = "Crashed" if owner == gone else "Running"
            assert (now.state.name, task.state.name) == (expected, expected)
            client.set_flow_run_state(run.id, Cancelled(), force=True)
        assert f"Process {gone} ended without a word" in now_message(client, made[gone].id)


@pytest.mark.usefixtures("lab")
def test_task_runs_of_dead_workers_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task run whose worker is gone is Crashed, with the reason, however many are under way; the flow goes on."""
    monkeypatch.setattr(crashed, "PAGE", 2)
    gone = owners.this_process().rpartition("/")[0] + "/1"
    with get_client(sync_client=True) as client:
        flow = client.create_flow_run(run_study, state=Running(), name="on workers", tags=[owners.tag()])
        tasks = {
            number: client.create_task_run(
                publish_depths, flow.id, str(number), state=Running(), extra_tags=[f"process {owner}"] if owner else []
            )
            for number, owner in enumerate((gone, owners.this_process(), "elsewhere/1/1", None, gone))
        }
        crashed.close_crashed_tasks()
        now = [client.read_task_run(task.id).state for task in tasks.values()]
        assert [state.name for state in now] == ["Crashed", "Running", "Running", "Running", "Crashed"]
        assert {state.message for state in now if state.name == "Crashed"} == {
            f"Worker {gone} ended without a word. Its block went on elsewhere, from what it had stored."
        }
        assert client.read_flow_run(flow.id).state.name == "Running"
        client.set_flow_run_state(flow.id, Cancelled(), force=True)


def test_a_flow_killed_after_its_study_was_finished_is_marked(
    lab: Lab, outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between the last of MLflow and the last of Prefect, a run is answered, and its flow is marked Crashed."""
    gone = owners.this_process().rpartition("/")[0] + "/1"
    note = environment.locks_folder(lab.root) / f"{outcome.study.digest('')}.holder"
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(run_study, state=Running(), name="small", tags=[f"process {gone}"])
        for was_killed, expected in ((False, "Running"), (True, "Crashed"), (False, "Crashed")):
            if was_killed:
                note.write_text("{}")
            assert running.run_study_command(outcome.study, repeat="", root=lab.root) == 0
            said = capsys.readouterr().out
            assert "was finished before" in said
            assert ("small was killed before it said that it had ended" in said) == was_killed
            assert client.read_flow_run(run.id).state.name == expected
            assert not note.exists()


def of_run(flow_run_id: Any) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))


def now_message(client: Any, flow_run_id: Any) -> str:
    """What was said when a flow run crashed; its last state but one, for the test ends them all."""
    states = client.read_flow_run_states(flow_run_id)
    return next(state.message for state in states if state.name == "Crashed")


@pytest.mark.parametrize("place", ["_publish_study", "close_runs"])
def test_a_store_that_goes_away_at_the_end_is_reported(lab: Lab, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """When tables or the end of runs cannot be sent, the answer is there nevertheless, and so is the reason."""
    asked = other_data(small(name=f"away{place}", depth=2))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(f"tasks.publishing.{place}", refuse)
        first = lab.run(asked)
    assert [reason for reason in first.unpublished if "database is locked" in reason]
    assert first.table is not None
    second = lab.run(asked)
    assert second.unpublished == []
    assert {run.info.status for run in lab.runs(asked, "study")} == {"FINISHED"}


def test_a_prefect_server_that_is_gone_ends_the_run(lab: Lab, monkeypatch: pytest.MonkeyPatch, fits: list[str]) -> None:
    """No other block is tried, the runs are closed, and the next run trains what is missing."""
    asked = other_data(small(name="prefectless", depth=2, arms=["greedy", "end_to_end"]))

    def gone() -> None:
        raise httpx.ConnectError("All connection attempts failed")

    with monkeypatch.context() as patched:
        before_stage(patched, 2, gone)
        with pytest.raises(ServerLost):
            lab.run(asked)
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)]
    assert {run.info.status for run in runs} == {"KILLED"}
    assert len(fits) == 1
    assert published_once(lab, asked, lab.run(asked))
    assert len(fits) == 3


def nobody() -> str:
    """The address of a tracking server that is not there."""
    return f"http://127.0.0.1:{unused_port()}"


def impatient(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    """Let runs try again at once, and wait at their end no longer than this."""
    for name, value in {"PATIENCE": patience, "LOOK": 0.01, "SHORTEST_PAUSE": 0.0, "LONGEST_PAUSE": 0.0}.items():
        monkeypatch.setattr(publishing, name, value)


def test_without_its_tracker_a_study_is_trained(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that is absent all the time costs neither numbers nor training: the next run publishes, once."""
    asked = other_data(small(name="absent", depth=2, arms=["greedy", "random_frozen"]))
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", url := nobody())
        impatient(patched, 0.1)
        alone = lab.run(asked)
    assert alone.unpublished == [f"the tracking store {url} does not answer (Connection refused)"]
    assert running._answer_of(alone).problems == (
        f"trained, not published: the tracking store {url} does not answer (Connection refused);"
        " run again to publish it",
    )
    assert lab.client.get_experiment_by_name(asked.name) is None
    with monkeypatch.context() as patched:
        failing_from(patched, call=1)
        assert published_once(lab, asked, lab.run(asked))
    pd.testing.assert_frame_equal(alone.metrics, layerwise.run(asked).metrics(), check_exact=True)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(2, id="in the first arm"),
        pytest.param(3, id="in the second arm"),
        pytest.param(4, id="at the end"),
    ],
)
def test_a_tracker_that_appears_gets_everything(lab: Lab, monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    """What was trained while the tracker was absent arrives in the same run, once, however late it comes."""
    asked = other_data(small(name=f"appears-{stage}", depth=2, arms=["greedy", "end_to_end"]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    impatient(monkeypatch, 60)
    before_stage(monkeypatch, stage, lambda: monkeypatch.delenv("MLFLOW_TRACKING_URI"))
    if stage == 4:  # of three
        monkeypatch.setattr(publishing, "answers", lambda _: monkeypatch.delenv("MLFLOW_TRACKING_URI") is None)
    assert published_once(lab, asked, lab.run(asked))


def before_stage(monkeypatch: pytest.MonkeyPatch, number: int, then: Callable[[], object]) -> None:
    """Let something happen before the n-th stage is trained."""
    fit, calls = engine.fit, itertools.count(1)

    def with_it(*arguments: Any) -> engine.Fitted:
        if next(calls) == number:
            then()
        return fit(*arguments)

    monkeypatch.setattr(engine, "fit", with_it)


def published_once(lab: Lab, asked: Study, outcome: Outcome) -> bool:
    """Whether every run of a study is FINISHED and holds each of its points and models once."""
    assert (outcome.failures, outcome.unpublished) == ({}, [])
    metrics = outcome.metrics
    runs = [run for kind in ("study", "arm", "seed") for run in lab.runs(asked, kind)]
    assert len(runs) == 1 + len(asked.arms) * (1 + asked.seeds)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in lab.runs(asked, "seed"):
        arm, seed = run.data.tags["layerwise.arm"], int(run.data.tags["layerwise.seed"])
        own = metrics[(metrics["arm"] == arm) & (metrics["seed"] == seed)].set_index("depth")
        history = lab.history(run)
        assert history == {name: own[name].to_dict() for name in history}
        assert {"train_accuracy", "test_loss"} <= history.keys()
        states = {name: model.status for name, model in lab.models(run).items()}
        assert states == {f"depth-{depth:02d}": "READY" for depth in own.index}
        assert len(run.outputs.model_outputs) == len(states)
    return True


def test_a_tracker_that_refuses_ends_a_study_before_training(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fits: list[str]
) -> None:
    """Wrong credentials are no absence: nothing trains, and what the server said is said."""
    with Proxy(0, lambda _: "401") as guarded:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.url)
        with pytest.raises(
            TrackingError, match=r"does not let us in \(401\): received no user name; set MLFLOW_TRACKING_USERNAME"
        ):
            lab.run(other_data(small(name="refused")))
    assert fits == []


@pytest.mark.parametrize("learning_rate", [1e6, 1e25], ids=["infinite", "not a number"])
def test_a_diverging_study_ends_properly(lab: Lab, learning_rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds that diverge are counted and tagged, carry no score or model, and end FINISHED without an average."""
    training = {"optimizer": {"name": "sgd", "learning_rate": learning_rate}, "epochs": 2}
    asked = small(name=f"diverges-{learning_rate:.0e}".replace("+", ""), depth=2, training=training)
    ended = lab.run(asked)
    assert (ended.failures, ended.unpublished) == ({}, [])
    assert ended.metrics["diverged"].all()
    for run in lab.runs(asked, "seed"):
        assert run.info.status == "FINISHED"
        assert (run.data.tags["layerwise.outcome"], run.data.tags["layerwise.diverged_at_depth"]) == ("diverged", "1")
        assert (lab.history(run), lab.models(run)) == ({}, {})
    (arm,) = lab.runs(asked, "arm")
    history = lab.history(arm)
    assert history["seeds"] == history["diverged"] == {1: 3, 2: 3}
    assert not [name for name in history if name.endswith(AGGREGATES)]
    assert "no seed is intact" in lab.runs(asked, "study")[0].data.tags["layerwise.answer"]

    capsys.readouterr()
    assert running._print_answer(asked, running._answer_of(ended), Console()) is None
    said, complaint = capsys.readouterr()
    table = [line.split() for line in said.splitlines()[1:4]]
    assert table == [["depth", "layers", "seeds", "diverged"], ["1", "2", "3", "3"], ["2", "3", "3", "3"]]
    assert "greedy: no seed is intact at depth 1 and depth 2; nothing to compare." in said.splitlines()
    assert complaint == ""


def test_a_seed_that_diverges_keeps_what_it_was_before(lab: Lab) -> None:
    """Up to the depth at which a seed diverges it has scores and models, from there on none; others have them all."""
    training = {"optimizer": {"name": "sgd", "learning_rate": 50.0}, "epochs": 2}
    asked = small(name="diverges-above", depth=2, training=training)
    ended = lab.run(asked)
    assert (ended.failures, ended.unpublished) == ({}, [])
    lost = ended.metrics.groupby("seed")["diverged"].sum()
    assert lost.tolist() == lost.clip(0, 1).tolist(), "at this rate seeds diverge at depth 2"
    assert lost.any()
    for run in lab.runs(asked, "seed"):
        seed = int(run.data.tags["layerwise.seed"])
        depths = [1] if lost[seed] else [1, 2]
        assert {name: list(values) for name, values in lab.history(run).items()} == dict.fromkeys(SCORES, depths)
        assert sorted(lab.models(run)) == [f"depth-{depth:02d}" for depth in depths]
        assert run.data.tags.get("layerwise.diverged_at_depth") == ("2" if lost[seed] else None)
    (arm,) = lab.runs(asked, "arm")
    assert lab.history(arm)["diverged"] == {1: 0, 2: lost.sum()}


@pytest.mark.parametrize(("track", "expected"), [("final", ["depth-02"]), ("none", [])])
def test_a_study_says_which_models_are_kept(lab: Lab, track: str, expected: list[str]) -> None:
    """With `track.models: final` only the last depth's models are kept, with `none` none; scores always are."""
    asked = small(name=f"keeps-{track}", depth=2, track={"models": track})
    assert lab.run(asked).unpublished == []
    for run in lab.runs(asked, "seed"):
        assert sorted(lab.models(run)) == expected
        assert {name: list(values) for name, values in lab.history(run).items()} == {key: [1, 2] for key in SCORES}


BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "class missing": (
        {"source": "blobs", "samples": 120, "split": {"train": 2, "test": 118}},
        r"the training part of 2 rows has no row of class \d",
    ),
    "class missing for a seed": (
        {"source": "wine", "split": {"train": 6, "test": 172}, "labels": 3},
        r"the training part of 6 rows that seed \d draws has no row of class class_2",
    ),
    "constant feature": ({"source": "digits", "scaling": "standard"}, r"feature 0 is constant .+ standard scaling"),
    "constant feature, too": ({"source": "digits", "scaling": "min_max"}, r"feature 0 is constant .+ min_max scaling"),
    "infinite values": ({"source": "blobs", "cluster_std": 1e300}, r"the inputs hold NaN or infinite values"),
}


@pytest.mark.parametrize("mistake", BAD_DATA)
def test_data_that_cannot_be_used_opens_no_runs(lab: Lab, fits: list[str], mistake: str) -> None:
    """Data that some arm or seed cannot use are refused in the study's words before a run is made or a stage trains."""
    data, expected = BAD_DATA[mistake]
    asked = small(name="bad-data", data=data, training={"epochs": 2, "batch_size": 2})
    with pytest.raises(StudyError, match=expected):
        lab.run(asked)
    assert fits == []
    assert lab.client.get_experiment_by_name("bad-data") is None


# --- Arms --------------------------------------------------------------------------------------------------

TUNE = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 0.001}}
ARMS = {
    "autoencoder": {"objective": "reconstruction", "fine_tune": {**TUNE, "at": "every_depth"}},
    "denoising": {"objective": "reconstruction", "noise": {"kind": "masking", "rate": 0.25}},
    "random_frozen": "random_frozen",
    "end_to_end": "end_to_end",
    "scratch": "scratch",
    "permuted": "permuted",
}


def test_every_kind_of_arm_has_the_bits_of_the_plain_loop(lab: Lab) -> None:
    """Autoencoders, noise, fine tuning and every control: scores are exactly those without workflow and tracker."""
    asked = small(name="every-arm", depth=2, seeds=2, arms=ARMS)
    outcome, plain = lab.run(asked), layerwise.run(asked)
    assert (outcome.failures, outcome.unpublished) == ({}, [])
    pd.testing.assert_frame_equal(outcome.metrics, plain.metrics(), check_exact=True)
    (study_run,) = lab.runs(asked, "study")
    figures = {Path(item.path).name for item in lab.client.list_artifacts(study_run.info.run_id, "figures")}
    assert "reconstruction_by_depth.svg" in figures
    by_arm = {
        run.data.tags["layerwise.arm"]: run for run in lab.runs(asked, "seed") if run.data.tags["layerwise.seed"] == "1"
    }
    names = {arm: set(lab.models(run)) for arm, run in by_arm.items()}
    assert names["autoencoder"] == {
        f"depth-{depth:02d}{kind}" for depth in (1, 2) for kind in ("", "-autoencoder", "-fine-tuned")
    }
    assert names["denoising"] == {f"depth-{depth:02d}{kind}" for depth in (1, 2) for kind in ("", "-autoencoder")}
    assert names["random_frozen"] == names["scratch"] | {"depth-01"} == {"depth-01", "depth-02"}
    assert names["end_to_end"] == {"depth-02", "depth-02-autoencoder", "depth-02-fine-tuned"}  # as the arm it is of
    assert {"fine_tuned_test_accuracy", "train_reconstruction_mse"} <= lab.history(by_arm["autoencoder"]).keys()
    published = {name for run in lab.runs(asked, "arm") for name in run.data.metrics}
    assert {metric for metrics in SECTIONS.values() for metric in metrics} <= published, "the page has its charts"


def test_a_shared_prefix_is_trained_once(lab: Lab, fits: list[str]) -> None:
    """Three arms on one autoencoder pretrain it once between them; the task runs of two find its results."""
    encoder = {"objective": "reconstruction"}
    arms = {
        "frozen": encoder,
        "tuned": {**encoder, "fine_tune": TUNE},
        "few": {**encoder, "labels": 30, "head": {"batch_size": 30}},
    }
    asked = other_data(small(name="shared", depth=2, arms=arms))
    fits.clear()
    lab.run(asked)
    assert len(fits) == 2 + 2 + 1 + 2  # two autoencoders; two heads for the first two arms; one tuning; two heads
    states = task_states(lab, "shared")
    for stage in ("base", "add layer 2"):
        assert [states[f"{arm} seeds 0-9: {stage}"] for arm in arms] == ["Completed", "Cached", "Cached"]


def task_states(lab: Lab, study: str) -> dict[str, str]:
    """Task run -> how it ended, in the flow run of a study; what was found and not computed is Cached."""
    (flow_run,) = ask(f"{lab.url}/flow_runs/filter", {"flow_runs": {"name": {"any_": [study]}}})
    of_this_run = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    deadline = time.monotonic() + 30
    while True:  # the server takes in the tasks' ends a little later than the flow's
        states = {task["name"]: task["state_name"] for task in ask(f"{lab.url}/task_runs/filter", of_this_run)}
        if "close MLflow runs" in states and set(states.values()) <= {"Completed", "Cached"}:
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.1)
