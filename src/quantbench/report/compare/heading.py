"""The lines that a page opens with: what was compared, on which texts, with how much calibration, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantbench.report.arms import Arm
from quantbench.store.records import RunRecord, Score


def heading(arms: Sequence[Arm], scores: Iterable[Score], today: str) -> list[str]:
    """Model, scale, items and clusters of each test, calibration tokens, draws, and dates.

    scores  of the tests: one of each is enough
    today   ISO 8601 date of the comparison
    """
    runs = [run for arm in arms for run in arm.runs]
    records = [run.record for run in runs if run.record is not None]
    tests = {(score.task, score.protocol): _test(score) for score in scores}
    return [
        f"Model: {_listed(run.model for run in runs)}",
        f"Scale: {_listed(run.scale or 'not named' for run in runs)}",
        f"Tests: {'; '.join(tests.values()) or 'nothing scored'}",
        f"Calibration: {_calibration(records)}",
        f"Draws: {_draws(arms)}",
        f"Measured: {_span([record.created[:10] for record in records])}; compared: {today}",
    ]


def _test(score: Score) -> str:
    items = "windows" if score.origin.family == "lm" else "items"
    size = f"{score.n_items:,d} {items} ({score.n_tokens:,d} tokens) in {score.n_clusters:,d} clusters"
    return f"{score.task}: {size}"


def _calibration(records: Iterable[RunRecord]) -> str:
    known = [record.calibration or {} for record in records]
    tokens = sorted({count for one in known if (count := one.get("n_tokens"))})
    return f"{' or '.join(f'{count:,d}' for count in tokens)} tokens" if tokens else "none: no data are read"


def _draws(arms: Sequence[Arm]) -> str:
    counts = sorted({len(arm.runs) for arm in arms if not arm.fixed})
    if not counts:
        return "none: nothing is drawn"
    if counts == [1]:
        return "1 of each calibration set; what is found holds for this draw only"
    return f"{' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} of each calibration set"


def _span(dates: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys((min(dates), max(dates)))) if dates else "not known"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
