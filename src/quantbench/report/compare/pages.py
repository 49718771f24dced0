"""The three pages of `quantbench compare`."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.report.arms import arms
from quantbench.report.compare.against import compare_against
from quantbench.report.compare.heading import heading
from quantbench.report.compare.overview import recipe_table
from quantbench.report.compare.page import Page
from quantbench.report.compare.tables import answers, tables_of
from quantbench.report.compare.two_runs import name_of_run, pair_of, scores_table, settings_table
from quantbench.report.layout import joined
from quantbench.report.margins import margins_of
from quantbench.report.pairs import columns_of
from quantbench.report.scored import SweepScores
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

NO_TEST = "Nothing is tested here: --against X tests each recipe against X."


def overview_page(store: Store, manifests: Sequence[Manifest], metrics: Sequence[str] | None, today: str) -> Page:
    """All runs of sweeps side by side. Raises StoreError as `recipe_table`."""
    table = recipe_table(store, manifests, metrics)
    sweeps = [SweepScores(store, manifest) for manifest in manifests]
    known = [(one, arm) for one in sweeps for arm in arms(one.runs)]
    sides = [side for one, arm in known for own in columns_of(one, arm).values() for side in own.values()]
    opening = heading([arm for _, arm in known], [side.draws[0].scored.score for side in sides], today)
    rows = [dict(zip(table.header, map(joined, row), strict=True)) for row in table.rows]
    return Page(table.title, opening, [table], [NO_TEST], rows)


def against_page(
    store: Store,
    manifests: Sequence[Manifest],
    text: str,
    metrics: Sequence[str] | None,
    margins: Sequence[str],
    today: str,
) -> Page:
    """Every arm of sweeps against X. margins: METRIC=NUMBER. Raises as `compare_against` and `margins_of`."""
    found = compare_against(store, manifests, text, metrics, margins_of(margins))
    title = f"{', '.join(manifest.name for manifest in manifests)}: against {text}"
    said = [*found.reasons, *answers(found.lines, text)]
    opening = heading(found.arms, found.scores, today)
    return Page(title, opening, tables_of(found.lines, text), said, [line.row for line in found.lines])


def runs_page(
    store: Store, first: str, second: str, metrics: Sequence[str] | None, margins: Sequence[str], today: str
) -> Page:
    """Two runs. Raises as `pair_of` and `margins_of`."""
    pair = pair_of(store, first, second, metrics, margins_of(margins))
    title = f"Run {first} ({name_of_run(pair, 0)}) against run {second} ({name_of_run(pair, 1)})"
    shown = [settings_table(store, pair), scores_table(pair), *tables_of(pair.lines, second)]
    said = answers(pair.lines, second) or ["There is nothing to compare: no verdict."]
    scores = [score for own in pair.scores for score in own]
    rows = [line.row for line in pair.lines]
    return Page(title, heading(pair.arms, scores, today), shown, [*pair.reasons, *said], rows)
