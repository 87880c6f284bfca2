"""Prefect's embedded server, started as a child of our own so that it overlaps with our imports.

Prefect starts the same server by itself when a flow begins, and waits for it. Started first, it is ready by
the time TensorFlow is imported. Three things are made certain here:

* The parent binds the port and hands the socket over, so the address is known at once and cannot be lost
  between choice and use.
* The child watches a pipe that only the parent holds open. It ends when the parent is gone, however it went.
* Creating and migrating the database is done by one server at a time.

This file is also the child's program: ``python -P flows/server.py <socket>``.
The parent imports no part of Prefect until a flow is about to run.
"""

import atexit
import base64
import gc
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    import uvicorn

LAST_WORDS = 65536
"""Bytes at the end of the server's log in which the reason stands that it ended for."""

LOST = signal.SIGUSR1
"""What wakes the main thread, wherever it waits, when the server has gone."""

_server_is_gone = threading.Event()

START_TIMEOUT = 120.0
STOP_TIMEOUT = 5.0

PATIENCE_WITH_EVENTS = timedelta(seconds=20)
"""How long a lasting server holds an event back for the one that should have come before it."""


SERVER_LOGIN, CLIENT_LOGIN = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""A word that server and clients share, new for each server: loopback is open to every user of the machine."""


class ServerProblem(RuntimeError):
    """Prefect's server does not answer; the message is one line: what happened, and where to look."""


class ServerRefused(ServerProblem):
    """A team's Prefect server does not let us in; somebody has to correct what names it."""


class ServerLost(BaseException):
    """Prefect's server has gone while a flow runs; not an ``Exception``, since one block after the other would fail."""


class Server:
    """A Prefect API for this process and its workers; ``url`` is valid at once, and answered once ready."""

    def __init__(self, url: str, log: Path | None = None, process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self._log = log
        self._process = process

    @property
    def pid(self) -> int | None:
        """The child's process id; None for a server that is not ours."""
        return self._process.pid if self._process else None

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Return when the server answers; raise :class:`ServerProblem` when it will not."""
        deadline = time.monotonic() + timeout
        while not answers(self.url):
            if self._process is None:
                raise ServerProblem(
                    f"PREFECT_API_URL is {self.url}, but nothing answers there;"
                    " start that server, or unset PREFECT_API_URL to use one of our own."
                )
            if self._process.poll() is not None:
                raise ServerProblem(
                    f"Prefect's server ended with status {self._process.returncode} while starting; {self._remedy()}"
                )
            if time.monotonic() > deadline:
                raise ServerProblem(f"Prefect's server did not answer within {timeout:.0f} s; see {self._log}.")
            time.sleep(0.05)

    @contextmanager
    def ready(self, timeout: float = START_TIMEOUT) -> Generator[None]:
        """Wait for the server, then run the body, which calls flows, with the settings that suit it.

        Raises :class:`ServerProblem` when the server goes meanwhile: at once if it is ours, whose end is seen.
        """
        self.wait_ready(timeout)
        try:
            if self._process is None:
                yield
                return
            from prefect.settings import temporary_settings

            # Heartbeats let a lasting server notice crashed runs. Ours ends with the run, and stopping the heart
            # would hold every flow back for up to a second. The environment has no way to say None.
            with temporary_settings({"flows.heartbeat_frequency": None}), _watched(self._process):
                yield
        except (Exception, ServerLost) as error:
            if gone := self._gone(error):
                raise ServerProblem(f"{gone}; nothing finished is lost: run again, and it goes on there.") from None
            if failed := self._failed(error):
                raise ServerProblem(failed) from None
            raise

    def _gone(self, error: BaseException) -> str | None:
        """How the server has gone, if that is what an error comes from."""
        if self._process is not None and (status := self._process.poll()) is not None:
            _server_is_gone.set()
            return f"Prefect's server ended with status {status} during the run, see {self._log}"
        if is_lost(error):
            _server_is_gone.set()
            return f"Prefect's server at {self.url} does not answer any more"
        return None

    def _failed(self, error: BaseException) -> str | None:
        """What a server of ours had wrong with itself, and what to do, if that is what an error comes from."""
        import httpx

        from tasks.causes import causes

        statuses = [found.response.status_code for found in causes(error) if isinstance(found, httpx.HTTPStatusError)]
        if self._process is None or not statuses or statuses[0] < httpx.codes.INTERNAL_SERVER_ERROR:
            return None
        return f"Prefect's server failed during the run (status {statuses[0]}); {self._remedy()}"

    def _remedy(self) -> str:
        """What to do about a server of ours that does not start, or fails, as its log and its disk say."""
        from tasks import durable, scratch

        if self._log is None:
            return "see its log."
        home, said = self._log.parent, self._log.read_bytes()[-LAST_WORDS:]
        if not durable.has_room(home):
            return f"the disk of {home} is full: free space on it, and run again."
        if b"disk is full" in said and scratch.is_why(home):
            return scratch.in_words()
        if b"malformed" in said or b"file is not a database" in said:
            return (
                f"its database {home / 'prefect.db'} is damaged: move it away, and run again. It holds what Prefect's"
                " pages show of earlier runs; no result is in it."
            )
        return f"see {self._log}."

    def stop(self) -> None:
        """Deliver what Prefect still has to report, then end the server; does nothing for one not ours."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            deliver()
        _name_to_clients(None)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class LastingServer(Server):
    """The server that schedules run on, on a port of its choice; when it ends, :meth:`revive` starts it again.

    The parent keeps the port. Whoever calls while no server is there waits until the next one answers.
    """

    def __init__(self, root: Path, port: int) -> None:
        from flows import environment

        log = environment.prefect_home(root) / "schedule-server.log"
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise environment.EnvironmentProblem(
                f"port {port} is taken; choose another with --prefect-port, or stop what uses it."
            ) from None
        self.login_file = environment.prefect_home(root) / "login"
        self.login = _lasting_login(self.login_file)
        page = f"http://127.0.0.1:{port}"
        self._environ = environment.lasting_server_environment(root, page) | {SERVER_LOGIN: self.login}
        super().__init__(f"{page}/api", log)
        self.revive()
        _name_to_clients(self.url, self.login)

    def revive(self) -> bool:
        """Start the server if it is not there; returns whether that was so."""
        if self._process is not None and self._process.poll() is None:
            return False
        with (self._log or Path(os.devnull)).open("ab") as output:
            self._process = _spawn(self._listener, output, self._environ)
        return True

    def stop(self) -> None:
        """End the server, and let go of the port."""
        super().stop()
        self._listener.close()


def _lasting_login(file: Path) -> str:
    """The word for a server that lasts, which a browser should not have to be told anew; nobody else may read it."""
    with suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(f"layerwise:{secrets.token_urlsafe(24)}")
    return file.read_text()


def start(root: Path) -> Server:
    """Start the server of ``root`` and return at once; ``PREFECT_API_URL`` names it from here on.

    Where ``PREFECT_API_URL`` is set already, that server is used and none is started.

    Raises:
        ServerRefused: if that server does not let us in, or its address is none.
    """
    from flows import environment

    if url := os.environ.get("PREFECT_API_URL"):
        require_entry(url)
        return Server(url)
    log = environment.prefect_home(root) / "server.log"
    login = f"layerwise:{secrets.token_urlsafe(32)}"
    with socket.socket() as listener, log.open("ab") as output:
        listener.bind(("127.0.0.1", 0))
        process = _spawn(listener, output, environment.server_environment(root) | {SERVER_LOGIN: login})
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    _name_to_clients(url, login)
    return Server(url, log, process)


def end_process(status: int) -> NoReturn:
    """End this process when all is done, and do not take its libraries apart.

    That takes two seconds where TensorFlow is loaded, beside threads of its own that go on, and serves nobody. What
    libraries have registered for the end is done, but not where Prefect's threads would first try for minutes to reach
    a server that is gone, nor after a request to end.
    """
    from flows import signals

    _flush()
    signals.end_at_once(status)
    if not _server_is_gone.is_set():
        threading._shutdown()  # noqa: SLF001 # ty: ignore[missing-attribute] - as the standard library ends its own worker processes
        atexit._run_exitfuncs()  # noqa: SLF001
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # which it is where a shell has closed it, as with `>&-`
            with suppress(OSError, ValueError):
                stream.flush()


def is_lost(error: BaseException) -> bool:
    """Whether an error comes from Prefect's server being gone: its client, and no other here, speaks through httpx."""
    import httpx

    from tasks.causes import causes

    return any(isinstance(found, ServerLost | httpx.TransportError) for found in causes(error))


@contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Generator[None]:
    """Raise :class:`ServerLost` in the body, where it stands, when the process ends.

    Prefect's client would try for a minute, at every request. From then on it asks once.
    """
    if threading.current_thread() is not threading.main_thread():  # nowhere else do signals arrive
        yield
        return
    from prefect.settings import temporary_settings

    over, telling, asking_once = threading.Event(), threading.Lock(), ExitStack()

    def lost(*_: object) -> None:
        if not over.is_set():
            asking_once.close()  # of the time before, where a callback swallowed what was raised
            asking_once.enter_context(temporary_settings({"client.max_retries": 0}))
            raise ServerLost

    def watch() -> None:
        process.wait()
        with telling:
            if not over.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, LOST)

    before = signal.signal(LOST, lost)
    threading.Thread(target=watch, name="Prefect's server", daemon=True).start()
    try:
        yield
    finally:
        with telling:  # once it is over no signal is sent, which nobody would handle
            over.set()
        signal.signal(LOST, before)


def _spawn(listener: socket.socket, output: IO[bytes], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P keeps this folder, and the user's, off the module path: a study.py there is not Prefect's.
        [sys.executable, "-P", __file__, str(listener.fileno())],
        stdin=subprocess.PIPE,  # nothing is ever written; its end tells the child that we are gone
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environ,
        cwd=environ["PREFECT_HOME"],  # where nobody else puts settings
        pass_fds=[listener.fileno()],
        # Ctrl-C reaches the whole foreground group; the flow must still be able to report how it ended.
        start_new_session=True,
    )


def _name_to_clients(url: str | None, login: str | None = None) -> None:
    """Tell this process and its children of the server, also where Prefect has read its settings already."""
    for name, value in (("PREFECT_API_URL", url), (CLIENT_LOGIN, login)):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()


def require_entry(url: str) -> None:
    """Refuse a team's server that would refuse us, before seconds go into imports and minutes into training.

    Raises:
        ServerRefused: if it does not let us in, or its address is none; one line.
    """
    from urllib.error import HTTPError

    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url) or not _has_host_and_port(url):
        received = "an address with a password in it" if "@" in url else repr(url)
        raise ServerRefused(
            f"PREFECT_API_URL is {received}; expected http(s)://host:port/api, and the password in {CLIENT_LOGIN}."
        )
    try:
        with _open(f"{url}/admin/version", _credentials()):
            return
    except HTTPError as error:
        error.close()
        if error.code not in (401, 403):  # Prefect Cloud, for one, has no such page
            return
        received = f"no {CLIENT_LOGIN}" if not _credentials() else f"a {CLIENT_LOGIN} that is not the server's"
        raise ServerRefused(
            f"PREFECT_API_URL is {url}, which does not let us in ({error.code}): received {received}; set it to the"
            " server's user:password, or unset PREFECT_API_URL to use a server of our own."
        ) from None
    except OSError:
        return  # whether it is there is asked when it is needed


def _has_host_and_port(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        address = urlsplit(url)
        return bool(address.hostname) and address.port != 0
    except ValueError:  # brackets without an address in them, or a port that is no number
        return False


def _credentials() -> dict[str, str]:
    """The header by which Prefect's client says who it is."""
    if word := os.environ.get(CLIENT_LOGIN):
        return {"Authorization": f"Basic {base64.b64encode(word.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _open(url: str, headers: dict[str, str] | None = None) -> Any:
    from urllib.request import ProxyHandler, Request, build_opener

    # A proxy configured for the outside world does not know our loopback.
    opener = build_opener(ProxyHandler({})) if url.startswith("http://127.0.0.1:") else build_opener()
    return opener.open(Request(url, headers=headers or {}), timeout=5)  # noqa: S310 - http(s), as has been required


def answers(url: str) -> bool:
    """Whether something answers at the URL of a Prefect API."""
    from urllib.error import HTTPError

    try:
        with _open(f"{url}/health"):
            return True
    except HTTPError as error:
        error.close()
        return True  # a team's server may want a login here; it is there, which is all that is asked
    except OSError:
        return False


def deliver() -> None:
    """Wait until Prefect's background threads have sent the task runs' states and logs, and end these threads."""
    if worker := sys.modules.get("prefect.events.worker"):
        worker.EventsWorker.drain_all(timeout=STOP_TIMEOUT)
    if handlers := sys.modules.get("prefect.logging.handlers"):
        handlers.APILogWorker.drain_all(timeout=STOP_TIMEOUT)


def _end_with_parent() -> None:
    """Block until the parent's end of the pipe is closed, then end this process, gently if it can."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT)
    os._exit(1)


def _one_at_a_time(config: "uvicorn.Config", lock: Path) -> "uvicorn.Server":
    """A uvicorn server that starts up, and so migrates the database, while it holds ``lock``."""
    import uvicorn
    from filelock import FileLock

    class OneAtATime(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            with FileLock(lock):
                await super().startup(sockets)

    return OneAtATime(config)


def _let_wait() -> None:
    """Have transactions of a server with several clients and services wait for one another.

    SQLite refuses at once one that has read and then wants to write when another has written meanwhile. Prefect takes
    up the event concerned again, and calls for it, for the second time, whoever is to be told. One that says when it
    begins that it will write has its turn. To go when Prefect's evaluation of triggers does.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_to_write(self: object, session: object, with_for_update: bool = True) -> object:  # noqa: ARG001
        return begin(self, session, with_for_update=True)  # ty: ignore[invalid-argument-type]

    AioSqliteConfiguration.begin_transaction = begin_to_write  # ty: ignore[invalid-assignment]


def _let_catch_up() -> None:
    """Have automations hear of a slot soon, also where it was planned only just before.

    What happens to a run within five minutes of its planning, Prefect 3.8.8 holds back for a quarter of an hour until
    it has heard of the planning, of which its scheduler does not tell. To go when it does.
    """
    from prefect.server.events.ordering import memory

    memory.PRECEDING_EVENT_LOOKBACK = PATIENCE_WITH_EVENTS


def _serve(listener: socket.socket) -> None:
    """The child's whole life."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # nothing that imports make is garbage, and looking for it takes a quarter of their time
    import uvicorn
    from prefect.server.api.server import create_app

    if "PREFECT__SERVER_EPHEMERAL" not in os.environ:
        _let_wait()
        _let_catch_up()
    gc.freeze()
    gc.enable()
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    lock = Path(os.environ["PREFECT_HOME"]) / "start.lock"
    _one_at_a_time(config, lock).run(sockets=[listener])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
