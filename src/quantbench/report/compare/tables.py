"""Comparisons as tables, one a metric, and the sentences that close them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from quantbench.metrics import metrics
from quantbench.metrics.verdict import Verdict
from quantbench.report import wording
from quantbench.report.compare.rows import Line, told
from quantbench.report.comparison_columns import GAP, RECIPE
from quantbench.report.digits import rounded
from quantbench.report.footnotes import Footnotes
from quantbench.report.sentences import is_left_out, of_kind
from quantbench.report.table import Table, TableCell
from quantbench.report.wording import Row

LEAST_P = 1e-4
"""Smaller p values are shown as being smaller."""


def tables_of(lines: Sequence[Line], name: str) -> list[Table]:
    """A table for each metric: a row is one arm on one test. name: what is compared with."""
    found: dict[str, list[Line]] = {}
    for line, row in zip(lines, wording.with_places([line.row for line in lines]), strict=True):
        found.setdefault(row["metric"], []).append(Line(row, line.draws))
    return [_table(own, name) for own in found.values()]


def answers(lines: Sequence[Line], name: str) -> list[str]:
    """What the comparisons say: a sentence for each pair of arms and metric, and last how often which word.

    Recipes are judged by kl where there is kl, and not by perplexity.
    """
    rows = [told(row) for row in wording.with_places([line.row for line in lines])]
    chosen = [one for one in dict.fromkeys(row["metric"] for row in rows) if not is_left_out(rows, one)]
    found = [sentence for metric in chosen for sentence in of_kind(rows, metric, RECIPE)]
    return found + [_counts([row for row in rows if row["metric"] == metric], metric, name) for metric in chosen]


def _counts(rows: Sequence[Row], metric: str, name: str) -> str:
    words = Counter(row["verdict"] for row in rows)
    parts = [f"{word} in {words[word]}" for word in map(str, Verdict) if words[word]]
    whole = f"{len(rows)} comparison{'s' if len(rows) != 1 else ''}"
    return f"{metric} against {name}, of {whole}: {', '.join(parts)}."


def _table(lines: Sequence[Line], name: str) -> Table:
    rows = [line.row for line in lines]
    first, notes = rows[0], Footnotes()
    several = len({(row["reference_recipe"], row["reference_calib"]) for row in rows}) > 1
    drawn = any(len(line.draws) > 1 for line in lines)
    header = ["recipe", "calibration", *(["against"] if several else []), "test", "bits", "value", name, "difference"]
    header += ["95 %", "p", "p (Holm)", "verdict", *(["draws", "spread"] if drawn else [])]
    better = "higher" if first["higher_is_better"] else "lower"
    return Table(
        slug=f"compare-{first['metric']}",
        title=f"{first['metric']} ({first['unit']}; {better} is better): against {name}",
        header=header,
        rows=[_cells(line, notes, several=several, drawn=drawn) for line in lines],
        caption=_caption(rows, drawn=drawn),
        notes=notes.lines(),
        heads=header.index("test") + 1,
        follows=frozenset({len(header) - 1} if drawn else ()),
    )


def _cells(line: Line, notes: Footnotes, *, several: bool, drawn: bool) -> list[TableCell]:
    row = line.row
    names = [row["recipe"], row["calib"]]
    names += [f"{row['reference_recipe']} {row['reference_calib']}"] if several else []
    stderr = row["stderr"]
    texts = [*names, wording.place(row), _bits(row)]
    texts += [rounded(row[key], stderr and stderr * _size(row, key)) for key in ("value", "reference_value")]
    texts += [wording.difference(row), wording.interval(row).removeprefix("95 % "), _p(row["p"]), _p(row["p_holm"])]
    limits = [row["note"] or "", "" if row["reliable"] else "not reliable: fewer than 8 clusters"]
    marks = "".join(f" {notes.number(limit)}" for limit in limits if limit)
    cells = [*map(TableCell, texts), TableCell(row["verdict"], marks=marks)]
    return cells + (_draws(line) if drawn else [])


def _draws(line: Line) -> list[TableCell]:
    """The difference under each draw, in percent where logarithms are compared, and the draws' standard deviation."""
    spread, scale = line.spread, 100 if wording.is_ratio(line.row) else 1
    if spread is None:
        return [TableCell(""), TableCell("")]
    shown = " ".join(rounded(scale * one, scale * spread, signed=True) for one in line.draws)
    return [TableCell(shown), TableCell(rounded(scale * spread, scale * spread))]


def _size(row: Row, key: str) -> float:
    """What an error on the test scale is multiplied with to be one of the value."""
    return abs(row[key]) if wording.is_ratio(row) else 1.0


def _bits(row: Row) -> str:
    own, other = ("" if row[key] is None else f"{row[key]:.4g}" for key in ("bits", "reference_bits"))
    return own if row["same_bits"] is not False else f"{own} (against {other})"


def _p(value: float | None) -> str:
    return "" if value is None else f"<{LEAST_P:g}" if value < LEAST_P else f"{value:.2g}"


def _caption(rows: Sequence[Row], *, drawn: bool) -> list[str]:
    first, percent = rows[0], wording.is_ratio(rows[0])
    scale = " They are tested on the logarithm and shown in percent." if percent else ""
    families = "; ".join(dict.fromkeys(row["family"] for row in rows if row["family"]))
    found = [
        "Differences are paired over clusters of test items, and over calibration draws where both sides have the same."
        f"{scale} p (Holm): adjusted over {families or 'this comparison'}; verdicts go by it.",
    ]
    if any(row["kind"] == GAP for row in rows):
        found.append("Draws of two calibration sets are other texts: these are no pairs, and both add to the error.")
    if drawn:
        unit = "percent, of the logarithm" if percent else metrics.unit(first["metric"])
        found.append(f"draws: the difference under each calibration draw ({unit}); spread: their standard deviation.")
    if first["margin"] is not None:
        found.append(f"equivalent: within {wording.margin_of(first)} by two one-sided tests at 95 %.")
    if any(row["same_bits"] is False for row in rows):
        found.append("bits: effective bits per quantized weight, everything stored counted; some differ.")
    return found
