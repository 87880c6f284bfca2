"""A disk that is full, and files that cannot be read: a clear line and a failure, and then the run goes on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos import roots, state, trials
from tests.chaos.crashing import Stage
from tests.chaos.scenes import Scene, copy_of, crashes, empty
from tests.test_server import clean_environ

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

SIZES = (0.002, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Of what the whole run takes: from no room for MLflow's tables to nearly enough."""

TEMPORARY = (("empty", 40), ("empty", 0), ("prepared", 8), ("prepared", 24))
"""Roots, and kilobytes for temporary files, too few for what is written there; 0 is a disk that others have filled."""

SPACE = re.compile(r"No space left on device|disk is full|disk of .+ is full")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many kilobytes, or gives the one that is there another size."""
    place = tmp_path / "disk"
    place.mkdir()

    def of_size(kilobytes: int) -> Path:
        size = f"size={kilobytes}k"
        how = ["-o", f"remount,{size}"] if place.is_mount() else ["-t", "tmpfs", "-o", size, "tmpfs"]
        done = subprocess.run(["mount", *how, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            assert not place.is_mount(), done.stderr
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        return place

    yield of_size
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


@dataclass(frozen=True)
class Roomy:
    """A run that had room, and how many kilobytes it took at most."""

    state: state.State
    kilobytes: int


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Roomy:
    root = empty(tmp_path_factory.mktemp("roomy") / "root")
    ended = roots.finish(root)
    assert (ended.status, ended.err) == (0, "")
    blocks = sum(path.stat().st_blocks // 2 for path in root.rglob("*"))
    return Roomy(state.of(root), blocks)


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder


def fill(folder: Path) -> None:
    """Write until nothing more fits."""
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def refused(status: int, out: str, err: str) -> str:
    """What is wrong with how a run ended on a full disk, in a line; nothing if it said so and failed."""
    lines = err.splitlines()
    if status != 1 or not lines:
        return f"it ended with {status} and said {err!r}"
    if "Traceback" in out + err or not all(line.startswith("layerwise: ") for line in lines):
        return f"it said more than a line: {err!r}"
    return "" if all(SPACE.search(line) and "free space" in line for line in lines) else f"it said {err!r}"


def test_a_full_disk_is_said_and_survived(disk: Callable[[int], Path], roomy: Roomy) -> None:
    """On a disk too small for it a run fails with a line about space; given room, it ends as any other."""
    chosen, failures, complete = trials.points(SIZES, few=3), [], 0
    for _, part in chosen:
        root = emptied(disk(4 * roomy.kilobytes))
        disk(max(16, int(part * roomy.kilobytes)))
        roots.write_study(root, roots.TWO_ARMS)
        ended = roots.finish(root)
        print(f"{part:.3f} of {roomy.kilobytes} kB: {ended.status} {ended.err}")
        if ended.status == 0 and part > 0.6:  # Prefect's log is written back sooner or later
            complete += 1
        elif wrong := refused(ended.status, ended.out, ended.err):
            failures.append(f"{part}: {wrong}")
        root = disk(4 * roomy.kilobytes)
        again = roots.finish(root)
        left = [f"{again.status} {again.err}"] if again.status or again.err else []
        left += state.differences(roomy.state, state.of(root))[:3]
        failures += [f"{part}, given room: {wrong}" for wrong in left]
    trials.note([f"full disks: in {complete} of {len(chosen)} sizes the run had room enough after all"])
    trials.count("full disks of growing size", failures, len(chosen))


def test_a_full_disk_of_temporary_files_is_named(disk: Callable[[int], Path], roomy: Roomy, tmp_path: Path) -> None:
    """With no room for temporary files a run names that disk, not the root's; given room, it ends as any other."""
    chosen, failures = trials.points(TEMPORARY, few=1), []
    for number, (kind, kilobytes) in chosen:
        root = empty(tmp_path / str(number))
        if kind == "prepared":
            roots.prepare(root)
            roots.write_study(root, roots.TWO_ARMS)
        full = emptied(disk(kilobytes or 64))
        if not kilobytes:
            fill(full)
        ended = roots.end(roots.run(root, env=clean_environ(TMPDIR=str(full))))
        roots.wait_for_end(root)
        print(f"{kilobytes} kB of temporary files, {kind} root: {ended.status} {ended.err}")
        emptied(full)  # what is full cannot be made smaller
        said = (
            f"the disk of temporary files, {full}, is full; free space on it, or name another in TMPDIR, and run again."
        )
        if ended.status != 1 or said not in ended.err or len(ended.err.splitlines()) > 1:
            failures.append(f"{kilobytes} kB: {ended}")
        again = roots.finish(root)
        left = [f"{again.status} {again.err}"] if again.status or again.err else []
        left += state.differences(roomy.state, state.of(root))[:3]
        failures += [f"{kilobytes} kB, given room: {wrong}" for wrong in left]
    trials.count("full disks of temporary files", failures, len(chosen))


def test_a_disk_that_fills_up_at_any_write_is_said_and_survived(
    stage: Stage,
    scene: Scene,
    tmp_path: Path,
) -> None:
    """From whatever event on there is no room, the run says so and fails; with room again the next one completes it."""
    listed = [event for event, action in crashes(scene.rest) if action == "kill"]
    chosen, failures = trials.points(listed, few=8, kind=lambda event: event.sort), []
    for number, event in chosen:
        root = copy_of(scene.ready, tmp_path / str(number))
        status = stage.play(root, at=event.number, action="full")
        out, err = stage.said()
        # Without a failure nothing may be missing: what the disk did not take was not needed.
        wrong = refused(status, out, err) if status else "; ".join(state.differences(scene.state, state.of(root))[:3])
        print(f"full from event {event.number} on, {event.sort}: {status} {err}")
        again = stage.play(root)
        left = [wrong, *state.differences(scene.state, state.of(root))[:3]]
        left += [f"the next run: {again} {stage.said()[1]}"] if again or stage.said()[1] else []
        failures += [f"full from {event.number}, {event.sort}: {what}" for what in left if what]
        shutil.rmtree(root)
    trials.count(f"disks that fill up, at {len(chosen)} events of {len(listed)}", failures, len(chosen))
