"""Tables: what a column is taken for, what is fitted to a training part, and every refusal in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerwise import datasets
from layerwise.study import Study, StudyError, parse

HEADER = "age,colour,smokes,answer\n"


def rows(number: int = 12) -> str:
    """A table of two classes; the fifth row has no age, the seventh no colour."""
    lines = []
    for row in range(number):
        age, colour = ("" if row == 4 else 20 + row), ("" if row == 6 else ("red", "blue", "green")[row % 3])
        lines.append(f"{age},{colour},{row % 2 == 0},{('no', 'yes')[row % 2]}\n")
    return "".join(lines)


def document(path: Path | str, **data: object) -> dict:
    return {
        "name": "own",
        "data": {"source": "table", "path": str(path), "target": "answer", "missing": "mean", **data},
        "network": {"layers": [{"units": 4}]},
        "training": {"batch_size": 2},
        "seeds": 10,
    }


@pytest.fixture
def table(root: Path) -> Path:
    path = root / "people.csv"
    path.write_text(HEADER + rows())
    return path


def own(path: Path | str, **data: object) -> Study:
    return parse(document(path, **data))


def refusal(path: Path | str, folder: Path | None = None, **data: object) -> str:
    with pytest.raises(StudyError) as caught:
        parse(document(path, **data), folder=folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_columns_are_what_they_hold(table: Path):
    """Numbers and booleans are inputs as they are, text becomes one for each value, the target keeps its names."""
    study = own(table)
    data = datasets.generate(study.data)
    assert (study.data.task, tuple(study.data.shape())) == ("classification", (12, 5, 2))
    assert data.classes == ("no", "yes")
    assert data.table.kinds == ("double", "string", "boolean")
    assert data.table.inputs == ["age", "colour=blue", "colour=green", "colour=red", "smokes"]
    np.testing.assert_array_equal(data.inputs[0], [20, 0, 0, 1, 1])
    np.testing.assert_array_equal(np.isnan(data.inputs).sum(axis=0), [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(data.targets, np.arange(12) % 2)


def test_parquet_holds_the_same_table(table: Path):
    """A table is the same data in either format; its study is another, since the file is."""
    frame = pd.read_csv(table)
    frame.to_parquet(table.with_suffix(".parquet"))
    one, other = own(table), own(table.with_suffix(".parquet"))
    assert datasets.generate(one.data).digest == datasets.generate(other.data).digest
    assert one.digest() != other.digest()
    given = datasets.from_frame(frame, target="answer", missing="mean")
    assert datasets.generate(given).digest == datasets.generate(one.data).digest


def test_numbers_can_be_categories(root: Path):
    """A column of numbers that is named in categorical has one input for each number, in their order."""
    path = root / "codes.csv"
    path.write_text("code,answer\n" + "".join(f"{code},{code % 2}.5\n" for code in (10, 9, 10, 9, 8, 8)))
    data = datasets.generate(own(path, categorical=["code"]).data)
    assert data.table.inputs == ["code=8", "code=9", "code=10"]
    assert data.table.kinds == ("long",)
    assert own(path).data.shape().features == 1


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["a", "b"] * 30, "classification", 2),
        ([True, False] * 30, "classification", 2),
        ([*range(20)] * 3, "classification", 20),
        ([*range(30)] * 2, "regression", 0),
        ([0.5, 1.5] * 30, "regression", 0),
    ],
)
def test_the_target_decides_the_task(values: list, task: str, classes: int):
    """Text, booleans and up to twenty whole numbers are classes; other numbers are numbers; either can be said."""
    frame = pd.DataFrame({"x": np.arange(60.0), "answer": values})
    spec = datasets.from_frame(frame, target="answer")
    assert (spec.task, spec.shape().classes) == (task, classes)
    assert datasets.from_frame(frame, target="answer", task="classification").shape().classes == len(set(values))
    if type(values[0]) in {int, float}:
        assert datasets.from_frame(frame, target="answer", task="regression").shape().classes == 0


def test_what_is_fitted_sees_the_training_part_alone(table: Path):
    """Another value in a test row changes no other row of that seed, and every seed has its own means."""
    study = own(table, scaling="standard", split={"train": 8, "test": 4})
    data = datasets.generate(study.data)
    seen = datasets.view(study.data, data, seeds=range(10), labels=None, scaling="standard")
    assert seen.inputs.shape == (10, 12, 5)
    assert np.isfinite(seen.inputs).all()
    for position in range(10):
        np.testing.assert_allclose(seen.inputs[position, seen.pool[position], 0].mean(), 0, atol=1e-6)
    number = int(seen.test[0][0])
    changed = pd.read_csv(table)
    changed.loc[number, "age"] = 1e6
    path = table.with_name("changed.csv")
    changed.to_csv(path, index=False)
    other = own(path, scaling="standard", split={"train": 8, "test": 4})
    again = datasets.view(other.data, datasets.generate(other.data), seeds=range(10), labels=None, scaling="standard")
    kept = np.arange(12) != number
    np.testing.assert_array_equal(seen.inputs[0, kept], again.inputs[0, kept])
    trained_on = [position for position in range(10) if number in seen.pool[position]]
    assert trained_on
    for position in trained_on:
        assert not np.array_equal(seen.inputs[position, kept], again.inputs[position, kept])


@pytest.mark.parametrize(("missing", "filled"), [("mean", 5.0), ("median", 3.0), ("most_frequent", 1.0)])
def test_missing_values_follow_the_policy(missing: str, filled: float):
    """A missing number becomes the training part's mean, median or most frequent value, a category the last."""
    frame = pd.DataFrame(
        {
            "x": [1.0, 1.0, 3.0, 5.0, 15.0, np.nan],
            "c": ["a", "b", "b", "a", "b", None],
            "answer": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        }
    )
    spec = datasets.from_frame(frame, target="answer", missing=missing, shuffle=False, split={"train": 5, "test": 1})
    seen = datasets.view(spec, datasets.generate(spec), seeds=(0,), labels=None, scaling="none")
    np.testing.assert_array_equal(seen.inputs[5], [filled, 0, 1])


def test_rows_with_gaps_can_be_dropped(table: Path):
    """drop_rows leaves the rows with a missing value out, and says how many are left."""
    assert own(table, missing="drop_rows").data.shape().rows == 10


def test_a_level_that_training_never_showed_is_all_zeros():
    """Every level has its place for every seed, and one that a training part lacks is 0 there and in the test part."""
    frame = pd.DataFrame({"c": ["a", "b", "a", "b", "new", "b"], "answer": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]})
    spec = datasets.from_frame(frame, target="answer", shuffle=False, split={"train": 4, "test": 2})
    seen = datasets.view(spec, datasets.generate(spec), seeds=(0,), labels=None, scaling="none")
    np.testing.assert_array_equal(seen.inputs, [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])


def test_every_part_has_every_class_in_proportion():
    """Parts of own data are stratified: a rare class is in training and test of every seed."""
    frame = pd.DataFrame({"x": np.arange(100.0), "answer": ["common"] * 90 + ["rare"] * 10})
    spec = datasets.from_frame(frame, target="answer", split={"train": 0.6, "validation": 0.1, "test": 0.3})
    seen = datasets.view(spec, datasets.generate(spec), seeds=range(10), labels=None, scaling="none")
    for part, size, rare in ((seen.pool, 60, 6), (seen.validation, 10, 1), (seen.test, 30, 3)):
        assert part.shape == (10, size)
        assert (seen.targets_of(part) == 1).sum(axis=1).tolist() == [rare] * 10
    together = np.concatenate([seen.pool, seen.validation, seen.test], axis=1)
    np.testing.assert_array_equal(np.sort(together, axis=1), np.tile(np.arange(100), (10, 1)))
    assert len({tuple(part) for part in seen.test.tolist()}) == 10


def test_identity_is_the_content_and_not_the_place(table: Path, monkeypatch: pytest.MonkeyPatch):
    """A study keeps its digest when its file is moved or touched, and changes it with one character of the file."""
    first = own(table).digest()
    moved = table.parent / "elsewhere" / "renamed.csv"
    moved.parent.mkdir()
    table.replace(moved)
    assert own(moved).digest() == first
    monkeypatch.chdir(moved.parent)
    assert own("renamed.csv").digest() == first
    moved.write_text(moved.read_text().replace("20,", "21,", 1))
    assert own(moved).digest() != first
    assert own(moved, missing="median").digest() != own(moved).digest()


def test_a_policy_is_part_of_the_datas_digest(table: Path):
    """What a stage is trained on differs with the rule for missing values, so its digest does, too."""
    mean, median = own(table), own(table, missing="median")
    assert datasets.generate(mean.data).digest != datasets.generate(median.data).digest


@pytest.mark.usefixtures("table")
def test_a_file_is_found_beside_the_study_and_then_in_the_working_directory(tmp_path: Path):
    """The study's own folder comes first; a path that is in neither is refused by name."""
    beside = tmp_path / "study"
    beside.mkdir()
    (beside / "people.csv").write_text(HEADER + rows(20))
    found = parse(document("people.csv"), folder=beside)
    assert found.data.shape().rows == 20
    assert parse(document("people.csv")).data.shape().rows == 12
    assert "'persons.csv' is no file in the study's folder or the working directory" in refusal("persons.csv")
    assert "'study' is a folder" in refusal("study")


def test_a_file_that_changes_meanwhile_is_refused(table: Path):
    """A study that was made with other content does not train on what is there now."""
    study = own(table)
    table.write_text(HEADER + rows(14))
    with pytest.raises(StudyError, match=r"people.csv: has changed since the study was read; run again"):
        datasets.generate(study.data)
    table.unlink()
    with pytest.raises(StudyError, match=r"people.csv: cannot be read \(No such file or directory\)"):
        datasets.generate(study.data)


def test_a_study_survives_its_way_through_json(table: Path):
    """What Prefect stores of a study's parameters is the same study again."""
    study = own(table, categorical=["age"], missing="most_frequent")
    again = Study.model_validate_json(study.model_dump_json())
    assert again.digest() == study.digest()
    assert (again.data.shape(), again.data.split) == (study.data.shape(), study.data.split)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty; expected a header"),
        (HEADER, "has no rows; expected a header"),
        ("age,answer\n1,a\n2\n", "line 3 has 1 values, but the header names 2"),
        ("age,answer\n1,a\n2,b,3\n", "line 3 has 3 values, but the header names 2"),
        ("age,age,answer\n1,2,a\n3,4,b\n", "has the column 'age' twice"),
        ("age,,answer\n1,2,a\n3,4,b\n", "column 2 has no name"),
        ("age;answer\n1;a\n2;b\n", "has one column, 'age;answer'; say which separator"),
        ("age,answer\n1,a\nold,b\n3,a\n4,b\n", "column 'age' holds numbers and text ('old' in row 2)"),
        ("age,answer\n1,a\n2,a\n3,a\n", "target column 'answer' is 'a' in every row"),
        ("age,answer\n1,a\n2,a\n3,b\n", "class 'b' of target column 'answer' has one example"),
        ("age,answer\n1,a\n2,\n3,a\n4,b\n5,b\n", "target column 'answer' has 1 missing value (first in row 2)"),
        ("age,answer\n,a\n,b\n,a\n,b\n", "column 'age' has no value at all"),
        ("age,answer\ninf,a\n2,b\n3,a\n4,b\n", "column 'age' holds inf in row 1"),
        ("age,answer\n1e300,a\n2,b\n3,a\n4,b\n", "column 'age' holds 1e+300 in row 1"),
        ("when,answer\n2020-01-02,a\n2020-01-03,b\n2020-01-02,a\n2020-01-03,b\n", "column 'when' holds date values"),
        ("answer\na\nb\na\nb\n", "no column is left for input"),
        ("age,reply\n1,a\n2,b\n", "target names 'answer', which is no column; there are 'age', 'reply'"),
        ("age,answer\n1,0.5\n2,0.5\n", "target column 'answer' is '0.5' in every row"),
        ("age,answer\n1,inf\n2,0.5\n3,1.5\n", "target column 'answer' has an infinite value in row 1"),
        (b"age,answer\n\xff\xfe,a\n\xff\xfe,b\n\xff,a\n\xff,b\n", "column 'age' holds bytes that are not UTF-8 text"),
        (b"\x00\x01\x02", "is no table of the kind that its name says"),
    ],
)  # fmt: skip
def test_a_broken_table_is_refused_in_one_line(root: Path, content: str | bytes, expected: str):
    """Whatever is wrong with a table is said with its column and row."""
    path = root / "broken.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert expected in refusal(path)
    assert "broken.csv" in refusal(path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"target": "anser"}, "target names 'anser', which is no column; did you mean 'answer'?"),
        ({"features": ["age", "height"]}, "features names 'height', which is no column"),
        ({"features": ["age", "answer"]}, "features names 'answer', which is the target"),
        ({"features": ["age", "age"]}, "features name the column 'age' twice"),
        ({"drop": ["heigth"]}, "drop names 'heigth', which is no column"),
        ({"drop": ["age"], "features": ["colour"]}, "both features and drop are given"),
        ({"categorical": ["age"], "features": ["colour"]}, "categorical names 'age', which is no input"),
        ({"missing": "refuse"}, "column 'age' has 1 missing value (first in row 5), and 1 other column too"),
        ({"missing": "zero"}, "missing: received 'zero'; known: refuse, mean, median, most_frequent, drop_rows"),
        ({"task": "regression"}, "target column 'answer' holds text, but regression needs numbers"),
        ({"split": {"train": 0.7, "test": 0.2}}, "train 0.7 + test 0.2 = 0.9; shares have to add up to 1"),
        ({"split": {"train": 0.7, "test": 5}}, "mixes rows and shares"),
        ({"split": {"train": 0.99, "test": 0.01}}, "leaves test without a row"),
        ({"split": {"train": 1, "test": 11}}, "train 1 is fewer than the 2 classes"),
        ({"split": {"train": 0, "test": 1.0}}, "split.train: received 0; expected a number of rows"),
        ({"labels": 9}, "labels 9 is more than the training part's 8 rows"),
        ({"labels": 1}, "labels: received 1"),
        ({"patj": "x"}, "data.patj: unknown key; did you mean path?"),
    ],
)  # fmt: skip
def test_a_wrong_request_of_a_table_is_refused_in_one_line(table: Path, data: dict, expected: str):
    """What a study asks of a table that the table does not have is said by the key and the nearest name."""
    assert expected in refusal(table, **data)


def test_a_file_that_is_no_table_by_name_is_refused(root: Path):
    """The name's ending says what a file is."""
    (root / "people.xls").write_bytes(b"x")
    assert "expected .csv, .tsv, .txt or .parquet" in refusal("people.xls")
    (root / "people.parquet").write_bytes(b"PAR1 but no more")
    assert "people.parquet: is no table of the kind that its name says" in refusal("people.parquet")


def test_too_many_levels_are_refused_by_the_largest_column(root: Path):
    """Categories that would become more than 1,000 inputs are refused, and the column that has most is named."""
    frame = pd.DataFrame({"name": [f"person {row}" for row in range(1200)], "c": ["a", "b"] * 600, "answer": 0.5})
    frame["answer"] += np.arange(1200)
    frame.to_csv(root / "names.csv", index=False)
    assert "would become 1,202 inputs, 1,200 of them for column 'name'; at most 1,000" in refusal("names.csv")
    assert own("names.csv", drop=["name"]).data.shape().features == 2


def test_mixed_values_can_be_categories(root: Path):
    """Numbers and text in one column are categories if the study says so; 1 and 1.0 are then one."""
    (root / "mixed.csv").write_text("size,answer\n1,a\nlarge,b\n2,a\nlarge,b\n")
    data = datasets.generate(own("mixed.csv", categorical=["size"], split={"train": 2, "test": 2}).data)
    assert data.table.levels == (("1", "2", "large"),)
    frame = pd.DataFrame({"size": [1, "large", 1.0, 2], "answer": ["a", "b", "a", "b"]})
    assert datasets.from_frame(frame, target="answer", categorical=["size"]).shape().features == 3
    with pytest.raises(StudyError, match="column 'size' holds values of several types"):
        datasets.from_frame(frame, target="answer")


def test_a_column_without_a_value_in_training_is_refused():
    """Where a training part knows nothing of a column there is nothing to fill in."""
    frame = pd.DataFrame({"x": [np.nan, np.nan, 1.0, 2.0], "z": np.arange(4.0), "answer": [0.1, 0.2, 0.3, 0.4]})
    spec = datasets.from_frame(frame, target="answer", missing="mean", shuffle=False, split={"train": 2, "test": 2})
    with pytest.raises(StudyError, match="column 'x' has no value on a training part"):
        datasets.view(spec, datasets.generate(spec), seeds=(0,), labels=None, scaling="none")


def test_a_constant_column_cannot_be_scaled():
    """Scaling divides by a column's spread, so a constant one is refused by its name."""
    frame = pd.DataFrame({"x": [1.0] * 4, "z": np.arange(4.0), "answer": [0.1, 0.2, 0.3, 0.4]})
    spec = datasets.from_frame(frame, target="answer", scaling="standard", split={"train": 2, "test": 2})
    with pytest.raises(StudyError, match="column 'x' is constant on a training part, so standard scaling"):
        datasets.view(spec, datasets.generate(spec), seeds=(0,), labels=None, scaling="standard")


def test_the_balance_of_classes_is_said():
    """The largest and the smallest class are reported with their shares; of numbers, range, mean and spread."""
    frame = pd.DataFrame({"x": np.arange(10.0), "answer": ["sick"] * 3 + ["well"] * 7})
    spec = datasets.from_frame(frame, target="answer")
    assert datasets.class_balance(datasets.generate(spec)) == (
        "largest class: well, 70.0 % of rows; smallest: sick, 30.0 %"
    )
    spec = datasets.from_frame(frame.assign(answer=np.arange(10.0) / 2), target="answer")
    assert datasets.class_balance(datasets.generate(spec)) == "target from 0 to 4.5, mean 2.25, sd 1.436"


def test_a_frame_of_python_says_its_settings():
    """Split, labels, scaling and shuffle are as in a study file; another word is refused with the nearest."""
    frame = pd.DataFrame({"x": np.arange(10.0), "answer": ["sick"] * 3 + ["well"] * 7})
    spec = datasets.from_frame(frame, target="answer", split={"train": 8, "test": 2}, labels=4, scaling="standard")
    assert (spec.split.train, spec.labels, spec.scaling) == (8, 4, "standard")
    with pytest.raises(StudyError, match=r"data: spilt: unknown key; did you mean split\?"):
        datasets.from_frame(frame, target="answer", spilt={"train": 8, "test": 2})
    with pytest.raises(StudyError, match=r"data: train 8 \+ test 3 = 11 rows, but there are 10"):
        datasets.from_frame(frame, target="answer", split={"train": 8, "test": 3})
    with pytest.raises(StudyError, match="source memory is for Python"):
        parse({**document("x.csv"), "data": {"source": "memory"}})
