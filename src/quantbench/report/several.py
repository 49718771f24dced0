"""Many comparisons of one kind and metric in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.metrics.clusters import RELIABLE
from quantbench.metrics.verdict import Verdict
from quantbench.report import wording
from quantbench.report.columns import DATA_FREE
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, RECIPE
from quantbench.report.wording import Row, listed

MOST = 3
"""Comparisons of one verdict that a sentence lists, the largest differences first; the others are counted."""


def together(rows: Sequence[Row]) -> str:
    """Comparisons of one recipe with one reference, in one sentence by their verdicts: those that decide first."""
    told: list[str] = []
    for word in (Verdict.WORSE, Verdict.BETTER):
        told += _decided([row for row in rows if row["verdict"] == word], word)
    told += _equivalent([row for row in rows if row["verdict"] == Verdict.EQUIVALENT])
    undecided = [row for row in rows if row["verdict"] == Verdict.UNDECIDED]
    told += _undecided([row for row in undecided if not wording.is_one_draw(row)], len(rows))
    told += _one_draw([row for row in undecided if wording.is_one_draw(row)], len(rows))
    told += _not_comparable([row for row in rows if row["verdict"] == Verdict.NOT_COMPARABLE])
    known = [part for part in (wording.draws_of(rows), wording.clusters_of(rows)) if part]
    evidence = f" ({', '.join(known)})" if known else ""
    return f"{_head(rows[0])}: {'; '.join(told)}{evidence}.{_limits(rows)}"


def standing(rows: Sequence[Row]) -> str:
    """Which recipes are shown to be better than another and nowhere to be worse, of all comparisons in one metric."""
    names = list(dict.fromkeys(name for row in rows for name in (row["recipe"], row["reference_recipe"])))
    lost = {name: sum(_winner(row) not in {None, name} for row in rows if name in _both(row)) for name in names}
    won = {name: sum(_winner(row) == name for row in rows) for name in names}
    metric = rows[0]["metric"]
    if not any(won.values()):
        draws = ", with one calibration draw" if all(wording.is_one_draw(row) for row in rows) else ""
        return f"{metric}: no recipe is shown to be better than another in {_count(rows)}{draws}."
    unbeaten = [name for name in names if won[name] and not lost[name]]
    silent = [name for name in names if not won[name] and not lost[name]]
    open_ = f"; nothing is shown of {listed(silent)}" if silent else ""
    if not unbeaten:
        return f"{metric}: each recipe that is shown to be better than another is shown to be worse elsewhere{open_}."
    wins = listed(f"{name} in {won[name]} of {_met(rows, name)}" for name in unbeaten)
    return f"{metric}: shown to be better, and nowhere to be worse: {wins} comparisons{open_}."


def _head(row: Row) -> str:
    metric = row["metric"]
    if row["kind"] == GAP:
        return f"{row['recipe']}, calibrated on another text than the test's ({metric})"
    other = row["reference_recipe"] if row["kind"] == RECIPE else FULL_PRECISION
    return f"{row['recipe']} against {other} ({metric})"


def _where(row: Row) -> str:
    calib = (
        row["calib"] if row["calib"] != DATA_FREE else row["reference_calib"] if row["kind"] == RECIPE else DATA_FREE
    )
    return wording.place(row) if calib in {"", None, DATA_FREE} else f"{wording.place(row)} when calibrated on {calib}"


def _decided(rows: Sequence[Row], word: str) -> list[str]:
    ordered = sorted(rows, key=lambda row: -abs(row["difference"]))
    parts = []
    for row in ordered[:MOST]:
        proof = wording.interval(row)
        parts.append(f"{_where(row)} ({wording.amount(row, named=False)}{', ' + proof if proof else ''})")
    if len(ordered) > MOST:
        parts.append(f"{len(ordered) - MOST} more")
    return [f"{word} on {listed(parts)}"] if parts else []


def _equivalent(rows: Sequence[Row]) -> list[str]:
    by_margin: dict[str, list[Row]] = {}
    for row in rows:
        by_margin.setdefault(wording.margin_of(row), []).append(row)
    word = "lossless" if rows and rows[0]["kind"] == FULL_PRECISION else "equivalent"
    return [f"{word} within {margin} at 95 % on {_places(own)}" for margin, own in by_margin.items()]


def _undecided(rows: Sequence[Row], whole: int) -> list[str]:
    if not rows:
        return []
    power = wording.detectable_of(rows)
    where = "everywhere" if len(rows) == whole else f"on {_places(rows)}"
    return [f"undecided {where}{f' ({power})' if power else ''}"]


def _one_draw(rows: Sequence[Row], whole: int) -> list[str]:
    if not rows:
        return []
    where = "" if len(rows) == whole else f" on {_places(rows)}"
    return [f"not decided by one calibration draw{where}"]


def _not_comparable(rows: Sequence[Row]) -> list[str]:
    by_reason: dict[str, list[Row]] = {}
    for row in rows:
        by_reason.setdefault(row["note"] or "there is no error", []).append(row)
    return [f"not comparable on {_places(own)}: {reason}" for reason, own in by_reason.items()]


def _places(rows: Sequence[Row]) -> str:
    names = [_where(row) for row in rows]
    return listed(names[:MOST] + ([f"{len(names) - MOST} more"] if len(names) > MOST else []))


def _limits(rows: Sequence[Row]) -> str:
    told = ""
    apart = [row for row in rows if row["kind"] == RECIPE and row["same_bits"] is False]
    if apart:
        bits, others = (sorted({f"{row[key]:.4g}" for row in apart}) for key in ("bits", "reference_bits"))
        told += f" They store {listed(bits)} against {listed(others)} bits per weight."
    weak = [row for row in rows if row["reliable"] is False and row["verdict"] != Verdict.NOT_COMPARABLE]
    if weak:
        which = "Intervals are" if len(weak) == len(rows) else f"The intervals on {_places(weak)} are"
        told += f" {which} not reliable: they have fewer than {RELIABLE} clusters."
    return told


def _both(row: Row) -> tuple[str, str]:
    return row["recipe"], row["reference_recipe"]


def _winner(row: Row) -> str | None:
    winners = {Verdict.BETTER: row["recipe"], Verdict.WORSE: row["reference_recipe"]}
    return winners.get(row["verdict"])


def _met(rows: Sequence[Row], name: str) -> int:
    return sum(name in _both(row) for row in rows)


def _count(rows: Sequence[Row]) -> str:
    return "1 comparison" if len(rows) == 1 else f"{len(rows)} comparisons"
