"""Tables of the comparisons themselves: difference, interval, adjusted p value and word, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from quantbench.metrics.verdict import Verdict
from quantbench.report import wording
from quantbench.report.caption import metric_words
from quantbench.report.columns import result_rows
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, RECIPE
from quantbench.report.digits import rounded
from quantbench.report.evidence import VERDICT_MARKS, Evidence
from quantbench.report.footnotes import Footnotes
from quantbench.report.opening import opening
from quantbench.report.sentences import of_kind
from quantbench.report.studies import Study, studies_of
from quantbench.report.table import Table, TableCell
from quantbench.report.tables import free_slug
from quantbench.report.wording import Row

OPEN = (Verdict.UNDECIDED, Verdict.NOT_COMPARABLE)
"""Words of comparisons that decide nothing."""

NAMES = {RECIPE: "recipes", GAP: "gaps", FULL_PRECISION: "full-precision"}
"""How the file of each kind begins."""

TITLES = {RECIPE: "recipes pairwise", GAP: "transfer gaps", FULL_PRECISION: "against full precision"}

HEADERS = {
    RECIPE: ["recipe", "against", "calibration", "test"],
    GAP: ["recipe", "calibration", "test", "against calibration on"],
    FULL_PRECISION: ["recipe", "calibration", "test"],
}

MOST_LINES = 300
"""Lines of a table; what is left out is counted in its notes."""

SMALLEST_P = 1e-4
"""Adjusted p values below it are not told apart."""


def comparison_tables(frame: pd.DataFrame, metrics: Sequence[str], evidence: Evidence) -> list[Table]:
    """For each metric, study and kind of comparison a table; none for kinds that the sweep has no comparison of.

    frame: the results of `collate`, for what was measured.
    """
    made: dict[str, Table] = {}
    for metric in metrics:
        rows = evidence.rows(metric)
        of_metric = result_rows(frame[(frame["metric"] == metric).fillna(False)])
        for study in studies_of(of_metric) if rows else []:
            own = wording.with_places([row for row in rows if study.has(row)])
            for kind, name in NAMES.items():
                of_this = [row for row in own if row["kind"] == kind]
                if of_this:
                    slug = free_slug([name, metric, study.model, study.scale_option], made)
                    made[slug] = _table(slug, metric, kind, study, of_this)
    return list(made.values())


def _table(slug: str, metric: str, kind: str, study: Study, rows: Sequence[Row]) -> Table:
    notes = Footnotes()
    higher = "higher" if rows[0]["higher_is_better"] else "lower"
    ratio = " in %: the metric is tested on its logarithm" if wording.is_ratio(rows[0]) else ""
    families = "; ".join(dict.fromkeys(row["family"] for row in rows if row["family"]))
    return Table(
        slug=slug,
        title=f"{metric_words(metric, study.rows)}, {TITLES[kind]}: {study.title}",
        header=[
            *HEADERS[kind],
            "draws",
            "value",
            "reference",
            "difference",
            "95 %",
            "p (Holm)",
            "verdict",
            "detectable",
        ],
        rows=[_row(row, kind, notes) for row in _shown(rows, notes)],
        caption=[
            f"difference: value − reference{ratio}; {higher} is better. 95 %: its interval, over draws and clusters of "
            "test items.",
            f"p (Holm): adjusted over {families or 'this comparison'}. detectable: the difference that this test alone "
            "finds with power 0.8.",
        ],
        notes=notes.lines(),
        opening=opening(study.rows, study.columns(), _draws(rows)),
        closing=of_kind(rows, metric, kind),
        heads=len(HEADERS[kind]),
    )


def _shown(rows: Sequence[Row], notes: Footnotes) -> Sequence[Row]:
    """The rows that a table shows, in their order: all, or MOST_LINES of them, those that decide before others."""
    if len(rows) <= MOST_LINES:
        return rows
    ranked = sorted(range(len(rows)), key=lambda index: rows[index]["verdict"] in OPEN)
    kept = sorted(ranked[:MOST_LINES])
    words = Counter(rows[index]["verdict"] for index in ranked[MOST_LINES:])
    left_out = ", ".join(f"{count:,d} {word}" for word, count in words.items())
    notes.number(f"not shown here, but in comparisons.csv: {left_out}")
    return [rows[index] for index in kept]


def _row(row: Row, kind: str, notes: Footnotes) -> list[TableCell]:
    names = {
        RECIPE: [row["recipe"], row["reference_recipe"], _calib(row)],
        GAP: [row["recipe"], row["calib"]],
        FULL_PRECISION: [row["recipe"], row["calib"]],
    }[kind]
    last = [row["reference_calib"]] if kind == GAP else []
    texts = [*names, wording.place(row), *last, _of_draws(row)]
    numbers = [rounded(row[key], row["stderr"]) if row[key] is not None else "" for key in ("value", "reference_value")]
    return [
        *map(TableCell, texts),
        *map(TableCell, numbers),
        TableCell(wording.difference(row)),
        TableCell(
            wording.interval(row).removeprefix("95 % "), marks="" if row["reliable"] is not False else _weak(notes)
        ),
        TableCell(_p_value(row["p_holm"])),
        TableCell(row["verdict"], marks=_marks(row, notes)),
        TableCell(wording.on_test_scale(row, row["detectable"]) if row["detectable"] is not None else ""),
    ]


def _calib(row: Row) -> str:
    """The set both are calibrated on; that of the one that is, where the other reads none."""
    own, other = row["calib"], row["reference_calib"]
    return str(other if wording.subject("", own) == "" else own)


def _of_draws(row: Row) -> str:
    counts = [row["n_draws"], row["n_reference_draws"]]
    known = [str(count) for count in counts if count]
    return known[0] if len(set(known)) == 1 else " / ".join(known)


def _draws(rows: Sequence[Row]) -> list[int]:
    return [count for row in rows for count in (row["n_draws"], row["n_reference_draws"]) if count]


def _p_value(p: float | None) -> str:
    return "" if p is None else f"<{SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"


def _marks(row: Row, notes: Footnotes) -> str:
    mark = {str(word): mark for word, mark in VERDICT_MARKS.items()}.get(row["verdict"], "")
    margin = f"equivalent: within {wording.margin_of(row)}" if row["verdict"] == Verdict.EQUIVALENT else ""
    told = [note for note in (row["note"], margin, _bits(row)) if note]
    return f" {mark}" + "".join(map(notes.number, told))


def _bits(row: Row) -> str:
    if row["kind"] != RECIPE or row["same_bits"] is not False:
        return ""
    return f"other effective bits: {row['bits']:.4g} against {row['reference_bits']:.4g} per weight"


def _weak(notes: Footnotes) -> str:
    return notes.number("not reliable: fewer than 8 clusters")
