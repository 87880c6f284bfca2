"""`layerwise clean`: what can go is counted first, removed only if that is said, and never under a run's hands."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest

from flows import cleaning, environment
from flows.cleaning import Wanted, clean_command
from flows.locks import alone_with_results, claim, using_results
from tests.test_cli import and_modules, refusal
from tests.test_doctor import write_result

DAY = 86400


@pytest.fixture
def full(root: Path) -> Path:
    """Results of today and of 40 days ago, one that was set aside, and one that was never finished."""
    folder = environment.results_folder(root)
    folder.mkdir(parents=True)
    for name, days in (("aa", 0), ("bb", 40), ("cc", 20)):
        os.utime(write_result(root, name), (time.time() - days * DAY,) * 2)
    (folder / ".dd.damaged").write_bytes(b"x" * 3000)
    (folder / ".ee.0123").write_bytes(b"x" * 1000)
    return root


def names(root: Path) -> set[str]:
    return {file.name for file in environment.results_folder(root).iterdir()}


def test_what_can_go_is_counted_and_stays(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--yes` nothing is removed; every kind is counted with its bytes."""
    before = names(full)
    assert clean_command(Wanted(30 * DAY, "30d"), full, really=False) == 0
    out, err = capsys.readouterr()
    assert err == ""
    size = environment.results_folder(full).joinpath("bb").stat().st_size
    assert out.splitlines() == [
        f"3 results ({3 * size} bytes) in {environment.results_folder(full)}",
        "  1 file (3 kB) that were damaged, and set aside",
        "  1 file (1 kB) that were never finished",
        f"  1 file ({size} bytes) older than 30d",
        "To remove 3 files (4.17 kB): the same with --yes.",
    ]
    assert names(full) == before


def test_what_can_go_goes_if_that_is_said(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--yes` it is removed, and only that; a second time there is nothing to do."""
    assert clean_command(Wanted(), full, really=True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Removed 2 files (4 kB)."
    assert names(full) == {"aa", "bb", "cc"}
    assert clean_command(Wanted(15 * DAY, "15d"), full, really=True) == 0
    assert names(full) == {"aa"}
    assert clean_command(Wanted(), full, really=True) == 0
    size = environment.results_folder(full).joinpath("aa").stat().st_size
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Nothing to remove. What takes room: results {size} bytes (--older-than 0h takes them all)."
    )


def test_damaged_results_are_found_and_go(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every result is read: one of which a byte is flipped, and one of another name, go with `--yes`."""
    folder = environment.results_folder(full)
    flipped = bytearray((folder / "aa").read_bytes())
    flipped[-3] ^= 1
    (folder / "aa").write_bytes(flipped)
    write_result(full, "ff", stored_as="gg")
    assert clean_command(Wanted(), full, really=False) == 0
    assert "  2 files (342 bytes) that are damaged, or none of ours" in capsys.readouterr().out.splitlines()
    assert clean_command(Wanted(30 * DAY, "30d"), full, really=True) == 0
    assert names(full) == {"cc"}


def test_nothing_to_remove_says_what_takes_room(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who needs room learns what has it: runs, Prefect's files, and results, with the option that takes them."""
    for name in (".dd.damaged", ".ee.0123"):
        (environment.results_folder(full) / name).unlink()
    for folder, size in ((full / "mlruns", 5000), (environment.prefect_home(full) / "deep", 7000)):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * size)
    assert clean_command(Wanted(), full, really=True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Nothing to remove. What takes room: results 513 bytes (--older-than 0h takes them all),"
        f" runs 5 kB in {full}/mlruns, Prefect's 7 kB in {full}/.layerwise/prefect."
    )


def test_reading_a_lot_is_said_first(
    full: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large folder it is said that it is read, for that takes a while."""
    monkeypatch.setattr(cleaning, "LONG", 500)
    assert clean_command(Wanted(), full, really=False) == 0
    assert re.fullmatch(
        r"3 results \(513 bytes\) in \S+; each is read now, to find damaged ones",
        capsys.readouterr().out.splitlines()[0],
    )


def test_results_in_use_are_left_alone(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a run is in progress nothing is removed: the exit status is 75, with a line that names the process."""
    before = names(full)
    with claim(full, "abc"), using_results(full):
        assert clean_command(Wanted(0.0, "0h"), full, really=True) == 75
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"layerwise: Process {os.getpid()} \(since \S+\) is using the results; wait for it\.\n", err)
    assert names(full) == before
    with using_results(full), using_results(full):  # two runs do not keep each other out
        pass


def test_a_run_that_starts_waits_for_the_end_of_a_clean(full: Path) -> None:
    """It would otherwise find a result that is gone when it is read."""
    begun: list[float] = []

    def run() -> None:
        with using_results(full):
            begun.append(time.monotonic())

    with alone_with_results(full):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(0.3)
        assert not begun
        ended = time.monotonic()
    thread.join(10)
    assert begun[0] >= ended


def test_files_that_cannot_be_removed_are_named(
    full: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go; the exit status is 1."""
    unlink = Path.unlink

    def refusing(self: Path, *, missing_ok: bool = False) -> None:
        if self.name == ".dd.damaged":
            raise PermissionError(13, "Permission denied")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    assert clean_command(Wanted(), full, really=True) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "Removed 1 file (1 kB)."
    assert re.fullmatch(r"layerwise: \S+/\.dd\.damaged cannot be removed; see its permissions\.\n", err)


def test_the_command_loads_nothing_heavy(full: Path) -> None:
    """Results are counted without TensorFlow, Prefect or MLflow; without results there is nothing to say but that."""
    ended, loaded = and_modules(full, "clean", "--older-than", "30d")
    assert (ended.status, ended.err, loaded) == (0, "", set())
    assert "1 file (171 bytes) older than 30d" in ended.out
    (full / "empty").mkdir()
    ended, loaded = and_modules(full / "empty", "clean", "--of-deleted")
    assert (ended.status, loaded) == (0, set())
    assert ended.out == f"There are no results in {environment.results_folder(full / 'empty')}.\n"
    assert not list((full / "empty").iterdir())


@pytest.mark.parametrize("age", ["30", "d", "-3d", "3y", "1000000000d"])
def test_ages_that_are_none_are_refused(tmp_path: Path, age: str) -> None:
    """An age is a number of hours, days or weeks."""
    expected = f"--older-than {age!r}: expected a number of hours, days or weeks, such as 12h, 30d or 8w."
    assert expected in refusal(tmp_path, "clean", f"--older-than={age}")
