"""The supervised experiment with scikit-learn: one seed, and for each stage an ``MLPClassifier`` on frozen features.

It has one hidden layer, as each stage trains one. What it cannot do is to keep the output layer from stage to stage:
each begins with a fresh one, and with initial weights of scikit-learn's own choice. The work is otherwise the same.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from benchmarks.tutorial import BATCH, LEARNING_RATE, MOMENTUM, TRAIN, UNITS, load_data


def stage(inputs: np.ndarray, classes: np.ndarray, *, epochs: int, seed: int) -> tuple[MLPClassifier, np.ndarray]:
    """Train one stage on the first half of the rows; returns its classifier, and features of all rows."""
    made = MLPClassifier(
        (UNITS,),
        solver="sgd",
        alpha=0,
        batch_size=BATCH,
        learning_rate_init=LEARNING_RATE,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        max_iter=epochs,
        n_iter_no_change=epochs,
        tol=0,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is to train so many epochs and no more
        made.fit(inputs[:TRAIN], classes[:TRAIN])
    return made, np.maximum(inputs @ made.coefs_[0] + made.intercepts_[0], 0)


def main() -> None:
    """Train every stage of one seed and print the scores of each depth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stages", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    seen, targets = load_data()
    classes = targets.argmax(axis=1)
    for depth in range(1, asked.stages + 1):
        made, features = stage(seen, classes, epochs=asked.epochs, seed=100 * asked.seed + depth)
        if made.n_iter_ != asked.epochs:
            raise RuntimeError(f"depth {depth} trained {made.n_iter_} epochs, expected {asked.epochs}")
        train, test = (made.score(seen[rows], classes[rows]) for rows in (slice(TRAIN), slice(TRAIN, None)))
        print(f"depth {depth:2d}  train accuracy {train:.3f}  test accuracy {test:.3f}", flush=True)
        seen = features


if __name__ == "__main__":
    main()
