"""Damaged files: every one is found, said once, and made good; what cannot be found in a database is known."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import environment
from tasks.tracking.answers import finished_study_run
from tasks.tracking.manifest import check_tree
from tasks.tracking.store import open_store
from tests.chaos import roots, state, trials
from tests.chaos.crashing import Stage
from tests.chaos.damage import KINDS, damage
from tests.chaos.scenes import Scene, copy_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

SET_ASIDE = re.compile(r"Result \w{32} is set aside and will be computed again: it")


def files(root: Path, pattern: str) -> list[Path]:
    """Files of a root, in an order that does not depend on ids."""
    return sorted(
        (file for file in root.glob(pattern) if file.is_file()), key=lambda file: (file.name, file.read_bytes())
    )


def is_data(file: Path) -> bool:
    return b"RawTable" in file.read_bytes() or b'\\"name\\": \\"Data\\"' in file.read_bytes()


@pytest.mark.parametrize("of", ["data", "stages"])
def test_a_damaged_result_is_computed_again(stage: Stage, scene: Scene, tmp_path: Path, of: str) -> None:
    """A damaged result of a study that is not finished is said once, computed again, and changes nothing."""
    failures, chosen = [], [(number, kind) for number in trials.numbers(few=1) for kind in KINDS]
    for number, kind in chosen:
        root, chance = copy_of(scene.ready, tmp_path / f"{number}-{kind}"), trials.chance(f"results {of}", number)
        results = files(root, ".layerwise/results/*")
        data = [file for file in results if is_data(file)]
        assert len(data) == 1
        done = damage(
            chance.choice(data if of == "data" else [file for file in results if file not in data]), kind, chance
        )
        status = stage.play(root)
        out, err = stage.said()
        reports = [line for line in out.splitlines() if SET_ASIDE.match(line)]
        differing = [
            line for line in state.differences(scene.state, state.of(root)) if not line.startswith("leftovers")
        ]
        left = [name for name in state.leftovers(root) if not name.endswith(".damaged")]
        failures += failed(
            done, (status, err, len(reports), left, differing) == (0, "", 1, [], []), out + err, differing
        )
        shutil.rmtree(root)
    trials.count(f"damaged results ({of})", failures, len(chosen))


def failed(what: str, succeeded: bool, *context: object) -> list[str]:
    """A line for a trial that failed; none for one that succeeded."""
    print(f"{what}: {'found and made good' if succeeded else 'FAILED'}")
    return [] if succeeded else [f"{what}: {context}"]


STORED = {
    "weights": "mlruns/artifacts/two-arms/models/*/artifacts/data/model.keras",
    "model descriptions": "mlruns/artifacts/two-arms/models/*/artifacts/MLmodel",
    "requirements": "mlruns/artifacts/two-arms/models/*/artifacts/*.*",
    "tables": "mlruns/artifacts/two-arms/*/artifacts/*.csv",
    "verdicts": "mlruns/artifacts/two-arms/*/artifacts/verdicts.json",
    "manifests": "mlruns/artifacts/two-arms/*/artifacts/manifest.json",
    "figures": "mlruns/artifacts/two-arms/*/artifacts/**/*.[ps][nv]g",
}
"""Kinds of files that a finished study has in MLflow."""


@pytest.fixture(scope="module")
def finished(stage: Stage, scene: Scene) -> Callable[[Path], Path]:
    """Makes finished studies: MLflow keeps absolute places, so that each is made in its own."""

    def made(root: Path) -> Path:
        copy_of(scene.ready, root)
        assert stage.play(root) == 0, stage.said()
        return root

    return made


@pytest.mark.parametrize("kind", STORED)
def test_a_damaged_file_of_a_finished_study_is_written_again(
    stage: Stage, scene: Scene, finished: Callable[[Path], Path], tmp_path: Path, kind: str
) -> None:
    """A damaged file is said by the next run in one line, written again, and the run after that has nothing to say."""
    root, failures, total = finished(tmp_path / "root"), [], 0
    for number in trials.numbers(few=1):
        for how in KINDS:
            chance, total = trials.chance(f"{kind} {how}", number), total + 1
            done = damage(chance.choice(files(root, STORED[kind])), how, chance)
            status = stage.play(root)
            out, err = stage.said()
            said = [line for line in out.splitlines() if "is finished, but not as it was published: 1 file" in line]
            differing = state.differences(scene.state, state.of(root))
            again = stage.play(root)
            whole = (status, err, len(said), differing, again) == (0, "", 1, [], 0)
            failures += failed(done, whole and "was finished before" in stage.said()[0], out + err, differing)
    trials.count(f"damaged {kind}", failures, total)


def test_a_byte_anywhere_in_a_file_counts(finished: Callable[[Path], Path], tmp_path: Path) -> None:
    """Of each kind of file, a change of one byte, in forty places, is found, and no other file is accused."""
    root = finished(tmp_path / "root")
    client, total = open_store(root), 0
    for kind, pattern in STORED.items():
        file = files(root, pattern)[0]
        whole = file.read_bytes()
        step = max(1, len(whole) // 40)
        for place in range(0, len(whole), step):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = [fault.what for fault in faults(client)]
            assert len(found) == 1, (kind, place, found)
            assert file.name == Path(found[0]).name, (kind, place, found)
            total += 1
        file.write_bytes(whole)
        assert faults(client) == []
    trials.note([f"bytes changed in files of {len(STORED)} kinds: {total} of {total} found"])


def faults(client: MlflowClient) -> list[Any]:
    """What is not as it was published."""
    (experiment,) = [one for one in client.search_experiments() if one.name == "two-arms"]
    run = next(iter(client.search_runs([experiment.experiment_id], "tags.`layerwise.kind` = 'study'")))
    found = finished_study_run(client, "two-arms", run.data.tags["layerwise.run_key"])
    assert found is not None
    return check_tree(client, found)


VERIFIED = re.compile(r"(metrics|latest_metrics|outputs|files|artifact|result|itself)\b")
"""Parts of the state that a finished study is compared with, so that no change of them may pass."""


def test_what_a_flipped_byte_does_to_the_database(
    stage: Stage, scene: Scene, finished: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A bit that flips in MLflow's database is refused in one line, or found and made good, or hurts no number.

    What is not compared with the manifest is what the answer does not rest on: parameters, names, times, tags.
    """
    original = finished(tmp_path / "original")
    outcomes, failures = Counter[str](), []
    chosen = trials.numbers(few=12)
    for number in chosen:
        kept = tmp_path / "kept"
        shutil.copytree(original, kept)
        done = damage(original / "mlruns" / "mlflow.db", "flipped", trials.chance("database", number))
        status = stage.play(original)
        out, err = stage.said()
        outcome, wrong = judged(status, out, err, original, scene.state)
        print(f"{done}: {outcome} {wrong or err}")
        outcomes[outcome] += 1
        failures += [f"{done}: {wrong}"] if wrong else []
        shutil.rmtree(original)
        kept.rename(original)
    trials.note([f"a flipped bit in MLflow's database: {', '.join(f'{n} {what}' for what, n in outcomes.items())}"])
    trials.count("flipped bits in MLflow's database that do no harm unsaid", failures, len(chosen))


def judged(status: int, out: str, err: str, root: Path, expected: state.State) -> tuple[str, str]:
    """What came of a flipped bit, and what is wrong with that."""
    if "Traceback" in out + err or any(not line.startswith("layerwise: ") for line in err.splitlines()):
        return "not in a line", out + err
    if status != 0:
        return "refused in a line", "" if err else f"status {status}, and nothing said"
    if "was finished before" not in out:
        differing = hurt(state.differences(expected, state.of(root, deleted=False)))
        return "found and made good", "; ".join(differing[:3])
    differing = state.differences(expected, state.of(root))
    return ("without effect" if not differing else "in what is not verified"), "; ".join(hurt(differing)[:3])


def hurt(differing: list[str]) -> list[str]:
    """Differences in what a finished study is compared with."""
    return [line for line in differing if VERIFIED.search(line.partition(": ")[2] or line)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_prefect_database_costs_no_stage(
    prepared: Path, tmp_path: Path, kind: str, reference: roots.Reference
) -> None:
    """Prefect's database damaged or replaced: the run works, or refuses with the remedy; nothing is computed again."""
    root = roots.fresh_copy(prepared, tmp_path / "root")
    shutil.copytree(environment.results_folder(reference.root), environment.results_folder(root), dirs_exist_ok=True)
    stored = state.stored(root)
    home = environment.prefect_home(root)
    damage(home / "prefect.db", kind, random.Random(kind))  # noqa: S311 - it need not be secret
    ended = roots.finish(root)
    print(f"{kind}: {ended.status} {ended.err}")
    if ended.status:
        expected = rf"layerwise: .*its database {home}/prefect.db is damaged: move it away, and run again\. .*\n"
        assert (ended.status, bool(re.fullmatch(expected, ended.err))) == (1, True), ended.err
        for file in home.glob("prefect.db*"):
            file.unlink()
        ended = roots.finish(root)
    assert (ended.status, ended.err) == (0, "")
    assert state.stored(root) == stored
    assert state.differences(reference.state, state.of(root)) == []


UNREADABLE = {
    "a result": (".layerwise/results/", "Result .* is set aside .*cannot be read \\(Input/output error\\)"),
    "a table": ("/artifacts/results.csv", "1 file missing \\(study: results.csv\\)"),
    "weights": ("model.keras", "1 file changed \\(.*depth-0\\d.*/data/model.keras\\)"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_file_that_cannot_be_read_is_made_again(
    stage: Stage, scene: Scene, finished: Callable[[Path], Path], tmp_path: Path, what: str
) -> None:
    """What the disk no longer gives back (an input/output error) is said, and made anew beside it."""
    path, expected = UNREADABLE[what]
    root = copy_of(scene.ready, tmp_path / "root") if what == "a result" else finished(tmp_path / "root")
    status = stage.play(root, unreadable=path)
    out, err = stage.said()
    assert (status, err) == (0, "")
    assert re.search(expected, out), out
    differing = state.differences(scene.state, state.of(root))
    assert [line for line in differing if ".damaged" not in line] == []


def test_a_store_that_cannot_be_read_is_refused(stage: Stage, finished: Callable[[Path], Path], tmp_path: Path) -> None:
    """A database that the disk no longer gives back is refused in one line, with the system's reason."""
    root = finished(tmp_path / "root")
    status = stage.play(root, unreadable="mlflow.db")
    out, err = stage.said()
    assert status == 1
    assert re.fullmatch(r"layerwise: .*disk I/O error.*\n", err), (out, err)
