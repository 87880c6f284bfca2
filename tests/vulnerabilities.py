"""What `make check` asks last: whether a package of the lock is known to be vulnerable, of a database, if one answers.

    python -m tests.vulnerabilities

asks pip-audit about every pin of requirements.lock. A finding fails. Where no database answers, that is said, and
nothing is held to have passed: a check that needs the network must neither stop nor reassure those who have none. It
stands among the tests because it is one, of the lock; pytest does not run it, for its answer changes with the day.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOCK = Path("requirements.lock")
ANSWER = Path(".venv") / "vulnerabilities.json"
"""Where the last answer is kept, beside what it is about."""

SECONDS = 30
"""How long the database may take."""

VALID = {"sound": 24 * 3600, "unknown": 3600}
"""Seconds that an answer holds for one and the same lock; a finding is asked for again every time."""

AWAY = r"(Connection|Proxy|SSL|HTTP|Service)Error\b|(Connect|Read)Timeout\b|Could not connect"
"""What pip-audit's messages hold where the database, and not the lock, is the trouble."""


@dataclass(frozen=True)
class Answer:
    """What came of asking.

    Attributes:
        verdict: ``"sound"``, ``"vulnerable"``, ``"unknown"`` where no database answered, or ``"failed"``.
        words: it in a line; findings follow, a line each.
    """

    verdict: str
    words: str


def asked() -> Answer:
    """Ask pip-audit about the lock."""
    program = shutil.which("pip-audit")
    if program is None:
        return Answer("failed", "there is no pip-audit on PATH; `make setup` installs it")
    command = [program, "--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer("unknown", f"no database answered within {SECONDS} s")
    try:
        return judged(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        return _complaint(done.stderr)


def judged(dependencies: Sequence[dict[str, Any]]) -> Answer:
    """What pip-audit's report comes to.

    Args:
        dependencies: each with its ``vulns``, or with a ``skip_reason``.
    """
    known = [one for one in dependencies if "skip_reason" not in one]
    unknown = [one["name"] for one in dependencies if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in known
        for flaw in one["vulns"]
    ]
    if found:
        return Answer("vulnerable", "\n".join([f"{len(found)} known to be vulnerable", *found]))
    if not known:
        return Answer("unknown", f"the database knows none of the {len(unknown)} packages, so it is not the real one")
    left = f", and {len(unknown)} of which the database knows nothing: {', '.join(unknown)}" if unknown else ""
    return Answer("sound", f"{len(known)} packages, none known to be vulnerable{left}")


def _complaint(said: str) -> Answer:
    lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
    away = next((line for line in reversed(lines) if re.search(AWAY, line)), None)
    if away is not None:
        return Answer("unknown", f"no database answered ({_short(away)})")
    return Answer("failed", f"pip-audit failed ({_short(lines[-1])})")


def _short(line: str) -> str:
    reason = re.search(r"Failed to resolve '[^']+'", line) or re.search(r"Could not connect.*", line)
    return (reason[0] if reason else line.strip())[:120]


def _kept(digest: str) -> Answer | None:
    """The last answer, if it is about this lock and recent enough."""
    try:
        kept = json.loads(ANSWER.read_text())
        fresh = kept["lock"] == digest and 0 <= time.time() - kept["at"] < VALID[kept["verdict"]]
        return Answer(kept["verdict"], kept["words"]) if fresh else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main() -> int:
    """Say what is known; 1 where a package is vulnerable, or nobody could be asked and the network is not why."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    answer = _kept(digest)
    if answer is None:
        answer = asked()
        if answer.verdict in VALID:
            ANSWER.write_text(json.dumps({"lock": digest, "at": time.time(), **asdict(answer)}))
    skipped = "not checked for known vulnerabilities: " if answer.verdict == "unknown" else ""
    print(f"{LOCK}: {skipped}{answer.words}", file=sys.stdout if answer.verdict in VALID else sys.stderr)
    return 0 if answer.verdict in VALID else 1


if __name__ == "__main__":
    sys.exit(main())
