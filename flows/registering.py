"""``layerwise register``: a network of a run that is tracked, or its encoder alone, as a registered model.

Nothing is trained, no data are read, and no code is run that a tracker names: an encoder is made of the weights in the
model that was logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows import environment
from flows.printing import DONE, WRONG_REQUEST, refuse, refuse_store
from layerwise.study.parts import nearest, printable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from tasks.tracking.registry import Shelf
    from tasks.tracking.runs import RunTree
    from tasks.tracking.tracked import Tracked


class NoNetwork(RuntimeError):
    """There is no such network to register; one line: received, expected, remedy."""


@dataclass(frozen=True)
class Asked:
    """Which network of a run.

    Attributes:
        arm: the arm that left it.
        depth: its number of hidden layers.
        seed: its seed.
        untuned: whether it is the network before fine tuning.
    """

    arm: str | None = None
    depth: int | None = None
    seed: int | None = None
    untuned: bool = False


@dataclass(frozen=True)
class Named:
    """A network of a run, with everything said.

    Attributes:
        arm: the arm that left it.
        depth: its number of hidden layers.
        seed: its seed.
        tuned: whether it is the one that was fine-tuned.
        rule: the tag of the run that says the same; empty where it is a person who says so.
    """

    arm: str
    depth: int
    seed: int
    tuned: bool
    rule: str = ""

    @property
    def model(self) -> str:
        """What its model is called on the run of its seed."""
        return f"depth-{self.depth:02d}{'-fine-tuned' * self.tuned}"


def register_command(said: str, asked: Asked, *, encoder: bool, name: str | None, root: Path) -> int:
    """Register a network of a run, or its encoder, and say where. Returns the exit status.

    Args:
        said: a run, as :func:`tasks.tracking.tracked.find_arm` takes it.
        asked: which of its networks; what is left out is that of the network that the run registered.
        encoder: whether its hidden layers alone are registered.
        name: of the registered model; the study's, with ``-encoder`` behind it for an encoder, if left out.
        root: where runs are.
    """
    environment.set_variables(root)
    from tasks.tracking.store import TrackingError, failures_in_one_line, open_existing_store, taken_as_ours
    from tasks.tracking.tracked import find_arm, read_tracked

    try:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
            raise NoNetwork(f"--name {name!r}: use at most 80 letters, digits, '.', '_' and '-'.")
        client = open_existing_store(root)
        with failures_in_one_line(f"registering a network of {said}", client.tracking_uri):
            run, arm = find_arm(client, said)
            held = read_tracked(client, run)
            with taken_as_ours(f"what run {run.info.run_id} holds"):
                network = _named(held, asked, arm, encoder=encoder)
                click.echo(printable(_registered(client, held, network, encoder=encoder, name=name)))
    except TrackingError as error:
        return refuse_store(error)
    except NoNetwork as problem:
        return refuse(str(problem), WRONG_REQUEST)
    return DONE


def _named(held: Tracked, asked: Asked, arm: str, *, encoder: bool) -> Named:
    """The network that is meant, which the run has scores of."""
    if asked.depth is None and not encoder:
        raise NoNetwork(f"{held.name}: say which network, with --depth N, or --encoder for the hidden layers alone.")
    arms, (rule, own) = list(held.metrics["arm"].unique()), _own(held)
    if arm and asked.arm not in {None, arm}:
        raise NoNetwork(f"{held.name}/{arm} names an arm, and --arm {asked.arm} another; leave one out.")
    arm = asked.arm or arm or (own[0] if own else arms[0] if len(arms) == 1 else "")
    if arm not in arms:
        raise NoNetwork(
            f"{held.name}: {f'received the arm {arm!r}{nearest(arm, arms)}' if arm else _say('arm', arms)}."
        )
    rows = held.metrics[held.metrics["arm"] == arm]
    depth = asked.depth if asked.depth is not None else own[1] if own and own[0] == arm else 0
    if depth not in (depths := sorted({int(one) for one in rows["depth"]})):
        found = (
            f"{arm} has no network at depth {depth}; there are {_listed(depths)}" if depth else _say("depth", depths)
        )
        raise NoNetwork(f"{held.name}: {found}.")
    rows = rows[rows["depth"] == depth].set_index("seed")
    same = own if own and own[:2] == (arm, depth) else None
    seed = asked.seed if asked.seed is not None else same[2] if same else 0
    if seed not in rows.index:
        raise NoNetwork(f"{held.name}: {arm} has no seed {seed}; there are {_listed(sorted(map(int, rows.index)))}.")
    tuned = "fine_tuned_diverged" in rows and bool(rows["fine_tuned_diverged"].notna()[seed])
    if asked.untuned and not tuned:
        raise NoNetwork(f"{held.name}: {arm} is not fine-tuned at depth {depth}; leave --untuned out.")
    is_own = (arm, depth, seed) == own and not asked.untuned
    return Named(arm, depth, seed, tuned and not asked.untuned, rule if is_own else "")


def _own(held: Tracked) -> tuple[str, tuple[str, int, int] | None]:
    """The network that the run itself names: by which tag, and its arm, depth and seed."""
    from tasks.tracking.registry import CHOSEN, DECLARED

    for rule in (CHOSEN, DECLARED):
        if found := re.fullmatch(r"(.+), depth (\d{1,9}), seed (\d{1,9})", held.run.data.tags.get(rule, "")):
            return rule, (found[1], int(found[2]), int(found[3]))
    return "", None


def _registered(client: MlflowClient, held: Tracked, named: Named, *, encoder: bool, name: str | None) -> str:
    """Register the network, and say so."""
    from tasks.tracking.answers import REPORT
    from tasks.tracking.registry import ENCODER_ALIAS, NAMED_ALIAS, Candidate, register_as_asked
    from tasks.tracking.tracked import tree_of

    tree = tree_of(client, held.run)
    model, features = _logged(client, held, named, tree), 0
    if encoder:
        from tasks.encoding import publish_encoder

        model, features = publish_encoder(client, tree, model)
    card = _card(client, held, named, tree, features)
    report = f"runs:/{tree.study_run_id}/{REPORT}"
    candidate = Candidate(named.arm, named.depth, named.seed, model.name, card, report)
    shelf, alias = (_encoders if encoder else _networks)(held, name), ENCODER_ALIAS if encoder else NAMED_ALIAS
    version = register_as_asked(client, held.run, candidate, model, shelf=shelf, alias=alias)
    what = f"the encoder, {features} features a row" if encoder else "the network"
    place = f"{held.name}: {named.arm}, depth {named.depth}, seed {named.seed}"
    return f"registered: {shelf.name} version {version}, alias {alias}: {what} ({place}{', fine-tuned' * named.tuned})"


def _networks(held: Tracked, name: str | None) -> Shelf:
    """Where networks of a study stand that answer its question: beside the one that its run registered."""
    from tasks.tracking.registry import Shelf

    return Shelf(name or held.study, held.study, held.document.get("question", ""))


def _encoders(held: Tracked, name: str | None) -> Shelf:
    """Where its encoders stand."""
    from tasks.tracking.registry import Shelf

    told = (
        f"Features of the top hidden layer of networks of the study {held.study}. {held.document.get('question', '')}"
    )
    return Shelf(name or f"{held.study}-encoder", held.study, told.rstrip(), "encoder")


def _logged(client: MlflowClient, held: Tracked, named: Named, tree: RunTree) -> LoggedModel:
    from tasks.tracking.tracked import finished_models

    models = finished_models(client, tree.experiment_id, tree.seed_run(named.arm, named.seed))
    if named.model not in models:
        there = ", ".join(sorted(models)) or "none"
        raise NoNetwork(
            f"{held.name}: seed {named.seed} of {named.arm} has no finished model {named.model}, because the seed"
            f" diverged, or track.models keeps none of that depth; there {'is' if there == 'none' else 'are'} {there}."
        )
    return models[named.model]


def _card(client: MlflowClient, held: Tracked, named: Named, tree: RunTree, features: int) -> str:
    from tasks import cards
    from tasks.tracking.registry import CHOSEN, DECLARED
    from tasks.tracking.tracked import arm_settings

    settings = arm_settings(client, held.run)[named.arm]
    subject = cards.Subject(
        held.study,
        held.document.get("question", ""),
        named.arm,
        named.depth,
        named.seed,
        layers=_layers(settings["hidden_units"])[: named.depth],
        tuned=named.tuned,
        data=held.document["data"],
        labels=int(settings["labels"]) if "labels" in settings else None,
        digest=held.data_digest,
        pages=cards.Pages.of(tree.experiment_id, tree.seed_run(named.arm, named.seed), tree.study_run_id),
        features=features,
    )
    if named.rule == CHOSEN:
        from layerwise.selection import chosen_network

        arms = list(held.metrics["arm"].unique())
        return cards.card(
            subject, held.metrics, cards.chosen(chosen_network(held.metrics, arms), held.metrics, len(arms))
        )
    return cards.card(subject, held.metrics, cards.declared() if named.rule == DECLARED else cards.named())


def _layers(said: str) -> tuple[str, ...]:
    """The hidden layers, bottom up, from the parameter of an arm's run that says ``500, 250 x 2``.

    Example:
        >>> _layers("500, 250 x 2")
        ('500', '250', '250')
    """
    found = (re.fullmatch(r"(.+?)(?: x (\d{1,4}))?", part) for part in said.split(", "))
    return tuple(one[1] for one in found if one for _ in range(int(one[2] or 1)))


def _say(what: str, known: list[Any]) -> str:
    return f"say which {what}, with --{what}: {_listed(known)}"


def _listed(known: list[Any]) -> str:
    shown = ", ".join(map(str, known[:12]))
    return f"{shown}, … {known[-1]}" if len(known) > 12 else shown
