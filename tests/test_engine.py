"""The engine's promises, over every optimizer, activation and kind of input it admits."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerwise import engine, network
from layerwise.engine import Problem
from layerwise.network import Hidden, Output
from layerwise.study import (
    Adagrad,
    Adam,
    Bottom,
    Conv,
    Custom,
    Dense,
    Encoder,
    GaussianNoise,
    Gru,
    Lstm,
    MaskingNoise,
    Residual,
    Rmsprop,
    Sgd,
)

ROWS, EPOCHS = 50, 2

OPTIMIZERS = {
    "sgd": Sgd(learning_rate=0.05, momentum=0.9),
    "nesterov": Sgd(learning_rate=0.05, momentum=0.9, nesterov=True),
    "adam": Adam(name="adam", learning_rate=0.01),
    "rmsprop": Rmsprop(name="rmsprop", learning_rate=0.005, momentum=0.5),
    "adagrad": Adagrad(name="adagrad", learning_rate=0.05),
}


def pieces(*layers, shape: tuple[int, ...] = (4,), bottom: Bottom | None = None) -> tuple[Hidden, ...]:
    """The hidden layers of a stage on rows of a shape, or, with a bottom, on rows of the data."""
    if bottom is not None:
        return network.hidden_pieces(layers, bottom)
    flat = network.hidden_pieces(layers, Bottom(math.prod(shape), shape))
    return (dataclasses.replace(flat[0], bottom=None, input_shape=shape), *flat[1:])


def problem(*layers, shape: tuple[int, ...] = (4,), outputs: int = 3, head=(), bottom=None, **changes) -> Problem:
    hidden = pieces(*(layers or (Dense(units=6, activation="tanh"),)), shape=shape, bottom=bottom)
    plain = Problem(
        hidden=hidden,
        output=Output(outputs, network.features_shape(hidden[-1]), head),
        loss="categorical_crossentropy",
        optimizer=OPTIMIZERS["sgd"],
        batch_size=16,
        seeds=5,
        shared_inputs=True,
    )
    return dataclasses.replace(plain, **changes)


def reconstructing(*layers, **changes) -> Problem:
    """A stage that rebuilds its own inputs."""
    wide = problem(*layers, **changes)
    return dataclasses.replace(wide, loss="mean_squared_error", output=dataclasses.replace(wide.output, width=4))


def swish(units: int) -> list[keras.layers.Layer]:
    """A user's own kind of layer."""
    return [keras.layers.Dense(units), keras.layers.LayerNormalization(), keras.layers.Activation("swish")]


TWO_INPUTS = Bottom(
    6,
    inputs=(
        ("left", Encoder(features="0-3", layers=[{"units": 3}, {"units": 3}])),
        ("right", Encoder(features=[5, 2], layers=[{"units": 3, "activation": "tanh"}])),
    ),
)
IMAGES = Bottom(16, shape=(4, 4, 1))
KINDS = {
    "softplus": problem(Dense(units=6, activation="softplus")),
    "residual": problem(Residual(kind="residual", units=4)),
    "regularised": problem(Dense(units=6, regularization={"l1": 0.01, "l2": 0.1})),
    "batch normalised": problem(Dense(units=6, normalization="batch")),
    "layer normalised": problem(Dense(units=6, normalization="layer")),
    "convolution of a sequence": problem(Conv(kind="conv", filters=3), shape=(5, 2)),
    "convolution of an image": problem(
        Conv(kind="conv", filters=3, pooling={}, normalization="batch"), shape=(4, 4, 2)
    ),
    "average pooling": problem(Conv(kind="conv", filters=3, pooling={"kind": "average"}), bottom=IMAGES),
    "rebuilt by convolution": dataclasses.replace(
        problem(Conv(kind="conv", filters=3, pooling={}), bottom=IMAGES, loss="mean_squared_error"),
        output=Output(16, (2, 2, 3), grid=(4, 4, 1), kernel_size=3),
    ),
    "lstm": problem(Lstm(kind="lstm", units=4), shape=(3, 2)),
    "gru": problem(Gru(kind="gru", units=4), shape=(3, 2)),
    "two lstm": problem(Lstm(kind="lstm", units=4), Lstm(kind="lstm", units=3), shape=(3, 2)),
    "custom": problem(Custom(kind="custom", function="tests.test_engine:swish", options={"units": 5})),
    "two inputs": problem(Dense(units=5), bottom=TWO_INPUTS),
    "richer head": problem(head=(Dense(units=5), Dense(units=4, activation="tanh"))),
    "regression": problem(outputs=1, loss="mean_squared_error"),
}
DROPPING = {
    "dropout": problem(Dense(units=6, dropout=0.5)),
    "dropout in two layers": problem(Dense(units=6, dropout=0.5), Dense(units=6, dropout=0.2)),
}


VARIANTS = {
    **{name: problem(optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()},
    "relu": problem(Dense(units=6, activation="relu", initializer="he_uniform")),
    "sigmoid": problem(Dense(units=6, activation="sigmoid")),
    "inputs of their own": problem(shared_inputs=False),
    "reconstruction": reconstructing(),
    "two layers": problem(Dense(units=6, activation="tanh"), Dense(units=5, activation="elu")),
    "batch of all rows": problem(batch_size=ROWS),
    "batch that divides the rows": problem(batch_size=10),
    "reconstruction of inputs of their own": reconstructing(shared_inputs=False, shared_targets=False),
    "masking noise": reconstructing(noise=MaskingNoise(rate=0.25)),
    "gaussian noise": reconstructing(noise=GaussianNoise(kind="gaussian", sd=0.3), shared_inputs=False),
    "head alone": problem(hidden=(), output=Output(3, (4,))),
    "a factor of the learning rate": problem(factors=(0.25, 1.0)),
    "factors with adam": problem(factors=(0.25, 1.0), optimizer=OPTIMIZERS["adam"]),
    "a layer of factor 0": problem(factors=(0.0, 1.0)),
    **KINDS,
}
EVERY = {**VARIANTS, **DROPPING}


def material(problem: Problem, seeds: list[int]):
    """Weights, inputs, targets and orders in which everything of a replica follows from its own seed."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, *problem.input_shape)).astype(np.float32)
    if problem.loss == "categorical_crossentropy":
        rows = inputs.reshape(ROWS, -1)
        learnable = (rows @ rng.normal(size=(rows.shape[1], problem.output.width))).argmax(axis=1)
        targets = np.eye(problem.output.width, dtype=np.float32)[learnable]
    else:
        targets = inputs if problem.output.width == inputs.shape[-1] else inputs.sum(axis=-1, keepdims=True)
    if not problem.shared_targets:
        targets = np.stack([inputs * (1 + seed / 100) for seed in seeds]).astype(np.float32)
    if not problem.shared_inputs:
        inputs = np.stack([inputs * (1 + seed / 100) for seed in seeds]).astype(np.float32)
    weights = [values for piece in problem.hidden for values in network.initial_weights(piece, seeds)]
    weights += network.initial_weights(problem.output, [seed + 1000 for seed in seeds])
    order = np.stack([
        [np.random.default_rng([seed, epoch]).permutation(ROWS) for epoch in range(EPOCHS)] for seed in seeds
    ]).astype(np.int32)  # fmt: skip
    keys = np.array([[seed, 77 * seed] for seed in seeds], np.int32)
    return tuple(weights), inputs, targets, order, keys


def keras_fit(problem: Problem, weights, inputs, targets, order, key) -> list[np.ndarray]:
    """The same stage by Keras for one replica: ``fit`` epoch by epoch in the given order, minibatch by minibatch
    where noise is drawn for each, and by Keras's own optimizers, one a layer, where learning rates differ.
    """
    built = network.trainee(problem.hidden, problem.output)
    model = built.model
    model.set_weights(built.in_keras_order(weights))
    losses = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True),
        "mean_squared_error": keras.losses.MeanSquaredError(),
    }
    loss, step = losses[problem.loss], 0
    if problem.factors:
        layer_by_layer(problem, built, loss, inputs, targets, order)
        return [weight.numpy() for weight in built.weights]
    for number, generator in enumerate(generators(model)):
        generator.assign(engine._generator_state(key[np.newaxis], number)[0])
    # Dropout draws alike only where both are compiled; a recurrent layer takes Keras longer to trace than to run.
    recurrent = any(isinstance(layer, keras.layers.RNN) for layer in model.layers)
    how = {"run_eagerly": True} if recurrent else {"jit_compile": bool(generators(model))}
    model.compile(network.optimizer(problem.optimizer), loss, **how)
    for rows in order:
        if problem.noise is None:
            model.fit(inputs[rows], targets[rows], batch_size=problem.batch_size, epochs=1, shuffle=False, verbose=0)
            continue
        for chosen in np.split(rows, range(problem.batch_size, ROWS, problem.batch_size)):
            model.train_on_batch(noisy(problem.noise, inputs[chosen], key, step), targets[chosen])
            step += 1
    return [weight.numpy() for weight in built.weights]


def generators(model: keras.Model) -> list[keras.Variable]:
    """The states of a model's dropout, in the order of its layers; compiled, they draw what the engine draws."""
    known = {id(weight) for weight in model.weights}
    return [variable for variable in model.non_trainable_variables if id(variable) not in known]


def layer_by_layer(problem: Problem, built: network.Built, loss, inputs, targets, order) -> None:
    model, moved = built.model, []
    for (layer,), factor in zip(built.pieces, problem.factors, strict=True):
        moved += [(layer, factor)] if factor else []
    optimizers = [network.optimizer(problem.optimizer, factor=factor) for _, factor in moved]
    for chosen in (c for rows in order for c in np.split(rows, range(problem.batch_size, ROWS, problem.batch_size))):
        with tf.GradientTape() as tape:
            value = loss(targets[chosen], model(inputs[chosen], training=True))
        variables = [layer.trainable_variables for layer, _ in moved]
        gradients = tape.gradient(value, [[variable.value for variable in own] for own in variables])
        for optimizer, gradient, own in zip(optimizers, gradients, variables, strict=True):
            optimizer.apply(gradient, own)


def noisy(noise, rows: np.ndarray, key: np.ndarray, step: int) -> np.ndarray:
    if isinstance(noise, MaskingNoise):
        drawn = numbers(tf.random.stateless_uniform, rows.shape, key, step)
        return np.where(drawn < noise.rate, np.float32(0), rows)
    return rows + np.float32(noise.sd) * numbers(tf.random.stateless_normal, rows.shape, key, step)


def numbers(draw, shape: tuple[int, ...], key: np.ndarray, step: int) -> np.ndarray:
    """What the compiled generator draws; the plain one gives other numbers for the same key."""

    @tf.function(jit_compile=True)
    def compiled(key: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        return draw(
            shape, tf.random.experimental.stateless_fold_in(key, step, alg=engine.GENERATOR), alg=engine.GENERATOR
        )

    return compiled(tf.constant(key), tf.constant(step)).numpy()


@pytest.mark.parametrize("problem", EVERY.values(), ids=EVERY.keys())
def test_block_is_invisible(problem: Problem):
    """A seed's weights and losses have the same bits whatever seeds share its block and wherever it stands."""
    one = engine.fit(problem, *material(problem, [0, 1, 2, 3, 4]))
    other = engine.fit(problem, *material(problem, [2, 7, 0, 9, 8]))
    for place, elsewhere in ((0, 2), (2, 0)):
        for values, same in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(values[place], same[elsewhere])
        np.testing.assert_array_equal(one.loss_curve[place], other.loss_curve[elsewhere])


@pytest.mark.parametrize("problem", EVERY.values(), ids=EVERY.keys())
def test_stage_is_keras(problem: Problem):
    """From equal weights and in equal order, ``keras.Model.fit`` reaches the same weights, to 2e-5."""
    weights, inputs, targets, order, keys = material(problem, [3, 1, 4, 5, 9])
    fitted = engine.fit(problem, weights, inputs, targets, order, keys)
    for place in (0, 3) if problem.hidden and problem.hidden[0].layer.vectorised else (3,):
        own = inputs if problem.shared_inputs else inputs[place]
        wanted = targets if problem.shared_targets else targets[place]
        expected = keras_fit(problem, [values[place] for values in weights], own, wanted, order[place], keys[place])
        for values, same in zip(fitted.weights, expected, strict=True):
            np.testing.assert_allclose(values[place], same, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("problem", EVERY.values(), ids=EVERY.keys())
def test_stage_is_deterministic_and_moves_every_weight(problem: Problem):
    """Called twice, a program gives the same bits, from fresh optimizer state; and every weight array has moved."""
    given = material(problem, [0, 1, 2, 3, 4])
    first, second = engine.fit(problem, *given), engine.fit(problem, *given)
    still = 2 if problem.factors and not problem.factors[0] else 0  # kernel and bias of a layer of factor 0
    for place, (before, values, same) in enumerate(zip(given[0], first.weights, second.weights, strict=True)):
        np.testing.assert_array_equal(values, same)
        assert (before != values).reshape(5, -1).any(axis=1).all() == (place >= still)


def test_loss_curve_is_the_mean_loss_of_the_epoch():
    """With one batch an epoch, the first value of the curve is the loss of the initial weights."""
    whole = problem(batch_size=ROWS)
    weights, inputs, targets, order, _ = material(whole, [0, 1, 2, 3, 4])
    curve = engine.fit(whole, weights, inputs, targets, order).loss_curve
    assert curve.shape == (5, EPOCHS)
    model = network.trainee(whole.hidden, whole.output).model
    model.set_weights([values[1] for values in weights])
    logits = np.asarray(model(inputs), np.float64)
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - (logits * targets).sum(axis=1))
    assert curve[1, 0] == pytest.approx(loss, rel=1e-5)


def test_training_makes_progress():
    """Twenty epochs more than halve the loss of every seed."""
    plain = problem()
    weights, inputs, targets, order, _ = material(plain, [0, 1, 2, 3, 4])
    curve = engine.fit(plain, weights, inputs, targets, np.tile(order, (1, 10, 1))).loss_curve
    assert (curve[:, -1] < 0.5 * curve[:, 0]).all()


def test_a_diverging_seed_disturbs_no_other():
    """A seed whose weights overflow ends in NaN, and its neighbours have the bits they have without it."""
    plain = reconstructing()
    weights, inputs, targets, order, _ = material(plain, [0, 1, 2, 3, 4])
    calm = engine.fit(plain, weights, inputs, targets, order)
    wild = [values.copy() for values in weights]
    wild[-2][2] *= 1e30
    stormy = engine.fit(plain, tuple(wild), inputs, targets, order)
    assert not np.isfinite(stormy.loss_curve[2]).all()
    for values, same in zip(stormy.weights, calm.weights, strict=True):
        np.testing.assert_array_equal(np.delete(values, 2, axis=0), np.delete(same, 2, axis=0))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("problem", KINDS.values(), ids=KINDS.keys())
def test_apply_is_the_model_in_inference(problem: Problem, shared: bool):
    """Features and answers, piece by piece, are what the whole Keras model gives for the same weights."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(20, *problem.input_shape) if shared else (3, 20, *problem.input_shape)).astype(np.float32)
    weights, made, together = [], inputs, shared
    for piece in (*problem.hidden, problem.output):
        own = network.initial_weights(piece, [1, 2, 3])
        made = engine.apply(piece, own, made, shared_inputs=together)
        weights, together = [*weights, *own], False
    built = network.trainee(problem.hidden, problem.output)
    for place in range(3):
        built.model.set_weights(built.in_keras_order([values[place] for values in weights]))
        expected = built.model(inputs if shared else inputs[place], training=False)
        np.testing.assert_allclose(made[place], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_large_inputs_go_through_in_pieces(monkeypatch: pytest.MonkeyPatch, shared: bool):
    """Rows that are taken a few at a time, the last piece overlapping, give what all of them give at once."""
    piece, rng = problem().hidden[0], np.random.default_rng(1)
    weights = network.initial_weights(piece, [1, 2, 3])
    inputs = rng.normal(size=(50, 4) if shared else (3, 50, 4)).astype(np.float32)
    whole = engine.apply(piece, weights, inputs, shared_inputs=shared)
    monkeypatch.setattr(engine, "LENT_BYTES", 200)
    monkeypatch.setattr(engine, "PIECE_BYTES", 300)
    pieces = engine.apply(piece, weights, inputs, shared_inputs=shared)
    np.testing.assert_allclose(pieces, whole, rtol=1e-6, atol=1e-6)


def test_one_seed_goes_through_the_same_interface():
    """A block of one seed, which wide layers use, agrees with Keras as a larger block does."""
    single = problem(seeds=1)
    weights, inputs, targets, order, keys = material(single, [6])
    fitted = engine.fit(single, weights, inputs, targets, order)
    expected = keras_fit(single, [values[0] for values in weights], inputs, targets, order[0], keys[0])
    for values, same in zip(fitted.weights, expected, strict=True):
        np.testing.assert_allclose(values[0], same, rtol=2e-5, atol=2e-5)


def test_masking_noise_masks_its_share():
    """Over many steps the share of inputs set to zero is the rate, and no two steps or seeds have the same mask."""
    masking = reconstructing(noise=MaskingNoise(rate=0.25))
    program = engine._Program(masking)
    ones = tf.ones((5, 16, 4))
    keys = tf.constant([[seed, 77 * seed] for seed in range(5)])
    masks = np.stack([program._noisy(ones, keys, tf.constant(step)).numpy() for step in range(100)])
    assert set(np.unique(masks)) == {0, 1}
    assert (masks == 0).mean() == pytest.approx(0.25, abs=0.015)
    assert len({mask.tobytes() for step in masks for mask in step}) == 500
