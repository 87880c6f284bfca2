"""The one place that sets environment variables, before prefect, mlflow or tensorflow are imported.

The libraries below read their settings once, when they are imported, so :func:`prepare` is the first thing
that the command line, the flow and every worker call. It imports nothing but the standard library and takes
well under a millisecond.

Two settings of the user are honoured, because they name a team's servers: ``MLFLOW_TRACKING_URI`` and
``PREFECT_API_URL``; and with them what MLflow and Prefect need to be let in there (names, words, certificates:
docs/team.md), none of which is set, read into a run, or printed. All others here are ours: a study must not depend on
what a shell happens to export.
"""

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

THREADS = 2
"""Threads per process for TensorFlow and BLAS.

A constant, never the number of cores: how a sum is divided among threads changes its rounding, and a study's
bits should not depend on how large the machine is. More cores are used by more processes.
"""

TELEMETRY_OFF = {
    # Nobody is told that Layerwise runs. DO_NOT_TRACK covers Prefect's SDK; MLflow wants "true", not "1".
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}

NUMBERS = {
    # Bits are promised for the CPU, with one backend, one float type and a fixed number of threads.
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": str(THREADS),
    "TF_NUM_INTEROP_THREADS": str(THREADS),
    "OMP_NUM_THREADS": str(THREADS),
    "OPENBLAS_NUM_THREADS": str(THREADS),
}
"""What decides how numbers are computed."""

SETTINGS = {
    **TELEMETRY_OFF,
    **NUMBERS,
    # The terminal belongs to Layerwise. Prefect's records still reach its own pages, through the API.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "layerwise",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DASK_LOGGING": str({"distributed": "critical", "distributed.client": "critical"}),
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Background jobs of MLflow's server are for language models: nine idle processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # A server that is away is retried shortly; the results wait on disk, so nothing is lost by giving up.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_PROFILE": "ephemeral",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",  # a team's server may ask for tokens; others say that they do not
    "MPLBACKEND": "Agg",
    # Of a command that was killed Python removes the semaphores, as it should, and would say so.
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
}

SERVER_SETTINGS = {
    # What Prefect itself passes to the server it embeds (prefect.server.api.server.SubprocessASGIServer).
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # its console is server.log
    # The catalogue of block types is for people who fill in forms; the pages' server has it.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}

PREFECT_PAGE = {
    # Where the page finds its API: on its own port, whichever that is and through whatever tunnel it is seen.
    # Without this the page calls port 4200.
    "PREFECT_SERVER_UI_API_URL": "/api",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The second edition of the page asks an analytics company for its configuration whatever the settings say.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}

LASTING_SERVER_SETTINGS = {
    # A server that outlives runs: with pages, schedules and automations, on the port and the files of its own.
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    **PREFECT_PAGE,
    # In memory, which is Prefect's default, a server that starts again would take the place of a run from it.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}

SLOT_SETTINGS = {
    # Whatever the database says of the flow's place, which others may have written: slots run this code.
    "PREFECT__FLOW_ENTRYPOINT": "flows.slot.run_slot",
    # A process that Prefect starts with -m would look for modules in the working directory first.
    "PYTHONSAFEPATH": "1",
}
"""What the processes of slots get besides, from the command that serves them."""

UNSET = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_USE_LEGACY_KERAS", "PREFECT_PROFILES_PATH")
"""Variables that would change a study's numbers, or where Prefect reads what it is to do, taken out."""

UNSET_OF_PREFECT = (
    "PREFECT_TASK",
    "PREFECT_FLOW_DEFAULT",
    "PREFECT_FLOWS_DEFAULT",
    "PREFECT_RESULTS",
    "PREFECT_LOGGING",
    "PREFECT_DEFAULT",
    "PREFECT_EXPERIMENTS",
)
"""Beginnings of further ones: with the user's own, Prefect would store results elsewhere, or compute them again."""

PREFECT_FILES = {"prefect.toml": b"", "pyproject.toml": b"[tool.prefect", ".env": b"PREFECT_"}
"""Files from which Prefect takes settings where a process works, and what stands in those that have any."""


OF_OTHER_SERVERS = ("PREFECT_SERVER_", "PREFECT_API_")
"""Beginnings of variables that a server of ours is not to have from the user."""

LOOPBACK = ("127.0.0.1", "localhost")


class EnvironmentProblem(RuntimeError):
    """The surroundings do not allow a run; the message is one line: received, expected, remedy."""


class DiskFull(EnvironmentProblem):
    """There is no room for a run; the request may well be right."""


def root() -> Path:
    """The folder that holds ``mlruns`` and ``.layerwise``: ``LAYERWISE_ROOT`` or the working directory.

    Raises :class:`EnvironmentProblem` where the addresses of the databases in it cannot be written, and would mean
    other places.
    """
    found = Path(os.environ.get("LAYERWISE_ROOT") or Path.cwd()).expanduser().absolute()
    if "?" in str(found):
        raise EnvironmentProblem(
            f"{found} cannot hold runs: what follows a '?' is taken for settings in the addresses of its databases;"
            " name a folder without one in LAYERWISE_ROOT, or rename it."
        )
    return found


def private_folder(root: Path) -> Path:
    """``<root>/.layerwise``: Prefect's home, stage results and locks; readable by its owner alone."""
    return root / ".layerwise"


def results_folder(root: Path) -> Path:
    """Where stage results lie, one file per digest."""
    return private_folder(root) / "results"


def prefect_home(root: Path) -> Path:
    """Where Prefect keeps its database, and our server its log."""
    return private_folder(root) / "prefect"


def locks_folder(root: Path) -> Path:
    """Where processes agree on who works on which run."""
    return private_folder(root) / "locks"


def workers_folder(root: Path) -> Path:
    """Where Dask's workers keep what they have for themselves."""
    return private_folder(root) / "dask"


def prepare(root: Path) -> None:
    """Make the private folders and set every environment variable; may be called again at any time.

    Raises :class:`EnvironmentProblem` when the root cannot be written to, or somebody else made the folders.
    """
    _refuse_files_of_prefect(Path.cwd())
    _make_folders(root.expanduser().absolute())
    set_variables(root)


def _refuse_files_of_prefect(folder: Path) -> None:
    """Refuse to work where Prefect would be told otherwise: such a file can move its database, or run code."""
    for name, sign in PREFECT_FILES.items():
        file = folder / name
        try:
            found = file.is_file() and sign in file.read_bytes()
        except OSError:  # nor can Prefect read it
            continue
        if found:
            raise EnvironmentProblem(
                f"{file} has settings of Prefect, which could change or run anything here; work in another folder, and"
                f" name this one in LAYERWISE_ROOT if its runs are meant."
            )


def set_variables(root: Path) -> None:
    """Set every environment variable, and make nothing: for commands that only read what is tracked."""
    root = root.expanduser().absolute()
    for name in [name for name in os.environ if name in UNSET or name.startswith(UNSET_OF_PREFECT)]:
        del os.environ[name]
    os.environ.update(SETTINGS)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy to the world outside knows nothing of our loopback
        kept = [host for host in os.environ.get(name, "").split(",") if host and host not in LOOPBACK]
        os.environ[name] = ",".join([*kept, *LOOPBACK])
    os.environ["LAYERWISE_ROOT"] = str(root)
    os.environ["PREFECT_HOME"] = str(prefect_home(root))
    os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(results_folder(root))
    # keras.json in the user's home could change the float type, and with it every number.
    os.environ["KERAS_HOME"] = str(private_folder(root) / "keras")


def of_workers(root: Path) -> dict[str, str]:
    """The variables that every process which trains for ``root`` must have, and their values; empty for unset ones."""
    same = {**NUMBERS, **TELEMETRY_OFF, **dict.fromkeys(UNSET, "")}
    return same | {"LAYERWISE_ROOT": str(root), "KERAS_HOME": str(private_folder(root) / "keras")}


def server_environment(root: Path) -> dict[str, str]:
    """The environment of our own Prefect server: ours and the system's, none of the user's server settings.

    A database or password meant for another Prefect server must not receive this root's runs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHER_SERVERS)}
    return kept | SETTINGS | SERVER_SETTINGS | {"PREFECT_HOME": str(prefect_home(root))}


def serving_environment() -> dict[str, str]:
    """The environment of a served model: this one, and the programs of this Python before any others."""
    programs = str(Path(sys.executable).parent)  # MLflow starts uvicorn by its name
    return os.environ | SETTINGS | {"PATH": os.pathsep.join(filter(None, (programs, os.environ.get("PATH"))))}


def lasting_server_environment(root: Path, page: str) -> dict[str, str]:
    """The environment of the Prefect server that schedules run on: as that of a run's own, and lasting.

    Args:
        root: whose server.
        page: the address of its pages, for those who are told of a run.
    """
    ours = server_environment(root)
    kept = {name: value for name, value in ours.items() if name not in SERVER_SETTINGS}
    return kept | LASTING_SERVER_SETTINGS | {"PREFECT_UI_URL": page}


def prepare_slots() -> None:
    """Set what the processes of scheduled slots inherit from this one, which serves them."""
    os.environ.update(SLOT_SETTINGS)


def _make_folders(root: Path) -> None:
    private = private_folder(root)
    folders = (private, results_folder(root), prefect_home(root), locks_folder(root))
    try:
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folders)
        private.chmod(0o700)
        for folder in folders:
            # Permission bits do not tell about read-only mounts, quotas or root; writing does.
            probe = folder / ".probe"  # one name for all, so that what a kill leaves the next process removes
            probe.touch()
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"Cannot write to {private} ({error.strerror}); free space there, and run again.") from error
        raise EnvironmentProblem(
            f"Cannot write to {error.filename or private} ({error.strerror or error});"
            " run in a folder of your own, or name one in LAYERWISE_ROOT."
        ) from error


def _refuse_foreign(folders: Iterable[Path]) -> None:
    """Refuse folders that another user made first: what lies in them is taken for one's own."""
    for folder in folders:
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise EnvironmentProblem(
                f"{folder} belongs to another user (id {owner}; yours is {os.geteuid()}), who could put results there;"
                " run in a folder of your own, or name one in LAYERWISE_ROOT."
            )
