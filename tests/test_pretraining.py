"""The algorithm: what is frozen, what is kept, what depends on what."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

import layerwise
from layerwise import datasets, engine, network, pretraining
from layerwise.pretraining import Depth
from tests.studies import small


def trained(study) -> list[Depth]:
    data = datasets.generate(study.data)
    found = [d for b in pretraining.blocks(study, "greedy", data.digest) for d in pretraining.depths(b, data)]
    pretraining._FEATURES.clear()
    return found


def same_weights(one: Depth, other: Depth) -> bool:
    pairs = zip(one.chain, other.chain, strict=True)
    return all(
        np.array_equal(a, b)
        for left, right in pairs
        for a, b in zip((*left.hidden, *left.output), (*right.hidden, *right.output), strict=True)
    )


def test_frozen_layers_keep_their_bits_and_the_new_one_moves():
    """At every depth the layers below are, bit for bit, what they were, and the new layer and the output moved."""
    study = small(depth=4)
    data = datasets.generate(study.data)
    depths = trained(study)
    for below, above in zip(depths, depths[1:], strict=False):
        frozen = [values for result in below.chain for values in result.hidden]
        assert datasets.content_digest(*frozen) == above.chain[-1].frozen
        for position in range(3):
            count = 2 * len(below.chain)
            for lower, kept in zip(below.weights(position)[:count], above.weights(position)[:count], strict=True):
                np.testing.assert_array_equal(lower, kept)
        start = pretraining._fresh("add_layer", len(above.chain), study.network.hidden[0], (10,), above.block.seeds)
        for before, after in zip(
            (*start, *below.chain[-1].output), (*above.chain[-1].hidden, *above.chain[-1].output), strict=True
        ):
            assert (before != after).reshape(10, -1).any(axis=1).all()
    assert data.digest == depths[0].block.data_digest


def test_a_frozen_layer_that_moves_fails_the_run(monkeypatch: pytest.MonkeyPatch):
    """The check at run time sees a change of a frozen layer while another one trains."""
    study = small(depth=2)
    data = datasets.generate(study.data)
    block = next(pretraining.blocks(study, "greedy", data.digest))
    first = pretraining.base(block, data, "d1")
    fit = engine.fit

    def meddling(*arguments):
        first.hidden[0][0, 0, 0] += 1e-6
        return fit(*arguments)

    monkeypatch.setattr(engine, "fit", meddling)
    with pytest.raises(pretraining.FrozenLayerMoved, match="greedy, depth 2: a frozen layer changed"):
        pretraining.add_layer(block, data, (first,), "d2")


@pytest.mark.parametrize("seed", [0, 2])
def test_every_stage_agrees_with_keras(seed: int):
    """Base and added layers reach the weights that ``keras.Model.fit`` reaches on the whole, partly frozen model."""
    study = small(depth=3, training={"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}})
    data = datasets.generate(study.data)
    for depth in trained(study):
        count, block = depth.evaluation.depth, depth.block
        stage = depth.chain[-1].stage
        order = pretraining._orders(block, data, stage, count)[seed]
        start = pretraining._fresh(stage, count, block.layers[count - 1], (2,) if count == 1 else (10,), block.seeds)
        output = depth.chain[-2].output if count > 1 else pretraining._fresh("output", 0, 3, (10,), block.seeds)
        below = [values[seed] for result in depth.chain[:-1] for values in result.hidden]
        model = network.classifier(block.layers[:count], 3, (2,), trainable_from=count)
        model.set_weights([*below, *(values[seed] for values in (*start, *output))])
        model.compile(network.optimizer(block.training.optimizer), "categorical_crossentropy")
        model.fit(data.inputs[order[0]], data.one_hot[order[0]], batch_size=32, epochs=1, shuffle=False, verbose=0)
        for ours, theirs in zip(depth.weights(seed), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=5e-5)


def test_a_full_stage_agrees_with_keras_on_a_well_conditioned_case():
    """Forty epochs of a smooth, small-step stage stay within 1e-4 of ``keras.Model.fit``."""
    study = small(
        depth=1,
        network={"layers": [{"units": 5, "activation": "tanh"}]},
        training={"epochs": 40, "optimizer": {"name": "sgd", "learning_rate": 0.01}},
    )
    data = datasets.generate(study.data)
    [depth] = trained(study)
    order = pretraining._orders(depth.block, data, "base", 1)[1]
    start = pretraining._fresh("base", 1, study.network.hidden[0], (2,), depth.block.seeds)
    output = pretraining._fresh("output", 0, 3, (5,), depth.block.seeds)
    model = network.classifier(study.network.hidden, 3, (2,))
    model.set_weights([values[1] for values in (*start, *output)])
    model.compile(network.optimizer(study.training.optimizer), "categorical_crossentropy")
    for rows in order:
        model.fit(data.inputs[rows], data.one_hot[rows], batch_size=32, epochs=1, shuffle=False, verbose=0)
    for ours, theirs in zip(depth.weights(1), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_lies_above_changes_nothing_below():
    """A study of two layers and the first two depths of one of four have the same bits and digests."""
    shallow, deep = trained(small(depth=2)), trained(small(depth=4))
    for one, other in zip(shallow, deep, strict=False):
        assert one.chain[-1].digest == other.chain[-1].digest
        assert same_weights(one, other)
        for name, values in one.evaluation.metrics.items():
            np.testing.assert_array_equal(values, other.evaluation.metrics[name])


def test_a_resumed_stage_has_the_bits_of_an_uninterrupted_one():
    """A layer added to results read back, with no features in memory, is the layer of a straight run."""
    study = small(depth=3)
    data = datasets.generate(study.data)
    straight = trained(study)[-1]
    resumed = pretraining.add_layer(straight.block, data, straight.chain[:-1], straight.chain[-1].digest)
    assert same_weights(straight, dataclasses.replace(straight, chain=(*straight.chain[:-1], resumed)))


def test_more_seeds_leave_finished_blocks_as_they_are():
    """Three seeds and twelve: the shared block has the same digest and bits, and only the seeds asked for count."""
    few, many = trained(small(depth=1)), trained(small(depth=1, seeds=12))
    assert few[0].chain[-1].digest == many[0].chain[-1].digest
    assert same_weights(few[0], many[0])
    assert (few[0].block.reported, many[0].block.reported, many[1].block.reported) == (3, 10, 2)
    assert [row["seed"] for row in pretraining.rows(many[1])] == [10, 11]


def test_adding_a_layer_costs_the_same_at_every_depth(monkeypatch: pytest.MonkeyPatch):
    """Each added layer is one training call of one program shape and one pass for features, at any depth."""
    fits, passes = [], []
    fit, apply = engine.fit, engine.apply
    monkeypatch.setattr(engine, "fit", lambda problem, *rest: fits.append(problem) or fit(problem, *rest))
    monkeypatch.setattr(engine, "apply", lambda *args, **kwargs: passes.append(args[2].shape) or apply(*args, **kwargs))
    pretraining._FEATURES.clear()
    trained(small(depth=6))
    assert len(fits) == 6
    assert len(set(fits)) == 2
    assert len(set(fits[1:])) == 1
    assert len(passes) == 2 * 6  # one through the new layer, one through the output layer to score


def test_digest_follows_everything_that_decides_bits():
    """A stage's digest changes with training, layer, seeds, repeat and data, and with nothing else."""
    study = small(depth=2)

    def digest(study, repeat="", data="d"):
        block = next(pretraining.blocks(study, "greedy", data, repeat))
        return pretraining.stage_digest(block, 1, block.data_digest)

    base = digest(study)
    assert digest(small(depth=5, seeds=9, question="another", name="other")) == base
    assert digest(study, repeat="again") != base
    assert digest(study, data="e") != base
    assert digest(small(depth=2, training={"epochs": 3})) != base
    assert digest(small(depth=2, network={"layers": [{"units": 11}]})) != base


def test_divergence_is_recorded_and_stays():
    """A seed that overflows at one depth is diverged there and above, and is left out of the means."""
    study = small(depth=2, training={"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 1e25}})
    result = layerwise.run(study)
    metrics = result.metrics()
    assert metrics["diverged"].all()
    table = result.table()
    assert (table["diverged"] == 3).all()
    assert table["test_accuracy_mean"].isna().all()


def test_result_gives_numbers_and_models():
    """The result's table holds every depth, and its models score the accuracy that it reports."""
    result = layerwise.run(small(depth=2))
    assert list(result.table()["depth"]) == [1, 2]
    assert isinstance(result.metrics(), pd.DataFrame)
    row = result.metrics().query("seed == 2 and depth == 2").iloc[0]
    model = result.model(seed=2, depth=2)
    test = result.data.test
    predicted = np.asarray(model(result.data.inputs[test])).argmax(axis=1)
    assert (predicted == result.data.targets[test]).mean() == pytest.approx(row["test_accuracy"])
    assert [layer.trainable for layer in model.layers] == [False, True, True]
    assert isinstance(model, keras.Model)
    with pytest.raises(KeyError, match="no seed 3 at depth 2; there are 3 seeds, 2 depths"):
        result.model(seed=3, depth=2)
