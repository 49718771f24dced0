"""What a comparison of two arms shows: the differences of their metrics with errors over clusters and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbench.metrics import metrics
from quantbench.metrics.draw_arrays import crossed_errors, gap_errors
from quantbench.metrics.error_arrays import Array, Errors
from quantbench.metrics.paired_shares import bonett_price_error, mcnemar_mid_p
from quantbench.report.against_full import outcomes
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, ONE_DRAW
from quantbench.report.pairs import Draw, Pair, Side
from quantbench.report.scored import Scored

EXACT_DF = 1e9
"""Degrees of freedom of an error that is normal."""


@dataclass(frozen=True, eq=False)
class Effects:
    """A comparison of M metrics, all on the test scale but value and reference.

    value, reference  means over draws, in the metric's unit; geometric means of metrics whose logarithm is tested
    centre            of the interval, which is not the difference where shares are paired (Bonett & Price 2012)
    errors            NaN where there are none
    p                 p values that follow from no error, NaN for the others
    candidates        draws that were compared; one_draw: whether none shows how far another would move the difference
    """

    names: tuple[str, ...]
    log_scale: NDArray[np.bool_]
    value: Array
    reference: Array
    difference: Array
    centre: Array
    errors: Errors
    p: Array
    candidates: tuple[Draw, ...]
    references: tuple[Draw, ...]
    one_draw: bool
    note: str


def effects(pair: Pair) -> Effects:
    """The differences candidate - reference in the metrics that both have; with full precision, of those it has."""
    own, other, paired, notes = _draws(pair)
    names = _names(pair, [*own, *other])
    log_scale = np.array([metrics.is_log_scale(name) for name in names], dtype=np.bool_)
    means = [_levels(draws, names) for draws in (own, other)]
    difference = means[0] - means[1]
    centre, p, one_draw = difference.copy(), np.full(len(names), np.nan), False
    if pair.hindrance or not names:
        errors = Errors(np.full((len(names), 2), np.nan), np.ones((len(names), 2)))
        notes = [pair.hindrance]
    else:
        y_a, y_b = (_table(draws, names) for draws in (own, other))
        errors = crossed_errors(y_a - y_b) if paired else gap_errors(y_a, y_b)
        sides = ((own, pair.candidate), (other, pair.reference))
        one_draw = any(len(draws) == 1 and not side.arm.fixed for draws, side in sides)
        notes = [*([ONE_DRAW] if one_draw else []), *notes]
        if len(own) == len(other) == 1:
            shares = paired_shares(names, own[0].scored, other[0].scored)
            centre = put_shares(shares, centre, errors)
            p[list(shares)] = [share.p for share in shares.values()]
    value, reference = (np.where(log_scale, np.exp(np.where(log_scale, mean, 0)), mean) for mean in means)
    return Effects(
        names=names,
        log_scale=log_scale,
        value=value,
        reference=reference,
        difference=difference,
        centre=centre,
        errors=errors,
        p=p,
        candidates=tuple(own),
        references=tuple(other),
        one_draw=one_draw,
        note="; ".join(notes),
    )


def _draws(pair: Pair) -> tuple[Sequence[Draw], Sequence[Draw], bool, list[str]]:
    """The draws that are compared, whether they are paired, and what of that is to be said.

    A side of one run that nothing is drawn for is compared with every draw of the other; draws of two recipes on one
    set are paired where they read the same sequences; those of two sets are other texts.
    """
    one, other = pair.candidate, pair.reference
    if one.arm.fixed or other.arm.fixed:
        return one.draws, other.draws, True, []
    shared = [] if pair.kind == GAP else [key for key in _keys(one) if key in set(_keys(other))]
    if not shared:
        return one.draws, other.draws, False, [] if pair.kind == GAP else ["no draw in common: not paired"]
    kept = [[draw for draw in side.draws if draw.key in shared] for side in (one, other)]
    left = [len(side.draws) - len(shared) for side in (one, other)]
    told = [
        f"{count} draw{'s' if count > 1 else ''} of the {name} left out, which the other side has not"
        for count, name in zip(left, ("candidate", "reference"), strict=True)
        if count
    ]
    return kept[0], kept[1], True, told


def _keys(side: Side) -> list[tuple[str, int]]:
    return [draw.key for draw in side.draws]


def _names(pair: Pair, draws: Sequence[Draw]) -> tuple[str, ...]:
    first, *others = (draw.scored.rows for draw in draws)
    common = [name for name in first if all(name in rows for rows in others)]
    return tuple(name for name in common if not (pair.kind == FULL_PRECISION and metrics.is_relative(name)))


def _table(draws: Sequence[Draw], names: Sequence[str]) -> Array:
    """Pseudo-values [M, D, G]."""
    tables = [draw.scored.y[[draw.scored.rows[name] for name in names]] for draw in draws]
    return np.stack(tables, axis=1)


def _levels(draws: Sequence[Draw], names: Sequence[str]) -> Array:
    """Means [M] over draws, on the test scale."""
    if not draws:
        return np.full(len(names), np.nan)
    found: Array = np.mean([[draw.scored.totals[name].scale_value for name in names] for draw in draws], axis=0)
    return found


class Share(NamedTuple):
    """Two runs right or wrong on the same independent items: centre and error of the interval, and the p value."""

    centre: float
    stderr: float
    p: float


def paired_shares(names: Sequence[str], own: Scored, other: Scored) -> dict[int, Share]:
    """Of the metrics whose items are right or wrong, each in a cluster of its own: their place among the names."""
    found = {}
    if own.score.n_clusters == own.score.n_items:
        for row, name in enumerate(names):
            if metrics.unit(name) != "share of items":
                continue
            ours, theirs = (outcomes(one.totals[name]) for one in (own, other))
            if ours is not None and theirs is not None:
                gained, lost = int((ours > theirs).sum()), int((theirs > ours).sum())
                found[row] = Share(*bonett_price_error(gained, lost, len(ours)), mcnemar_mid_p(gained, lost))
    return found


def put_shares(shares: Mapping[int, Share], centre: Array, errors: Errors) -> Array:
    """The centres [M] of intervals with those of shares among them; their errors are put into `errors`."""
    for row, share in shares.items():
        centre[row] = share.centre
        errors.stderrs[row], errors.dfs[row] = (0.0, share.stderr), EXACT_DF
    return centre
