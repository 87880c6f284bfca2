"""Runs that judge themselves on a real store: repeats of one small study, and changes that must be found."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType

from flows.judging import accept_command, in_markdown, judge_run
from flows.locks import claim
from flows.slot import run_slot, slot_lock
from layerwise import pretraining, streams
from layerwise.study import Study, parse
from tasks.tracking.accepted import ACCEPTED, accepted_run
from tasks.tracking.answers import stored_answer
from tests.studies import small
from tests.test_flow import Lab, fits, lab  # noqa: F401 - the fixtures


@pytest.fixture(scope="module")
def asked() -> Study:
    """A study that says what it expects."""
    claims = {"possible": {"kind": "bound", "arm": "greedy", "metric": "test_accuracy", "at_most": 1.0}}
    return small(name="judged", depth=2, seeds=3, track={"models": "none"}, claims=claims)


@pytest.fixture
def slot(lab: Lab, asked: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:  # noqa: F811
    """Runs a repeat as a new process would, with no features left over; returns its study run."""

    def run(repeat: str) -> Run:
        monkeypatch.setattr(pretraining, "_FEATURES", type(pretraining._FEATURES)())
        assert lab.run(asked, repeat).failures == {}
        (found,) = lab.runs(asked, "study", repeat)
        return found

    return run


@pytest.fixture(scope="module")
def first_run(lab: Lab, asked: Study) -> Run:  # noqa: F811
    """A run that others are judged against."""
    assert lab.run(asked, "first").failures == {}
    (found,) = lab.runs(asked, "study", "first")
    return found


@pytest.fixture
def first(lab: Lab, first_run: Run) -> Iterator[Run]:  # noqa: F811
    """The same, accepted whatever other tests did."""
    lab.client.set_experiment_tag(first_run.info.experiment_id, ACCEPTED, first_run.info.run_id)
    yield first_run
    lab.client.set_experiment_tag(first_run.info.experiment_id, ACCEPTED, first_run.info.run_id)


def retag(lab: Lab, run: Run, **tags: str) -> None:  # noqa: F811
    """Have a run say other versions than it was made with."""
    for name, value in tags.items():
        lab.client.set_tag(run.info.run_id, f"layerwise.{name.replace('__', '.')}", value)


def test_the_first_run_is_accepted_and_the_next_is_judged_by_bits(
    lab: Lab,  # noqa: F811
    asked: Study,
    slot: Callable[[str], Run],
) -> None:
    """With nothing accepted a run is accepted itself, and says so; a second one has the same bits."""
    one = slot("one")
    assert accepted_run(lab.client, one.info.experiment_id) is None, "another test came first"
    found = judge_run(lab.client, one)
    assert (found.verdict, found.regressed) == ("FIRST", False)
    assert found.words.startswith("nothing had been accepted, so it is the accepted run now")
    two = slot("two")
    found = judge_run(lab.client, two)
    assert (found.verdict, found.regressed, found.findings) == ("EXACT", False, ())
    (after,) = lab.runs(asked, "study", "two")
    tags = after.data.tags
    assert (tags["layerwise.judged"], tags["layerwise.judged_against"]) == ("EXACT", one.info.run_id)
    assert tags["layerwise.judged_words"] == found.words
    (record,) = lab.client.list_artifacts(two.info.run_id, "judgements")
    kept = json.loads(lab.artifact(two, record.path).read_text())
    assert (kept["verdict"], kept["against"], kept["at"]) == ("EXACT", one.info.run_id, tags["layerwise.judged_at"])
    assert stored_answer(lab.client, after).missing == ()
    text = in_markdown(lab.client, two, found)
    assert text.startswith("## judged:two: EXACT\n\nAll ")
    assert f"Judged against judged:one, run `{one.info.run_id}`." in text


def shifted(seed: int, stream: str, stage: str = "", depth: int = 0) -> np.random.Generator:
    """The streams with one of them shifted: what an added layer's initial weights are drawn from."""
    moved = seed + 1 if (stream, stage) == ("init", "add_layer") else seed
    key = hashlib.sha256(f"{moved}/{stream}/{stage}/{depth}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(key, "big"))))


@pytest.mark.slow
def test_a_shifted_stream_is_named_by_its_stage(
    lab: Lab,  # noqa: F811
    first: Run,
    slot: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shifting the seeds of one stream is found, and the stage that draws from it is the first that is named."""
    monkeypatch.setattr(streams, "generator", shifted)
    found = judge_run(lab.client, slot("shifted"))
    assert (found.verdict, found.regressed) == ("CHANGED", True)
    assert "first in add_layer at depth 2 (greedy, seeds 0-2: content " in found.words
    assert not any(", depth 1: " in line for line in found.findings)
    text = in_markdown(lab.client, lab.client.get_run(first.info.run_id), found)
    assert "### Findings" in text


@pytest.mark.slow
def test_other_versions_are_judged_by_pairs(
    lab: Lab,  # noqa: F811
    first: Run,
    slot: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where versions differ, equal bits still suffice; other bits are tested by pairs of seeds."""
    equal = slot("equal")
    retag(lab, equal, version__numpy="9.9.9")
    assert judge_run(lab.client, lab.client.get_run(equal.info.run_id)).verdict == "EXACT"
    with monkeypatch.context() as patched:
        patched.setattr(streams, "generator", shifted)
        other = slot("other")
    assert judge_run(lab.client, other).verdict == "CHANGED"
    retag(lab, other, version__numpy="9.9.9")
    found = judge_run(lab.client, lab.client.get_run(other.info.run_id))
    assert (found.verdict, found.regressed) == ("NO WORSE", False)
    assert found.words.startswith("none of 2 paired differences over 3 seeds shows a fall in test accuracy")
    assert accepted_run(lab.client, first.info.experiment_id).info.run_id == first.info.run_id


@pytest.mark.slow
def test_another_form_of_the_study_is_not_passed(lab: Lab, first: Run, asked: Study) -> None:  # noqa: F811
    """A study that was changed cannot be judged by the old one, and says how to accept it."""
    other = asked.model_copy(update={"seeds": 2})
    lab.run(other, "fewer")
    (run,) = lab.runs(other, "study", "fewer")
    found = judge_run(lab.client, run)
    assert (found.verdict, found.regressed) == ("NOT COMPARABLE", True)
    assert found.words == (
        "judged:first is another form of the study, or on other data; if that is meant, layerwise accept judged:fewer"
    )
    assert accepted_run(lab.client, first.info.experiment_id).info.run_id == first.info.run_id


def test_accept_moves_the_mark(
    lab: Lab,  # noqa: F811
    first: Run,
    slot: Callable[[str], Run],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exactly one run is accepted; the command names the one before; a deleted one is missed, and replaced."""
    second = slot("second")
    assert accept_command("judged:second", lab.root) == 0
    assert capsys.readouterr().out == (
        "Accepted: judged:second, in the place of judged:first. Scheduled runs of it are judged against this one.\n"
    )
    experiment = second.info.experiment_id
    assert lab.client.get_experiment(experiment).tags[ACCEPTED] == second.info.run_id
    assert "layerwise.accepted_at" in lab.client.get_run(second.info.run_id).data.tags
    lab.client.delete_run(second.info.run_id)
    found = judge_run(lab.client, first)
    assert (found.verdict, found.regressed) == ("NOT COMPARABLE", True)
    assert (
        found.words == f"the accepted run {second.info.run_id} has been deleted; accept another: layerwise accept RUN."
    )
    assert accept_command(first.info.run_id, lab.root) == 0
    lab.client.restore_run(second.info.run_id)
    assert accepted_run(lab.client, experiment).info.run_id == first.info.run_id


def test_what_is_not_finished_is_not_accepted(
    lab: Lab,  # noqa: F811
    first: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line each for a run that is not finished, and for one that is not there; the mark stays."""
    lab.client.update_run(first.info.run_id, status="FAILED")
    try:
        assert accept_command(first.info.run_id, lab.root) == 2
    finally:
        lab.client.update_run(first.info.run_id, status="FINISHED")
    assert capsys.readouterr().err == (
        f"layerwise: run {first.info.run_id} of judged:first is FAILED, and only a finished run can be accepted; finish"
        " it with `layerwise run`.\n"
    )
    assert accept_command("judged:nobody", lab.root) == 2
    assert capsys.readouterr().err.startswith("layerwise: no finished run of 'judged:nobody' is tracked here")


# --- slots --------------------------------------------------------------------------------------------------


def ended(asked: Study, repeat: str, **options: Any) -> State:
    """How a slot ends that runs in this process."""
    return run_slot(asked, repeat=repeat, return_state=True, **options)


@pytest.mark.slow
def test_a_slot_ends_as_it_is_judged(
    lab: Lab,  # noqa: F811
    first: Run,
    asked: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot trains a repeat of its own, judges it, and fails in one line where it is not as accepted."""
    monkeypatch.setattr(pretraining, "_FEATURES", type(pretraining._FEATURES)())
    before = set(lab.written())
    good = ended(asked, "good")
    assert (good.name, good.message.partition(":")[0]) == ("Completed", "EXACT")
    assert len(set(lab.written()) - before) == 4, "two stages and their scores, stored under digests of their own"
    (run,) = lab.runs(asked, "study", "good")
    assert (run.info.status, run.data.tags["layerwise.judged_against"]) == ("FINISHED", first.info.run_id)
    monkeypatch.setattr(streams, "generator", shifted)
    monkeypatch.setattr(pretraining, "_FEATURES", type(pretraining._FEATURES)())
    bad = ended(asked, "bad")
    assert (bad.name, "\n" in bad.message) == ("Failed", False)
    assert "first in add_layer at depth 2" in bad.message
    with get_client(sync_client=True) as client:
        (artifact,) = [one for one in client.read_artifacts() if one.description == bad.message]
    assert artifact.data.startswith("## judged:bad: CHANGED")


@pytest.mark.usefixtures("first")
def test_a_slot_that_ran_is_not_trained_again(lab: Lab, asked: Study, fits: list[str]) -> None:  # noqa: F811
    """Retried, a slot that had ended trains nothing, and is judged again."""
    written = lab.written()
    again = ended(asked, "first")
    assert (again.name, again.message.partition(":")[0], fits) == ("Completed", "EXACT", [])
    assert lab.written() == written


def test_a_slot_of_a_study_at_work_is_skipped(lab: Lab, asked: Study) -> None:  # noqa: F811
    """However another run of the study came about, the slot gives way, names who is at work, and has not failed."""
    with claim(lab.root, slot_lock(asked)):
        found = ended(asked, "second at once")
    assert (found.type, found.name) == (StateType.CANCELLED, "Skipped")
    assert re.fullmatch(r"judged: Process \d+ \(since .*\) works on this run; wait for it, or stop it\.", found.message)
    assert lab.runs(asked, "study", "second at once") == []


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_required_claims_fail_a_slot(asked: Study) -> None:
    """A slot whose claims are not supported fails if they are required, and says which."""
    claims = {"rises": {"kind": "trend", "arm": "greedy", "metric": "train_accuracy", "direction": "up"}}
    doubtful = parse({**asked.canonical(), "name": "doubtful", "claims": claims})
    assert ended(doubtful, "free").name == "Completed"
    found = ended(doubtful, "strict", require_claims=True)
    assert found.name == "Failed"
    assert re.fullmatch(r"claim rises is (undecided|refuted)", found.message)
