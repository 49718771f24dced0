"""The stored totals of runs, by what a comparison needs: each score is read once."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from quantbench.core.hashing import digest
from quantbench.metrics.totals import Totals
from quantbench.report.alike import Run
from quantbench.report.compare.groups import Arm, Draw, draw_of, text_of
from quantbench.report.compare.pairing import Side
from quantbench.store.records import Score
from quantbench.store.store import Store

Column = tuple[str, str | None, str]
"""Task, protocol and metric."""

SHOWN = 8
"""Digits of a digest."""


class Scores:
    """Totals of runs in columns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = functools.cache(self._load)

    def side(self, arm: Arm, column: Column) -> Side | None:
        """The arm's totals in a column, by draw; None if none of its runs has them."""
        return self._of(arm.runs, column)

    def _of(self, runs: Sequence[Run], column: Column) -> Side | None:
        task, protocol, metric = column
        draws: dict[Draw, Totals] = {}
        where: dict[str, set[str]] = {}
        for run in runs:
            found = None if protocol is None else self._read(run.id, task, protocol)
            if found is None or metric not in found[1]:
                continue
            draws[draw_of(run)] = found[1][metric]
            for name, value in _where(run, found[0]).items():
                where.setdefault(name, set()).add(value)
        if not draws:
            return None
        told = {name: ", ".join(sorted(values)) for name, values in where.items()}
        return Side(draws, told, digest(text_of(runs[0])) if runs[0].calibration else "")

    def _load(self, run_id: str, task: str, protocol: str) -> tuple[Score, dict[str, Totals]] | None:
        score = self._store.load_score(run_id, task, protocol)
        return None if score is None else (score, self._store.load_totals(score))


def _where(run: Run, score: Score) -> dict[str, str]:
    """What must be the same for two scores to be compared."""
    known = {name: str(score.environment.get(name, "unknown")) for name in ("device", "threads")}
    numerics = str(run.identity.get("numerics_version", "unknown"))
    return {"clusters of test items": score.clusters[:SHOWN], **known, "version of the numerics": numerics}
