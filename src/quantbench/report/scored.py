"""What the runs of a sweep have scored: each score is read once, and what is damaged is marked."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from quantbench.core.errors import StoreError
from quantbench.metrics.error_arrays import Array
from quantbench.metrics.metric import Metric
from quantbench.metrics.totals import Totals
from quantbench.report.against_full import answered, chance_level, changed_answers, recovered
from quantbench.report.sweep_runs import SweepRun, one_line, sweep_runs
from quantbench.store.json_record import SchemaError
from quantbench.store.manifest import Manifest
from quantbench.store.records import Score
from quantbench.store.store import Store

log = logging.getLogger("quantbench")

Key = tuple[str, str, str]
"""Run id, task, protocol."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A score with its metrics, those that compare it with full precision's answers among them.

    metrics    in the order of the score
    totals     of those that have any, by name
    intervals  of those that have another than their totals give
    """

    score: Score
    metrics: tuple[Metric, ...]
    totals: dict[str, Totals]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Metric -> its row in `y`."""
        return {name: row for row, name in enumerate(self.totals)}

    @cached_property
    def y(self) -> Array:
        """Pseudo-values [M, G] on the test scales (quantbench.metrics.draws), NaN where there are no influences."""
        if not self.totals:
            return np.zeros((0, self.score.n_clusters))
        return np.stack([one.pseudo_values() for one in self.totals.values()])


class SweepScores:
    """The runs of a sweep and their scores, each read once, when it is first asked for.

    damaged  (run id, task, protocol) -> what is wrong with a score that cannot be read

    Raises SchemaError for a store of another schema.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.runs = sweep_runs(store, manifest)
        self.damaged: dict[Key, str] = {}
        self._stored: dict[Key, Scored | None] = {}
        self._known: dict[Key, Scored | None] = {}
        self._chances: dict[Key, float | None] = {}
        self._bad_items: set[str] = set()

    def of(self, run: SweepRun, task: str, protocol: str | None) -> Scored | None:
        """The score of a finished run on a task; None where there is none, or none that can be read."""
        if run.status != "done" or run.run_id is None or protocol is None:
            return None
        key = (run.run_id, task, protocol)
        if key not in self._known:
            own, full = self._load(key), self.full_precision(run, task, protocol)
            self._known[key] = own if own is None or full is None else self._compared(own, full)
        return self._known[key]

    def full_precision(self, run: SweepRun, task: str, protocol: str) -> Scored | None:
        """The score of the full-precision run that `run` is compared with, under the same protocol."""
        return None if run.baseline is None else self._load((run.baseline, task, protocol))

    def elsewhere(self, run_id: str | None, task: str) -> str:
        """What there is in place of a run's score on a task: ", only under PROTOCOL" or that it is damaged; or ""."""
        if run_id is None:
            return ""
        damage = [told for (owner, of, _), told in self.damaged.items() if (owner, of) == (run_id, task)]
        if damage:
            return f", which is damaged: {damage[0]}"
        others = [score.protocol for score in self.store.scores(run_id) if score.task == task]
        return f", only under {', '.join(others)}" if others else ""

    def _load(self, key: Key) -> Scored | None:
        if key not in self._stored:
            self._stored[key] = None
            try:
                score = self.store.load_score(*key)
                if score is not None:
                    self._stored[key] = Scored(score, tuple(score.metrics), self.store.load_totals(score))
            except SchemaError:
                raise
            except StoreError as error:
                self.damaged[key] = one_line(str(error))
        return self._stored[key]

    def _compared(self, own: Scored, full: Scored) -> Scored:
        """With what its answers are beside those of full precision, where it has answers that are right or wrong."""
        name = answered(own.totals)
        if name is None or name not in full.totals or own.score.clusters != full.score.clusters:
            return own
        try:
            changed = changed_answers(self.store, name, (own.score, own.totals), (full.score, full.totals))
            kept = self._recovery(name, own, full)
        except StoreError as error:
            if own.score.task not in self._bad_items:
                log.warning("%s: agreement, flips and recovery are left out: %s", own.score.task, error)
            self._bad_items.add(own.score.task)
            return own
        totals = own.totals | {metric.name: one for metric, one in changed}
        more = [metric for metric, _ in changed] + ([] if kept is None else [kept[0]])
        return Scored(own.score, (*own.metrics, *more), totals, {} if kept is None else kept[1])

    def _recovery(self, name: str, own: Scored, full: Scored) -> tuple[Metric, dict[str, tuple[float, float]]] | None:
        key = (full.score.run_id, full.score.task, full.score.protocol)
        if key not in self._chances:  # merged scores have no items: what needs them is not known
            self._chances[key] = chance_level(self.store.load_items(*key)) if self.store.has_items(*key) else None
        chance = self._chances[key]
        return None if chance is None else recovered(own.totals[name], full.totals[name], chance)
