"""The engine's promises, over every optimizer, activation and kind of input it admits."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerwise import engine, network
from layerwise.engine import Problem
from layerwise.study import Adagrad, Adam, GaussianNoise, Layer, MaskingNoise, Rmsprop, Sgd

ROWS, EPOCHS = 50, 2

OPTIMIZERS = {
    "sgd": Sgd(learning_rate=0.05, momentum=0.9),
    "nesterov": Sgd(learning_rate=0.05, momentum=0.9, nesterov=True),
    "adam": Adam(name="adam", learning_rate=0.01),
    "rmsprop": Rmsprop(name="rmsprop", learning_rate=0.005, momentum=0.5),
    "adagrad": Adagrad(name="adagrad", learning_rate=0.05),
}


def problem(**changes) -> Problem:
    plain = Problem(
        layers=(Layer(units=6, activation="tanh"),),
        outputs=3,
        input_shape=(4,),
        loss="categorical_crossentropy",
        optimizer=OPTIMIZERS["sgd"],
        batch_size=16,
        seeds=5,
        shared_inputs=True,
    )
    return dataclasses.replace(plain, **changes)


VARIANTS = {
    **{name: problem(optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()},
    "relu": problem(layers=(Layer(units=6, activation="relu", initializer="he_uniform"),)),
    "sigmoid": problem(layers=(Layer(units=6, activation="sigmoid"),)),
    "inputs of their own": problem(shared_inputs=False),
    "reconstruction": problem(loss="mean_squared_error", outputs=4),
    "two layers": problem(layers=(Layer(units=6, activation="tanh"), Layer(units=5, activation="elu"))),
    "batch of all rows": problem(batch_size=ROWS),
    "batch that divides the rows": problem(batch_size=10),
    "reconstruction of inputs of their own": problem(
        loss="mean_squared_error", outputs=4, shared_inputs=False, shared_targets=False
    ),
    "masking noise": problem(loss="mean_squared_error", outputs=4, noise=MaskingNoise(rate=0.25)),
    "gaussian noise": problem(
        loss="mean_squared_error", outputs=4, noise=GaussianNoise(kind="gaussian", sd=0.3), shared_inputs=False
    ),
    "head alone": problem(layers=()),
    "a factor of the learning rate": problem(factors=(0.25, 1.0)),
    "factors with adam": problem(factors=(0.25, 1.0), optimizer=OPTIMIZERS["adam"]),
    "a layer of factor 0": problem(factors=(0.0, 1.0)),
}


def material(problem: Problem, seeds: list[int]):
    """Weights, inputs, targets and orders in which everything of a replica follows from its own seed."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, *problem.input_shape)).astype(np.float32)
    if problem.loss == "categorical_crossentropy":
        learnable = (inputs @ rng.normal(size=(inputs.shape[1], problem.outputs))).argmax(axis=1)
        targets = np.eye(problem.outputs, dtype=np.float32)[learnable]
    else:
        targets = inputs
    if not problem.shared_targets:
        targets = np.stack([inputs * (1 + seed / 100) for seed in seeds]).astype(np.float32)
    if not problem.shared_inputs:
        inputs = np.stack([inputs * (1 + seed / 100) for seed in seeds]).astype(np.float32)
    weights, shape = [], problem.input_shape
    for layer in problem.layers:
        weights += network.initial_weights(layer, shape, seeds)
        shape = (layer.units,)
    weights += network.initial_weights(problem.outputs, shape, [seed + 1000 for seed in seeds])
    order = np.stack([
        [np.random.default_rng([seed, epoch]).permutation(ROWS) for epoch in range(EPOCHS)] for seed in seeds
    ]).astype(np.int32)  # fmt: skip
    keys = np.array([[seed, 77 * seed] for seed in seeds], np.int32)
    return tuple(weights), inputs, targets, order, keys


def keras_fit(problem: Problem, weights, inputs, targets, order, key) -> list[np.ndarray]:
    """The same stage by Keras for one replica: ``fit`` epoch by epoch in the given order, minibatch by minibatch
    where noise is drawn for each, and by Keras's own optimizers, one a layer, where learning rates differ.
    """
    model = network.trainee(problem.layers, problem.outputs, problem.input_shape)
    model.set_weights(weights)
    losses = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy(from_logits=True),
        "mean_squared_error": keras.losses.MeanSquaredError(),
    }
    loss, step = losses[problem.loss], 0
    if problem.factors:
        return layer_by_layer(problem, model, loss, inputs, targets, order)
    model.compile(network.optimizer(problem.optimizer), loss)
    for rows in order:
        if problem.noise is None:
            model.fit(inputs[rows], targets[rows], batch_size=problem.batch_size, epochs=1, shuffle=False, verbose=0)
            continue
        for chosen in np.split(rows, range(problem.batch_size, ROWS, problem.batch_size)):
            model.train_on_batch(noisy(problem.noise, inputs[chosen], key, step), targets[chosen])
            step += 1
    return model.get_weights()


def layer_by_layer(problem: Problem, model, loss, inputs, targets, order) -> list[np.ndarray]:
    moved = [pair for pair in zip(model.layers, problem.factors, strict=True) if pair[1]]
    optimizers = [network.optimizer(problem.optimizer, factor=factor) for _, factor in moved]
    for chosen in (c for rows in order for c in np.split(rows, range(problem.batch_size, ROWS, problem.batch_size))):
        with tf.GradientTape() as tape:
            value = loss(targets[chosen], model(inputs[chosen], training=True))
        variables = [layer.trainable_variables for layer, _ in moved]
        gradients = tape.gradient(value, [[variable.value for variable in own] for own in variables])
        for optimizer, gradient, own in zip(optimizers, gradients, variables, strict=True):
            optimizer.apply(gradient, own)
    return model.get_weights()


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


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS.keys())
def test_block_is_invisible(problem: Problem):
    """A seed's weights and losses have the same bits whatever seeds share its block and wherever it stands."""
    one = engine.fit(problem, *material(problem, [0, 1, 2, 3, 4]))
    other = engine.fit(problem, *material(problem, [2, 7, 0, 9, 8]))
    for place, elsewhere in ((0, 2), (2, 0)):
        for values, same in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(values[place], same[elsewhere])
        np.testing.assert_array_equal(one.loss_curve[place], other.loss_curve[elsewhere])


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS.keys())
def test_stage_is_keras(problem: Problem):
    """From equal weights and in equal order, ``keras.Model.fit`` reaches the same weights, to 2e-5."""
    weights, inputs, targets, order, keys = material(problem, [3, 1, 4, 5, 9])
    fitted = engine.fit(problem, weights, inputs, targets, order, keys)
    for place in (0, 3):
        own = inputs if problem.shared_inputs else inputs[place]
        wanted = targets if problem.shared_targets else targets[place]
        expected = keras_fit(problem, [values[place] for values in weights], own, wanted, order[place], keys[place])
        for values, same in zip(fitted.weights, expected, strict=True):
            np.testing.assert_allclose(values[place], same, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("problem", VARIANTS.values(), ids=VARIANTS.keys())
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
    model = network.trainee(whole.layers, whole.outputs, whole.input_shape)
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
    plain = problem(loss="mean_squared_error", outputs=4)
    weights, inputs, targets, order, _ = material(plain, [0, 1, 2, 3, 4])
    calm = engine.fit(plain, weights, inputs, targets, order)
    wild = [values.copy() for values in weights]
    wild[-2][2] *= 1e30
    stormy = engine.fit(plain, tuple(wild), inputs, targets, order)
    assert not np.isfinite(stormy.loss_curve[2]).all()
    for values, same in zip(stormy.weights, calm.weights, strict=True):
        np.testing.assert_array_equal(np.delete(values, 2, axis=0), np.delete(same, 2, axis=0))


@pytest.mark.parametrize("shared", [True, False])
def test_apply_is_the_layer(shared: bool):
    """Features are what the Keras layer gives for the same weights, for every seed."""
    layer, rng = Layer(units=6, activation="softplus"), np.random.default_rng(1)
    weights = network.initial_weights(layer, (4,), [1, 2, 3])
    inputs = rng.normal(size=(20, 4) if shared else (3, 20, 4)).astype(np.float32)
    made = engine.apply(layer, weights, inputs, shared_inputs=shared)
    for place in range(3):
        plain = network.hidden_layer(layer)
        plain.build((None, 4))
        plain.set_weights([values[place] for values in weights])
        own = inputs if shared else inputs[place]
        np.testing.assert_allclose(made[place], plain(own), rtol=1e-6, atol=1e-6)


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
    masking = problem(loss="mean_squared_error", outputs=4, noise=MaskingNoise(rate=0.25))
    program = engine._Program(masking)
    ones = tf.ones((5, 16, 4))
    keys = tf.constant([[seed, 77 * seed] for seed in range(5)])
    masks = np.stack([program._noisy(ones, keys, tf.constant(step)).numpy() for step in range(100)])
    assert set(np.unique(masks)) == {0, 1}
    assert (masks == 0).mean() == pytest.approx(0.25, abs=0.015)
    assert len({mask.tobytes() for step in masks for mask in step}) == 500
