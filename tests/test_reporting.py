"""``layerwise report`` on a real store that holds finished runs, with and without a report of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from flows import environment
from flows.reporting import report_command
from layerwise import report
from layerwise.report import StudyRun
from layerwise.study import Study
from tasks.tracking.answers import COSTS, DIFFERENCES, REPORT, REPORT_AS_TEXT, RESULTS, VERDICTS
from tasks.tracking.publishing import Publisher
from tasks.tracking.runs import STUDY, RunTree, close_runs, open_runs
from tasks.tracking.store import open_store
from tasks.tracking.tracked import SCORES, STUDY_FILE
from tests.mounts import read_only
from tests.studies import small
from tests.test_cli import and_modules, layerwise
from tests.test_report import CLEAN, run_of, several

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Lab:
    """A root with a store, and the runs in it by their names."""

    root: Path
    client: MlflowClient
    pages: dict[str, tuple[str, str]]
    trees: dict[str, RunTree]

    def publish(self, name: str, study: Study, *, repeat: str = "", reported: bool = True) -> None:
        """What the flow leaves of a study that has such scores; without its report, as a run from before."""
        tags = {f"layerwise.{key}": value for key, value in CLEAN.items() if key != "run_key"}
        tree = open_runs(
            self.client,
            study,
            run_key=study.digest(repeat),
            repeat=repeat,
            seeds=range(study.seeds),
            provenance=tags,
            root=self.root,
        )
        publisher, run_id = Publisher(self.client, tree), tree.study_run_id
        origin = report.origin_of(publisher.tags_of(run_id))
        run = run_of(study, origin=origin)
        self.put(publisher, run_id, run)
        page = report.study_page(run)
        self.pages[name], self.trees[name] = (report.html(page), report.markdown(page)), tree
        if reported:
            publisher.text(run_id, REPORT, self.pages[name][0])
            publisher.text(run_id, REPORT_AS_TEXT, self.pages[name][1])
        publisher.table(run_id, RESULTS, run.table)
        close_runs(self.client, tree)

    @staticmethod
    def put(publisher: Publisher, run_id: str, run: StudyRun) -> None:
        publisher.text(run_id, STUDY_FILE, yaml.safe_dump(run.study.canonical(), sort_keys=False))
        publisher.table(run_id, SCORES, run.metrics)
        for path, table in ((DIFFERENCES, run.differences), (COSTS, run.costs)):
            if table is not None:
                publisher.table(run_id, path, table)
        if run.verdicts is not None:
            publisher.text(run_id, VERDICTS, json.dumps(run.verdicts))
        rows = np.zeros((1, 2), np.float32)
        publisher.dataset(
            run_id, name="blobs", digest=run.data_digest, context="all", source={}, features=rows, labels=rows
        )

    def run_id(self, name: str) -> str:
        return self.trees[name].study_run_id


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("reported")
    before = dict(os.environ)
    environment.prepare(root)
    lab = Lab(root, open_store(root), {}, {})
    lab.publish("small", several())
    lab.publish("small:again", several(), repeat="again")
    lab.publish("before", small(name="before", seeds=3), reported=False)
    os.environ.clear()
    os.environ.update(before)
    return lab


@pytest.fixture
def asked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, in this process, with no browser unless one is asked for."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    settings: dict[str, Any] = {"output": None, "as_text": False, "may_open": True, "root": lab.root}

    def ask(said: str, **changes: Any) -> int:
        return report_command(said, **settings | changes)

    ask.opened = opened  # ty: ignore[unresolved-attribute]
    return ask


def test_the_report_is_written_where_it_says(lab: Lab, asked: Callable[..., int], capsys: Any) -> None:
    """The published page stands in a file named after study, repeat and run, and the path is all that is said."""
    for said, name in (("small", "small"), ("small:again", "small-again")):
        assert asked(said) == 0
        place = lab.root / "mlruns" / "reports" / f"{name}-{lab.run_id(said)[:8]}.html"
        assert capsys.readouterr() == (f"{place}\n", "")
        assert place.read_text() == lab.pages[said][0]
    assert "repeat again" in place.read_text().lower()


def test_any_run_of_a_study_leads_to_its_report(lab: Lab, asked: Callable[..., int], tmp_path: Path) -> None:
    """The id of the study's run, of an arm's or of a seed's means the study's."""
    tree = lab.trees["small"]
    for run_id in (tree.study_run_id, tree.arm_run_ids["one"], tree.seed_run("scratch", 3)):
        place = tmp_path / "report.html"
        assert asked(run_id, output=place) == 0
        assert place.read_text() == lab.pages["small"][0]
        place.unlink()


def test_markdown_is_printed_and_nothing_written(lab: Lab, asked: Callable[..., int], capsys: Any) -> None:
    """The Markdown form stands on standard output, alone."""
    before = sorted((lab.root / "mlruns").rglob("*.html"))
    assert asked("small", as_text=True) == 0
    assert capsys.readouterr() == (lab.pages["small"][1], "")
    assert sorted((lab.root / "mlruns").rglob("*.html")) == before


def test_a_run_from_before_has_its_report_made(
    lab: Lab, asked: Callable[..., int], capsys: Any, tmp_path: Path
) -> None:
    """From its tables comes, byte for byte, the page that it would have; a line says so."""
    assert asked("before", output=tmp_path / "made.html") == 0
    assert (tmp_path / "made.html").read_text() == lab.pages["before"][0]
    said = capsys.readouterr()
    assert said.err == "layerwise: before has no report, or not as it was published: made from its tables.\n"
    assert asked("before", as_text=True) == 0
    assert capsys.readouterr().out == lab.pages["before"][1]


def test_a_report_that_was_changed_is_not_shown(lab: Lab, asked: Callable[..., int], tmp_path: Path) -> None:
    """A page that is not as it was published is made from the tables, which are checked as well."""
    lab.publish("forged", small(name="forged", seeds=3))
    lab.client.log_text(lab.run_id("forged"), "<script>alert(1)</script>", REPORT)
    assert asked("forged", output=tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text() == lab.pages["forged"][0]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{data: {source: loader, loader: 'os:getcwd'}}", "making one here would mean to read data of its own"),
        ("{data: {source: table, path: /etc/passwd, target: x}}", "would mean to read data of its own"),
        ("{data: {source: blobs}, network: {layers: [{kind: custom, function: 'a:b'}]}}", "to read code of its own"),
        ("{name: odd, of: another version}", r"not what this version makes one from (StudyError: odd: "),
    ],
)
def test_what_a_tracker_names_is_neither_read_nor_run(
    lab: Lab, asked: Callable[..., int], capsys: Any, document: str, message: str
) -> None:
    """A report that would need own data or code is refused in one line, with exit 2; what cannot be read fails."""
    if "odd" not in lab.trees:
        lab.publish("odd", small(name="odd", seeds=2), reported=False)
    Publisher(lab.client, lab.trees["odd"]).text(lab.run_id("odd"), STUDY_FILE, document)
    assert asked("odd") == (2 if message.endswith("own") else 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("layerwise: odd has no report, and ")
    assert message in said.err
    assert said.err.endswith("a repeat of it has one: layerwise run, with --repeat.\n")
    assert said.err.count("\n") == 1


def test_tables_that_are_no_tables_are_refused(lab: Lab, asked: Callable[..., int], capsys: Any) -> None:
    """Scores without what a report takes, or of another kind, give one line, and no traceback."""
    lab.publish("bare", small(name="bare", seeds=2), reported=False)
    for scores in ("arm,seed\ngreedy,0\n", "arm,seed,depth\ngreedy,0,1\n", "arm,seed,depth,test_accuracy\na,0,1,b\n"):
        Publisher(lab.client, lab.trees["bare"]).text(lab.run_id("bare"), SCORES, scores)
        assert asked("bare") == 1
        assert re.fullmatch(
            r"layerwise: .+ is not what (this version makes one from|Layerwise writes) \(.+\); .+\n",
            capsys.readouterr().err,
        )


def test_names_of_a_tracker_stay_in_the_folder(lab: Lab, asked: Callable[..., int], capsys: Any) -> None:
    """Whatever a run says it is called, its page lies in the folder of reports."""
    run_id = lab.run_id("small")
    lab.client.set_tag(run_id, STUDY, "../../../etc/cron d\n")
    try:
        assert asked(run_id) == 0
    finally:
        lab.client.set_tag(run_id, STUDY, "small")
    place = Path(capsys.readouterr().out.strip())
    assert place == lab.root / "mlruns" / "reports" / f"etc_cron_d-{run_id[:8]}.html"


def test_what_would_steer_the_terminal_is_not_printed(lab: Lab, asked: Callable[..., int], capsys: Any) -> None:
    """A Markdown form that holds escape sequences is printed without them."""
    lab.publish("painted", small(name="painted", seeds=2))
    Publisher(lab.client, lab.trees["painted"]).text(lab.run_id("painted"), REPORT_AS_TEXT, "# a\x1b]0;b\x07c\n")
    assert asked("painted", as_text=True) == 0
    assert capsys.readouterr().out == "# a]0;bc\n"


def test_a_file_that_cannot_be_written_is_refused(asked: Callable[..., int], capsys: Any, tmp_path: Path) -> None:
    """A path through a file, or of a folder, is refused with the system's reason; nothing is left behind."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    places = {tmp_path / "file" / "a.html": "File exists|Not a directory", tmp_path / "folder": "Is a directory"}
    for place, reason in places.items():
        assert asked("small", output=place) == 1
        told = rf"layerwise: {place} cannot be written \(({reason})\); name another file\.\n"
        said = capsys.readouterr()
        assert said.out == ""
        assert re.fullmatch(told, said.err)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]


def test_a_report_is_read_where_nothing_can_be_written(
    lab: Lab, asked: Callable[..., int], capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk Markdown is printed as ever, and a page wants another place; nothing is left anywhere."""
    assert asked("small", as_text=True) == 0
    printed = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    with read_only(lab.root):
        assert asked("small", as_text=True) == 0
        assert capsys.readouterr().out == printed
        assert asked("small") == 1
    assert capsys.readouterr().err.endswith(
        " cannot be written (Read-only file system); name another file with --output.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_there_is_replaced_whole(lab: Lab, asked: Callable[..., int], tmp_path: Path) -> None:
    """A file of the same name is overwritten, in one step, and nothing stays beside it."""
    place = tmp_path / "new" / "report.html"
    place.parent.mkdir()
    place.write_text("old")
    assert asked("small", output=place) == 0
    assert place.read_text() == lab.pages["small"][0]
    assert list(place.parent.iterdir()) == [place]
    place.write_text("old")
    link = tmp_path / "link.html"
    link.symlink_to(place)
    assert asked("small", output=link) == 0
    assert link.is_symlink()
    assert place.read_text() == lab.pages["small"][0]


@pytest.mark.parametrize(
    ("terminal", "screen", "may_open", "opened"),
    [(True, ":0", True, 1), (False, ":0", True, 0), (True, "", True, 0), (True, ":0", False, 0)],
    ids=["a person looks", "in a pipe", "no screen", "--no-open"],
)
def test_a_browser_opens_for_a_person_alone(
    asked: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    terminal: bool,
    screen: str,
    may_open: bool,
    opened: int,
) -> None:
    """It opens where standard output is a terminal and there is a screen, unless it is told not to."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert asked("small", output=tmp_path / "a b.html", may_open=may_open) == 0
    assert asked.opened == [(tmp_path / "a b.html").as_uri()] * opened


def test_on_a_terminal_the_user_s_browser_has_the_page(lab: Lab, tmp_path: Path) -> None:
    """A real command on a real terminal hands the file to the browser that the user chose."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    ours, theirs = pty.openpty()
    environ = {**os.environ, "LAYERWISE_ROOT": str(lab.root), "PYTHONPATH": str(CHECKOUT)}
    environ |= {"BROWSER": f"{browser} %s", "DISPLAY": ":0"}
    command = [sys.executable, "-m", "flows.cli", "report", "small", "--output", str(tmp_path / "page.html")]
    done = subprocess.run(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    os.close(ours)
    deadline = time.monotonic() + 10
    while not (seen.exists() and seen.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.returncode == 0
    assert seen.read_text().strip() == (tmp_path / "page.html").as_uri()


@pytest.mark.parametrize("said", ["small", "before"])
def test_neither_tensorflow_nor_prefect_is_loaded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    """A report, published or made from tables, loads MLflow and nothing that trains; in a pipe it opens nothing."""
    monkeypatch.setenv("BROWSER", "false")
    place = tmp_path / "here.html"
    ended, loaded = and_modules(lab.root, "report", said, "--output", str(place))
    assert (ended.status, ended.out, loaded) == (0, f"{place}\n", {"mlflow"})
    assert place.read_text() == lab.pages[said][0]


def test_reading_tells_nobody(asked: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that only reads switches telemetry off as well, and does not wait long for a tracker."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    assert asked("small", output=tmp_path / "page.html") == 0
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        assert os.environ[name] == environment.SETTINGS[name]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("nosuch", "no run of a study 'nosuch' is tracked here"),
        ("small:agian", "no finished run of 'small:agian' is tracked here; there are small:again"),
        ("0" * 32, "there is no run 0000"),
        ("", "no run of a study '' is tracked here"),
    ],
)
def test_what_is_not_tracked_is_refused_in_one_line(
    asked: Callable[..., int], capsys: Any, said: str, message: str
) -> None:
    """Exit 2, one line on standard error, and nothing printed."""
    assert asked(said) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["small", "--markdown", "--output", "x"], "--markdown prints"), ([], "Missing argument 'RUN'")],
)
def test_a_wrong_request_is_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Exit 2, one line on standard error, and nothing written or loaded."""
    ended, loaded = and_modules(tmp_path, "report", *arguments)
    assert (ended.status, ended.out, ended.err.count("\n"), loaded) == (2, "", 1, set())
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_tracked_nothing_is_made(tmp_path: Path) -> None:
    """A folder without runs is refused, and left as it is."""
    ended = layerwise(tmp_path, "report", "small")
    assert ended.status == 2
    assert f"nothing is tracked in {tmp_path}; run a study there" in ended.err
    assert list(tmp_path.iterdir()) == []
