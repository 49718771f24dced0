"""Two sides of a comparison, each the scores of one metric under one or several calibration draws, and what they show.

Draws of one calibration set are paired with each other: both sides read the same sequences. Draws of two sets are
independent texts, of which only the clusters of test items are paired (quantbench.metrics.draws).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantbench.metrics.clusters import RELIABLE
from quantbench.metrics.draws import crossed_error, gap_error
from quantbench.metrics.errors import Error
from quantbench.metrics.statistics import Values
from quantbench.metrics.totals import Totals
from quantbench.report.compare.groups import Draw
from quantbench.report.wording import ONE_DRAW


@dataclass(frozen=True)
class Side:
    """One side: a metric's totals by the draw calibrated on; one entry with the draw () where none is read.

    where  what must be the same for scores to be compared, by its name: the clusters of the items, the device, threads
    text   which calibration set it is, "" for none: draws of equal texts are the same sequences
    """

    draws: Mapping[Draw, Totals]
    where: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Difference:
    """What a comparison shows, on the metric's test scale (log(value) for perplexity) where not said otherwise.

    value, reference_value  means over draws, in the metric's unit
    draws                   the difference under each draw, or pair of draws
    mean                    of `draws`
    error                   None where there is none: one cluster, a metric without influences, or not comparable
    one_draw                whether a calibrated side has one draw only: the error is over clusters alone
    note                    what limits it
    """

    value: float
    reference_value: float
    log_scale: bool
    draws: tuple[float, ...]
    mean: float
    error: Error | None
    n_items: int
    n_clusters: int
    n_draws: int
    n_reference_draws: int
    one_draw: bool
    note: str

    @property
    def spread(self) -> float | None:
        """The standard deviation between draws; None for one."""
        return float(np.std(self.draws, ddof=1)) if len(self.draws) > 1 else None

    @property
    def reliable(self) -> bool:
        """Whether there are enough clusters for the interval to cover what it says."""
        return self.n_clusters >= RELIABLE

    @property
    def difference(self) -> float:
        """In the metric's unit."""
        return self.value - self.reference_value

    def interval(self) -> tuple[float, float] | None:
        """95 %, on the test scale."""
        return None if self.error is None else self.error.interval(self.mean)


def compare_sides(candidate: Side, reference: Side) -> Difference:
    """The difference candidate - reference of two sides, each with at least one draw."""
    ours, theirs, paired, notes = _matched(candidate, reference)
    unlike = _unlike(candidate.where, reference.where)
    calibrated = () not in candidate.draws or () not in reference.draws
    one_draw = calibrated and min(len(ours), len(theirs)) == 1
    levels = [np.array([one.scale_value for one in side]) for side in (ours, theirs)]
    return Difference(
        value=float(np.mean([one.value for one in ours])),
        reference_value=float(np.mean([one.value for one in theirs])),
        log_scale=ours[0].log_scale,
        draws=tuple((levels[0] - (levels[1] if paired else levels[1].mean())).tolist()),
        mean=float(levels[0].mean() - levels[1].mean()),
        error=None if unlike else _error(ours, theirs, paired=paired),
        n_items=ours[0].n,
        n_clusters=len(ours[0].totals),
        n_draws=len(set(map(id, ours))),
        n_reference_draws=len(set(map(id, theirs))),
        one_draw=one_draw,
        note="; ".join([*unlike, *notes, *([ONE_DRAW] if one_draw else [])]),
    )


def _matched(candidate: Side, reference: Side) -> tuple[list[Totals], list[Totals], bool, list[str]]:
    """The draws of both sides that are compared, whether they are pairs, and what to know of it.

    A side that reads no data is the same under every draw of the other.
    """
    ours, theirs = dict(candidate.draws), dict(reference.draws)
    if () in ours:
        ours = dict.fromkeys(theirs, ours[()])
    elif () in theirs:
        theirs = dict.fromkeys(ours, theirs[()])
    common = [draw for draw in ours if draw in theirs]
    alike = candidate.text == reference.text or "" in (candidate.text, reference.text)
    if not alike or not common:
        told = ["no draw in common: draws are not paired"] if alike else []
        return list(ours.values()), list(theirs.values()), False, told
    odd = len(ours) + len(theirs) - 2 * len(common)
    told = [f"{odd} {'draw' if odd == 1 else 'draws'} without a counterpart left out"] if odd else []
    return [ours[draw] for draw in common], [theirs[draw] for draw in common], True, told


def _unlike(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What differs that must not."""
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    return [f"other {name}: {one.get(name, 'unknown')} and {other.get(name, 'unknown')}" for name in names]


def _error(ours: Sequence[Totals], theirs: Sequence[Totals], *, paired: bool) -> Error | None:
    y, other = _stack(ours), _stack(theirs)
    if y.shape[1] < 2 or not (np.isfinite(y).all() and np.isfinite(other).all()):
        return None
    if not paired and min(len(y), len(other)) > 1:
        return gap_error(y, other)
    if paired and len(y) > 1:
        return crossed_error(y - other)
    clusters = y.mean(axis=0) - other.mean(axis=0)
    return Error.of(float(np.std(clusters, ddof=1)) / math.sqrt(len(clusters)), len(clusters) - 1)


def _stack(draws: Sequence[Totals]) -> Values:
    return np.stack([one.pseudo_values() for one in draws])
