"""Outcomes: has a representation collapsed, and what is left of it."""

from __future__ import annotations

import numpy as np

COLLAPSE_SHARE = 0.85
"""Of what PCA explains with as many components as the narrowest layer so far: what must be left of the inputs. PCA is
held to the same width, so a bottleneck by itself is no collapse."""

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


def linear_r2(features: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Share of the inputs' variance that least squares finds in the features.

    It judges the representation, whatever its decoder makes of it: denoising shrinks a reconstruction on purpose, and
    a decoder may not be trained to its end. Directions of less than 1e-4 of the largest are taken for rounding.

    Args:
        features: ``(seeds, rows, units)``.
        inputs: ``(seeds, rows, features)``.

    Returns:
        ``(seeds,)`` float64 in 0..1; NaN where a feature is not finite.
    """
    shares = np.full(len(features), np.nan)
    for place, (own, wanted) in enumerate(zip(features.astype(np.float64), inputs.astype(np.float64), strict=True)):
        if np.isfinite(own).all():
            known, target = own - own.mean(axis=0), wanted - wanted.mean(axis=0)
            found = known @ np.linalg.lstsq(known, target, rcond=1e-4)[0]
            shares[place] = 1 - np.square(target - found).sum() / np.square(target).sum()
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


def _scatter(own: np.ndarray) -> np.ndarray:
    centred = own - own.mean(axis=0)
    return centred.T @ centred
