"""Recipes side by side: one table over all runs of sweeps.

A row is a run: a recipe with its settings and what it was calibrated on. `quantbench.report.compare.against` tests how
they differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.report.alike import Run, labels
from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.columns import ResultRow
from quantbench.report.compare.runs import Column, columns_of, runs_of
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.footnotes import FALLBACK, Footnotes
from quantbench.report.table import Table, TableCell
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store


def recipe_table(store: Store, manifests: Sequence[Manifest], chosen: Sequence[str] | None = None) -> Table:
    """One row per run of the sweeps, and for each task those of the metrics it has.

    chosen: metrics; None: those that have a table. StoreError if no task has one of them, or nothing has run.
    """
    rows, runs = runs_of(store, manifests)
    columns = columns_of(rows, chosen)
    notes = Footnotes()
    body = [
        [
            *_head(run, label, notes),
            *_values(run, columns, notes),
            *spent(store, run.id, full_precision=run.first["full_precision"]),
        ]
        for run, label in zip(runs, labels(runs), strict=True)
    ]
    return Table(
        slug="recipes",
        title="Recipes: " + ", ".join(manifest.name for manifest in manifests),
        header=["recipe", "calibration", "bits", *_names(columns), "CPU s", "GiB"],
        rows=body,
        caption=_caption(rows),
        notes=notes.lines(),
    )


def _names(columns: Sequence[Column]) -> list[str]:
    """Headers of the columns: with the protocol's first digits where a task has several."""
    pairs = [(task, metric) for task, _, metric in columns]
    return [
        f"{task}: {metric}" + (f" [{(protocol or '')[:8]}]" if pairs.count((task, metric)) > 1 else "")
        for task, protocol, metric in columns
    ]


def _head(run: Run, label: tuple[str, str], notes: Footnotes) -> list[TableCell]:
    first = run.first
    bits = _text(first["effective_bits"], ".4g" if first["full_precision"] else ".3f")
    return [TableCell(label[0], marks=notes.mark_fallbacks(first)), TableCell(label[1]), TableCell(bits)]


def _values(run: Run, columns: Sequence[Column], notes: Footnotes) -> list[TableCell]:
    by_key = {(row["task"], row["protocol"], row["metric"]): row for row in run.rows}
    return [
        _value(by_key.get((task, protocol, metric)) or by_key.get((task, None, metric)), run.first, notes)
        for task, protocol, metric in columns
    ]


def _value(row: ResultRow | None, first: ResultRow, notes: Footnotes) -> TableCell:
    if row is None or row["value"] is None:
        failed = first["status"] == "failed"
        return TableCell("FAILED", marks=notes.number(f"failed: {first['error']}")) if failed else TableCell("–")
    own, marks = bool(row["in_distribution"]), notes.mark_cut(row) + notes.mark_overlap(row)
    if row["difference"] is None:
        return TableCell(with_error(row["value"], row["stderr"]), marks=marks, in_distribution=own)
    paired = change(row["difference"], row["difference_stderr"])
    return TableCell(rounded(row["value"], row["stderr"]), paired, marks, own)


def spent(store: Store, run_id: str, *, full_precision: bool) -> list[TableCell]:
    """Processor seconds and GiB of the last time the run was quantized; empty where nothing was."""
    found = [cost for cost in store.load_costs(run_id) if cost.get("what") == "quantize"]
    if full_precision or not found:
        return [TableCell(""), TableCell("")]
    return [
        TableCell(_text(found[-1].get("cpu_seconds"), ".0f")),
        TableCell(_text(found[-1].get("peak_memory_bytes"), ".2f", 2**30)),
    ]


def _text(value: float | None, form: str, unit: int = 1) -> str:
    return "" if value is None else format(value / unit, form)


def _caption(rows: Sequence[ResultRow]) -> list[str]:
    lines = [
        "Cells: value, then its difference from full precision ± standard error over clusters of items, paired; kl and "
        "top1_agreement are measured against full precision already. same: no item has another outcome.",
        "bits: effective bits per quantized weight, everything stored counted; of full precision, those of its dtype. "
        "CPU s, GiB: processor seconds and peak memory of quantizing, as measured when the run was made.",
    ]
    if any(row["in_distribution"] for row in rows):
        lines.append(f"{IN_DISTRIBUTION} = calibrated on the test distribution (in-distribution).")
    if any(row["fallbacks"] for row in rows):
        lines.append(f"{FALLBACK} = something gave way while quantizing.")
    return lines
