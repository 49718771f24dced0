"""What a score would vary by: test items, calibration draws, calibration sets, seeds and replicates, one by one.

Method of moments. Run i has pseudo-values y_i [G] over clusters of test items (quantbench.metrics.draws), whose mean is
its value. A *factor* (draws, say) is judged on groups of runs that differ in nothing else. With MS_f the mean square of
the k runs of a group and MS_e that of the rest, of the two-way layout [k, G],

    E MS_f = G s_f^2 + s_e^2,    E MS_e = s_e^2,    so s_f^2 is estimated by (MS_f - MS_e) / G,

pooled over the groups: what the runs vary by beyond what their test items explain. It may come out negative where a
factor changes nothing; that is the estimator's noise about zero. Sets of one calibration source are compared by their
means over draws, of whose variance s_f^2 of the draws, divided by their number, is taken away.

The interval of s_f^2 is that of Tukey and Williams (Williams 1962, Biometrika 49, 278-281).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtri, fdtrc, fdtri

from quantbench.metrics.draws import mean_squares
from quantbench.metrics.errors import LEVEL
from quantbench.metrics.statistics import Values

FACTORS = ("replicates", "seeds", "draws")
"""What runs of one recipe and calibration set may differ in: the order of the sequences, seeds of the method, draws."""


@dataclass(frozen=True, eq=False)
class Observed:
    """One run: its pseudo-values y [G], and the level that it has of each factor and of the calibration set."""

    y: Values
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


@dataclass(frozen=True)
class _Squares:
    """Pooled mean squares: of the factor and of what it is judged against, with their degrees of freedom."""

    factor: float
    df: int
    rest: float
    rest_df: float
    levels: int


def components(runs: Sequence[Observed]) -> list[Component]:
    """What the value of one of these runs of a recipe varies by, as far as they differ; items first.

    All are over the same G clusters. Nothing is said of a source that no two runs differ in alone. Raises ValueError
    for no runs, or other numbers of clusters.
    """
    if not runs or len({len(run.y) for run in runs}) != 1:
        raise ValueError(f"variance is that of runs over the same clusters, not over {[len(run.y) for run in runs]}")
    n_clusters = len(runs[0].y)
    found = [_items(runs)] if n_clusters > 1 else []
    squares = {name: _factor(runs, name) for name in FACTORS} if n_clusters > 1 else {}
    found += [_component(name, one, n_clusters) for name, one in squares.items() if one is not None]
    if n_clusters > 1 and (sets := _sets(runs, squares["draws"])) is not None:
        note = "" if squares["draws"] is not None else "one draw of each: what draws vary by is in it"
        found.append(replace(_component("calibration sets", sets, n_clusters), note=note))
    return found


def _items(runs: Sequence[Observed]) -> Component:
    """The cluster-robust variance (CR1) of one run's value, mean over the runs."""
    n_clusters = len(runs[0].y)
    variance = float(np.mean([np.var(run.y, ddof=1) for run in runs])) / n_clusters
    return Component("items", variance, n_clusters - 1, n_clusters)


def _factor(runs: Sequence[Observed], name: str) -> _Squares | None:
    """Groups of runs that differ in one factor alone; None if there are none of two and more."""
    others = [factor for factor in FACTORS if factor != name]
    groups = _grouped(runs, lambda run: (run.calibration, *(getattr(run, factor) for factor in others)))
    # Groups that share levels repeat what these do: they are averaged, and count once. Draws are shared within a
    # calibration set, seeds by all runs; what a replicate does to one draw it does not do to another.
    shared: dict[str, Callable[[tuple[Hashable, ...]], Hashable]]
    shared = {"draws": lambda key: key[0], "seeds": lambda _key: None, "replicates": lambda key: key}
    return _pooled([(shared[name](key), np.stack([run.y for run in several])) for key, several in groups])


def _sets(runs: Sequence[Observed], draws: _Squares | None) -> _Squares | None:
    """Calibration sets, by the means over the draws of each, among runs of the same seeds and replicate."""
    means: dict[Hashable, list[Values]] = defaultdict(list)
    shares: list[float] = []
    for (calibration, *key), several in _grouped(runs, lambda run: (run.calibration, run.seeds, run.replicates)):
        if calibration is not None:
            means[tuple(key)].append(np.mean([run.y for run in several], axis=0))
            shares.append(1 / len(several))
    pooled = _pooled([(None, np.stack(rows)) for rows in means.values()])
    if pooled is None or draws is None:
        return pooled
    of_draws = max(0.0, draws.factor - draws.rest) * float(np.mean(shares))
    rest = pooled.rest + of_draws
    spread = pooled.rest**2 / pooled.rest_df + of_draws**2 / draws.df  # Satterthwaite
    return replace(pooled, rest=rest, rest_df=rest**2 / spread if spread > 0 else pooled.rest_df)


def _grouped(
    runs: Sequence[Observed], key: Callable[[Observed], tuple[Hashable, ...]]
) -> list[tuple[tuple[Hashable, ...], list[Observed]]]:
    groups: dict[tuple[Hashable, ...], list[Observed]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return list(groups.items())


def _pooled(tables: Sequence[tuple[Hashable, Values]]) -> _Squares | None:
    """The mean squares of tables y [k, G] of two runs and more, each with what it shares its levels with."""
    several = [(shared, y) for shared, y in tables if len(y) > 1]
    if not several:
        return None
    clusters = several[0][1].shape[1]
    levels: dict[Hashable, int] = defaultdict(int)
    for shared, y in several:
        levels[shared] = max(levels[shared], len(y))
    weights = np.array([len(y) - 1 for _, y in several])
    found = [_squares(y) for _, y in several]
    factor, rest = (float(np.average(own, weights=weights)) for own in zip(*found, strict=True))
    df = sum(levels.values()) - len(levels)
    return _Squares(factor, df, rest, df * (clusters - 1), sum(levels.values()))


def _squares(y: Values) -> tuple[float, float]:
    """MS_f and MS_e of y [k, G]; exactly 0 where the runs are the same, in spite of rounding."""
    if (y == y[0]).all():
        return 0.0, 0.0
    found = mean_squares(y)
    return found.draws, found.rest


def _component(name: str, squares: _Squares, n_clusters: int) -> Component:
    tail = (1 - LEVEL) / 2
    if squares.factor == squares.rest == 0:
        return Component(name, 0.0, squares.df, squares.levels, 0.0, 0.0)
    ends = []
    for probability in (1 - tail, tail):  # the upper quantiles give the lower end
        critical = float(fdtri(squares.df, squares.rest_df, probability))
        excess = squares.df * (squares.factor - critical * squares.rest)
        ends.append(max(0.0, excess) / (n_clusters * float(chdtri(squares.df, 1 - probability))))
    ratio = squares.factor / squares.rest if squares.rest > 0 else math.inf
    p = float(fdtrc(squares.df, squares.rest_df, ratio))
    variance = (squares.factor - squares.rest) / n_clusters
    return Component(name, variance, squares.df, squares.levels, ends[0], ends[1], p)
