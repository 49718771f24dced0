"""`compare SWEEP ... --against X`: every arm of the sweeps against what X means for it, in every column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantbench.core.errors import StoreError
from quantbench.report.columns import ResultRow
from quantbench.report.compare.groups import Arm, arms
from quantbench.report.compare.pairing import compare_sides
from quantbench.report.compare.rows import Compared, corrected
from quantbench.report.compare.runs import columns_of, runs_of
from quantbench.report.compare.scores import Column, Scores
from quantbench.report.compare.selector import Choice, Selector, name_of, parse
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store


@dataclass(frozen=True)
class Against:
    """All comparisons with X, and why some arms have none; `arms` are those of the sweeps, `rows` theirs."""

    chosen: Selector
    compared: list[Compared]
    reasons: list[str]
    arms: list[Arm]
    rows: list[ResultRow]


def compare_against(
    store: Store,
    manifests: Sequence[Manifest],
    text: str,
    metrics: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> Against:
    """Each arm against what `text` means for it (quantbench.report.compare.selector), metric by metric.

    metrics  None: those that have a table
    margins  differences that do not matter, by metric, in the unit of its test
    Raises StoreError where nothing has run, no metric is known, X means nothing, or nothing can be compared.
    """
    rows, runs = runs_of(store, manifests)
    columns = columns_of(rows, metrics)
    known = arms(runs)
    chosen = parse(text, known)
    if chosen.run is not None:
        known = _alone(known, chosen.run)
    choice, scores = Choice(known, chosen), Scores(store)
    compared: list[Compared] = []
    reasons: dict[str, None] = {}
    for arm in known:
        references, why = choice.of(arm)
        if why:
            reasons.setdefault(why)
        for reference in references:
            found = [one for column in columns if (one := _in_column(scores, arm, reference, column)) is not None]
            compared += found
            if not found:
                reasons.setdefault(f"{name_of(arm)}: no difference, it has no score that {name_of(reference)} has")
    if not compared:
        told = "; ".join(reasons) or "it is all there is in these sweeps"
        raise StoreError(f"against {text!r}: nothing to compare: {told}")
    return Against(chosen, corrected(compared, margins or {}, f"comparisons with {text}"), list(reasons), known, rows)


def _in_column(scores: Scores, arm: Arm, reference: Arm, column: Column) -> Compared | None:
    ours, theirs = scores.side(arm, column), scores.side(reference, column)
    if ours is None or theirs is None:
        return None
    rows = (row for run in arm.runs for row in run.rows)
    scored = next(row for row in rows if (row["task"], row["protocol"], row["metric"]) == column)
    return Compared(arm, reference, scored, compare_sides(ours, theirs))


def _alone(known: Sequence[Arm], run_id: str) -> list[Arm]:
    """The arms, with one run in an arm of its own."""
    found: list[Arm] = []
    for arm in known:
        own = [run for run in arm.runs if run.id == run_id]
        others = tuple(run for run in arm.runs if run.id != run_id)
        if own and others:
            found += [Arm(arm.recipe, f"{arm.calib} [{run_id}]", (own[0],)), Arm(arm.recipe, arm.calib, others)]
        else:
            found.append(arm)
    return found
