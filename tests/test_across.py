"""Runs side by side: paired by the seeds they share, what was asked differently, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from layerwise import statistics
from layerwise.across import RunScores, compare_runs
from layerwise.report import across_page, html, markdown
from layerwise.study import StudyError

OLD, NEW = [0.70, 0.72, 0.71, 0.69], [0.74, 0.75, 0.73, 0.74, 0.99]


def run(name: str, arms: dict[str, list[float]], *, first_seed: int = 0, digest: str = "d1", **settings: str):
    """A run whose arms have these test accuracies at depth 1, and .1 more at depth 2."""
    rows = [
        {"arm": arm, "seed": first_seed + seed, "depth": depth, "diverged": False, "collapsed": False,
         "test_accuracy": score + (depth - 1) / 10, "train_accuracy": 0.9}
        for arm, scores in arms.items() for depth in (1, 2) for seed, score in enumerate(scores)
    ]  # fmt: skip
    said = {"epochs": "2", "data.split.train": "70"} | {key.replace("_", "."): value for key, value in settings.items()}
    return RunScores(name, name, dict.fromkeys(arms, said), pd.DataFrame(rows), digest, {"keras": "3.15.1"})


def test_an_arm_is_paired_by_the_seeds_that_both_runs_have():
    """Four seeds of five are shared; the difference is each seed's own, other minus first, at every shared depth."""
    found = compare_runs([run("old", {"greedy": OLD}), run("new", {"greedy": NEW})])
    own = np.array(NEW[:4]) - np.array(OLD)
    assert found.seeds == (4,)
    assert [one.depth for one in found.tested] == [1, 2]
    for one in found.tested:
        assert (one.arm, one.minus, one.values.seeds) == ("new/greedy", "old/greedy", 4)
        assert one.values.mean == pytest.approx(own.mean())
        assert (one.values.ci_low, one.values.ci_high) == pytest.approx(statistics.t_interval(own))
        assert one.sign_flip_p == pytest.approx(2 / 2**4)


def test_p_values_are_adjusted_over_all_that_is_tested():
    """Two depths of two arms are four tests on the test part: the smallest p-value counts four times."""
    found = compare_runs([run("old", {"a": OLD, "b": OLD}), run("new", {"a": NEW, "b": NEW})])
    assert len(found.tested) == 4
    assert found.adjusted == pytest.approx(tuple(statistics.holm(np.array([one.sign_flip_p for one in found.tested]))))
    assert found.adjusted[0] == pytest.approx(4 * 2 / 2**4)


def test_three_runs_are_each_held_against_the_first():
    """The first run is what the others are measured by."""
    found = compare_runs([run(name, {"greedy": OLD}) for name in ("one", "two", "three")])
    assert [(one.arm, one.minus) for one in found.tested] == [
        *[("two/greedy", "one/greedy")] * 2,
        *[("three/greedy", "one/greedy")] * 2,
    ]


def test_single_arms_go_together_whatever_they_are_called():
    """Of two runs with one arm each, those are compared; of several, only those of the same name."""
    lone = compare_runs([run("old", {"greedy": OLD}), run("new", {"denoising": OLD})])
    assert {(one.arm, one.minus) for one in lone.tested} == {("new/denoising", "old/greedy")}
    some = compare_runs([run("old", {"a": OLD, "b": OLD}), run("new", {"b": OLD, "c": OLD})])
    assert {one.arm for one in some.tested} == {"new/b"}
    assert some.arms_apart == (("new", ("c",)), ("old", ("a",)))


def test_what_was_asked_differently_is_listed_arm_by_arm():
    """Each setting that the two arms do not share, with both values; one that is not said is a dash."""
    found = compare_runs([run("old", {"greedy": OLD}, noise="0.25"), run("new", {"greedy": OLD}, epochs="3")])
    assert found.settings == (
        ("new/greedy", "old/greedy", "epochs", "3", "2"),
        ("new/greedy", "old/greedy", "noise", "-", "0.25"),
    )
    assert found.circumstances == ()


def test_training_scores_of_other_labelled_rows_are_not_paired():
    """Arms with other labels train on other rows: only the parts that both are scored on alike are compared."""
    found = compare_runs([run("old", {"greedy": OLD}, labels="30"), run("new", {"greedy": OLD}, labels="100")])
    assert {one.metric for one in found.differences} == {"test_accuracy"}
    alike = compare_runs([run("old", {"greedy": OLD}, labels="30"), run("new", {"greedy": OLD}, labels="30")])
    assert {one.metric for one in alike.differences} == {"train_accuracy", "test_accuracy"}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "received 1 run; comparing takes two or more"),
        ([run("old", {"greedy": OLD})], "received old twice; name runs, or arms of one, that differ"),
        (
            [run("new", {"greedy": OLD}, digest="d2")],
            r"new has other data than old \(d2 and d1\); scores on different rows cannot be paired",
        ),
        (
            [run("new", {"greedy": OLD}, data_split_train="60")],
            r"new divides its data otherwise than old \(data\.split\.train: 60 and 70\)",
        ),
        (
            [run("new", {"a": OLD, "b": OLD})],
            r"new shares no arm with old .* one arm of each, as in old/greedy new/a",
        ),
        ([run("new", {"greedy": OLD}, first_seed=10)], "new shares no seed with old; they are paired by seed"),
    ],
)
def test_what_cannot_be_paired_is_refused_in_one_line(others: list[RunScores], message: str):
    """Too few runs, one twice, other data or division, no arm or no seed in common."""
    with pytest.raises(StudyError, match=message) as refused:
        compare_runs([run("old", {"greedy": OLD}), *others])
    assert "\n" not in str(refused.value)


def test_a_run_whose_seeds_all_diverged_is_compared_without_numbers():
    """No seed is intact in both: no mean, no p-value, and the counts say why."""
    broken = run("new", {"greedy": OLD})
    broken.metrics["diverged"] = True
    (one, _) = compare_runs([run("old", {"greedy": OLD}), broken]).tested
    assert (one.values.seeds, one.broken, one.other_broken) == (0, 4, 0)
    assert np.isnan(one.values.mean)
    assert np.isnan(one.sign_flip_p)


def test_the_page_says_what_was_found_and_what_not_to_make_of_it():
    """Each pair at the last shared depth in words, with n, interval and both p-values; settings; and the caveats."""
    found = compare_runs([run("old", {"a": OLD, "b": OLD}, noise="<b>"), run("new", {"a": NEW})])
    page = across_page(found)
    text = markdown(page)
    assert text.startswith("# new against old\n")
    assert (
        "- **new/a minus old/a** at depth 2: +0.0350 (95 % interval +0.0145 to +0.0555) over 4 seeds; p .1250, .2500"
        " after Holm."
    ) in text
    assert "Without a counterpart, and left out: b in old." in text
    assert "| new/a | old/a | noise | - | &lt;b&gt; |" in text
    assert "Explored, not claimed." in text
    assert "seeds that one run alone has are left out" in text
    drawn = html(page)
    assert drawn.count("<svg") == 1
    assert "<b>" not in drawn
    assert html(across_page(found)) == drawn


def test_the_page_of_runs_that_broke_shows_counts_in_place_of_numbers():
    """Without an intact pair there is no figure and no mean; McNemar's test says how far the runs differ."""
    broken = run("new", {"greedy": OLD})
    broken.metrics["diverged"] = True
    text = markdown(across_page(compare_runs([run("old", {"greedy": OLD}), broken])))
    assert "at depth 2: no seed is intact in both, so there is nothing to compare." in text
    assert "| new/greedy minus old/greedy | 1 | 4 | 0 | .1250 |" in text
