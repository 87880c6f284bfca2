"""Whatever a study file says, it is a study or it is refused in one line; and a study trains.

Hypothesis writes the documents: every source of data, small CSVs of any kind among them, every kind of layer, arms and
claims; whole or broken. A new source, layer or claim needs one line in :data:`DATA`, :data:`LAYERS` or :data:`CLAIMS`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import layerwise
from layerwise import sizes
from layerwise.study import DATA_SETS, Study, StudyError, parse
from layerwise.study.parts import LONGEST_LINE

COUNTS = st.sampled_from([1, 2, 3, 4])
RATES = st.sampled_from([0.01, 0.1, 0.5])
ACTIVATIONS = st.sampled_from(["relu", "tanh", "sigmoid", "linear"])


def part(
    required: dict[str, st.SearchStrategy] | None = None, **optional: st.SearchStrategy
) -> st.SearchStrategy[dict]:
    """A part of a study: some keys always, one or two others at times."""
    some = st.lists(st.sampled_from(sorted(optional)), max_size=2, unique=True) if optional else st.just([])
    return some.flatmap(
        lambda keys: st.fixed_dictionaries({**(required or {}), **{key: optional[key] for key in keys}})
    )


# --- data -------------------------------------------------------------------------------------------------

CELLS = [
    st.integers(0, 9).map(str),
    st.floats(-9, 9).map(lambda number: f"{number:.2f}"),
    st.sampled_from(["red", "blue", "green"]),
    st.sampled_from(["True", "False"]),
    st.sampled_from(["", "1", "2", "nan"]),
    st.sampled_from(["1", "two", "3"]),
    st.sampled_from(["inf", "1e300", "-1"]),
    st.just("same"),
    st.text(max_size=5),
]
"""What a column may hold."""


@st.composite
def csv_texts(draw: st.DrawFn) -> bytes:
    """A small table: mostly sound, at times ragged, with names that repeat or are empty, or no table at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=60))
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "", "é"]), min_size=1, max_size=4))
    cells = [draw(st.sampled_from(CELLS)) for _ in names]
    rows = draw(st.integers(0, 24))
    lines = [",".join([*names, "target"])]
    answers = draw(st.sampled_from([["x", "y"], ["x"], ["0", "1", "2"], [f"{number / 7:.3f}" for number in range(24)]]))
    for row in range(rows):
        values = [draw(cell) for cell in cells] + [answers[row % len(answers)]]
        lines.append(",".join(values))
    if draw(st.integers(0, 9)) == 0:
        lines.append("ragged")
    return "\n".join(lines).encode()


PARTS = {
    "split": st.sampled_from(
        [{"train": 0.5, "test": 0.5}, {"train": 0.6, "validation": 0.2, "test": 0.2}] * 3
        + [{"train": 20, "test": 20}, {"train": 0.5, "test": 0.1}, {"train": 20, "test": 0.5}, {"train": 2, "test": 0}]
    ),
    "labels": st.sampled_from([2, 4, 10]),
    "scaling": st.sampled_from(["none", "standard", "min_max"]),
    "shuffle": st.booleans(),
}
SIZE = {"samples": st.sampled_from([40, 41]), "split": st.just({"train": 0.6, "test": 0.4})}
TARGET = {"target": st.sampled_from(["target"] * 9 + ["a", "none"])}
COLUMNS = {
    "missing": st.sampled_from(["refuse", "mean", "median", "most_frequent", "drop_rows"]),
    "features": st.sampled_from([["a"], ["a", "b"], ["a", "c"], ["target"], []]),
    "drop": st.sampled_from([["a"], ["b"], ["c"], ["z"]]),
    "categorical": st.sampled_from([["a"], ["b"], ["c"], ["z"]]),
    "separator": st.sampled_from([",", ",", ";"]),
    "task": st.sampled_from(["classification", "regression"]),
}


def _table(folder: Path) -> st.SearchStrategy[dict]:
    whole = st.sampled_from(["people.csv", "people.parquet", "numbers.csv", "gaps.csv"])
    any_at_all = csv_texts().map(lambda content: _kept(folder, content))
    return part({"path": st.one_of(whole, whole, any_at_all), **TARGET}, **PARTS, **COLUMNS)


def _kept(folder: Path, content: bytes) -> str:
    """The name of a file with that content: one of its own, so that no two are taken for one another."""
    name = f"{hashlib.sha256(content).hexdigest()[:12]}.csv"
    (folder / name).write_bytes(content)
    return name


ARCHIVES = st.sampled_from(
    ["own.npz", "images.npz"] * 3 + ["objects.npz", "pickled.npz", "x.npy", "people.csv", "no.npz"]
)
FUNCTIONS = st.sampled_from(["made", "made", "named", "frame", "number", "fails", "absent"])
LOADER = {"loader": FUNCTIONS.map("any_study_rows:{}".format)}
OPTIONS = st.sampled_from([{"rows": 30}, {"rows": 1}, {"row": 3}])
DATA: dict[str, Callable[[Path], st.SearchStrategy[dict]]] = {
    "blobs": lambda _: part(SIZE, **PARTS, classes=COUNTS, features=COUNTS, fresh=st.booleans()),
    "moons": lambda _: part(SIZE, **PARTS, noise=RATES, fresh=st.booleans()),
    "circles": lambda _: part(SIZE, **PARTS, factor=RATES),
    "classification": lambda _: part(SIZE, **PARTS, classes=COUNTS, features=COUNTS, informative=COUNTS),
    "digits": lambda _: part(**PARTS),
    "wine": lambda _: part(**PARTS),
    "breast_cancer": lambda _: part(**PARTS),
    "diabetes": lambda _: part(**PARTS),
    "table": _table,
    "arrays": lambda _: part({"path": ARCHIVES}, **PARTS, targets_path=st.just("y.npy"), inputs=st.sampled_from("xz")),
    "loader": lambda _: part(LOADER, **PARTS, target=st.just("t"), options=OPTIONS),
}
"""Every source of data by name, given the folder of files."""


def _sources(folder: Path) -> st.SearchStrategy[dict]:
    made = {source: strategy(folder) for source, strategy in DATA.items()}
    # Own data more often: there is most to go wrong with them.
    return st.sampled_from([*DATA, "table", "table", "table", "arrays", "loader"]).flatmap(
        lambda source: made[source].map(lambda said: {"source": source, **said})
    )


# --- network, training, arms, claims ----------------------------------------------------------------------

OPTIMIZERS = st.sampled_from(["sgd", "adam", "rmsprop", "adagrad"]).map(lambda name: {"name": name})
NOISE = st.sampled_from([{"kind": "masking", "rate": 0.25}, {"kind": "gaussian", "sd": 0.1}])
EPOCH = {"epochs": st.just(1), "batch_size": st.sampled_from([2] * 9 + [500])}
TRAINING = part(EPOCH, optimizer=OPTIMIZERS)
COMMON = {
    "dropout": RATES,
    "normalization": st.sampled_from(["batch", "layer"]),
    "repeat": st.just(2),
    "training": part(epochs=st.just(1)),
    "noise": NOISE,
}
UNITS = {"units": st.sampled_from([2, 3, 4, 8])}
GRID = {"kernel_size": COUNTS, "strides": COUNTS, "pooling": part(size=COUNTS)}
LAYERS: dict[str, st.SearchStrategy[dict]] = {
    "dense": part(UNITS, activation=ACTIVATIONS, regularization=st.just({"l2": 0.01}), **COMMON),
    "residual": part(UNITS, activation=ACTIVATIONS, **COMMON),
    "conv": part({"filters": COUNTS}, **GRID, **COMMON),
    "lstm": part(UNITS, **COMMON),
    "gru": part(UNITS, **COMMON),
    "custom": part({"function": FUNCTIONS.map("any_study_layers:{}".format)}, options=st.just({"units": 3})),
}
"""Every kind of layer by name."""

LAYER = st.sampled_from([*LAYERS, *["dense"] * 6]).flatmap(
    lambda kind: LAYERS[kind].map(lambda said: {"kind": kind, **said})
)
SOME_LAYERS = st.lists(LAYER, min_size=1, max_size=2)
ENCODER = part({"features": st.sampled_from(["0-1", [0], "3-2"]), "layers": st.lists(LAYER, min_size=1, max_size=1)})
FLAT = part({"layers": SOME_LAYERS})
OTHERWISE = part(
    {"layers": SOME_LAYERS},
    inputs=st.dictionaries(st.sampled_from(["left", "right"]), ENCODER, min_size=1, max_size=2),
    head=st.lists(LAYER, min_size=1, max_size=1),
)
GRIDS = st.sampled_from(
    [("conv", [8, 8, 1]), ("lstm", [8, 8]), ("gru", [6, 6]), ("conv", [6, 6, 1]), ("conv", [2])]
).flatmap(
    lambda case: part(
        {"layers": LAYERS[case[0]].map(lambda said: [{"kind": case[0], **said}]), "input": st.just(case[1])}
    )
)
NETWORK = st.one_of(FLAT, FLAT, OTHERWISE, GRIDS)
FINE_TUNE = part(
    EPOCH,
    objective=st.sampled_from(["labels", "reconstruction", "both"]),
    at=st.sampled_from(["end", "every_depth"]),
    carry=st.booleans(),
    learning_rate_factors=st.sampled_from([[1, 1], [0, 1, 1], [0, 0]]),
)
WORDS = st.sampled_from(["greedy", "greedy", "autoencoder", "end_to_end", "random_frozen", "scratch", "permuted"])
ARM = st.one_of(
    WORDS,
    part(
        objective=st.sampled_from(["supervised", "reconstruction"]),
        noise=NOISE,
        head=TRAINING,
        fine_tune=FINE_TUNE,
        labels=st.sampled_from([2, 4]),
        scaling=st.sampled_from(["none", "standard"]),
        control=st.sampled_from(["end_to_end", "random_frozen", "scratch", "permuted"]),
        of=st.sampled_from(["one", "two"]),
        network=FLAT,
        depths=st.sampled_from(["all", "final"]),
    ),
)
ARMS = st.one_of(
    st.fixed_dictionaries({"one": st.just("greedy")}, optional={"two": ARM}),
    st.fixed_dictionaries({"one": st.just({"objective": "reconstruction"})}, optional={"two": ARM}),
    st.dictionaries(st.sampled_from(["one", "table", "x y"]), ARM, min_size=1, max_size=2),
)
SIDES = {"arm": st.just("one"), "metric": st.sampled_from(["test_accuracy", "test_r2", "loss"])}
TWO = st.just("two")
CLAIMS: dict[str, st.SearchStrategy[dict]] = {
    "compare": part({**SIDES, "above": TWO}, by=RATES),
    "equivalent": part({**SIDES, "to": TWO, "within": RATES}),
    "trend": part({**SIDES, "direction": st.sampled_from(["up", "down"])}),
    "ordered": part(
        {"metric": st.just("test_accuracy"), "arms": st.just(["one", "two", "one"])}, direction=st.just("up")
    ),
    "bound": part({**SIDES, "at_most": RATES}, at_least=RATES),
    "rate": part({"arm": st.just("one"), "outcome": st.just("diverged"), "at_most": RATES}),
    "ratio": part({**SIDES, "to": TWO, "above": RATES}),
}
"""Every kind of claim by name."""

CLAIM = st.sampled_from([*CLAIMS]).flatmap(lambda kind: CLAIMS[kind].map(lambda said: {"kind": kind, **said}))


def documents(folder: Path) -> st.SearchStrategy[dict]:
    """Documents that are mostly studies; which parts go together is left to chance."""
    return part(
        {"name": st.just("any"), "data": _sources(folder), "network": NETWORK, "training": TRAINING, "seeds": COUNTS},
        arms=ARMS,
        track=st.just({"models": "none"}),
    ).flatmap(_with_claims)


def _with_claims(document: dict) -> st.SearchStrategy[dict]:
    """At times with claims, where there are arms for them."""
    if "two" not in document.get("arms", ()):
        return st.just(document)
    claims = st.dictionaries(st.sampled_from(["first", "second"]), CLAIM, min_size=1, max_size=2)
    claimed = part({"claims": claims}, alpha=RATES, stop=st.just({"every": 1}))
    return st.one_of(st.just({}), claimed).map(lambda said: {**document, **said})


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just("x" * 1000),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[dict]) -> dict:
    """A document with up to three slips: a value replaced, left out or put under another name, or a key too many."""
    document = copy.deepcopy(draw(whole))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place, key = draw(st.sampled_from(_places(document)))
        slip = draw(st.integers(0, 3))
        if slip == 0 or isinstance(place, list):
            place[key] = draw(JUNK)
        elif slip == 1:
            del place[key]
        elif slip == 2:
            place[draw(st.text(max_size=6))] = place.pop(key)
        else:
            place[draw(st.sampled_from(["source", "kind", "units", "labels", "of", "a\nb"]))] = draw(JUNK)
        if not document:
            break
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document that holds a value: the container and the key."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in [*steps] for found in [(value, key), *_places(inner)]]


# --- what holds for all of them ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents name."""
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(40, 4)), np.arange(40) % 2
    frame = pd.DataFrame(inputs.round(3), columns=list("abcd"))
    frame.assign(target=targets).to_csv(folder / "numbers.csv", index=False)
    people = frame.assign(
        b=np.array(["red", "blue"])[targets], target=np.array(["no", "yes"])[rng.permutation(targets)]
    )
    people.to_csv(folder / "people.csv", index=False)
    people.to_parquet(folder / "people.parquet")
    people.loc[3, "a"] = np.nan
    people.to_csv(folder / "gaps.csv", index=False)
    np.savez(folder / "own.npz", x=inputs, y=targets)
    images = rng.integers(0, 256, (40, 6, 6)).astype(np.uint8)
    np.savez(folder / "images.npz", x_train=images[:30], y_train=targets[:30], x_test=images[30:], y_test=targets[30:])
    np.savez(folder / "objects.npz", x=np.array([{}] * 40), y=targets)
    (folder / "pickled.npz").write_bytes(b"\x80\x04N.")
    np.save(folder / "x.npy", inputs)
    np.save(folder / "y.npy", targets)
    (folder / "any_study_rows.py").write_text(
        "import numpy as np\nimport pandas as pd\n\n"
        "def made(rows=30):\n    return np.random.default_rng(0).normal(size=(rows, 3)), np.arange(rows) % 2\n\n"
        "def named(rows=30):\n    inputs, targets = made(rows)\n    return {'x': inputs, 'y': targets}\n\n"
        "def frame(rows=30):\n    inputs, targets = made(rows)\n"
        "    return pd.DataFrame(inputs, columns=['a', 'b', 'c']).assign(t=targets)\n\n"
        "def number():\n    return 3\n\n"
        "def fails(**_):\n    raise RuntimeError('no\\nfile')\n"
    )
    (folder / "any_study_layers.py").write_text(
        "import keras\n\n"
        "def made(units=2):\n    return [keras.layers.Dense(units, activation='tanh')]\n\n"
        "named = made\n\n"
        "def frame(units=2):\n    return keras.layers.Dense(units)\n\n"
        "def number(**_):\n    return 3\n\n"
        "def fails(**_):\n    raise RuntimeError('no\\nlayer')\n"
    )
    return folder


def study_or_refusal(document: dict, folder: Path) -> Study | None:
    """The study that a document is, with all that is asked of it before it trains; or none, refused in one line."""
    try:
        study = parse(document, folder=folder)
        digest = study.digest()
    except StudyError as refusal:
        text = str(refusal)
        assert text.isprintable(), text
        assert len(text) <= LONGEST_LINE, text
        return None
    assert study.blocks()
    assert sum(sizes.estimated_bytes(study, study.data.shape()).values()) > 0
    assert parse(document, folder=folder).digest() == digest
    assert Study.model_validate_json(study.model_dump_json()).digest() == digest
    return study


def refused_only_in_one_line(folder: Path, examples: int) -> list[str]:
    """Read so many documents; the sources of data of those accepted."""
    accepted: list[str] = []

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(broken(documents(folder)))
    def read(document: dict) -> None:
        study = study_or_refusal(document, folder)
        if study is not None:
            accepted.append(study.data.source)

    read()
    return accepted


def trained(folder: Path, number: int) -> int:
    """Train so many accepted documents; how many of them had data that could be trained on."""
    outcomes: list[bool] = []

    @settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(documents(folder))
    def train(document: dict) -> None:
        study = study_or_refusal(document, folder)
        assume(study is not None)
        assert study is not None
        try:
            table = layerwise.run(study).table()
        except StudyError:  # of what only the data can tell, such as a feature that is constant
            outcomes.append(False)
            return
        assert set(table["arm"]) == set(study.arms)
        assert (table["seeds"] + table["diverged"] + table["collapsed"] >= study.seeds).all()
        outcomes.append(True)

    train()
    return sum(outcomes)


def test_every_source_of_data_is_written():
    """The documents name every source that a study file can name."""
    assert DATA.keys() == DATA_SETS.keys() - {"memory"}


def test_whatever_a_study_says_is_a_study_or_one_line(folder: Path):
    """300 documents: no error but a refusal in one printable line; a good part is accepted, own data among it."""
    accepted = refused_only_in_one_line(folder, 300)
    assert len(accepted) > 40
    assert set(accepted) >= {"table", "arrays", "loader"}


@pytest.mark.slow
def test_whatever_many_studies_say_is_a_study_or_one_line(folder: Path):
    """2,000 documents: no error but a refusal in one printable line, and every source of data is accepted."""
    accepted = refused_only_in_one_line(folder, 2000)
    assert len(accepted) > 300
    assert set(accepted) == DATA.keys()


def test_some_of_the_accepted_train(folder: Path):
    """Two studies of whatever kind train, and every arm of theirs has its scores."""
    assert trained(folder, 2) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_of_the_accepted_train(folder: Path):
    """25 studies of whatever kind train, and every arm of theirs has its scores."""
    assert trained(folder, 25) >= 20
