"""The benchmarks compare like with like: plain Keras, raw TensorFlow and the engine compute the same thing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag

from benchmarks import (
    aims,
    curves,
    growth,
    marked,
    plain_keras,
    raw_tensorflow,
    scikit,
    seconds,
    suite,
    tables,
    tutorial,
    verdicts,
)
from benchmarks.measuring import Times, run_module
from benchmarks.parts import Part
from layerwise import answers, datasets, engine, streams
from layerwise.claims.wording import sentence
from layerwise.orders import Order
from layerwise.study import load, parse
from tasks.tracking.tracked import Tracked
from tests.studies import READY

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module")
def study():
    """The main job with one epoch, two stages and two seeds."""
    return load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=2", "training.epochs=1"])


def test_plain_script_has_the_studys_data_and_settings(study):
    """The plain script trains on the study's rows, with its layers, optimizer, batch size, stages and epochs."""
    inputs, targets = tutorial.load_data()
    data = datasets.generate(study.data)
    seen = datasets.view(study.data, data, seeds=(0,), labels=None, scaling="none")
    np.testing.assert_array_equal(inputs, seen.inputs)
    np.testing.assert_array_equal(targets, seen.one_hot)
    np.testing.assert_array_equal(seen.train[0], np.arange(tutorial.TRAIN))
    (layer,), optimizer = study.network.layers, study.training.optimizer
    assert (layer.units, layer.activation, layer.initializer) == (tutorial.UNITS, "relu", "he_uniform")
    assert (optimizer.learning_rate, optimizer.momentum) == (tutorial.LEARNING_RATE, tutorial.MOMENTUM)
    assert study.training.batch_size == tutorial.BATCH
    whole, size = load(study.name), suite.Size()
    assert (whole.depth, whole.training.epochs, whole.seeds) == (size.stages, size.epochs, size.seeds[0])
    assert load("blobs-autoencoder").depth == suite.UNSUPERVISED_STAGES


def test_growth_changes_one_thing_at_a_time():
    """Every study that is timed differs from the first in the one thing that grows, and its arms share no stage."""
    for thing, sizes in growth.SIZES.items():
        for size in sizes:
            asked = parse(growth.document(5, **{thing: size}))
            (first, *_), arms = asked.network.layers, asked.arms
            rows = asked.data.split.train
            found = {"seeds": asked.seeds, "depth": asked.depth, "width": first.units, "rows": rows, "arms": len(arms)}
            assert found == growth.BASE | {thing: size}
            assert len({asked.procedure(arm).training.epochs for arm in arms}) == len(arms)


def test_slopes_of_growth_are_found():
    """Of a line through zero the exponent is one, and its slope is found; of a parabola it is two."""
    np.testing.assert_allclose(curves.slopes([1, 2, 4], [0.5, 1.0, 2.0]), (0.5, 1.0))
    assert curves.slopes([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])[1] == pytest.approx(2)


def test_plain_keras_and_raw_tensorflow_reach_the_same_weights():
    """From equal weights and in equal order two stages end alike, to 2e-5, and the frozen layer stays as it was."""
    inputs, targets = tutorial.load_data()
    order = np.arange(tutorial.TRAIN, dtype=np.int32)[np.newaxis, np.newaxis]
    keras.utils.set_random_seed(0)
    model, seen = plain_keras.build(1), inputs[np.newaxis]
    for depth in (1, 2):
        if depth == 2:
            before, model = model.get_weights(), plain_keras.deepen(model)
            after = model.get_weights()
            assert all(map(np.array_equal, before, [*after[:2], *after[4:]]))
        start = [values[np.newaxis] for values in model.get_weights()[-4:]]
        hidden, output, _ = raw_tensorflow.fit(*_layers(start), seen, targets, order)
        plain_keras.fit(model, inputs, targets, epochs=1, shuffle=False)
        for by_hand, values in zip((*hidden, *output), model.get_weights()[-4:], strict=True):
            np.testing.assert_allclose(by_hand.numpy().reshape(values.shape), values, **CLOSE)
        seen = raw_tensorflow.forward(hidden, output, seen)[0].numpy()
    assert all(map(np.array_equal, before[:2], model.get_weights()[:2]))


def test_raw_tensorflow_reaches_the_engines_weights(study, monkeypatch):
    """Given what the engine is given at each stage, the raw operations end where :func:`layerwise.run` ends."""
    calls, fit = [], engine.fit

    def recorded(problem, weights, inputs, targets, order, keys):
        calls.append((weights, inputs, targets, order))
        return fit(problem, weights, inputs, targets, order, keys)

    monkeypatch.setattr(engine, "fit", recorded)
    (trained,) = answers.run(study).trained.values()
    features = None
    for depth, (weights, inputs, targets, order) in zip(trained, calls, strict=True):
        own = np.broadcast_to(inputs, (len(order), *inputs.shape)) if inputs.ndim == 2 else inputs
        if features is not None:
            np.testing.assert_allclose(features, own, **CLOSE)
        hidden, output, curve = raw_tensorflow.fit(*_layers(weights), own, targets, order)
        reached = (*depth.chain[-1].hidden, *depth.chain[-1].output)
        for by_hand, by_engine in zip((*hidden, *output), reached, strict=True):
            np.testing.assert_allclose(by_hand.numpy().reshape(by_engine.shape), by_engine, **CLOSE)
        np.testing.assert_allclose(curve.numpy().T, depth.chain[-1].loss_curve, **CLOSE)
        features = raw_tensorflow.forward(hidden, output, own)[0].numpy()


MEASURED = """
import json, sys
from pathlib import Path
from benchmarks.measuring import run_module
child = run_module("platform", root=Path(sys.argv[1]))
print(json.dumps([child.times.processor, child.times.wall, child.largest_mb, child.output]))
"""


def test_child_reports_times_and_memory(tmp_path):
    """A part runs in a process of its own, of which time, memory and output are known."""
    # Asked from a small process, as the benchmark is: the kernel counts a child's memory from before its exec.
    asked = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    processor, wall, largest_mb, output = json.loads(done.stdout)
    assert 0 < processor < 60 * wall
    assert 1 < largest_mb < 1000
    assert output.strip()


def test_failing_child_is_reported(tmp_path):
    """A part that fails ends the benchmark with what it wrote, instead of a time."""
    with pytest.raises(RuntimeError, match=r"(?s)no_such_part --all ended with status 1:.*No module named"):
        run_module("no_such_part", ["--all"], root=tmp_path)


def part(name: str, *seconds: float) -> Part:
    """A part of so many repeats."""
    return Part(name, f"what {name} is", [Times(value, value) for value in seconds], 900.0, None, [0.1])


def test_aims_compare_medians():
    """An aim holds the medians of its parts against its bound, from above or below, and says where one is missing."""
    parts = {
        one.name: one
        for one in (
            part("engine-30", 1.2, 9.0, 1.1),
            part("jax-30", 1.0),
            part("engine-100", 4.0),
            part("engine-both", 4.2),
            part("run", 40.0),
            part("run-none", 36.7),
            part("plain", 80.0),
            part("shape-1", 0.7),
            part("shape-2", 1.3),
            part("help", 0.3),
            *(part(f"engine-depth-{depth}", 1 + depth / 100) for depth in (3, 9, 50)),
        )
    }
    found = {aim.what: aim for aim in aims.judged(parts, (30, 1, 100), models=330)}
    assert {what: (round(aim.measured, 3), aim.met) for what, aim in found.items() if aim.measured is not None} == {
        "engine / JAX vmap + scan, 30 seeds, warm": (1.2, False),
        "work done by two processes over work done by one": (1.905, True),
        "layerwise run, 30 seeds, all models / plain Keras, ONE seed": (0.5, True),
        "cost of a tracked model": (10.0, True),
        "tracing and compiling, slowest shape": (1.3, False),
        "stage at depth 50 / at depth 3": (1.456, False),
        "layerwise --help": (0.3, True),
        "layerwise run: peak memory of its largest process": (900.0, True),
    }
    unknown = found["layerwise run of the finished study"]
    assert (unknown.met, unknown.found, unknown.asked) == (None, "not measured", "at most 5 s")


def test_rounds_are_put_together():
    """A part that took its turn twice has the repeats of both, and the higher memory."""
    both = part("a", 1.0, 2.0).with_more(part("a", 6.0))
    assert (both.seconds, len(both.times), both.load) == (2.0, 3, [0.1, 0.1])


def test_tables_hold_every_part_and_aim():
    """A table in Markdown has a row for each part and aim, with times the plain script, and marks what is not met."""
    parts = [part("plain", 10.0), part("run", 5.0, 6.0, 7.0)]
    found = tables.Measured({}, parts, [], [aims.Aim("a / b", 3.0, 2.0), aims.Aim("c", 1.0, 2.0, "s")])
    by_part = tables._markdown(tables._PART_COLUMNS, tables._part_rows(found.shown)).splitlines()
    assert by_part[3] == "| what run is | 6.00 | 0.60 | 5.00 to 7.00 | 6.00 | 3 | 900 | 0.1 |"
    by_aim = tables._markdown(tables._AIM_COLUMNS, tables._aim_rows(found.aims)).splitlines()
    assert by_aim[2:] == ["| a / b | 3.00 | at most 2 | **no** |", "| c | 1.00 s | at most 2 s | yes |"]
    assert [row["seconds"] for row in found.as_json()["parts"]] == [10.0, 6.0]


def test_curves_are_fitted_to_the_parts_of_one_thing():
    """Parts that differ in one size make a curve, in the order of their sizes; what was timed cold is no part of it."""
    names = {
        "engine-30": 3.0,
        "engine-10": 1.0,
        "engine-30-cold": 9.0,
        "plain-depth-3": 1.0,
        "run": 20.0,
        "run-none": 17.0,
    }
    parts = {name: part(name, seconds) for name, seconds in names.items()}
    seeds, models = curves.fitted(parts, {"run-none": 0, "run-final": 30, "run": 330})
    assert (seeds.sizes, seeds.seconds, round(seeds.unit_ms), round(seeds.exponent or 0, 6)) == (
        (10, 30),
        (1, 3),
        100,
        1,
    )
    assert (models.sizes, round(models.unit_ms, 2), models.exponent) == ((0, 330), 9.09, None)


def test_scikit_learn_trains_every_epoch_of_a_stage():
    """It trains as many epochs as it is asked for, learns, and hands on what its hidden layer gives."""
    inputs, targets = tutorial.load_data()
    made, features = scikit.stage(inputs, targets.argmax(axis=1), epochs=20, seed=0)
    assert made.n_iter_ == 20
    assert made.score(inputs[tutorial.TRAIN :], targets.argmax(axis=1)[tutorial.TRAIN :]) > 0.7
    assert (features.shape, features.min()) == ((tutorial.ROWS, tutorial.UNITS), 0)


def test_a_stack_is_told_by_what_it_is_at(monkeypatch):
    """A thread is at the work whose file is on its stack, at an import before all else, at rest where it waits."""
    places, drawn = [], streams.generator

    def noted(*key):
        places.append(seconds.at(sys._getframe()))
        return drawn(*key)

    monkeypatch.setattr(streams, "generator", noted)
    Order((0,), "base", 1, epochs=1).drawn(np.zeros((1, 4), np.int32))
    resting = threading.Thread(target=(over := threading.Event()).wait)
    resting.start()
    while seconds.at(sys._current_frames()[resting.ident]) != "at rest":
        time.sleep(0.01)
    over.set()
    assert places == ["drawing orders"]
    assert seconds.at(sys._getframe()) == "other"


def test_the_threads_of_several_runs_are_summed_up_by_medians():
    """Each thread has its places, the longest first, and those that take less than a twentieth of a second go."""
    runs = [{"threads": {"MainThread": {"a": one, "b": 9.0, "c": 0.01}, "elsewhere": {"d": 5.0}}} for one in (1, 2, 6)]
    assert list(seconds.rows(runs)) == [("trains", "b", 9.0), ("trains", "a", 2)]


IN_JAX = """
import sys
import jax
import numpy as np
from benchmarks import hand_written_jax, tutorial
inputs, targets = map(jax.numpy.asarray, tutorial.load_data())
given = np.load(sys.argv[1])
layers = [(given["0"], given["1"]), (given["2"], given["3"])]
order = np.arange(tutorial.TRAIN, dtype=np.int32)[np.newaxis]
layers, _ = hand_written_jax.trained(layers, inputs, targets, order, loss=hand_written_jax.cross_entropy)
np.savez(sys.argv[2], *(values for layer in layers for values in layer))
"""


@pytest.mark.skipif(not suite.JAX_PYTHON.exists(), reason="JAX is installed by `make bench` alone, beside the project")
def test_hand_written_jax_reaches_the_same_weights(tmp_path):
    """From equal weights and in equal order, a stage in JAX ends where the raw operations end, to 2e-5."""
    keras.utils.set_random_seed(0)
    inputs, targets = tutorial.load_data()
    weights = [values[np.newaxis] for values in plain_keras.build(1).get_weights()]
    order = np.arange(tutorial.TRAIN, dtype=np.int32)[np.newaxis, np.newaxis]
    hidden, output, _ = raw_tensorflow.fit(*_layers(weights), inputs[np.newaxis], targets, order)
    np.savez(tmp_path / "given.npz", **{str(place): values[0] for place, values in enumerate(weights)})
    command = [suite.JAX_PYTHON, "-c", IN_JAX, tmp_path / "given.npz", tmp_path / "made.npz"]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)
    made = np.load(tmp_path / "made.npz")
    for by_hand, name in zip((*hidden, *output), made.files, strict=True):
        np.testing.assert_allclose(by_hand.numpy().reshape(made[name].shape), made[name], **CLOSE)


@pytest.mark.slow
def test_the_whole_suite_runs(tmp_path):
    """A quick look measures every part and writes all of it as JSON; only what needs JAX may be missing."""
    command = [sys.executable, "-m", "benchmarks.suite", "--quick", "--json", str(tmp_path / "all.json")]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, capture_output=True)
    found = json.loads((tmp_path / "all.json").read_text())
    assert all(row["seconds"] > 0 for row in found["parts"])
    missing = {aim["what"] for aim in found["aims"] if aim["met"] is None}
    assert {what for what in missing if "JAX" not in what} == set()
    assert not missing or not suite.JAX_PYTHON.exists()


def _layers(weights):
    """A stage's four weight arrays as the raw operations take them: two layers, each bias as one row a seed."""
    kernel, bias, output_kernel, output_bias = weights
    return (kernel, bias[:, np.newaxis]), (output_kernel, output_bias[:, np.newaxis])


# --- the table of verdicts ---------------------------------------------------------------------------------


def tracked(name: str, verdicts: list[dict[str, Any]], *, seconds: int) -> Tracked:
    """A finished study, as the store holds it."""
    info = RunInfo("1" * 32, "1", "me", "FINISHED", 1_000, 1_000 + 1_000 * seconds, "active")
    tags = {"layerwise.study": name, "layerwise.cores": "2", "layerwise.machine": "Linux", "layerwise.answer": "Up."}
    run = Run(info, RunData(tags=[RunTag(key, value) for key, value in tags.items()]))
    nothing = pd.DataFrame()
    said = {"verdicts": verdicts} if verdicts else None
    return Tracked(run, {}, nothing, nothing, verdicts=said, differences=None, costs=None, data_digest="")


def claimed(verdict: str, found: str) -> dict[str, Any]:
    """What a run says of a claim: the verdict, its p-values, and what it found, in words."""
    words = f"{verdict} (p .0100 were the claim false; level 0.05). A | b is up: {found}"
    said = {"claim": "up", "sentence": "a | b is up", "verdict": verdict, "words": words}
    return said | {"p_adjusted": 0.01, "p_against_adjusted": 0.02}


def test_a_row_says_claim_verdict_and_what_it_rests_on():
    """Estimate and p of what was decided, the reason of what was not; a bar in a sentence does not break the table."""
    found = "mean -0.1 (95 % interval -0.2 to 0.5) over 3 seeds, 50 % of which show what is claimed; of 3 seeds 1 broke"
    shown = "mean -0.1 (95 % interval -0.2 to 0.5) over 3 seeds"
    decided = [claimed("supported", f"{found}."), claimed("refuted", f"{found}.")]
    undecided = claimed("undecided", f"{found}. About 5 seeds would decide it with probability .8, if so.")
    runs = [tracked("one", [*decided, undecided], seconds=61), tracked("two", [], seconds=59)]
    lines = verdicts.in_markdown(runs).splitlines()
    assert lines[0] == (
        "3 claims of 2 studies: 1 supported, 1 refuted, 1 undecided. All of them took 2 minutes, one after the other,"
        " on 2 cores (Linux)."
    )
    assert lines[4:] == [
        f"| [one](studies/one.yaml), 61 s | a \\| b is up | **supported** | {shown}; p .0100 |",
        f"|  | a \\| b is up | **refuted** | {shown}; p .0200 |",
        f"|  | a \\| b is up | **undecided** | {shown}. About 5 seeds would decide it with probability .8, if so |",
        "| [two](studies/two.yaml), 59 s | none | | Up. |",
    ]


def test_a_text_goes_between_its_marks():
    """All else on the page stays, and a page without both marks is refused."""
    begin, end = marked.marks(*verdicts.PLACE)
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    assert marked.replaced(page, *verdicts.PLACE, "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="once each in the page"):
        marked.replaced("no marks", *verdicts.PLACE, "new")


def test_the_readme_holds_a_verdict_on_every_claim():
    """Every ready-made study has its rows, one for each claim as it is worded today, with one of three verdicts."""
    page = verdicts.README.read_text(encoding="utf-8")
    begin, end = marked.marks(*verdicts.PLACE)
    table = page.partition(begin)[2].partition(end)[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    studies = {name: load(name) for name in READY}
    named = [row[0].removeprefix("|").strip().partition("]")[0].removeprefix("[") for row in rows]
    assert [name for name in named if name] == list(studies)
    claimed = [sentence(study, claim) for study in studies.values() for claim in (study.claims or {}).values()]
    assert [row[1] for row in rows] == claimed
    assert {row[2] for row in rows} <= {"**supported**", "**refuted**", "**undecided**"}
