"""The algorithm: what is frozen, what is kept, what depends on what, for every kind of arm."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import layerwise
from layerwise import datasets, engine, identity, models, network, pretraining, scoring, stages
from layerwise.answers import Memory
from layerwise.selection import chosen_network
from layerwise.stages import Block, Depth
from tests.studies import small

RECONSTRUCTION = {"objective": "reconstruction"}
TUNE = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 0.001}}
ARMS = {
    "supervised": {},
    "supervised_tuned": {"fine_tune": {**TUNE, "at": "every_depth"}},
    "autoencoder": RECONSTRUCTION,
    "masking": {**RECONSTRUCTION, "noise": {"kind": "masking", "rate": 0.3}},
    "gaussian": {**RECONSTRUCTION, "noise": {"kind": "gaussian", "sd": 0.5}},
    "tuned_before": {**RECONSTRUCTION, "fine_tune": {**TUNE, "objective": "reconstruction", "at": "every_depth"}},
    "tuned_after": {**RECONSTRUCTION, "fine_tune": {**TUNE, "at": "every_depth"}},
    "tuned_both": {**RECONSTRUCTION, "fine_tune": {**TUNE, "objective": "both", "at": "every_depth"}},
    "carried": {**RECONSTRUCTION, "fine_tune": {**TUNE, "objective": "both", "at": "every_depth", "carry": True}},
    "few_labels": {**RECONSTRUCTION, "labels": 12, "head": {"epochs": 2, "batch_size": 5}},
    "scaled": {"scaling": "standard"},
    "end_to_end": {"control": "end_to_end", "of": "supervised", "depths": "all"},
    "joint_autoencoder": {"control": "end_to_end", "of": "autoencoder", "depths": "all"},
    "random_frozen": {"control": "random_frozen", "of": "supervised"},
    "scratch": {"control": "scratch", "of": "tuned_after"},
    "permuted": {"control": "permuted", "of": "tuned_after"},
}
GREEDY = [arm for arm, said in ARMS.items() if "control" not in said]


def with_arms(depth: int = 3, **changes):
    study = {"arms": ARMS, **changes}
    return small(depth=depth, **study)


def trained(study, arm: str, *, seeds: tuple[int, ...] | None = None, repeat: str = "") -> list[Depth]:
    """Every depth of an arm's first block, from nothing; ``seeds`` puts others into the block."""
    pretraining._FEATURES.clear()
    data = datasets.generate(study.data)
    block = next(stages.blocks(study, arm, data.digest, repeat))
    if seeds:
        block = dataclasses.replace(block, seeds=seeds)
    return list(pretraining.depths(block, data, steps=Memory()))


def weights(depth: Depth, position: int) -> dict[str, list[np.ndarray]]:
    return {kept.name: [values[position] for values in kept.stacks] for kept in depth.networks()}


def assert_same(one: Depth, other: Depth, *, places: tuple[int, int] | None = None) -> None:
    """Both depths have the same bits, for every seed or for one that stands at two places."""
    for here, there in [places] if places else [(place, place) for place in range(10)]:
        left, right = weights(one, here), weights(other, there)
        assert left.keys() == right.keys()
        for name in left:
            for values, same in zip(left[name], right[name], strict=True):
                np.testing.assert_array_equal(values, same, err_msg=name)
        for pair in zip(scores(one), scores(other), strict=True):
            for name, values in pair[0].items():
                np.testing.assert_array_equal(values[here], pair[1][name][there], err_msg=name)


def scores(depth: Depth) -> list[dict[str, np.ndarray]]:
    own = [depth.evaluation.metrics]
    return own + scores(depth.fine_tuned) if depth.fine_tuned else own


@pytest.mark.parametrize("arm", ARMS)
def test_the_block_is_invisible(arm: str):
    """A seed's networks and scores have the same bits whatever seeds share its block and wherever it stands."""
    study = with_arms(depth=2)
    one = trained(study, arm)
    other = trained(study, arm, seeds=(13, 4, 25, 0, 31, 32, 2, 34, 35, 36))
    for left, right in zip(one, other, strict=True):
        for places in ((4, 1), (0, 3), (2, 6)):
            assert_same(left, right, places=places)


@pytest.mark.parametrize("arm", ARMS)
def test_what_lies_above_changes_nothing_below(arm: str):
    """A study of two layers and the first two depths of one of three have the same bits."""
    shallow, deep = trained(with_arms(depth=2), arm), trained(with_arms(depth=3), arm)
    compared = 0
    for one in shallow:
        for other in deep:
            if one.depth == other.depth:
                assert_same(one, other)
                compared += 1
    assert compared == 2


@pytest.mark.parametrize("arm", ARMS)
def test_arms_that_share_a_study_do_not_touch(arm: str):
    """An arm has the same bits alone in its study, or with the arm it controls for, as among all the others."""
    said = ARMS[arm]
    alone = small(depth=2, arms={**({said["of"]: ARMS[said["of"]]} if "of" in said else {}), arm: said})
    for one, other in zip(trained(alone, arm), trained(with_arms(depth=2), arm), strict=True):
        assert one.chain[-1].digest == other.chain[-1].digest
        assert_same(one, other)


@pytest.mark.parametrize("arm", ARMS)
def test_a_resumed_depth_has_the_bits_of_an_uninterrupted_one(arm: str):
    """The last depth, made again from stored results with no features in memory, is that of a straight run."""
    study = with_arms(depth=3)
    straight = trained(study, arm)[-1]
    data = datasets.generate(study.data)
    kept = Memory()
    for depth in pretraining.depths(straight.block, data, steps=kept):
        if depth.depth == 2:
            break
    pretraining._FEATURES.clear()
    resumed = list(pretraining.depths(straight.block, data, steps=kept))[-1]
    assert_same(straight, resumed)


@pytest.mark.parametrize("arm", GREEDY)
def test_frozen_layers_keep_their_bits_and_the_new_one_moves(arm: str):
    """At every depth the layers below are, bit for bit, what they were; the new layer has moved from its start."""
    depths = trained(with_arms(depth=3), arm)
    block = depths[0].block
    for below, above in itertools.pairwise(depths):
        frozen = below.fine_tuned.chain if arm == "carried" else below.chain
        digest = datasets.content_digest(*(values for result in frozen for values in result.hidden))
        assert above.chain[-1].frozen == digest
        for lower, kept in zip(frozen, above.chain, strict=False):
            for values, same in zip(lower.hidden, kept.hidden, strict=True):
                np.testing.assert_array_equal(values, same)
        start = pretraining._fresh_layer(block, above.depth)
        for before, after in zip(start, above.chain[-1].hidden, strict=True):
            assert (before != after).reshape(10, -1).any(axis=1).all()


@pytest.mark.parametrize("arm", ["autoencoder", "few_labels", "masking"])
def test_a_head_leaves_the_encoder_and_the_reconstruction_alone(arm: str):
    """The head is a new softmax layer; nothing of it reaches the next depth."""
    for depth in trained(with_arms(depth=2), arm):
        assert depth.head.hidden == ()
        assert depth.head.output[0].shape == (10, 10, 3)
        assert depth.chain[-1].output[0].shape == (10, 10, 2)
        encoder = datasets.content_digest(*(values for result in depth.chain for values in result.hidden))
        assert depth.head.frozen == encoder


def test_fine_tuning_does_not_leak():
    """Fine tuning at depth k leaves the greedy chain at depth k+1 as it is without it, unless it is carried."""
    study = with_arms(depth=3)
    plain, tuned, carried = (trained(study, arm) for arm in ("autoencoder", "tuned_both", "carried"))
    for one, other in zip(plain, tuned, strict=True):
        assert one.chain[-1].digest == other.chain[-1].digest
    assert plain[0].chain[-1].digest == carried[0].chain[-1].digest
    assert plain[1].chain[-1].digest != carried[1].chain[-1].digest
    for values, same in zip(carried[0].fine_tuned.chain[0].hidden, carried[1].chain[0].hidden, strict=True):
        np.testing.assert_array_equal(values, same)


@pytest.mark.parametrize("arm", ["supervised_tuned", "tuned_before", "tuned_after", "tuned_both"])
def test_fine_tuning_moves_every_layer(arm: str):
    """After fine tuning every hidden layer of every seed differs from what pretraining left."""
    depth = trained(with_arms(depth=2), arm)[-1]
    for before, after in zip(depth.chain, depth.fine_tuned.chain, strict=True):
        for values, moved in zip(before.hidden, after.hidden, strict=True):
            assert (values != moved).reshape(10, -1).any(axis=1).all()


def test_learning_rate_factors_hold_layers_still():
    """A layer of factor 0 keeps its bits through fine tuning while the others move."""
    tune = {**TUNE, "learning_rate_factors": [0, 1, 1]}
    depth = trained(small(depth=2, arms={"greedy": {"fine_tune": tune}}), "greedy")[-1]
    before, after = depth.chain, depth.fine_tuned.chain
    np.testing.assert_array_equal(before[0].hidden[0], after[0].hidden[0])
    assert (before[1].hidden[0] != after[1].hidden[0]).any()


def keras_model(block: Block, depth: int, kind: str, parts: list[np.ndarray], trainable: set[int]) -> keras.Model:
    """A whole Keras network of which only some hidden layers (from 1) and the output layer train."""
    hidden = models.hidden_layers(block, depth)
    width, activation = (2, "linear") if kind == "autoencoder" else (3, "softmax")
    output = network.Output(width, network.features_shape(hidden[-1]))
    model = network.whole(hidden, output, "whole", activation=activation).model
    for level in range(1, depth + 1):
        model.get_layer(f"hidden_{level:02d}").trainable = level in trainable
    model.set_weights(parts)
    return model


STAGES = {
    "base": ("autoencoder", "base", 1), "add_layer": ("autoencoder", "add_layer", 2),
    "supervised base": ("supervised", "base", 1), "supervised add_layer": ("supervised", "add_layer", 3),
    "head": ("autoencoder", "head", 2), "fine_tune on labels": ("tuned_after", "fine_tune", 2),
    "fine_tune on reconstruction": ("tuned_before", "fine_tune", 2), "jointly": ("end_to_end", "jointly", 2),
    "joint autoencoder": ("joint_autoencoder", "jointly", 2), "scratch": ("scratch", "jointly", 3),
}  # fmt: skip


@pytest.mark.parametrize(("arm", "stage", "level"), STAGES.values(), ids=STAGES.keys())
@pytest.mark.parametrize("seed", [0, 7])
def test_every_stage_is_keras(monkeypatch: pytest.MonkeyPatch, arm: str, stage: str, level: int, seed: int):
    """Each stage reaches the weights that ``keras.Model.fit`` reaches on the whole network, partly frozen, to 1e-4."""
    calls, fit = [], engine.fit

    def watched(problem, start, inputs, targets, order, keys=None):
        fitted = fit(problem, start, inputs, targets, order, keys)
        calls.append((problem, start, order, fitted))
        return fitted

    monkeypatch.setattr(engine, "fit", watched)
    one_epoch = {"training": {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9}}}
    study = with_arms(depth=3, **one_epoch)
    depths = {depth.depth: depth for depth in trained(study, arm)}
    done, data = depths[level], datasets.generate(study.data)
    wanted = done.fine_tuned.chain[-1] if stage == "fine_tune" else done.head if stage == "head" else done.chain[-1]
    [(problem, start, order, fitted)] = [
        call for call in calls if call[3].weights[-1] is (wanted.output or done.fine_tuned.head.output)[-1]
    ]
    below = (
        []
        if len(problem.hidden) == level
        else [v[seed] for r in done.chain[: level - len(problem.hidden)] for v in r.hidden]
    )
    kind = "autoencoder" if problem.loss == "mean_squared_error" else "classifier"
    moving = set(range(level - len(problem.hidden) + 1, level + 1))
    model = keras_model(done.block, level, kind, [*below, *(v[seed] for v in start)], moving)
    loss = "mean_squared_error" if kind == "autoencoder" else "categorical_crossentropy"
    model.compile(network.optimizer(problem.optimizer), loss)
    seen = done.block.view(data)
    targets = seen.inputs if kind == "autoencoder" else seen.one_hot
    for rows in order[seed]:
        model.fit(seen.inputs[rows], targets[rows], batch_size=problem.batch_size, epochs=1, shuffle=False, verbose=0)
    for ours, theirs in zip([*below, *(v[seed] for v in fitted.weights)], model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_full_stage_is_keras_on_a_well_conditioned_case():
    """Forty epochs of a smooth, small-step stage stay within 1e-4 of ``keras.Model.fit``."""
    study = small(
        depth=1,
        network={"layers": [{"units": 5, "activation": "tanh"}]},
        training={"epochs": 40, "optimizer": {"name": "sgd", "learning_rate": 0.01}},
    )
    [depth] = trained(study, "greedy")
    block, data = depth.block, datasets.generate(study.data)
    seen = block.view(data)
    stage = pretraining._Stage("base", 1, "labels", study.training)
    order = stage.order(block).drawn(seen.train)[1]
    start = pretraining._fresh_layer(block, 1)
    output = pretraining._fresh("output", 0, network.Output(3, (5,)), block.seeds)
    model = keras_model(block, 1, "classifier", [values[1] for values in (*start, *output)], {1})
    model.compile(network.optimizer(study.training.optimizer), "categorical_crossentropy")
    for rows in order:
        model.fit(seen.inputs[rows], seen.one_hot[rows], batch_size=32, epochs=1, shuffle=False, verbose=0)
    for ours, theirs in zip(weights(depth, 1)["depth-01"], model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_frozen_layer_that_moves_fails_the_run(monkeypatch: pytest.MonkeyPatch):
    """The check at run time sees a change of a frozen layer while another one trains."""
    study = small(depth=2)
    data = datasets.generate(study.data)
    block = next(stages.blocks(study, "greedy", data.digest))
    first = pretraining.base(block, data, "d1")
    fit = engine.fit

    def meddling(*arguments):
        first.hidden[0][0, 0, 0] += 1e-6
        return fit(*arguments)

    monkeypatch.setattr(engine, "fit", meddling)
    with pytest.raises(pretraining.FrozenLayerMoved, match="greedy, depth 2: a frozen layer changed"):
        pretraining.add_layer(block, data, (first,), "d2")


def test_a_shared_prefix_is_trained_once(monkeypatch: pytest.MonkeyPatch):
    """Arms that differ only in fine tuning, or in how many rows keep their label, pretrain once between them."""
    fits, fit = [], engine.fit
    monkeypatch.setattr(engine, "fit", lambda problem, *rest: fits.append(problem) or fit(problem, *rest))
    arms = {name: ARMS[name] for name in ("autoencoder", "tuned_after", "few_labels")}
    layerwise.run(small(depth=3, arms=arms))
    pretraining_stages = [problem for problem in fits if problem.loss == "mean_squared_error"]
    assert len(pretraining_stages) == 3
    assert len(fits) == 3 + 3 + 3 + 3  # pretraining; heads of autoencoder and tuned_after; tuning; heads of few_labels


def test_end_to_end_spends_the_same_epochs():
    """The control trains as deep a network for as many epochs in all, from the weights greedy training starts with."""
    study = with_arms(depth=3)
    for depth in trained(study, "end_to_end"):
        assert depth.chain[-1].loss_curve.shape == (10, study.training.epochs * depth.depth)


def test_random_frozen_is_untrained():
    """The hidden layers of the control are the initial ones; only its head has been trained."""
    depths = trained(with_arms(depth=2), "random_frozen")
    for level, result in enumerate(depths[-1].chain, start=1):
        start = pretraining._fresh_layer(depths[0].block, level)
        for values, same in zip(result.hidden, start, strict=True):
            np.testing.assert_array_equal(values, same)
    assert depths[-1].head.loss_curve.shape[1] == 2


def test_permuted_weights_are_the_same_numbers_elsewhere():
    """Every array of every hidden layer holds the pretrained numbers of its seed, in another order."""
    study = with_arms(depth=2)
    pretrained, shuffled = trained(study, "tuned_after")[-1], trained(study, "permuted")[-1]
    for before, after in zip(pretrained.chain, shuffled.chain, strict=True):
        np.testing.assert_array_equal(
            np.sort(before.hidden[0].reshape(10, -1)), np.sort(after.hidden[0].reshape(10, -1))
        )
        assert (before.hidden[0] != after.hidden[0]).any()


def test_layers_of_different_widths_are_stacked():
    """A stack of 10, 6 and 3 units trains; its networks have those shapes, and a bottleneck is no collapse."""
    layers = [{"units": units, "activation": "tanh"} for units in (10, 6, 3)]
    study = small(network={"layers": layers}, arms={"autoencoder": RECONSTRUCTION}, training={"epochs": 3})
    depth = trained(study, "autoencoder")[-1]
    assert [kernel.shape for kernel in depth.chain[-1].hidden] == [(10, 6, 3), (10, 3)]
    assert depth.chain[-1].output[0].shape == (10, 3, 2)


def test_more_seeds_leave_finished_blocks_as_they_are():
    """Three seeds and twelve: the shared block has the same digest, and only the seeds asked for count."""
    study = small(depth=1, seeds=12)
    first, second = stages.blocks(study, "greedy", "data")
    [few] = stages.blocks(small(depth=1), "greedy", "data")
    assert identity.greedy_digest(few, 1, "") == identity.greedy_digest(first, 1, "")
    assert (few.reported, first.reported, second.reported) == (3, 10, 2)
    depth = next(pretraining.depths(second, datasets.generate(study.data)))
    assert [row["seed"] for row in depth.records()] == [10, 11]


def test_adding_a_layer_costs_the_same_at_every_depth(monkeypatch: pytest.MonkeyPatch):
    """Each added layer is one training call of one program shape and one pass for features, at any depth."""
    fits, passes = [], []
    fit, apply = engine.fit, engine.apply
    monkeypatch.setattr(engine, "fit", lambda problem, *rest: fits.append(problem) or fit(problem, *rest))
    monkeypatch.setattr(engine, "apply", lambda *args, **kwargs: passes.append(args[2].shape) or apply(*args, **kwargs))
    trained(small(depth=6), "greedy")
    assert len(fits) == 6
    assert len(set(fits)) == 2
    assert len(set(fits[1:])) == 1
    assert len(passes) == 2 * 6  # one through the new layer, one through the output layer to score


def test_digest_follows_everything_that_decides_bits():
    """A stage's digest changes with training, layer, seeds, noise, scaling, repeat and data, and with nothing else."""

    def digest(study, arm="greedy", repeat="", data="d"):
        return identity.greedy_digest(next(stages.blocks(study, arm, data, repeat)), 1, "")

    base = digest(small(depth=2))
    assert digest(small(depth=5, seeds=9, question="another", name="other")) == base
    assert digest(with_arms(), arm="supervised") == base
    changed = [
        digest(small(depth=2), repeat="again"),
        digest(small(depth=2), data="e"),
        digest(small(depth=2, training={"epochs": 3})),
        digest(small(depth=2, network={"layers": [{"units": 11}]})),
        *(digest(with_arms(), arm=arm) for arm in ("autoencoder", "masking", "gaussian", "scaled")),
        digest(small(depth=2, arms={"greedy": {"labels": 30, "training": {"batch_size": 30}}})),
    ]
    assert len({base, *changed}) == len(changed) + 1
    # What needs no label does not depend on how many there are.
    assert digest(with_arms(), arm="few_labels") == digest(with_arms(), arm="autoencoder")


@pytest.mark.parametrize("arm", ["greedy", "autoencoder"])
def test_divergence_is_recorded_and_stays(arm: str):
    """Seeds that overflow are diverged, are left out of the means, and the study still ends with its table."""
    wild = {"epochs": 2, "optimizer": {"name": "sgd", "learning_rate": 1e25}}
    result = layerwise.run(small(depth=2, training=wild, arms=[arm]))
    assert result.metrics()["diverged"].all()
    table = result.table()
    assert (table["diverged"] == 3).all()
    assert (table["collapsed"] == 0).all()
    assert table["test_accuracy_mean"].isna().all()


def test_result_gives_numbers_and_models():
    """The result's table holds every depth, and its models score the accuracy that it reports."""
    result = layerwise.run(small(depth=2, arms={"tuned": ARMS["tuned_after"]}))
    assert list(result.table()["depth"]) == [1, 2]
    assert isinstance(result.metrics(), pd.DataFrame)
    row = result.metrics().query("seed == 2 and depth == 2").iloc[0]
    inputs, targets = result.data.inputs[70:], result.data.targets[70:]
    for name, metric in (("", "test_accuracy"), ("fine-tuned", "fine_tuned_test_accuracy")):
        model = result.model(seed=2, depth=2, name=name)
        assert (np.asarray(model(inputs)).argmax(axis=1) == targets).mean() == pytest.approx(row[metric])
    rebuilt = np.asarray(result.model(seed=2, depth=2, name="autoencoder")(inputs))
    assert np.square(rebuilt - inputs).mean() == pytest.approx(row["test_reconstruction_mse"], rel=1e-5)
    with pytest.raises(KeyError, match="no model '' of seed 3 at depth 2; there are 3 seeds, 2 depths"):
        result.model(seed=3, depth=2)


def test_models_say_what_is_frozen():
    """Greedy models freeze the layers below the newest; a head's encoder is frozen, a fine-tuned network is not."""
    study = with_arms(depth=3)

    def trainable(arm: str) -> dict[str, list[bool]]:
        depth, data = trained(study, arm)[-1], datasets.generate(study.data)
        found = {kept.name: models.keras_model(kept, 0, data) for kept in depth.networks()}
        return {name: [layer.trainable for layer in model.layers[1:]] for name, model in found.items()}

    assert trainable("supervised") == {"depth-03": [False, False, True, True]}
    assert trainable("tuned_both") == {
        "depth-03": [False, False, False, True],
        "depth-03-autoencoder": [False, False, True, True],
        "depth-03-fine-tuned": [True, True, True, True],
    }
    assert trainable("random_frozen") == {"depth-03": [False, False, False, True]}
    assert trainable("end_to_end") == {"depth-03": [True, True, True, True]}


def test_what_overflows_on_test_rows_alone_selects_nothing(monkeypatch: pytest.MonkeyPatch):
    """A seed that overflows on test rows only has no test scores; it has not diverged, and every choice is the same."""
    split = {"source": "blobs", "samples": 120, "split": {"train": 60, "validation": 20, "test": 40}}
    study, score = small(depth=2, data=split), scoring.classification_scores
    plain = layerwise.run(study).metrics()

    def overflowing(*arguments: Any) -> dict[str, np.ndarray]:
        found = score(*arguments)
        found["test_loss"][0] = np.inf
        return found

    monkeypatch.setattr(scoring, "classification_scores", overflowing)
    hit = layerwise.run(study).metrics()
    first = hit["seed"] == 0
    assert not hit["diverged"].any()
    assert hit.loc[first, ["test_accuracy", "test_loss"]].isna().all(axis=None)
    others = [name for name in plain if not name.startswith("test_")]
    pd.testing.assert_frame_equal(hit[others], plain[others])
    assert chosen_network(hit, ["greedy"]) == chosen_network(plain, ["greedy"])
