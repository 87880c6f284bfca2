"""The environment: ours where numbers and quiet depend on it, the user's where a team's servers are named."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flows import environment
from flows.environment import DiskFull, EnvironmentProblem
from tests.test_server import clean_environ, small_run


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the environment in place of the real one."""
    copy = dict(os.environ)
    monkeypatch.setattr(environment.os, "environ", copy)
    return copy


def test_nothing_heavy_is_imported() -> None:
    """Command line parts load neither Prefect, MLflow, TensorFlow nor NumPy, in a fresh interpreter."""
    heavy = "prefect, mlflow, tensorflow, keras, numpy, pydantic, uvicorn"
    code = "import sys, flows.environment, flows.locks, flows.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy.split(", ")) & set(loaded.stdout.split())


def test_a_run_prints_nothing_of_its_libraries() -> None:
    """A successful run's terminal shows what it printed, nothing of Prefect's, MLflow's or TensorFlow's."""
    run = small_run()
    assert (run.stdout, run.stderr, run.returncode) == ("42.0\n", "", 0)


def test_a_run_calls_nobody() -> None:
    """Neither the run nor its server looks up or connects to anything but this machine."""
    run = small_run()
    assert run.calls[0] == "127.0.0.1", "the recorder must have seen the run's own traffic"
    assert set(run.calls) == {"127.0.0.1"}


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from flows import environment
environment.set_variables(Path(sys.argv[1]))
kept = multiprocessing.get_context("spawn").Semaphore()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_command_that_is_killed_says_nothing_of_its_semaphores(tmp_path: Path) -> None:
    """Python's own process removes them, as of a run on Dask's workers, and has no warning for anybody."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=clean_environ(), capture_output=True, text=True, check=False
    )
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")


def test_server_addresses_of_the_user_are_kept(environ: dict[str, str], tmp_path: Path) -> None:
    """A team's MLflow and Prefect servers are honoured."""
    environ |= {"MLFLOW_TRACKING_URI": "http://team:5000", "PREFECT_API_URL": "http://team:4200/api"}
    environment.prepare(tmp_path)
    assert environ["MLFLOW_TRACKING_URI"] == "http://team:5000"
    assert environ["PREFECT_API_URL"] == "http://team:4200/api"


def test_settings_that_change_numbers_are_ours(environ: dict[str, str], tmp_path: Path) -> None:
    """What a shell exports does not reach the arithmetic."""
    environ |= {
        "KERAS_BACKEND": "jax",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "XLA_FLAGS": "--fast",
        "OMP_NUM_THREADS": "64",
    }
    environment.prepare(tmp_path)
    assert environ["KERAS_BACKEND"] == "tensorflow"
    assert environ["KERAS_HOME"] == str(tmp_path / ".layerwise/keras")
    assert environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert environ["OMP_NUM_THREADS"] == str(environment.THREADS)
    assert "XLA_FLAGS" not in environ


def test_settings_of_prefect_that_store_or_compute_otherwise_are_taken_out(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """What a shell exports for Prefect's tasks, results, flows and log does not reach a run; a team's login does."""
    asked = ("TASKS_REFRESH_CACHE", "TASK_DEFAULT_RETRIES", "RESULTS_DEFAULT_SERIALIZER", "FLOWS_DEFAULT_RETRIES")
    environ |= {f"PREFECT_{name}": "1" for name in (*asked, "LOGGING_SETTINGS_PATH", "PROFILES_PATH", "API_KEY")}
    environment.prepare(tmp_path)
    left = {name for name in environ if name.startswith("PREFECT_")} - set(environment.SETTINGS)
    ours = {"PREFECT_HOME", "PREFECT_RESULTS_LOCAL_STORAGE_PATH"}
    assert left - {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING"} == ours | {"PREFECT_API_KEY"}


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("prefect.toml", "[logging]\nconfig_path = 'evil.yml'\n", True),
        ("pyproject.toml", "[tool.prefect.server.database]\nconnection_url = 'x'\n", True),
        (".env", "PREFECT_LOGGING_SETTINGS_PATH=evil.yml\n", True),
        ("pyproject.toml", "[project]\nname = 'x'\n", False),
        (".env", "OTHER=1\n", False),
    ],
)
def test_files_that_tell_prefect_otherwise_are_refused(
    environ: dict[str, str],  # noqa: ARG001 - what is set is set in a copy
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str,
    refused: bool,
) -> None:
    """A study's folder cannot move Prefect's database or run code through Prefect's own files of settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    if refused:
        with pytest.raises(EnvironmentProblem, match=rf"^{tmp_path}/{name} has settings of Prefect, .*LAYERWISE_ROOT"):
            environment.prepare(tmp_path)
        assert not (tmp_path / ".layerwise").exists()
    else:
        environment.prepare(tmp_path)


def test_loopback_is_reached_without_a_proxy(environ: dict[str, str], tmp_path: Path) -> None:
    """A proxy for the world outside is not asked for servers on this machine; what else goes without stays so."""
    environ |= {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "intranet.example,localhost"}
    for _ in range(2):
        environment.prepare(tmp_path)
        assert environ["NO_PROXY"] == "127.0.0.1,localhost"
        assert environ["no_proxy"] == "intranet.example,127.0.0.1,localhost"


def test_our_server_gets_none_of_the_users_server_settings(environ: dict[str, str], tmp_path: Path) -> None:
    """A database or password of another Prefect server is not handed to ours."""
    environ |= {
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql://team/prefect",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql://team/prefect",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:secret",
        "HOME_OF_THE_USER": "kept",
    }
    given = environment.server_environment(tmp_path)
    assert given["PREFECT_HOME"] == str(tmp_path / ".layerwise/prefect")
    assert given["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert given["HOME_OF_THE_USER"] == "kept"
    assert not {"postgresql://team/prefect", "admin:secret"} & set(given.values())


def test_preparing_twice_is_preparing_once(environ: dict[str, str], tmp_path: Path) -> None:
    """A second call changes nothing."""
    environment.prepare(tmp_path)
    first = dict(environ)
    environment.prepare(tmp_path)
    assert environ == first


def test_private_folder_is_private(environ: dict[str, str], tmp_path: Path) -> None:
    """The private folder is readable by its owner alone, also where it was open before."""
    (tmp_path / ".layerwise").mkdir(mode=0o755)
    environment.prepare(tmp_path)
    assert environ["LAYERWISE_ROOT"] == str(tmp_path)
    for folder in (".layerwise", ".layerwise/results", ".layerwise/prefect", ".layerwise/locks"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_root_is_absolute_and_defaults_to_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The root is LAYERWISE_ROOT, or the working directory where that is unset or empty."""
    monkeypatch.chdir(tmp_path)
    for value, expected in (("", tmp_path), ("here", tmp_path / "here"), ("/there", Path("/there"))):
        monkeypatch.setenv("LAYERWISE_ROOT", value)
        assert environment.root() == expected
    monkeypatch.delenv("LAYERWISE_ROOT")
    assert environment.root() == tmp_path


@pytest.mark.parametrize("place", ["a file", "/proc", "read-only"])
def test_root_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, place: str) -> None:
    """A root that is a file, a system folder or read-only is refused with its path and the way out."""
    root = Path(place) if place == "/proc" else tmp_path / place
    if place == "a file":
        root.touch()
    elif place == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere")
        root.mkdir(mode=0o500)
    with pytest.raises(EnvironmentProblem, match=r"^Cannot write to .*\.layerwise \(.+\);.*LAYERWISE_ROOT\.$"):
        environment.prepare(root)


def test_a_full_disk_is_no_wrong_request(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room is refused with what to do about it, and the request need not change."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(
        DiskFull, match=r"^Cannot write to .*\.layerwise \(No space left on device\); free space there,"
    ):
        environment.prepare(tmp_path)
    assert "PREFECT_HOME" not in environ or str(tmp_path) not in environ["PREFECT_HOME"]
