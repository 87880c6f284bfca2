"""The study: one short file that says what is asked, on which data, with which network and training.

This is the only schema. Every part is frozen and validated when it is built; unknown keys and names are
refused with the nearest known one, before any work starts. Optional parts default to ``None`` and are left
out of digests, so a later version can add a part without renaming the studies that do not use it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

BLOCK_SEEDS = 10
"""Seeds that train side by side in one compiled program where layers are small (see :func:`block_size`)."""

WIDE_LAYER = 100_000
"""Weights in one layer (inputs x units) from which batched products over seeds lose to one seed at a time."""

MAX_FILE_BYTES = 1_000_000
"""A study is a page of text; anything larger is refused before it is parsed."""


class StudyError(ValueError):
    """A request that cannot be honoured; its message is one line: received, expected, remedy."""


Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Activation = Literal["linear", "relu", "elu", "selu", "gelu", "silu", "leaky_relu", "sigmoid", "softplus", "tanh"]
Initializer = Literal[
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "zeros"
]


class _Part(BaseModel):
    """What all parts share: frozen once built, and no key that is not in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """The part as plain JSON values with defaults filled in and unused parts left out."""
        return self.model_dump(mode="json", exclude_none=True)


Scaling = Literal["none", "standard", "min_max"]


class Shape(NamedTuple):
    """Size of a data set."""

    rows: int
    features: int
    classes: int


class Split(_Part):
    """How many rows each part takes; together they are all the rows there are."""

    train: Count
    test: Count
    validation: Count | None = None

    @property
    def total(self) -> int:
        """Rows in all parts together."""
        return self.train + self.test + (self.validation or 0)


class _DataSet(_Part):
    """What every data set can say: its parts, how many training rows keep their label, how inputs are scaled."""

    split: Split
    labels: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Training rows that keep their label, a stratified draw of each seed; all of them if left out."""
    scaling: Scaling = "none"
    shuffle: bool = True
    """Whether each seed draws its own parts; otherwise rows are taken in order: train, validation, test."""

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        split, rows = self.split, self.shape().rows
        if split.total != rows:
            parts = f"train {split.train} + test {split.test}"
            parts += f" + validation {split.validation}" if split.validation else ""
            raise ValueError(f"{parts} = {split.total} rows, but there are {rows}; make them equal")
        check_labels(self.labels, self)
        return self


def check_labels(labels: int | None, data: _DataSet) -> None:
    """Refuse a labelled set that is larger than the training part or has no room for every class."""
    if labels is None:
        return
    if labels > data.split.train:
        raise ValueError(f"labels {labels} is more than the training part's {data.split.train} rows; use fewer")
    if labels < data.shape().classes:
        raise ValueError(f"labels {labels} is fewer than the {data.shape().classes} classes; give every class a row")


RandomState = Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)]
Samples = Annotated[int, Field(ge=2, le=10_000_000, strict=True)]
Halves = Split(train=500, test=500)


class Blobs(_DataSet):
    """Isotropic Gaussian clusters from :func:`sklearn.datasets.make_blobs`, rows in generated order."""

    source: Literal["blobs"] = "blobs"
    samples: Samples = 1000
    classes: Annotated[int, Field(ge=2, le=1000, strict=True)] = 3
    features: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 2
    cluster_std: Positive = 2.0
    random_state: RandomState = 2
    split: Split = Halves
    shuffle: bool = False
    fresh: bool = False
    """Whether each seed draws training rows of its own around the same centers; the test part is shared."""

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, self.features, self.classes)


class Moons(_DataSet):
    """Two interleaving half circles from :func:`sklearn.datasets.make_moons`."""

    source: Literal["moons"]
    samples: Samples = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    random_state: RandomState = 2
    split: Split = Halves
    fresh: bool = False

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, 2, 2)


class Circles(_DataSet):
    """A large circle around a small one from :func:`sklearn.datasets.make_circles`."""

    source: Literal["circles"]
    samples: Samples = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    factor: Annotated[float, Field(ge=0, lt=1)] = 0.5
    random_state: RandomState = 2
    split: Split = Halves
    fresh: bool = False

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, 2, 2)


class Classification(_DataSet):
    """Clusters at the corners of a hypercube from :func:`sklearn.datasets.make_classification`."""

    source: Literal["classification"]
    samples: Samples = 1000
    classes: Annotated[int, Field(ge=2, le=1000, strict=True)] = 2
    features: Annotated[int, Field(ge=2, le=100_000, strict=True)] = 20
    informative: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 5
    class_sep: Positive = 1.0
    random_state: RandomState = 2
    split: Split = Halves

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(self.samples, self.features, self.classes)

    @model_validator(mode="after")
    def _corners_suffice(self) -> Self:
        if self.informative > self.features:
            raise ValueError(f"informative {self.informative} is more than features {self.features}; use at most that")
        if self.classes > 2**self.informative:
            raise ValueError(
                f"classes {self.classes} is more than the corners that informative {self.informative} gives"
                f" ({2**self.informative}); use more informative features"
            )
        return self


class Digits(_DataSet):
    """8 x 8 images of handwritten digits from :func:`sklearn.datasets.load_digits`, divided by 16."""

    source: Literal["digits"]
    split: Split = Split(train=1200, test=597)

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(1797, 64, 10)


class Wine(_DataSet):
    """Chemical analysis of three cultivars from :func:`sklearn.datasets.load_wine`."""

    source: Literal["wine"]
    split: Split = Split(train=118, test=60)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(178, 13, 3)


class BreastCancer(_DataSet):
    """Cell nuclei, benign or malignant, from :func:`sklearn.datasets.load_breast_cancer`."""

    source: Literal["breast_cancer"]
    split: Split = Split(train=379, test=190)
    scaling: Scaling = "standard"

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        return Shape(569, 30, 2)


DATA_SETS = {
    "blobs": Blobs,
    "moons": Moons,
    "circles": Circles,
    "classification": Classification,
    "digits": Digits,
    "wine": Wine,
    "breast_cancer": BreastCancer,
}
DataSet = Annotated[
    Blobs | Moons | Circles | Classification | Digits | Wine | BreastCancer, Field(discriminator="source")
]


class Layer(_Part):
    """One hidden layer, or ``repeat`` equal ones."""

    kind: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=65_536, strict=True)]
    activation: Activation = "relu"
    initializer: Initializer = "glorot_uniform"
    repeat: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1


class Network(_Part):
    """The hidden layers, bottom up; the depth of a study is their number."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]

    @property
    def hidden(self) -> tuple[Layer, ...]:
        """Every hidden layer by itself, bottom up, ``repeat`` unrolled."""
        return tuple(layer.model_copy(update={"repeat": 1}) for layer in self.layers for _ in range(layer.repeat))

    @field_validator("layers")
    @classmethod
    def _bounded_depth(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        depth = sum(layer.repeat for layer in layers)
        if depth > 1000:
            raise ValueError(f"{depth} hidden layers in all; at most 1000")
        return layers


# Elementwise optimizers only: one that takes a norm over a whole variable would mix the seeds of a block.
class Sgd(_Part):
    """Stochastic gradient descent, with momentum if wanted."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False


class Adam(_Part):
    """Adam (Kingma and Ba, 2015)."""

    name: Literal["adam"]
    learning_rate: Positive = 0.001
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999


class Rmsprop(_Part):
    """RMSprop (Hinton, 2012)."""

    name: Literal["rmsprop"]
    learning_rate: Positive = 0.001
    rho: Annotated[float, Field(ge=0, lt=1)] = 0.9
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Adagrad(_Part):
    """Adagrad (Duchi et al., 2011)."""

    name: Literal["adagrad"]
    learning_rate: Positive = 0.001


OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "rmsprop": Rmsprop, "adagrad": Adagrad}
Optimizer = Annotated[Sgd | Adam | Rmsprop | Adagrad, Field(discriminator="name")]


class Training(_Part):
    """How every stage trains: optimizer, batch size, epochs."""

    optimizer: Optimizer = Sgd()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 32
    epochs: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 100


class MaskingNoise(_Part):
    """Sets a share of a stage's inputs to zero, drawn anew for every minibatch (Vincent et al., 2010)."""

    kind: Literal["masking"] = "masking"
    rate: Annotated[float, Field(gt=0, lt=1)]


class GaussianNoise(_Part):
    """Adds normal noise to a stage's inputs, drawn anew for every minibatch."""

    kind: Literal["gaussian"]
    sd: Positive


NOISES = {"masking": MaskingNoise, "gaussian": GaussianNoise}
Noise = Annotated[MaskingNoise | GaussianNoise, Field(discriminator="kind")]


class FineTune(Training):
    """Training of all weights together, at a learning rate that should be low.

    ``objective`` says which: ``labels`` (after the head), ``reconstruction`` (before it) or ``both``, one after
    the other. What it makes goes no further up the greedy chain unless ``carry`` is set.
    """

    objective: Literal["labels", "reconstruction", "both"] = "labels"
    at: Literal["end", "every_depth"] = "end"
    learning_rate_factors: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """One factor per hidden layer, bottom up, and one for the output layer."""
    carry: bool = False


Control = Literal["end_to_end", "random_frozen", "scratch", "permuted"]
CONTROLS: tuple[Control, ...] = get_args(Control)
WORDS = {
    "greedy": {"objective": "supervised"},
    "autoencoder": {"objective": "reconstruction"},
    **{word: {"control": word} for word in CONTROLS},
}
"""Arms that one word describes."""


class Arm(_Part):
    """One procedure of the study.

    A control takes everything it does not say itself from the arm it controls for (``of``; the first arm that is
    no control, if left out): ``end_to_end`` trains the whole network at once for as many epochs in all,
    ``random_frozen`` leaves the hidden layers untrained, ``scratch`` spends the fine-tuning budget on an untrained
    network, ``permuted`` shuffles the pretrained weights within each layer before head and fine tuning.
    """

    objective: Literal["supervised", "reconstruction"] | None = None
    noise: Noise | None = None
    network: Network | None = None
    training: Training | None = None
    head: Training | None = None
    fine_tune: FineTune | None = None
    labels: Annotated[int, Field(ge=2, strict=True)] | None = None
    scaling: Scaling | None = None
    control: Control | None = None
    of: str | None = None
    depths: Literal["all", "final"] | None = None
    """Depths at which the network is finished and scored; ``end_to_end`` does so at the final one by default."""


@dataclass(frozen=True)
class Procedure:
    """An arm with everything said: its own words, those of the arm it controls for, and the study's.

    Attributes:
        objective: ``"supervised"`` or ``"reconstruction"``.
        layers: the hidden layers, bottom up.
        training: of every greedy stage.
        head: of a new output layer on frozen features.
        noise: on the stages' inputs, if any.
        fine_tune: of all weights, if wanted.
        control: what kind of control it is, if any.
        labels: training rows that keep their label; all of them if ``None``.
        scaling: of the inputs.
        depths: the depths at which the network is finished and scored.
    """

    objective: Literal["supervised", "reconstruction"]
    layers: tuple[Layer, ...]
    training: Training
    head: Training
    noise: MaskingNoise | GaussianNoise | None
    fine_tune: FineTune | None
    control: Control | None
    labels: int | None
    scaling: Scaling
    depths: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of hidden layers at the end."""
        return len(self.layers)

    def tunes_at(self, depth: int) -> bool:
        """Whether all weights are fine-tuned at a depth."""
        return self.fine_tune is not None and (self.fine_tune.at == "every_depth" or depth == self.depth)


class Track(_Part):
    """What goes to the tracking store besides metrics."""

    models: Literal["all", "final", "none"] = "all"


class Study(_Part):
    """A question, and everything needed to answer it twice with the same bits.

    Example:
        >>> from layerwise.study import Study
        >>> study = Study(name="two-deep", data={"source": "blobs"},
        ...               network={"layers": [{"units": 10, "repeat": 2}]}, seeds=3)
        >>> study.depth, len(study.blocks())
        (2, 1)
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
    question: Annotated[str, Field(max_length=500)] = ""
    data: DataSet
    network: Network
    training: Training = Training()
    arms: Annotated[dict[str, Arm], Field(min_length=1)] = {"greedy": Arm()}
    seeds: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 30
    track: Track = Track()

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_in_words(cls, arms: Any) -> Any:
        if isinstance(arms, list):
            repeated = [name for name, count in Counter(map(str, arms)).items() if count > 1]
            if repeated:
                raise ValueError(f"the arm {repeated[0]!r} stands twice; give the second a name of its own")
            arms = {str(word): word for word in arms}
        if isinstance(arms, dict):
            return {name: _in_one_word(name, arm) for name, arm in arms.items()}
        return arms

    @field_validator("arms")
    @classmethod
    def _arm_names(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for name in arms:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
                raise ValueError(f"arm name {name!r}: use lower-case letters, digits, _ and -")
        return arms

    @model_validator(mode="after")
    def _arms_make_sense(self) -> Self:
        for name in self.arms:
            check_procedure(self, name)
        return self

    @property
    def depth(self) -> int:
        """Number of hidden layers of the deepest arm."""
        return max(self.procedure(arm).depth for arm in self.arms)

    def procedure(self, arm: str) -> Procedure:
        """An arm with everything said."""
        said, of = self.arms[arm], self._controlled(arm)
        control, tune = said.control, said.fine_tune or of.fine_tune
        if control in {"scratch", "permuted"} and tune is not None and tune.objective == "both":
            tune = tune.model_copy(update={"objective": "labels"})  # what reconstruction tuned is what they lack
        layers = (said.network or of.network or self.network).hidden
        training = said.training or of.training or self.training
        tuned_once = control in {"scratch", "permuted"} and tune is not None and tune.at == "end"
        only_last = said.depths == "final" or (said.depths is None and (control == "end_to_end" or tuned_once))
        return Procedure(
            objective="supervised" if control == "scratch" else said.objective or of.objective or "supervised",
            layers=layers,
            training=training,
            head=said.head or of.head or training,
            noise=None if control == "scratch" else said.noise or of.noise,
            fine_tune=None if control == "random_frozen" else tune,
            control=control,
            labels=said.labels or of.labels or self.data.labels,
            scaling=said.scaling or of.scaling or self.data.scaling,
            depths=(len(layers),) if only_last else tuple(range(1, len(layers) + 1)),
        )

    def _controlled(self, arm: str) -> Arm:
        """The arm that a control controls for; an arm that is no control is its own."""
        said = self.arms[arm]
        if said.control is None:
            return said
        of = said.of or next((name for name, other in self.arms.items() if other.control is None), None)
        if of is None:
            raise ValueError(f"arms.{arm}: {said.control} has no arm to control for; add one that trains greedily")
        if of not in self.arms:
            raise ValueError(f"arms.{arm}.of: received {of!r}{_nearest(of, list(self.arms))}")
        if self.arms[of].control is not None:
            raise ValueError(f"arms.{arm}.of: {of!r} is a control itself; name an arm that trains greedily")
        return self.arms[of]

    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The aligned blocks of seeds that train side by side and together hold every seed asked for.

        The last block may reach beyond :attr:`seeds`: it trains in full, so that there is one program shape and
        more seeds later find it done, and only the seeds asked for are reported.
        """
        size = block_size(self)
        return tuple(tuple(range(start, start + size)) for start in range(0, self.seeds, size))

    def digest(self, repeat: str = "") -> str:
        """The run key: SHA-256 over the resolved study and the name of the repeat, as 32 hex digits."""
        return digest_of({"study": self.canonical(), "repeat": repeat})


def _in_one_word(name: str, arm: Any) -> Any:
    if isinstance(arm, str) and arm not in WORDS:
        raise ValueError(f"{name}: received {arm!r}{_nearest(arm, list(WORDS))}")
    return WORDS[arm] if isinstance(arm, str) else arm


def check_procedure(study: Study, arm: str) -> None:
    """Refuse an arm whose parts do not go together; the message says which and why."""
    said, asked = study.arms[arm], study.procedure(arm)
    tune, supervised, where = asked.fine_tune, asked.objective == "supervised", f"arms.{arm}"
    if said.of is not None and said.control is None:
        raise ValueError(f"{where}.of: only a control has an arm it controls for; add control, or leave of out")
    if asked.noise is not None and supervised:
        raise ValueError(f"{where}.noise: a supervised arm has no reconstruction to denoise; set objective")
    if said.head is not None and supervised and asked.control is None:
        raise ValueError(f"{where}.head: a supervised arm trains its output layer with every stage; leave head out")
    if asked.control in {"scratch", "permuted"} and (tune is None or tune.objective == "reconstruction"):
        raise ValueError(f"{where}: {asked.control} needs an arm that is fine-tuned on labels; give that arm fine_tune")
    if tune is not None:
        _check_fine_tune(asked, tune, where)
    check_labels(asked.labels, study.data)
    _check_batches(study, asked, where)


def _check_fine_tune(asked: Procedure, tune: FineTune, where: str) -> None:
    if asked.objective == "supervised" and tune.objective != "labels":
        raise ValueError(
            f"{where}.fine_tune.objective: {tune.objective} needs a reconstruction; a supervised arm has labels only"
        )
    if asked.control in {"end_to_end", "random_frozen"} and tune.carry:
        raise ValueError(f"{where}.fine_tune.carry: {asked.control} has no greedy chain to carry into")
    factors = tune.learning_rate_factors
    if factors is not None and len(factors) != asked.depth + 1:
        raise ValueError(
            f"{where}.fine_tune.learning_rate_factors: received {len(factors)}; expected {asked.depth + 1},"
            f" one for each of {asked.depth} hidden layers and one for the output layer"
        )
    if factors is not None and not any(factors):
        raise ValueError(f"{where}.fine_tune.learning_rate_factors: all are 0, so nothing would be tuned")


def _check_batches(study: Study, asked: Procedure, where: str) -> None:
    pool = study.data.split.train
    labelled = asked.labels or pool
    pretraining = labelled if asked.objective == "supervised" else pool
    # Scratch trains with the settings of fine tuning alone.
    wanted = [] if asked.control == "scratch" else [("training", asked.training.batch_size, pretraining)]
    if asked.objective == "reconstruction" or asked.control == "random_frozen":
        wanted.append(("head", asked.head.batch_size, labelled))
    if asked.fine_tune is not None:
        rows = pool if asked.fine_tune.objective == "reconstruction" else labelled
        wanted.append(("fine_tune", asked.fine_tune.batch_size, rows))
    for stage, batch, rows in wanted:
        if batch > rows:
            raise ValueError(
                f"{where}: {stage}.batch_size {batch} is larger than the training part ({rows} rows);"
                f" use at most {rows}"
            )


def block_size(study: Study) -> int:
    """Seeds per block, a function of the study's shapes alone, never of the machine or the number of seeds."""
    for arm in study.arms:
        width = study.data.shape().features
        for layer in study.procedure(arm).layers:
            if width * layer.units >= WIDE_LAYER:
                return 1
            width = layer.units
    return BLOCK_SEEDS


def digest_of(value: Any) -> str:
    """SHA-256 of plain JSON values, independent of key order, as 32 hex digits (128 bits)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def shipped() -> dict[str, Path]:
    """The ready-made studies: name -> file. They stand beside the package, in a wheel inside it."""
    here = Path(__file__).resolve().parent
    folders = [here.parent / "studies", here / "studies"]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load(source: str | Path, /, *, overrides: Sequence[str] = (), **changes: Any) -> Study:
    """A study from a shipped name or a YAML file.

    Args:
        source: the name of a shipped study, or the path of a study file.
        overrides: ``key.inner=value`` settings that replace what the file says; values are read as YAML.
        changes: top-level keys to replace, as in ``seeds=5``.

    Raises:
        StudyError: if there is no such study, or it does not say a valid one; one line each.

    Example:
        >>> from layerwise.study import load
        >>> load("blobs-supervised", seeds=5).seeds
        5
    """
    document = _parse(*_read(source))
    for setting in overrides:
        _override(document, setting)
    document.update(changes)
    return parse(document, where=str(source))


def parse(document: Mapping[str, Any], *, where: str = "study") -> Study:
    """The study that a plain mapping describes; raises :class:`StudyError` with one line if it describes none."""
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        raise StudyError(f"{where}: {'; '.join(_complaints(error))}") from None


def _read(source: str | Path) -> tuple[str, str]:
    known = shipped()
    path = known.get(str(source), Path(source))
    if not path.is_file():
        near = difflib.get_close_matches(Path(source).stem, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"ready-made: {', '.join(known)}."
        raise StudyError(f"no study named or file at {str(source)!r}; {hint} `layerwise list` shows all.")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StudyError(f"{path}: {path.stat().st_size:,} bytes; a study file holds at most {MAX_FILE_BYTES:,}.")
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; a study is a YAML file.") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    import yaml  # here, since a study built in Python needs no YAML

    try:
        _refuse_aliases(yaml.parse(text, Loader=yaml.SafeLoader), where)
        document = yaml.load(text, Loader=_unique_key_loader())  # noqa: S506 - derives from SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(f"{where}: line {line} is not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise StudyError(f"{where}: is not valid YAML: {reason}.") from None
    if not isinstance(document, dict):
        found = "nothing" if document is None else f"a {type(document).__name__}"
        raise StudyError(f"{where}: holds {found}; expected keys such as name, data, network, seeds.")
    return document


def _refuse_aliases(events: Iterator[Any], where: str) -> None:
    """A study needs no anchors, and nested aliases can expand to any size: refuse the first one."""
    for event in events:
        if type(event).__name__ == "AliasEvent":
            line = event.start_mark.line + 1
            raise StudyError(f"{where}: line {line} uses a YAML alias (*{event.anchor}); write the value out.")


def _unique_key_loader() -> type:
    import yaml
    import yaml.constructor

    class UniqueKeyLoader(yaml.SafeLoader):
        """YAML lets a later key silently replace an earlier one; in a study that hides a mistake."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return UniqueKeyLoader


def _override(document: dict[str, Any], setting: str) -> None:
    import yaml

    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise StudyError(f"--set {setting!r}: expected key=value, as in --set training.epochs=50.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(f"--set {setting!r}: {text!r} is not a YAML value.") from None
    place: Any = document
    *outer, last = key.split(".")
    for name in outer:
        place = _step(place, name, setting)
    if isinstance(place, list):
        place[_index(place, last, setting)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise StudyError(f"--set {setting!r}: {'.'.join(outer)} is a plain value and has no key {last!r}.")


def _step(place: Any, name: str, setting: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, name, setting)]
    if isinstance(place, dict):
        return place.setdefault(name, {})
    raise StudyError(f"--set {setting!r}: nothing can be set below a plain value ({name!r}).")


def _index(place: list[Any], name: str, setting: str) -> int:
    if not name.isdecimal() or int(name) >= len(place):
        raise StudyError(f"--set {setting!r}: {name!r} is not a position of a list of {len(place)} (from 0).")
    return int(name)


def _complaints(error: ValidationError) -> Iterator[str]:
    """Each thing wrong with a study in a few words: where, what was received, what was expected."""
    found = error.errors(include_url=False)
    # A list with a wrong item is also reported as too short; only the innermost complaint helps.
    inner = [item for item in found if not any(_encloses(item["loc"], other["loc"]) for other in found)]
    for item in inner[:3]:
        place = ".".join(str(step) for step in (*item["loc"], *_tag_key(item)) if step not in TAGS)
        yield f"{place}: {_explain(item)}" if place else _explain(item)
    if len(inner) > 3:
        yield f"and {len(inner) - 3} more"


def _tag_key(item: Any) -> list[str]:
    """Which key tells several kinds of part apart, where an error is about it."""
    return [item["ctx"]["discriminator"].strip("'")] if item["type"] == "union_tag_invalid" else []


TAGS: dict[str, type[_Part]] = {**OPTIMIZERS, **DATA_SETS, **NOISES}
"""What pydantic adds to the place of an error inside one of several kinds; not written in a study."""


KINDS = {"name": list(OPTIMIZERS), "source": list(DATA_SETS), "kind": list(NOISES)}


def _encloses(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _explain(item: Any) -> str:  # noqa: PLR0911 - one answer for each kind of error
    kind, received, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(str(item['loc'][-1]), _keys_at(item['loc'][:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"received {_short(received)}{_nearest(str(received), _quoted(context['expected']))}"
    if kind.startswith("union_tag"):
        key = context.get("discriminator", "").strip("'")
        name = received.get(key) if isinstance(received, dict) else received
        if name is None:
            return f"{key} is missing; known: {', '.join(_quoted(context.get('expected_tags', '')) or KINDS[key])}"
        return f"received {_short(name)}{_nearest(str(name), _quoted(context.get('expected_tags', '')))}"
    if kind == "value_error":
        return str(context["error"])
    return f"received {_short(received)}; {item['msg'].lower()}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    listed = ", ".join(known)
    return f"; did you mean {near[0]}? Known: {listed}" if near else f"; known: {listed}"


def _keys_at(location: Sequence[Any]) -> list[str]:
    """The keys that the schema knows at a place, found by walking its types along the location."""
    part: Any = Study
    for step in location:
        part = _inner(part, step)
    return list(part.model_fields) if part is not None else []


def _inner(part: Any, step: Any) -> Any:
    if part is None:
        return None
    if isinstance(step, int):
        return part
    field = part.model_fields.get(step) if hasattr(part, "model_fields") else None
    if field is None:
        return TAGS.get(step, part)
    pending, parts = [field.annotation], []
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, _Part):
            parts.append(kind)
        pending.extend(get_args(kind))
    return parts[0] if parts else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
