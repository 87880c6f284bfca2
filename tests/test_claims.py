"""Claims in a study file: what can be said, what each word means, and that each refusal is one line that helps."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from layerwise import answers, identity, stages
from layerwise.study import KINDS_OF_CLAIM, StudyError, load, looks, parse, sides
from tests.studies import READY, small

TUNED = {"epochs": 2, "at": "every_depth"}
ARMS = {
    "tuned": {"objective": "reconstruction", "fine_tune": TUNED},
    "frozen": {"objective": "reconstruction"},
    "scratch": {"control": "scratch", "of": "tuned"},
    "shuffled": {"control": "permuted", "of": "tuned"},
    "end_to_end": "end_to_end",
}


def claiming(claim: dict, **changes):
    """A study of several arms, three deep, with one claim."""
    return small(**{"arms": ARMS, "claims": {"it": claim}, **changes})


def columns(claim: dict, **changes) -> list[tuple[tuple[str, int, str], ...]]:
    """What a claim is about: arm, depth and column of every score of every test."""
    study = claiming(claim, **changes)
    found = sides(study, study.claims["it"])
    return [tuple((score.arm, score.depth, score.column) for score in side) for side in found]


def refusal(claim: dict, **changes) -> str:
    """The line with which a study that says this claim is refused."""
    with pytest.raises(StudyError) as caught:
        claiming(claim, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_a_plain_metric_is_of_the_network_that_the_arm_leaves():
    """One word means the fine-tuned network of an arm that fine-tunes, and the plain one of an arm that does not."""
    claim = {"kind": "compare", "arm": "tuned", "metric": "test_accuracy", "above": "scratch"}
    assert columns(claim) == [(("tuned", 3, "fine_tuned_test_accuracy"), ("scratch", 3, "test_accuracy"))]
    assert columns({**claim, "above": "frozen"})[0][1] == ("frozen", 3, "test_accuracy")
    assert columns({**claim, "above": "shuffled"})[0][1] == ("shuffled", 3, "fine_tuned_test_accuracy")


def test_the_pretrained_network_can_be_asked_for():
    """`stage: pretrained` is the network before fine tuning, on one side or on both."""
    claim = {"kind": "compare", "arm": "tuned", "metric": "train_accuracy", "above": {"stage": "pretrained"}}
    assert columns(claim) == [(("tuned", 3, "fine_tuned_train_accuracy"), ("tuned", 3, "train_accuracy"))]
    both = columns({**claim, "stage": "pretrained", "above": "frozen"})
    assert [score[2] for score in both[0]] == ["train_accuracy"] * 2


def test_fine_tuned_at_the_end_alone():
    """An arm that fine-tunes at its last depth leaves a pretrained network at every other."""
    arms = {"tuned": {"objective": "reconstruction", "fine_tune": {"epochs": 2}}}
    claim = {"kind": "bound", "arm": "tuned", "metric": "test_accuracy", "at_least": 0.5}
    found = [side[0][2] for side in columns(claim, arms=arms)]
    assert found == ["test_accuracy", "test_accuracy", "fine_tuned_test_accuracy"]


EVERY_ARM = {
    **ARMS,
    "greedy": "greedy",
    "untrained": {"control": "random_frozen", "of": "tuned"},
    "rebuilt": {"objective": "reconstruction", "fine_tune": {**TUNED, "objective": "reconstruction"}},
}


@pytest.fixture(scope="module")
def trained() -> pd.DataFrame:
    """The metrics of one seed of every kind of arm, one layer deep."""
    return answers.run(small(arms=EVERY_ARM, depth=1, seeds=1)).metrics()


@pytest.mark.parametrize("arm", EVERY_ARM)
@pytest.mark.parametrize("stage", ["pretrained", "finished"])
def test_every_claim_is_about_columns_that_a_run_gives(trained: pd.DataFrame, arm: str, stage: str):
    """What the schema calls a metric of a network is what training scores, for every kind of arm."""
    own = trained[trained["arm"] == arm].dropna(axis="columns", how="all")
    prefix = "fine_tuned_" if "fine_tuned_diverged" in own and stage == "finished" else ""
    for metric in ("test_accuracy", "test_loss", "train_reconstruction_mse", "reconstruction_r2", "live_units"):
        claim = {"kind": "bound", "arm": arm, "metric": metric, "at_most": 1, "stage": stage}
        try:
            (((_, _, column),),) = columns(claim, arms=EVERY_ARM, depth=1)
        except StudyError:
            column = None
        there = f"{prefix}{metric}"
        assert column == (there if there in own else None)


def test_depths_of_a_claim():
    """`final`, `all`, a depth or several; beside its own first depth, all are all others."""
    claim = {"kind": "equivalent", "arm": "frozen", "metric": "test_loss", "to": {"depth": 1}, "within": 0.1}
    assert [side[0][1] for side in columns(claim)] == [3]
    assert [side[0][1] for side in columns({**claim, "depth": "all"})] == [2, 3]
    assert [side[0][1] for side in columns({**claim, "depth": [3, 2]})] == [3, 2]
    assert [side[1][1] for side in columns({**claim, "depth": "all"})] == [1, 1]


def test_all_depths_of_two_arms_are_those_both_have():
    """Against an arm that is scored at its last depth alone, all depths are that one."""
    claim = {"kind": "compare", "arm": "frozen", "metric": "test_accuracy", "above": "end_to_end", "depth": "all"}
    assert [side[0][1] for side in columns(claim)] == [3]


def test_differences_of_pairs_of_arms():
    """A difference of arms can be compared with another, and several can be ordered."""
    claim = {"kind": "compare", "arm": "tuned", "minus": "shuffled", "metric": "test_accuracy",
             "above": {"arm": "shuffled", "minus": "scratch"}}  # fmt: skip
    assert [score[0] for score in columns(claim)[0]] == ["tuned", "shuffled", "shuffled", "scratch"]
    order = {"kind": "ordered", "arms": [["tuned", "scratch"], ["frozen", "scratch"], ["shuffled", "scratch"]],
             "metric": "test_accuracy", "direction": "down"}  # fmt: skip
    assert len(columns(order)[0]) == 6


COMPARE = {"kind": "compare", "arm": "tuned", "metric": "test_accuracy", "above": "scratch"}
EQUAL = {"kind": "equivalent", "arm": "tuned", "metric": "test_accuracy", "to": "scratch", "within": 0.01}
BOUND = {"kind": "bound", "arm": "tuned", "metric": "test_accuracy", "at_most": 0.9}
TREND = {"kind": "trend", "arm": "tuned", "metric": "test_accuracy", "direction": "up"}
RATE = {"kind": "rate", "arm": "tuned", "outcome": "collapsed", "below": "frozen"}
RATIO = {"kind": "ratio", "arm": "tuned", "metric": "test_accuracy", "to": "scratch", "within": 1.5}
ORDER = {"kind": "ordered", "arms": ["tuned", "frozen", "scratch"], "metric": "test_accuracy", "direction": "up"}


@pytest.mark.parametrize("claim", [COMPARE, EQUAL, BOUND, TREND, RATE, RATIO, ORDER])
def test_every_kind_of_claim_is_read(claim: dict):
    """Each kind takes one line."""
    assert columns(claim)


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({**COMPARE, "arm": "tunde"}, "claims.it: arm: received 'tunde'; did you mean tuned?"),
        ({**COMPARE, "above": "scrach"}, "claims.it: above.arm: received 'scrach'; did you mean scratch?"),
        ({**COMPARE, "depth": 4}, "claims.it: depth: received 4; tuned is scored at depth 1 to 3"),
        ({**COMPARE, "depth": 2, "above": "end_to_end"}, "above.depth: received 2; end_to_end is scored at depth 3"),
        ({**COMPARE, "depth": 0}, "claims.it.depth"),
        ({**COMPARE, "depth": [2, 2]}, "depth: received [2, 2]; one stands twice"),
        (
            {**COMPARE, "metric": "test_acuracy"},
            "metric: received 'test_acuracy' of tuned; did you mean test_accuracy?",
        ),
        ({**COMPARE, "metric": "validation_accuracy"}, "metric: received 'validation_accuracy' of tuned"),
        ({**COMPARE, "metric": "test_reconstruction_mse"}, "metric: received 'test_reconstruction_mse' of tuned"),
        ({**COMPARE, "metric": "fine_tuned_test_accuracy"}, "but scratch has no fine-tuned network at depth 3"),
        ({**COMPARE, "metric": "fine_tuned_test_loss", "stage": "pretrained"}, "stage: pretrained contradicts"),
        ({**COMPARE, "above": "tuned"}, "nothing to compare: both sides are tuned at depth 3"),
        ({**COMPARE, "above": {"depth": 3}}, "nothing to compare: both sides are tuned at depth 3"),
        ({**COMPARE, "arm": "frozen", "above": {"stage": "pretrained"}}, "nothing to compare: both sides are frozen"),
        ({**COMPARE, "above": {}}, "the other side says nothing; name an arm, or say its depth or stage"),
        ({**COMPARE, "below": "frozen"}, "received above and below; say exactly one of above, below"),
        ({**COMPARE, "above": None}, "received none of them; say exactly one of above, below"),
        ({**COMPARE, "by": -0.1}, "claims.it.by: received -0.1; input should be greater than or equal to 0"),
        ({**COMPARE, "minus": "frozen"}, "above: minus stands on one side only"),
        ({**COMPARE, "minus": "tuned", "above": {"arm": "frozen", "minus": "scratch"}}, "minus: received 'tuned', the"),
        ({**COMPARE, "abve": "frozen"}, "claims.it.abve: unknown key; did you mean above?"),
        ({**EQUAL, "within": -0.01}, "claims.it.within: received -0.01; input should be greater than 0"),
        ({**EQUAL, "within": 0}, "claims.it.within: received 0; input should be greater than 0"),
        ({key: EQUAL[key] for key in EQUAL if key != "within"}, "claims.it.within: is missing"),
        ({**BOUND, "at_least": 0.1}, "received at_most and at_least; say exactly one of at_most, at_least"),
        ({**BOUND, "at_most": float("nan")}, "claims.it.at_most: received nan"),
        ({**TREND, "direction": "upp"}, "claims.it.direction: received 'upp'; did you mean up?"),
        ({**TREND, "depth": "final"}, "nothing to compare: tuned has one depth (3); a trend needs two or more"),
        ({**TREND, "arm": "scratch", "depth": [3]}, "a trend needs two or more"),
        ({**RATE, "outcome": "colapsed"}, "claims.it.outcome: received 'colapsed'; did you mean collapsed?"),
        ({**RATE, "at_most": 0.1}, "received below and at_most"),
        ({**RATE, "below": None, "at_most": 1.5}, "claims.it.at_most: received 1.5"),
        ({**RATIO, "within": 0.5}, "claims.it.within: received 0.5; input should be greater than 1"),
        ({**RATIO, "above": -2, "within": None}, "claims.it.above: received -2"),
        ({**ORDER, "arms": ["tuned", "frozen"]}, "claims.it.arms: received ['tuned', 'frozen']"),
        ({**ORDER, "arms": ["tuned", "frozen", "tuned"]}, "arms: expected different arms"),
        ({**ORDER, "arms": ["tuned", "frozen", ["scratch", "frozen"]]}, "arms: expected different arms"),
        ({**ORDER, "arms": ["tuned", "frozen", "scrach"]}, "arms: received 'scrach'; did you mean scratch?"),
        ({**COMPARE, "kind": "compair"}, "claims.it.kind: received 'compair'; did you mean compare?"),
        (
            {"arm": "tuned"},
            "claims.it: kind is missing; known: compare, trend, ordered, equivalent, bound, rate, ratio",
        ),
    ],
)
def test_a_wrong_claim_is_refused_in_one_line(claim: dict, expected: str):
    """Each refusal says where, what was received, and what is known."""
    assert expected in refusal(claim)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seeds": 1}, "received seeds 1, but claims are decided over seeds; expected 2 or more"),
        ({"claims": {}}, "claims: received {}"),
        ({"claims": {"Best one": COMPARE}}, "claim name 'Best one': use lower-case letters"),
        ({"claims": {"bound": {**BOUND, "at_mst": 1}}}, "claims.bound.at_mst: unknown key; did you mean at_most?"),
        ({"alpha": 0}, "alpha: received 0; input should be greater than 0"),
        ({"alpha": 0.5}, "alpha: received 0.5; input should be less than 0.5"),
        ({"stop": {"every": 7}, "seeds": 30}, "stop: received a look at 7 seeds; seeds train 10 at a time"),
        ({"stop": {"looks": [20, 10]}, "seeds": 30}, "looks: received [20, 10]; expected numbers of seeds that grow"),
        ({"stop": {}, "seeds": 30}, "say either every or looks"),
        (
            {"stop": {"looks": [40]}, "seeds": 30},
            "stop.looks: received [40], but the study has 30 seeds, so there is no look before all are trained;"
            " expected one at fewer than 30, or leave stop out (stop: null, or --set stop=null)",
        ),
        ({"stop": {"every": 50}, "seeds": 30}, "stop.every: received 50, but the study has 30 seeds"),
        ({"stop": {"every": 30}, "seeds": 30}, "stop.every: received 30, but the study has 30 seeds"),
        ({"stop": {"every": 10}, "seeds": 30, "claims": None}, "stop: there is nothing to decide; add claims"),
    ],
)
def test_claims_that_do_not_fit_the_study_are_refused(changes: dict, expected: str):
    """What concerns all claims is refused in one line too."""
    assert expected in refusal(COMPARE, **changes)


def test_claims_have_no_part_in_what_is_trained():
    """A claim changes the study's digest, and of no stage and no arm anything."""
    plain, claimed = claiming(COMPARE, claims=None), claiming(COMPARE, alpha=0.01)
    assert plain.digest() != claimed.digest()
    for arm in plain.arms:
        keys = []
        for study in (plain, claimed):
            (block,) = stages.blocks(study, arm, "data")
            keys.append((block, identity.greedy_digest(block, 1, ""), identity.jointly_digest(block, 3)))
        assert keys[0] == keys[1]


def test_a_study_without_claims_keeps_its_digest():
    """Leaving out claims, alpha and stop is the same as having none."""
    assert small(claims=None, alpha=None, stop=None).digest() == small().digest()


def test_looks_are_fixed_beforehand():
    """Looks come every so many seeds or as listed, and the last is at all seeds."""
    assert looks(claiming(COMPARE, seeds=30)) == (30,)
    assert looks(claiming(COMPARE, seeds=35, stop={"every": 10})) == (10, 20, 30, 35)
    assert looks(claiming(COMPARE, seeds=60, stop={"looks": [20, 40]})) == (20, 40, 60)
    assert looks(claiming(COMPARE, seeds=15, stop={"looks": [10, 20]})) == (10, 15)


def test_every_shipped_study_claims_something():
    """A shipped study says in claims what it expects, and keeps them however they are decided."""
    assert [name for name in READY if not load(name).claims] == []


def test_claims_can_be_taken_out():
    """Settings that no claim fits are tried without claims."""
    assert load("blobs-supervised", seeds=1, overrides=["claims=null"]).claims is None


def test_claims_survive_being_written_out():
    """A study's canonical form is the same study, claims and all."""
    study = load("permuted-weights")
    assert parse(study.canonical()).digest() == study.digest()


def test_the_examples_of_the_document_are_claims():
    """Each example in docs/statistics.md is read as the kind of claim that it shows."""
    document = (Path(__file__).resolve().parents[1] / "docs" / "statistics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\{.*\})` \|$", document, re.MULTILINE)
    assert [kind for kind, _ in rows] == ["compare", "equivalent", "trend", "ordered", "bound", "rate", "ratio"]
    for kind, example in rows:
        assert KINDS_OF_CLAIM[kind].model_validate(yaml.safe_load(example)).kind == kind


def order(study) -> list[tuple[int, list[tuple[str, int]]]]:
    """The rounds of a study: seeds at the end of each, and arm and first seed of every block."""
    rounds = stages.rounds(study, "digest")
    return [(seeds, [(block.arm, block.seeds[0]) for (block,) in groups]) for seeds, groups in rounds]


def test_blocks_train_arm_by_arm_without_a_stop():
    """A study that is looked at once, at its end, trains one arm after the other."""
    assert order(small(seeds=12)) == [(12, [("greedy", 0), ("greedy", 10)])]
    assert order(small(arms=["greedy", "end_to_end"], seeds=12)) == [
        (12, [("greedy", 0), ("greedy", 10), ("end_to_end", 0), ("end_to_end", 10)])
    ]


def test_every_arm_is_trained_before_a_look():
    """Between two looks every arm trains the seeds up to the next, and a later end adds rounds alone."""
    claims = {"it": {"kind": "trend", "arm": "greedy", "metric": "train_accuracy", "direction": "up"}}
    stopping = {"arms": ["greedy", "end_to_end"], "claims": claims, "stop": {"looks": [10, 30]}}
    rounds = [
        (10, [("greedy", 0), ("end_to_end", 0)]),
        (30, [("greedy", 10), ("greedy", 20), ("end_to_end", 10), ("end_to_end", 20)]),
    ]
    assert order(small(**stopping, seeds=40)) == [*rounds, (40, [("greedy", 30), ("end_to_end", 30)])]
    assert order(small(**stopping, seeds=35)) == [*rounds, (35, [("greedy", 30), ("end_to_end", 30)])]
    (_, last) = list(stages.rounds(small(**stopping, seeds=35), "digest"))[-1]
    assert [block.reported for (block,) in last] == [5, 5]
