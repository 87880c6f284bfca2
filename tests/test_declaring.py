"""The network that a study declares: it is one that will be there, and declaring it changes no other identity."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import layerwise.study.declaring
from flows.showing import show_study
from layerwise import stages
from layerwise.identity import greedy_digest
from layerwise.study import DeclaredNetwork, StudyError, declared_network
from tests.studies import small

VALIDATED = {"source": "blobs", "samples": 120, "split": {"train": 60, "validation": 20, "test": 40}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no depth": ({"declared": {}}, "declared.depth: is missing"),
    "depth 0": ({"declared": {"depth": 0}}, "declared.depth: received 0; input should be greater than or equal to 1"),
    "too deep": ({"declared": {"depth": 4}}, "declared.depth: received 4; greedy leaves a network at depth 1, 2, 3"),
    "not scored": ({"arms": ["greedy", "end_to_end"], "declared": {"arm": "end_to_end", "depth": 1}},
                   "declared.depth: received 1; end_to_end leaves a network at depth 3"),
    "which arm": ({"arms": ["greedy", "end_to_end"], "declared": {"depth": 3}},
                  "declared: there are 2 arms; say which in declared.arm: greedy, end_to_end"),
    "no such arm": ({"declared": {"arm": "gredy", "depth": 3}}, "declared.arm: received 'gredy'; did you mean greedy?"),
    "no such seed": ({"declared": {"depth": 3, "seed": 3}}, "declared.seed: received 3; expected a seed from 0 to 2"),
    "negative seed": ({"declared": {"depth": 3, "seed": -1}}, "declared.seed: received -1; input should be greater"),
    "a key too many": ({"declared": {"deph": 3}}, "declared.deph: unknown key; did you mean depth?"),
    "validation": ({"data": VALIDATED, "declared": {"depth": 3}},
                   "declared: the validation part chooses the network; leave declared out, or split.validation"),
    "no models": ({"track": {"models": "none"}, "declared": {"depth": 3}},
                  "declared: track.models: none keeps no model of greedy at depth 3; say all"),
    "another depth's": ({"track": {"models": "final"}, "declared": {"depth": 2}},
                        "declared: track.models: final keeps no model of greedy at depth 2; say all"),
    "may not train": ({"seeds": 30, "stop": {"every": 10}, "declared": {"depth": 3, "seed": 10}, "claims": {
        "rises": {"kind": "trend", "arm": "greedy", "metric": "train_accuracy", "direction": "up"}}},
                      "declared.seed: received 10; expected a seed from 0 to 9"),
}  # fmt: skip


def test_examples_print_what_they_say():
    """The examples in the docstrings are true."""
    assert not doctest.testmod(layerwise.study.declaring).failed


@pytest.mark.parametrize("case", REFUSED)
def test_what_will_not_be_there_is_refused_in_one_line(case: str):
    """A network that no stage leaves, that has no model, or that validation chooses: its place, and what would do."""
    changes, expected = REFUSED[case]
    with pytest.raises(StudyError) as caught:
        small(**changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_the_only_arm_and_the_first_seed():
    """Depth alone suffices for a study of one arm; with models of the last depth only, that depth can be declared."""
    assert declared_network(small()) is None
    assert declared_network(small(declared={"depth": 2})) == DeclaredNetwork("greedy", 2, 0)
    final = small(track={"models": "final"}, declared={"depth": 3, "seed": 2})
    found = declared_network(final)
    assert found is not None
    assert found.place == "greedy, depth 3, seed 2"


def test_declaring_is_part_of_the_run_and_of_no_stage():
    """The run key is another one; the digests of stages, and of a study that declares nothing, are as they were."""
    plain, declares = small(), small(declared={"depth": 2})
    assert plain.digest() != declares.digest()
    assert "declared" not in plain.canonical()
    (one,), (other,) = (list(stages.blocks(study, "greedy", "da7a")) for study in (plain, declares))
    assert greedy_digest(one, 1, "") == greedy_digest(other, 1, "")


def test_show_says_what_will_be_registered(root, capsys: pytest.CaptureFixture[str]):
    """`show` names the declared network, and nothing where there is none."""
    show_study(small(declared={"depth": 2}), root)
    assert "registers greedy, depth 2, seed 0, as declared" in capsys.readouterr().out.splitlines()
    show_study(small(), root)
    assert "registers" not in capsys.readouterr().out
