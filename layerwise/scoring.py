"""Scores: what a trained network is worth on every part of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from layerwise import outcomes
from layerwise.datasets import View, pick


def classification_scores(seen: View, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and cross-entropy of every seed on every part.

    Args:
        seen: what the seeds see of the data.
        logits: ``(seeds, rows, classes)`` for every row.

    Returns:
        ``<part>_accuracy`` in 0..1 and ``<part>_loss`` in nats a row, each ``(seeds,)`` float64.
    """
    metrics: dict[str, np.ndarray] = {}
    for part, rows in _parts(seen, seen.train):
        accuracy, loss = score(pick(logits, rows), seen.targets_of(rows))
        metrics |= {f"{part}_accuracy": accuracy, f"{part}_loss": loss}
    return metrics


def regression_scores(seen: View, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """R2, mean absolute error and loss of every seed on every part.

    Args:
        seen: what the seeds see of the data.
        outputs: ``(seeds, rows, 1)`` in standard deviations of each seed's training targets.

    Returns:
        ``<part>_r2`` (1 at best, 0 for the mean of the part), ``<part>_mae`` in units of the target and
        ``<part>_loss``, the mean squared error in squared standard deviations; each ``(seeds,)`` float64.
    """
    metrics: dict[str, np.ndarray] = {}
    scale, offset = seen.target_sd[:, np.newaxis], seen.target_mean[:, np.newaxis]
    predicted = outputs[..., 0].astype(np.float64) * scale + offset
    for part, rows in _parts(seen, seen.train):
        truth = seen.targets_of(rows).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged seed gives NaN or infinity, which says so
            errors = np.take_along_axis(predicted, rows, axis=1) - truth
            squares = np.square(errors)
            spread = np.square(truth - truth.mean(axis=1, keepdims=True)).sum(axis=1)
            metrics |= {
                f"{part}_r2": 1 - squares.sum(axis=1) / spread,
                f"{part}_mae": np.abs(errors).mean(axis=1),
                f"{part}_loss": (squares / scale**2).mean(axis=1),
            }
    return metrics


def reconstruction_scores(
    seen: View, made: np.ndarray, known: np.ndarray, narrowest: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Reconstruction error on every part, R2 on the training part, and which seeds have collapsed.

    Args:
        seen: what the seeds see of the data.
        made: ``(seeds, rows, features)``, the reconstruction of every row.
        known: ``(seeds, rows, units)``, the features it was made from.
        narrowest: numbers that the narrowest layer so far has for a row.
    """
    metrics: dict[str, np.ndarray] = {}
    for part, rows in _parts(seen, seen.pool):
        errors = outcomes.squared_errors(seen.inputs_of(rows), pick(made, rows))
        metrics[f"{part}_reconstruction_mse"] = errors.sum(axis=1) / (rows.shape[1] * made.shape[2])
    inputs, rebuilt = seen.inputs_of(seen.pool), pick(made, seen.pool)
    metrics["reconstruction_r2"] = outcomes.reconstruction_r2(inputs, rebuilt)
    return metrics, outcomes.collapsed(inputs, rebuilt, pick(known, seen.pool), narrowest)


def _parts(seen: View, train: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "train", train
    if seen.validation.shape[1]:
        yield "validation", seen.validation
    yield "test", seen.test


def score(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each seed, computed in double precision.

    Args:
        logits: ``(seeds, rows, classes)``.
        targets: ``(seeds, rows)`` integer classes.

    Returns:
        Two ``(seeds,)`` float64 arrays: accuracy in 0..1, cross-entropy in nats a row.

    Example:
        >>> import numpy as np
        >>> from layerwise.scoring import score
        >>> accuracy, loss = score(np.array([[[0.0, 0.0], [0.0, 9.0]]]), np.array([[0, 0]]))
        >>> accuracy.tolist(), loss.round(3).tolist()
        ([0.5], [4.847])
    """
    from scipy.special import logsumexp

    exact = logits.astype(np.float64)
    chosen = np.take_along_axis(exact, targets[..., np.newaxis].astype(np.intp), axis=2)[..., 0]
    accuracy = (exact.argmax(axis=2) == targets).mean(axis=1)
    return accuracy, (logsumexp(exact, axis=2) - chosen).mean(axis=1)


def flat(features: np.ndarray) -> np.ndarray:
    """``(seeds, rows, numbers)``: features of any shape, each row's numbers in one line."""
    return features.reshape(*features.shape[:2], math.prod(features.shape[2:]))


def judged(metrics: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Which seeds have broken, told without the test part: what breaks on test rows alone selects nothing.

    Args:
        metrics: name -> ``(seeds,)`` scores.

    Returns:
        The scores, with NaN for every score of the test part where one of them is not finite, since a network that
        answers NaN is taken to say class 0; and ``(seeds,)`` bool, where a score of any other part is not finite.
    """
    test = {name: values for name, values in metrics.items() if name.startswith("test_")}
    sound = np.all([np.isfinite(values) for values in test.values()], axis=0)
    others = [np.isfinite(values) for name, values in metrics.items() if name not in test]
    blanked = {name: np.where(sound, values, np.nan) for name, values in test.items()}
    return metrics | blanked, ~np.all(others, axis=0)
