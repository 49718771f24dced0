"""The errors of quantbench.metrics.draws for M metrics at once: tables y [M, D, G] of pseudo-values."""

from __future__ import annotations

import numpy as np

from quantbench.metrics.error_arrays import Array, Errors


def crossed_errors(y: Array) -> Errors:
    """The errors [M] of the means of y [M, D, G] over draws and clusters (`crossed_error`).

    One draw: over clusters alone, with G - 1 degrees of freedom. One cluster gives no error: NaN.
    """
    n_metrics, n_draws, n_clusters = y.shape
    dfs = np.array([max(n_draws - 1, 1), max(n_clusters - 1, 1)], dtype=np.float64)
    if n_clusters < 2:
        variances = np.full((n_metrics, 2), np.nan)
    elif n_draws < 2:
        variances = np.stack([np.zeros(n_metrics), y[:, 0].var(axis=1, ddof=1) / n_clusters], axis=1)
    else:
        draws, clusters, rest = _mean_squares(y)
        added = np.maximum(0.0, clusters - np.minimum(draws, rest))
        variances = np.stack([draws, added], axis=1) / (n_draws * n_clusters)
    return Errors(np.sqrt(variances), np.tile(dfs, (n_metrics, 1)))


def gap_errors(y_a: Array, y_b: Array) -> Errors:
    """The errors [M] of mean(y_a) - mean(y_b), [M, D_A, G] and [M, D_B, G] (`gap_error`).

    A side with one draw adds no variance of draws, which it cannot show: such an error is of that draw only.
    """
    n_clusters = y_a.shape[2]
    if n_clusters < 2:
        return crossed_errors(y_a)
    of_clusters = (y_a.mean(axis=1) - y_b.mean(axis=1)).var(axis=1, ddof=1) / n_clusters
    sides = [(_excess(y), y.shape[1] - 1.0) for y in (y_a, y_b) if y.shape[1] > 1]
    of_draws = sum((variance for variance, _ in sides), np.zeros(len(y_a)))
    spread = sum((variance**2 / df for variance, df in sides), np.zeros(len(y_a)))
    df = np.full(len(y_a), min((one for _, one in sides), default=1.0))
    np.divide(of_draws**2, spread, out=df, where=spread > 0)  # Satterthwaite's degrees of freedom
    variances = np.stack([of_draws, of_clusters], axis=1)
    return Errors(np.sqrt(variances), np.stack([df, np.full(len(y_a), n_clusters - 1.0)], axis=1))


def _mean_squares(y: Array) -> tuple[Array, Array, Array]:
    """MS_d, MS_c and MS_e [M] of y [M, D, G]; D and G at least 2."""
    n_draws, n_clusters = y.shape[1:]
    of_draws, of_clusters = y.mean(axis=2), y.mean(axis=1)
    rest = y - of_draws[:, :, None] - of_clusters[:, None] + y.mean(axis=(1, 2))[:, None, None]
    return (
        n_clusters * of_draws.var(axis=1, ddof=1),
        n_draws * of_clusters.var(axis=1, ddof=1),
        (rest**2).sum(axis=(1, 2)) / ((n_draws - 1) * (n_clusters - 1)),
    )


def _excess(y: Array) -> Array:
    """What draws alone add to the variances of the means of y [M, D, G]: max(0, MS_d - MS_e) / (D G)."""
    draws, _, rest = _mean_squares(y)
    found: Array = np.maximum(0.0, draws - rest) / (y.shape[1] * y.shape[2])
    return found
