"""What the trials share, and how many of each kind succeeded."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import roots, trials
from tests.chaos.crashing import Stage, compiler
from tests.chaos.scenes import Scene, seen

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with new databases, to be copied."""
    return roots.prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> roots.Reference:
    """The study's run that nobody disturbed."""
    return roots.uninterrupted(roots.fresh_copy(prepared, tmp_path_factory.mktemp("reference") / "root"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Where commands are played that die at the n-th thing they do to files."""
    if compiler() is None:
        pytest.skip("no C compiler is found: nothing can stand between a process and its files")
    with Stage(tmp_path_factory.mktemp("stage")) as playing:
        yield playing


@pytest.fixture(scope="session")
def scene(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """What a run does to its files."""
    return seen(stage, tmp_path_factory.mktemp("scene"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say of each kind of trial how many of how many succeeded."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.when == "call" and Path(report.fspath).is_relative_to(FOLDER.relative_to(Path.cwd())):
                counts[report.nodeid.partition("[")[0]][outcome] += 1
    for test, count in counts.items():
        terminalreporter.write_line(f"{test.rpartition('/')[2]}: {count['passed']} of {count.total()}")
    for line in trials.notes:
        terminalreporter.write_line(line)
    if counts:
        terminalreporter.write_line(f"on {platform.system()} {platform.machine()}, Python {platform.python_version()}")
