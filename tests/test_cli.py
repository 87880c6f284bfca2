"""The command line as a person meets it: real processes, terminals and signals, and stores on disk."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from flows import cli, environment, launching, running
from flows.launching import Unanswered
from flows.printing import Terminal
from flows.trained import Outcome
from tests.chaos import state
from tests.studies import small, small_document
from tests.test_server import clean_environ
from tests.test_study import BAD_INPUT
from tests.trackers import Proxy

LAYERWISE = [sys.executable, "-m", "flows.cli"]

STAGES = 5
"""Depth of the study that is interrupted; with this many epochs each of its stages takes about a second."""

EPOCHS = 6000

GOES_ON = "layerwise: interrupted; run the same again, and it goes on where it stopped."
"""What a run that is interrupted says."""

CLAIMS = {
    "rises": {"kind": "trend", "arm": "greedy", "metric": "train_accuracy", "direction": "up"},
    "stays": {"kind": "equivalent", "arm": "greedy", "metric": "test_accuracy", "to": {"depth": 1}, "within": 0.9},
}
"""Of which three seeds can decide the second alone."""

HEAVY = {"tensorflow", "keras", "prefect", "mlflow", "distributed"}

AND_MODULES = f"""
import sys
from flows import cli
try:
    status = cli.run_command()
finally:
    print("loaded", *{HEAVY!r} & {{name.partition(".")[0] for name in sys.modules}})
sys.exit(status)
"""

ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


def begin(root: Path, *arguments: str, program: Sequence[str] = LAYERWISE, **options: Any) -> subprocess.Popen[str]:
    """``layerwise`` as a shell starts it in ``root``: a process group of its own."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [*program, *arguments], cwd=root, process_group=0, text=True, **pipes | {"env": clean_environ()} | options
    )


def end(process: subprocess.Popen[str], seconds: float = 200) -> Ended:
    """Wait for a command; one that takes longer is taken to hang, and ended with all it started."""
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err)


def layerwise(root: Path, *arguments: str) -> Ended:
    """One command from beginning to end."""
    return end(begin(root, *arguments))


def and_modules(root: Path, *arguments: str) -> tuple[Ended, set[str]]:
    """One command, and which of the heavy libraries it loaded."""
    return modules_of(end(begin(root, *arguments, program=[sys.executable, "-c", AND_MODULES])))


def modules_of(ended: Ended) -> tuple[Ended, set[str]]:
    """What a command of :data:`AND_MODULES` said, and what it loaded."""
    out, _, loaded = ended.out.rpartition("loaded")
    return Ended(ended.status, out, ended.err), set(loaded.split())


def write_study(root: Path, **changes: Any) -> Path:
    """A study file in ``root``."""
    file = root / "study.yaml"
    file.write_text(yaml.safe_dump(small(**changes).canonical()))
    return file


def database(root: Path) -> Path:
    """Where the runs of a root are tracked."""
    return root / "mlruns" / "mlflow.db"


def ask(root: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the tracking store; none where there is no store yet."""
    if not database(root).exists():
        return []
    with closing(sqlite3.connect(database(root), timeout=20)) as store:
        return store.execute(query).fetchall()


def statuses(root: Path) -> dict[str, int]:
    """How many runs stand in which status."""
    return dict(ask(root, "SELECT status, count(*) FROM runs GROUP BY status"))


def row_counts(root: Path) -> dict[str, int]:
    """How many rows each table of the tracking store has."""
    tables = [name for (name,) in ask(root, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: ask(root, f'SELECT count(*) FROM "{name}"')[0][0] for name in tables}  # noqa: S608


def models(root: Path) -> Counter[tuple[Any, ...]]:
    """Every model: arm, seed, name, status and the digest of its weights."""
    tags = " ".join(
        f"JOIN logged_model_tags {name} ON {name}.model_id = m.model_id AND {name}.tag_key = 'layerwise.{name}'"
        for name in ("arm", "seed", "digest")
    )
    columns = "arm.tag_value, seed.tag_value, m.name, m.status, digest.tag_value"
    return Counter(ask(root, f"SELECT {columns} FROM logged_models m {tags}"))  # noqa: S608


def results(root: Path) -> dict[str, int]:
    """The stage results on disk, and when each was written."""
    files = environment.results_folder(root).glob("[!.]*")
    return {file.name: file.stat().st_mtime_ns for file in files}


def servers(root: Path) -> list[int]:
    """Processes, other than this one, whose Prefect home is in ``root``."""
    home = f"PREFECT_HOME={environment.prefect_home(root)}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if home in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has just ended, or is not ours
            continue
    return found


def wait_until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a running command brings about."""
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, f"the command ended early, with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plain(text: str) -> str:
    """What remains on a terminal: colours and cursor moves taken out."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")


# --- what answers at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--version"], r"layerwise \d+\S*\n"),
        (["--help"], r"Usage: layerwise \[OPTIONS\] COMMAND (?s:.*)\n  run +Train a study(?s:.*)"),
        ([], r"Usage: layerwise \[OPTIONS\] COMMAND (?s:.*)"),
        (["run", "--help"], r"Usage: layerwise run \[OPTIONS\] STUDY\n(?s:.*)--dry-run(?s:.*)"),
        (["list"], r"(?s:.*)^blobs-supervised +1 arm, depth 11, 30 seeds\n    Does adding (?s:.*)"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_help_loads_nothing_and_writes_nothing(tmp_path: Path, arguments: list[str], expected: str) -> None:
    """Help, version and list answer without TensorFlow, Prefect or MLflow, and leave no file."""
    ended, loaded = and_modules(tmp_path, *arguments)
    assert (ended.status, ended.err, loaded) == (0, "", set())
    assert re.fullmatch(expected, ended.out, re.MULTILINE), ended.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["show"], ["run", "--dry-run"]], ids=" ".join)
def test_what_would_be_trained_is_said_without_a_trace(tmp_path: Path, command: list[str]) -> None:
    """`show` and `run --dry-run` say each stage, what it trains and what is done, and write nothing."""
    file = write_study(tmp_path, depth=2, seeds=12, question="Does [x] or [/y] help?")
    ended, loaded = and_modules(tmp_path, *command, "study.yaml")
    assert (ended.status, ended.err, loaded) == (0, "", set())
    assert ended.out.startswith("small  Does [x] or [/y] help?\n")
    assert re.search(r"^1 +base +hidden 1, output +- +0/2$", ended.out, re.MULTILINE)
    assert re.search(r"^2 +add_layer +hidden 2, output +hidden 1 +0/2$", ended.out, re.MULTILINE)
    assert ended.out.splitlines()[-2:] == [
        "4 of 4 stages left to train; arms share those they have in common",
        "Progress counts 4 depths, each of an arm and a block, of one stage or more and its scores.",
    ]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"small  Gr\xfc\xdfe \U0001f389?"), ("latin-1", r"small  Grüße \U0001f389?")]
)
def test_what_an_output_has_no_sign_for_is_written_as_its_number(tmp_path: Path, encoding: str, shown: str) -> None:
    """An umlaut in ASCII, or an emoji in most encodings, ends no command."""
    write_study(tmp_path, question="Grüße 🎉?")
    environ = clean_environ(PYTHONIOENCODING=encoding)
    ended = end(begin(tmp_path, "show", "study.yaml", env=environ, encoding=encoding))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == shown
    wrong = end(begin(tmp_path, "run", "🎉.yaml", env=environ))
    assert (wrong.status, wrong.err.count("\n"), "Traceback" in wrong.err) == (2, 1, False)


# --- requests that cannot be honoured ----------------------------------------------------------------------


def refusal(root: Path, *arguments: str, status: int = 2) -> str:
    """The one line with which a command refuses a wrong request, or says what failed, without its beginning."""
    ended = layerwise(root, *arguments)
    assert (ended.status, ended.out) == (status, ""), ended
    assert re.fullmatch(r"layerwise: [^\n]+\n", ended.err), ended.err
    assert "Traceback" not in ended.err
    return ended.err.removeprefix("layerwise: ").rstrip("\n")


SETTINGS = {
    "seeds=0": "seeds: received 0; input should be greater than or equal to 1",
    "seeds=-3": "seeds: received -3; input should be",
    "seeds=1000000000": "seeds: received 1000000000; input should be less than or equal to 100000",
    "seeds=true": "seeds: received True; input should be a valid integer",
    "seeds=many": "seeds: received 'many'; input should be a valid integer",
    "seed=3": "seed: unknown key; did you mean seeds? Known: name, question, data,",
    "training.epoch=3": "training.epoch: unknown key; did you mean epochs?",
    "training.epochs=2.5": "training.epochs: received 2.5; input should be a valid integer",
    "training.batch_size=71": "batch_size 71 is larger than the training part (70 rows); use at most 70",
    "training.optimizer.name=adm": "received 'adm'; did you mean adam? Known: sgd, adam, rmsprop, adagrad",
    "training.optimizer.learning_rate=-1": "learning_rate: received -1; input should be greater than 0",
    "training.optimizer.learning_rate=.nan": "learning_rate: received nan; input should be",
    "training.optimizer.beta_1=0.9": "training.optimizer.beta_1: unknown key; known: name, learning_rate, momentum",
    "network.layers.0.activation=rleu": "received 'rleu'; did you mean relu? Known: linear, relu,",
    "network.layers.0.initializer=he_unifrom": "received 'he_unifrom'; did you mean he_uniform?",
    "network.layers.0.units=0": "network.layers.0.units: received 0; input should be greater than",
    "network.layers.0.repeat=99999": "network.layers.0.repeat: received 99999; input should be less than",
    "network.layers.7.units=1": "'7' is not a position of a list of 1 (from 0)",
    "data.split.train=71": "train 71 + test 50 = 121 rows, but there are 120; make them equal",
    "data.source=blob": "data.source: received 'blob'",
    "name=../up": "name: received '../up'; expected at most 80 small letters, digits, '.', '_' and '-'; ",
    "epochs": "--set 'epochs': expected key=value, as in --set training.epochs=50.",
    "training.epochs=[": "--set 'training.epochs=[': '[' is not a YAML value: expected the node content",
    "seeds=010": "--set 'seeds=010': '010' is not a YAML value: 010 is no decimal number, and would be read as 8",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_impossible_study_is_refused_in_one_line(tmp_path: Path, setting: str) -> None:
    """A study that cannot be is refused with the setting, what was received and what was expected; nothing is made."""
    file = write_study(tmp_path)
    said = refusal(tmp_path, "run", "study.yaml", "--set", setting)
    assert SETTINGS[setting] in said
    assert said.startswith((f"--set {setting!r}: ", f"study.yaml with --set {setting!r}: "))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mistake", BAD_INPUT)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, mistake: str) -> None:
    """Arms, controls, noise, labels and splits that cannot be are refused as the schema says it; nothing is made."""
    changes, expected = BAD_INPUT[mistake]
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(small_document(**changes)))
    assert expected in refusal(tmp_path, "run", "study.yaml")
    assert list(tmp_path.iterdir()) == [file]


BAD_DATA = {
    "constant feature": ({"source": "digits", "scaling": "standard"}, "data: feature 0 is constant on a training part"),
    "class missing": ({"source": "wine", "split": {"train": 6, "test": 172}}, "of 6 rows that seed 1 draws has no row"),
    "infinite values": ({"source": "blobs", "cluster_std": 1e300}, "data: the inputs hold NaN or infinite values"),
}


@pytest.mark.parametrize("mistake", BAD_DATA)
def test_data_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, mistake: str) -> None:
    """Data that only their values show to be of no use are refused by `show` before it says a word."""
    data, expected = BAD_DATA[mistake]
    file = write_study(tmp_path, data=data, training={"batch_size": 6})
    assert expected in refusal(tmp_path, "show", "study.yaml")
    assert list(tmp_path.iterdir()) == [file]


OWN_LAYER = "import keras\n\n\ndef gated(units=4):\n    return [keras.layers.Dense(units), keras.layers.ReLU()]\n"


def unread(root: Path, *arguments: str, **pipes: Any) -> Ended:
    """One command whose standard output is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return end(begin(root, *arguments, stdout=write, **pipes))
    finally:
        os.close(write)


@pytest.mark.slow
def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path):
    """With `head` behind it that has seen enough, a study is trained to its end, and the status is its own."""
    write_study(tmp_path, depth=1, seeds=2, track={"models": "none"})
    assert unread(tmp_path, "run", "study.yaml") == Ended(0, None, "")
    assert set(statuses(tmp_path)) == {"FINISHED"}
    again = unread(tmp_path, "run", "study.yaml", stderr=subprocess.STDOUT)
    assert again == Ended(0, None, None)


def test_what_nobody_reads_changes_no_status(tmp_path: Path):
    """Listing to nobody is done; a wrong request stays one, also where nobody reads the refusal."""
    assert unread(tmp_path, "list") == Ended(0, None, "")
    assert unread(tmp_path, "run", "nothing", stderr=subprocess.STDOUT).status == 2
    assert unread(tmp_path, "accept", "nothing", stderr=subprocess.STDOUT).status == 2


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "free space on that disk"), (errno.EROFS, "mend that")])
def test_a_place_that_takes_no_files_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, remedy: str
) -> None:
    """Whatever command meets it: the file, the system's reason and the remedy, in one line."""

    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number), "/a/lock")

    monkeypatch.setattr(cli.cli, "main", refuse)
    assert cli.run_command() == 1
    said = f"layerwise: /a/lock: {os.strerror(number)}; {remedy}, or name another place in LAYERWISE_ROOT.\n"
    assert capsys.readouterr().err == said


LOST = (
    f"layerwise: standard output cannot be written ({os.strerror(errno.ENOSPC)}); send it where there is room, and ask"
    " again.\n"
)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", ["list", "--help", "show study.yaml"])
def test_an_answer_that_cannot_be_printed_is_told(tmp_path: Path, command: str) -> None:
    """Where standard output takes nothing, it is that which is named, with exit 1; and a refusal keeps its status."""
    write_study(tmp_path)
    with Path("/dev/full").open("w") as full:
        ended = end(begin(tmp_path, *command.split(), stdout=full))
        assert (ended.status, ended.err) == (1, LOST)
        assert end(begin(tmp_path, "run", "nosuch", stdout=full, stderr=full)).status == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_run_goes_on_when_what_it_prints_is_lost(tmp_path: Path) -> None:
    """A study is trained to its end while standard output takes nothing; that is told once, and makes the status 1."""
    write_study(tmp_path, depth=1, seeds=2, track={"models": "none"})
    for _ in ("trained", "answered from MLflow"):
        with Path("/dev/full").open("w") as full:
            ended = end(begin(tmp_path, "run", "study.yaml", stdout=full))
        assert (ended.status, ended.err) == (1, LOST)
        assert set(statuses(tmp_path)) == {"FINISHED"}


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_changes_no_status(tmp_path: Path, closed: str) -> None:
    """Where a shell has closed what a command would print to, it ends as it does otherwise."""
    command = f"{shlex.join([*LAYERWISE, 'list'])} {closed}"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=clean_environ(), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


READERS = (["accept", "a"], ["register", "a", "--depth", "1"], ["serve", "a"], ["predict", "a", "a.csv"],
           ["report", "a"], ["compare", "a", "b"], ["reproduce", "a"])  # fmt: skip


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_tracker_whose_name_is_unknown_is_told_with_what_to_do(
    root: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that read what is tracked say that it is away and what to do, with exit 1: it may come back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@nobody.invalid:5000")
    (root / "a.csv").write_text("x\n1\n")
    monkeypatch.setattr("sys.argv", ["layerwise", *command])
    assert cli.run_command() == 1
    said = capsys.readouterr()
    assert re.fullmatch(
        r"layerwise: the tracking store http://nobody\.invalid:5000 does not answer \([^)]+\); run again once it"
        r" answers, or correct or unset MLFLOW_TRACKING_URI\.\n",
        said.err,
    )
    assert said.out == ""


def test_a_repeat_without_a_name_says_how_it_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name that it got, and the command that goes on with it, are said before anything trains."""

    def fail(*_: object) -> None:
        raise Unanswered("small cannot be answered now.", 1)

    write_study(root)
    monkeypatch.setattr(running, "answer_study", fail)
    monkeypatch.setattr(
        "sys.argv",
        ["layerwise", "run", "study.yaml", "--seeds", "4", "--set", "question=Is it?", "--repeat", "--runner", "dask"],
    )
    assert cli.run_command() == 1
    name = re.fullmatch(
        r"This repeat is called (\w+)\. If it is interrupted, it goes on with: layerwise run study\.yaml --seeds 4"
        r" --set 'question=Is it\?' --runner dask --repeat \1\n",
        capsys.readouterr().out,
    )
    assert name is not None
    monkeypatch.setattr("sys.argv", ["layerwise", "run", "study.yaml", "--repeat", name[1]])
    assert cli.run_command() == 1
    assert capsys.readouterr().out == ""


def test_a_repeat_that_was_killed_is_told_with_its_name() -> None:
    """Of flow runs that were killed, those that are repeats are told how they go on, but for one that goes on now."""
    killed = ["small", "small · a", "small · b", "small · pilot", "few-labels · c"]
    assert list(launching._killed_in_words(killed, small(), "b")) == [
        "Killed before, and marked so now: small, small · a, small · b, small · pilot, few-labels · c."
        " What was stored stays.",
        "The repeat a of small goes on, asked as before, with: layerwise run STUDY --repeat a",
        "The repeat c of few-labels goes on, asked as before, with: layerwise run few-labels --repeat c",
    ]
    assert list(launching._killed_in_words([], small())) == []


@pytest.mark.slow
def test_a_layer_of_ones_own_is_named_and_trained(tmp_path: Path) -> None:
    """A function beside the study file makes layers; the run says whose code it is, and refuses what makes none."""
    (tmp_path / "own_layers.py").write_text(OWN_LAYER)
    layer = {"kind": "custom", "function": "own_layers:gated"}
    study = write_study(tmp_path, network={"layers": [layer, {**layer, "options": {"units": 3}}]}, seeds=2)
    ended = layerwise(tmp_path, "run", str(study))
    assert (ended.status, ended.err) == (0, "")
    assert f"code of your own: own_layers:gated, in {tmp_path / 'own_layers.py'}" in ended.out
    study = write_study(tmp_path, network={"layers": [{**layer, "options": {"width": 3}}]}, seeds=2)
    ended = layerwise(tmp_path, "run", str(study))
    assert ended.status == 2
    assert ended.err.startswith(
        "layerwise: 'own_layers:gated' failed with options {'width': 3} (TypeError: gated() got"
    )
    assert len(ended.err.splitlines()) == 1


def test_data_that_cannot_be_used_leave_no_run(tmp_path: Path) -> None:
    """`run` refuses such data in the same line, with a new store that holds no run and no experiment of the study."""
    data, expected = BAD_DATA["constant feature"]
    write_study(tmp_path, data=data)
    assert expected in refusal(tmp_path, "run", "study.yaml")
    assert ask(tmp_path, "SELECT count(*) FROM runs") == [(0,)]
    assert ask(tmp_path, "SELECT name FROM experiments") == [("Default",)]
    assert servers(tmp_path) == []


FILES = {
    "line": (b"name: x\nseeds: 3\n  bad: [\n", "study.yaml: line 3 is not valid YAML: mapping values are not allowed"),
    "twice": (b"name: x\nname: y\n", "study.yaml: line 2 is not valid YAML: the key 'name' stands twice"),
    "an arm twice": (b"arms:\n  one: greedy\n  one: scratch\n", "line 3 is not valid YAML: the key 'one' stands twice"),
    "alias": (
        b"a: &a [1]\nb: *a\n",
        "study.yaml: line 2 is not valid YAML: the alias *a is not read; write the value out.",
    ),
    "empty": (b"", "study.yaml: holds nothing; expected keys such as name"),
    "a list": (b"- 1\n", "study.yaml: holds a list; expected keys such as name"),
    "not text": (b"\xff\xfe", "study.yaml: is not UTF-8 text"),
    "just words": (b"of mine", "study.yaml: holds text; expected keys such as name"),
    "eights": (
        b"name: x\nseeds: 010\n",
        "study.yaml: line 2 is not valid YAML: 010 is no decimal number, and would be read as 8; write that, or quote",
    ),
    "sixties": (
        b"name: x\ntraining: {epochs: 1:30}\n",
        "line 2 is not valid YAML: 1:30 is no decimal number, and would",
    ),
    "nothing needed": (b"name: x\n", "study.yaml: data: is missing; network: is missing"),
    "too large": (b"#" * 200_001, "study.yaml: 200,001 bytes; a study file holds at most 200,000."),
}


@pytest.mark.parametrize("content", FILES)
def test_unreadable_study_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    """A file that is no study is refused with its name, and the line where there is one; nothing is made."""
    written, expected = FILES[content]
    file = tmp_path / "study.yaml"
    file.write_bytes(written)
    assert expected in refusal(tmp_path, "run", "study.yaml")
    assert list(tmp_path.iterdir()) == [file]


COMMANDS = {
    "rnu study.yaml": "no command 'rnu'; did you mean run? `layerwise --help` shows what it takes.",
    "run": "Missing argument 'STUDY'. `layerwise run --help` shows what it takes.",
    "show": "Missing argument 'STUDY'. `layerwise show --help` shows what it takes.",
    "run study.yaml again": "Got unexpected extra argument (again). `layerwise run --help` shows what it takes.",
    "run study.yaml --epochs 3": "No such option '--epochs'. `layerwise run --help` shows what it takes.",
    "run study.yaml --seeds abc": "Invalid value for '--seeds': 'abc' is not a valid integer.",
    "run study.yaml --seeds": "Option '--seeds' requires an argument.",
    "run study.yaml --repeat ../up": "--repeat '../up': use at most 64 letters, digits, '.', '_' and '-'.",
    "run study.yaml --require-claims": "--require-claims: small claims nothing; add claims to it, or leave the option",
    "plan study.yaml": "small claims nothing, so there is nothing to plan; add claims to it",
    "plan few-labels --seeds 1": "--seeds 1: a pilot has to see how seeds differ; use 2 or more",
    "report small --output .": "--output '.': expected a file, or a name that nothing has yet.",
    "compare a b --output /": "--output '/': expected a file, or a name that nothing has yet.",
    "predict a b.csv --output /dev/null": "--output '/dev/null': expected a file, or a name that nothing has yet.",
    "reproduce": "Missing argument 'RUN'. `layerwise reproduce --help` shows what it takes.",
    "reproduce small": "nothing is tracked here: there is no ",
    "clean --older-than 30": "--older-than '30': expected a number of hours, days or weeks, such as 12h, 30d or 8w.",
    "doctor small": "Got unexpected extra argument (small). `layerwise doctor --help` shows what it takes.",
    "run nosuch": "no study named or file at 'nosuch'; ready-made: blobs-",
    "run blobs-superivsed": "at 'blobs-superivsed'; did you mean blobs-supervised, ",
    "run .": "'.' is a folder; name a study file in it, such as study.yaml, or a ready-made study.",
    "run study.yaml --seeds 0": "study.yaml with seeds 0: seeds: received 0; input should be greater",
    "run folder/nosuch.yaml": "no study named or file at 'folder/nosuch.yaml'; ready-made:",
    "ui --mlflow-port 0": "Invalid value for '--mlflow-port': 0 is not in the range 1<=x<=65535.",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_command_is_refused_in_one_line(tmp_path: Path, command: str) -> None:
    """A command that does not exist or lacks something is refused with a way on; nothing is made."""
    file = write_study(tmp_path)
    assert COMMANDS[command] in refusal(tmp_path, *command.split())
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "command",
    [
        "run nosuch",
        "run study.yaml --seeds 0",
        "rnu",
        "run study.yaml --epochs 3",
        "plan study.yaml",
        "reproduce small",
    ],
)
def test_refusals_load_nothing(tmp_path: Path, command: str) -> None:
    """A wrong request is refused before TensorFlow, Prefect or MLflow are loaded."""
    write_study(tmp_path)
    ended, loaded = and_modules(tmp_path, *command.split())
    assert (ended.status, loaded) == (2, set())


def test_study_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """A file that the system does not let one read is refused with the system's reason."""
    # Permissions do not bind root, so this is a file that answers nobody: its reading fails for every user.
    unreadable = Path("/proc/self/mem")
    if not unreadable.exists():
        pytest.skip("this system has no file that refuses root too")
    assert re.search(r"/proc/self/mem: .*(cannot be read|is not)", refusal(tmp_path, "run", str(unreadable)))


def in_the_way(root: Path) -> str:
    (root / "mlruns").touch()
    return rf"{root}/mlruns cannot be created \(File exists\); .*LAYERWISE_ROOT"


def not_a_database(root: Path) -> str:
    database(root).parent.mkdir()
    database(root).write_text("My notes.\n" * 100)
    return rf"{root}/mlruns/mlflow.db is not an SQLite database; move it away"


def of_a_newer_mlflow(root: Path) -> str:
    database(root).parent.mkdir()
    with closing(sqlite3.connect(database(root))) as store:
        store.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        store.execute("INSERT INTO alembic_version VALUES ('f00000000000')")
        store.commit()
    return r"was made by a newer MLflow than 3\.\S+ \(schema f00000000000 is unknown here\); install that version"


@pytest.mark.parametrize(
    ("command", "store", "status"),
    [
        ("run study.yaml", in_the_way, 2),
        ("run study.yaml", not_a_database, 1),
        ("run study.yaml", of_a_newer_mlflow, 2),
        ("report small", not_a_database, 1),
        ("compare small other", not_a_database, 1),
        ("reproduce small", not_a_database, 1),
        ("ui", in_the_way, 2),
    ],
)
def test_store_that_cannot_be_used_is_refused(
    tmp_path: Path, command: str, store: Callable[[Path], str], status: int
) -> None:
    """A tracking store that cannot be used is refused with its path and a remedy, and is left as it was.

    The status is 1 where it is broken, 2 where another place or version is to be named.
    """
    write_study(tmp_path)
    expected = store(tmp_path)
    before = {file: file.stat().st_size for file in tmp_path.glob("**/*")}
    arguments = command.split() + (free_ports() if command == "ui" else [])
    assert re.search(expected, refusal(tmp_path, *arguments, status=status))
    assert {file: file.stat().st_size for file in before} == before
    assert servers(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        "run study.yaml",
        "show study.yaml",
        "reproduce small",
        "report small",
        "compare a b",
        "accept a",
        "doctor",
        "clean",
    ],
)
def test_a_root_with_a_question_mark_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The addresses of the databases in it would mean other places: every command says so, and nothing is made."""
    root = tmp_path / "what?"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.delenv("LAYERWISE_ROOT", raising=False)
    write_study(root)
    monkeypatch.setattr("sys.argv", ["layerwise", *command.split()])
    assert cli.run_command() == 2
    assert capsys.readouterr().err == (
        f"layerwise: {root} cannot hold runs: what follows a '?' is taken for settings in the addresses of its"
        " databases; name a folder without one in LAYERWISE_ROOT, or rename it.\n"
    )
    assert [file.name for file in root.iterdir()] == ["study.yaml"]
    assert list(tmp_path.iterdir()) == [root]


def test_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A root that is no folder is refused with its name and a remedy."""
    study, root = write_study(tmp_path), tmp_path / "file"
    root.touch()
    process = begin(tmp_path, "run", str(study), env=clean_environ(LAYERWISE_ROOT=str(root)))
    ended = end(process)
    assert ended.status == 2
    assert re.fullmatch(r"layerwise: Cannot write to \S+/file/\.layerwise \(.+\); run in .+\n", ended.err)


def test_a_teams_server_that_refuses_is_one_line(tmp_path: Path) -> None:
    """`run` ends with 2 before anything is trained or tracked where a team's Prefect does not know our word."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_document()))
    with Proxy(0, lambda _: "401") as guarded:
        environ = clean_environ(PREFECT_API_URL=f"{guarded.url}/api", PREFECT_API_AUTH_STRING="ada:not the word")
        ended = end(begin(tmp_path, "run", "study.yaml", env=environ))
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"layerwise: PREFECT_API_URL is \S+, which does not let us in \(401\): .+\n", ended.err)
    assert "not the word" not in ended.err
    assert not (tmp_path / "mlruns").exists()


def test_pages_of_a_team_are_named_and_not_served(tmp_path: Path, empty_tracker: str) -> None:
    """`ui` says where a team's pages are, and ends; a port that is taken here does not matter then."""
    environ = clean_environ(MLFLOW_TRACKING_URI=empty_tracker, PREFECT_API_URL="http://team.example:4200/api")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        ended = end(begin(tmp_path, "ui", "--mlflow-port", port, "--prefect-port", port, env=environ))
    assert (ended.status, ended.err) == (0, "")
    assert f"MLflow   {empty_tracker} " in ended.out
    assert "Prefect  http://team.example:4200/runs " in ended.out
    assert ended.out.endswith("Both are your team's, which ask who you are.\n")


class Nothing(BaseHTTPRequestHandler):
    """A tracking server in which there is nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815 - the same

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def empty_tracker() -> Iterator[str]:
    """The address of a tracking server in which there is nothing."""
    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def free_ports() -> list[str]:
    """Options for two ports that were free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return ["--mlflow-port", str(one.getsockname()[1]), "--prefect-port", str(other.getsockname()[1])]


@pytest.mark.parametrize("option", ["--mlflow-port", "--prefect-port"])
def test_port_that_is_taken_is_refused(tmp_path: Path, option: str) -> None:
    """`ui` refuses a port that something else uses, and names the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        arguments = [*free_ports(), option, port]
        assert f"port {port} is taken; choose another with {option}" in refusal(tmp_path, "ui", *arguments)


# --- a run from beginning to end ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """A run that nobody interrupted, and what a second command on the same study said meanwhile."""

    root: Path
    ended: Ended
    second: Ended
    holder: int
    loaded: set[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("whole")
    write_study(root, depth=STAGES, training={"epochs": EPOCHS}, claims=CLAIMS)
    first = begin(root, "run", "study.yaml", program=[sys.executable, "-c", AND_MODULES])
    wait_until(lambda: list(environment.locks_folder(root).glob("*.holder")), first)
    second = layerwise(root, "run", "study.yaml")
    ended, loaded = modules_of(end(first))
    return Whole(root, ended, second, first.pid, loaded)


def test_a_run_says_its_progress_and_its_answer_and_nothing_else(whole: Whole) -> None:
    """A successful run writes nothing to standard error, and no warning, log line or address to standard output."""
    assert (whole.ended.status, whole.ended.err) == (0, "")
    lines = whole.ended.out.splitlines()
    progress = [line for line in lines if re.match(r"(training \d+/\d+ depths|publishing \d+/\d+ batches)  \S", line)]
    table = [line for line in lines if re.match(r" +\d +\d +3  0\.\d{3} \+- 0\.\d{3}  0\.\d{3} \+- 0\.\d{3}$", line)]
    assert any(
        line.startswith(f"training {STAGES}/{STAGES} depths  greedy, seeds 0-9, depth {STAGES}") for line in progress
    )
    assert len(table) == STAGES
    head = ["small, arm greedy", "depth  layers  seeds  train accuracy   test accuracy"]
    rest = [line.strip() for line in lines if line not in {*progress, *table}]
    assert rest[1:3] == head
    assert rest[3].startswith(f"greedy: from depth 1 to {STAGES}, training accuracy changes by ")
    assert rest[6:] == ["Read the report: layerwise report small", "Look at the runs: layerwise ui"]


def test_what_the_seeds_can_never_decide_is_said_before_training(whole: Whole) -> None:
    """A claim that three seeds cannot decide is named in the first line, with the seeds that could; it is no error."""
    first = whole.ended.out.splitlines()[0]
    assert first.startswith(
        "Before training: rises cannot be supported or refuted by 3 seeds: the smallest possible p-"
    )
    assert re.search(r"; use \d+ seeds or more\.$", first)
    assert whole.ended.out.count("Before training") == 1


def test_verdicts_stand_below_the_table(whole: Whole) -> None:
    """Each claim has a line: its name, the verdict, why in words, and if undecided how many seeds would do."""
    rises, stays = [line for line in whole.ended.out.splitlines() if line.startswith("claim ")]
    assert re.match(r"claim rises: undecided \(p .+ were the claim false, .+\)\. Train accuracy of greedy rises", rises)
    assert re.search(r"seeds (would|is known to) decide it", rises)
    assert re.match(r"claim stays: supported \(p .+ were the claim false after Holm over 2 claims; level 0.05\)", stays)


def test_required_claims_fail_a_run_that_does_not_support_them(whole: Whole) -> None:
    """With `--require-claims` an undecided claim makes the exit status 1, said from MLflow alone; the words stay."""
    ended, loaded = and_modules(whole.root, "run", "study.yaml", "--require-claims")
    assert (ended.status, ended.err, loaded) == (1, "", {"mlflow"})
    assert [line for line in ended.out.splitlines() if line.startswith("claim ")] == [
        line for line in whole.ended.out.splitlines() if line.startswith("claim ")
    ]


def test_second_run_of_a_study_at_the_same_time_leaves(whole: Whole) -> None:
    """A second run of the same study exits 75 with one line that names the first, which goes on."""
    assert (whole.second.status, whole.second.out) == (75, "")
    assert re.fullmatch(
        rf"layerwise: small: Process {whole.holder} \(since .+\) works on this run; .+\n", whole.second.err
    )
    assert whole.ended.status == 0


def test_a_run_loads_what_it_needs(whole: Whole) -> None:
    """Prefect does not import Dask, or whatever else is installed that offers blocks, for a run without workers."""
    assert whole.loaded == {"tensorflow", "keras", "prefect", "mlflow"}


def test_a_run_leaves_no_process(whole: Whole) -> None:
    """When a run has ended its server has ended, and every run is FINISHED."""
    assert servers(whole.root) == []
    assert statuses(whole.root) == {"FINISHED": 5}


def test_finished_study_is_answered_from_mlflow_alone(whole: Whole) -> None:
    """A finished study is answered without TensorFlow or Prefect, and not a row or result is written."""
    before = row_counts(whole.root), results(whole.root)
    ended, loaded = and_modules(whole.root, "run", "study.yaml")
    assert (ended.status, ended.err, loaded) == (0, "", {"mlflow"})
    said = ended.out.splitlines()
    table = [
        line for line in whole.ended.out.splitlines() if not re.match("training|publishing|Read|Look|Before", line)
    ]
    assert said[:-1] == table
    assert said[-1] == (
        "small was finished before: 3 seed runs verified, nothing trained. To compute it afresh: --repeat."
    )
    assert (row_counts(whole.root), results(whole.root)) == before


@pytest.mark.parametrize("lost", [[], ["the tracking store /a does not answer"]], ids=["published", "not published"])
def test_nobody_is_sent_to_pages_that_show_nothing(lost: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What could not be published is said with what to do, and not that the pages show it."""
    answer = running._answer_of(Outcome(small(), None, pd.DataFrame(), {}, lost))
    running._print_answer(small(), answer, Terminal())
    said = capsys.readouterr()
    assert ("Look at the runs: layerwise ui" in said.out) == (not lost)
    assert said.err == "".join(f"layerwise: trained, not published: {why}; run again to publish it\n" for why in lost)


# --- interruptions -----------------------------------------------------------------------------------------


@dataclass
class Interrupted:
    """One study that was stopped three times, each time otherwise, and then completed."""

    root: Path
    ended: dict[str, Ended] = field(default_factory=dict)
    statuses: dict[str, dict[str, int]] = field(default_factory=dict)
    servers: dict[str, list[int]] = field(default_factory=dict)
    results: dict[str, dict[str, int]] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    temporary: dict[str, list[str]] = field(default_factory=dict)

    def note(self, how: str, ended: Ended) -> None:
        """Remember what a command left behind."""
        self.ended[how], self.statuses[how] = ended, statuses(self.root)
        self.results[how], self.models[how] = results(self.root), models(self.root).total()
        deadline = time.monotonic() + 15
        while servers(self.root) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.servers[how] = servers(self.root)


@contextmanager
def on_terminal(root: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``layerwise`` on a terminal of its own, and the end of it at which the person sits."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\x00\x00\x00\x00")  # 40 lines of 120 characters
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *LAYERWISE, *arguments],
        cwd=root,
        env=clean_environ(TERM="xterm-256color"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_all(process: subprocess.Popen[bytes], terminal: int, until: Callable[[], object], keys: bytes) -> str:
    """Everything a command shows on its terminal; ``keys`` are typed as soon as ``until`` holds."""
    os.set_blocking(terminal, False)
    seen, typed, deadline = b"", False, time.monotonic() + 150
    while time.monotonic() < deadline:
        if not typed and until():
            os.write(terminal, keys)
            typed = True
        try:
            seen += os.read(terminal, 65536)
        except BlockingIOError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        except OSError:  # the last process that held the terminal has ended
            break
    process.wait(10)
    return seen.decode()


@pytest.fixture(scope="module")
def interrupted(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    root = tmp_path_factory.mktemp("interrupted")
    shutil.copy(whole.root / "study.yaml", root)
    # Prefect takes ten seconds to make a database, and there is one.
    shutil.copytree(environment.prefect_home(whole.root), environment.prefect_home(root))
    story, temporary = Interrupted(root), tmp_path_factory.mktemp("temporary")
    environ = clean_environ(TMPDIR=str(temporary))

    with on_terminal(root, "run", "study.yaml") as (process, terminal):
        seen = read_all(process, terminal, lambda: len(results(root)) > 4, b"\x03")
        story.note("Ctrl-C", Ended(process.returncode, plain(seen), ""))

    process = begin(root, "run", "study.yaml")
    wait_until(lambda: len(results(root)) > len(story.results["Ctrl-C"]), process)
    process.terminate()
    story.note("SIGTERM", end(process))

    process = begin(root, "run", "study.yaml", env=environ)
    wait_until(lambda: models(root).total() > story.models["SIGTERM"], process)
    os.killpg(process.pid, signal.SIGKILL)
    story.note("SIGKILL", end(process))
    story.temporary["SIGKILL"] = [str(file.relative_to(temporary)) for file in temporary.rglob("*")]

    story.note("completed", end(begin(root, "run", "study.yaml", env=environ)))
    story.temporary["completed"] = [str(file.relative_to(temporary)) for file in temporary.rglob("*")]
    return story


def test_ctrl_c_ends_a_run_with_one_line(interrupted: Interrupted) -> None:
    """Ctrl-C on a terminal leaves the bar and one line, and exits 1."""
    ended = interrupted.ended["Ctrl-C"]
    assert ended.status == 1
    lines = [line for line in ended.out.splitlines() if line.strip() not in {"", "^C"}]
    assert lines[-1] == GOES_ON
    assert all(re.match(r"(\^C)?(training|reading|publishing) .*\d+/\d+ ", line) for line in lines[1:-1])
    assert f" 1/{STAGES} " in ended.out, "the bar moves"


def test_a_request_to_end_is_honoured_as_ctrl_c(interrupted: Interrupted) -> None:
    """SIGTERM, as `kill` and a machine that shuts down send it, gives one line too, and exit 1."""
    ended = interrupted.ended["SIGTERM"]
    assert (ended.status, ended.err) == (1, GOES_ON + "\n")
    assert all(line.startswith(("training ", "reading ")) for line in ended.out.splitlines()[1:])


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_interrupted_runs_are_closed(interrupted: Interrupted, how: str) -> None:
    """A run that is interrupted leaves its MLflow runs KILLED, none RUNNING."""
    assert interrupted.statuses[how] == {"KILLED": 5}


def test_what_sigkill_leaves_running_is_taken_over(interrupted: Interrupted) -> None:
    """Runs that SIGKILL leaves RUNNING, with half a model perhaps, are FINISHED by the next run."""
    assert interrupted.ended["SIGKILL"].status == -signal.SIGKILL
    assert interrupted.statuses["SIGKILL"] == {"RUNNING": 5}
    assert 0 < interrupted.models["SIGKILL"] < 3 * STAGES
    assert interrupted.statuses["completed"] == {"FINISHED": 5}


def test_what_sigkill_leaves_of_temporary_files_is_removed(interrupted: Interrupted) -> None:
    """TensorFlow's, too: they lie in a folder named by the process, which the next run knows to be gone."""
    left = interrupted.temporary["SIGKILL"]
    assert any("__autograph_generated_file" in name for name in left)
    assert len({name.partition("/")[0] for name in left}) == 1
    assert interrupted.temporary["completed"] == []


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGKILL", "completed"])
def test_no_server_outlives_its_run(interrupted: Interrupted, how: str) -> None:
    """However a run ends, no process of it is left."""
    assert interrupted.servers[how] == []


def test_a_killed_flow_run_is_said_to_have_crashed(interrupted: Interrupted) -> None:
    """The next run says once which one was killed, and has it Crashed in Prefect; each that ended says how."""
    told = [
        re.findall(r"^Killed before, and marked so now: (.+)\. What was stored stays\.$", ended.out, re.MULTILINE)
        for ended in interrupted.ended.values()
    ]
    assert told[:3] == [[], [], []]
    assert [name.count("small") for name in told[3]] == [1]
    assert state.flow_runs(interrupted.root)[1:] == ["Crashed", "Crashed", "Crashed", "Completed"]
    assert state.task_runs_under_way(interrupted.root) == []


def test_no_finished_stage_is_trained_again(interrupted: Interrupted, whole: Whole) -> None:
    """Each run goes on where the one before stopped: no result is ever written a second time."""
    written = list(interrupted.results.values())
    for before, after in itertools.pairwise(written):
        assert before.items() <= after.items()
    assert 2 < len(written[0]) < len(written[1]) <= len(written[2]) < len(written[3])
    assert written[3].keys() == results(whole.root).keys()
    (said,) = re.findall(
        rf"^training {STAGES}/{STAGES} depths, (\d+) stored before  ", interrupted.ended["completed"].out, re.M
    )
    assert 0 < int(said) < STAGES


def test_interruptions_leave_no_trace_in_the_answer(interrupted: Interrupted, whole: Whole) -> None:
    """After three interruptions all is exactly what an uninterrupted run leaves, and is said in the same words."""
    completed = interrupted.ended["completed"]
    assert (completed.status, completed.err) == (0, "")
    assert state.differences(state.of(whole.root), state.of(interrupted.root)) == []
    answers = [said.out[said.out.index("small, arm greedy") :] for said in (completed, whole.ended)]
    assert answers[0] == answers[1]
