"""Opens the tracking store: SQLite under the root, or the server that ``MLFLOW_TRACKING_URI`` names.

MLflow creates its SQLite schema on first contact, and two processes that do so at once corrupt it. Here the
schema is created beside the store under a lock and then renamed into place: a store is whole or it does not
exist.
Importing this module does not import mlflow, so that a command may ask where the store is for free.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock, Timeout

from tasks import durable, scratch
from tasks.tracking.addresses import address_to_look

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 120.0
"""How long to wait for another process that is creating the store; it takes about three seconds."""

BUSY_SECONDS = 20.0
"""How long to wait for a writer to let go of the store."""

FROM_RESULTS = (
    "move the file away, together with those of its name that end in -wal and -shm; then put a backup of it in its"
    " place if you have one, and run the study again: what is missing is filled from the results in .layerwise, and"
    " nothing trains."
)
"""What to do about a damaged store."""

READ_ONLY = "sqlite+pysqlite:///"
"""What the address of a store begins with that is only read: after another beginning MLflow would make folders."""

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs"}
_NOISY_LOGGERS = (
    *("alembic", "alembic.runtime.migration"),
    *("mlflow.store.db.utils", "sqlalchemy.pool", "urllib3.connectionpool"),
)


PROBE_SECONDS = 5.0
"""How long to wait for a server's sign of life."""


UNAUTHENTICATED, FORBIDDEN = 401, 403

ANY_REASON = ("unable to open database file", "disk I/O error")
"""What SQLite says, for want of space or for any other reason."""


class TrackingError(RuntimeError):
    """The tracking store cannot do what was asked; its message is one line: received, expected, remedy."""


class TrackerAway(TrackingError):
    """The tracking store does not answer, or takes nothing just now: the same request may succeed a little later."""


class WrongRequest(TrackingError):
    """What was asked is not to be had of this store: another run, model, address, account or version is to be named."""


class StoreFull(TrackingError):
    """A disk is full, the store's or that of temporary files; what was asked may well be right."""


@dataclass(frozen=True)
class Database:
    """The file of a store that is SQLite.

    Attributes:
        path: where it is.
        journal: how it keeps its journal; ``wal`` is what we want.
        on_network: whether it is on a network file system, where that is not safe.
    """

    path: Path
    journal: str
    on_network: bool


def store_uri(root: Path) -> str:
    """Where runs are tracked: ``MLFLOW_TRACKING_URI`` if it is set, else SQLite in ``<root>/mlruns``.

    Example:
        >>> store_uri(Path("/srv/lab/lab"))
        'sqlite:////srv/lab/lab/mlruns/mlflow.db'
    """
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or _sqlite_uri(database_path(root))


def absolute_uri(root: Path) -> str:
    """Where runs are tracked, for a process that works in another folder than this one."""
    uri = store_uri(root)
    if not uri.startswith("sqlite:"):
        return uri
    settings = uri.partition("?")[1:]
    return _sqlite_uri(_path_of(uri)) + "".join(settings)


def database_path(root: Path) -> Path:
    """The file of the default store."""
    return root.absolute() / "mlruns" / "mlflow.db"


def artifact_root(root: Path) -> Path:
    """The folder of artifacts and models when the store is a database that this process opens itself."""
    return root.absolute() / "mlruns" / "artifacts"


def artifacts_of(experiment: str, root: Path) -> str:
    """Where the artifacts of a new experiment go, as a URI, when this process opens the database itself.

    Below ``root`` if that is a file; of a database server, which others use as well, below what MLflow's servers take
    for it, ``MLFLOW_DEFAULT_ARTIFACT_ROOT``.
    """
    place = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip()
    if not place or store_uri(root).startswith("sqlite:"):
        return (artifact_root(root) / experiment).as_uri()
    return f"{place if '://' in place else Path(place).absolute().as_uri()}/{experiment}"


def file_of(root: Path) -> Path:
    """The file of a store that is SQLite, whether it is there or not."""
    return _path_of(store_uri(root))


def is_new(root: Path) -> bool:
    """Whether the store is a file that is not there yet, or empty, so that nothing can have been tracked in it."""
    uri = store_uri(root)
    path = _path_of(uri)
    return uri.startswith("sqlite:") and not (path.exists() and (path.is_dir() or path.stat().st_size))


def answers(root: Path) -> bool:
    """Whether the store is there and takes requests; one that refuses them answers as well."""
    try:
        open_store(root)
    except TrackerAway:
        return False
    except TrackingError:
        return True
    return True


def open_store(root: Path) -> MlflowClient:
    """A client of the study's tracking store, which is created if there is none yet.

    Args:
        root: the project's root; the default store is ``<root>/mlruns/mlflow.db``, its lock is in
            ``<root>/.layerwise``.

    Raises:
        TrackerAway: if it does not answer, or another process keeps it locked.
        TrackingError: if the store cannot be created or written, does not let us in, is no MLflow store, or was made
            by another version of MLflow than this one.
    """
    uri = store_uri(root)
    if uri.startswith("sqlite:"):
        return _open_sqlite(uri, root)
    if not uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql")):
        raise WrongRequest(
            f"MLFLOW_TRACKING_URI is {uri!r}; expected http(s)://, sqlite:/// or another database: correct or unset it."
        )
    return _open_remote(uri)


def open_existing_store(root: Path) -> MlflowClient:
    """A client of a store that is to be read: one that is not there is not made.

    Raises:
        TrackingError: as :func:`open_store` does, and if nothing has been tracked in ``root``.
    """
    path = database_path(root)
    if store_uri(root) == _sqlite_uri(path) and not path.exists():
        raise WrongRequest(f"nothing is tracked in {root}; run a study there, or name another place in LAYERWISE_ROOT.")
    return open_store(root)


def open_store_to_read(root: Path) -> MlflowClient:
    """:func:`open_existing_store` for one who writes nothing, so that the store may lie where nothing can be written.

    Raises:
        TrackingError: as :func:`open_existing_store` does, and if SQLite would have to write to read.
    """
    path = database_path(root)
    if store_uri(root) != _sqlite_uri(path) or not path.is_file():
        return open_existing_store(root)
    if all(os.access(place, os.W_OK) for place in (path.parent, path)):
        return open_existing_store(root)
    return _open_read_only(path)


@contextmanager
def failures_in_one_line(doing: str, uri: str) -> Generator[None]:
    """Turn what MLflow, its database, the network or the disk raise meanwhile into a :class:`TrackingError`.

    Args:
        doing: what was being done, as in ``"closing the runs"``.
        uri: of the store. What is said of one that is :class:`TrackerAway` is the same, whatever was being done.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.tracking.absence import absence

    try:
        with _quiet():  # MLflow logs a database's failure with its traceback, then raises it
            yield
    except scratch.ScratchFull as error:
        raise StoreFull(str(error)) from error
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        folder = _path_of(uri).parent if uri.startswith("sqlite") else None
        if _found_no_room(error, folder):  # said once, whatever was being done
            if folder is not None and scratch.is_why(folder):
                raise StoreFull(scratch.in_words()) from error
            words = f"the disk of the tracking store is full ({_reason(error)})"
            raise StoreFull(f"{words}; free space on that disk, and run again.") from error
        if away := absence(error):
            raise TrackerAway(f"the tracking store {shown(uri)} {away}") from error
        if isinstance(error, MlflowException) and error.get_http_status_code() == FORBIDDEN:
            raise WrongRequest(
                f"{doing} failed: our account may not do that at {shown(uri)} ({FORBIDDEN}); ask who runs the server"
                " for the permission EDIT there, or rename the study."
            ) from error
        remedy = "mend it and run again, and it goes on there."
        raise TrackingError(
            f"{doing} failed: {_reason(error)}; {FROM_RESULTS if 'malformed' in str(error) else remedy}"
        ) from error


def _found_no_room(error: BaseException, folder: Path | None) -> bool:
    """Whether the disk is full, of a server or of the folder in which SQLite has its files."""
    if durable.is_full(error):
        return True
    if folder is None or not any(words in str(error) for words in ANY_REASON):
        return False
    return not durable.has_room(folder) or durable.finds_no_room(folder)


def _reason(error: BaseException) -> str:
    """Why something failed, in the database's own words if it was the database."""
    words = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return (getattr(words, "strerror", None) or str(words).strip().splitlines()[0])[:300]


def _kind_of(error: BaseException) -> type[TrackingError]:
    return StoreFull if durable.is_full(error) else TrackingError


@contextmanager
def taken_as_ours(what: str) -> Generator[None]:
    """Turn what is raised meanwhile by content that is not as Layerwise writes it into a :class:`TrackingError`.

    A tracker may hold anything: whoever may write to it can change a table and the digest that vouches for it.

    Args:
        what: was read, as in ``"study.yaml of run 1d1d"``.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TrackingError(f"{what} is not what Layerwise writes ({reason}); see who changed it.") from error


def check_database(root: Path) -> Database:
    """A store that is SQLite, if MLflow can use it as it is; MLflow is not loaded for it, and nothing is changed.

    Raises:
        TrackingError: if it cannot be read, or was made by another version of MLflow than this one.
    """
    path = file_of(root)
    _require_permission(path)
    address = address_to_look(path)
    _require_revision(path, _inspect(path, write_ahead=False, address=address))
    with closing(sqlite3.connect(address, timeout=BUSY_SECONDS, uri=True)) as connection:
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    return Database(path, journal, _on_network(path))


def mlflow_command(client: MlflowClient, arguments: str) -> str:
    """A command of MLflow for the store of a client, to be pasted into the shell that this one was typed into.

    A server that MLFLOW_TRACKING_URI names there needs no naming, and its password no printing.
    """
    uri = client.tracking_uri
    here = f"MLFLOW_TRACKING_URI={shlex.quote(_sqlite_uri(_path_of(uri)))} " if uri.startswith("sqlite") else ""
    return f"{here}mlflow {arguments}"


def is_remote(client: MlflowClient) -> bool:
    """Whether a server decides where artifacts go."""
    return client.tracking_uri.startswith(("http://", "https://"))


def require_artifacts_reached(client: MlflowClient, experiment: str, location: str) -> None:
    """Refuse to work around the server that hands out an experiment's artifacts.

    Args:
        client: the store.
        experiment: its name.
        location: where it keeps its artifacts.

    Raises:
        TrackingError: if they go through a server, and the client has opened that server's database.
    """
    if location.startswith("mlflow-artifacts:") and not is_remote(client):
        # MLflow would fail later, with the whole address of the database, password included.
        raise WrongRequest(
            f"the artifacts of {experiment!r} go through a tracking server, and MLFLOW_TRACKING_URI names its database;"
            " name the server there, http(s)://…, or rename the study."
        )


def misplaced(experiment: str, place: Path, root: Path) -> str:
    """Why a store that was moved or copied cannot be gone on with: MLflow keeps absolute places, and would write there.

    Args:
        experiment: its name.
        place: of its artifacts, as the store has it.
        root: where the store is now.

    Returns:
        The reason and what to do, in one line; empty where the artifacts are where they belong.
    """
    own = artifact_root(root).resolve()
    if file_of(root) == database_path(root) and place.parent.is_dir() and not place.resolve().is_relative_to(own):
        return (
            f"the artifacts of {experiment!r} are kept in {place}, outside {root}: this folder was copied from there;"
            f" run there, or set {own.parent} aside for a new store."
        )
    if not place.parent.is_dir():
        return (
            f"the artifacts of {experiment!r} are kept in {place}, which is gone; if it was moved, move"
            f" it back or leave a link there; else set {artifact_root(root).parent} aside for a new store."
        )
    return ""


def _sqlite_uri(path: Path) -> str:
    return f"sqlite:///{path}"


def _path_of(uri: str) -> Path:
    path = uri.removeprefix("sqlite:///").removeprefix(READ_ONLY).partition("?")[0]
    return Path(unquote(path.removeprefix("file:")) if path.startswith("file:") else path).absolute()


def _open_sqlite(uri: str, root: Path) -> MlflowClient:
    path = _path_of(uri)
    _require_writable(path, artifact_root(root))
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        _create(path, root)
    local = not _on_network(path)
    _require_revision(path, _inspect(path, write_ahead=local))

    from mlflow import MlflowClient

    with failures_in_one_line("opening the tracking store", uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if local:
            _relax_syncs(client)
    return client


def _open_read_only(path: Path) -> MlflowClient:
    """A client that writes neither rows nor a log.

    A log that others have left is read with the store, if the index beside it is there. Without a log nobody has the
    store open, and what is read is the whole of it.
    """
    log = path.with_name(f"{path.name}-wal")
    settled = not log.exists() or log.stat().st_size == 0
    address = f"file:{quote(str(path))}?mode=ro{'&immutable=1' * settled}"
    try:
        found = _inspect(path, write_ahead=False, address=address)
    except TrackingError:
        if settled:
            raise
        raise TrackingError(
            f"{path} cannot be read where nothing can be written: {log.name} beside it is still to be taken in; make"
            f" {path.parent} writable, or copy it elsewhere and name the folder around the copy in LAYERWISE_ROOT."
        ) from None
    _require_revision(path, found)

    from mlflow import MlflowClient

    uri = f"{READ_ONLY}{address}&uri=true"
    with failures_in_one_line("opening the tracking store", uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _open_remote(uri: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.tracking.absence import absence

    try:
        with _quiet():
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            _probe(client)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        name = shown(uri)
        if away := absence(error):
            raise TrackerAway(f"the tracking store {name} {away}") from None
        if isinstance(error, MlflowException) and error.get_http_status_code() == UNAUTHENTICATED:
            raise WrongRequest(
                f"the tracking store {name} does not let us in ({UNAUTHENTICATED}): received {_whom(uri)}; set"
                " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account there, or unset"
                " MLFLOW_TRACKING_URI."
            ) from None
        reason = str(error).replace(uri, name).splitlines()[0]
        remedy = "correct or unset MLFLOW_TRACKING_URI, or who you are there."
        if isinstance(error, ImportError):  # what SQLAlchemy takes for the driver changes with its version
            remedy = "install that, or name the driver that is there, as in postgresql+psycopg2://."
        raise WrongRequest(f"the tracking store {name} cannot be used ({reason[:200]}); {remedy}") from None
    return client


def _probe(client: MlflowClient) -> None:
    """Ask for something small, once: who wants to try again can do so, and does not wait long to know."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request_safe

    if not is_remote(client):
        client.search_experiments(max_results=1)
        return
    path = "/api/2.0/mlflow/experiments/search"
    creds, small = get_default_host_creds(client.tracking_uri), {"max_results": "1"}
    http_request_safe(creds, path, "GET", params=small, max_retries=0, timeout=PROBE_SECONDS)


def _whom(uri: str) -> str:
    """Whom a server was told that we are, without what proves it."""
    from mlflow.utils.credentials import get_default_host_creds

    creds = get_default_host_creds(uri)
    if creds.token:
        return "a token"
    name = creds.username or urlsplit(uri).username
    return f"the user {name[:80]!r}" if name else "no user name"


def shown(uri: str) -> str:
    """A store as people may see it: the file, or the address without a password.

    Example:
        >>> shown("postgresql://ada:secret@db.example/runs")
        'postgresql://db.example/runs'
    """
    if uri.startswith("sqlite:"):
        return str(_path_of(uri))
    return re.sub(r"(?<=://)[^/]*@", "", uri).partition("?")[0]


def _require_writable(database: Path, artifacts: Path) -> None:
    for folder in (database.parent, artifacts):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            full = durable.is_full(error)
            remedy = durable.remedy(error) if full else "mend what is in the way"
            raise (StoreFull if full else WrongRequest)(
                f"{folder} cannot be created ({error.strerror}); runs are tracked there: {remedy},"
                " or set LAYERWISE_ROOT to another place."
            ) from None
    for place in (database.parent, artifacts, database):
        if place.exists():
            _require_permission(place)


def _require_permission(place: Path) -> None:
    if not os.access(place, os.W_OK):
        raise WrongRequest(
            f"{place} is not writable; runs are tracked there: change its permissions,"
            " or set LAYERWISE_ROOT to another place."
        )


def _create(path: Path, root: Path) -> None:
    """Create the schema once, however many processes come first."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    lock = _creation_lock(path)
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_SECONDS):
            if not path.exists() or path.stat().st_size == 0:
                _create_locked(path, artifact_root(root))
    except Timeout:
        raise TrackingError(
            f"{path} is being created for more than {LOCK_SECONDS:.0f} s by a process that holds {lock};"
            " end that process, and run again."
        ) from None
    except (OSError, MlflowException, SQLAlchemyError) as error:
        if durable.is_full(error) and scratch.is_why(path.parent):
            raise StoreFull(f"{path} cannot be created: {scratch.in_words()}") from None
        raise _kind_of(error)(
            f"{path} cannot be created ({_reason(error)}); {durable.remedy(error)}, and run again."
        ) from None


def _creation_lock(path: Path) -> Path:
    """The lock that all who might create this file share: a store elsewhere may belong to several roots."""
    path = path.resolve()
    owner = path.parent.parent
    if path == database_path(owner):  # also where another root names it
        return owner / ".layerwise" / "tracking-store.lock"
    return path.with_name(f".{path.name}.lock")


def _create_locked(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = path.with_name(f".{path.name}.creating")
    _remove(draft)  # of a process killed while creating
    try:
        with _quiet():
            SqlAlchemyStore(_sqlite_uri(draft), str(artifacts)).engine.dispose()
    except BaseException:
        _remove(draft)  # it takes space, of which there may be too little
        raise
    draft.replace(path)


def _remove(draft: Path) -> None:
    for file in draft.parent.glob(f"{draft.name}*"):  # with SQLite's files beside it
        file.unlink(missing_ok=True)


def _inspect(path: Path, *, write_ahead: bool, address: str = "") -> str | None:
    """The store's schema revision (None: it has no schema); switches the write-ahead log on on the way.

    ``address`` is how SQLite is to open it, if not as any file.
    """
    if path.is_dir():
        raise TrackingError(
            f"{path} is a folder, and the tracking store is a file of that name; move it away, and a new store is made."
        )
    try:
        opened = sqlite3.connect(address or path, timeout=BUSY_SECONDS, uri=bool(address))
        with closing(opened) as connection:
            if write_ahead:
                connection.execute("PRAGMA journal_mode=WAL")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return row[0] if row else None
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise TrackerAway(f"the tracking store {path} is locked by another process") from None
        if _found_no_room(error, path.parent) or not durable.has_room(path.parent):
            raise StoreFull(f"the disk of {path} is full ({error}); free space on that disk, and run again.") from None
        raise TrackingError(
            f"{path} cannot be opened ({error}); see to its disk and permissions, and run again."
        ) from None
    except sqlite3.DatabaseError as error:
        if "malformed" in str(error):
            raise TrackingError(f"{path} is damaged ({error}); {FROM_RESULTS}") from None
        raise TrackingError(f"{path} is not an SQLite database; move it away, and a new store is made.") from None


def _require_revision(path: Path, found: str | None) -> None:
    """Refuse other revisions before MLflow sees the store: it would migrate an old one without asking."""
    if found is None:
        raise TrackingError(f"{path} is a database without MLflow's tables; move it away, and a new store is made.")
    newest, older = _revisions()
    if found in newest:
        return
    if found in older:
        raise WrongRequest(
            f"{path} was made by an older MLflow than {version('mlflow')} (schema {found});"
            f" back it up, then run `mlflow db upgrade {_sqlite_uri(path)}`."
        )
    raise WrongRequest(
        f"{path} was made by a newer MLflow than {version('mlflow')} (schema {found} is unknown here);"
        " install that version, or set LAYERWISE_ROOT to another place."
    )


def _revisions() -> tuple[set[str], set[str]]:
    """The newest revisions of the schema that the installed MLflow knows, and the older ones.

    Its migrations are read as text: to import them, and MLflow for it, would take seconds of every command that looks.
    """
    package = find_spec("mlflow")
    places = package.submodule_search_locations if package is not None else None
    below = [Path(place) / "store" / "db_migrations" / "versions" for place in places or ()]
    texts = [file.read_text() for folder in below for file in folder.glob("*.py")]
    known = {name for text in texts for name in re.findall(r"""^revision\b.*?=\s*["'](\w+)["']""", text, re.M)}
    lines = (line for text in texts for line in re.findall(r"^down_revision\b[^=]*=\s*(\([^)]*\)|.*)", text, re.M))
    older = {name for line in lines for name in re.findall(r"""["'](\w+)["']""", line)}
    return known - older, older


def _relax_syncs(client: MlflowClient) -> None:
    """One fsync per checkpoint instead of one per commit: half the time of a model's publication.

    With a write-ahead log this cannot corrupt the store: after a power cut the last commits may be missing,
    and the next start publishes them again.
    """
    from sqlalchemy import event

    engine = client._tracking_client.store.engine  # noqa: SLF001 - MLflow has no setting for it
    if not event.contains(engine, "connect", _relax):
        event.listen(engine, "connect", _relax)
        engine.dispose()  # connections opened so far know nothing of it


def _relax(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _on_network(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether the file is on a network file system, where a write-ahead log is not safe."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:  # not Linux: no way to know
        return False
    places = [(Path(point.replace("\\040", " ")), kind) for _, point, kind, *_ in lines]
    holding = [(len(place.parts), kind) for place, kind in places if path.is_relative_to(place)]
    return max(holding, default=(0, ""))[1] in _NETWORK_FILE_SYSTEMS


@contextmanager
def _quiet() -> Generator[None]:
    """Keep log lines off the terminal: of migrations, retries, and failures that are raised anyway."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
