"""The lines that a page opens with: what was compared, on which texts, with how much calibration, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantbench.report.columns import ResultRow
from quantbench.report.compare.groups import Arm
from quantbench.store.store import Store


def heading(store: Store, arms: Sequence[Arm], today: str) -> list[str]:
    """Model, scale, items and clusters of each test, calibration tokens, draws, and dates.

    today: ISO 8601 date of the comparison.
    """
    runs = [run for arm in arms for run in arm.runs]
    first = [run.first for run in runs]
    created = [record.created[:10] for run in runs if (record := store.load_run(run.id)) is not None]
    return [
        f"Model: {_listed(row['model'] for row in first)}",
        f"Scale: {_listed(row['scale'] or 'not named' for row in first)}",
        f"Tests: {_tests(store, [row for run in runs for row in run.rows])}",
        f"Calibration: {_calibration(first)}",
        f"Draws: {_draws(arms)}",
        f"Measured: {_span(created)}; compared: {today}",
    ]


def _tests(store: Store, rows: Iterable[ResultRow]) -> str:
    """How much each test is measured on, once for each protocol."""
    told: dict[tuple[str, str], str] = {}
    for row in rows:
        task, protocol, run_id = row.get("task"), row.get("protocol"), row["run_id"]
        if task and protocol and run_id and (task, protocol) not in told and row.get("value") is not None:
            score = store.load_score(run_id, task, protocol)
            if score is not None:
                items = "windows" if score.origin.family == "lm" else "items"
                size = f"{score.n_items:,d} {items} ({score.n_tokens:,d} tokens) in {score.n_clusters:,d} clusters"
                told[task, protocol] = f"{task}: {size}"
    return "; ".join(told.values()) or "nothing scored"


def _calibration(rows: Iterable[ResultRow]) -> str:
    tokens = sorted({count for row in rows if (count := row["calib_tokens"])})
    return f"{' or '.join(f'{count:,d}' for count in tokens)} tokens" if tokens else "none: no data are read"


def _draws(arms: Sequence[Arm]) -> str:
    counts = sorted({len(arm.runs) for arm in arms if arm.calibrated})
    if not counts:
        return "none: no data are read"
    if counts == [1]:
        return "1 of each calibration set; what is found holds for this draw only"
    return f"{' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} of each calibration set"


def _span(dates: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys((min(dates), max(dates)))) if dates else "not known"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
