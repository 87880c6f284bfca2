"""Layers in a study file: every kind, several inputs and heads, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layerwise.study import StudyError, block_size, load, parse

DIGITS = {"name": "shapes", "data": {"source": "digits"}, "seeds": 2}
CONV, LSTM = {"kind": "conv", "filters": 4}, {"kind": "lstm", "units": 4}


def study(*layers: Any, **network: Any):
    return parse({**DIGITS, "network": {"layers": list(layers), **network}})


@pytest.mark.parametrize(
    ("layers", "network", "labels"),
    [
        ([{"units": 10, "repeat": 2}, {"units": 3}], {}, ["10", "10", "3"]),
        ([CONV, {**CONV, "pooling": {}}, {"units": 5}], {"input": [8, 8, 1]}, ["conv 4", "conv 4", "5"]),
        ([CONV, LSTM, {"kind": "gru", "units": 3}], {"input": [8, 8]}, ["conv 4", "lstm 4", "gru 3"]),
        ([{"units": 6}, {"kind": "residual", "units": 6}], {}, ["6", "6"]),
        ([{"kind": "custom", "function": "a.b:c"}, LSTM], {"input": [8, 8]}, ["a.b:c", "lstm 4"]),
        ([{"units": 6}], {"head": [{"units": 4}, {"units": 2}]}, ["6"]),
    ],
)
def test_layers_of_every_kind_are_read(layers: list[Any], network: dict[str, Any], labels: list[str]):
    """Each kind is known by name, dense if none is said, and equal layers are unrolled."""
    assert [layer.label for layer in study(*layers, **network).network.hidden] == labels


BAD = {
    "an image that comes in flat": ((CONV,), {}, "network: layer 1 (conv) takes (steps, channels) or (height"),
    "a sequence that comes in flat": ((LSTM,), {}, "network: layer 1 (lstm) takes (steps, features), but a row of"),
    "an image for a sequence": ((LSTM,), {"input": [8, 8, 1]}, "but a row of shape (8, 8, 1) comes in"),
    "a convolution on dense units": (({"units": 9}, CONV), {}, "layer 2 (conv) takes (steps, channels)"),
    "nothing left by pooling": (
        ({**CONV, "pooling": {"size": 4}}, {**CONV, "pooling": {"size": 4}}),
        {"input": [8, 8, 1]},
        "layer 2 (conv) leaves nothing of an axis of length 2",
    ),
    "nothing left by the kernel": (
        ({**CONV, "kernel_size": 9, "padding": "valid"},),
        {"input": [8, 8, 1]},
        "leaves nothing of an axis of length 8",
    ),
    "a residual of another width": (
        ({"units": 5}, {"kind": "residual", "units": 6}),
        {},
        "layer 2 (residual) adds its input to 6 units, but a row of shape (5,) comes in; make them equal",
    ),
    "a shape of other numbers": (
        (CONV,),
        {"input": [7, 8, 1]},
        "a row of shape (7, 8, 1) has 56 numbers, but the data",
    ),
    "an unknown kind": (({"kind": "lstn", "units": 3},), {}, "received 'lstn'; did you mean lstm?"),
    "a key of another kind": (({**LSTM, "filters": 3},), {"input": [8, 8]}, "network.layers.0.filters: unknown key"),
    "dropout of everything": (({"units": 3, "dropout": 1.0},), {}, "network.layers.0.dropout: received 1.0"),
    "a penalty below zero": (({"units": 3, "regularization": {"l2": -1}},), {}, "regularization.l2: received -1"),
    "no import path": (({"kind": "custom", "function": "../evil"},), {}, "function: received '../evil'"),
    "a head with its own training": (
        ({"units": 3},),
        {"head": [{"units": 3, "training": {"epochs": 2}}]},
        "head: its layers have no stage of their own",
    ),
    "a recurrent head": (({"units": 3},), {"head": [LSTM]}, "network: head: layer 1 (lstm) takes (steps, features)"),
    "a batch of its own that is too large": (
        ({"units": 3, "training": {"batch_size": 5000}},),
        {},
        "training.batch_size 5000 is larger than the training part",
    ),
    "noise without a reconstruction": (
        ({"units": 3, "noise": {"kind": "masking", "rate": 0.2}},),
        {},
        "arms.greedy: a layer has noise, but a supervised arm has no reconstruction to denoise",
    ),
    "a feature that is not there": (
        ({"units": 3},),
        {"inputs": {"one": {"features": "0-64", "layers": [{"units": 3}]}}},
        "inputs.one.features: received 64; a row has positions 0 to 63",
    ),
    "features that are no positions": (
        ({"units": 3},),
        {"inputs": {"one": {"features": "first ten", "layers": [{"units": 3}]}}},
        "received 'first ten'; expected positions such as 0-31 or 0, 3, 8",
    ),
    "positions that go down": (
        ({"units": 3},),
        {"inputs": {"one": {"features": "9-3", "layers": [{"units": 3}]}}},
        "does not go upwards",
    ),
    "an encoder that does not fit": (
        ({"units": 3},),
        {"inputs": {"one": {"features": "0-7", "layers": [CONV]}}},
        "network: inputs.one: layer 1 (conv) takes",
    ),
    "both an input and inputs": (
        ({"units": 3},),
        {"input": [8, 8], "inputs": {"one": {"features": "0-7", "layers": [{"units": 3}]}}},
        "says both input and inputs",
    ),
    "an input's name with a slash": (
        ({"units": 3},),
        {"inputs": {"../x": {"features": "0-7", "layers": [{"units": 3}]}}},
        "received the name '../x'; use letters, digits and _",
    ),
}


@pytest.mark.parametrize(("layers", "network", "complaint"), BAD.values(), ids=BAD.keys())
def test_layers_that_do_not_fit_are_refused_in_one_line(
    layers: tuple[Any, ...], network: dict[str, Any], complaint: str
):
    """The message names the layer, what comes in, and what to do."""
    with pytest.raises(StudyError) as refusal:
        study(*layers, **network)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_blocks_are_sized_by_shapes():
    """Wide layers train one seed at a time, large features make smaller blocks, and more seeds change neither."""
    assert block_size(study({"units": 32})) == 10
    assert block_size(study({"units": 2000})) == 1
    many = {"source": "blobs", "samples": 200_000, "features": 64, "split": {"train": 0.5, "test": 0.5}}
    for seeds in (2, 50):
        asked = parse({**DIGITS, "data": many, "network": {"layers": [{"units": 100}]}, "seeds": seeds})
        assert block_size(asked) == 5


def test_the_images_of_a_user_are_read_in_their_usual_form(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The ready-made study of MNIST takes mnist.npz from the working directory, and says so where there is none."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"'mnist\.npz' is no file in the study's folder or the working directory"):
        load("mnist-small")
    rng = np.random.default_rng(0)
    parts = {
        f"{kind}_{part}": values
        for part, rows in (("train", 60_000), ("test", 10_000))
        for kind, values in (
            ("x", np.zeros((rows, 28, 28), np.uint8)),
            ("y", rng.integers(10, size=rows).astype(np.uint8)),
        )
    }
    np.savez_compressed("mnist.npz", **parts)
    asked = load("mnist-small")
    assert asked.data.shape() == (70_000, 784, 10)
    assert asked.blocks()[0] == (0,)
