"""Data: the tutorial's blobs to the bit, parts drawn from named streams, and a digest that sees every byte."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits, make_blobs

import layerwise
from layerwise.datasets import check_seeds, content_digest, from_arrays, generate, view
from layerwise.study import DATA_SETS, Blobs, Diabetes, Digits, Moons, OwnData, StudyError, Wine
from tests.studies import small

SOURCES = {source: kind(source=source) for source, kind in DATA_SETS.items() if not issubclass(kind, OwnData)}


def seen(spec, seeds=range(10), labels=None, scaling="none"):
    return view(spec, generate(spec), seeds=tuple(seeds), labels=labels, scaling=scaling)


def test_blobs_are_the_tutorials():
    """The rows are those of make_blobs in order: the first 500 train, the last 500 test, unscaled, for every seed."""
    inputs, targets = make_blobs(n_samples=1000, centers=3, n_features=2, cluster_std=2, random_state=2)[:2]
    data, own = generate(Blobs()), seen(Blobs())
    np.testing.assert_array_equal(own.inputs, inputs.astype(np.float32))
    np.testing.assert_array_equal(own.targets, targets)
    for position in range(10):
        np.testing.assert_array_equal(own.train[position], np.arange(500))
        np.testing.assert_array_equal(own.test[position], np.arange(500, 1000))
    assert data.classes == ("0", "1", "2")


@pytest.mark.parametrize("spec", SOURCES.values(), ids=SOURCES.keys())
def test_every_data_set_has_the_shape_its_specification_says(spec):
    """Rows, features and classes are as the schema promises before anything is loaded, and values are finite."""
    data, shape = generate(spec), spec.shape()
    assert data.inputs.shape == (shape.rows, shape.features)
    assert len(data.classes) == shape.classes
    if data.classes:
        assert set(np.unique(data.targets)) == set(range(shape.classes))
    assert data.task == spec.task == ("classification" if data.classes else "regression")
    assert data.inputs.dtype == np.float32
    assert np.isfinite(data.inputs).all()


@pytest.mark.parametrize("spec", SOURCES.values(), ids=SOURCES.keys())
def test_parts_are_a_partition(spec):
    """No row is in two parts, and together they are all rows, for every seed: no test row ever trains."""
    own = seen(spec)
    for position in range(10):
        parts = [own.pool[position], own.validation[position], own.test[position]]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(spec.shape().rows))


def test_digits_are_sixteenths():
    """Digits lie in 0..1 and are 8 x 8 images; each seed has its own split of 1,200 and 597."""
    data, own = generate(SOURCES["digits"]), seen(SOURCES["digits"])
    np.testing.assert_array_equal(data.inputs, (load_digits().data / 16).astype(np.float32))
    assert data.image_shape == (8, 8)
    assert own.pool.shape == (10, 1200)
    assert own.test.shape == (10, 597)
    assert len({tuple(rows) for rows in own.test.tolist()}) == 10


def test_diabetes_is_regression():
    """The bundled regression set has the measured features, float32 numbers to predict, and no classes."""
    data = generate(Diabetes(source="diabetes"))
    measured = load_diabetes(scaled=False)
    np.testing.assert_array_equal(data.inputs, measured.data.astype(np.float32))
    np.testing.assert_array_equal(data.targets, measured.target.astype(np.float32))
    assert (data.classes, data.task, data.targets.dtype) == ((), "regression", np.float32)
    assert Diabetes(source="diabetes").shape() == (442, 10, 0)


def test_numbers_are_scaled_by_what_each_seed_trains_on():
    """Targets have mean 0 and standard deviation 1 on the rows that keep theirs, and test rows have no part in it."""
    own = seen(Diabetes(source="diabetes"), labels=40)
    assert (own.task, own.classes, own.train.shape) == ("regression", 0, (10, 40))
    assert own.target_mean.shape == own.target_sd.shape == (10,)
    assert own.target_mean.dtype == own.target_sd.dtype == np.float64
    assert own.scaled_targets.shape == (10, 442, 1)
    assert own.scaled_targets.dtype == np.float32
    for position in range(10):
        rows = own.train[position]
        assert len(set(rows) & set(own.pool[position])) == 40
        np.testing.assert_allclose(own.targets[rows].mean(dtype=np.float64), own.target_mean[position])
        np.testing.assert_allclose(own.scaled_targets[position, rows].mean(), 0, atol=1e-5)
        np.testing.assert_allclose(own.scaled_targets[position, rows].std(), 1, atol=1e-5)
        back = own.scaled_targets[position, :, 0] * own.target_sd[position] + own.target_mean[position]
        np.testing.assert_allclose(back, own.targets, rtol=1e-5)


def test_equal_numbers_are_not_divided_by_their_spread():
    """Where a seed trains on equal numbers, they are centred and no more."""
    spec = from_arrays(np.eye(4), np.array([1.5, 1.5, 2.5, 3.5]), shuffle=False, split={"train": 2, "test": 2})
    own = seen(spec, seeds=(0,))
    np.testing.assert_array_equal(own.scaled_targets[0, :, 0], [0, 0, 1, 2])


def test_shares_become_whole_rows():
    """Parts can be shares of the rows; what is left over goes to those that lose most by rounding down."""
    split = Blobs(samples=103, split={"train": 0.7, "validation": 0.1, "test": 0.2}).split
    assert (split.train, split.validation, split.test, split.total) == (72, 10, 21, 103)
    assert Blobs(split={"train": 0.5, "test": 0.5}) == Blobs()
    own = seen(Blobs(split={"train": 0.5, "test": 0.3, "unused": 0.2}))
    assert own.pool[0].tolist() == [*range(500)]
    assert own.test[0].tolist() == [*range(700, 1000)]


def test_a_seeds_view_does_not_depend_on_its_block():
    """A seed's parts, labels and scaling are its own, whatever seeds share its block."""
    spec = Digits(source="digits")
    one = view(spec, generate(spec), seeds=(3, 4), labels=30, scaling="none")
    other = view(spec, generate(spec), seeds=(8, 3), labels=30, scaling="none")
    for part in ("pool", "train", "test"):
        np.testing.assert_array_equal(getattr(one, part)[0], getattr(other, part)[1])


@pytest.mark.parametrize("labels", [10, 13, 30, 100, 1199])
def test_labelled_rows_are_stratified(labels: int):
    """Labelled rows come from the pool, once each, with every class within one row of its share, or its one row."""
    own = seen(Digits(source="digits"), labels=labels)
    assert own.train.shape == (10, labels)
    for position in range(10):
        assert set(own.train[position]) <= set(own.pool[position])
        assert len(set(own.train[position])) == labels
        share = labels * np.bincount(own.targets[own.pool[position]], minlength=10) / 1200
        counts = np.bincount(own.targets[own.train[position]], minlength=10)
        assert (counts >= 1).all()
        assert (np.abs(counts - share) <= 1.01).all()


def test_fewer_labels_leave_the_pool_alone():
    """The pool that pretraining sees is the same whatever number of rows keeps its label."""
    few, all_of_them = seen(Digits(source="digits"), labels=30), seen(Digits(source="digits"))
    np.testing.assert_array_equal(few.pool, all_of_them.pool)
    np.testing.assert_array_equal(all_of_them.train, all_of_them.pool)


@pytest.mark.parametrize("scaling", ["standard", "min_max"])
def test_scaling_is_fitted_on_the_training_part_alone(scaling: str):
    """Every seed's training rows are scaled exactly, and changing a test row changes no training row."""
    spec = Wine(source="wine", shuffle=True)
    own = seen(spec, scaling=scaling)
    assert own.inputs.shape == (10, 178, 13)
    for position in range(10):
        rows = own.inputs[position][own.pool[position]]
        if scaling == "standard":
            np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-5)
        else:
            np.testing.assert_allclose(rows.min(axis=0), 0, atol=1e-6)
            np.testing.assert_allclose(rows.max(axis=0), 1, atol=1e-6)


def test_fresh_data_differ_between_seeds_and_share_the_test_part():
    """In fresh mode every seed has training rows of its own, from the same distribution, and one test part."""
    for spec in (Blobs(fresh=True), Moons(source="moons", fresh=True)):
        own = seen(spec)
        assert own.inputs.shape == (10, 1000, 2)
        assert len({rows.tobytes() for rows in own.inputs_of(own.train)}) == 10
        assert len({rows.tobytes() for rows in own.inputs_of(own.test)}) == 1
        spread = own.inputs_of(own.train).reshape(10, 500, 2).mean(axis=1)
        np.testing.assert_allclose(spread, np.broadcast_to(spread.mean(axis=0), spread.shape), atol=1.0)


def test_digest_is_of_the_full_content():
    """One changed value anywhere, another dtype or another shape is another digest."""
    one = np.zeros((300, 70), np.float32)
    last = one.copy()
    last[-1, -1] = np.float32(1e-45)
    digests = {content_digest(a) for a in (one, last, one.astype(np.float64), one.reshape(70, 300), -one)}
    assert len(digests) == 5
    assert content_digest(one, last) != content_digest(last, one)


def test_same_specification_same_data():
    """Generating twice gives the same digest; another random state gives another."""
    assert generate(Blobs()).digest == generate(Blobs()).digest
    assert generate(Blobs()).digest != generate(Blobs(random_state=3)).digest


def test_one_hot_is_the_class():
    """Each row has a single one, at its class."""
    own = seen(Blobs())
    np.testing.assert_array_equal(own.one_hot.argmax(axis=1), own.targets)
    assert (own.one_hot.sum(axis=1) == 1).all()


def test_a_class_that_no_training_row_has_is_refused():
    """A training part without one of the classes is named before anything trains."""
    with pytest.raises(StudyError, match=r"the training part of 3 rows has no row of class"):
        generate(Blobs(samples=100, classes=5, split={"train": 3, "test": 97}))


def test_a_seed_whose_training_part_lacks_a_class_is_refused():
    """Where each seed draws its parts, every seed's is looked at, and the first that lacks a class is named."""
    rare = Wine(source="wine", split={"train": 6, "test": 172})
    asked = small(data=rare.canonical(), training={"batch_size": 6}, seeds=10)
    data = generate(asked.data)
    with pytest.raises(StudyError, match=r"of 6 rows that seed 1 draws has no row of class class_2; give train more"):
        check_seeds(asked, data)
    shown = view(asked.data, data, seeds=(0, 1), labels=None, scaling="none")
    assert [set(classes) for classes in shown.targets_of(shown.pool)] == [{0, 1, 2}, {0, 1}]


def test_values_beyond_float32_are_refused():
    """Inputs that overflow are refused, not trained on."""
    with pytest.raises(StudyError, match="NaN or infinite"):
        generate(Blobs(cluster_std=1e300))


@pytest.mark.parametrize("scaling", ["standard", "min_max"])
def test_a_constant_feature_cannot_be_scaled(scaling: str):
    """Digits have pixels that are always empty: scaling them is refused by the feature's number."""
    with pytest.raises(StudyError, match=rf"feature 0 is constant on a training part, so {scaling} scaling"):
        seen(Digits(source="digits"), scaling=scaling)


@pytest.mark.parametrize("where", ["data", "arm"])
def test_a_constant_feature_is_found_before_training(where: str):
    """Whether the data or one of the arms asks for scaling, it is refused for the whole study; without, nothing is."""
    digits, arms = {"source": "digits"}, {"plain": {}, "scaled": {"scaling": "min_max"}}
    asked = small(data=digits | {"scaling": "min_max"}) if where == "data" else small(data=digits, arms=arms)
    data = generate(asked.data)
    check_seeds(small(data=digits), data)
    with pytest.raises(StudyError, match=r"data: feature 0 is constant on a training part, so min_max scaling"):
        check_seeds(asked, data)


def test_the_plain_loop_refuses_bad_data_before_it_trains():
    """`layerwise.run` refuses data that its second arm cannot scale before the first one trains."""
    trained = []
    asked = small(data={"source": "digits"}, arms={"plain": {}, "scaled": {"scaling": "standard"}})
    with pytest.raises(StudyError, match="data: feature 0 is constant"):
        layerwise.run(asked, progress=trained.append)
    assert trained == []
