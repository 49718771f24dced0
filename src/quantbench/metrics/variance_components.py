"""What a score would vary by: test items, calibration draws, calibration sets, seeds and replicates, one by one.

Method of moments. Run i has pseudo-values y_i [G] over clusters of test items (quantbench.metrics.draws), whose mean is
its value. A *factor* (draws, say) is judged on groups of runs that differ in nothing else. With MS_f the mean square of
the k runs of a group and MS_e that of the rest, of the two-way layout [k, G],

    E MS_f = G s_f^2 + s_e^2,    E MS_e = s_e^2,    so s_f^2 is estimated by (MS_f - MS_e) / G,

pooled over the groups: what the runs vary by beyond what their test items explain. It may come out negative where a
factor changes nothing; that is the estimator's noise about zero. What a replicate changes, it changes in every run
anew: it is taken away from draws and seeds where there are replicates, and is part of them elsewhere. Calibration sets
are compared by their means over draws, and what these vary by is taken away.

The interval of s_f^2 is that of Tukey and Williams (Williams 1962, Biometrika 49, 278-281).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtrc, fdtri

from quantbench.metrics.errors import LEVEL

FACTORS = ("replicates", "seeds", "draws")
"""What runs of one recipe and calibration set may differ in: the order of the sequences, seeds of the method, draws."""

Array = NDArray[np.float64]
Key = tuple[Hashable, ...]


@dataclass(frozen=True, eq=False)
class Observed:
    """One run: the pseudo-values y [M, G] of M metrics, and its level of each factor and of the calibration set."""

    y: Array
    calibration: Hashable = None
    draws: Hashable = None
    seeds: Hashable = None
    replicates: Hashable = None


@dataclass(frozen=True)
class Component:
    """The variance of one run's value that comes from one source, in the square of the value's unit.

    variance  unbiased; negative by chance where there is none
    df        degrees of freedom
    levels    how many levels were compared, in all groups; of items, the clusters
    low, high the 95 % interval of the variance, from 0 on; None for items
    p         of the F test that the source changes nothing; None for items and where nothing varies at all
    note      what else is in it
    """

    source: str
    variance: float
    df: float
    levels: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""

    @property
    def sd(self) -> float:
        """The standard deviation, 0 for a negative variance."""
        return math.sqrt(max(0.0, self.variance))


@dataclass(frozen=True, eq=False)
class _Squares:
    """Pooled mean squares [M]: of the factor and of what it is judged against, with their degrees of freedom."""

    factor: Array
    df: int
    rest: Array
    rest_df: Array
    levels: int


def components(runs: Sequence[Observed]) -> list[list[Component]]:
    """For each of the M metrics, what one run of a recipe varies by: items, then what the runs differ in.

    All runs are over the same G clusters. Nothing is said of a source that no two runs differ in alone, nor of any
    where G is 1. Raises ValueError for no runs, or other numbers of metrics or clusters.
    """
    if not runs or len({run.y.shape for run in runs}) != 1:
        shapes = [run.y.shape for run in runs]
        raise ValueError(f"variance is that of runs with the same metrics over the same clusters, not {shapes}")
    n_metrics, n_clusters = runs[0].y.shape
    if n_clusters < 2:
        return [[] for _ in range(n_metrics)]
    factors = {name: found for name in FACTORS if (found := _factor(runs, name)) is not None}
    noise = factors.get("replicates")
    columns = [_items(runs)]
    for name, found in factors.items():
        own = found if noise is None or found is noise else _less(found, noise, 1)
        columns.append(_components(name, own, n_clusters))
    if (sets := _sets(runs, factors.get("draws"))) is not None:
        note = "" if "draws" in factors else "one draw of each: what draws vary by is in it"
        columns.append([replace(one, note=note) for one in _components("calibration sets", sets, n_clusters)])
    return [list(row) for row in zip(*columns, strict=True)]


def _items(runs: Sequence[Observed]) -> list[Component]:
    """The cluster-robust variance (CR1) of one run's value, mean over the runs."""
    n_clusters = runs[0].y.shape[1]
    variances = np.mean([np.var(run.y, axis=1, ddof=1) for run in runs], axis=0) / n_clusters
    return [Component("items", float(variance), n_clusters - 1, n_clusters) for variance in variances]


def _factor(runs: Sequence[Observed], name: str) -> _Squares | None:
    """Groups of runs that differ in one factor alone; None if there are none of two and more."""
    others = [factor for factor in FACTORS if factor != name]
    groups = _grouped(runs, lambda run: (run.calibration, *(getattr(run, factor) for factor in others)))
    # Groups that share levels repeat what these do: they are averaged, and count once. Draws are shared within a
    # calibration set, seeds by all runs; what a replicate does to one draw it does not do to another.
    shared: dict[str, Callable[[Key], Hashable]]
    shared = {"draws": lambda key: key[0], "seeds": lambda _key: None, "replicates": lambda key: key}
    return _pooled([(shared[name](key), np.stack([run.y for run in several])) for key, several in groups])


def _sets(runs: Sequence[Observed], draws: _Squares | None) -> _Squares | None:
    """Calibration sets, by the means over the draws of each, among runs of the same seeds and replicate."""
    means: dict[Hashable, list[Array]] = defaultdict(list)
    shares: list[float] = []
    for (calibration, *key), several in _grouped(runs, lambda run: (run.calibration, run.seeds, run.replicates)):
        if calibration is not None:
            means[tuple(key)].append(np.mean([run.y for run in several], axis=0))
            shares.append(1 / len(several))
    pooled = _pooled([(None, np.stack(rows)) for rows in means.values()])
    if pooled is None or draws is None:
        return pooled
    return _less(pooled, draws, float(np.mean(shares)))


def _less(squares: _Squares, inner: _Squares, share: float) -> _Squares:
    """Judged against the rest and a share of what an inner source varies by; degrees of freedom are Satterthwaite's."""
    added = share * (inner.factor - inner.rest)
    rest = squares.rest + added
    spread = squares.rest**2 / squares.rest_df + added**2 / inner.df
    df = np.divide(rest**2, spread, out=squares.rest_df.copy(), where=spread > 0)
    return replace(squares, rest=np.maximum(0.0, rest), rest_df=np.maximum(1.0, df))


def _grouped(runs: Sequence[Observed], key: Callable[[Observed], Key]) -> list[tuple[Key, list[Observed]]]:
    groups: dict[Key, list[Observed]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return list(groups.items())


def _pooled(tables: Sequence[tuple[Hashable, Array]]) -> _Squares | None:
    """The mean squares of tables y [k, M, G] of two runs and more, each with what it shares its levels with."""
    several = [(shared, y) for shared, y in tables if len(y) > 1]
    if not several:
        return None
    levels: dict[Hashable, int] = defaultdict(int)
    for shared, y in several:
        levels[shared] = max(levels[shared], len(y))
    found = np.array([mean_squares(y) for _, y in several])
    factor, rest = np.average(found, axis=0, weights=[len(y) - 1 for _, y in several])
    df = sum(levels.values()) - len(levels)
    return _Squares(factor, df, rest, np.full_like(rest, df * (several[0][1].shape[2] - 1)), sum(levels.values()))


def mean_squares(y: Array) -> tuple[Array, Array]:
    """MS_f and MS_e [M] of y [k, M, G]; exactly 0 where the k runs are the same, in spite of rounding."""
    k, _, n_clusters = y.shape
    of_runs, of_clusters = y.mean(axis=2), y.mean(axis=0)
    rest = y - of_runs[:, :, None] - of_clusters + of_runs.mean(axis=0)[:, None]
    varies = (y != y[0]).any(axis=(0, 2))
    factor = n_clusters * of_runs.var(axis=0, ddof=1)
    return varies * factor, varies * (rest**2).sum(axis=(0, 2)) / ((k - 1) * (n_clusters - 1))


def _components(name: str, squares: _Squares, n_clusters: int) -> list[Component]:
    tail = (1 - LEVEL) / 2
    ends = []
    for probability in (1 - tail, tail):  # the upper quantiles give the lower end
        excess = squares.df * (squares.factor - fdtri(squares.df, squares.rest_df, probability) * squares.rest)
        ends.append(np.maximum(0.0, excess) / (n_clusters * chdtri(squares.df, 1 - probability)))
    ratio = np.divide(squares.factor, squares.rest, out=np.full_like(squares.rest, np.inf), where=squares.rest > 0)
    p = fdtrc(squares.df, squares.rest_df, ratio)
    found = []
    for index, (factor, rest) in enumerate(zip(squares.factor, squares.rest, strict=True)):
        tested = None if factor == rest == 0 else float(p[index])
        low, high = (float(end[index]) for end in ends)
        variance = float(factor - rest) / n_clusters
        found.append(Component(name, variance, squares.df, squares.levels, low, high, tested))
    return found
