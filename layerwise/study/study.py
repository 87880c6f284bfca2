"""The study as a whole: that its parts go together, and what follows from them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from layerwise import imported
from layerwise.study.arms import Arm, KeptModels, Procedure, in_one_word
from layerwise.study.claims import Claim, Stop
from layerwise.study.data import DataSet
from layerwise.study.declaring import Declared, check_declared
from layerwise.study.growing import Grow, check_grow
from layerwise.study.layers import Custom, Network, check_shapes, incoming_shapes, shape_below, unrolled
from layerwise.study.parts import NAME, Part, digest_of, nearest, printable, short
from layerwise.study.scores import check_claims
from layerwise.study.split import check_labels
from layerwise.study.training import FineTune, Training

BLOCK_SEEDS = 10
"""Seeds that train side by side in one compiled program where layers are small (see :func:`block_size`)."""

WIDE_LAYER = 100_000
"""Weights in one layer (inputs x units) from which batched products over seeds lose to one seed at a time."""

BLOCK_BYTES = 512 * 2**20
"""What the features of a block at one depth may take up in memory, as float32, unless one seed alone takes more."""


MOST_ARMS = 100
MOST_CLAIMS = 200
MOST_SEEDS = 100_000


def _in_print(text: str) -> str:
    """A text that a terminal shows as it is, and does not obey."""
    if printable(text) != text:
        raise ValueError(f"received {short(text)}; leave out characters that no terminal shows")
    return text


class Track(Part):
    """What goes to the tracking store besides metrics."""

    models: KeptModels = "all"


class Study(Part):
    """A question, and everything needed to answer it twice with the same bits.

    Example:
        >>> from layerwise.study import Study
        >>> study = Study(name="two-deep", data={"source": "blobs"},
        ...               network={"layers": [{"units": 10, "repeat": 2}]}, seeds=3)
        >>> study.depth, len(study.blocks())
        (2, 1)
    """

    name: Annotated[str, Field(pattern=NAME)]
    question: Annotated[str, Field(max_length=500), AfterValidator(_in_print)] = ""
    data: DataSet
    network: Network
    training: Training = Training()
    arms: Annotated[
        dict[str, Arm], Field(min_length=1, max_length=MOST_ARMS, default_factory=lambda: {"greedy": Arm()})
    ]
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS, strict=True)] = 30
    track: Track = Track()
    claims: Annotated[dict[str, Claim], Field(min_length=1, max_length=MOST_CLAIMS)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Chance of any wrongly supported claim, and of any wrongly refuted one, in the family of all claims; .05."""
    stop: Stop | None = None
    grow: Grow | None = None
    declared: Declared | None = None
    """The network to register where no validation part chooses one."""

    _grown: dict[str, int] = PrivateAttr(default_factory=dict)
    """How deep arms have grown, by name; no part of what was asked, and of no digest."""

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_in_words(cls, arms: Any) -> Any:
        if isinstance(arms, list):
            unnamed = [arm for arm in arms if not isinstance(arm, str)]
            if unnamed:
                raise ValueError(f"a list holds arms of one word; received {short(unnamed[0])}; give each arm a name")
            repeated = [name for name, count in Counter(arms).items() if count > 1]
            if repeated:
                raise ValueError(f"the arm {repeated[0]!r} stands twice; give the second a name of its own")
            arms = {word: word for word in arms}
        if isinstance(arms, dict):
            return {name: in_one_word(name, arm) for name, arm in arms.items()}
        return arms

    @field_validator("arms")
    @classmethod
    def _arm_names(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for name in arms:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
                raise ValueError(f"arm name {name!r}: use lower-case letters, digits, _ and -")
        return arms

    @field_validator("claims")
    @classmethod
    def _claim_names(cls, claims: dict[str, Claim] | None) -> dict[str, Claim] | None:
        for name in claims or ():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", name):
                raise ValueError(f"claim name {name!r}: use lower-case letters, digits, _ and -")
        return claims

    @model_validator(mode="after")
    def _arms_make_sense(self) -> Self:
        for name in self.arms:
            check_procedure(self, name)
        check_claims(self)
        check_grow(self)
        check_declared(self)
        return self

    @property
    def depth(self) -> int:
        """Number of hidden layers of the deepest arm."""
        return max(self.procedure(arm).depth for arm in self.arms)

    def grown(self, depths: Mapping[str, int]) -> Study:
        """The study as it has come to be: the same, with arms that grew no deeper than they did.

        Args:
            depths: arm -> its number of hidden layers. A control is as deep as the arm that it controls for.

        Example:
            >>> from layerwise.study import load
            >>> study = load("blobs-supervised").grown({"greedy": 3})
            >>> study.depth, study.digest() == load("blobs-supervised").digest()
            (3, True)
        """
        copy = self.model_copy()
        copy._grown = dict(depths)  # noqa: SLF001 - the copy is of this class
        return copy

    def procedure(self, arm: str) -> Procedure:
        """An arm with everything said, as deep as it has grown."""
        planned = self.planned(arm)
        return planned.upto(self._grown.get(self.root(arm), planned.depth))

    def root(self, arm: str) -> str:
        """The arm itself, or the one that it controls for."""
        said = self.arms[arm]
        return arm if said.control is None else said.of or self.roots[0]

    @property
    def roots(self) -> list[str]:
        """The arms that are no controls."""
        return [arm for arm, said in self.arms.items() if said.control is None]

    def planned(self, arm: str) -> Procedure:
        """An arm with everything said, as deep as it may become."""
        said, of = self.arms[arm], self._controlled(arm)
        control, tune = said.control, said.fine_tune or of.fine_tune
        if control in {"scratch", "permuted"} and tune is not None and tune.objective == "both":
            tune = tune.model_copy(update={"objective": "labels"})  # what reconstruction tuned is what they lack
        network = self.network_of(arm)
        layers = network.hidden
        training = said.training or of.training or self.training
        tuned_once = control in {"scratch", "permuted"} and tune is not None and tune.at == "end"
        only_last = said.depths == "final" or (said.depths is None and (control == "end_to_end" or tuned_once))
        return Procedure(
            objective="supervised" if control == "scratch" else said.objective or of.objective or "supervised",
            layers=layers,
            bottom=network.bottom(self.data.shape().features),
            head_layers=unrolled(network.head or ()),
            training=training,
            head=said.head or of.head or training,
            noise=None if control == "scratch" else said.noise or of.noise,
            fine_tune=None if control == "random_frozen" else tune,
            control=control,
            labels=said.labels or of.labels or self.data.labels,
            scaling=said.scaling or of.scaling or self.data.scaling,
            depths=(len(layers),) if only_last else tuple(range(1, len(layers) + 1)),
        )

    def network_of(self, arm: str) -> Network:
        """An arm's network: its own, that of the arm it controls for, or the study's."""
        return self.arms[arm].network or self._controlled(arm).network or self.network

    def _controlled(self, arm: str) -> Arm:
        """The arm that a control controls for; an arm that is no control is its own."""
        said = self.arms[arm]
        if said.control is None:
            return said
        greedy = self.roots
        if not greedy:
            raise ValueError(f"arms.{arm}: {said.control} has no arm to control for; add one that trains greedily")
        of = greedy[0] if said.of is None else said.of
        if of in self.arms and of not in greedy:
            raise ValueError(f"arms.{arm}.of: {of!r} is a control itself; name one of {', '.join(greedy)}")
        if of not in greedy:
            raise ValueError(f"arms.{arm}.of: received {of!r}{nearest(of, greedy)}")
        return self.arms[of]

    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The aligned blocks of seeds that train side by side and together hold every seed asked for.

        The last block may reach beyond :attr:`seeds`: it trains in full, so that there is one program shape and
        more seeds later find it done, and only the seeds asked for are reported.
        """
        size = block_size(self)
        return tuple(tuple(range(start, start + size)) for start in range(0, self.seeds, size))

    def digest(self, repeat: str = "") -> str:
        """The run key: SHA-256 over the resolved study and the name of the repeat, as 32 hex digits.

        Of a file, and of the user's own code, it takes the content, and not the place.
        """
        study = self.canonical() | {"data": self.data.identity()}
        code = {path: imported.code_digest(path) for path in sorted(self.functions)}
        return digest_of({"study": study, "repeat": repeat} | ({"code": code} if code else {}))

    @property
    def functions(self) -> set[str]:
        """The import paths of the user's functions that the study names."""
        networks = [self.network, *(arm.network for arm in self.arms.values() if arm.network is not None)]
        layers = [layer for network in networks for layer in network.every_layer]
        return {layer.function for layer in layers if isinstance(layer, Custom)}


NO_USE = {"scratch": ("objective", "noise", "training", "head"), "random_frozen": ("noise", "fine_tune")}
"""What a control cannot honour: ``scratch`` trains as fine tuning does, ``random_frozen`` trains nothing but a head."""


def check_procedure(study: Study, arm: str) -> None:
    """Refuse an arm whose parts do not go together; the message says which and why."""
    said, asked = study.arms[arm], study.procedure(arm)
    tune, supervised, where = asked.fine_tune, asked.objective == "supervised", f"arms.{arm}"
    if said.of is not None and said.control is None:
        raise ValueError(f"{where}.of: only a control has an arm it controls for; add control, or leave of out")
    if asked.noise is not None and supervised:
        raise ValueError(f"{where}.noise: a supervised arm has no reconstruction to denoise; set objective")
    for key in NO_USE.get(asked.control or "", ()):
        if getattr(said, key) is not None:
            raise ValueError(f"{where}.{key}: {asked.control} has no use for {key}; leave it out")
    if said.head is not None and supervised and asked.control in {None, "end_to_end"}:
        raise ValueError(f"{where}.head: a supervised arm trains its output layer with every stage; leave head out")
    if asked.control in {"scratch", "permuted"} and (tune is None or tune.objective == "reconstruction"):
        raise ValueError(f"{where}: {asked.control} needs an arm that is fine-tuned on labels; give that arm fine_tune")
    if supervised and any(layer.noise for layer in asked.layers) and asked.control != "scratch":
        raise ValueError(f"{where}: a layer has noise, but a supervised arm has no reconstruction to denoise")
    if tune is not None:
        _check_fine_tune(asked, tune, where)
    _check_network(study, arm)
    check_labels(asked.labels, study.data, where=f"{where}.")
    _check_batches(study, asked, where)


def _check_network(study: Study, arm: str) -> None:
    try:
        check_shapes(study.network_of(arm), study.data.shape().features)
    except ValueError as error:
        where = "network" if study.network_of(arm) is study.network else f"arms.{arm}.network"
        raise ValueError(f"{where}: {error}") from None


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
    lowest = min(depth for depth in asked.depths if asked.tunes_at(depth))
    if factors is not None and not any((*factors[:lowest], factors[-1])):
        raise ValueError(
            f"{where}.fine_tune.learning_rate_factors: all are 0 at depth {lowest}, so nothing would be tuned there;"
            " make one larger"
        )


def _check_batches(study: Study, asked: Procedure, where: str) -> None:
    pool = study.data.split.train
    labelled = asked.labels or pool
    pretraining = labelled if asked.objective == "supervised" else pool
    # Scratch trains with the settings of fine tuning alone.
    every = {asked.training_at(depth).batch_size for depth in range(1, asked.depth + 1)}
    wanted = [] if asked.control == "scratch" else [("training", batch, pretraining) for batch in sorted(every)]
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
    """Seeds per block, a function of the study's shapes alone, never of the machine or the number of seeds.

    Wide layers train one seed at a time, and a block's features stay below :data:`BLOCK_BYTES`.
    """
    rows, features, _ = study.data.shape()
    widest = features
    for arm in study.arms:
        asked = study.planned(arm)
        below = shape_below(asked.bottom)
        shapes = incoming_shapes(asked.layers, below) if below else []
        for layer, shape in zip(asked.layers, shapes, strict=False):
            if layer.vectorised and getattr(layer, "units", 0) * math.prod(shape) >= WIDE_LAYER:
                return 1
        widest = max(widest, *(math.prod(shape) for shape in shapes), 1)
    room = BLOCK_BYTES // (4 * rows * widest)
    return max(size for size in (1, 2, 5, BLOCK_SEEDS) if size <= max(room, 1))
