"""Growing by rule: the first seeds settle how deep an arm becomes, and everything after follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import layerwise
from flows.planning import piloted
from flows.survey import Survey
from layerwise import stages
from layerwise.claims import decide, undecidable
from layerwise.growing import Growing, as_grown, growth_in_words
from layerwise.stages import Block, Chain, Depth, Evaluation
from layerwise.study import Study, StudyError, held_out
from tests.studies import small
from tests.test_selection import Untouchable

DATA = {"source": "blobs", "samples": 200, "scaling": "standard",
        "split": {"train": 100, "validation": 50, "test": 50}}  # fmt: skip
FINAL = {"kind": "compare", "arm": "greedy", "metric": "test_accuracy", "above": {"depth": 1}}
TUNE = {"epochs": 2, "at": "every_depth"}

Score = Callable[[str, int, np.ndarray], np.ndarray]
"""The validation accuracies of an arm at a depth, for an array of seeds."""


def growing(depth: int = 5, seeds: int = 20, worth: float = 0.05, first: int = 10, **changes: Any) -> Study:
    """A study that adds layers as long as they are worth it."""
    return small(depth=depth, seeds=seeds, **{"data": DATA, "grow": {"worth": worth, "seeds": first}, **changes})


class Scripted(Survey):
    """Stages that train nothing, and scores as they are told."""

    def __init__(self, score: Score) -> None:
        super().__init__(folder=None, data=None)
        self.score = score

    def evaluate(self, block: Block, _data: object, chain: Chain, _head: object, digest: str) -> Evaluation:
        """The scores told; test scores and what looks at them cannot be read."""
        seeds, none = np.array(block.seeds), np.zeros(len(block.seeds), bool)
        told = self.score(block.arm, len(chain), seeds)
        hidden = np.array([Untouchable() for _ in seeds], dtype=object)
        metrics = {"validation_accuracy": told, "validation_loss": np.where(np.isnan(told), np.nan, 0.5)}
        return Evaluation(len(chain), {**metrics, "test_accuracy": hidden}, none, none, digest, 0)


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records leave test scores as they are, so that whatever reads one fails."""
    plain = Depth.records

    def records(depth: Depth) -> Iterator[dict[str, Any]]:
        scores = depth.evaluation.metrics
        if scores.get("test_accuracy", np.zeros(1)).dtype != object:
            yield from plain(depth)
            return
        for position, seed in enumerate(depth.block.seeds[: depth.block.reported]):
            told = {name: values[position] for name, values in scores.items()}
            yield {"arm": depth.block.arm, "seed": seed, "depth": depth.depth, "collapsed": False, **told}

    monkeypatch.setattr(Depth, "records", records)


def gains(*told: float, broken_from: int = 99) -> Score:
    """Scores that gain so much with each layer, about which seeds differ a little; beyond, nothing."""

    def score(_arm: str, depth: int, seeds: np.ndarray) -> np.ndarray:
        jitter = 0.004 * np.sin(1 + seeds * (depth + 1))
        mean = 0.5 + sum(told[: depth - 1])
        return np.where(depth >= broken_from, np.nan, mean + jitter)

    return score


def trained(study: Study, score: Score, *, repeat: str = "") -> tuple[Growing, list[Depth], list[tuple]]:
    """What trains with scripted scores: the growth, every depth in order, and every stage in order."""
    steps, found = Scripted(score), Growing(study)
    rounds = stages.rounds(study, "da7a" * 8, repeat)
    depths = [depth for _, groups in rounds for blocks in groups for depth in found.depths(blocks, None, steps=steps)]
    return found, depths, steps.met


def places(depths: list[Depth]) -> dict[tuple[str, int], list[int]]:
    """(arm, first seed of the block) -> the depths it trained."""
    made: dict[tuple[str, int], list[int]] = {}
    for depth in depths:
        made.setdefault((depth.block.arm, depth.block.seeds[0]), []).append(depth.depth)
    return made


# --- the rule ----------------------------------------------------------------------------------------------


def test_an_arm_ends_with_the_layer_that_gained_too_little():
    """That layer is trained and kept; no block of any seed has another."""
    found, depths, _ = trained(growing(seeds=30), gains(0.2, 0.1, 0.01, 0.2))
    assert places(depths) == {("greedy", start): [1, 2, 3, 4] for start in (0, 10, 20)}
    assert found.study.procedure("greedy").depths == (1, 2, 3, 4)


def test_growth_ends_at_depth_two_at_the_earliest_and_at_the_network_s_own_depth_at_the_latest():
    """The first layer has none below to gain on; with gains throughout all layers are trained."""
    assert places(trained(growing(), gains(0.0))[1]) == {("greedy", 0): [1, 2], ("greedy", 10): [1, 2]}
    assert places(trained(growing(), gains(0.1, 0.1, 0.1, 0.1))[1])["greedy", 10] == [1, 2, 3, 4, 5]
    assert places(trained(growing(depth=2), gains(0.1))[1])["greedy", 10] == [1, 2]


def test_the_first_seeds_train_depth_by_depth_before_all_others():
    """Every block of the first seeds has a depth before any has the next, and the others come after."""
    _, depths, met = trained(growing(seeds=30, first=20), gains(0.2, 0.0))
    order = [(depth.depth, depth.block.seeds[0]) for depth in depths]
    assert order == [(1, 0), (1, 10), (2, 0), (2, 10), (3, 0), (3, 10), (1, 20), (2, 20), (3, 20)]
    assert [(depth, stage) for depth, stage, _ in met[:4]] == [(1, "base")] * 2 + [(2, "add_layer")] * 2


def test_seeds_that_come_later_change_no_depth():
    """However they score, and however many they are, the first seeds alone settle what is trained."""

    def score(arm: str, depth: int, seeds: np.ndarray) -> np.ndarray:
        return np.where(seeds < 10, gains(0.2, 0.0)(arm, depth, seeds), depth / 10)

    few, many = (trained(growing(seeds=seeds), score) for seeds in (10, 100))
    assert places(few[1]) == {("greedy", 0): [1, 2, 3]}
    assert places(many[1]) == {("greedy", start): [1, 2, 3] for start in range(0, 100, 10)}
    assert many[2][: len(few[2])] == few[2], "the stages of ten seeds are the first of a hundred, by digest"


def test_arms_grow_by_themselves_and_controls_follow_theirs():
    """Each arm ends where its own scores say; controls, even those named before it, end where their arm does."""
    arms = {
        "first": {"control": "end_to_end", "of": "deep"},
        "greedy": "greedy",
        "deep": {"objective": "reconstruction", "fine_tune": TUNE},
        **{word: {"control": word, "of": "deep"} for word in ("random_frozen", "scratch", "permuted")},
    }

    def score(arm: str, depth: int, seeds: np.ndarray) -> np.ndarray:
        return gains(0.0)(arm, depth, seeds) if arm == "greedy" else gains(0.2, 0.2, 0.0)(arm, depth, seeds)

    found, depths, met = trained(growing(arms=arms), score)
    made = places(depths)
    assert {start: made["greedy", start] for start in (0, 10)} == {0: [1, 2], 10: [1, 2]}
    for arm in ("deep", "random_frozen", "scratch", "permuted"):
        assert made[arm, 0] == made[arm, 10] == [1, 2, 3, 4], arm
    assert made["first", 0] == [4]
    assert [depth.block.arm for depth in depths][:2] == ["greedy", "greedy"]
    assert found.steps([[block] for block in stages.blocks(found.study, "first", "")]) == 2
    assert {depth for depth, stage, _ in met if stage == "jointly"} == {1, 2, 3, 4}, "scratch at each, the other at 4"


def test_the_stages_are_those_of_a_study_with_so_many_layers():
    """What is trained has the digests of an ordinary study of that depth, so results are shared with it."""
    arms = {"greedy": {"fine_tune": TUNE}, "end_to_end": "end_to_end", "scratch": "scratch"}
    _, _, grown = trained(growing(arms=arms), gains(0.2, 0.0))
    plain = small(depth=3, seeds=20, data=DATA, arms=arms)
    _, _, met = trained(plain, gains())
    assert Counter(grown) == Counter(met)


def test_growth_ends_where_most_seeds_broke():
    """An arm whose first seeds have no validation score any more adds nothing to what is broken."""
    assert places(trained(growing(), gains(0.2, 0.2, 0.2, 0.2, broken_from=3))[1])["greedy", 10] == [1, 2, 3]


def test_fine_tuned_networks_are_what_the_rule_compares(monkeypatch: pytest.MonkeyPatch):
    """Where each depth is fine-tuned, the gain is that of the networks that the arm leaves."""
    arms = {"greedy": {"fine_tune": {**TUNE, "epochs": 8}}}
    study = growing(depth=3, seeds=10, arms=arms, worth=0.9)
    seen = []
    plain = layerwise.selection.gain
    monkeypatch.setattr(
        layerwise.selection, "gain", lambda metrics, *a, **k: seen.append(metrics) or plain(metrics, *a, **k)
    )
    result = layerwise.run(study)
    (metrics,) = seen
    left = metrics.pivot_table(index="seed", columns="depth", values="fine_tuned_validation_accuracy")
    found = plain(result.metrics(), "greedy", depth=2, first_seeds=10)
    assert found.mean == pytest.approx((left[2] - left[1]).mean())


def test_the_last_depth_is_known_to_be_the_last():
    """Models of the final depth are kept of whatever depth turns out to be that; so its block ends there."""
    _, depths, _ = trained(growing(seeds=20), gains(0.2, 0.0))
    assert [depth.depth == depth.block.procedure.depth for depth in depths] == [False, False, True] * 2


def test_what_follows_an_arm_that_failed_is_not_trained():
    """Without the first seeds' scores nobody knows how deep an arm is to be: its later blocks and its controls wait."""
    study = growing(arms=["greedy", "end_to_end"])
    steps, found = Scripted(gains(0.2)), Growing(study)
    steps.base = lambda *_: (_ for _ in ()).throw(RuntimeError("no more memory"))
    ((_, groups),) = stages.rounds(study, "da7a" * 8)
    with pytest.raises(RuntimeError, match="no more memory"):
        list(found.depths(groups[0], None, steps=steps))
    for blocks in groups[1:]:
        with pytest.raises(StudyError, match="not trained: its depth is that of greedy, whose first seeds failed"):
            list(found.depths(blocks, None, steps=steps))


def test_wide_layers_settle_in_blocks_of_one():
    """Where seeds train one at a time, any number of first seeds will do, in lockstep all the same."""
    network = {"layers": [{"units": 60_000, "repeat": 3}]}
    study = growing(seeds=3, first=2, network=network)
    assert len(study.blocks()[0]) == 1
    _, depths, _ = trained(study, gains(0.0))
    assert [(depth.depth, depth.block.seeds[0]) for depth in depths] == [(1, 0), (1, 1), (2, 0), (2, 1), (1, 2), (2, 2)]


def test_blocks_keep_their_size_where_the_wide_layer_is_never_reached():
    """The size of a block is that of the study as it was asked, or growth would change which seeds stand together."""
    network = {"layers": [{"units": 10, "repeat": 2}, {"units": 20_000}]}
    study = growing(seeds=3, first=2, network=network)
    assert len(study.grown({"greedy": 2}).blocks()[0]) == len(study.blocks()[0]) == 1


def test_a_study_without_the_rule_trains_as_ever():
    """Nothing is judged: blocks stand by themselves, in the order of arms, and train every depth."""
    study = small(depth=3, seeds=20, data=DATA, arms=["greedy", "end_to_end"])
    found, depths, _ = trained(study, gains(0.0))
    assert places(depths) == {("greedy", 0): [1, 2, 3], ("greedy", 10): [1, 2, 3],
                              ("end_to_end", 0): [3], ("end_to_end", 10): [3]}  # fmt: skip
    assert found.study is study


# --- in this process ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> layerwise.Result:
    """Two arms of which one ends at depth 2 and the other at 3, with bits and all."""
    return layerwise.run(ending())


def ending(**changes: Any) -> Study:
    """A study whose greedy arm ends at depth 3, and its autoencoder at depth 2."""
    training = {"epochs": 10, "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}}
    arms = ["greedy", "autoencoder", "end_to_end"]
    return growing(**{"name": "grows", "worth": 0.03, "seeds": 12, "training": training, "arms": arms, **changes})


def test_a_grown_study_has_the_bits_of_ordinary_ones(real: layerwise.Result):
    """Scores are exactly those of a study with as many layers and no rule."""
    metrics = real.metrics()
    assert metrics.groupby("arm")["depth"].agg(["min", "max"]).to_dict("index") == {
        "greedy": {"min": 1, "max": 3}, "autoencoder": {"min": 1, "max": 2}, "end_to_end": {"min": 3, "max": 3},
    }  # fmt: skip
    plain = layerwise.run(ending(depth=3, grow=None)).metrics()
    plain = plain[(plain["arm"] != "autoencoder") | (plain["depth"] < 3)]
    pd.testing.assert_frame_equal(metrics, plain.reset_index(drop=True), check_exact=True)


def test_the_result_knows_how_deep_it_grew(real: layerwise.Result):
    """Its study has the depths that were trained, and the identity of the one that was asked."""
    assert [real.study.procedure(arm).depth for arm in real.study.arms] == [3, 2, 3]
    assert real.study.digest() == ending().digest()
    assert as_grown(ending(), real.metrics()) == real.study


def test_why_growth_ended_is_said(real: layerwise.Result):
    """The answer has the depth, the gain with its limit, what it was held against, and the seeds that settled it."""
    first, second = growth_in_words(ending(), real.metrics())
    assert first.startswith(
        "greedy: grew to depth 3 of at most 5, settled by the first 10 seeds: its last layer gained -0.0100 in"
        " validation score (95 % upper limit +0.0190), less than the 0.03 that a layer is to be worth."
    )
    assert second.startswith("autoencoder: grew to depth 2 of at most 5")
    assert growth_in_words(small(), real.metrics()) == []


def test_growth_to_the_end_and_growth_cut_short_are_said():
    """An arm that became as deep as it may, and one whose seeds broke, have words of their own."""

    def words(score: Score) -> str:
        study = growing(depth=4)
        _, depths, _ = trained(study, score)
        (line,) = growth_in_words(study, pd.DataFrame(record for depth in depths for record in depth.records()))
        return line

    assert words(gains(0.2, 0.2, 0.2)) == (
        "greedy: grew to depth 4, the most it may; no layer was shown to gain less than 0.05."
    )
    assert words(gains(0.2, 0.2, broken_from=3)) == (
        "greedy: grew to depth 3 of at most 4, settled by the first 10 seeds: only 0 of these seeds are intact there."
    )


# --- claims ------------------------------------------------------------------------------------------------


def test_seeds_that_settled_a_depth_do_not_decide_claims_about_it(real: layerwise.Result):
    """A claim on the final depth is decided by the other seeds; one on a depth that is trained anyway, by all."""
    claims = {"final": FINAL, "second": {**FINAL, "depth": 2}, "slope": {"kind": "trend", "arm": "greedy",
              "metric": "train_accuracy", "direction": "up"}}  # fmt: skip
    study = ending(claims=claims)
    assert {name: held_out(study, claim) for name, claim in study.claims.items()} == {
        "final": 10, "second": 0, "slope": 10,
    }  # fmt: skip
    found = {one.claim: one for one in decide(study, real.metrics()).verdicts}
    assert [(one.evidence[0].depth, one.evidence[0].seeds) for one in found.values()] == [(3, 2), (2, 12), (1, 2)]
    assert "The first 10 seeds, which settled the depth, do not count." in found["final"].words
    assert "do not count" not in found["second"].words


def simulated(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    """A study of which no depth is better than another, and whose test scores are its validation scores."""

    def score(_arm: str, _depth: int, seeds: np.ndarray) -> np.ndarray:
        return rng.normal(0.8, 0.02, len(seeds))

    _, depths, _ = trained(study, score)
    metrics = pd.DataFrame(record for depth in depths for record in depth.records())
    return metrics.assign(test_accuracy=metrics["validation_accuracy"], diverged=False)


@pytest.mark.slow
def test_claims_about_a_settled_depth_keep_their_level():
    """Where nothing is true, 5 % of them are supported; with the seeds that settled the depth it would be far more."""
    claim = {"kind": "compare", "arm": "greedy", "metric": "test_accuracy", "below": {"depth": 1}}
    study = growing(depth=20, seeds=16, worth=0.002, claims={"worse": claim})
    rng, wrong, runs = np.random.default_rng(3), Counter(), 400
    for _ in range(runs):
        metrics = simulated(study, rng)
        every_seed = as_grown(study, metrics).model_copy(update={"grow": None})
        for counting, asked in (("others", study), ("all", every_seed)):
            wrong[counting] += decide(asked, metrics).all_supported
    error = np.sqrt(0.05 * 0.95 / runs)
    assert wrong["others"] / runs <= 0.05 + 2 * error
    assert wrong["all"] / runs > 0.05 + 3 * error


def test_what_the_other_seeds_can_never_decide_is_said_before_training():
    """The seeds that settle a depth are not counted among those that could decide a claim about it."""
    (line,) = undecidable(growing(seeds=14, claims={"final": FINAL}))
    assert "final cannot be supported or refuted by 14 seeds: the smallest possible p-value is 0.0625" in line
    assert line.endswith("use 15 seeds or more")
    assert undecidable(growing(seeds=14, claims={"second": {**FINAL, "depth": 2}})) == []


def test_a_pilot_has_the_seeds_that_settle_growth():
    """It trains as many as the rule wants, and no fewer than that can be asked for."""
    study = growing(seeds=40, first=20, claims={"final": FINAL})
    assert piloted(study, None).seeds == 20
    assert piloted(study, None).grow == study.grow
    assert piloted(growing(claims={"final": FINAL}), None).seeds == 10
    with pytest.raises(StudyError, match="--seeds 10: 20 seeds settle how deep arms grow; use 20 or more"):
        piloted(study, 10)


def test_a_look_comes_after_growth_is_settled():
    """A study that stops early settles depths in its first round."""
    study = growing(seeds=40, claims={"second": {**FINAL, "depth": 2}}, stop={"every": 10})
    _, depths, _ = trained(study, gains(0.2, 0.0))
    assert places(depths) == {("greedy", start): [1, 2, 3] for start in (0, 10, 20, 30)}


# --- refusals ----------------------------------------------------------------------------------------------

UNVALIDATED = {"source": "blobs", "samples": 120, "split": {"train": 70, "test": 50}}
TWO = {"a": "greedy", "b": {"scaling": "none"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no validation part": ({"data": UNVALIDATED}, "grow: layers are worth what they gain on validation; add data"),
    "unknown key": ({"grow": {"wroth": 1}}, "grow.wroth: unknown key; did you mean worth? Known: worth, seeds"),
    "no worth": ({"grow": {"seeds": 10}}, "grow.worth: is missing"),
    "worth nothing": ({"grow": {"worth": 0}}, "grow.worth: received 0; input should be greater than 0"),
    "one seed": ({"grow": {"worth": 1, "seeds": 1}}, "grow.seeds: received 1; input should be greater than or"),
    "part of a block": ({"grow": {"worth": 1, "seeds": 15}},
                        "grow.seeds: received 15; seeds train 10 at a time, so use a multiple of 10"),
    "more than all": ({"grow": {"worth": 1, "seeds": 30}},
                      "grow.seeds: received 30, but the study has 20 seeds; train at least as many"),
    "one layer": ({"depth": 1}, "grow: every arm has one hidden layer, so none can be added; give network.layers more"),
    "scored at its end": ({"arms": {"a": {"depths": "final"}}},
                          "grow: a is scored at depth 5 alone, and growing compares depths; leave arms.a.depths out"),
    "tuned at its end": ({"arms": {"a": {"fine_tune": {"epochs": 1}}}},
                         "grow: a is fine-tuned at its end alone, so its depths cannot be compared; say"
                         " arms.a.fine_tune.at: every_depth"),
    "control of other depth": (
        {"arms": {"a": {}, "c": {"control": "end_to_end", "network": {"layers": [{"units": 3}]}}}},
        "grow: c is to become as deep as a, which it controls for, but it has 1 hidden layers where a has 5"),
    "early look": ({"seeds": 40, "grow": {"worth": 1, "seeds": 20}, "stop": {"every": 10},
                    "claims": {"x": {**FINAL, "depth": 2}}},
                   "stop: the first look is at 10 seeds, but 20 settle how deep arms grow; look at 20 or later"),
    "claim beyond": ({"claims": {"x": {**FINAL, "depth": 3}}},
                     "claims.x: growth may end greedy at depth 2, and then depth: received 3; greedy is scored at depth"
                     " 1 to 2"),
    "claim on what may be the same": (
        {"claims": {"x": {**FINAL, "above": {"depth": 2}}}},
        "claims.x: growth may end greedy at depth 2, and then nothing to compare: both sides are greedy at depth 2"),
    "claim on arms that part": (
        {"arms": TWO, "claims": {"x": {**FINAL, "arm": "a", "above": "b"}}},
        "claims.x: growth may end a at depth 5, b at depth 2, and then above.depth: received 5; b is scored at depth"),
    "claim without other seeds": (
        {"seeds": 11, "claims": {"x": FINAL}},
        "claims.x: it is of a depth that the first 10 seeds settle, and the others decide it; train 12 seeds or more,"
        " or name depth 1 or 2"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_rule_that_cannot_be_followed_is_refused_in_one_line(mistake: str):
    """The refusal says what was received, what would do, and stands in one line."""
    changes, expected = REFUSED[mistake]
    with pytest.raises(StudyError) as caught:
        small(**{"depth": 5, "seeds": 20, "data": DATA, "grow": {"worth": 0.05}, **changes})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"claims": {"x": {**FINAL, "depth": [1, 2], "above": None, "below": {"arm": "other", "depth": 1}}}},
        {"claims": {"x": {**FINAL, "above": "end_to_end"}}},
        {"claims": {"x": {"kind": "bound", "arm": "greedy", "metric": "test_accuracy", "at_most": 0.84}}},
        {"arms": {"greedy": {"fine_tune": {**TUNE, "carry": True}}}},
        {"track": {"models": "final"}},
    ],
    ids=[
        "claims on what is trained anyway",
        "an arm and its control",
        "a bound at every depth",
        "carry",
        "final models",
    ],
)
def test_what_goes_with_the_rule(changes: dict[str, Any]):
    """Claims that hold wherever arms end, tuned layers that are built on, and models of the final depth are fine."""
    arms = {"greedy": "greedy", "other": {"scaling": "none"}, "end_to_end": "end_to_end"}
    study = growing(**{"arms": arms, **changes})
    assert study.grow is not None


def test_a_study_without_the_rule_keeps_its_identity():
    """Leaving `grow` out is the same as having none, and a rule is another study."""
    assert small(data=DATA, grow=None).digest() == small(data=DATA).digest()
    assert growing(depth=3, seeds=10).digest() != small(depth=3, seeds=10, data=DATA).digest()
    asked = growing()
    assert asked.grown({"greedy": 2}).canonical() == asked.canonical()
