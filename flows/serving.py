"""``layerwise serve``: a registered model behind HTTP, by MLflow's own server on loopback, until Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flows import environment
from flows.pages import PageProblem, is_taken, log_of, running, wait_ready, watch
from flows.printing import DONE, FAILED, WRONG_REQUEST, refuse, refuse_store
from layerwise.study.parts import printable
from tasks.scratch import scratch

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from tasks.tracking.verified import Found, VerifiedModel

LONGEST_BODY = 4000
"""Characters of an example that stands in a command; a longer one stands in a file."""

EXAMPLES: dict[str, Any] = {"long": 0, "double": 0.0, "boolean": False, "string": "a"}
"""A value of each type of a column."""


def serve_command(said: str, *, version: int | None, port: int, root: Path) -> int:
    """Serve a model until interrupted. Returns the exit status.

    Args:
        said: the model, as :func:`tasks.tracking.verified.find_model` takes it.
        version: of the registered model, if it is not said with it.
        port: where it listens.
        root: where runs are.
    """
    environment.prepare(root)
    if is_taken(port):
        return refuse(f"port {port} is taken; choose another with --port, or stop what uses it.", WRONG_REQUEST)
    from tasks.tracking.store import TrackingError, open_existing_store
    from tasks.tracking.verified import find_model, verified

    try:
        client = open_existing_store(root)
        found = find_model(client, said, version)
        model = verified(client, found)
    except TrackingError as error:
        return refuse_store(error)
    try:
        _serve(found, model, port, root)
    except PageProblem as problem:
        return refuse(f"{found.name} cannot be served: {_why(root, port) or problem}", FAILED)
    except KeyboardInterrupt:
        click.echo("stopped")
        return DONE


def _serve(found: Found, model: VerifiedModel, port: int, root: Path) -> NoReturn:
    name, address = _name(port), f"http://127.0.0.1:{port}"
    with scratch() as folder:
        staged = folder / "model"
        model.stage(staged)
        # uvicorn looks for modules where it works: files of the user's must not stand in for ours.
        with running(name, _command(staged, port), root, environment.serving_environment(), folder) as server:
            wait_ready(server, f"{address}/ping", root, name)
            click.echo(
                f"{printable(found.name)} answers at {address}/invocations, and {address}/ping says that it is there."
            )
            click.echo(_curl(model.signature, address, folder / "example.json"))
            click.echo(f"Its log is {log_of(root, name)}. Ctrl-C stops it.")
            watch({"model": server})


def _command(staged: Path, port: int) -> list[str]:
    mlflow = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--model-uri", str(staged)]
    return [*mlflow, "--host", "127.0.0.1", "--port", str(port), "--env-manager", "local", "--workers", "1"]


def _name(port: int) -> str:
    return f"model-{port}"


def _curl(signature: ModelSignature, address: str, file: Path) -> str:
    """A command that asks for an answer to a row of zeros, as one line."""
    body = json.dumps(example(signature))
    if len(body) > LONGEST_BODY:
        file.write_text(body, encoding="utf-8")
        body = f"@{file}"
    return f"curl {address}/invocations -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def example(signature: ModelSignature) -> dict[str, Any]:
    """A request that the server takes, for one row."""
    inputs = signature.inputs
    if not inputs.is_tensor_spec():
        row = [EXAMPLES[column.type.name] for column in inputs]
        return {"dataframe_split": {"columns": inputs.input_names(), "data": [row]}}
    rows = {str(tensor.name): _zeros(tensor.shape[1:]) for tensor in inputs}
    return {"inputs": {name: [row] for name, row in rows.items()} if inputs.has_input_names() else [*rows.values()]}


def _zeros(shape: tuple[int, ...]) -> Any:
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0.0


def _why(root: Path, port: int) -> str:
    """What the model itself had to say, from the server's log."""
    said = log_of(root, _name(port)).read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^ValueError: (.+)$", said, flags=re.MULTILINE)
    return found[-1] if found else ""
