"""Comparisons as rows like those of comparisons.csv, each with the difference under every draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.comparisons import Compared
from quantbench.report.effects import Effects
from quantbench.report.pairs import Draw, Pair
from quantbench.report.shown import default_metrics
from quantbench.report.wording import Row, plain


@dataclass(frozen=True)
class Line:
    """A comparison: its row, and the difference under each draw, or pair of draws, on the test scale."""

    row: Row
    draws: tuple[float, ...]

    @property
    def spread(self) -> float | None:
        """The standard deviation between draws; None for one."""
        return float(np.std(self.draws, ddof=1)) if len(self.draws) > 1 else None


def lines(compared: Compared, metrics: Sequence[str] | None, margins: Mapping[str, float]) -> list[Line]:
    """The comparisons in some metrics, metric by metric.

    metrics: None for those that have a table. Raises StoreError for one that is not compared.
    """
    known = list(dict.fromkeys(compared.names))
    if unknown := [name for name in metrics or [] if name not in known]:
        raise StoreError(f"metric {unknown[0]}: not compared here. There are: {', '.join(known) or 'none'}")
    chosen = list(metrics or default_metrics(pd.DataFrame({"metric": known})))
    if not compared.names:
        return []
    found: dict[str, list[Line]] = {name: [] for name in chosen}
    for row, owner in zip(plain(compared.frame(margins)), compared.owner.tolist(), strict=True):
        if row["metric"] in found:
            pair, effect = compared.pairs[owner], compared.effects[owner]
            found[row["metric"]].append(Line(row, _draws(pair, effect, row["metric"])))
    return [line for own in found.values() for line in own]


def told(row: Row) -> Row:
    """The row for a sentence in which both sides are named in full, whatever they are calibrated on."""
    if row["kind"] != GAP:
        return row
    named = {
        f"{side}recipe": f"{row[f'{side}recipe']} calibrated on {row[f'{side}calib']}" for side in ("", "reference_")
    }
    return {**row, **named, "kind": RECIPE, "calib": DATA_FREE, "reference_calib": DATA_FREE}


def _draws(pair: Pair, effect: Effects, metric: str) -> tuple[float, ...]:
    """Paired draws one by one; of draws that are not pairs each of the candidate against the others' mean."""
    ours, theirs = (_levels(side, metric) for side in (effect.candidates, effect.references))
    same = [draw.key for draw in effect.candidates] == [draw.key for draw in effect.references]
    paired = len(ours) == 1 or len(theirs) == 1 or (pair.kind != GAP and same)
    if not len(ours) or not len(theirs):
        return ()
    return tuple(float(one) for one in ours - (theirs if paired else theirs.mean()))


def _levels(draws: Sequence[Draw], metric: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([draw.scored.totals[metric].scale_value for draw in draws], dtype=np.float64)
