"""Outcomes: has a representation collapsed, and what is left of it."""

from __future__ import annotations

import numpy as np

COLLAPSE_SHARE = 0.85
"""A reconstruction that explains less than this share of what PCA explains, with as many components as the
narrowest layer so far, counts as collapsed; a bottleneck by itself does not."""

LIVE_SPREAD = 1e-6
"""Standard deviation over the rows above which a unit counts as live."""


def live_units(features: np.ndarray) -> np.ndarray:
    """How many units of each seed still tell rows apart.

    Args:
        features: ``(seeds, rows, units)``.

    Returns:
        ``(seeds,)`` float64 counts. A dead ReLU, which gives the same value for every row, does not count.

    Example:
        >>> import numpy as np
        >>> from layerwise.outcomes import live_units
        >>> live_units(np.array([[[0.0, 1.0], [0.0, 2.0]]])).tolist()
        [1.0]
    """
    return (features.astype(np.float64).std(axis=1) > LIVE_SPREAD).sum(axis=1).astype(np.float64)


def effective_rank(features: np.ndarray) -> np.ndarray:
    """Exponential of the entropy of the normalised singular values of the centred features (Roy and Vetterli, 2007).

    Args:
        features: ``(seeds, rows, units)``.

    Returns:
        ``(seeds,)`` float64 in 0..units; 0 where all rows are alike, NaN where a feature is not finite.
    """
    ranks = np.full(len(features), np.nan)
    for place, own in enumerate(features.astype(np.float64)):
        if not np.isfinite(own).all():
            continue
        values = np.sqrt(np.clip(np.linalg.eigvalsh(_scatter(own)), 0, None))
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
    exact = inputs.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged seed gives NaN, which says so
        error = np.square(exact - reconstruction).sum(axis=(1, 2))
    return 1 - error / np.square(exact - exact.mean(axis=1, keepdims=True)).sum(axis=(1, 2))


def pca_r2(inputs: np.ndarray, components: int) -> np.ndarray:
    """Share of the inputs' variance that their first principal components explain.

    Args:
        inputs: ``(seeds, rows, features)``.
        components: how many, 1 or more.

    Returns:
        ``(seeds,)`` float64 in 0..1.
    """
    shares = []
    for own in inputs.astype(np.float64):
        values = np.clip(np.linalg.eigvalsh(_scatter(own))[::-1], 0, None)
        shares.append(values[:components].sum() / values.sum())
    return np.array(shares)


def collapsed(inputs: np.ndarray, reconstruction: np.ndarray, narrowest: int) -> np.ndarray:
    """Whether each seed's reconstruction has collapsed: see :data:`COLLAPSE_SHARE`.

    Args:
        inputs: ``(seeds, rows, features)``, the training rows.
        reconstruction: of the same shape.
        narrowest: units of the narrowest layer so far.
    """
    best = pca_r2(inputs, min(narrowest, inputs.shape[2]))
    return ~(reconstruction_r2(inputs, reconstruction) >= COLLAPSE_SHARE * best)


def _scatter(own: np.ndarray) -> np.ndarray:
    centred = own - own.mean(axis=0)
    return centred.T @ centred
