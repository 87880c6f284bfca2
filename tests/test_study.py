"""The study file: what is accepted, what is refused, and that each refusal is one line that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from layerwise.study import BLOCK_SEEDS, Study, StudyError, load, parse, shipped
from tests.studies import READY, small

MAIN = shipped()["blobs-supervised"]


def refusal(**changes) -> str:
    """The line with which the main study, changed so, is refused."""
    with pytest.raises(StudyError) as caught:
        load("blobs-supervised", **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_every_shipped_study_loads_and_names_itself():
    """A shipped study is valid and carries the name of its file."""
    assert READY
    for name in READY:
        assert load(name).name == name


def test_the_main_study_is_the_tutorial():
    """blobs-supervised says the tutorial's numbers, for 30 seeds."""
    study = load("blobs-supervised")
    assert (study.depth, study.seeds, study.training.epochs, study.training.batch_size) == (11, 30, 100, 32)
    assert {(layer.units, layer.activation, layer.initializer) for layer in study.network.hidden} == {
        (10, "relu", "he_uniform")
    }
    assert study.training.optimizer.canonical() == {
        "name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": False,
    }  # fmt: skip
    assert study.data.canonical() == {
        "source": "blobs", "samples": 1000, "classes": 3, "features": 2, "cluster_std": 2.0, "random_state": 2,
        "split": {"train": 500, "test": 500}, "scaling": "none", "shuffle": False, "fresh": False,
    }  # fmt: skip


def test_digest_ignores_order_and_formatting(tmp_path: Path):
    """The run key follows from what a study says, not from how its file is written."""
    document = yaml.safe_load(MAIN.read_text())
    turned = tmp_path / "turned.yaml"
    turned.write_text(yaml.safe_dump(dict(reversed(document.items())), default_flow_style=True))
    assert load(turned).digest() == load("blobs-supervised").digest()
    assert load(turned, seeds=31).digest() != load(turned).digest()
    assert load(turned).digest("again") != load(turned).digest()


def test_defaults_written_out_change_nothing():
    """Saying a default aloud is the same study."""
    assert small(seeds=30).digest() == small(seeds=30, track={"models": "all"}).digest()


def test_a_study_is_frozen():
    """A study cannot be changed once it is built."""
    with pytest.raises(ValidationError, match="frozen"):
        small().seeds = 4


def test_blocks_are_aligned_and_cover_every_seed():
    """Blocks begin at multiples of their size, whatever the number of seeds; wide layers train one seed at a time."""
    assert small(seeds=3).blocks() == (tuple(range(BLOCK_SEEDS)),)
    assert [block[0] for block in small(seeds=25).blocks()] == [0, 10, 20]
    wide = small(network={"layers": [{"units": 400, "repeat": 2}]})
    assert wide.blocks() == ((0,), (1,), (2,))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"overrides": ["trainin.epochs=3"]}, "trainin: unknown key; did you mean training?"),
        ({"overrides": ["training.epoch=3"]}, "training.epoch: unknown key; did you mean epochs?"),
        ({"overrides": ["training.optimizer.name=sdg"]}, "training.optimizer.name: received 'sdg'; did you mean sgd?"),
        ({"overrides": ["training.optimizer.name=lamb"]}, "known: sgd, adam, rmsprop, adagrad"),
        ({"overrides": ["training.optimizer.rate=1"]}, "training.optimizer.rate: unknown key"),
        ({"overrides": ["training.optimizer.learning_rate=0"]}, "training.optimizer.learning_rate: received 0"),
        ({"overrides": ["training.optimizer.learning_rate=.nan"]}, "learning_rate: received nan"),
        ({"overrides": ["training.optimizer.learning_rate=.inf"]}, "learning_rate: received inf"),
        ({"overrides": ["network.layers.0.activation=rleu"]}, "network.layers.0.activation: received 'rleu'; did you"),
        ({"overrides": ["network.layers.0.initializer=he"]}, "network.layers.0.initializer: received 'he'"),
        ({"overrides": ["network.layers.0.unit=3"]}, "network.layers.0.unit: unknown key; did you mean units?"),
        ({"overrides": ["network.layers.0.units=0"]}, "network.layers.0.units: received 0"),
        ({"overrides": ["network.layers.0.units=-4"]}, "network.layers.0.units: received -4"),
        ({"overrides": ["network.layers.0.units=1000000000"]}, "less than or equal to 65536"),
        ({"overrides": ["network.layers.0.units=ten"]}, "network.layers.0.units: received 'ten'"),
        ({"overrides": ["network.layers.0.units=true"]}, "network.layers.0.units: received True"),
        ({"overrides": ["network.layers.0.units=2.5"]}, "network.layers.0.units: received 2.5"),
        ({"overrides": ["network.layers=[]"]}, "network.layers"),
        ({"overrides": ["network.layers.0.repeat=1001"]}, "network.layers.0.repeat: received 1001"),
        ({"overrides": ["network.layers.5.units=4"]}, "'5' is not a position of a list of 1"),
        ({"seeds": 0}, "seeds: received 0; input should be greater than or equal to 1"),
        ({"seeds": -3}, "seeds: received -3"),
        ({"seeds": 10**12}, "seeds: received 1000000000000"),
        ({"seeds": "many"}, "seeds: received 'many'"),
        ({"overrides": ["training.epochs=0"]}, "training.epochs: received 0"),
        ({"overrides": ["training.epochs=1000000000"]}, "training.epochs: received 1000000000"),
        ({"overrides": ["training.batch_size=501"]}, "training.batch_size 501 is larger than the training part (500"),
        ({"overrides": ["training.batch_size=0"]}, "training.batch_size: received 0"),
        ({"overrides": ["data.split.train=400"]}, "train 400 + test 500 = 900 rows, but there are 1000"),
        ({"overrides": ["data.split.train=0"]}, "data.split.train: received 0"),
        ({"overrides": ["data.samples=0"]}, "data.samples: received 0"),
        ({"overrides": ["data=blobs"]}, "data: received 'blobs'"),
        ({"overrides": ["data.source=blob"]}, "data.source: received 'blob'; did you mean blobs?"),
        ({"overrides": ["arms={}"]}, "arms: received {}"),
        ({"overrides": ["arms.greedy.objective=super"]}, "arms.greedy.objective: received 'super'"),
        ({"overrides": ["arms={Greedy one: {}}"]}, "arm name 'Greedy one'"),
        ({"overrides": ["name=../up"]}, "name: received '../up'"),
        ({"overrides": ["track.models=some"]}, "track.models: received 'some'"),
        ({"overrides": ["epochs"]}, "expected key=value"),
        ({"overrides": ["seeds.deep=3"]}, "--set 'seeds.deep=3'"),
        ({"overrides": ["training.epochs=[1"]}, "is not a YAML value: expected ',' or ']'"),
        ({"overrides": ["arms={one: greedy, one: scratch}"]}, "is not a YAML value: the key 'one' stands twice"),
        ({"overrides": ["arms=" + "[" * 5000]}, "is not a YAML value: nested more than 30 deep."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_in_one_line(changes, expected):
    """Each refusal says the key, what was received, and what was expected or the nearest known name."""
    assert expected in refusal(**changes)


GREEDY, ENCODER, TUNE = {"objective": "supervised"}, {"objective": "reconstruction"}, {"epochs": 2}
TUNED = {**ENCODER, "fine_tune": TUNE}
BLOBS = {"source": "blobs", "samples": 120}


def one(**arm: Any) -> dict[str, Any]:
    """A change of the small study: a single arm."""
    return {"arms": {"one": arm}}


def two(second: Any, first: Any = GREEDY) -> dict[str, Any]:
    """A change of the small study: two arms, the second mostly a control."""
    return {"arms": {"one": first, "two": second}}


def noise(**said: Any) -> dict[str, Any]:
    return one(**ENCODER, noise=said)


def factors(*values: Any, **said: Any) -> dict[str, Any]:
    return one(**ENCODER, fine_tune={**TUNE, "learning_rate_factors": list(values), **said})


def split(**parts: int) -> dict[str, Any]:
    return {"data": {**BLOBS, "split": parts}}


UNTUNED = "needs an arm that is fine-tuned on labels; give that arm fine_tune"
NAN, INF = float("nan"), float("inf")

BAD_INPUT: dict[str, tuple[dict[str, Any], str]] = {
    "arm twice in a list": ({"arms": ["greedy", "greedy"]}, "arms: the arm 'greedy' stands twice; give the second"),
    "arm without a name": ({"arms": ["greedy", ENCODER]}, "a list holds arms of one word; received {'objective': 'r"),
    "no arm": ({"arms": []}, "arms: received {}"),
    "arms in one word": ({"arms": "greedy"}, "arms: received 'greedy'; expected a name for each, as in greedy: {}"),
    "word misspelled": ({"arms": ["greedy", "end_to_edn"]}, "received 'end_to_edn'; did you mean end_to_end? Known:"),
    "word misspelled, named": ({"arms": {"one": "autoencodr"}}, "one: received 'autoencodr'; did you mean autoenc"),
    "arm that is a number": ({"arms": {"one": 3}}, "arms.one: received 3; expected keys such as objective, noise,"),
    "control misspelled": (two({"control": "scrach"}), "arms.two.control: received 'scrach'; did you mean scratch?"),
    "control alone": ({"arms": {"one": "end_to_end"}}, "arms.one: end_to_end has no arm to control for; add one that"),
    "controls alone": ({"arms": ["random_frozen", "scratch"]}, "random_frozen has no arm to control for"),
    "of nothing": (two({"control": "scratch", "of": "oen"}, TUNED), "two.of: received 'oen'; did you mean one? Known"),
    "of itself": (two({"control": "scratch", "of": "two"}, TUNED), "arms.two.of: 'two' is a control itself; name one"),
    "of a control": (
        {"arms": {"one": TUNED, "two": "scratch", "three": {"control": "permuted", "of": "two"}}},
        "arms.three.of: 'two' is a control itself; name one of one",
    ),
    "of without a control": (two({"of": "one"}), "arms.two.of: only a control has an arm it controls for; add control"),
    "scratch of nothing tuned": (two("scratch"), f"arms.two: scratch {UNTUNED}"),
    "permuted of nothing tuned": (two("permuted", ENCODER), f"arms.two: permuted {UNTUNED}"),
    "scratch of a tuned reconstruction": (
        two("scratch", {**ENCODER, "fine_tune": {**TUNE, "objective": "reconstruction"}}), f"two: scratch {UNTUNED}",
    ),
    "control with what it has no use for": (
        two({"control": "random_frozen", "fine_tune": TUNE}),
        "arms.two.fine_tune: random_frozen has no use for fine_tune; leave it out",
    ),
    "scratch with noise": (
        two({"control": "scratch", "noise": {"rate": 0.2, "kind": "masking"}}, TUNED),
        "arms.two.noise: scratch has no use for noise; leave it out",
    ),
    "reconstruction tuned without one": (
        one(fine_tune={**TUNE, "objective": "reconstruction"}),
        "arms.one.fine_tune.objective: reconstruction needs a reconstruction; a supervised arm has labels only",
    ),
    "both tuned without one": (one(fine_tune={**TUNE, "objective": "both"}), "both needs a reconstruction; a superv"),
    "head of a supervised arm": (one(head=TUNE), "arms.one.head: a supervised arm trains its output layer with every"),
    "all factors 0": (factors(0, 0, 0, 0), "learning_rate_factors: all are 0 at depth 3, so nothing would be tuned"),
    "factors 0 at a lower depth": (
        factors(0, 0, 1, 0, at="every_depth"), "learning_rate_factors: all are 0 at depth 1, so nothing would be tuned",
    ),
    "too few factors": (factors(1, 1), "learning_rate_factors: received 2; expected 4, one for each of 3 hidden"),
    "too many factors": (factors(1, 1, 1, 1, 1), "learning_rate_factors: received 5; expected 4"),
    "factor below 0": (factors(1, 1, 1, -1), "learning_rate_factors.3: received -1; input should be greater than or"),
    "factor that is no number": (factors(1, NAN, 1, 1), "learning_rate_factors.1: received nan; input should be a fin"),
    "no epochs of tuning": (one(fine_tune={"epochs": 0}), "arms.one.fine_tune.epochs: received 0"),
    "masking nothing": (noise(kind="masking", rate=0), "arms.one.noise.rate: received 0; input should be greater than"),
    "masking all": (noise(kind="masking", rate=1), "arms.one.noise.rate: received 1; input should be less than 1"),
    "masking less than nothing": (noise(kind="masking", rate=-0.1), "noise.rate: received -0.1; input should be great"),
    "masking NaN": (noise(kind="masking", rate=NAN), "arms.one.noise.rate: received nan; input should be a finite num"),
    "Gaussian noise of none": (noise(kind="gaussian", sd=0), "noise.sd: received 0; input should be greater than 0"),
    "Gaussian noise below none": (noise(kind="gaussian", sd=-1), "noise.sd: received -1; input should be greater than"),
    "Gaussian noise without end": (noise(kind="gaussian", sd=INF), "noise.sd: received inf; input should be a finite"),
    "Gaussian noise beyond numbers": (noise(kind="gaussian", sd=1e300), "noise.sd: received 1e+300; input should be"),
    "noise of no kind": (noise(rate=0.2), "arms.one.noise: kind is missing; known: masking, gaussian"),
    "noise as a number": (one(**ENCODER, noise=0.2), "arms.one.noise: received 0.2; expected keys such as kind"),
    "noise on labels": (one(noise={"kind": "masking", "rate": 0.2}), "a supervised arm has no reconstruction to denoi"),
    "more labels than rows": (
        {"data": {**BLOBS, "split": {"train": 70, "test": 50}, "labels": 71}},
        "data: labels 71 is more than the training part's 70 rows; use fewer",
    ),
    "an arm's labels, more than rows": (one(labels=71), "arms.one.labels 71 is more than the training part's 70 rows"),
    "no label for a class": (one(labels=2), "arms.one.labels 2 is fewer than the 3 classes; give every class a row"),
    # Every data set here has its labels; to keep none of them is how a study says that its data have none.
    "no label at all": ({"data": {**BLOBS, "labels": 0}}, "data.labels: received 0; input should be greater than or"),
    "an arm without any label": (one(labels=0), "arms.one.labels: received 0; input should be greater than or equal"),
    "nothing to train on": (split(train=0, test=120), "data.split.train: received 0; expected a number of rows"),
    "nothing to test on": (split(train=120, test=0), "data.split.test: received 0; expected a number of rows"),
    "no validation in a validation part": (split(train=70, validation=0, test=50), "split.validation: received 0"),
    "no test part": (split(train=120), "data.split.test: is missing"),
    "infinite spread": ({"data": {**BLOBS, "cluster_std": INF}}, "data.cluster_std: received inf; input should be"),
    "noise in the data that is no number": ({"data": {"source": "moons", "noise": NAN}}, "data.noise: received nan;"),
    "no such scaling": (one(scaling="minmax"), "arms.one.scaling: received 'minmax'; did you mean min_max? Known: no"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD_INPUT)
def test_a_mistake_in_arms_or_data_is_refused_in_one_line(mistake: str):
    """What an arm, a control, noise, labels or a split cannot be is refused with its place and a remedy."""
    changes, expected = BAD_INPUT[mistake]
    with pytest.raises(StudyError) as caught:
        small(**changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_no_network_is_refused():
    """A study without a network says which key is missing."""
    with pytest.raises(StudyError, match="network: is missing"):
        parse({"name": "empty", "data": {"source": "blobs"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [unclosed\nseeds: 3", "line 2 is not valid YAML"),
        ("name: a\n\tseeds: 3", "line 2 is not valid YAML"),
        ("seeds: 3\nseeds: 4", "line 2 is not valid YAML: the key 'seeds' stands twice"),
        ("", "holds nothing; expected keys such as name"),
        ("just words", "holds text; expected keys such as name"),
        ("- a\n- b", "holds a list"),
        ("arms:\n  one: greedy\n  one: scratch", "line 3 is not valid YAML: the key 'one' stands twice"),
        ("name: !!python/object/apply:os.system ['true']", "line 1 is not valid YAML: the tag tag:yaml.org"),
        ("a: &a [x, x]\nb: [*a, *a]", "line 2 is not valid YAML: the alias *a is not read"),
        ("[" * 5000, "is not valid YAML"),
        ("{1: 2, [3]: 4}", "is not valid YAML"),
        ("name: 1_000\ndata: 2026-01-01", "name: received 1000"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, text: str, expected: str):
    """A file that is no study says where and why, and runs nothing that it holds."""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_study_names_the_nearest():
    """A mistyped name is answered with the ready-made study it resembles, another with all of them."""
    with pytest.raises(StudyError, match=r"no study named or file at 'blob-superviced'; did you mean blobs-supervised"):
        load("blob-superviced")
    with pytest.raises(StudyError, match=r"ready-made: .*blobs-supervised"):
        load("zzz")


def test_unreadable_files_are_refused(tmp_path: Path):
    """A folder, a file that is not text and one of more than 200 kB are refused by name."""
    with pytest.raises(StudyError, match=r"is a folder; name a study file in it, or a ready-made study\.$"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="is not UTF-8 text"):
        load(tmp_path / "binary.yaml")
    (tmp_path / "large.yaml").write_text("#" * 200_001)
    with pytest.raises(StudyError, match="200,001 bytes; a study file holds at most 200,000"):
        load(tmp_path / "large.yaml")


def test_a_study_renders_as_a_schema():
    """The study's JSON schema, from which Prefect draws its form, names every part with its description."""
    schema = Study.model_json_schema()
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["$defs"]["Blobs"]["properties"]["samples"]["default"] == 1000


@pytest.mark.parametrize("name", ["x" * 400, "~nobody-of-this-name/rows.csv", "a\0b"])
def test_names_that_no_file_can_have_are_refused_in_one_line(name: str):
    """A name that is too long, of no user's home or with a null is no file, as a study and as own data."""
    for read in (lambda: load(name), lambda: small(data={"source": "table", "path": name, "target": "t"})):
        with pytest.raises(StudyError, match=r"no study named or file at|is no file in the study's folder") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 610
