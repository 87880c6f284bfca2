"""Arrays and loaders: archives, pairs of files, functions of the user's, and every refusal in one line."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerwise import datasets
from layerwise.datasets import reading
from layerwise.study import Digits, Study, StudyError, load, parse
from layerwise.study.complaints import TAGS

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 3


def document(**data: object) -> dict:
    network, training = {"layers": [{"units": 4}]}, {"batch_size": 5}
    return {"name": "own", "data": data, "network": network, "training": training, "seeds": 2}


def arrays(path: str, **data: object) -> Study:
    return parse(document(source="arrays", path=path, **data))


def refusal(**data: object) -> str:
    with pytest.raises(StudyError) as caught:
        parse(document(**data))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("inputs", "targets")])
def test_an_archive_with_usual_names_needs_no_words(root: Path, names: tuple[str, str]):
    """Inputs and targets are found under the names they mostly have; float32 inputs and int32 classes come out."""
    np.savez(root / "own.npz", **dict(zip(names, (X, Y), strict=True)), other=np.zeros(3))
    study = arrays("own.npz")
    data = datasets.generate(study.data)
    np.testing.assert_array_equal(data.inputs, X.astype(np.float32))
    np.testing.assert_array_equal(data.targets, Y)
    assert (data.classes, data.image_shape, data.task) == (("0", "1", "2"), (), "classification")
    assert (study.data.split.train, study.data.split.test) == (21, 9)


def test_names_can_be_said(root: Path):
    """Other names of arrays are named in the study; compressed archives are read alike."""
    np.savez_compressed(root / "own.npz", rows=X, x=np.zeros((2, 2)), answer=X.sum(axis=1))
    study = arrays("own.npz", inputs="rows", targets="answer")
    data = datasets.generate(study.data)
    assert (data.classes, data.task, data.targets.dtype) == ((), "regression", np.float32)
    assert study.data.shape() == (30, 4, 0)


def test_a_pair_of_files_is_one_data_set(root: Path):
    """Inputs and targets in two NPY files are what they are in one archive, and either file counts for identity."""
    np.save(root / "x.npy", X)
    np.save(root / "y.npy", Y)
    np.savez(root / "own.npz", x=X, y=Y)
    pair = arrays("x.npy", targets_path="y.npy")
    assert datasets.generate(pair.data).digest == datasets.generate(arrays("own.npz").data).digest
    np.save(root / "y.npy", Y[::-1])
    assert arrays("x.npy", targets_path="y.npy").digest() != pair.digest()


def mnist_like(path: Path) -> dict[str, np.ndarray]:
    """A file in the form of mnist.npz: 40 and 20 images of 6 x 6 bytes."""
    images, digits = RNG.integers(0, 256, (60, 6, 6)).astype(np.uint8), (np.arange(60) % 10).astype(np.uint8)
    parts = {"x_train": images[:40], "y_train": digits[:40], "x_test": images[40:], "y_test": digits[40:]}
    np.savez_compressed(path, **parts)
    return parts


def test_mnist_keeps_its_test_part(root: Path):
    """Images of bytes are divided by 255, rows stay in order, and the file's own test part is the test part."""
    parts = mnist_like(root / "mnist.npz")
    study = arrays("mnist.npz")
    data = datasets.generate(study.data)
    assert (study.data.shuffle, study.data.split.train, study.data.split.test) == (False, 40, 20)
    assert (data.image_shape, data.inputs.dtype) == ((6, 6), np.float32)
    np.testing.assert_array_equal(data.inputs[40:], (parts["x_test"] / np.float32(255)).reshape(20, 36))
    seen = datasets.view(study.data, data, seeds=(0, 1), labels=None, scaling="none")
    np.testing.assert_array_equal(seen.test, np.tile(np.arange(40, 60), (2, 1)))


def test_mnist_can_be_divided_anew(root: Path):
    """With shuffle each seed draws its parts from all rows; in order, the test part stays and others share the rest."""
    mnist_like(root / "mnist.npz")
    split = {"train": 20, "validation": 10, "test": 25, "unused": 5}
    study = arrays("mnist.npz", shuffle=True, split=split)
    seen = datasets.view(study.data, datasets.generate(study.data), seeds=(0, 1), labels=None, scaling="none")
    drawn = np.concatenate([seen.pool, seen.validation, seen.test], axis=1)
    assert [len(set(rows)) for rows in drawn.tolist()] == [55, 55]
    study = arrays("mnist.npz", split={**split, "test": 20, "unused": 10})
    seen = datasets.view(study.data, datasets.generate(study.data), seeds=(0,), labels=None, scaling="none")
    assert seen.validation[0].tolist() == [*range(20, 30)]
    assert seen.test[0].tolist() == [*range(40, 60)]
    assert "test is 25 rows, but mnist.npz has a test part of 20 rows" in refusal(
        source="arrays", path="mnist.npz", split=split
    )


def test_colour_images_and_sequences_keep_their_shape():
    """Rows of more than one axis are flattened, and their shape is kept; a single channel is no axis."""
    for shape, expected in (((4, 3), (4, 3)), ((4, 4, 3), (4, 4, 3)), ((4, 4, 1), (4, 4))):
        spec = datasets.from_arrays(np.zeros((30, *shape)), Y)
        data = datasets.generate(spec)
        assert data.image_shape == expected
        assert data.inputs.shape == (30, np.prod(shape))


def test_the_own_split_is_no_other_data_sets():
    """Arrays of a bundled data set have a digest of their own, since their parts are drawn otherwise."""
    bundled = datasets.generate(Digits(source="digits"))
    given = datasets.from_arrays(bundled.inputs, bundled.targets, split={"train": 1200, "test": 597})
    assert datasets.generate(given).digest != bundled.digest


def test_arrays_of_python_make_a_study():
    """Arrays stand in a study's place for data, in one built in Python and in one from a file; digests see them."""
    spec = datasets.from_arrays(X, Y, scaling="standard", labels=6)
    study = Study(name="own", data=spec, network={"layers": [{"units": 4}]}, training={"batch_size": 5})
    assert (study.data.shape(), study.data.split.train) == ((30, 4, 3), 21)
    loaded = load("blobs-supervised", data=spec, overrides=["training.batch_size=5"])
    assert loaded.data.shape() == (30, 4, 3)
    other = Study.model_validate({**dict(study), "data": datasets.from_arrays(X + 1, Y, scaling="standard", labels=6)})
    assert other.digest() != study.digest()
    assert datasets.view(spec, datasets.generate(spec), seeds=(0,), labels=6, scaling="none").train.shape == (1, 6)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"x": np.array([{}] * 30), "y": Y}, "array 'x' holds Python objects, which are not read"),
        ({"x": X, "y": np.array([None] * 30)}, "array 'y' holds Python objects, which are not read"),
        ({"x": X[:20], "y": Y}, "20 rows of inputs, but 30 targets"),
        ({"x": np.where(X > 2, np.nan, X), "y": Y}, "missing, infinite or too large values, the first in row"),
        ({"x": X[:, 0], "y": Y}, "inputs of shape (30,); expected (rows, features)"),
        ({"x": X[:, :0], "y": Y}, "inputs of shape (30, 0); expected (rows, features)"),
        ({"x": X, "y": np.eye(3)[Y]}, "targets of shape (30, 3); expected one for each row"),
        ({"x": X.astype(str), "y": Y}, "expected numbers: encode what is text"),
        ({"x": X + 1j, "y": Y}, "inputs of type complex128"),
        ({"x": X, "y": X[:, 0] + 1j}, "targets of type complex128"),
        ({"x": X, "y": Y * 0}, "the target is '0' in every row"),
        ({"x": X, "y": np.where(np.arange(30) == 4, 7, Y)}, "class '7' of the target has one example"),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, "the target has 10 missing values (first in row 2)"),
        ({"x": X[:1], "y": Y[:1]}, "1 rows; expected two or more"),
        ({"rows": X, "y": Y}, "which array is inputs? There are rows, y; say inputs"),
        ({}, "which array is inputs? There are none"),
    ],
)  # fmt: skip
def test_broken_archives_are_refused_in_one_line(root: Path, made: dict, expected: str):
    """Arrays that are no inputs and targets are refused with their shape, type or row."""
    np.savez(root / "own.npz", **made)
    assert expected in refusal(source="arrays", path="own.npz")


def test_pickles_are_never_loaded(root: Path):
    """A pickle under an array's name is refused before anything in it could run."""

    class Harm:
        def __reduce__(self) -> tuple:
            return (Path.touch, (root / "harm",))

    for name in ("own.npz", "own.npy"):
        (root / name).write_bytes(pickle.dumps(Harm()))
        assert "pickles are not read" in refusal(source="arrays", path=name, **_targets_for(name, root))
    np.save(root / "objects.npy", np.array([Harm()], dtype=object), allow_pickle=True)
    assert "Python objects, which are not read" in refusal(source="arrays", path="objects.npy", targets_path="y.npy")
    assert not (root / "harm").exists()


def _targets_for(name: str, root: Path) -> dict[str, str]:
    np.save(root / "y.npy", Y)
    return {} if name.endswith("npz") else {"targets_path": "y.npy"}


def test_damaged_files_are_refused_in_one_line(root: Path):
    """Empty, cut and changed files, and those of other kinds, say so."""
    np.savez(root / "whole.npz", x=X, y=Y)
    whole = bytearray((root / "whole.npz").read_bytes())
    (root / "cut.npz").write_bytes(whole[: len(whole) // 2])
    whole[300] ^= 255
    (root / "changed.npz").write_bytes(whole)
    (root / "empty.npz").touch()
    (root / "text.npz").write_text("x,y\n1,2\n")
    (root / "own.mat").touch()
    for name, expected in {
        "cut.npz": "cannot be read as NumPy's",
        "changed.npz": "array 'x' cannot be read as NumPy's",
        "empty.npz": "cannot be read as NumPy's",
        "text.npz": "is neither an NPZ nor an NPY file",
        "own.mat": "expected .npz or .npy",
        "absent.npz": "is no file in the study's folder or the working directory",
    }.items():
        assert expected in refusal(source="arrays", path=name)


def test_what_belongs_to_the_other_format_is_refused(root: Path):
    """A pair of files has no names, and an archive no second file."""
    np.save(root / "x.npy", X)
    np.savez(root / "own.npz", x=X, y=Y)
    assert "name the file of the targets in targets_path alone" in refusal(source="arrays", path="x.npy")
    assert "leave targets_path out" in refusal(source="arrays", path="own.npz", targets_path="x.npy")
    assert "no array 'z'; known: x, y" in refusal(source="arrays", path="own.npz", inputs="z", targets="y")


@pytest.fixture
def module(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's beside the study, under a name that no other test has imported."""
    name = f"rows_{root.name}".replace("-", "_")
    (root / f"{name}.py").write_text(
        "import numpy as np\nimport pandas as pd\n\n"
        "def made(rows=30, seed=1):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    return rng.normal(size=(rows, 3)), np.arange(rows) % 2\n\n"
        "def named():\n    inputs, targets = made()\n    return {'x': inputs, 'y': targets}\n\n"
        "def frame():\n    inputs, targets = made()\n"
        "    return pd.DataFrame(inputs, columns=['a', 'b', 'c']).assign(t=targets)\n\n"
        "def unsteady():\n    return np.random.default_rng().normal(size=(30, 3)), np.arange(30) % 2\n\n"
        "def number():\n    return 3\n\n"
        "def three():\n    return 1, 2, 3\n\n"
        "def fails():\n    raise RuntimeError('no\\nfile')\n\n"
        "def leaves():\n    raise SystemExit(3)\n\n"
        "value = 3\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def loader(function: str, **data: object) -> Study:
    return parse(document(source="loader", loader=function, **data))


def test_a_function_returns_the_data(module: str):
    """Arrays, a dictionary of them and a DataFrame are all taken; the arrays alone make the data's digest."""
    study = loader(f"{module}:made")
    assert study.data.shape() == (30, 3, 2)
    one, other = datasets.generate(study.data), datasets.generate(loader(f"{module}:named").data)
    assert one.digest == other.digest
    assert loader(f"{module}:made", options={"seed": 2}).digest() != study.digest()
    table = datasets.generate(loader(f"{module}:frame", target="t", drop=["b"]).data)
    assert table.table.names == ("a", "c")


def test_the_users_modules_come_last(module: str, root: Path):
    """The study's folder and the working directory stand behind everything that is installed."""
    (root / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    assert loader(f"{module}:made").data.shape() == (30, 3, 2)
    assert sys.path[-1] == str(root)


def test_a_function_that_answers_otherwise_each_time_is_refused(module: str):
    """Data that cannot be had again are not trained on."""
    study = loader(f"{module}:unsteady")
    reading._read.cache_clear()
    with pytest.raises(StudyError, match="unsteady: has changed since the study was read"):
        datasets.generate(study.data)


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        ("{}:absent", {}, "absent is not there in module"),
        ("{}:value", {}, "value is of type int in module"),
        ("{}:number", {}, "returned int; expected (inputs, targets), a dictionary of both, or a DataFrame"),
        ("{}:three", {}, "returned tuple of 3"),
        ("{}:fails", {}, "raised RuntimeError: no file; mend it, or its options"),
        ("{}:leaves", {}, "raised SystemExit: 3"),
        ("{}:made", {"options": {"row": 3}}, "unexpected keyword argument 'row'"),
        ("{}:made", {"options": {"rows": 1}}, "1 rows; expected two or more"),
        ("{}:made", {"target": "t"}, "target is for a DataFrame"),
        ("{}:frame", {}, "returned a DataFrame; say which column is the target"),
        ("{}:frame", {"target": "u"}, "target names 'u', which is no column"),
        ("no_such_module:made", {}, "no module 'no_such_module' was found; put no_such_module.py beside the study"),
        ("made", {}, "received 'made'; expected module:function"),
        ("../made:x", {}, "expected module:function"),
    ],
)  # fmt: skip
def test_a_wrong_loader_is_refused_in_one_line(module: str, function: str, data: dict, expected: str):
    """A function that is not there, fails, or returns something else is refused by its name."""
    assert expected in refusal(source="loader", loader=function.format(module), **data)


def test_x_and_y_of_scikit_learn_are_taken():
    """What load_iris(return_X_y=True) returns, as arrays, is data; class names come with targets of text."""
    from sklearn.datasets import load_iris

    iris = load_iris()
    spec = datasets.from_arrays(iris.data, iris.target_names[iris.target])
    assert datasets.generate(spec).classes == ("setosa", "versicolor", "virginica")
    frame = pd.DataFrame(iris.data)
    assert datasets.generate(datasets.from_arrays(frame, pd.Series(iris.target))).inputs.shape == (150, 4)


def test_every_source_is_a_tag():
    """Messages leave out what pydantic adds to a place for telling sources apart."""
    assert {"table", "arrays", "loader", "memory", "diabetes"} <= TAGS.keys()
