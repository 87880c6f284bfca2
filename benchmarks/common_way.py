"""The common way to run the supervised experiment: the plain script, tracked and orchestrated by the book.

One Prefect task for each step, with the defaults of both tools: ``mlflow.keras.autolog()`` logs every epoch and
the model of every ``fit``. It trains one seed and a few stages, and prints the seconds of each stage, from which those
that were not trained are extrapolated.
"""

from __future__ import annotations

import argparse
import json
import time

STARTED = time.perf_counter()

from flows import environment  # noqa: E402 - the clock starts before the imports

environment.prepare(environment.root())

import keras  # noqa: E402
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
from prefect import flow, task  # noqa: E402

from benchmarks import plain_keras  # noqa: E402
from benchmarks.tutorial import TRAIN, load_data  # noqa: E402


@task
def data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets."""
    return load_data()


@task
def train(model: keras.Sequential | None, inputs: np.ndarray, targets: np.ndarray, epochs: int) -> keras.Sequential:
    """The base model, or the next layer: built, trained, and tracked in a run of its own."""
    made = plain_keras.build(1) if model is None else plain_keras.deepen(model)
    with mlflow.start_run(run_name=f"depth {len(made.layers) - 1}"):  # ty: ignore[possibly-missing-attribute]
        plain_keras.fit(made, inputs, targets, epochs=epochs)
    return made


@task
def evaluate(model: keras.Sequential, inputs: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy on the test rows."""
    return model.evaluate(inputs[TRAIN:], targets[TRAIN:], verbose=0)[1]


@flow
def tutorial(stages: int, epochs: int) -> list[float]:
    """All stages of one seed; returns the seconds of each."""
    inputs, targets = data()
    model, seconds = None, []
    for _ in range(stages):
        started = time.perf_counter()
        model = train(model, inputs, targets, epochs)
        evaluate(model, inputs, targets)
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Train, and print as JSON the seconds of the whole process so far and of each stage."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    asked = parser.parse_args()
    root = environment.root()
    mlflow.set_tracking_uri(f"sqlite:///{root}/common.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("common", (root / "artifacts").as_uri()))  # ty: ignore[possibly-missing-attribute]
    mlflow.keras.autolog()
    seconds = tutorial(asked.stages, asked.epochs)
    print(json.dumps({"whole": time.perf_counter() - STARTED, "stages": seconds}))


if __name__ == "__main__":
    main()
