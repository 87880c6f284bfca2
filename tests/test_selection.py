"""Selection by rule: the smallest depth that validation cannot tell from the best, and no path from a test score."""

from __future__ import annotations

import doctest
import inspect

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import layerwise.selection
from layerwise.selection import SEEN, chosen_depth, chosen_network, gain
from layerwise.statistics import t_interval
from layerwise.study import StudyError


def validated(scores: dict[int, list[float]], **columns) -> pd.DataFrame:
    """Metrics of one arm with these validation accuracies by depth."""
    rows = [
        {"arm": "greedy", "seed": seed, "depth": depth, "diverged": False, "collapsed": False, "validation_loss": 0.5,
         "validation_accuracy": score, "test_accuracy": 1 - score, "train_accuracy": 0.9}
        for depth, own in scores.items() for seed, score in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


def test_examples_print_what_they_say():
    """The examples in the docstrings are true."""
    assert not doctest.testmod(layerwise.selection).failed


def test_the_smallest_depth_within_one_standard_error():
    """Depth 3 is best; depth 2 falls short by .01 +- .01 and is taken, depth 1 by .02 +- .011 and is not."""
    best = [0.80, 0.82, 0.84, 0.86]
    metrics = validated({1: [0.80, 0.81, 0.82, 0.81], 2: [0.80, 0.82, 0.84, 0.82], 3: best})
    choice = chosen_depth(metrics, "greedy")
    assert (choice.depth, choice.best_depth, choice.seeds) == (2, 3, 4)
    assert (choice.shortfall, choice.error) == (pytest.approx(0.01), pytest.approx(0.01))
    assert choice.mean == pytest.approx(0.82)
    assert (choice.low, choice.high) == t_interval(np.array([0.80, 0.82, 0.84, 0.82]))


def test_pairing_decides_not_the_spread_over_seeds():
    """A small loss that every seed shows is told apart, however far the seeds lie from one another."""
    best = np.array([0.5, 0.7, 0.9])
    assert chosen_depth(validated({1: list(best - [0.010, 0.012, 0.011]), 2: list(best)}), "greedy").depth == 2


def test_the_fine_tuned_network_is_what_an_arm_leaves():
    """Where a depth was fine-tuned, its fine-tuned score counts, and elsewhere the plain one."""
    metrics = validated({1: [0.8, 0.81], 2: [0.9, 0.9]})
    tuned = metrics["depth"] == 2
    metrics["fine_tuned_collapsed"] = pd.array([pd.NA, pd.NA, False, False], dtype="boolean")
    metrics["fine_tuned_validation_loss"] = np.where(tuned, 0.5, np.nan)
    metrics["fine_tuned_validation_accuracy"] = np.where(tuned, 0.95, np.nan)
    assert chosen_depth(metrics, "greedy").mean == pytest.approx(0.95)
    metrics["fine_tuned_validation_loss"] = np.nan
    assert chosen_depth(metrics, "greedy").depth == 1


def test_a_depth_that_shares_no_seed_with_the_best_is_no_candidate():
    """Where other seeds are intact than at the best depth, nothing tells what the depth falls short by."""
    metrics = validated({1: [0.8, 0.8, 0.8, 0.8], 2: [0.8, 0.8, 0.8, 0.8], 3: [0.9, 0.9, 0.8, 0.8]})
    lost = ((metrics["depth"] == 1) & (metrics["seed"] < 2)) | ((metrics["depth"] == 3) & (metrics["seed"] > 1))
    metrics.loc[lost, "collapsed"] = True
    choice = chosen_depth(metrics, "greedy")
    assert (choice.depth, choice.best_depth, choice.seeds) == (3, 3, 2)


def test_broken_seeds_do_not_choose():
    """A depth at which most seeds broke is not kept for the few that did not, and a broken seed has no vote."""
    metrics = validated({1: [0.8, 0.8, 0.8], 2: [0.7, 0.9, 0.9]})
    assert chosen_depth(metrics, "greedy").depth == 1
    metrics.loc[(metrics["depth"] == 2) & (metrics["seed"] == 0), "validation_loss"] = np.nan
    assert chosen_depth(metrics, "greedy").depth == 2
    metrics.loc[(metrics["depth"] == 2) & (metrics["seed"] == 1), "collapsed"] = True
    assert chosen_depth(metrics, "greedy").depth == 1


class Untouchable:
    """A value that cannot be read as a number: whatever computes with it or compares it fails."""

    def _read(self, *_):
        raise AssertionError("a test score was read")

    __float__ = __int__ = __bool__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = _read
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __neg__ = __hash__ = _read


def test_numbers_choose_by_r2():
    """Where targets are numbers, the validation part's R2 chooses."""
    metrics = validated({1: [0.80, 0.81, 0.82], 2: [0.90, 0.91, 0.91]})
    numbers = metrics.rename(columns=lambda name: name.replace("accuracy", "r2"))
    assert chosen_depth(numbers, "greedy") == chosen_depth(metrics, "greedy")
    assert chosen_network(numbers, ["greedy"]) == chosen_network(metrics, ["greedy"])


def two_arms(**columns) -> pd.DataFrame:
    """Metrics of two arms, of which the second is better at the depth that each is taken at."""
    greedy = validated({1: [0.80, 0.82, 0.84], 2: [0.80, 0.82, 0.84]})
    deep = validated({1: [0.60, 0.61, 0.62], 2: [0.86, 0.88, 0.88], 3: [0.90, 0.86, 0.90]}).assign(arm="deep")
    return pd.concat([greedy, deep], ignore_index=True).assign(**columns)


def test_the_best_seed_of_the_best_arm_at_its_chosen_depth_is_chosen():
    """Arms are compared by the mean at the depth chosen for each; of equal seeds the lowest is taken."""
    chosen = chosen_network(two_arms(), ["greedy", "deep"])
    assert (chosen.place, chosen.score, chosen.intact) == ("deep, depth 2, seed 1", 0.88, 3)
    assert [(one.arm, one.depth) for one in chosen.choices] == [("greedy", 1), ("deep", 2)]
    assert chosen.choice == chosen_depth(two_arms(), "deep")
    assert chosen.choice.best_depth == 3


def test_of_equal_arms_the_first_is_chosen():
    """The order in which the study names its arms settles a tie."""
    same = validated({1: [0.8, 0.9, 0.7]})
    both = pd.concat([same.assign(arm="late"), same], ignore_index=True)
    assert chosen_network(both, ["greedy", "late"]).place == "greedy, depth 1, seed 1"
    assert chosen_network(both, ["late", "greedy"]).place == "late, depth 1, seed 1"


def test_a_broken_seed_is_not_chosen():
    """The seed with the best score is passed over where it collapsed or its validation loss is no number."""
    metrics = validated({1: [0.7, 0.99, 0.98, 0.8]})
    metrics.loc[1, "collapsed"], metrics.loc[2, "validation_loss"] = True, np.inf
    chosen = chosen_network(metrics, ["greedy"])
    assert (chosen.seed, chosen.intact) == (3, 2)


def test_an_arm_without_enough_intact_seeds_is_left_out():
    """The others are chosen among; where there is none, the refusal is that of the first arm."""
    metrics = two_arms()
    metrics.loc[metrics["arm"] == "deep", "collapsed"] = True
    assert chosen_network(metrics, ["deep", "greedy"]).place == "greedy, depth 1, seed 2"
    with pytest.raises(StudyError, match="deep: no depth has two intact seeds"):
        chosen_network(two_arms(collapsed=True), ["deep", "greedy"])


@pytest.mark.parametrize("hidden", ["nan", "reversed", "untouchable"])
def test_no_choice_reads_a_test_score(hidden: str):
    """The choice is the same whatever stands in the columns of test scores, and in the outcomes that look at them."""
    plain = validated({1: [0.80, 0.79, 0.81], 2: [0.83, 0.82, 0.85], 3: [0.82, 0.83, 0.84]})
    veiled = plain.copy()
    for name in ("test_accuracy", "diverged"):
        column = {
            "nan": np.nan,
            "reversed": plain["test_accuracy"].to_numpy()[::-1],
            "untouchable": [Untouchable() for _ in range(len(plain))],
        }[hidden]
        veiled[name] = column
    assert chosen_depth(veiled, "greedy") == chosen_depth(plain, "greedy")
    assert chosen_network(veiled, ["greedy"]) == chosen_network(plain, ["greedy"])
    assert gain(veiled, "greedy", depth=2, first_seeds=3) == gain(plain, "greedy", depth=2, first_seeds=3)


def test_nothing_in_the_module_names_a_test_score():
    """No function that selects has the means to ask for a test score, or for any score of another part."""
    assert not [name for name in SEEN if "test" in name or "train" in name]
    public = [value for name, value in vars(layerwise.selection).items() if inspect.isfunction(value)]
    readers = [value for value in public if 'metrics["' in inspect.getsource(value)]
    assert {reader.__name__ for reader in readers} <= {"_validation_scores", "gain"}
    assert not [value for value in public if "test_" in inspect.getsource(value)]


def test_a_gain_is_over_where_it_is_shown_to_be_less_than_a_layer_is_worth():
    """The rule looks at the one-sided 95 % upper t limit of the mean paired gain, not at the mean."""
    metrics = validated({1: [0.80, 0.79, 0.81], 2: [0.83, 0.82, 0.85]})
    found = gain(metrics, "greedy", depth=2, first_seeds=3)
    gains = np.array([0.03, 0.03, 0.04])
    limit = gains.mean() + stats.t.ppf(0.95, 2) * gains.std(ddof=1) / np.sqrt(3)
    assert (found.mean, found.limit, found.seeds) == (pytest.approx(gains.mean()), pytest.approx(limit), 3)
    assert not found.is_over(limit - 1e-6)
    assert found.is_over(limit + 1e-6)


def test_growth_is_over_where_most_seeds_broke():
    """No layer is put on networks of which more than half have broken, however well the others do."""
    metrics = validated({1: [0.5, 0.5, 0.5, 0.5], 2: [0.8, 0.9, 0.8, 0.9]})
    metrics.loc[(metrics["depth"] == 2) & (metrics["seed"] < 2), "validation_loss"] = np.nan
    found = gain(metrics, "greedy", depth=2, first_seeds=4)
    assert (found.first, found.intact, found.is_over(0.01)) == (4, 2, False)
    metrics.loc[(metrics["depth"] == 2) & (metrics["seed"] == 2), "collapsed"] = True
    found = gain(metrics, "greedy", depth=2, first_seeds=4)
    assert (found.intact, found.is_small(0.01), found.is_over(0.01)) == (1, False, True)


def test_seeds_that_come_later_do_not_call_a_gain_over():
    """Whether a further layer is worth it is settled by the first block of seeds."""
    metrics = validated({1: [0.80, 0.79, 0.81, 0.1], 2: [0.83, 0.82, 0.85, 0.9]})
    assert gain(metrics, "greedy", depth=2, first_seeds=3).is_over(0.06)
    assert not gain(metrics, "greedy", depth=2, first_seeds=4).is_over(0.06)


@pytest.mark.parametrize(
    ("metrics", "arm", "expected"),
    [
        (
            validated({1: [0.8, 0.8]}).drop(columns=["validation_accuracy", "validation_loss"]),
            "greedy",
            "no validation",
        ),
        (validated({1: [0.8, 0.8]}, validation_accuracy=np.nan), "greedy", "nothing is chosen by test scores"),
        (validated({1: [0.8, 0.8]}), "gredy", "received the arm 'gredy'; known: greedy"),
        (validated({1: [0.8]}), "greedy", "no depth has two intact seeds"),
        (validated({1: [0.8, 0.8]}, validation_loss=np.nan), "greedy", "no depth has two intact seeds"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_one_line(metrics: pd.DataFrame, arm: str, expected: str):
    """Without a validation part, the arm or enough intact seeds, the refusal says so."""
    with pytest.raises(StudyError, match=expected) as caught:
        chosen_depth(metrics, arm)
    assert "\n" not in str(caught.value)


def test_a_gain_needs_both_depths():
    """Asking for the gain of a depth that was not trained is refused."""
    with pytest.raises(StudyError, match="no validation scores at depth 2 and 3"):
        gain(validated({1: [0.8, 0.8], 2: [0.8, 0.8]}), "greedy", depth=3, first_seeds=2)
