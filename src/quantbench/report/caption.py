"""Captions of tables: what a reader needs to know to trust a number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from quantbench.core.origin import FAR, MIXED, RELATED
from quantbench.metrics import metrics
from quantbench.report.columns import ResultRow
from quantbench.report.evidence import VERDICT_MARKS

RELATION_MARKS = {MIXED: "◐", RELATED: "≈", FAR: "‡"}
RELATION_WORDS = {
    MIXED: "the test distribution is a part of the mixture calibrated on",
    RELATED: "related: calibrated on another data set that shares a source with the test",
    FAR: "far OOD: calibrated on another family or language; cells without a mark are near OOD (the same family and "
    "language), or it is not known",
}
"""How cells that are not in-distribution are marked, and what the caption says of it."""

IN_DISTRIBUTION = "<in-distribution>"
"""Stands in captions for the way a renderer marks such a cell."""


def caption(metric: str, rows: Sequence[ResultRow]) -> list[str]:
    """What the cells of values hold; `rows` are all tidy rows of the table."""
    own = [row for row in rows if not row["full_precision"]] or list(rows)
    settings = {(_recipe(row), row["settings"]): None for row in own if row["settings"]}
    paragraphs = [f"{recipe}: {text}." for recipe, text in settings]
    error = f"± standard error over clusters of {metrics.item_word(metric)}"
    drawn = "; over several draws their mean, ± over draws and clusters"
    if metrics.is_relative(metric):
        paragraphs.append(f"Cells: value {error}, measured against full precision{drawn}.")
    else:
        paragraphs.append(
            f"Cells: value, then its difference from full precision {error}, paired{drawn}. "
            "Where no difference is shown, ± is the standard error of the value."
            + (" same: no item has another outcome." if any(map(_same, own)) else "")
            + (" No ±: all items agree, so there is nothing to estimate it from." if any(map(_agree, rows)) else "")
        )
    if any(row["in_distribution"] for row in own):
        paragraphs.append(f"{IN_DISTRIBUTION} = calibrated on the test distribution (in-distribution).")
    relations = {row["relation"] for row in own if row["value"] is not None}
    return paragraphs + [
        f"{mark} = {RELATION_WORDS[name]}." for name, mark in RELATION_MARKS.items() if name in relations
    ]


def gap_caption(headers: Iterable[str], higher_is_better: bool | None) -> str:
    """What the columns of transfer gaps, with these headers, are."""
    loss = "" if higher_is_better is None else f"; {'negative' if higher_is_better else 'positive'} is a loss"
    return (
        f"Transfer gap ({', '.join(headers)}): what is lost on the test text of the column before by not calibrating "
        f"on it: the difference from the same recipe calibrated on it, ± standard error{loss}."
    )


def verdict_caption(verdicts: Collection[str], families: Collection[str]) -> list[str]:
    """What the marks of verdicts mean, of those that are there, and over which families p values are adjusted."""
    known = [f"{mark} {word}" for word, mark in VERDICT_MARKS.items() if word in verdicts]
    if not known:
        return []
    family = f" (p values adjusted by Holm over {'; '.join(families)})" if families else ""
    return [f"Behind a difference: {', '.join(known)}{family}."]


def metric_words(metric: str, rows: Sequence[ResultRow]) -> str:
    """The metric with its unit and direction, as a title has it."""
    known = [row["higher_is_better"] for row in rows if row["higher_is_better"] is not None]
    direction = "" if not known else "; higher is better" if known[0] else "; lower is better"
    return f"{metric} ({metrics.unit(metric)}{direction})"


def _recipe(row: ResultRow) -> str:
    return " ".join(part for part in (row["quantizer"], row["variant"]) if part)


def _same(row: ResultRow) -> bool:
    return row["difference"] == 0 and not row["difference_stderr"]


def _agree(row: ResultRow) -> bool:
    return row["difference"] is None and row["stderr"] == 0
