"""The one place that sets environment variables, before prefect, mlflow or tensorflow are imported.

The libraries below read their settings once, when they are imported, so :func:`prepare` is the first thing
that the command line, the flow and every worker call. It imports nothing but the standard library and takes
well under a millisecond.

Two settings of the user are honoured, because they name a team's servers: ``MLFLOW_TRACKING_URI`` and
``PREFECT_API_URL``. All others here are ours: a study must not depend on what a shell happens to export.
"""

import errno
import os
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
    "MPLBACKEND": "Agg",
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

UNSET = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_USE_LEGACY_KERAS")
"""Variables that would change a study's numbers, taken out."""


LEAST_SPACE = 1_000_000
"""Bytes: where less is left of a disk, it is full."""


class EnvironmentProblem(RuntimeError):
    """The surroundings do not allow a run; the message is one line: received, expected, remedy."""


class DiskFull(EnvironmentProblem):
    """There is no room for a run; the request may well be right."""


def root() -> Path:
    """The folder that holds ``mlruns`` and ``.layerwise``: ``LAYERWISE_ROOT`` or the working directory."""
    return Path(os.environ.get("LAYERWISE_ROOT") or Path.cwd()).expanduser().absolute()


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


def is_full(folder: Path) -> bool:
    """Whether nothing is left of a folder's disk: what fails there, in whatever words, fails for that."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < LEAST_SPACE


def prepare(root: Path) -> None:
    """Make the private folders and set every environment variable; may be called again at any time.

    Raises :class:`EnvironmentProblem` when the root cannot be written to, or somebody else made the folders.
    """
    _make_folders(root.expanduser().absolute())
    set_variables(root)


def set_variables(root: Path) -> None:
    """Set every environment variable, and make nothing: for commands that only read what is tracked."""
    root = root.expanduser().absolute()
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(SETTINGS)
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
    foreign = ("PREFECT_SERVER_", "PREFECT_API_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | SETTINGS | SERVER_SETTINGS | {"PREFECT_HOME": str(prefect_home(root))}


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
