"""Files of schedules: what they may say, and the one line that refuses what they may not."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console

from flows import deploying, scheduling
from flows.deploying import check_cron
from flows.schedules import Entry, read_schedules
from layerwise.study import StudyError, load
from tests.serving import TINY, write_schedules
from tests.test_cli import and_modules, begin, end, layerwise
from tests.test_server import clean_environ
from tests.trackers import Proxy

HEAVY = {"tensorflow", "keras", "prefect", "mlflow"}


def test_a_study_is_taken_in_with_its_times(root: Path) -> None:
    """Studies stand beside the file or are ready-made; without a time zone it is UTC, without a name the study's."""
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    entries = [
        {"study": "tiny.yaml", "cron": "0 2 * * MON-FRI", "timezone": "Europe/Berlin", "name": "weeknights"},
        {"study": "blobs-supervised", "cron": "*/5 3,4 1-15 * *", "require_claims": True, "notify": "https://chat/x"},
    ]
    (root / "other.yaml").write_text(yaml.safe_dump({"schedules": entries}))
    first, second = read_schedules(root / "other.yaml")
    assert (first.name, first.entry.timezone, first.entry.cron) == ("weeknights", "Europe/Berlin", "0 2 * * MON-FRI")
    assert (first.study, first.folder) == (load(str(root / "tiny.yaml")), root)
    assert (second.name, second.entry.timezone) == ("blobs-supervised", "UTC")
    assert second.study.digest() == load("blobs-supervised").digest()


WRONG: dict[str, tuple[Any, str]] = {
    "no schedules": ({"schedule": []}, r"schedules: is missing; schedule: unknown key; did you mean schedules\?"),
    "nothing": (None, r"holds nothing; expected schedules: and a list of entries with study and cron\."),
    "an empty list": ({"schedules": []}, r"schedules: received \[\]; expected 1 or more$"),
    "an unknown key": ({"cronn": "x"}, r"schedules\.0\.cronn: unknown key; did you mean cron\? Known: study, cron,"),
    "a name": ({"name": "a/b"}, r"schedules\.0\.name: received 'a/b'; expected at most 80 letters, digits, spaces, "),
    "no study": ({"study": None}, r"schedules\.0\.study: received None; input should be a valid string"),
    "four fields": ({"cron": "0 2 * *"}, r"schedules\.0\.cron: received '0 2 \* \*'; expected five fields: minute"),
    "a time zone": (
        {"timezone": "Europe/Berln"},
        r"schedules\.0\.timezone: received 'Europe/Berln'; expected a name such as Europe/Berlin or UTC; did you mean"
        r" Europe/Berlin\?",
    ),
    "a way out": ({"timezone": "../../etc/passwd"}, r"received '\.\./\.\./etc/passwd'; expected a name such as"),
    "no address": ({"notify": "me@home"}, r"schedules\.0\.notify: expected an address that begins with http://"),
    "no such study": ({"study": "blob"}, r"schedules\.0\.study: no study named or file at '.*blob'"),
    "claims of none": (
        {"study": "plain.yaml", "require_claims": True},
        r"schedules\.0\.require_claims: tiny claims nothing; leave it out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_in_one_line(root: Path, kind: str) -> None:
    """Where, what was received, what was expected; an address, which may hold a secret, is not repeated."""
    said, message = WRONG[kind]
    write_schedules(root)
    (root / "plain.yaml").write_text(yaml.safe_dump({key: value for key, value in TINY.items() if key != "claims"}))
    if isinstance(said, dict) and not {"schedules", "schedule"} & said.keys():
        said = {"schedules": [{"study": "tiny.yaml", "cron": "0 2 * * *"} | said]}
    (root / "schedules.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(StudyError, match=message) as refused:
        read_schedules(root / "schedules.yaml")
    assert "\n" not in str(refused.value)
    assert "me@home" not in str(refused.value)


def test_a_name_stands_once(root: Path) -> None:
    """Two entries of one study need two names."""
    write_schedules(root)
    entry = {"study": "tiny.yaml", "cron": "0 2 * * *"}
    (root / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [entry, dict(entry)]}))
    with pytest.raises(StudyError, match=r"'tiny' stands twice; give the second a name of its own"):
        read_schedules(root / "schedules.yaml")
    (root / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [entry, entry | {"name": "again"}]}))
    assert [one.name for one in read_schedules(root / "schedules.yaml")] == ["tiny", "again"]


@pytest.mark.parametrize("cron", ["61 * * * *", "0 25 * * *", "0 0 0 * *", "0 0 * 13 *", "a b c d e"])
def test_times_that_are_none_are_refused(cron: str) -> None:
    """What has five fields and still names no time is refused before anything is deployed."""
    entry = Entry(study="tiny", cron=cron)
    with pytest.raises(
        StudyError, match=rf"the schedule of tiny: cron '{re.escape(cron)}' names no time; expected minute, hour,"
    ):
        check_cron(entry)


def test_a_refusal_comes_before_anything_heavy(root: Path) -> None:
    """The command says what is wrong with exit 2, before it loads Prefect, and starts nothing."""
    ended, loaded = and_modules(root, "schedule")
    assert ended.status == 2
    assert ended.err == (
        f"layerwise: there is no {root}/schedules.yaml; write one that lists study, cron and timezone, or name another:"
        " layerwise schedule FILE\n"
    )
    assert not loaded & HEAVY
    assert not (root / ".layerwise").exists()


def test_a_work_pool_needs_a_server(root: Path) -> None:
    """Of our own server nobody could be a worker."""
    write_schedules(root)
    ended = layerwise(root, "schedule", "--work-pool", "night")
    assert ended.status == 2
    assert ended.err == (
        "layerwise: --work-pool: no server is named that has one; name your team's in PREFECT_API_URL\n"
    )


def test_a_teams_server_that_does_not_let_us_in_is_told_at_once(root: Path) -> None:
    """A wrong word for the server is one line and exit 2, before Prefect is loaded, with the word unsaid."""
    write_schedules(root)
    with Proxy(0, lambda what: "401" if what == "GET /api/admin/version" else "pass") as guarded:
        there = {"PREFECT_API_URL": f"{guarded.url}/api", "PREFECT_API_AUTH_STRING": "ada:not the word"}
        ended = end(begin(root, "schedule", env=clean_environ() | there))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"layerwise: PREFECT_API_URL is {guarded.url}/api, which does not let us in (401): received a"
        " PREFECT_API_AUTH_STRING that is not the server's; set it to the server's user:password, or unset"
        " PREFECT_API_URL to use a server of our own.\n"
    )


def test_of_a_file_with_one_wrong_time_nothing_is_deployed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All times are looked at before the first of the studies is deployed."""
    write_schedules(root)
    entry = {"study": "tiny.yaml", "cron": "0 2 * * *"}
    wrong = entry | {"name": "never", "cron": "0 2 31 13 *"}
    (root / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [entry, wrong]}))
    told: list[str] = []
    for name in ("deploy", "skip_missed", "install_automations"):
        monkeypatch.setattr(deploying, name, lambda *_, name=name, **__: told.append(name))
    monkeypatch.setattr(scheduling, "_server", lambda *_: nullcontext())
    with pytest.raises(StudyError, match="names no time"):
        scheduling._serve(read_schedules(root / "schedules.yaml"), 4200, root, Console(quiet=True))
    assert told == []


def test_a_server_that_is_away_for_long_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When Prefect's runner gives up, in whatever way, that is a line; once the server answers, what was missed in
    between is skipped, and slots are run again. A server that then lets us in no more ends it."""
    gone = httpx.ConnectError("All connection attempts failed")
    ends = iter([ExceptionGroup("", [ExceptionGroup("", [RuntimeError("Service gave up")])]), gone, RuntimeError("it")])
    there = iter([False, False, True, True, True])

    async def until_stopped(_asked: object) -> None:
        sys.stdout.write("Traceback of Prefect's\n")
        raise next(ends, asyncio.CancelledError())

    monkeypatch.setattr(scheduling, "_until_stopped", until_stopped)
    monkeypatch.setattr(scheduling, "answers", lambda _: next(there))
    monkeypatch.setattr(scheduling, "POLL_SECONDS", 0)
    monkeypatch.setattr(scheduling, "require_entry", lambda _: None)
    monkeypatch.setattr(deploying, "skip_missed", lambda names: [f"skipped: one of {names}"])
    monkeypatch.setenv("PREFECT_API_URL", "http://team:4200/api")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(KeyboardInterrupt):
            scheduling._run_slots([], ["tiny"], Console(file=sys.stdout, width=200))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = [line.partition(" ")[2].partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    reasons = ("RuntimeError: Service gave up", "ConnectError: All connection attempts failed", "RuntimeError: it")
    assert said == [
        line
        for reason in reasons
        for line in (f"Serving was interrupted ({reason}), and goes on.", "skipped: one of ['tiny']")
    ]
    assert next(there, None) is None, "it was not waited for"
