"""Commands that die, or find the disk full or unreadable, at the n-th thing they do to the files of a root.

``python -m tests.chaos.crashing`` is a process that has imported all that a run needs, has :file:`interposer.c` in it,
and forks a child for every command it is told of: a trial then costs what the command does, not what it imports.
:class:`Stage` starts it and tells it.

>>> with Stage(folder) as stage:  # doctest: +SKIP
...     stage.play(root, at=17, action="kill")
-9
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from tests.test_server import CHECKOUT, clean_environ

SOURCE = Path(__file__).with_name("interposer.c")
ACTIONS = ("kill", "torn", "full")
IMPORTED = (
    "tensorflow",
    "mlflow.keras",
    "mlflow.store.tracking.sqlalchemy_store",
    "flows.crashed",
    "flows.study",
    "layerwise.models",
    "tasks.publishing",
)


@dataclass(frozen=True)
class Event:
    """One thing done to a file of a root.

    Attributes:
        number: from 1.
        kind: create, write, fsync, rename, unlink, mkdir, truncate; frame and commit in a write-ahead log.
        path: below the root.
        size: bytes of a write.
    """

    number: int
    kind: str
    path: str
    size: int

    @property
    def sort(self) -> str:
        """The event without what differs from run to run."""
        path = re.sub(r"(m-)?[0-9a-f]{32}", "ID", self.path)
        return f"{self.kind} {re.sub(r'writing~.*', 'writing', path)}"


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


class Stage:
    """The process that plays commands; ends with the block."""

    def __init__(self, folder: Path) -> None:
        found = compiler()
        assert found is not None
        library = folder / "interposer.so"
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wno-format-truncation", "-o", str(library)]
        subprocess.run([found, *flags, str(SOURCE), "-ldl", "-lpthread"], check=True)
        self._folder = folder
        with (folder / "stage.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.crashing", str(folder / "home")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=CHECKOUT,
                env=clean_environ(LD_PRELOAD=str(library)),
            )
        assert self._answer() == "ready"

    def play(
        self, root: Path, *, at: int = 0, action: str = "", unreadable: str = "", command: tuple[str, ...] = ()
    ) -> int:
        """Run a command in ``root`` to its end; returns its exit status, -9 where it died.

        Args:
            root: the root, which is the working directory as well.
            at: at which event the action takes place; never, if 0.
            action: one of :data:`ACTIONS`.
            unreadable: part of the paths of files that cannot be read.
            command: its arguments; ``run study.yaml`` if left out, and ``store`` only opens the tracking store.
        """
        told = {"root": str(root), "at": at, "action": action, "unreadable": unreadable}
        words = {"command": command or ("run", "study.yaml"), "folder": str(self._folder)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**told, **words}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def events(self) -> list[Event]:
        """What the last command did to the files of its root, up to where it died."""
        lines = (self._folder / "events").read_text().splitlines()
        parts = (re.fullmatch(r"(\d+) (\w+) (.*) (\d+)", line) for line in lines)
        return [Event(int(part[1]), part[2], part[3], int(part[4])) for part in parts if part]

    def said(self) -> tuple[str, str]:
        """What the last command wrote to standard output and standard error."""
        return (self._folder / "out").read_text(), (self._folder / "err").read_text()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self._folder / "stage.log").read_text()
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # its input ends, and with it the process


def _import_all() -> None:
    """Import what a run imports on its way. Nothing of it may start a thread of Python's: a fork would lose it."""
    for name in IMPORTED:
        import_module(name)


def _play(told: dict[str, Any]) -> int:
    """Fork, let the child do as it is told, and wait for its end."""
    child = os.fork()
    if child == 0:
        status = 99
        with contextlib.suppress(BaseException):
            status = _act(told)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _act(told: dict[str, Any]) -> int:
    from flows import cli, environment

    folder, root = Path(told["folder"]), Path(told["root"])
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    faulthandler.enable()  # for the one process of a thousand that ends with a segmentation fault
    os.chdir(root)
    os.environ |= {"LAYERWISE_ROOT": str(root), "CHAOS_UNREADABLE": told["unreadable"]}
    (folder / "events").unlink(missing_ok=True)
    arm, words = ctypes.CDLL(None).chaos_arm, (str(root), told["action"], str(folder / "events"))
    ctypes.CDLL(None).setenv(b"CHAOS_UNREADABLE", told["unreadable"].encode(), 1)
    arm(words[0].encode(), ctypes.c_long(told["at"]), words[1].encode(), words[2].encode())
    if told["command"] == ["store"]:
        from tasks.tracking.store import open_store

        environment.prepare(root)
        open_store(root)
        return 0
    sys.argv = ["layerwise", *told["command"]]
    status = cli.run_command()
    sys.stdout.flush()
    return status


def main() -> None:
    """The process that forks: one line of JSON in, one out."""
    from flows import environment, server

    os.environ.pop("LD_PRELOAD")  # it is in this process, and the server is to be without it
    home = Path(sys.argv[1])
    environment.prepare(home)
    with server.start(home) as running:
        _import_all()
        running.wait_ready()
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            print(json.dumps(_play(json.loads(line))), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch  # what dies in the middle of it leaves it there
        main()
