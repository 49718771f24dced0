"""The three pages of `quantbench compare`."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quantbench.core.errors import StoreError
from quantbench.report.compare.against import compare_against
from quantbench.report.compare.groups import arms
from quantbench.report.compare.heading import heading
from quantbench.report.compare.overview import recipe_table
from quantbench.report.compare.page import Page
from quantbench.report.compare.rows import corrected, margins_of, row_of
from quantbench.report.compare.runs import metrics_in, runs_of
from quantbench.report.compare.tables import answers, comparison_tables
from quantbench.report.compare.two_runs import Pair, metrics_of, pair_of, scores_table, settings_table
from quantbench.report.shown import default_metrics
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

NO_TEST = "Nothing is tested here: --against X tests each recipe against X."


def overview_page(store: Store, manifests: Sequence[Manifest], metrics: Sequence[str] | None, today: str) -> Page:
    """All runs of sweeps side by side. Raises StoreError as `recipe_table`."""
    table = recipe_table(store, manifests, metrics)
    _, runs = runs_of(store, manifests)
    shown = [[f"{cell.value} {cell.change}".strip() + cell.marks for cell in row] for row in table.rows]
    rows = [dict(zip(table.header, row, strict=True)) for row in shown]
    return Page(table.title, heading(store, arms(runs), today), [table], [NO_TEST], rows)


def against_page(
    store: Store,
    manifests: Sequence[Manifest],
    text: str,
    metrics: Sequence[str] | None,
    margins: Sequence[str],
    today: str,
) -> Page:
    """Every arm of sweeps against X. margins: METRIC=NUMBER. Raises StoreError as `compare_against`."""
    rows, _ = runs_of(store, manifests)
    found = compare_against(store, manifests, text, metrics, margins_of(margins, metrics_in(rows)))
    sides = list({id(arm): arm for one in found.compared for arm in (one.candidate, one.reference)}.values())
    title = f"{', '.join(manifest.name for manifest in manifests)}: against {text}"
    told = [*found.reasons, *answers(found.compared, text)]
    tables = comparison_tables(found.compared, text)
    return Page(title, heading(store, sides, today), tables, told, [row_of(one) for one in found.compared])


def runs_page(
    store: Store, first: str, second: str, metrics: Sequence[str] | None, margins: Sequence[str], today: str
) -> Page:
    """Two runs. Raises StoreError as `pair_of`, and for a metric that neither has."""
    pair = pair_of(store, first, second)
    known = metrics_of(pair)
    if unknown := [name for name in metrics or [] if name not in known]:
        raise StoreError(f"metric {unknown[0]}: neither run has it. There are: {', '.join(known) or 'none'}")
    chosen = list(metrics or default_metrics(pd.DataFrame({"metric": known})))
    compared = [one for one in pair.compared if one.metric in chosen]
    compared = corrected(compared, margins_of(margins, known), f"tests of {first} against {second}")
    title = f"Run {first} ({_name(pair, 0)}) against run {second} ({_name(pair, 1)})"
    tables = [settings_table(store, pair), scores_table(pair, chosen), *comparison_tables(compared, second)]
    told = answers(compared, second) if compared else [*pair.reasons, "There is nothing to compare: no verdict."]
    return Page(title, heading(store, pair.arms, today), tables, told, [row_of(one) for one in compared])


def _name(pair: Pair, index: int) -> str:
    arm = pair.arms[index]
    return f"{arm.recipe}, calibrated on {arm.calib}" if arm.calibrated else arm.recipe
