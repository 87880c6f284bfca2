"""Runs a command of Layerwise and says whom it calls, where it listens, what it starts, unpickles and writes.

    python -m tests.chaos.audited [--alone] -- run blobs-supervised

runs the command in the working directory and ends with 1 if it did anything that it should not. Every Python process
of it is watched by an audit hook. With ``--alone`` it runs in a network namespace of its own that has loopback and
nothing else, where the kernel counts what anybody, Python or not, tried to send elsewhere.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.test_server import CHECKOUT, clean_environ

RECORDER = Path(__file__).parent / "recorder"

SIOCSIFFLAGS, IFF_UP = 0x8914, 1

KNOWN = (
    r"git -C \S+ (rev-parse|status|diff|ls-files).*",  # which code it is
    r"\S*python\S* -P \S+/flows/server\.py \d+",  # Prefect's server
    r"ps -o lstart= -p \d+",  # when a process began, where there is no /proc
    r"uname -p",  # MLflow, when its telemetry is imported, which is switched off
    r"file -b \S*python\S*",  # croniter, which Prefect brings along
    r"fc-list .*",  # matplotlib, when it looks for fonts for the first time
)
"""Commands that Layerwise and its libraries may start."""

IN_MEMORY = "dask/tokenize.py:_normalize_pickle"
"""Reads what it has pickled itself a line before: Prefect's server imports Dask with its collections."""


@dataclass
class Seen:
    """What a command did.

    Attributes:
        status: what it ended with.
        events: what the hooks noted: process, event, and what there is to say of it.
        listening: addresses at which anybody listened in the namespace; empty without one.
        sent: the kernel's count of packets that had no way out, by protocol; empty without a namespace.
    """

    status: int
    out: str
    err: str
    events: list[list[object]]
    listening: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)

    def of(self, *kinds: str) -> Iterator[list[object]]:
        """What was noted of some kinds of event."""
        return (event[2:] for event in self.events if event[1] in kinds)

    @property
    def processes(self) -> int:
        """How many Python processes were watched."""
        return len({event[0] for event in self.events})

    def faults(self, root: Path) -> list[str]:
        """What it should not have done, in words; ``root`` is the folder that it may write to."""
        called = [str(host) for host, *_ in self.of("connect", "bind", "lookup", "sendto", "sendmsg")]
        commands = {" ".join(map(str, command)): callers for command, callers in self.of("started")}
        files = [(str(name), callers) for name, callers in self.of("pickle file")]
        unpickled = [(str(name), callers) for name, callers in self.of("unpickled")]
        written = {str(path) for (path,) in self.of("write")}
        return [
            *(f"called {host}" for host in dict.fromkeys(called) if not is_loopback(host)),
            *(f"listened at {host}" for host in self.listening if not is_loopback(host)),
            *(f"{count} packets without a way out ({what})" for what, count in self.sent.items() if count),
            *(
                f"started {command} in {', '.join(callers[-5:])}"
                for command, callers in commands.items()
                if not any(re.fullmatch(one, command) for one in KNOWN)
            ),
            *(f"unpickled the file {name} in {callers[0]}" for name, callers in files),
            *(f"unpickled {name} in {callers[0]}" for name, callers in unpickled if IN_MEMORY not in str(callers[0])),
            *(f"opened a browser at {url}" for (url,) in self.of("browser")),
            *(f"wrote {path}" for path in sorted(written) if not may_be_written(path, root)),
        ]

    def report(self) -> str:
        """What was seen, counted."""
        hosts = Counter(str(host) for host, *_ in self.of("connect", "bind", "lookup", "sendto", "sendmsg"))
        callers = Counter(_shortened(found) for _, found in self.of("unpickled", "pickle file"))
        commands = Counter(Path(str(command[0])).name for command, _ in self.of("started"))
        lines = [
            f"{self.processes} Python processes watched",
            f"called, bound or looked up: {_counted(hosts)}",
            f"listening in the namespace: {', '.join(sorted(self.listening)) or 'not looked at'}",
            f"packets without a way out: {self.sent or 'not counted'}",
            f"commands started: {_counted(commands)}",
            f"unpickled by: {_counted(callers)}",
        ]
        return "\n".join(lines)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own; none at all is where a server listens for itself."""
    if host in {"localhost", ""}:
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_be_written(path: str, root: Path) -> bool:
    """Whether a file is the root's, a temporary one, none that stays, or matplotlib's list of fonts."""
    places = (
        root,
        Path(tempfile.gettempdir()),
        Path("/dev"),
        Path("/proc/self"),
        Path.home() / ".cache" / "matplotlib",
    )
    return any(Path(path).is_relative_to(place) for place in places)


LAYERWISE = (sys.executable, "-m", "flows.cli")


def watched(command: Sequence[str], *, cwd: Path, alone: bool) -> Seen:
    """Run a command with the hooks in every Python process of it.

    Args:
        command: a Python program, and what it is given.
        cwd: the folder to run it in, which is its root.
        alone: whether it runs in a network namespace of its own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        notes, counts = Path(scratch) / "notes", Path(scratch) / "counts"
        environment = clean_environ(
            PYTHONPATH=f"{RECORDER}{os.pathsep}{CHECKOUT}", LAYERWISE_AUDIT=str(notes), PYTHONDONTWRITEBYTECODE="1"
        )
        if alone:
            # The one who counts must not be watched itself: it is started without the recorder, and adds it.
            inside = [sys.executable, "-m", "tests.chaos.audited", "--inside", str(counts), "--", *command]
            command = [*(namespace() or ()), *inside]
            environment = environment | {"PYTHONPATH": str(CHECKOUT)}
        ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        events = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        seen = Seen(ended.returncode, ended.stdout, ended.stderr, events)
        if alone and counts.exists():
            counted = json.loads(counts.read_text())
            seen.listening, seen.sent = set(counted["listening"]), counted["sent"]
        return seen


def namespace() -> list[str] | None:
    """How a command is put into a network namespace of its own; None where that is not permitted."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


# --- inside the namespace ----------------------------------------------------------------------------------


def inside(counts: Path, command: Sequence[str]) -> int:
    """Run a command with loopback alone, and note who listens meanwhile and what had no way out."""
    _raise_loopback()
    before, listening, done = _sent(), set(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(listening, done))
    watcher.start()
    environment = os.environ | {"PYTHONPATH": f"{RECORDER}{os.pathsep}{CHECKOUT}"}
    status = subprocess.run(command, env=environment, check=False).returncode
    done.set()
    watcher.join()
    sent = {what: count - before[what] for what, count in _sent().items()}
    counts.write_text(json.dumps({"listening": sorted(listening), "sent": sent}))
    return status


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _watch(listening: set[str], done: threading.Event) -> None:
    while not done.wait(0.1):
        listening |= set(listeners())


def listeners(inodes: set[str] | None = None) -> list[str]:
    """Addresses at which somebody listens for TCP, of this namespace; of some sockets alone, if they are given."""
    found = []
    for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and (inodes is None or fields[9] in inodes):
                found.append(_address(fields[1].partition(":")[0], kind))
    return found


def _address(digits: str, kind: socket.AddressFamily) -> str:
    """An address as the kernel prints it: words of four bytes in this machine's order."""
    words = [digits[start : start + 8] for start in range(0, len(digits), 8)]
    return socket.inet_ntop(kind, b"".join(struct.pack("=I", int(word, 16)) for word in words))


def _sent() -> dict[str, int]:
    """Packets of this namespace that had no way out, and datagrams, of which there should be none at all."""
    found = {}
    for line in Path("/proc/net/snmp6").read_text().splitlines():
        name, count = line.split()
        if name in {"Ip6OutNoRoutes", "Udp6OutDatagrams"}:
            found[name] = int(count)
    lines = Path("/proc/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, *columns = names.split()
        counted = dict(zip(columns, map(int, values.split()[1:]), strict=True))
        found |= {f"{protocol}{name}": counted[name] for name in ("OutNoRoutes", "OutDatagrams") if name in counted}
    return found


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{what} ({count})" for what, count in counter.most_common()) or "nothing"


def _shortened(callers: Sequence[str]) -> str:
    return callers[0].rpartition("site-packages/")[2].rpartition("lib/python3.11/")[2] if callers else "?"


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    ours, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    if ours[:1] == ["--inside"]:
        return inside(Path(ours[1]), command)
    alone = ours == ["--alone"]
    if alone and namespace() is None:
        print("no network namespace may be made here: run without --alone")
        return 1
    begun = time.monotonic()
    seen = watched([*LAYERWISE, *command], cwd=Path.cwd(), alone=alone)
    print(seen.out + seen.err)
    print(f"ended with {seen.status} after {time.monotonic() - begun:.0f} s")
    print(seen.report())
    faults = seen.faults(Path.cwd())
    print("\n".join(faults) or "nothing that it should not have done")
    return 1 if faults or seen.status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
