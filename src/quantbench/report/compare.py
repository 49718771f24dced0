"""Recipes side by side: one table over all runs of sweeps, and paired differences between recipes.

A row is a run: a recipe with its settings and what it was calibrated on. Two recipes are compared item by item on the
same windows, so that what makes a window hard cancels; the error says nothing of other calibration draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.report.alike import References, Run, labels
from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.collate import collate
from quantbench.report.columns import ResultRow, result_rows
from quantbench.report.digits import change, rounded, with_error
from quantbench.report.footnotes import FALLBACK, Footnotes
from quantbench.report.table import Table, TableCell
from quantbench.report.tables import default_metrics
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

Column = tuple[str, str | None, str]
"""Task, protocol and metric."""


def recipe_table(
    store: Store, manifests: Sequence[Manifest], chosen: Sequence[str] | None = None, against: str | None = None
) -> Table:
    """One row per run of the sweeps, and for each task those of the metrics it has.

    chosen   metrics; None: those that have a table. StoreError if no task has one of them
    against  a quantizer: each metric is followed by the paired difference from that recipe's run of the same model and
             settings, calibrated on the same sequences, or on none (quantbench.report.alike.References). Raises
             StoreError if no such run is in the sweeps.
    """
    frame = collate(store, manifests)
    rows = [row for row in result_rows(frame) if row["run_id"] is not None]
    by_run: dict[str, list[ResultRow]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"] or "", []).append(row)
    if not by_run:
        raise StoreError("nothing has run yet in " + ", ".join(manifest.name for manifest in manifests))
    runs = [Run(run_id, own, _identity(store, run_id)) for run_id, own in by_run.items()]
    columns = _columns(rows, chosen or default_metrics(frame))
    references = None if against is None else References(runs, against)
    if against is not None and not references:
        names = ", ".join(sorted({row["quantizer"] for row in rows}))
        raise StoreError(f"against {against}: no such recipe in these sweeps. There are: {names}")
    notes = Footnotes()
    body = [
        [*_head(run, label, notes), *_values(store, run, columns, references, notes), *_spent(store, run)]
        for run, label in zip(runs, labels(runs), strict=True)
    ]
    header = ["recipe", "calibration", "bits"]
    for name in _names(columns):
        header += [name, *([f"− {against}"] if against else [])]
    return Table(
        slug="recipes",
        title="Recipes: " + ", ".join(manifest.name for manifest in manifests),
        header=[*header, "CPU s", "GiB"],
        rows=body,
        caption=_caption(rows, against),
        notes=notes.lines(),
    )


def _identity(store: Store, run_id: str) -> Mapping[str, Any]:
    record = store.load_run(run_id)
    return {} if record is None else record.config


def _columns(rows: Sequence[ResultRow], chosen: Sequence[str]) -> list[Column]:
    """Task, protocol and metric of each column: scores of two protocols are never in one."""
    metrics_of: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row["task"] and row["metric"]:
            found = metrics_of.setdefault((row["task"], row["protocol"]), [])
            if row["metric"] not in found:
                found.append(row["metric"])
    known = list(dict.fromkeys(metric for found in metrics_of.values() for metric in found))
    for metric in chosen:
        if metric not in known:
            raise StoreError(
                f"metric {metric}: no task of these sweeps has it. There are: {', '.join(known) or 'none'}"
            )
    told = {task for task, protocol in metrics_of if protocol is not None}
    kept = {key: found for key, found in metrics_of.items() if key[1] is not None or key[0] not in told}
    return [(*key, metric) for key, found in kept.items() for metric in chosen if metric in found]


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


def _values(
    store: Store, run: Run, columns: Sequence[Column], references: References | None, notes: Footnotes
) -> list[TableCell]:
    reference, why = (None, "") if references is None else references.of(run)
    by_key = {(row["task"], row["protocol"], row["metric"]): row for row in run.rows}
    cells = []
    for task, protocol, metric in columns:
        row = by_key.get((task, protocol, metric)) or by_key.get((task, None, metric))
        cells.append(_value(row, run.first, notes))
        if references is not None:
            unpaired = TableCell("", marks=notes.number(why) if why and row is not None else "")
            cells.append(unpaired if reference is None else _difference(store, row, run, reference))
    return cells


def _value(row: ResultRow | None, first: ResultRow, notes: Footnotes) -> TableCell:
    if row is None or row["value"] is None:
        failed = first["status"] == "failed"
        return TableCell("FAILED", marks=notes.number(f"failed: {first['error']}")) if failed else TableCell("–")
    own, marks = bool(row["in_distribution"]), notes.mark_cut(row) + notes.mark_overlap(row)
    if row["difference"] is None:
        return TableCell(with_error(row["value"], row["stderr"]), marks=marks, in_distribution=own)
    paired = change(row["difference"], row["difference_stderr"])
    return TableCell(rounded(row["value"], row["stderr"]), paired, marks, own)


def _difference(store: Store, row: ResultRow | None, run: Run, reference: Run) -> TableCell:
    if row is None:
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


def _spent(store: Store, run: Run) -> list[TableCell]:
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
        "bits: effective bits per quantized weight, everything stored counted; of full precision, those of its dtype. "
        "CPU s, GiB: processor seconds and peak memory of quantizing, as measured when the run was made.",
    ]
    if against is not None:
        lines.insert(
            1,
            f"− {against}: paired difference from {against} with the same model and settings, calibrated on the same "
            "sequences or on none; for kl, negative is better.",
        )
    if any(row["in_distribution"] for row in rows):
        lines.append(f"{IN_DISTRIBUTION} = calibrated on the test distribution (in-distribution).")
    if any(row["fallbacks"] for row in rows):
        lines.append(f"{FALLBACK} = something gave way while quantizing.")
    return lines
