"""What comparisons say, in sentences that are made from their verdicts and never say more than the tests.

A sentence names a winner only where the verdict does; what is undecided is called that, with the difference that would
have been found; one calibration draw decides nothing. Verdicts are defined in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quantbench.metrics.clusters import RELIABLE
from quantbench.metrics.verdict import Verdict
from quantbench.report import wording
from quantbench.report.comparison_columns import FULL_PRECISION, GAP, RECIPE
from quantbench.report.several import standing, together
from quantbench.report.shown import default_metrics
from quantbench.report.wording import Row

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
    """What a frame of comparisons says of each study: how recipes stand, each pair, gaps, full precision.

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
        for kind in (RECIPE, GAP, FULL_PRECISION):
            for metric in chosen:
                if kind == FULL_PRECISION or metrics or not is_left_out(own, metric):
                    stand = _standing(own, metric) if kind == RECIPE else []
                    found += [head + words for words in (*stand, *of_kind(own, metric, kind))]
    return found


def answers(rows: Sequence[Row], metric: str) -> list[str]:
    """What a table of one metric closes with: how recipes stand, what each loses by gaps and from full precision.

    rows: all comparisons of one study, as plain values.
    """
    known = wording.with_places(rows)
    full = of_kind(known, metric, FULL_PRECISION)
    if is_left_out(rows, metric):
        return full
    return [*_standing(known, metric), *of_kind(known, metric, GAP), *full]


def of_kind(rows: Sequence[Row], metric: str, kind: str) -> list[str]:
    """A sentence for each recipe, or pair of recipes, about its comparisons of a kind in one metric."""
    own = [row for row in rows if (row["metric"], row["kind"]) == (metric, kind)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in own:
        groups.setdefault((row["recipe"], row["reference_recipe"] if kind == RECIPE else ""), []).append(row)
    return [sentence(group[0]) if len(group) == 1 else together(group) for group in groups.values()]


def _standing(rows: Sequence[Row], metric: str) -> list[str]:
    recipes = [row for row in rows if (row["metric"], row["kind"]) == (metric, RECIPE)]
    return [standing(recipes)] if recipes else []


def is_left_out(rows: Sequence[Row], metric: str) -> bool:
    """Whether recipes and gaps are judged by kl, so that nothing is said of them in perplexity."""
    return metric == "perplexity" and any(row["metric"] == "kl" for row in rows)


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
