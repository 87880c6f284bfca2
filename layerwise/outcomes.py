"""Outcomes: has a representation collapsed, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

COLLAPSE_SHARE = 0.85
"""Of what PCA explains with as many components as the narrowest layer so far: what must be left of the inputs. PCA is
held to the same width, so a bottleneck by itself is no collapse."""

NOTHING = 1e-4
"""Share of the largest direction of features below which a direction is rounding."""

PIECE = 2048
"""Rows that are taken at a time."""

LIVE_SPREAD = 1e-6
"""Standard deviation over the rows above which a unit counts as live."""


def live_units(features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """How many units of each seed still tell rows apart.

    Args:
        features: ``(seeds, rows, units)``.
        rows: ``(seeds, n)``, the rows that count; all, if left out.

    Returns:
        ``(seeds,)`` float64 counts. A dead ReLU, which gives the same value for every row, does not count.

    Example:
        >>> import numpy as np
        >>> from layerwise.outcomes import live_units
        >>> live_units(np.array([[[0.0, 1.0], [0.0, 2.0]]])).tolist()
        [1.0]
    """
    spreads = (np.sqrt(_variances(own, chosen)) for own, chosen in _by_seed(features, rows))
    return np.array([(spread > LIVE_SPREAD).sum() for spread in spreads], np.float64)


def effective_rank(features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Exponential of the entropy of the normalised singular values of the centred features (Roy and Vetterli, 2007).

    Args:
        features: ``(seeds, rows, units)``.
        rows: ``(seeds, n)``, the rows that count; all, if left out.

    Returns:
        ``(seeds,)`` float64 in 0..units; 0 where all rows are alike, NaN where a feature is not finite.
    """
    ranks = np.full(len(features), np.nan)
    for place, (own, chosen) in enumerate(_by_seed(features, rows)):
        if not np.isfinite(own).all():
            continue
        values = np.sqrt(np.clip(np.linalg.eigvalsh(_scatter(own, own, chosen)), 0, None))
        share = values / values.sum() if values.sum() > 0 else values
        share = share[share > 1e-12]
        ranks[place] = np.exp(-(share * np.log(share)).sum()) if len(share) else 0.0
    return ranks


def reconstruction_r2(inputs: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Share of the inputs' variance that a reconstruction explains.

    Args:
        inputs: ``(seeds, rows, features)``.
        reconstruction: of the same shape.

    Returns:
        ``(seeds,)`` float64, 1 for a perfect reconstruction, 0 for the mean of the inputs.
    """
    errors = squared_errors(inputs, reconstruction).sum(axis=1)
    return 1 - errors / np.array([_variances(own).sum() * len(own) for own in inputs])


def squared_errors(inputs: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Sum over the rows of each feature's squared error, in double precision.

    Args:
        inputs: ``(seeds, rows, features)``.
        reconstruction: of the same shape.

    Returns:
        ``(seeds, features)`` float64; infinite or NaN for a diverged seed.
    """
    total = np.zeros((len(inputs), inputs.shape[2]))
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in _pieces(inputs[0]):
            total += np.square(inputs[:, piece].astype(np.float64) - reconstruction[:, piece]).sum(axis=1)
    return total


def pca_r2(inputs: np.ndarray, components: int) -> np.ndarray:
    """Share of the inputs' variance that their first principal components explain.

    Args:
        inputs: ``(seeds, rows, features)``.
        components: how many, 1 or more.

    Returns:
        ``(seeds,)`` float64 in 0..1.
    """
    shares = []
    for own in inputs:
        values = np.clip(np.linalg.eigvalsh(_scatter(own, own))[::-1], 0, None)
        shares.append(values[:components].sum() / values.sum())
    return np.array(shares)


def linear_r2(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Share of the inputs' variance that least squares finds in the features.

    It judges the representation, whatever its decoder makes of it: denoising shrinks a reconstruction on purpose, and
    a decoder may not be trained to its end. Directions of less than :data:`NOTHING` of the largest are left out.

    Args:
        features: ``(seeds, rows, units)``.
        inputs: ``(seeds, rows, features)``.

    Returns:
        ``(seeds,)`` float64 in 0..1; NaN where a feature is not finite.
    """
    shares = np.full(len(features), np.nan)
    for place, (own, wanted) in enumerate(zip(features, inputs, strict=True)):
        if np.isfinite(own).all():
            # The normal equations: their singular values are the squares of the features'.
            known, shared = _scatter(own, own), _scatter(own, wanted)
            weights = np.linalg.pinv(known, rcond=NOTHING**2, hermitian=True) @ shared
            shares[place] = (weights * shared).sum() / (_variances(wanted).sum() * len(wanted))
    return shares


def collapsed(inputs: np.ndarray, reconstruction: np.ndarray, features: np.ndarray, narrowest: int) -> np.ndarray:
    """Whether each seed's representation has collapsed.

    It has if its reconstruction explains less than :data:`COLLAPSE_SHARE` of what PCA explains with as many components
    as the narrowest layer so far, and least squares on its features cannot do better than that either.

    Args:
        inputs: ``(seeds, rows, features)``, the training rows.
        reconstruction: of the same shape.
        features: ``(seeds, rows, units)`` of the newest layer.
        narrowest: units of the narrowest layer so far.
    """
    needed = COLLAPSE_SHARE * pca_r2(inputs, min(narrowest, inputs.shape[2]))
    poor = ~(reconstruction_r2(inputs, reconstruction) >= needed)
    return poor & ~(linear_r2(features, inputs) >= needed) if poor.any() else poor


def _by_seed(features: np.ndarray, rows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    return zip(features, [None] * len(features) if rows is None else rows, strict=True)


def _scatter(own: np.ndarray, other: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Sum over rows of the products of two ``(rows, numbers)`` arrays' centred columns, in double precision."""
    means, total = (_means(own, rows), _means(other, rows)), np.zeros((own.shape[1], other.shape[1]))
    for piece in _pieces(own, rows):
        left = own[piece].astype(np.float64) - means[0]
        total += left.T @ (left if other is own else other[piece].astype(np.float64) - means[1])
    return total


def _variances(own: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Variance over rows of each column, in double precision."""
    mean, total = _means(own, rows), np.zeros(own.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in _pieces(own, rows):
            total += np.square(own[piece].astype(np.float64) - mean).sum(axis=0)
    return total / _count(own, rows)


def _means(own: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return sum(own[piece].astype(np.float64).sum(axis=0) for piece in _pieces(own, rows)) / _count(own, rows)


def _count(own: np.ndarray, rows: np.ndarray | None) -> int:
    return len(own) if rows is None else len(rows)


def _pieces(own: np.ndarray, rows: np.ndarray | None = None) -> Iterator[Any]:
    """Rows a few thousand at a time: in double precision, all of them could take more memory than the data."""
    for start in range(0, _count(own, rows), PIECE):
        piece = slice(start, start + PIECE)
        yield piece if rows is None else rows[piece]
