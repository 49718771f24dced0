"""Comparisons as tables, one a metric, and the sentences that close them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from quantbench.metrics import metrics
from quantbench.metrics.verdict import Verdict
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.rows import Compared, row_of, told
from quantbench.report.digits import rounded
from quantbench.report.sentences import sentence
from quantbench.report.several import together
from quantbench.report.table import Table, TableCell
from quantbench.report.wording import interval, place, with_places

LEAST_P = 1e-4
"""Smaller p values are shown as being smaller."""

JUDGED_BY = "kl"
"""Where there is this metric, sentences judge by it and leave perplexity to the tables."""


def comparison_tables(compared: Sequence[Compared], name: str) -> list[Table]:
    """A table for each metric: a row is one arm on one test. name: what is compared with."""
    rows = with_places([row_of(one) | {"compared": one} for one in compared])
    return [
        _table([row for row in rows if row["metric"] == metric], name)
        for metric in dict.fromkeys(one.metric for one in compared)
    ]


def answers(compared: Sequence[Compared], name: str) -> list[str]:
    """What the comparisons say: one sentence for each pair of arms and metric, and last how often which word."""
    rows = [told(row) for row in with_places([row_of(one) for one in compared])]
    chosen = list(dict.fromkeys(row["metric"] for row in rows))
    chosen = [one for one in chosen if one != "perplexity" or JUDGED_BY not in chosen]
    found: list[str] = []
    for metric in chosen:
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for row in rows:
            if row["metric"] == metric:
                sides = ("recipe", "calib", "reference_recipe", "reference_calib")
                groups.setdefault(tuple(row[key] for key in sides), []).append(row)
        found += [sentence(own[0]) if len(own) == 1 else together(own) for own in groups.values()]
    return found + [_counts([row for row in rows if row["metric"] == metric], metric, name) for metric in chosen]


def _counts(rows: Sequence[Any], metric: str, name: str) -> str:
    words = Counter(row["verdict"] for row in rows)
    parts = [f"{word} in {words[word]}" for word in map(str, Verdict) if words[word]]
    whole = f"{len(rows)} comparison{'s' if len(rows) != 1 else ''}"
    return f"{metric} against {name}, of {whole}: {', '.join(parts)}."


def _table(rows: Sequence[Any], name: str) -> Table:
    first = rows[0]
    several = len({(row["reference_recipe"], row["reference_calib"]) for row in rows}) > 1
    drawn = any(len(row["compared"].found.draws) > 1 for row in rows)
    header = ["recipe", "calibration", *(["against"] if several else []), "test", "bits", "value", name, "difference"]
    header += ["95 % interval", "p", "p (Holm)", "verdict", *(["draws", "spread"] if drawn else [])]
    better = "higher" if first["higher_is_better"] else "lower"
    return Table(
        slug=f"compare-{first['metric']}",
        title=f"{first['metric']} ({first['unit']}; {better} is better): against {name}",
        header=header,
        rows=[[TableCell(text) for text in _texts(row, several=several, drawn=drawn)] for row in rows],
        caption=_caption(rows, drawn=drawn),
        notes=_notes(rows),
    )


def _notes(rows: Sequence[Any]) -> list[str]:
    """What limits comparisons, each reason with where it holds."""
    places: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["note"]:
            places.setdefault(row["note"], {})[f"{row['recipe']} {row['calib']} on {place(row)}"] = None
    whole = len(rows)
    return [f"{note}: {'all rows' if len(own) == whole else ', '.join(own)}" for note, own in places.items()]


def _texts(row: Any, *, several: bool, drawn: bool) -> list[str]:
    one: Compared = row["compared"]
    error = one.found.error
    width = None if error is None else error.stderr
    percent = one.found.log_scale
    scale, unit = (100, " %") if percent else (1, "")
    change = 100 * (row["ratio"] - 1) if percent else row["difference"]
    difference = rounded(change, None if width is None else scale * width, signed=True) + unit
    against = f"{row['reference_recipe']} {row['reference_calib']}"
    texts = [row["recipe"], row["calib"], *([against] if several else []), place(row), _bits(row)]
    values = (row["value"], row["reference_value"])
    texts += [rounded(value, width and width * (abs(value) if percent else 1)) for value in values]
    texts += ["same" if change == 0 and not width else difference, interval(row).removeprefix("95 % ")]
    texts += [_p(row["p"]), _p(row["p_holm"]), row["verdict"] + ("" if row["reliable"] else " (not reliable)")]
    if drawn:
        spread = one.found.spread
        place_of = None if spread is None else scale * spread
        texts.append(" ".join(rounded(scale * value, place_of, signed=True) for value in one.found.draws))
        texts.append("" if place_of is None else rounded(place_of, place_of))
    return texts


def _bits(row: Any) -> str:
    own, other = (("" if row[key] is None else f"{row[key]:.4g}") for key in ("bits", "reference_bits"))
    return own if row["same_bits"] is not False else f"{own} (against {other})"


def _p(value: float | None) -> str:
    return "" if value is None else f"<{LEAST_P:.0e}" if value < LEAST_P else f"{value:.2g}"


def _caption(rows: Sequence[Any], *, drawn: bool) -> list[str]:
    first = rows[0]
    percent = first["ratio"] is not None
    lines = [
        "Differences are paired over clusters of test items, and over calibration draws where both sides have the same."
        + (" They are tested on the logarithm and shown in percent. " if percent else " ")
        + f"p (Holm): adjusted for all {first['family']}. Verdicts go by it.",
    ]
    if drawn:
        unit = "percent, on the logarithm" if percent else metrics.unit(first["metric"])
        lines.append(f"draws: the difference under each calibration draw ({unit}); spread: their standard deviation.")
    if any(row["note"] and row["calib"] != DATA_FREE for row in rows) and not drawn:
        lines.append("One calibration draw decides nothing: another draw may say otherwise.")
    if any(row["margin"] is not None for row in rows):
        lines.append(f"equivalent: below the margin of {first['margin']:g} in two one-sided tests at 95 %.")
    if any(row["same_bits"] is False for row in rows):
        told = "where they differ, so may the results, whatever the method"
        lines.append(f"Bits are effective bits per quantized weight, everything stored counted; {told}.")
    return lines
