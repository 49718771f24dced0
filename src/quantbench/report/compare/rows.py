"""Comparisons as rows like those of comparisons.csv, which sentences are made from; corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantbench.core.errors import StoreError
from quantbench.metrics import metrics
from quantbench.metrics.multiplicity import holm
from quantbench.metrics.verdict import Verdict, verdict
from quantbench.report.columns import DATA_FREE, ResultRow
from quantbench.report.compare.groups import Arm
from quantbench.report.compare.pairing import Difference
from quantbench.report.wording import RECIPE, Row

SAME_BITS = 0.005
"""Effective bits that differ by less are the same as they are shown."""


@dataclass(frozen=True)
class Compared:
    """One comparison of two arms in one column. `scored`: the candidate's row, which describes the column.

    p, p_holm  two-sided, on the test scale, alone and in its family; None without an error
    """

    candidate: Arm
    reference: Arm
    scored: ResultRow
    found: Difference
    margin: float | None = None
    p: float | None = None
    p_holm: float | None = None
    family: str = ""

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.scored["metric"] or ""

    @property
    def same_bits(self) -> bool | None:
        """Whether both store as many bits per weight; None where that is not known."""
        bits, other = self.candidate.bits, self.reference.bits
        return None if bits is None or other is None else abs(bits - other) < SAME_BITS

    @property
    def p_equivalence(self) -> float | None:
        """Of the two one-sided tests against the margin."""
        if self.margin is None or self.found.error is None:
            return None
        return self.found.error.equivalence_p(self.found.mean, self.margin)

    @property
    def verdict(self) -> Verdict:
        """The word. One calibration draw decides nothing: another draw is another text."""
        word = verdict(
            self.found.mean,
            self.found.error,
            higher_is_better=bool(self.scored["higher_is_better"]),
            margin=self.margin,
            p_value=self.p_holm,
        )
        return Verdict.UNDECIDED if self.found.one_draw and word != Verdict.NOT_COMPARABLE else word


def corrected(compared: Iterable[Compared], margins: Mapping[str, float], what: str) -> list[Compared]:
    """The comparisons with p values, adjusted by Holm over those of one metric; `what` says what a family is of."""
    found: list[Compared] = []
    families: dict[str, list[Compared]] = {}
    for one in compared:
        families.setdefault(one.metric, []).append(one)
    for metric, own in families.items():
        p = [None if one.found.error is None else one.found.error.p_value(one.found.mean) for one in own]
        adjusted = iter(holm([value for value in p if value is not None]))
        family = f"{what} in {metric}: {sum(value is not None for value in p)}"
        found += [
            replace(
                one,
                margin=margins.get(metric),
                p=value,
                p_holm=None if value is None else next(adjusted),
                family=family,
            )
            for one, value in zip(own, p, strict=True)
        ]
    return found


def row_of(one: Compared) -> dict[str, Any]:
    """The comparison as a row of comparisons.csv."""
    scored, found, error = one.scored, one.found, one.found.error
    interval = found.interval()
    low, high = (None, None) if interval is None else interval
    row: dict[str, Any] = {name: scored[name] for name in ("sweep", "model", "scale")}
    row |= {"kind": RECIPE, "metric": one.metric, "unit": metrics.unit(one.metric)}
    row |= {name: scored[name] for name in ("higher_is_better", "task", "protocol", "distribution", "relation")}
    row |= {"recipe": one.candidate.recipe, "calib": one.candidate.calib}
    row |= {"reference_recipe": one.reference.recipe, "reference_calib": one.reference.calib}
    row |= {"run_ids": _ids(one.candidate), "reference_run_ids": _ids(one.reference)}
    row |= {"bits": one.candidate.bits, "reference_bits": one.reference.bits, "same_bits": one.same_bits}
    row |= {name: getattr(found, name) for name in ("n_items", "n_clusters", "n_draws", "n_reference_draws")}
    row |= {name: getattr(found, name) for name in ("value", "reference_value", "difference")}
    row |= {"stderr": None if error is None else error.stderr}
    row |= {"low": _in_unit(found, low), "high": _in_unit(found, high)}
    ratios = [found.mean, low, high] if found.log_scale else [None] * 3
    ends = [None if end is None else math.exp(end) for end in ratios]
    row |= dict(zip(("ratio", "ratio_low", "ratio_high"), ends, strict=True))
    row |= {"p": one.p, "p_holm": one.p_holm, "p_bh": None, "family": one.family, "margin": one.margin}
    row |= {"p_equivalence": one.p_equivalence, "detectable": None if error is None else error.detectable()}
    return row | {"verdict": str(one.verdict), "reliable": found.reliable, "note": found.note}


def told(row: Row) -> dict[str, Any]:
    """The row for a sentence in which both sides are named in full, whatever they are calibrated on."""
    sides: dict[str, str] = {}
    for prefix in ("", "reference_"):
        recipe, calib = row[f"{prefix}recipe"], row[f"{prefix}calib"]
        one_text = row["calib"] == row["reference_calib"] or DATA_FREE in (row["calib"], row["reference_calib"])
        if not one_text and calib != DATA_FREE:
            sides |= {f"{prefix}recipe": f"{recipe} calibrated on {calib}", f"{prefix}calib": DATA_FREE}
    return {**row, **sides}


def margins_of(texts: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Margins from METRIC=NUMBER, in the unit of the metric's test. Raises StoreError saying what is wrong."""
    margins: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise StoreError(f"--margin {text}: no such metric here. There are: {', '.join(known) or 'none'}")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (number > 0 and math.isfinite(number)):
            raise StoreError(
                f"--margin {text}: a margin is METRIC=NUMBER, a positive number in the metric's unit "
                f"({metrics.unit(name)}; of perplexity in nats per token, the unit of its logarithm)"
            )
        if number >= 1 and metrics.unit(name).startswith("share"):
            raise StoreError(f"--margin {text}: {name} is a {metrics.unit(name)}, at most 1: one percent is 0.01")
        margins[name] = number
    return margins


def _in_unit(found: Difference, end: float | None) -> float | None:
    """An end of the interval in the metric's unit: of a ratio, applied to the reference's value."""
    return end if end is None or not found.log_scale else found.reference_value * math.expm1(end)


def _ids(arm: Arm) -> str:
    return " ".join(run.id for run in arm.runs)
