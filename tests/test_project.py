"""The project around the code: the Makefile's set-up, the lock, what a wheel holds, what is committed.

Set-up runs here for real, in a copy, against a Python whose venv and pip only note that they were called.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

TOOLS = (
    "awk",
    "cat",
    "cp",
    "cut",
    "find",
    "grep",
    "mkdir",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "shasum",
    "sleep",
    "tail",
)

GOOD_PYTHON = f"""
case "$1 $2" in
    "-m venv") echo venv >>calls; rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    "-m pip") echo "pip $*" >>calls; if [ -e pip-does ]; then . ./pip-does; fi ;;
    *) exec {sys.executable} -S "$@" ;;
esac
"""

SYSTEMS = {
    "Linux on x86-64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "Linux on Arm": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macOS on Arm": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}


class Checkout:
    """A copy of what set-up reads, with a PATH that holds the usual tools and the given commands only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.commands = folder / "commands"
        self.folder.mkdir()
        self.commands.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        (self.folder / "requirements.lock").write_text("keras==3\n")
        (self.folder / "pyproject.toml").write_text("[project]\n")
        for tool in filter(shutil.which, TOOLS):
            (self.commands / tool).symlink_to(shutil.which(tool))

    def command(self, name: str, script: str, *, folder: Path | None = None) -> Path:
        """Put a shell script on the PATH."""
        path = (folder or self.commands) / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
        return path

    def start(self, *arguments: str, path: str | None = None) -> subprocess.Popen[str]:
        """Start make in an environment that has nothing but the PATH and an empty HOME."""
        return subprocess.Popen(
            [shutil.which("make"), *arguments],
            cwd=self.folder,
            env={"PATH": path or str(self.commands), "HOME": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def make(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run make to its end."""
        process = self.start(*arguments, path=path)
        out, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def calls(self) -> list[str]:
        """What venv and pip were asked for since the last look: ``venv``, ``locked`` or ``project``."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [
            "locked" if "--require-hashes" in line else "project" if "--editable ." in line else line for line in lines
        ]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """A checkout that was set up once."""
    checkout.command("python3.11", GOOD_PYTHON)
    done = checkout.make("setup")
    assert done.returncode == 0, done.stderr
    assert checkout.calls() == ["venv", "locked", "project"]
    return checkout


def _own_words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that are ours; make itself adds one that begins with ``make: ***``."""
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]


def test_help_is_the_default_and_describes_every_target(checkout: Checkout) -> None:
    """`make` alone lists every target of the Makefile in a line, and sets nothing up."""
    text = (ROOT / "Makefile").read_text().split("\ndefine ")[0]
    targets = set(re.findall(r"^([\w.-]+):(?!=| export)", text, flags=re.MULTILINE)) - {".PHONY"}
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split())

    listed = dict(line.split("  ", 1) for line in checkout.make().stdout.splitlines())

    assert {name.removeprefix("make ").strip() for name in listed} == targets == phony
    assert all(description.strip() for description in listed.values())
    assert not (checkout.folder / ".venv").exists()


def test_python_without_venv(checkout: Checkout) -> None:
    """A Python 3.11 without venv is refused in one line that names it and the package to install."""
    bare = f'case "$*" in *ensurepip*) exit 1 ;; *) exec {sys.executable} -S "$@" ;; esac\n'
    python = checkout.command("python3.11", bare)

    done = checkout.make("test")

    assert done.returncode != 0
    (line,) = _own_words(done)
    assert line.startswith(f"make: received {python} without the modules venv and ensurepip; expected both; install")
    assert "python3.11-venv" in line
    assert "make PYTHON=" in line
    assert not (checkout.folder / ".venv").exists()


def test_python_of_another_version(checkout: Checkout) -> None:
    """Where every Python is of another version, one line says which were found and what is needed."""
    python = checkout.command("python3", "echo 3.12\n")

    done = checkout.make("test")

    assert done.returncode != 0
    (line,) = _own_words(done)
    assert line.startswith(f"make: received {python} (3.12); expected Python 3.11; install it or name another one")


def test_no_python(checkout: Checkout) -> None:
    """Without any Python, one line says so."""
    (line,) = _own_words(checkout.make("test"))
    assert line.startswith("make: received no python3; expected Python 3.11;")


def test_named_python_is_the_only_candidate(checkout: Checkout) -> None:
    """`make PYTHON=...` takes no other Python than the one named."""
    checkout.command("python3.11", GOOD_PYTHON)
    old = checkout.command("old", "echo 3.10\n")
    (line,) = _own_words(checkout.make("setup", f"PYTHON={old}"))
    assert line.startswith(f"make: received {old} (3.10); expected Python 3.11")


def test_broken_python_does_not_hide_a_good_one(checkout: Checkout, tmp_path: Path) -> None:
    """A python3.11 that does not start, as version managers leave it, is passed over for the next on PATH."""
    checkout.command("python3.11", "exit 127\n")
    further = tmp_path / "further"
    further.mkdir()
    checkout.command("python3.11", GOOD_PYTHON, folder=further)

    done = checkout.make("setup", path=f"{checkout.commands}:{further}")

    assert done.returncode == 0, done.stderr
    assert checkout.calls() == ["venv", "locked", "project"]


def test_set_up_says_one_line(checkout: Checkout) -> None:
    """Set-up says what it installs and what that costs in one line; pip's own output goes to a log."""
    checkout.command("python3.11", GOOD_PYTHON)
    (checkout.folder / "pip-does").write_text("echo 'WARNING: Location is ignored' >&2; echo Collecting keras\n")

    done = checkout.make("setup")

    (line,) = _own_words(done)
    assert re.fullmatch(r"Installing .* once: about two minutes and 2\.6 GB of disk\.", line)
    assert "Collecting keras" in (checkout.folder / ".venv/set-up.log").read_text()


def test_second_make_installs_nothing(ready: Checkout) -> None:
    """Once set up, make installs and says nothing, whatever the files' times, and looks for no Python."""
    (ready.commands / "python3.11").unlink()
    for name in ("requirements.lock", "pyproject.toml", "Makefile"):
        os.utime(ready.folder / name)
    done = ready.make("setup")
    assert (done.returncode, done.stdout + done.stderr, ready.calls()) == (0, "", [])


@pytest.mark.parametrize(
    ("changed", "calls"),
    [
        ("requirements.lock", ["venv", "locked", "project"]),
        # The locked packages did not change, so minutes are spared.
        ("pyproject.toml", ["project"]),
    ],
)
def test_changed_content_is_installed_once(ready: Checkout, changed: str, calls: list[str]) -> None:
    """A changed lock is installed from scratch, a changed project alone only again; either once."""
    with (ready.folder / changed).open("a") as file:
        file.write("# changed\n")
    ready.make("setup")
    assert ready.calls() == calls
    ready.make("setup")
    assert ready.calls() == []


def test_moved_checkout_is_set_up_again(ready: Checkout) -> None:
    """An environment that moved with its folder imports the code of the old place, so it is made anew."""
    ready.folder = ready.folder.rename(ready.folder.with_name("moved"))
    ready.make("setup")
    assert ready.calls() == ["venv", "locked", "project"]


def test_lost_interpreter_is_mended(ready: Checkout) -> None:
    """An environment whose Python was uninstalled is made anew."""
    (ready.folder / ".venv/bin/python").unlink()
    ready.make("setup")
    assert ready.calls() == ["venv", "locked", "project"]


@pytest.mark.parametrize("step", ["require-hashes", "editable"])
def test_interrupted_set_up_is_repaired(checkout: Checkout, step: str) -> None:
    """Set-up that was killed while pip worked starts from scratch at the next make."""
    checkout.command("python3.11", GOOD_PYTHON)
    kill = checkout.folder / "pip-does"
    kill.write_text(f'case "$*" in *{step}*) kill -9 "$PPID" ;; esac\n')
    assert checkout.make("setup").returncode != 0
    kill.unlink()
    checkout.calls()

    assert checkout.make("setup").returncode == 0
    assert checkout.calls() == ["venv", "locked", "project"]


def test_interrupted_update_starts_from_scratch(ready: Checkout) -> None:
    """A killed project install leaves half a package, which pip cannot replace, so all starts again."""
    (ready.folder / "pyproject.toml").write_text("[changed]\n")
    kill = ready.folder / "pip-does"
    kill.write_text('kill -9 "$PPID"\n')
    assert ready.make("setup").returncode != 0
    kill.unlink()
    assert ready.calls() == ["project"]

    assert ready.make("setup").returncode == 0
    assert ready.calls() == ["venv", "locked", "project"]


def test_failed_install_is_reported_and_tried_again(checkout: Checkout) -> None:
    """When pip fails, make shows its error, says where the rest is and fails; the next make tries again."""
    checkout.command("python3.11", GOOD_PYTHON)
    failure = checkout.folder / "pip-does"
    failure.write_text("echo 'ERROR: no matching distribution' >&2; exit 1\n")

    done = checkout.make("setup")

    assert done.returncode != 0
    assert "ERROR: no matching distribution" in done.stderr
    assert "expected all of requirements.lock; all of it is in .venv/set-up.log" in done.stderr
    failure.unlink()
    checkout.calls()
    assert checkout.make("setup").returncode == 0
    assert checkout.calls() == ["venv", "locked", "project"]


def test_project_that_does_not_build_keeps_the_locked_packages(ready: Checkout) -> None:
    """When only the project fails to install, the next make does not install the locked packages again."""
    (ready.folder / "pyproject.toml").write_text("[broken\n")
    failure = ready.folder / "pip-does"
    failure.write_text("exit 1\n")
    assert ready.make("setup").returncode != 0
    failure.unlink()
    ready.calls()

    assert ready.make("setup").returncode == 0
    assert ready.calls() == ["project"]


def test_two_makes_set_up_once(checkout: Checkout) -> None:
    """Of two makes at the same time one sets up; the other waits, says so, and finds it done."""
    checkout.command("python3.11", GOOD_PYTHON)
    (checkout.folder / "pip-does").write_text("sleep 0.4\n")

    makes = [checkout.start("setup") for _ in range(2)]
    outputs = sorted(make.communicate(timeout=60)[0] for make in makes)

    assert [make.returncode for make in makes] == [0, 0]
    assert [output.split()[0] for output in outputs] == ["Installing", "Waiting"]
    assert checkout.calls() == ["venv", "locked", "project"]


def test_clean_never_touches_runs(ready: Checkout) -> None:
    """`make clean` removes caches and build leftovers, and leaves runs, results and the environment."""
    kept = [
        "mlruns/mlflow.db",
        "mlruns/1/__pycache__/model",
        ".layerwise/results/a",
        ".venv/__pycache__/a.pyc",
    ]
    leftovers = ["layerwise/__pycache__/a.pyc", ".pytest_cache/a", ".ruff_cache/a", "build/a", "dist/a.whl"]
    for name in kept + leftovers:
        (ready.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (ready.folder / name).touch()

    assert ready.make("clean").returncode == 0

    assert [name for name in kept + leftovers if (ready.folder / name).exists()] == kept


def test_lock_without_uv(checkout: Checkout) -> None:
    """`make lock` without uv says in one line how to get it."""
    done = checkout.make("lock")
    assert done.returncode != 0
    (line,) = _own_words(done)
    assert line == "make lock: no uv on PATH; expected uv; mend it with: pip install uv"


def test_test_targets_divide_the_suite(ready: Checkout) -> None:
    """`make test` and `make test-slow` between them run every test, and know every marker of the project."""
    fast, slow = (re.search(r'-m "(.*)"', ready.make("-n", target).stdout)[1] for target in ("test", "test-slow"))
    markers = _pyproject()["tool"]["pytest"]["ini_options"]["markers"]
    assert fast == f"not ({slow})"
    assert set(slow.split(" or ")) == {marker.split(":")[0] for marker in markers}


def test_chaos_runs_the_trials_that_are_asked_for(ready: Checkout) -> None:
    """`make chaos` runs a hundred trials at every event, or those that TRIALS and POINTS name."""
    all_of_them = ready.make("-n", "chaos").stdout
    assert 'CHAOS_TRIALS="100" CHAOS_POINTS="all"' in all_of_them
    assert "pytest -s -m chaos tests " in all_of_them
    some = ready.make("-n", "chaos", "TRIALS=26-50", "POINTS=9", "ARGS=-k kill").stdout
    assert 'CHAOS_TRIALS="26-50" CHAOS_POINTS="9"' in some
    assert some.rstrip().endswith("chaos tests -k kill")


def test_ci_runs_what_people_run(checkout: Checkout) -> None:
    """CI runs `make check`, `make test` and `make test-team`, and stops with the status of the first that fails."""
    shutil.copytree(ROOT / ".ci", checkout.folder / ".ci")
    (checkout.folder / ".venv/bin").mkdir(parents=True)
    checkout.command("python", "echo 'keras 3'\n", folder=checkout.folder / ".venv/bin")
    checkout.command("make", 'echo "$*" >>calls; [ ! -e "fails-$1" ]\n')
    for tool in ("bash", "dirname"):
        (checkout.commands / tool).symlink_to(shutil.which(tool))
    command = [str(checkout.folder / ".ci/run")]
    environment = {"PATH": f"{checkout.commands}:/usr/bin:/bin"}

    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    assert checkout.calls() == ["setup", "--version", "check", "test", "test-team"]

    (checkout.folder / "fails-check").touch()
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode != 0
    assert checkout.calls() == ["setup", "--version", "check"]


def test_lock_is_whole_and_names_no_place() -> None:
    """Every pin of the lock carries a hash, and the lock holds no address, so any index can serve it."""
    text = (ROOT / "requirements.lock").read_text()
    pins = _pins()
    assert len(pins) > 100
    assert [pin for pin, hashes in pins if not hashes] == []
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("system", SYSTEMS)
def test_lock_satisfies_every_dependency(system: str) -> None:
    """On each system the lock pins one version of every dependency, one that pyproject.toml allows."""
    environment = {"python_version": "3.11", "python_full_version": "3.11.9", **SYSTEMS[system]}
    pinned: dict[str, list[str]] = {}
    for pin, _ in _pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            pinned.setdefault(pin.name, []).append(specifier.version)

    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}
    for needed in _dependencies():
        if needed.marker is None or needed.marker.evaluate(environment):
            (version,) = pinned.get(needed.name, ["none"])
            assert version != "none", f"{needed} is not in the lock; run make lock"
            assert needed.specifier.contains(version), f"the lock has {version}, expected {needed}; run make lock"


def test_nothing_installed_misses_a_package() -> None:
    """Packages are installed as the lock lists them, without a look at what each of them needs: nothing is missing."""
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "No broken requirements found.\n"), checked.stdout


def test_nothing_committed_names_a_machine() -> None:
    """No file that is or will be committed holds a home directory's path or an index's address."""
    # The brackets keep this pattern from finding itself.
    place = re.compile(r"(?<![\w.])/roo[t]/|/hom[e]/[a-z]|/User[s]/[A-Za-z]|pythonhoste[d]|://\S+/simpl[e]\b")
    found = [
        f"{name}: {match[0]}"
        for name in _committed()
        if (match := place.search((ROOT / name).read_text(encoding="utf-8", errors="ignore")))
    ]
    assert found == []


def test_scripts_are_executable() -> None:
    """What people and CI start by its path can be started in a fresh clone."""
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR


def test_wheel_holds_the_packages_and_the_studies(tmp_path: Path) -> None:
    """A wheel holds the three packages, the report's templates, and every ready-made study where it is looked for."""
    names = _built(tmp_path, "standard")
    studies = {f"layerwise/{path.relative_to(ROOT)}" for path in (ROOT / "studies").glob("*.yaml")}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "layerwise",
        "tasks",
        "flows",
    }
    assert studies
    assert {name for name in names if name.endswith(".yaml")} == studies
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "layerwise/report/templates").iterdir()}
    assert {name for name in names if "/templates/" in name} == templates
    assert len(templates) == 3


def test_editable_install_exposes_the_packages_alone(tmp_path: Path) -> None:
    """An editable install makes the three packages importable and puts no folder in their way."""
    names = _built(tmp_path, "editable")
    assert {name for name in names if ".dist-info/" not in name} == {
        "_editable_impl_layerwise.pth",
        "_editable_impl_layerwise.py",
    }
    with zipfile.ZipFile(next((tmp_path / "dist").iterdir())) as wheel:
        exposed = re.findall(r"map_module\('(\w+)'", wheel.read("_editable_impl_layerwise.py").decode())
    assert sorted(exposed) == ["flows", "layerwise", "tasks"]


def _built(tmp_path: Path, version: str) -> list[str]:
    """The names inside a wheel built from a copy of what is committed."""
    source = tmp_path / "source"
    for name in _committed():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").touch()
    (built,) = WheelBuilder(str(source)).build(directory=str(tmp_path / "dist"), versions=[version])
    with zipfile.ZipFile(built) as wheel:
        return wheel.namelist()


def _committed() -> list[str]:
    """Files that git holds or would add."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout to list")
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [name for name in names if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in files
    return files


def _pins() -> list[tuple[Requirement, list[str]]]:
    """The lock's requirements, each with its hashes."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(Requirement(line.split(" --hash=")[0]), re.findall(r"--hash=sha256:(\w{64})", line)) for line in lines]


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _dependencies() -> list[Requirement]:
    """Everything pyproject.toml asks for: to run, to develop, to build."""
    document = _pyproject()
    groups = (
        document["project"]["dependencies"],
        document["dependency-groups"]["dev"],
        document["build-system"]["requires"],
    )
    return [Requirement(text) for group in groups for text in group]
