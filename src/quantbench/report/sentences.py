"""What comparisons say, in sentences that are made from their verdicts and never say more than the tests.

A sentence names a winner only where the verdict does; what is undecided is called that, with the difference that would
have been found; one calibration draw decides nothing. Verdicts are defined in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from quantbench.metrics.clusters import RELIABLE
from quantbench.metrics.verdict import Verdict
from quantbench.report import wording
from quantbench.report.several import standing, together
from quantbench.report.shown import default_metrics
from quantbench.report.wording import FULL_PRECISION, GAP, RECIPE, Row

STUDY = ("sweep", "model", "scale")
"""What is told apart by a heading of its own."""


def sentence(row: Row) -> str:
    """One comparison in words: what, where, by how much, on what evidence, and what limits it.

    row: of comparisons.csv, as plain values (`wording.plain`).
    """
    words = _verdict(row)
    if row["kind"] == RECIPE and row["same_bits"] is False:
        words += f" They store {row['bits']:.4g} and {row['reference_bits']:.4g} bits per weight."
    if row["reliable"] is False and row["verdict"] != Verdict.NOT_COMPARABLE:
        words += f" The interval is not reliable: {wording.clusters_of([row])}, fewer than {RELIABLE}."
    return words


def summary(frame: pd.DataFrame, metrics: Sequence[str] | None = None) -> list[str]:
    """What a frame of comparisons says: for each study and metric how recipes stand, then pair by pair and gap by gap.

    metrics: None for those that have a table; recipes and gaps are then judged by kl where there is kl, not by
    perplexity. A frame without comparisons gives no sentences. More than one study: each sentence names its own.
    """
    rows = wording.with_places(wording.plain(frame))
    chosen = metrics or (default_metrics(frame) if rows else [])
    studies = list(dict.fromkeys(tuple(row[key] for key in STUDY) for row in rows))
    found = []
    for study in studies:
        own = [row for row in rows if tuple(row[key] for key in STUDY) == study]
        head = f"{', '.join(str(part) for part in study if part)}: " if len(studies) > 1 else ""
        left_out = set() if metrics or not any(row["metric"] == "kl" for row in own) else {"perplexity"}
        for metric in chosen:
            of_metric = [row for row in own if row["metric"] == metric]
            found += [head + words for words in _of_metric(of_metric, whole=metric not in left_out)]
    return found


def _of_metric(rows: Sequence[Row], *, whole: bool) -> list[str]:
    """The sentences of one study and metric; `whole`: not only those about full precision."""
    recipes = [row for row in rows if row["kind"] == RECIPE and whole]
    gaps = [row for row in rows if row["kind"] == GAP and whole]
    full = [row for row in rows if row["kind"] == FULL_PRECISION]
    return [
        *([standing(recipes)] if recipes else []),
        *_each(recipes, ("recipe", "reference_recipe")),
        *_each(gaps, ("recipe",)),
        *_each(full, ("recipe",)),
    ]


def _each(rows: Iterable[Row], keys: Sequence[str]) -> list[str]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [sentence(own[0]) if len(own) == 1 else together(own) for own in groups.values()]


def _verdict(row: Row) -> str:
    candidate, reference = wording.sides(row)
    where, proof = f"On {wording.place(row)}", wording.evidence(row)
    match row["verdict"]:
        case Verdict.BETTER | Verdict.WORSE:
            return f"{where}, {candidate} is {row['verdict']} than {reference}: {wording.amount(row)}{proof}."
        case Verdict.EQUIVALENT if row["kind"] == FULL_PRECISION:
            return f"{where}, {candidate} is lossless within {_margin(row)} at 95 %: {wording.amount(row)}{proof}."
        case Verdict.EQUIVALENT:
            both = f"{candidate} is equivalent to {reference}"
            return f"{where}, {both} within {_margin(row)}: {wording.amount(row)}{proof}."
        case Verdict.UNDECIDED if wording.is_one_draw(row):
            both = f"between {candidate} and {reference}"
            return f"{where}, one calibration draw does not decide {both}: {wording.amount(row)}{proof}."
        case Verdict.UNDECIDED:
            power = wording.detectable_of([row])
            told = f"the difference between {candidate} and {reference} is undecided: {wording.amount(row)}{proof}"
            return f"{where}, {told}; {power}." if power else f"{where}, {told}."
        case _:
            return f"{where}, {candidate} and {reference} are not comparable: {row['note'] or 'there is no error'}."


def _margin(row: Row) -> str:
    return f"{wording.margin_of(row)} of {row['metric']}" if wording.is_ratio(row) else wording.margin_of(row)
