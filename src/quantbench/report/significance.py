"""From differences and their errors to words: intervals, p values adjusted for their family, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from quantbench.metrics import metrics
from quantbench.metrics.error_arrays import Array, Errors
from quantbench.metrics.errors import POWER, Error
from quantbench.metrics.multiplicity import benjamini_hochberg, holm
from quantbench.metrics.verdict import Verdict, verdict
from quantbench.report.effects import Effects

NO_SPREAD = "the difference is the same in every cluster, so that no error can be had from it"
NO_ERROR = "no error: one cluster, or a metric without influences"

Study = tuple[str, str, str]
"""Kind of comparison, model and scale: with a metric, a family."""

_KNOWN = Error(())
"""An error whose p values are given."""


def significance(effects: Sequence[Effects], studies: Sequence[Study], margins: Mapping[str, float]) -> dict[str, Any]:
    """Columns of numbers and words [n] over the metrics of all effects, in their order.

    studies  [n]. A family of Holm's is a study and a metric: its comparisons are the pairs of arms and the texts. The
             p values of equivalence are adjusted in the same families, those of Benjamini and Hochberg over each kind
    """
    names = [name for one in effects for name in one.names]
    one_draw = [one.one_draw for one in effects for _ in one.names]
    note = [one.note for one in effects for _ in one.names]
    difference, centre, value, reference, given = (
        np.concatenate([getattr(one, of) for one in effects])
        for of in ("difference", "centre", "value", "reference", "p")
    )
    log_scale = np.concatenate([one.log_scale for one in effects])
    errors = Errors(*(np.concatenate([getattr(one.errors, of) for one in effects]) for of in ("stderrs", "dfs")))
    no_spread = (errors.stderr == 0) & (difference != 0)
    errors.stderrs[no_spread] = np.nan
    half = errors.half_widths()
    low, high = centre - half, centre + half
    shares = np.isfinite(given)
    low, high = np.where(shares, np.maximum(low, -1), low), np.where(shares, np.minimum(high, 1), high)
    p = np.where(shares, given, errors.p_values(difference))
    margin = np.array([margins.get(name, np.nan) for name in names])
    families = [(*study, name) for study, name in zip(studies, names, strict=True)]
    p_holm, sizes = _adjusted(p, families, holm)
    p_equivalence, _ = _adjusted(errors.equivalence_p(centre, margin), families, holm)
    told = [
        _word(*row)
        for row in zip(names, difference, p_holm, p_equivalence, margin, no_spread, one_draw, note, strict=True)
    ]
    with np.errstate(over="ignore"):
        ratio, ratio_low, ratio_high = (
            np.where(log_scale, np.exp(np.where(log_scale, one, 0)), np.nan) for one in (difference, low, high)
        )
    return {
        "value": value,
        "reference_value": reference,
        "difference": value - reference,
        "stderr": errors.stderr,
        "low": np.where(log_scale, reference * (ratio_low - 1), low),
        "high": np.where(log_scale, reference * (ratio_high - 1), high),
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "p": p,
        "p_holm": p_holm,
        "p_bh": _adjusted(p, [study[0] for study in studies], benjamini_hochberg)[0],
        "family": [_family(family, size) for family, size in zip(families, sizes, strict=True)],
        "margin": margin,
        "p_equivalence": p_equivalence,
        "detectable": half + errors.quantile(POWER),
        "verdict": [word for word, _ in told],
        "note": [own or None for _, own in told],
    }


def _word(
    name: str,
    difference: float,
    p_holm: float,
    p_equivalence: float,
    margin: float,
    no_spread: bool,
    one_draw: bool,
    note: str,
) -> tuple[str, str]:
    """The verdict and the note of one comparison. One draw decides nothing, whatever its p value."""
    if no_spread:
        return Verdict.UNDECIDED.value, "; ".join(part for part in (note, NO_SPREAD) if part)
    if np.isnan(p_holm):
        return Verdict.NOT_COMPARABLE.value, note or NO_ERROR
    if one_draw:
        return Verdict.UNDECIDED.value, note
    stated = None if np.isnan(margin) else margin
    better = metrics.higher_is_better(name)
    word = verdict(
        difference, _KNOWN, higher_is_better=better, margin=stated, p_value=p_holm, equivalence_p=p_equivalence
    )
    return word.value, note


def _adjusted(
    p: Array, families: Sequence[Hashable], method: Callable[[Sequence[float]], list[float]]
) -> tuple[Array, list[int]]:
    """p values adjusted within each family, and the size of each one's family; NaN is in none."""
    groups: dict[Hashable, list[int]] = {}
    for index in np.flatnonzero(~np.isnan(p)):
        groups.setdefault(families[int(index)], []).append(int(index))
    found, sizes = np.full(len(p), np.nan), [0] * len(p)
    for rows in groups.values():
        found[rows] = method(p[rows].tolist())
        for row in rows:
            sizes[row] = len(rows)
    return found, sizes


def _family(family: tuple[str, str, str, str], size: int) -> str | None:
    kind, model, scale, metric = family
    return f"{kind}: {metric}, {model}, {scale} ({size} comparison{'s' if size > 1 else ''})" if size else None
