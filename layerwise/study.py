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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

BLOCK_SEEDS = 10
"""Seeds that train side by side in one compiled program where layers are small (see :func:`block_size`)."""

WIDE_LAYER = 16_384
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


class Split(_Part):
    """How many rows each part takes, in the order of the data: first train, then test."""

    train: Count
    test: Count


class Blobs(_Part):
    """Isotropic Gaussian clusters from :func:`sklearn.datasets.make_blobs`, rows in generated order."""

    source: Literal["blobs"] = "blobs"
    samples: Annotated[int, Field(ge=2, le=10_000_000, strict=True)] = 1000
    classes: Annotated[int, Field(ge=2, le=1000, strict=True)] = 3
    features: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 2
    cluster_std: Positive = 2.0
    random_state: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] = 2
    split: Split = Split(train=500, test=500)

    @model_validator(mode="after")
    def _split_adds_up(self) -> Blobs:
        total = self.split.train + self.split.test
        if total != self.samples:
            raise ValueError(
                f"train {self.split.train} + test {self.split.test} = {total} rows, but samples is {self.samples};"
                " make them equal"
            )
        return self


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
        return tuple(
            layer.model_copy(update={"repeat": 1}) for layer in self.layers for _ in range(layer.repeat)
        )

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


class Arm(_Part):
    """One procedure of the study."""

    objective: Literal["supervised"] = "supervised"


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
    data: Blobs
    network: Network
    training: Training = Training()
    arms: Annotated[dict[str, Arm], Field(min_length=1)] = {"greedy": Arm()}
    seeds: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 30
    track: Track = Track()

    @field_validator("arms")
    @classmethod
    def _arm_names(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for name in arms:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
                raise ValueError(f"arm name {name!r}: use lower-case letters, digits, _ and -")
        return arms

    @model_validator(mode="after")
    def _batch_fits(self) -> Study:
        if self.training.batch_size > self.data.split.train:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} is larger than the training part"
                f" ({self.data.split.train} rows); use at most {self.data.split.train}"
            )
        return self

    @property
    def depth(self) -> int:
        """Number of hidden layers at the end."""
        return len(self.network.hidden)

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


def block_size(study: Study) -> int:
    """Seeds per block, a function of the study's shapes alone, never of the machine or the number of seeds."""
    width = study.data.features
    for layer in study.network.hidden:
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
            raise StudyError(
                f"{path}: {path.stat().st_size:,} bytes; a study file holds at most {MAX_FILE_BYTES:,}."
            )
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
        place = ".".join(str(step) for step in item["loc"] if step not in OPTIMIZERS)
        yield f"{place or 'study'}: {_explain(item)}"
    if len(inner) > 3:
        yield f"and {len(inner) - 3} more"


def _encloses(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _explain(item: Any) -> str:
    kind, received, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(str(item['loc'][-1]), _keys_at(item['loc'][:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return f"received {_short(received)}{_nearest(str(received), _quoted(context['expected']))}"
    if kind.startswith("union_tag"):
        name = received.get("name") if isinstance(received, dict) else received
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
        return OPTIMIZERS.get(step, part)
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
