"""The audit of the lock: a finding fails, silence is told as silence, and an answer is kept for a while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_server import CHECKOUT

NOT_FOUND = "Dependency not found on PyPI and could not be audited: "
SOUND = [{"name": "keras", "version": "3.15.1", "vulns": []}, {"name": "numpy", "version": "2.4.6", "vulns": []}]
SKIPPED = [
    {"name": "keras", "skip_reason": f"{NOT_FOUND}keras (3.15.1)"},
    {"name": "numpy", "skip_reason": f"{NOT_FOUND}numpy (2.4.6)"},
]
FLAWED = [
    {"name": "keras", "version": "3.15.1", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["3.15.2", "3.16.0"]}]},
    {"name": "numpy", "version": "2.4.6", "vulns": [{"id": "GHSA-xxxx-yyyy-zzzz", "fix_versions": []}]},
    *SKIPPED[:1],
]
NO_NAME = """Traceback (most recent call last):
socket.gaierror: [Errno -3] Temporary failure in name resolution
    raise ConnectionError(e, request=request)
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded with url: \
/pypi/absl-py/2.5.1/json (Caused by NameResolutionError("HTTPSConnection(host='pypi.org', port=443): Failed to resolve \
'pypi.org' ([Errno -3] Temporary failure in name resolution)"))
"""
BLOCKED = """ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed
ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`
"""

CASES = {
    "sound": (SOUND, "No known vulnerabilities found\n", 0, 0, "2 packages, none known to be vulnerable\n"),
    "partly known": (
        [*SOUND[:1], SKIPPED[1]],
        "No known vulnerabilities found\n",
        0,
        0,
        "1 packages, none known to be vulnerable, and 1 of which the database knows nothing: numpy\n",
    ),
    "nothing known": (
        SKIPPED,
        "No known vulnerabilities found\n",
        0,
        0,
        "not checked for known vulnerabilities: the database knows none of the 2 packages, so it is not the real one\n",
    ),
    "vulnerable": (
        FLAWED,
        "Found 2 known vulnerabilities in 2 packages\n",
        1,
        1,
        "2 known to be vulnerable\nkeras 3.15.1: PYSEC-2026-1, mended in 3.15.2, 3.16.0\n"
        "numpy 2.4.6: GHSA-xxxx-yyyy-zzzz, mended in no version yet\n",
    ),
    "no name service": (
        None,
        NO_NAME,
        1,
        0,
        "not checked for known vulnerabilities: no database answered (Failed to resolve 'pypi.org')\n",
    ),
    "blocked": (
        None,
        BLOCKED,
        1,
        0,
        "not checked for known vulnerabilities: no database answered (Could not connect to PyPI's vulnerability feed)"
        "\n",
    ),
    "broken lock": (
        None,
        "ERROR:pip_audit._cli:requirement keras==3 does not contain a hash\n",
        1,
        1,
        "pip-audit failed (ERROR:pip_audit._cli:requirement keras==3 does not contain a hash)\n",
    ),
    "nothing said": (None, "", 1, 1, "pip-audit failed (it said nothing)\n"),
}
"""The real one's report and messages, and its status; ours, and what is said."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a lock and an environment."""
    (tmp_path / "requirements.lock").write_text("keras==3.15.1\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / "bin").mkdir()
    return tmp_path


def put(project: Path, report: list[dict] | None, messages: str, status: int) -> None:
    """A pip-audit that says what the real one says, and counts how often it is asked."""
    (project / "report").write_text("" if report is None else json.dumps({"dependencies": report, "fixes": []}))
    (project / "messages").write_text(messages)
    program = project / "bin" / "pip-audit"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>"{project}/asked"\ncat "{project}/report"\ncat "{project}/messages" >&2\n'
    )
    program.write_text(program.read_text() + f"exit {status}\n")
    program.chmod(0o755)


def audit(project: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The check, as make runs it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.vulnerabilities"],
        cwd=project,
        env={**os.environ, "PATH": f"{project / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def times_asked(project: Path) -> int:
    """How often pip-audit was asked."""
    place = project / "asked"
    return len(place.read_text().splitlines()) if place.exists() else 0


@pytest.mark.parametrize("case", CASES)
def test_what_pip_audit_says_is_understood(project: Path, case: str) -> None:
    """A finding and a broken lock fail; a database that is away, or knows nothing at all, is told and does not."""
    report, messages, status, expected, words = CASES[case]
    put(project, report, messages, status)
    done = audit(project)
    assert done.returncode == expected
    assert (done.stdout, done.stderr)[expected] == f"requirements.lock: {words}"
    assert (done.stderr, done.stdout)[expected] == ""
    (arguments,) = (project / "asked").read_text().splitlines()
    assert arguments.startswith("--requirement requirements.lock --require-hashes --disable-pip --format json")


@pytest.mark.parametrize(("case", "hours"), [("sound", 24), ("nothing known", 1), ("vulnerable", 0)])
def test_an_answer_holds_for_its_lock_and_its_time(project: Path, case: str, hours: int) -> None:
    """Within its time, and for the same lock, the database is not asked again, and the same is said; findings are."""
    report, messages, status, _, _ = CASES[case]
    put(project, report, messages, status)
    first, again = audit(project), audit(project)
    assert (first.stdout, first.stderr, first.returncode) == (again.stdout, again.stderr, again.returncode)
    assert times_asked(project) == (1 if hours else 2)
    if not hours:
        return
    kept = project / ".venv" / "vulnerabilities.json"
    answer = json.loads(kept.read_text())
    kept.write_text(json.dumps({**answer, "at": time.time() - hours * 3600 - 1}))
    audit(project)
    assert times_asked(project) == 2
    (project / "requirements.lock").write_text("keras==3.15.2\n")
    audit(project)
    assert times_asked(project) == 3
    kept.write_text("{")
    audit(project)
    assert times_asked(project) == 4


def test_a_database_that_hangs_is_not_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time pip-audit is ended, and that is said."""
    from tests import vulnerabilities

    put(project, SOUND, "", 0)
    (project / "bin" / "pip-audit").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(vulnerabilities, "SECONDS", 0.3)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:/usr/bin:/bin")
    assert vulnerabilities.asked() == vulnerabilities.Answer("unknown", "no database answered within 0.3 s")


def test_without_pip_audit_the_check_fails(project: Path) -> None:
    """What is to ask must be there."""
    done = audit(project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "requirements.lock: there is no pip-audit on PATH; `make setup` installs it\n"
