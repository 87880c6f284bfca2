"""The network that a study registers where no validation part chooses one: said beforehand, and never by a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from layerwise.study.parts import Count, Part, nearest
from layerwise.study.scores import looks

if TYPE_CHECKING:
    from layerwise.study.study import Study


class Declared(Part):
    """Which network a study registers: one that is declared before anything is trained."""

    depth: Count
    """Number of hidden layers."""
    arm: str | None = None
    """The arm that leaves it; of a study with one arm, that one."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    """The first, unless another is named: no seed is better than others before it has been trained."""


@dataclass(frozen=True)
class DeclaredNetwork:
    """The network that a study declares, with everything said.

    Attributes:
        arm: the arm that leaves it.
        depth: its number of hidden layers.
        seed: its seed.
    """

    arm: str
    depth: int
    seed: int

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.arm}, depth {self.depth}, seed {self.seed}"


def declared_network(study: Study) -> DeclaredNetwork | None:
    """The network that a study declares; none where it says nothing.

    Example:
        >>> from layerwise.study import declared_network, load
        >>> declared_network(load("blobs-supervised", overrides=["declared.depth=3"])).place
        'greedy, depth 3, seed 0'
    """
    asked = study.declared
    return None if asked is None else DeclaredNetwork(asked.arm or next(iter(study.arms)), asked.depth, asked.seed)


def check_declared(study: Study) -> None:
    """Refuse a network that will not be there, or that something else chooses; the message says what would do."""
    asked, found = study.declared, declared_network(study)
    if asked is None or found is None:
        return
    if study.data.split.validation:
        raise ValueError("declared: the validation part chooses the network; leave declared out, or split.validation")
    arms = list(study.arms)
    if asked.arm is None and len(arms) > 1:
        raise ValueError(f"declared: there are {len(arms)} arms; say which in declared.arm: {', '.join(arms)}")
    if found.arm not in arms:
        raise ValueError(f"declared.arm: received {found.arm!r}{nearest(found.arm, arms)}")
    procedure = study.procedure(found.arm)
    if found.depth not in procedure.depths:
        depths = ", ".join(map(str, procedure.depths))
        raise ValueError(f"declared.depth: received {found.depth}; {found.arm} leaves a network at depth {depths}")
    if not procedure.keeps(found.depth, study.track.models):
        kept = f"track.models: {study.track.models} keeps no model of {found.arm} at depth {found.depth}"
        raise ValueError(f"declared: {kept}; say all")
    trained = looks(study)[0]  # a study that may stop early need not train the others
    if found.seed >= trained:
        raise ValueError(f"declared.seed: received {found.seed}; expected a seed from 0 to {trained - 1}")
