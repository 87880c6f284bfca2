"""Stacks of every kind of layer, several inputs and richer heads, through the whole algorithm."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import layerwise
from layerwise import datasets, models, network, pretraining, raw_rows, stages
from layerwise.answers import Memory
from layerwise.study import Study, parse

DATA = {"source": "blobs", "samples": 60, "features": 16, "cluster_std": 8.0, "split": {"train": 40, "test": 20}}
CONVOLUTION = {"kind": "conv", "filters": 3}
STACKS: dict[str, dict[str, Any]] = {
    "bottleneck": {"layers": [{"units": 6}, {"units": 3}, {"units": 6}]},
    "residual": {"layers": [{"units": 5}, {"kind": "residual", "units": 5, "repeat": 2}]},
    "normalised": {"layers": [{"units": 5, "normalization": "batch", "repeat": 3}]},
    "dropout": {"layers": [{"units": 5, "dropout": 0.3, "repeat": 3}]},
    "convolutions": {"input": [4, 4, 1], "layers": [CONVOLUTION, {**CONVOLUTION, "pooling": {}}, CONVOLUTION]},
    "convolution of a sequence": {"input": [8, 2], "layers": [CONVOLUTION, {"kind": "gru", "units": 3}, {"units": 4}]},
    "recurrent": {"input": [4, 4], "layers": [{"kind": "lstm", "units": 4, "repeat": 3}]},
    "custom": {"layers": [{"kind": "custom", "function": "tests.test_engine:swish", "options": {"units": 5}}] * 3},
    "two inputs": {
        "inputs": {
            "upper": {"features": "0-7", "layers": [{"units": 3}]},
            "lower": {"features": "8-15", "input": [4, 2], "layers": [CONVOLUTION]},
        },
        "layers": [{"units": 5, "repeat": 3}],
    },
    "richer head": {"layers": [{"units": 5, "repeat": 3}], "head": [{"units": 4}, {"units": 3}]},
    "settings of its own": {
        "layers": [
            {"units": 5},
            {"units": 5, "training": {"epochs": 2, "batch_size": 8, "optimizer": {"name": "adam"}}, "repeat": 2},
        ]
    },
}
TUNE = {"epochs": 1}
ARMS = {"supervised": {}, "autoencoder": {"objective": "reconstruction", "fine_tune": TUNE}}
BLOCK = (0, 1, 2)


def study(stack: str, *, depth: int = 2) -> Study:
    """A study of two hidden layers, or of the lowest alone."""
    said = dict(STACKS[stack])
    layers = [{**layer, "repeat": 1} for layer in said["layers"] for _ in range(layer.get("repeat", 1))]
    said["layers"] = layers[:depth]
    training = {"epochs": 1, "batch_size": 16, "optimizer": {"name": "sgd", "learning_rate": 0.001}}
    return parse({"name": "stack", "data": DATA, "network": said, "training": training, "arms": ARMS, "seeds": 1})


def trained(asked: Study, arm: str, seeds: tuple[int, ...] = BLOCK, memory: Memory | None = None) -> list[stages.Depth]:
    """Every depth of a small block."""
    pretraining._FEATURES.clear()
    data = datasets.generate(asked.data)
    block = dataclasses.replace(next(stages.blocks(asked, arm, data.digest)), seeds=seeds)
    return list(pretraining.depths(block, data, steps=memory or Memory()))


def arrays(depth: stages.Depth, position: int) -> list[np.ndarray]:
    """All weights and scores of one seed at one depth."""
    kept = [values[position] for network in depth.networks() for values in network.stacks]
    tuned = [depth.fine_tuned.evaluation] if depth.fine_tuned else []
    return kept + [values[position] for scores in (depth.evaluation, *tuned) for values in scores.metrics.values()]


def assert_same(one: list[stages.Depth], other: list[stages.Depth], places: dict[int, int]) -> None:
    for left, right in zip(one, other, strict=True):
        for here, there in places.items():
            for values, same in zip(arrays(left, here), arrays(right, there), strict=True):
                np.testing.assert_array_equal(values, same)


QUICK = ("convolutions", "recurrent", "two inputs", "dropout")
"""Stacks whose autoencoders `make test` tries too; those of the others are slow, since all has to be compiled."""
CASES = [
    pytest.param(stack, arm, marks=() if arm == "supervised" or stack in QUICK else pytest.mark.slow)
    for stack in STACKS
    for arm in ARMS
]


@pytest.mark.parametrize(("stack", "arm"), CASES)
def test_a_stack_keeps_the_promises(stack: str, arm: str):
    """Company, later layers and resuming change no bit; the layers below stay as they are, and the new one moves."""
    straight = trained(study(stack), arm)
    assert [depth.depth for depth in straight] == [1, 2]
    assert not any(depth.evaluation.diverged.any() for depth in straight)
    assert_same(straight, trained(study(stack), arm, (7, 2, 0)), {0: 2, 2: 1})
    [shallow] = trained(study(stack, depth=1), arm)
    one = dataclasses.replace(shallow, fine_tuned=None)  # at its end the shallow one is tuned
    assert_same(straight[:1], [one], {0: 0, 1: 1, 2: 2})
    kept = Memory()
    data = datasets.generate(study(stack).data)
    for depth in pretraining.depths(straight[0].block, data, steps=kept):
        if depth.depth == 1:
            break
    assert_same(straight[1:], trained(study(stack), arm, memory=kept)[1:], {0: 0, 1: 1, 2: 2})
    for below, above in itertools.pairwise(straight):
        assert above.chain[:-1] == below.chain
        frozen = datasets.content_digest(*(values for result in below.chain for values in result.hidden))
        assert above.chain[-1].frozen == frozen
        fresh = pretraining._fresh_layer(above.block, above.depth)
        moved = [(a != b).any() for a, b in zip(fresh, above.chain[-1].hidden, strict=True)]
        assert any(moved)


@pytest.mark.parametrize(("stack", "arm"), CASES)
def test_kept_models_score_what_was_recorded(stack: str, arm: str):
    """Every depth's whole Keras model gives, on the test part, the accuracy that was recorded for its seed."""
    asked = study(stack)
    data = datasets.generate(asked.data)
    rows, targets = data.inputs[40:], data.targets[40:]
    for depth in trained(asked, arm):
        for kept in depth.networks():
            made = models.outputs(models.keras_model(kept, 1, data), kept, rows)
            if kept.kind == "autoencoder":
                expected = depth.evaluation.metrics["test_reconstruction_mse"][1]
                assert np.square(made - rows).mean() == pytest.approx(expected, rel=1e-4)
            else:
                scores = depth.fine_tuned if kept.name.endswith("fine-tuned") else depth
                assert (made.argmax(axis=1) == targets).mean() == scores.evaluation.metrics["test_accuracy"][1]


def test_a_lower_recurrent_layer_hands_on_all_its_states():
    """Under another one, a trained recurrent layer keeps its weights and returns sequences; on top, its last state."""
    asked = study("recurrent")
    data = datasets.generate(asked.data)
    first, second = trained(asked, "supervised")
    for values, same in zip(first.chain[0].hidden, second.chain[0].hidden, strict=True):
        np.testing.assert_array_equal(values, same)
    shallow, deep = (models.keras_model(next(depth.networks()), 0, data) for depth in (first, second))
    assert not shallow.get_layer("hidden_01").return_sequences
    assert deep.get_layer("hidden_01").return_sequences
    assert not deep.get_layer("hidden_02").return_sequences


def test_convolutions_are_rebuilt_by_their_mirror_image():
    """An autoencoder of pooled convolutions ends in upsampling and a convolution to the input's channels."""
    asked = study("convolutions")
    data = datasets.generate(asked.data)
    depth = trained(asked, "autoencoder")[1]
    [kept] = [network for network in depth.networks() if network.kind == "autoencoder"]
    model = models.keras_model(kept, 0, data)
    kinds = [type(layer) for layer in model.layers]
    assert kinds[-3:] == [keras.layers.UpSampling2D, keras.layers.Conv2D, keras.layers.Reshape]
    assert model.output_shape == (None, 16)


def test_several_inputs_come_in_by_name():
    """The kept model of a study of several inputs takes each under its name."""
    asked = study("two inputs")
    data = datasets.generate(asked.data)
    model = models.keras_model(next(trained(asked, "supervised")[0].networks()), 0, data)
    assert {tensor.name: tuple(tensor.shape) for tensor in model.inputs} == {"upper": (None, 8), "lower": (None, 8)}


def test_encoders_of_one_shape_do_not_begin_alike():
    """Two inputs with equal encoders have different initial weights."""
    inputs = {name: {"features": "0-7", "layers": [{"units": 3}]} for name in ("one", "two")}
    asked = parse({"name": "twins", "data": DATA, "network": {"inputs": inputs, "layers": [{"units": 4}]}, "seeds": 1})
    [piece] = network.hidden_pieces(asked.network.hidden, asked.network.bottom(16))
    weights = network.initial_weights(piece, [5])
    assert weights[0].shape == weights[2].shape
    assert (weights[0] != weights[2]).all()


def test_a_layer_trains_with_its_own_settings():
    """A layer's own epochs, batch size and optimizer hold for its stage alone."""
    depths = trained(study("settings of its own"), "supervised")
    assert [depth.chain[-1].loss_curve.shape[1] for depth in depths] == [1, 2]


def test_the_code_of_a_custom_layer_is_part_of_its_identity(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Another source for the same function is another stage, and another run."""
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "own_layers.py"
    layer = {"kind": "custom", "function": "own_layers:layer"}
    asked = parse({"name": "own", "data": DATA, "network": {"layers": [layer]}, "seeds": 1})

    def stage_digest() -> str:
        from layerwise import identity

        return identity.greedy_digest(next(stages.blocks(asked, "greedy", "data")), 1, "")

    found = set()
    for units in (3, 4):
        source.write_text(f"import keras\n\n\ndef layer():\n    return keras.layers.Dense({units})\n")
        found |= {stage_digest(), asked.digest()}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("", "layer is not there in module own_bad; expected a function"),
        ("raise RuntimeError('no')", "importing own_bad failed \\(RuntimeError: no\\)"),
        ("def layer(): return 3", "returned a int; expected a Keras layer"),
        ("def layer(): return 1 / 0", "failed with options"),
        ("import keras\ndef layer(): return keras.layers.Conv2D(3, 3)", "does not take rows of shape \\(16,\\)"),
    ],
)
def test_a_custom_layer_that_is_none_is_refused(tmp_path, monkeypatch, code: str, complaint: str):
    """What the user's function does wrong is said in one line."""
    import sys

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_bad", raising=False)
    (tmp_path / "own_bad.py").write_text(code)
    layer = {"kind": "custom", "function": "own_bad:layer"}
    asked = parse({"name": "own", "data": DATA, "network": {"layers": [layer]}, "seeds": 1})
    with pytest.raises(layerwise.StudyError, match=complaint) as refusal:
        layerwise.run(asked)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_custom_layer_that_is_not_there_is_refused():
    """A module that cannot be found is named, with where to put it."""
    layer = {"kind": "custom", "function": "no_such_module:layer"}
    asked = parse({"name": "own", "data": DATA, "network": {"layers": [layer]}, "seeds": 1})
    with pytest.raises(layerwise.StudyError, match=r"no module 'no_such_module' was found; put no_such_module\.py"):
        layerwise.run(asked)


@pytest.mark.parametrize("stack", STACKS)
def test_an_encoder_gives_what_the_hidden_layers_make(stack: str, tmp_path: Path):
    """From a model's file, for every kind of layer: the features of the top hidden layer, whatever stands on top."""
    asked = study(stack)
    data = datasets.generate(asked.data)
    (block,) = stages.blocks(asked, "supervised", data.digest)
    hidden = models.hidden_layers(block, 2)
    pieces = [*hidden, models.answer_output(block, data, hidden[-1])]
    stacks = [network.initial_weights(piece, block.seeds) for piece in pieces]
    kept = stages.Network("depth-02", "classifier", block, 2, 2, tuple(itertools.chain(*stacks)))
    models.keras_model(kept, 0, data).save(tmp_path / "model.keras")
    features = data.inputs
    for piece, weights in zip(hidden, stacks, strict=False):
        alone = network.piece_alone(piece)
        for variable, values in zip(alone.weights, weights, strict=True):
            variable.assign(values[0])
        features = alone.model.predict(features, verbose=0)
    encoder = network.encoder(raw_rows.network(tmp_path / "model.keras"), "encoder_depth_02")
    found = encoder.predict(network.fed(hidden[0], data.inputs), verbose=0)
    np.testing.assert_array_equal(found, features)
    assert found.std() > 0


def test_what_is_no_network_of_ours_has_no_encoder():
    """A model whose layers have other names is refused in one line."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="other")], name="theirs")
    with pytest.raises(ValueError, match="the model 'theirs' has no output layer by a name that Layerwise gives one"):
        network.encoder(model, "encoder")
