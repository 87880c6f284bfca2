"""Prefect's server gone while a study runs: the command says so and ends, and the next one goes on from there."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from flows import environment
from tests.chaos import roots, state, trials
from tests.chaos.roots import Reference
from tests.test_cli import Ended, end, servers
from tests.test_server import clean_environ

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def said_in_one_line(ended: Ended, what: str) -> None:
    """Make sure of the command's last word."""
    assert ended.status == 1
    line = rf"layerwise: Prefect's server {what}; nothing finished is lost: run again, and it goes on there\.\n"
    assert re.fullmatch(line, ended.err), ended.err
    assert "Traceback" not in ended.out


def goes_on(root: Path, reference: Reference) -> None:
    """Make sure that nothing is left running, and that the next command ends as if nothing had happened."""
    assert "RUNNING" not in state.statuses(root)
    stored = state.stored(root)
    ended = roots.finish(root)
    assert (ended.status, ended.err) == (0, "")
    assert state.differences(reference.state, state.of(root)) == []
    assert stored.items() <= state.stored(root).items(), "a stage that was stored has been computed again"


@pytest.mark.parametrize("number", trials.numbers(few=2))
def test_our_own_server_is_killed(number: int, tmp_path: Path, prepared: Path, reference: Reference) -> None:
    """Killed at any time after the first stage, the server takes the command with it, soon."""
    root = roots.fresh_copy(prepared, tmp_path / "root")
    process = roots.run(root)
    roots.wait_until(lambda: roots.stages(root), process)
    time.sleep(trials.chance("Prefect", number).random() * reference.rest)
    (server,) = set(servers(root)) - {process.pid}
    os.kill(server, signal.SIGKILL)
    begun = time.monotonic()
    ended = end(process)
    print(f"trial {number}: status {ended.status}, {time.monotonic() - begun:.1f} s after the kill\n{ended.err}")
    if ended.status != 0:  # it had not just ended
        said_in_one_line(ended, r"ended with status -9 during the run, see .*/server\.log")
    goes_on(root, reference)


@pytest.mark.parametrize("number", trials.numbers(few=1))
def test_a_teams_server_is_killed(number: int, tmp_path: Path, prepared: Path, reference: Reference) -> None:
    """A server that is not ours is missed when Prefect's client has given up on it, after a minute."""
    root, team = (roots.fresh_copy(prepared, tmp_path / name) for name in ("root", "team"))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PREFECT_API_URL", raising=False)
        environment.prepare(team)
        from flows.server import start

        with start(team) as server:
            server.wait_ready()
            process = roots.run(root, env=clean_environ(PREFECT_API_URL=server.url))
            roots.wait_until(lambda: roots.stages(root), process)
            time.sleep(trials.chance("team", number).random() * reference.rest / 2)
            os.kill(server.pid or 0, signal.SIGKILL)
            begun = time.monotonic()
            ended = end(process)
    print(f"trial {number}: status {ended.status}, {time.monotonic() - begun:.1f} s after the kill\n{ended.err}")
    said_in_one_line(ended, r"at http://127\.0\.0\.1:\d+/api does not answer any more")
    goes_on(root, reference)
