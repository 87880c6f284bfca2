"""Who may import whom, and what importing costs: held by reading the files and by fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_server import CHECKOUT, clean_environ

PACKAGES = ("layerwise", "tasks", "flows")
MODULES = sorted(file.relative_to(CHECKOUT) for package in PACKAGES for file in (CHECKOUT / package).rglob("*.py"))

HEAVY = {"tensorflow", "keras", "prefect", "mlflow", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "pydantic"}

LOADED = f"""
import sys
exec(sys.argv[1])
print(*{HEAVY!r} & {{name.partition(".")[0] for name in sys.modules}})
"""


def imports(module: Path) -> Iterator[str]:
    """The full name of everything that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse((CHECKOUT / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_of(module: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imports(module)}


def importers(package: str, *, at_run_time: bool = False) -> set[str]:
    """The files that import a package; ``at_run_time`` leaves out what only type checkers see."""
    found = set()
    for module in MODULES:
        tree = ast.parse((CHECKOUT / module).read_text())
        if at_run_time:
            tree.body = [node for node in tree.body if not _is_for_type_checkers(node)]
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == package for name in names):
                found.add(module.as_posix())
    return found


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries that a statement loads in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, statement],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_there_is_something_to_check() -> None:
    """Each package has its modules, the ones named below among them."""
    names = {module.as_posix() for module in MODULES}
    assert {"layerwise/engine.py", "layerwise/network.py", "tasks/training.py", "flows/study.py"} <= names


def test_importing_layerwise_loads_nothing() -> None:
    """`import layerwise` loads no library but Python's own."""
    assert loaded_by("import layerwise") == set()


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import layerwise; layerwise.load('blobs-supervised')", {"pydantic"}),
        ("import layerwise.pretraining, layerwise.datasets", {"pydantic", "numpy"}),
        ("from flows import cli, environment, locks, server", set()),
        ("import layerwise.pretraining as p; from flows.running import run_study_command", {"pydantic", "numpy"}),
        ("from tasks.tracking import store; from pathlib import Path; store.store_uri(Path.cwd())", set()),
    ],
)
def test_nothing_is_loaded_before_its_time(statement: str, allowed: set[str]) -> None:
    """Reading a study, and the command before it trains, load no TensorFlow, Keras, Prefect or MLflow."""
    assert loaded_by(statement) <= allowed


@pytest.mark.parametrize("module", [module for module in MODULES if module.parts[0] == "layerwise"], ids=str)
def test_the_science_knows_no_framework(module: Path) -> None:
    """layerwise imports neither Prefect nor MLflow, and nothing of tasks and flows."""
    assert not packages_of(module) & {"prefect", "mlflow", "tasks", "flows"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.parts[0] == "tasks"], ids=str)
def test_tasks_know_no_flow(module: Path) -> None:
    """tasks imports layerwise, never flows."""
    assert "flows" not in packages_of(module)


def test_only_tracking_imports_mlflow() -> None:
    """MLflow is imported in tasks/tracking alone; others only name its types."""
    assert {Path(name).parent.as_posix() for name in importers("mlflow", at_run_time=True)} == {"tasks/tracking"}


def test_tracking_knows_no_workflow() -> None:
    """tasks/tracking imports no Prefect: it can be used, and tested, without a server."""
    assert not {name for name in importers("prefect") if name.startswith("tasks/tracking/")}


def test_only_the_engine_imports_tensorflow() -> None:
    """TensorFlow is imported by the engine, and by the module that fixes its threads before anything uses it."""
    assert importers("tensorflow") == {"layerwise/backend.py", "layerwise/engine.py"}


def test_only_network_and_engine_import_keras() -> None:
    """Keras is imported by the modules that prepare it, build layers and train them, and by what models serve with."""
    homes = {"layerwise/backend.py", "layerwise/engine.py", "layerwise/network.py", "layerwise/raw_rows.py"}
    assert importers("keras", at_run_time=True) == homes


def test_nothing_uses_pickle_or_a_shell() -> None:
    """No file of ours imports pickle or its relatives."""
    for name in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
        assert importers(name) == set(), name
