"""The benchmarks compare like with like: plain Keras, raw TensorFlow and the engine compute the same thing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag

from benchmarks import growth, main_job, plain_keras, raw_tensorflow, verdicts
from benchmarks.measuring import Times, run_module
from layerwise import answers, datasets, engine
from layerwise.claims.wording import sentence
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
    inputs, targets = plain_keras.load_data()
    data = datasets.generate(study.data)
    seen = datasets.view(study.data, data, seeds=(0,), labels=None, scaling="none")
    np.testing.assert_array_equal(inputs, seen.inputs)
    np.testing.assert_array_equal(targets, seen.one_hot)
    np.testing.assert_array_equal(seen.train[0], np.arange(plain_keras.TRAIN))
    (layer,), optimizer = study.network.layers, study.training.optimizer
    assert (layer.units, layer.activation, layer.initializer) == (plain_keras.UNITS, "relu", "he_uniform")
    assert (optimizer.learning_rate, optimizer.momentum) == (plain_keras.LEARNING_RATE, plain_keras.MOMENTUM)
    assert study.training.batch_size == plain_keras.BATCH
    whole, size = load(study.name), main_job.Size()
    assert (whole.depth, whole.training.epochs, whole.seeds) == (size.stages, size.epochs, size.seeds)


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
    np.testing.assert_allclose(growth.slopes([1, 2, 4], [0.5, 1.0, 2.0]), (0.5, 1.0))
    assert growth.slopes([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])[1] == pytest.approx(2)


def test_plain_keras_and_raw_tensorflow_reach_the_same_weights():
    """From equal weights and in equal order two stages end alike, to 2e-5, and the frozen layer stays as it was."""
    inputs, targets = plain_keras.load_data()
    order = np.arange(plain_keras.TRAIN, dtype=np.int32)[np.newaxis, np.newaxis]
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


def test_aims_compare_medians():
    """An aim is met where its figure, from the medians of the parts, is below its bound."""
    seconds = {
        "engine": [1.2, 9.0, 1.1],
        "raw": [1.0],
        "run": [40.0],
        "plain": [50.0],
        "help": [0.6],
        "finished": [2.0],
    }
    parts = {
        name: main_job.Part(name, name, [Times(value, value) for value in values], 900.0, None, [0.1])
        for name, values in seconds.items()
    }
    found = main_job.aims(parts, main_job.Size())
    assert [(round(aim.measured, 3), aim.met) for aim in found] == [
        (1.2, True), (0.8, True), (900.0, True), (0.6, False), (2.0, True),
    ]  # fmt: skip


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


def test_the_table_goes_between_its_marks():
    """All else on the page stays, and a page without both marks is refused."""
    page = f"before\n{verdicts.BEGIN}\nold\n{verdicts.END}\nafter\n"
    assert verdicts.replaced(page, "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="once each in the page"):
        verdicts.replaced("no marks", "new")


def test_the_readme_holds_a_verdict_on_every_claim():
    """Every ready-made study has its rows, one for each claim as it is worded today, with one of three verdicts."""
    page = verdicts.README.read_text(encoding="utf-8")
    table = page.partition(verdicts.BEGIN)[2].partition(verdicts.END)[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    studies = {name: load(name) for name in READY}
    named = [row[0].removeprefix("|").strip().partition("]")[0].removeprefix("[") for row in rows]
    assert [name for name in named if name] == list(studies)
    claimed = [sentence(study, claim) for study in studies.values() for claim in (study.claims or {}).values()]
    assert [row[1] for row in rows] == claimed
    assert {row[2] for row in rows} <= {"**supported**", "**refuted**", "**undecided**"}
