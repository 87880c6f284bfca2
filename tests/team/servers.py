"""A team's servers on loopback: PostgreSQL, MLflow with basic auth, Prefect with its login, set up as in docs/team.md.

PostgreSQL is the distribution's. It refuses to run as root, so that its data lie in a folder of an account that has
no rights, outside of the folders of tests, which only their owner enters.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from flows import environment
from tests.trackers import TeamServer, unused_port

ACCOUNTS = ("postgres", "nobody")
"""Whom the database server runs as where we are root: the first that there is."""

WORDS = {
    "database": "a-word/for the+database",
    "admin": "administers-tracking",
    "ada": "Ada's long: pa%ssword@1",
    "bob": "Bob's own password 22",
    "prefect": "team:flows are run: here/1",
}
"""What each asks for, with characters that an address must escape."""


class NoPostgres(RuntimeError):
    """There is no PostgreSQL here, or nobody to run it as; the message says which."""


def programs() -> Path:
    """The folder of PostgreSQL's server programs, the newest; Debian keeps them off PATH.

    Raises:
        NoPostgres: if there are none.
    """
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        places.append(Path(found).parent)
    if not places:
        raise NoPostgres("PostgreSQL is not installed; expected its server programs: apt-get install postgresql")
    return max(places, key=lambda place: (place.parent.name.isdecimal(), place.parent.name))


def account() -> str | None:
    """Whom to run the server as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoPostgres(f"we are root, which PostgreSQL refuses, and there is no account of {' or '.join(ACCOUNTS)}")


class Postgres:
    """A PostgreSQL server on loopback with data of its own, which asks everybody for a password.

    ``safe=False`` leaves out what makes commits outlive a power cut.
    """

    def __init__(self, *, safe: bool = True) -> None:
        self.bin, self.account, self.safe, self.port = programs(), account(), safe, unused_port()
        self.place = Path(tempfile.mkdtemp(prefix="layerwise-postgres-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> None:
        data, secret = self.place / "data", self.place / "word"
        secret.write_text(WORDS["database"])
        if self.account:
            for path in (self.place, secret):
                shutil.chown(path, self.account)
        made = [str(self.bin / "initdb"), "-D", str(data), "-U", "postgres", "--pwfile", str(secret), "-A"]
        with (self.place / "log").open("ab") as log:
            self._popen([*made, "scram-sha-256", "-E", "UTF8", "--locale", "C"], log).wait(120)
            where = ["-h", "127.0.0.1", "-p", str(self.port), "-c", f"unix_socket_directories={self.place}"]
            fast = (
                [] if self.safe else ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
            )
            self.process = self._popen([str(self.bin / "postgres"), "-D", str(data), *where, *fast], log)
        self._wait()

    def _popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        options: dict[str, Any] = (
            {"user": self.account, "group": pwd.getpwnam(self.account).pw_gid} if self.account else {}
        )
        return subprocess.Popen(
            command, cwd=self.place, stdout=log, stderr=log, process_group=0,
            extra_groups=[] if self.account else None, **options,
        )  # fmt: skip

    def _wait(self) -> None:
        import psycopg2

        for _ in range(240):
            with suppress(psycopg2.OperationalError), closing(self.connect("postgres")):
                return
            time.sleep(0.25)
        raise TimeoutError((self.place / "log").read_text()[-2000:])

    def connect(self, database: str) -> Any:
        """A connection of the administrator's."""
        import psycopg2

        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=WORDS["database"], dbname=database
        )

    def create(self, *databases: str) -> None:
        """Create databases, each with a role of its own name as its owner."""
        with closing(self.connect("postgres")) as connection:
            connection.autocommit = True
            for name in databases:
                with connection.cursor() as cursor:
                    cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", [WORDS["database"]])
                    cursor.execute(f"CREATE DATABASE {name} OWNER {name}")

    def uri(self, database: str, scheme: str = "postgresql+psycopg2", word: str = WORDS["database"]) -> str:
        """The address of a database, for its owner."""
        return f"{scheme}://{database}:{urllib.request.quote(word, safe='')}@127.0.0.1:{self.port}/{database}"

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """Ask a database itself."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def dump(self, database: str) -> str:
        """All that a database holds, as text."""
        who = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        secret = os.environ | {"PGPASSWORD": WORDS["database"]}
        return subprocess.run(
            [str(self.bin / "pg_dump"), *who, database], env=secret, check=True, capture_output=True, text=True
        ).stdout

    def stop(self) -> None:
        """End it, and remove its data."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None
        shutil.rmtree(self.place, ignore_errors=True)


class Tracking(TeamServer):
    """``mlflow server`` with basic auth, its runs and its users in PostgreSQL.

    Artifacts go through the server, or, with ``artifacts``, to that address, which everybody reaches by themselves.
    A password is remembered for so many seconds, and ``permission`` is what people have on what others made.
    """

    def __init__(
        self,
        place: Path,
        postgres: Postgres,
        *,
        artifacts: str | None = None,
        remembered: int = 60,
        permission: str = "EDIT",
    ) -> None:
        super().__init__(place)
        users = place / "basic_auth.ini"
        users.touch(0o600)
        users.write_text(
            "[mlflow]\n"
            f"default_permission = {permission}\n"
            f"database_uri = {postgres.uri('users').replace('%', '%%')}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            f"auth_cache_ttl_seconds = {remembered}\n"
        )
        self.options = ["--app-name", "basic-auth"]
        if artifacts:
            self.options += ["--no-serve-artifacts", "--default-artifact-root", artifacts]
        self.settings |= {
            "MLFLOW_BACKEND_STORE_URI": postgres.uri("tracking"),  # everybody sees a command's arguments
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": WORDS["admin"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs forms",
        }

    def admit(self, *people: str) -> None:
        """Make accounts."""
        for name in people:
            self.ask("/api/2.0/mlflow/users/create", {"username": name, "password": WORDS[name]})

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The administrator's request; returns the answer, as JSON."""
        word = base64.b64encode(f"admin:{WORDS['admin']}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {word}"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)  # noqa: S310 - our own
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            return json.load(answer)


class Orchestration:
    """``prefect server start`` on PostgreSQL, which answers who has its word, with CSRF tokens and one origin."""

    def __init__(self, place: Path, postgres: Postgres) -> None:
        place.mkdir(exist_ok=True)
        self.place, self.port = place, unused_port()
        self.page = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.page}/api"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = {
            "PREFECT_HOME": str(place),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.uri("orchestration", "postgresql+asyncpg"),
            "PREFECT_SERVER_API_AUTH_STRING": WORDS["prefect"],
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.page,
            "PREFECT_UI_API_URL": "/api",
        }

    def start(self) -> Orchestration:
        """Start it, and return when it answers; a new database is filled on the way."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        theirs = {name: word for name, word in os.environ.items() if not name.startswith("PREFECT_")}
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=theirs | environment.TELEMETRY_OFF | self.settings,
                process_group=0,
            )
        for _ in range(480):
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - our own
                return self
            time.sleep(0.25)
        raise TimeoutError((self.place / "log").read_text()[-2000:])

    def stop(self) -> None:
        """End it with all of its processes."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None


def login(server: Tracking | None, orchestration: Orchestration | None, user: str = "ada") -> dict[str, str]:
    """What somebody of the team has in their shell."""
    tracking = {
        "MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": WORDS[user],
    } if server else {}  # fmt: skip
    flows = {"PREFECT_API_URL": orchestration.url, "PREFECT_API_AUTH_STRING": WORDS["prefect"]} if orchestration else {}
    return tracking | flows
