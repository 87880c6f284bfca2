"""Keras models on the runs of their seeds: genuine, exact, each once, repaired after a kill. Imports TensorFlow."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from layerwise import datasets, raw_rows
from layerwise.study import Wine
from tasks import serving
from tasks.tracking import publishing
from tasks.tracking.manifest import damaged_files
from tasks.tracking.publishing import Point, Publisher, SeedModel
from tasks.tracking.store import TrackingError, store_uri
from tasks.tracking.templates import ModelTemplate, Serving, default_requirements, raw_row_requirements
from tests.tracking.conftest import Cut, Killed

with warnings.catch_warnings():
    # MLflow 3.17 warns of its own type hints while it imports this; to go when it stops.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
    import mlflow.pyfunc

# Keras 3.15 turns variables into arrays without NumPy 2's `copy` keyword; to go when keras.ops does it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:keras"
)

NOW = 1_790_000_000_000


def network(hidden: int = 1, **dense) -> keras.Model:
    """A classifier of two inputs and three classes, with statistics and noise beside its weights.

    Its parts are named: names that Keras numbers by itself grow with the models made before, and so do files.
    """
    return keras.Sequential(
        [
            keras.Input((2,), name="input"),
            *(keras.layers.Dense(4, "relu", name=f"hidden_{number}", **dense) for number in range(hidden)),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.Dropout(0.5, seed=1, name="dropout"),
            keras.layers.Dense(3, activation="softmax", name="output"),
        ],
        name="network",
    )


@pytest.fixture(scope="module")
def template() -> ModelTemplate:
    return ModelTemplate.of(network())


def weights_of(seed: int, template: ModelTemplate) -> list[np.ndarray]:
    """Weights that belong to one seed; positive, since variances are among them."""
    generator = np.random.default_rng(seed)
    return [generator.uniform(0.1, 1, slot.shape).astype(slot.dtype) for slot in template.slots]


@pytest.fixture
def tree(opened):
    return opened()


@pytest.fixture
def publisher(client, tree):
    return Publisher(client, tree)


@pytest.fixture
def seed_models(tree, template):
    """The models of both seeds at some depths, with two metrics each."""

    def of(depths: Sequence[int] = (1,), seeds: Sequence[int] = (0, 1)) -> list[SeedModel]:
        return [
            SeedModel(
                run_id=tree.seed_run("greedy", seed),
                name=f"depth-{depth:02d}",
                step=depth,
                template=template,
                weights=weights_of(10 * seed + depth, template),
                digest=f"weights-{seed}-{depth}",
                points=[Point(key, seed + depth / 7, depth, NOW) for key in ("test_accuracy", "test_loss")],
            )
            for depth in depths
            for seed in seeds
        ]

    return of


@pytest.mark.parametrize("hidden", [0, 1, 11])
def test_an_archive_is_what_keras_would_have_written(tmp_path, hidden):
    """A filled template loads in safe mode with the exact weights, and predicts as the model with these weights."""
    model = network(hidden)
    template = ModelTemplate.of(model)
    model.set_weights(weights_of(7, template))
    file = tmp_path / "model.keras"
    file.write_bytes(template.keras_archive(model.get_weights()))
    loaded = keras.saving.load_model(file, safe_mode=True, compile=False)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    inputs = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    model.save(tmp_path / "theirs.keras")
    with zipfile.ZipFile(tmp_path / "theirs.keras") as theirs, zipfile.ZipFile(file) as ours:
        assert ours.namelist() == theirs.namelist()
        assert ours.testzip() is None
        assert ours.read("config.json") == theirs.read("config.json")


def test_layers_that_are_shared_or_nested_are_filled(tmp_path):
    """A layer used twice, and a model within a model, get their weights like others."""
    inputs = keras.Input((4,))
    shared, nested = (
        keras.layers.Dense(4, activation="tanh"),
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]),
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(nested(shared(shared(inputs)))))
    template = ModelTemplate.of(model)
    model.set_weights(weights_of(3, template))
    (tmp_path / "model.keras").write_bytes(template.keras_archive(model.get_weights()))
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_making_a_template_leaves_the_model_as_it_was():
    """The model that a template is made of keeps its weights."""
    model = network()
    before = model.get_weights()
    ModelTemplate.of(model)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_architecture_are_refused(template):
    """A wrong number, shape or type of weights is refused with both sides named."""
    weights = weights_of(1, template)
    with pytest.raises(ValueError, match=r"received 7 weights; the architecture has 8"):
        template.keras_archive(weights[:-1])
    with pytest.raises(ValueError, match=r"weight 0 is float32 \(4, 2\); the architecture has float32 \(2, 4\)"):
        template.keras_archive([weights[0].T, *weights[1:]])
    with pytest.raises(ValueError, match=r"weight 1 is float64 \(4,\); the architecture has float32 \(4,\)"):
        template.keras_archive([weights[0], weights[1].astype("float64"), *weights[2:]])


def test_weights_that_the_file_keeps_otherwise_are_refused():
    """A model whose weights Keras stores in another form has no template."""
    with pytest.raises(ValueError, match=r"expected a model with plain float32 weights"):
        ModelTemplate.of(network(dtype="bfloat16"))


def test_a_folder_is_what_mlflow_would_have_written(template, tmp_path):
    """Files, MLmodel and requirements equal those of mlflow.keras.save_model with the same ids."""
    model = network()
    model.set_weights(weights_of(1, template))
    stub = Model(artifact_path="file:///a b", run_id="3" * 32, model_id="m-" + "4" * 32, model_uuid="m-" + "4" * 32)
    shape = lambda size: Schema([TensorSpec(np.dtype("float32"), (-1, size))])  # noqa: E731 - twice on the next line
    mlflow.keras.save_model(
        model,
        str(tmp_path / "theirs"),
        mlflow_model=stub,
        signature=ModelSignature(shape(2), shape(3)),
        pip_requirements=default_requirements(),
    )
    theirs = {
        path.relative_to(tmp_path / "theirs").as_posix(): path.read_bytes()
        for path in (tmp_path / "theirs").rglob("*")
        if path.is_file()
    }
    folder = template.folder(model.get_weights())
    ours = folder.named(model_id=stub.model_id, run_id=stub.run_id, location="file:///a b")
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"MLmodel", "data/model.keras"}:
        assert ours[name] == theirs[name]
    said, expected = yaml.safe_load(ours["MLmodel"]), yaml.safe_load(theirs["MLmodel"])
    assert {key for key in expected if said[key] != expected[key]} == {"utc_time_created"}
    assert {line.partition("==")[0] for line in theirs["requirements.txt"].decode().split()} >= {
        "keras",
        "mlflow",
        "numpy",
    }
    assert b"tensorflow" in theirs["requirements.txt"]


PEOPLE = pd.DataFrame(
    {
        "age": [20.5, np.nan, 31, 44, 25, 60],
        "colour": ["red", "blue", None, "red", "blue", "green"],
        "visits": [3, 1, 2, 3, 1, 2],
        "smokes": [True, False, True, True, False, False],
        "answer": ["no", "yes"] * 3,
    }
)
ONE_INPUT = SimpleNamespace(procedure=SimpleNamespace(bottom=SimpleNamespace(inputs=())))
"""As much as serving asks of a block: that its networks have one input."""
COLUMNS = [("age", "double"), ("colour", "string"), ("visits", "long"), ("smokes", "boolean")]


@pytest.mark.parametrize("kind", ["classifier", "regressor", "autoencoder"])
def test_a_model_of_a_table_takes_raw_rows(publisher, tree, root, monkeypatch, kind):
    """pyfunc serves rows as they stand in the table, named as classes, target or inputs; keras gives the network."""
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", store_uri(root))
    frame = PEOPLE.assign(answer=np.arange(6) / 4) if kind == "regressor" else PEOPLE
    spec = datasets.from_frame(
        frame, target="answer", missing="mean", scaling="standard", split={"train": 4, "test": 2}
    )
    data = datasets.generate(spec)
    seen = datasets.view(spec, data, seeds=(1,), labels=None, scaling="standard")
    width = {"classifier": 2, "regressor": 1, "autoencoder": 6}[kind]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(width, name="output")])
    served = serving.of(SimpleNamespace(kind=kind, block=ONE_INPUT), data)
    fitted = datasets.preparation(spec, data, seed=1, scaling="standard")
    packed = raw_rows.packed(fitted.transformer, fitted.places)
    template = ModelTemplate.of(model, serving=served)
    sent = SeedModel(tree.seed_run("greedy", 1), "depth-01", 1, template, model.get_weights(), "w", (), packed)
    (model_id,) = publisher.models([sent])
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    answer = loaded.predict(frame.drop(columns="answer"))
    expected = model.predict(seen.inputs[0], verbose=0)
    np.testing.assert_array_equal(answer.to_numpy(), expected)
    names = {"classifier": ["no", "yes"], "regressor": ["answer"], "autoencoder": data.table.inputs}[kind]
    assert list(answer.columns) == names
    assert [(column.name, column.type.name) for column in loaded.metadata.signature.inputs] == COLUMNS
    assert loaded.metadata.signature.outputs.input_names() == names
    bare = mlflow.keras.load_model(f"models:/{model_id}")
    np.testing.assert_array_equal(bare.predict(seen.inputs[0], verbose=0), expected)
    with pytest.raises(MlflowException, match="Model is missing inputs \\['colour'\\]"):
        loaded.predict(frame.drop(columns="colour"))


def test_a_model_of_scaled_arrays_takes_raw_rows(tmp_path):
    """Where arrays were scaled, pyfunc scales raw ones by what was fitted to the seed's training part."""
    spec = Wine(source="wine")
    data = datasets.generate(spec)
    seen = datasets.view(spec, data, seeds=(7,), labels=None, scaling="min_max")
    model = keras.Sequential([keras.Input((13,)), keras.layers.Dense(3, activation="softmax")])
    fitted = datasets.preparation(spec, data, seed=7, scaling="min_max")
    template = ModelTemplate.of(model, serving=serving.of(SimpleNamespace(kind="classifier", block=ONE_INPUT), data))
    folder = template.folder(model.get_weights(), raw_rows.packed(fitted.transformer, None))
    files = folder.named(model_id="m-1", run_id="1", location="x")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    loaded = mlflow.pyfunc.load_model(str(tmp_path))
    np.testing.assert_array_equal(loaded.predict(data.inputs), model.predict(seen.inputs[0], verbose=0))
    needed = {line.partition("==")[0] for line in files["requirements.txt"].decode().split()}
    assert {"keras", "mlflow", "numpy", "pandas", "scikit-learn", "skops"} <= needed
    assert len(raw_row_requirements()) == 3


def test_the_code_in_a_models_folder_is_named_by_its_content():
    """Two versions of the code that serves can be loaded side by side, for each has a name of its own."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    template = ModelTemplate.of(model, serving=Serving(None, (), 2, None))
    (name,) = [name for name in template.files if name.startswith("code/")]
    content = template.files[name]
    assert name == f"code/layerwise_raw_rows_{hashlib.sha256(content).hexdigest()[:8]}.py"
    described = yaml.safe_load(template.files["MLmodel"].decode())["flavors"]
    assert described["python_function"]["loader_module"] == Path(name).stem
    assert described["keras"]["data"] == "data"


def test_a_network_of_several_inputs_has_them_by_name():
    """The signature of a network of several inputs names each of them."""
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    model = keras.Model(
        {"left": left, "right": right}, keras.layers.Dense(1)(keras.layers.Concatenate()([left, right]))
    )
    template = ModelTemplate.of(model)
    described = yaml.safe_load(template.files["MLmodel"].decode())["signature"]["inputs"]
    assert [(item["name"], item["tensor-spec"]["shape"]) for item in json.loads(described)] == [
        ("left", [-1, 2]),
        ("right", [-1, 3]),
    ]


def test_a_published_model_predicts_as_its_source(publisher, seed_models, root, monkeypatch):
    """mlflow.keras and mlflow.pyfunc load a published model by its id, with the exact weights."""
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", store_uri(root))
    sent = seed_models()
    for model_id, model in zip(publisher.models(sent), sent, strict=True):
        source = network()
        source.set_weights(model.weights)
        loaded = mlflow.keras.load_model(f"models:/{model_id}")
        for ours, theirs in zip(loaded.get_weights(), model.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        inputs = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        expected = source.predict(inputs, verbose=0)
        np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), expected)
        served = mlflow.pyfunc.load_model(f"models:/{model_id}")
        np.testing.assert_array_equal(served.predict(inputs), expected)
        assert served.metadata.run_id == model.run_id


def test_a_model_says_what_it_is(publisher, client, tree, seed_models):
    """A model is READY, on its seed's run at its depth, with tags and the metrics of that depth."""
    model_id = publisher.models(seed_models((2,), (1,)))[0]
    model = client.get_logged_model(model_id)
    run = client.get_run(tree.seed_run("greedy", 1))
    assert (model.name, str(model.status), model.source_run_id) == ("depth-02", "READY", run.info.run_id)
    own = {key.removeprefix("layerwise."): value for key, value in model.tags.items() if "layerwise." in key}
    assert json.loads(own.pop("files")).keys() == {*seed_models()[0].template.files, "data/model.keras"}
    expected = {"run_key": tree.run_key, "arm": "greedy", "seed": "1", "depth": "2", "digest": "weights-1-2"}
    assert own == expected
    assert {(metric.key, metric.step, metric.value) for metric in model.metrics} == {
        ("test_accuracy", 2, 1 + 2 / 7),
        ("test_loss", 2, 1 + 2 / 7),
    }
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model_id, 2)]
    assert run.data.metrics == {"test_accuracy": 1 + 2 / 7, "test_loss": 1 + 2 / 7}


def test_publishing_again_changes_nothing(publisher, client, tree, seed_models, counts, root):
    """Sent again by this or the next process, models keep ids, files and rows."""
    ids = publisher.models(seed_models((1, 2)))
    file = next((root / "mlruns").rglob("model.keras"))
    before, written = counts(), file.stat().st_mtime_ns
    assert publisher.models(seed_models((1, 2))) == ids
    assert Publisher(client, tree).models(seed_models((2, 1))) == [*ids[2:], *ids[:2]]
    assert (counts(), file.stat().st_mtime_ns) == (before, written)


def test_depths_together_are_as_depths_one_by_one(client, opened, tree, seed_models, counts):
    """Several depths in one call leave the same rows and files as one call a depth."""
    empty = counts()
    Publisher(client, tree).models(seed_models((1, 2, 3)))
    together = counts()
    again = opened(repeat="again")
    renamed = {tree.seed_run("greedy", seed): again.seed_run("greedy", seed) for seed in (0, 1)}
    start, publisher = counts(), Publisher(client, again)
    for depth in (1, 2, 3):
        publisher.models([SeedModel(**{**vars(m), "run_id": renamed[m.run_id]}) for m in seed_models((depth,))])
    one_by_one = {table: number - start[table] for table, number in counts().items()}
    assert one_by_one == {table: number - empty[table] for table, number in together.items()}
    assert one_by_one["logged_models"] == one_by_one["inputs"] == 6
    assert one_by_one["metrics"] == one_by_one["logged_model_metrics"] == 12


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("metrics_first", [False, True])
def test_a_kill_at_any_moment_is_repaired(client, opened, seed_models, counts, answered, metrics_first):
    """Wherever publishing is cut short, the next process completes the same models, with none twice."""
    uncut = None
    for calls in range(1, 30):
        tree = opened(repeat=f"cut-{calls}-{answered}-{metrics_first}")
        models = [SeedModel(**{**vars(m), "run_id": tree.seed_run("greedy", 0)}) for m in seed_models((1, 2), (0,))]
        before = counts()
        if metrics_first:
            Publisher(client, tree).metrics(models[0].run_id, [point for model in models for point in model.points])
        cut = Cut(client, calls, answered=answered)
        try:
            first = Publisher(cut, tree).models(models)
        except Killed:
            first = None
        ids = Publisher(client, tree).models(models)
        found = client.search_logged_models([tree.experiment_id], f"source_run_id = '{models[0].run_id}'")
        assert {(model.model_id, str(model.status)) for model in found} == {(model_id, "READY") for model_id in ids}
        grown = {table: number - before[table] for table, number in counts().items()}
        uncut = uncut or grown
        assert grown == uncut
        if first is not None:
            assert first == ids
            break
    assert calls == 7  # two creations, the outputs, the metrics, two ends; and once without a kill
    assert uncut["logged_models"] == uncut["inputs"] == 2
    assert uncut["metrics"] == uncut["logged_model_metrics"] == 4


def test_a_kill_while_writing_files_is_repaired(client, tree, seed_models, root, monkeypatch):
    """Half-written files of an unfinished model are replaced under its own id."""
    models = seed_models(seeds=(0,))
    with pytest.raises(Killed):
        Publisher(Cut(client, 1, answered=True), tree).models(models)
    (pending,) = client.search_logged_models([tree.experiment_id])
    folder = Path(pending.artifact_location.removeprefix("file://"))
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model.keras").write_bytes(b"PK half")
    assert Publisher(client, tree).models(models) == [pending.model_id]
    with zipfile.ZipFile(io.BytesIO((folder / "data" / "model.keras").read_bytes())) as archive:
        assert archive.testzip() is None
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", store_uri(root))
    np.testing.assert_array_equal(
        mlflow.keras.load_model(f"models:/{pending.model_id}").get_weights()[0], models[0].weights[0]
    )


def damaged(folder: Path, name: str, how: str) -> bytes:
    """Damage a model's file; returns what it was."""
    file = folder / name
    whole = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        changed = {"flipped": whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], "cut": whole[:50], "foreign": b"PK"}
        file.write_bytes(changed[how])
    return whole


@pytest.mark.parametrize("how", ["flipped", "cut", "foreign", "gone"])
@pytest.mark.parametrize("name", ["MLmodel", "data/model.keras", "requirements.txt"])
def test_a_damaged_file_of_a_finished_model_is_written_again(client, tree, seed_models, counts, caplog, name, how):
    """A file of a READY model that is not as it was published is named, and is then what it was; ids and rows stay."""
    models = seed_models((1, 2))
    ids = Publisher(client, tree).models(models)
    before, folder = counts(), Path(client.get_logged_model(ids[1]).artifact_location.removeprefix("file://"))
    assert damaged_files(client.get_logged_model(ids[1])) == []
    whole = damaged(folder, name, how)
    assert damaged_files(client.get_logged_model(ids[1])) == [name]
    assert Publisher(client, tree).models(models) == ids
    assert (counts(), (folder / name).read_bytes()) == (before, whole)
    assert damaged_files(client.get_logged_model(ids[1])) == []
    words = f"Model depth-01 of run {models[1].run_id} was not as published ({name}), and is written again."
    assert caplog.messages == [words]
    Publisher(client, tree).models(models)
    assert len(caplog.messages) == 1


def test_what_others_put_into_a_models_folder_is_left_alone(client, tree, seed_models):
    """MLflow itself adds a file to a registered model when it is loaded: that is no damage."""
    (model_id,) = Publisher(client, tree).models(seed_models(seeds=(0,)))
    found = client.get_logged_model(model_id)
    (Path(found.artifact_location.removeprefix("file://")) / "registered_model_meta").write_text("model_name: x")
    assert damaged_files(found) == []


def test_files_reach_the_disk_before_a_model_is_ready(client, tree, seed_models, monkeypatch):
    """A batch of models is written, then settled on the disk in one request, and only then READY."""
    events = []

    def noting(name, call):
        return lambda *arguments, **named: (events.append(name), call(*arguments, **named))[1]

    monkeypatch.setattr(publishing, "write_all", noting("write", publishing.write_all))
    monkeypatch.setattr(publishing.durable, "settle", noting("settle", publishing.durable.settle))
    monkeypatch.setattr(client, "finalize_logged_model", noting("ready", client.finalize_logged_model))
    Publisher(client, tree).models(seed_models((1, 2)))
    assert events == ["write"] * 4 + ["settle"] + ["ready"] * 4


def test_other_weights_under_a_finished_name_are_a_defect(publisher, client, tree, seed_models, counts):
    """A finished model keeps its weights; others under its name are refused with both digests."""
    (model,) = seed_models(seeds=(0,))
    publisher.models([model])
    before = counts()
    changed = SeedModel(**{**vars(model), "digest": "weights-changed"})
    for sender in (publisher, Publisher(client, tree)):
        with pytest.raises(TrackingError, match=r"depth-01 .* has the weights weights-0-1, but now weights-changed"):
            sender.models([changed])
    assert counts() == before


def test_an_unfinished_model_takes_the_weights_of_now(client, tree, seed_models):
    """A model that was never finished is written anew, and its tag says so."""
    (model,) = seed_models(seeds=(0,))
    stale = SeedModel(**{**vars(model), "digest": "weights-stale"})
    with pytest.raises(Killed):
        Publisher(Cut(client, 1, answered=True), tree).models([stale])
    (model_id,) = Publisher(client, tree).models([model])
    assert client.get_logged_model(model_id).tags["layerwise.digest"] == "weights-0-1"


def test_an_unequal_metric_stops_a_model_before_anything_is_written(publisher, seed_models, counts):
    """A metric that differs from the run's is refused, and no model of that run is begun."""
    (model,) = seed_models(seeds=(0,))
    publisher.metrics(model.run_id, [Point("test_loss", 99.0, 1, NOW)])
    before = counts()
    with pytest.raises(TrackingError, match=r"holds test_loss = 99\.0 at step 1"):
        publisher.models([model])
    assert counts() == before


def test_metrics_that_were_sent_before_are_linked_as_they_stand(publisher, client, seed_models, rows):
    """A metric sent earlier, at another time, is linked to the model and not sent twice."""
    (model,) = seed_models(seeds=(0,))
    publisher.metrics(model.run_id, [Point(point.key, point.value, point.step, NOW - 5) for point in model.points])
    (model_id,) = publisher.models([model])
    assert rows("SELECT COUNT(*), MIN(timestamp), MAX(timestamp) FROM metrics") == [(2, NOW - 5, NOW - 5)]
    assert {metric.timestamp for metric in client.get_logged_model(model_id).metrics} == {NOW - 5}


def test_a_metric_that_a_finished_model_lacks_reaches_the_run(publisher, client, seed_models):
    """A new metric of an old model is published on the run."""
    (model,) = seed_models(seeds=(0,))
    publisher.models([model])
    more = SeedModel(**{**vars(model), "points": [*model.points, Point("train_loss", 0.25, 1, NOW)]})
    publisher.models([more])
    assert client.get_run(model.run_id).data.metrics["train_loss"] == 0.25


def test_what_is_not_finite_is_not_linked(publisher, client, seed_models, rows):
    """A model's metric that is not finite is sent neither to the run nor to the model."""
    (model,) = seed_models(seeds=(0,))
    odd = SeedModel(**{**vars(model), "points": [*model.points, Point("train_loss", float("nan"), 1, NOW)]})
    (model_id,) = publisher.models([odd])
    assert len(client.get_logged_model(model_id).metrics) == 2
    assert rows("SELECT COUNT(*) FROM metrics") == [(2,)]


@pytest.mark.parametrize("finished", [0, 1])
def test_of_two_models_of_one_name_one_stays(client, tree, seed_models, finished):
    """A model that a lost answer doubled is deleted; the finished one stays."""
    (model,) = seed_models(seeds=(0,))
    (model_id,) = Publisher(client, tree).models([model])
    double = client.create_logged_model(tree.experiment_id, "depth-01", source_run_id=model.run_id).model_id
    kept = (model_id, double)[finished]
    if finished:
        client.set_logged_model_tags(double, {"layerwise.digest": model.digest})
        client.finalize_logged_model(double, "READY")
        client.finalize_logged_model(model_id, "FAILED")
    assert Publisher(client, tree).models([model]) == [kept]
    assert [found.model_id for found in client.search_logged_models([tree.experiment_id])] == [kept]
