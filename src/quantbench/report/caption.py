"""Captions of tables: what a reader needs to know to trust a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbench.core.origin import FAR, MIXED, RELATED
from quantbench.metrics import metrics
from quantbench.report.columns import ResultRow

RELATION_MARKS = {MIXED: "◐", RELATED: "≈", FAR: "‡"}
RELATION_WORDS = {
    MIXED: "the test distribution is a part of the mixture calibrated on",
    RELATED: "related: calibrated on another data set that shares a source with the test",
    FAR: "far OOD: calibrated on another family or language; cells without a mark are near OOD (the same family and "
    "language), or it is not known",
}
"""How cells that are not in-distribution are marked, and what the caption says of it."""

GAP_HEADER = "transfer gap"

IN_DISTRIBUTION = "<in-distribution>"
"""Stands in captions for the way a renderer marks such a cell."""


def caption(
    metric: str, rows: Sequence[ResultRow], own: Sequence[ResultRow], columns: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Title and explanations of a table: `rows` are all of its tidy rows, `own` those of the recipe.

    columns: the name of each task's column.
    """
    first = own[0]
    recipe = " ".join(part for part in (first["quantizer"], first["variant"]) if part)
    bits = _range([row["effective_bits"] for row in own], ".4g")
    title = f"{_metric_words(metric, rows)}: {first['model']}, {recipe}" + (f", {bits} bits per weight" if bits else "")
    paragraphs = [
        f"Recipe: {row_settings}." for row_settings in dict.fromkeys(row["settings"] for row in own) if row_settings
    ]
    tokens = _range([row["calib_tokens"] for row in own], ",d")
    scale = [f"Scale {first['scale']}"] if first["scale"] else []
    paragraphs.append(
        "; ".join([*scale, *([f"{tokens} calibration tokens"] if tokens else []), _items(rows, columns)]) + "."
    )
    items = metrics.item_word(metric)
    if metrics.is_relative(metric):
        paragraphs.append(f"Cells: value ± standard error over {items}, measured against full precision.")
    else:
        paragraphs.append(
            f"Cells: value, then its difference from full precision ± standard error over {items}, paired. "
            "Where no difference is shown, ± is the standard error of the value."
            + (" same: no item has another outcome." if any(_same(row) for row in own) else "")
            + (" No ±: all items agree, so there is nothing to estimate it from." if any(map(_agree, rows)) else "")
        )
    if any(row["in_distribution"] for row in own):
        paragraphs.append(f"{IN_DISTRIBUTION} = calibrated on the test distribution (in-distribution).")
    relations = {row["relation"] for row in own if row["value"] is not None}
    paragraphs += [f"{mark} = {RELATION_WORDS[name]}." for name, mark in RELATION_MARKS.items() if name in relations]
    return title, paragraphs


def _same(row: ResultRow) -> bool:
    return row["difference"] == 0 and not row["difference_stderr"]


def _agree(row: ResultRow) -> bool:
    return row["difference"] is None and row["stderr"] == 0


def gap_caption(columns: Sequence[str]) -> str:
    """What the column of transfer gaps is; `columns` are those whose own calibration is among the rows."""
    return (
        f"{GAP_HEADER}: what is lost by not calibrating on the test distribution: the difference from the same recipe "
        "calibrated on it, paired per column, ± propagated standard error; mean over the row's out-of-distribution "
        f"columns among {', '.join(columns)}."
    )


def _metric_words(metric: str, rows: Sequence[ResultRow]) -> str:
    known = [row["higher_is_better"] for row in rows if row["higher_is_better"] is not None]
    direction = "" if not known else "; higher is better" if known[0] else "; lower is better"
    return f"{metric} ({metrics.unit(metric)}{direction})"


def _items(rows: Sequence[ResultRow], columns: Mapping[str, str]) -> str:
    """How much each column is measured on: said once if it is the same."""
    sizes = {task: {_size(row) for row in rows if row["task"] == task and row["n"] is not None} for task in columns}
    texts = {task: " or ".join(sorted(found)) for task, found in sizes.items() if found}
    if not texts:
        return "nothing scored"
    if len(set(texts.values())) == 1:
        return f"{next(iter(texts.values()))} per column"
    return ", ".join(f"{columns[task]}: {text}" for task, text in texts.items())


def _size(row: ResultRow) -> str:
    tokens = f" ({row['n_tokens']:,d} tokens)" if row["n_tokens"] else ""
    return f"n = {row['n']:,d} {metrics.item_word(row['metric'] or '')}{tokens}"


def _range(values: Sequence[Any], form: str) -> str:
    known = sorted({format(value, form): value for value in values if value is not None}.values())
    ends = [format(value, form) for value in (known[:1] + known[-1:] if len(known) > 1 else known)]
    return " to ".join(ends)
