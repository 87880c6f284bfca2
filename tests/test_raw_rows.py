"""Raw rows: what a logged model makes of them is what its network was trained on, to the bit, without this project."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io

from layerwise import datasets, raw_rows
from layerwise.study import Wine
from tasks.tracking.templates import Serving

FRAME = pd.DataFrame(
    {
        "age": [20.5, np.nan, 31, 44, 25, 60, 33, 52],
        "colour": ["red", "blue", None, "red", "blue", "green", "red", "blue"],
        "smokes": [True, False, True, True, False, False, True, False],
        "code": [3, 1, 2, 3, 1, 2, 3, 1],
        "answer": ["no", "yes"] * 4,
    }
)


class Echo:
    """In the network's place: gives back what it is fed."""

    def predict(self, inputs, verbose):
        assert verbose == 0
        return inputs


def served(data: datasets.Data, spec, seed: int, scaling: str) -> raw_rows.RawRows:
    """What serves the raw rows of a seed, from files."""
    fitted = datasets.preparation(spec, data, seed=seed, scaling=scaling)
    kept = skops.io.loads(raw_rows.packed(fitted.transformer, fitted.places), trusted=raw_rows.TRUSTED)
    table = data.table
    columns = None if table is None else tuple(zip(table.names, table.kinds, strict=True))
    numbers = () if table is None else tuple(table.numbers)
    serving = Serving(columns, numbers, data.features, None if table is None else tuple(table.inputs))
    return raw_rows.RawRows(Echo(), json.loads(serving.text()), kept)


@pytest.mark.parametrize("scaling", ["none", "standard", "min_max"])
@pytest.mark.parametrize("missing", ["mean", "median", "most_frequent"])
def test_raw_rows_become_what_the_network_saw(scaling: str, missing: str):
    """For every seed, raw rows give the very inputs of its view, under the inputs' names and the rows' own index."""
    split = {"train": 5, "test": 3}
    spec = datasets.from_frame(FRAME, target="answer", missing=missing, categorical=["code"], split=split)
    data = datasets.generate(spec)
    seen = datasets.view(spec, data, seeds=range(10), labels=None, scaling=scaling)
    rows = FRAME.set_index(pd.Index([f"row {number}" for number in range(8)])).iloc[:, ::-1]
    for seed in range(10):
        answer = served(data, spec, seed, scaling).predict(rows)
        np.testing.assert_array_equal(answer.to_numpy(), seen.inputs[seed])
        assert list(answer.columns) == data.table.inputs
        assert list(answer.index) == list(rows.index)


def test_raw_arrays_become_what_the_network_saw():
    """Arrays that were scaled are scaled again, by what was fitted to the seed's training part."""
    spec = Wine(source="wine")
    data = datasets.generate(spec)
    seen = datasets.view(spec, data, seeds=(4, 5), labels=None, scaling="standard")
    np.testing.assert_array_equal(served(data, spec, 5, "standard").predict(data.inputs), seen.inputs[1])
    assert datasets.preparation(spec, data, seed=5, scaling="none") is None


def test_types_that_mean_the_same_are_the_same():
    """Whole numbers, numbers, text of categories, nullable and pyarrow columns give equal inputs."""
    spec = datasets.from_frame(FRAME, target="answer", missing="mean", categorical=["code"])
    data = datasets.generate(spec)
    serving = served(data, spec, 0, "none")
    expected = serving.inputs(FRAME)
    others = [
        FRAME.assign(code=FRAME["code"].astype(float)),
        FRAME.assign(code=FRAME["code"].astype(str), smokes=FRAME["smokes"].astype(int)),
        FRAME.convert_dtypes(),
        FRAME.astype({"colour": object}),
        FRAME.astype({"colour": "category"}),
    ]
    for other in others:
        np.testing.assert_array_equal(serving.inputs(other), expected)


def test_an_unknown_category_is_all_zeros():
    """A value that training never had is none of those it had."""
    spec = datasets.from_frame(FRAME, target="answer", missing="mean")
    data = datasets.generate(spec)
    made = served(data, spec, 0, "none").inputs(FRAME.assign(colour="violet"))
    places = [number for number, name in enumerate(data.table.inputs) if name.startswith("colour")]
    assert (made[:, places] == 0).all()


def test_what_cannot_be_served_is_refused_by_its_column():
    """A missing column, an infinite value, and a gap without a rule are named."""
    whole = FRAME.dropna()
    spec = datasets.from_frame(whole, target="answer", split={"train": 4, "test": 2})
    serving = served(datasets.generate(spec), spec, 0, "none")
    with pytest.raises(ValueError, match="the rows have no column 'colour'; expected age, smokes, code, colour"):
        serving.predict(whole.drop(columns="colour"))
    with pytest.raises(ValueError, match="column 'age' has missing values, and the model was trained without a rule"):
        serving.predict(FRAME)
    with pytest.raises(ValueError, match="column 'age' has infinite values"):
        serving.predict(whole.assign(age=np.inf))


def test_several_inputs_are_fed_by_name():
    """A network of several inputs gets each of them under its name."""
    serving = Serving((("a", "double"), ("b", "double")), ("a", "b"), 2, None, (("left", (0,)), ("right", (1, 0))))
    fed = raw_rows.RawRows(Echo(), json.loads(serving.text()), {}).fed(np.array([[1, 2]]))
    assert {name: values.tolist() for name, values in fed.items()} == {"left": [[1]], "right": [[2, 1]]}


def test_the_shipped_file_imports_nothing_of_this_project():
    """What goes into a model's folder works where only the model's requirements are installed."""
    tree = ast.parse(Path(raw_rows.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.names[0].name if isinstance(node, ast.Import) else node.module or ".").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    known = {"__future__", "collections", "json", "keras", "numpy", "pandas", "pathlib", "skops", "typing", "zipfile"}
    assert imported == known


def test_nothing_but_plain_parts_is_in_a_preparation():
    """skops finds no type in it that it does not trust, but for NumPy's description of types."""
    spec = datasets.from_frame(FRAME, target="answer", missing="median", categorical=["code"])
    fitted = datasets.preparation(spec, datasets.generate(spec), seed=0, scaling="standard")
    content = raw_rows.packed(fitted.transformer, fitted.places)
    assert set(skops.io.get_untrusted_types(data=content)) <= set(raw_rows.TRUSTED)
    assert len(content) < 20_000
