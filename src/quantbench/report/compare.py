"""Recipes side by side: one table over all runs of sweeps, and paired differences between recipes.

A row is a recipe with its variant and calibration set. Two recipes are compared item by item on the same windows, so
that what makes a window hard cancels; the error says nothing of other calibration draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.collate import collate
from quantbench.report.columns import DATA_FREE, ResultRow, result_rows
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.footnotes import FALLBACK, Footnotes
from quantbench.report.table import Table, TableCell
from quantbench.report.tables import default_metrics
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store


@dataclass(frozen=True)
class _Run:
    """One run and its rows in the tidy frame, one per task and metric."""

    id: str
    rows: list[ResultRow]

    @property
    def first(self) -> ResultRow:
        return self.rows[0]

    @property
    def recipe(self) -> tuple[str, ...]:
        """Equal for runs that differ in quantizer and calibration set only."""
        return (self.first["model"], self.first["scale"], self.first["variant"])


def recipe_table(
    store: Store, manifests: Sequence[Manifest], chosen: Sequence[str] | None = None, against: str | None = None
) -> Table:
    """One row per recipe, variant and calibration set of the sweeps, and for each task those of the metrics it has.

    chosen   metrics; None: those that have a table. StoreError if no task has one of them
    against  a quantizer: each metric is followed by the paired difference from that recipe's run of the same variant
             and model, calibrated on the same text (or on none). Raises StoreError if no such run is in the sweeps.
    """
    frame = collate(store, manifests)
    rows = [row for row in result_rows(frame) if row["run_id"] is not None]
    by_run: dict[str, dict[tuple[str, str | None], ResultRow]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"] or "", {})[row["task"], row["metric"]] = row
    if not by_run:
        raise StoreError("nothing has run yet in " + ", ".join(manifest.name for manifest in manifests))
    runs = [_Run(run_id, list(own.values())) for run_id, own in by_run.items()]
    columns = _columns(rows, chosen or default_metrics(frame))
    references = {(*run.recipe, run.first["calib"]): run for run in runs if run.first["quantizer"] == against}
    if against is not None and not references:
        names = ", ".join(sorted({row["quantizer"] for row in rows}))
        raise StoreError(f"against {against}: no such recipe in these sweeps. There are: {names}")
    notes = Footnotes()
    body = [[*_head(run, notes), *_values(store, run, columns, references, notes), *_spent(store, run)] for run in runs]
    header = ["recipe", "calibration", "bits"]
    for task, metric in columns:
        header += [f"{task}: {metric}", *([f"− {against}"] if against else [])]
    return Table(
        slug="recipes",
        title="Recipes: " + ", ".join(manifest.name for manifest in manifests),
        header=[*header, "CPU s", "GiB"],
        rows=body,
        caption=_caption(rows, against),
        notes=notes.lines(),
    )


def _columns(rows: Sequence[ResultRow], chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Task and metric of each column."""
    metrics_of: dict[str, list[str]] = {}
    for row in rows:
        if row["task"] and row["metric"] and row["metric"] not in metrics_of.setdefault(row["task"], []):
            metrics_of[row["task"]].append(row["metric"])
    known = list(dict.fromkeys(metric for found in metrics_of.values() for metric in found))
    for metric in chosen:
        if metric not in known:
            raise StoreError(
                f"metric {metric}: no task of these sweeps has it. There are: {', '.join(known) or 'none'}"
            )
    return [(task, metric) for task, found in metrics_of.items() for metric in chosen if metric in found]


def _head(run: _Run, notes: Footnotes) -> list[TableCell]:
    first = run.first
    name = " ".join(part for part in (first["quantizer"], first["variant"]) if part)
    calib = " ".join(part for part in (first["calib"], first["calib_variant"]) if part)
    bits = "16" if first["full_precision"] else _text(first["effective_bits"], ".3f")
    return [TableCell(name, marks=notes.mark_fallbacks(first)), TableCell(calib), TableCell(bits)]


def _values(
    store: Store,
    run: _Run,
    columns: Sequence[tuple[str, str]],
    references: Mapping[tuple[str, ...], _Run],
    notes: Footnotes,
) -> list[TableCell]:
    reference = references.get((*run.recipe, run.first["calib"])) or references.get((*run.recipe, DATA_FREE))
    by_key = {(row["task"], row["metric"]): row for row in run.rows}
    cells = []
    for column in columns:
        row = by_key.get(column)
        cells.append(_value(row, run.first, notes))
        if references:
            cells.append(_difference(store, row, run, reference))
    return cells


def _value(row: ResultRow | None, first: ResultRow, notes: Footnotes) -> TableCell:
    if row is None or row["value"] is None:
        failed = first["status"] == "failed"
        return TableCell("FAILED", marks=notes.number(f"failed: {first['error']}")) if failed else TableCell("–")
    own, marks = bool(row["in_distribution"]), notes.mark_overlap(row)
    if row["difference"] is None:
        return TableCell(with_error(row["value"], row["stderr"]), marks=marks, in_distribution=own)
    paired = change(row["difference"], row["difference_stderr"])
    return TableCell(rounded(row["value"], row["stderr"]), paired, marks, own)


def _difference(store: Store, row: ResultRow | None, run: _Run, reference: _Run | None) -> TableCell:
    if row is None or reference is None or reference.id == run.id:
        return TableCell("")
    task, metric, protocol = row["task"], row["metric"], row["protocol"]
    if row["value"] is None or metric is None or protocol is None:
        return TableCell("")
    other = store.load_score(reference.id, task, protocol)
    if other is None or metric not in {one.name for one in other.metrics}:
        return TableCell("")
    items, others = (store.load_items(one.id, task, protocol) for one in (run, reference))
    found = metrics.paired(metric, items, others)
    return TableCell("" if found is None else change(found.difference, found.stderr))


def _spent(store: Store, run: _Run) -> list[TableCell]:
    """Processor seconds and GiB of the last time the run was quantized."""
    found = [cost for cost in store.load_costs(run.id) if cost.get("what") == "quantize"]
    if run.first["full_precision"] or not found:
        return [TableCell(""), TableCell("")]
    return [
        TableCell(_text(found[-1].get("cpu_seconds"), ".0f")),
        TableCell(_text(found[-1].get("peak_memory_bytes"), ".2f", 2**30)),
    ]


def _text(value: float | None, form: str, unit: int = 1) -> str:
    return "" if value is None else format(value / unit, form)


def _caption(rows: Sequence[ResultRow], against: str | None) -> list[str]:
    lines = [
        "Cells: value, then its difference from full precision ± standard error over windows or items, paired; kl and "
        "top1_agreement are measured against full precision already. same: no item has another outcome.",
        "bits: effective bits per quantized weight, everything stored counted. CPU s, GiB: processor seconds and peak "
        "memory of quantizing, as measured when the run was made.",
    ]
    if against is not None:
        lines.insert(
            1, f"− {against}: paired difference from {against} in the same variant; for kl, negative is better."
        )
    if any(row["in_distribution"] for row in rows):
        lines.append(f"{IN_DISTRIBUTION} = calibrated on the test distribution (in-distribution).")
    if any(row["fallbacks"] for row in rows):
        lines.append(f"{FALLBACK} = something gave way while quantizing.")
    return lines
