"""Whom a run calls, where it listens, what it starts and unpickles: nobody, on loopback, little, and nothing."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from flows import environment
from tests.chaos import roots
from tests.chaos.audited import LAYERWISE, Seen, is_loopback, listeners, namespace, watched
from tests.test_cli import begin, end, free_ports
from tests.test_server import clean_environ

WRONG = """
import os, pickle, socket, subprocess, sys
from pathlib import Path
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as outside:
        outside.settimeout(0.2)
        try:
            outside.connect(("192.0.2.1", 80))
            outside.send(b"x")
        except OSError:
            pass
try:
    socket.getaddrinfo("telemetry.example", 443)
except OSError:
    pass
with socket.socket() as listener:
    listener.bind(("0.0.0.0", 0))
    listener.listen()
    pickle.load(open(sys.argv[1], "rb"))
    subprocess.run(["true", "evil"])
    subprocess.run([sys.executable, "-c", "import pickle; pickle.loads(" + repr(pickle.dumps(print)) + ")"])
    import time
    time.sleep(0.5)
Path(sys.argv[2]).write_text("x")
"""
"""A program that does all that a run must not."""


def permitted(*, alone: bool) -> bool:
    """Whether the trial can be made here; a namespace may not be, and then the test says so."""
    if alone and namespace() is None:
        pytest.skip("no network namespace may be made here")
    return alone


@pytest.mark.parametrize("alone", [False, True])
def test_the_recorder_sees_what_a_run_must_not_do(tmp_path: Path, alone: bool) -> None:
    """Calls, look-ups, open doors, pickles, foreign commands and stray files are all reported, of children too."""
    stored, stray = tmp_path / "stored", Path("/var/tmp") / f"layerwise-stray-{os.getpid()}"  # noqa: S108 - by intent
    stored.write_bytes(pickle.dumps(os.path.join))
    seen = watched([sys.executable, "-c", WRONG, str(stored), str(stray)], cwd=tmp_path, alone=permitted(alone=alone))
    stray.unlink()
    faults = seen.faults(tmp_path)
    for expected in (
        r"called 192\.0\.2\.1",
        r"called telemetry\.example",
        r"called 0\.0\.0\.0",
        r"started true evil in ",
        rf"unpickled the file {stored} in ",
        r"unpickled posixpath\.join in ",
        r"unpickled builtins\.print in ",
        rf"wrote {stray}",
        *([r"listened at 0\.0\.0\.0", r"\d+ packets without a way out \(Ip:OutNoRoutes\)"] if alone else []),
    ):
        assert any(re.match(expected, fault) for fault in faults), (expected, faults)
    assert (seen.status, seen.processes) == (0, 2)


def sound(seen: Seen, root: Path) -> None:
    """Assert that a command was answered and did nothing that it should not."""
    print(seen.report())
    assert (seen.status, seen.faults(root)) == (0, []), seen.err


@pytest.mark.chaos
@pytest.mark.parametrize("alone", [False, True])
def test_nothing_leaves_the_machine_and_nothing_is_unpickled(tmp_path: Path, alone: bool) -> None:
    """A run from an empty root, and every command on what it left: loopback alone, known commands, no pickle at all."""
    alone = permitted(alone=alone)
    roots.write_study(tmp_path)
    run = watched([*LAYERWISE, "run", "study.yaml"], cwd=tmp_path, alone=alone)
    sound(run, tmp_path)
    assert run.processes == 2
    assert any(run.of("connect"))
    assert run.listening == ({"127.0.0.1"} if alone else set())
    for command in (
        ["run", "study.yaml"],
        ["show", "study.yaml"],
        ["report", "three-arms", "--no-open"],
        ["compare", "three-arms/greedy", "three-arms/tuned"],
        ["reproduce", "three-arms", "--allow-other-code"],
        ["doctor"],
        ["clean"],
    ):
        sound(watched([*LAYERWISE, *command], cwd=tmp_path, alone=alone), tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("alone", [False, True])
def test_the_main_job_calls_nobody(tmp_path: Path, alone: bool) -> None:
    """The same of the study that `make run` trains: ten layers, thirty seeds, every model."""
    run = watched([*LAYERWISE, "run", "blobs-supervised"], cwd=tmp_path, alone=permitted(alone=alone))
    sound(run, tmp_path)
    assert run.listening == ({"127.0.0.1"} if alone else set())


@pytest.mark.chaos
def test_the_pages_call_nobody(tmp_path: Path) -> None:
    """`layerwise ui`, with MLflow's and Prefect's servers, sends nothing anywhere and listens on loopback alone."""
    permitted(alone=True)
    ui = [*LAYERWISE, "ui", *free_ports()]
    seen = watched(["timeout", "--signal=INT", "120", *ui], cwd=tmp_path, alone=True)
    print(seen.report())
    assert "Ctrl-C stops both." in seen.out, seen.err
    assert seen.listening == {"127.0.0.1"}
    assert {what: count for what, count in seen.sent.items() if count} == {}
    assert [fault for fault in seen.faults(tmp_path) if fault.startswith(("called", "unpickled", "wrote"))] == []


def sockets(root: Path) -> set[str]:
    """The sockets of every process of a root."""
    mark = f"LAYERWISE_ROOT={root}".encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
                found |= {link[8:-1] for link in links if link.startswith("socket:[")}
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.chaos
def test_pages_are_served_on_loopback_alone(tmp_path: Path) -> None:
    """While `layerwise ui` serves, none of its processes listens at any other address, by the kernel's own table."""
    environment.private_folder(tmp_path).mkdir(mode=0o700)
    process = begin(tmp_path, "ui", *free_ports(), env=clean_environ(LAYERWISE_ROOT=str(tmp_path)))
    deadline = time.monotonic() + 150
    while len(found := listeners(sockets(tmp_path))) < 2 or not _says_so(process):
        assert process.poll() is None, end(process)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    found += listeners(sockets(tmp_path))
    os.killpg(process.pid, signal.SIGINT)
    end(process)
    assert len(found) >= 4
    assert all(is_loopback(address) for address in found), found


def _says_so(process) -> bool:
    """Whether the pages have been announced; reads what there is of the output without waiting."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return "Ctrl-C stops both" in (process.stdout.read() or "")
