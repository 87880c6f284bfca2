"""Servers that a command starts beside it: they end with it, and so do the workers that they have."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from flows import environment
from flows.pages import running

WORKER = """
import signal, socket, sys, time
def end(*_):
    time.sleep(float(sys.argv[2]))
    sys.exit()
signal.signal(signal.SIGTERM, end)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(60)
"""

LEADER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WORKER!r}, *sys.argv[1:]])
time.sleep(60)
"""
"""Ends at once when it is asked to, as MLflow's server of a model does, while its worker takes its time."""


def is_open(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.7, 30.0])
def test_a_server_has_ended_when_its_worker_has(tmp_path: Path, seconds: float) -> None:
    """Its port is free then: a worker that takes its time is waited for, and one that takes too long is killed."""
    environment.private_folder(tmp_path).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("any", [sys.executable, "-c", LEADER, str(port), str(seconds)], tmp_path, {}, tmp_path) as server:
        deadline = time.monotonic() + 30
        while not is_open(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not is_open(port)
    assert server.returncode is not None
