"""Notes what a Python process does that matters for its safety; Python imports this first where PYTHONPATH names it.

One line of JSON for each event goes to the file that ``LAYERWISE_AUDIT`` names, so that a process's children are seen
as well. What is written in C and asks Python nothing is not seen here, but by the kernel's counters (see audited.py).
"""

import json
import os
import pickle
import sys
import threading

_FILE = os.open(os.environ["LAYERWISE_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
_here = threading.local()
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _note(event, *what):
    if getattr(_here, "noting", False):
        return
    _here.noting = True
    try:
        line = json.dumps([os.getpid(), event, *what], default=str) + "\n"
        os.write(_FILE, line.encode("utf-8", "backslashreplace"))
    finally:
        _here.noting = False


def _caller():
    """Who is at it: the functions on the stack, innermost first, without pickle's own."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 12:
        code = frame.f_code
        if code.co_filename != __file__:
            found.append(f"{code.co_filename}:{code.co_name}")
        frame = frame.f_back
    return found


def _text(value):
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _on_socket(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        _note("lookup", _text(arguments[0]))
    elif event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple):
            _note(event.partition(".")[2], _text(address[0]), address[1])


def _on_open(arguments):
    path, mode, flags = arguments
    if isinstance(path, int) or path is None:
        return
    written = any(mark in mode for mark in "wax+") if mode else (flags or 0) & _WRITING
    if written:
        _note("write", os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - as it was said, links and all


def _hook(event, arguments):
    if event.startswith("socket."):
        _on_socket(event, arguments)
    elif event == "open":
        _on_open(arguments)
    elif event == "pickle.find_class":
        _note("unpickled", f"{arguments[0]}.{arguments[1]}", _caller())
    elif event == "subprocess.Popen":
        words = [arguments[1]] if isinstance(arguments[1], str) else arguments[1]
        _note("started", [str(part) for part in words], _caller())
    elif event in ("os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn"):
        _note("started", [event, str(arguments[0])], _caller())
    elif event == "os.fork":
        _note("forked", _caller())
    elif event == "webbrowser.open":
        _note("browser", str(arguments[0]))


def _from_file(load):
    def watched(file, *arguments, **options):
        _note("pickle file", str(getattr(file, "name", type(file).__name__)), _caller())
        return load(file, *arguments, **options)

    return watched


_note("begun")
sys.addaudithook(_hook)
# A pickle of plain values names no class, and raises no event.
pickle.load = _from_file(pickle.load)
