"""Merging what another store packed (quantbench.store.pack) into this one: what is there already must be the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.store.json_record import differences
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.pack import TOTALS, Counts, plain_key, plain_manifest
from quantbench.store.packed import contents_of
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

MACHINES = 1e-4
"""Relative difference between a score measured here and on another machine that is taken as rounding: full precision is
scored by each machine that measures a part of a sweep, and the order of its sums is the processor's."""

TOLD = 5
"""Conflicts that a message lists."""


@dataclass(frozen=True)
class Merged:
    """What came of it: sweeps by name; runs and scores that are new here, and that were here already."""

    sweeps: tuple[str, ...]
    new_runs: int
    new_scores: int
    known_runs: int
    known_scores: int


def merge(store: Store, packed: Mapping[str, bytes], source: str, counts: Counts) -> Merged:
    """Add what `read_pack` gave; `source` names it in messages. To do it again changes nothing.

    counts: whether an override counts for what a cell is. Raises SchemaError for another schema, and StoreError for
    damaged contents and for results that are not those stored here under the same run and protocol; then nothing is
    changed. A score from another machine may differ by rounding (MACHINES); the one that is here stays.
    """
    contents = contents_of(packed, source, store)
    manifests = [_joined(store, manifest, source, counts) for manifest in contents.manifests]
    runs = [(record, store.load_run(record.run_id)) for record in contents.records.values()]
    scores = [(*pair, store.load_score(pair[0].run_id, pair[0].task, pair[0].protocol)) for pair in contents.scores]
    conflicts = [_run_conflict(new, old) for new, old in runs] + [_score_conflict(new, old) for new, _, old in scores]
    _refuse_conflicts(store, source, conflicts)
    for record, old in runs:
        if old is None or (old.status == "failed" and record.status != "failed"):
            store.save_run(record)
        _add_costs(store, record.run_id, contents.costs.get(record.run_id, []))
        if (observed := contents.observed.get(record.run_id)) and store.load_observed(record.run_id) is None:
            store.save_observed(observed)
    for score, totals, known in scores:
        if known is None:
            _save(store, score, totals)
    for name, failure in contents.failures.items():
        path = store.root / name
        if not path.exists() and not path.with_name(path.name.replace(".failed.json", ".json")).exists():
            files.make_folder(path.parent)
            files.write_text(path, failure.to_json())
    for manifest in manifests:
        store.save_manifest(manifest)
    new_runs, new_scores = sum(old is None for _, old in runs), sum(old is None for *_, old in scores)
    names = tuple(manifest.name for manifest in manifests)
    return Merged(names, new_runs, new_scores, len(runs) - new_runs, len(scores) - new_scores)


def _refuse_conflicts(store: Store, source: str, conflicts: Sequence[str]) -> None:
    if found := [one for one in conflicts if one]:
        more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
        raise StoreError(
            f"{source} is not merged: {'; '.join(found[:TOLD])}{more}. Delete whichever is wrong (those here lie in "
            f"{store.root / 'runs'}), or merge into a folder of its own with --output-dir"
        )


def _run_conflict(new: RunRecord, old: RunRecord | None) -> str:
    if old is None or "failed" in (old.status, new.status):
        return ""
    return _conflict(f"run {new.run_id}", differences(old, new))


def _score_conflict(new: Score, old: Score | None) -> str:
    """Of another machine's metrics, only what differs by more than rounding is one."""
    if old is None:
        return ""
    found = differences(old, new)
    if "metrics" in found and old.environment.get("id") != new.environment.get("id"):
        same = [one.name for one in old.metrics] == [one.name for one in new.metrics]
        pairs = zip(old.metrics, new.metrics, strict=False)
        if same and all(math.isclose(a.value, b.value, rel_tol=MACHINES, abs_tol=MACHINES**2) for a, b in pairs):
            found.remove("metrics")
    return _conflict(f"task {new.task} of run {new.run_id}", found)


def _conflict(what: str, fields: Sequence[str]) -> str:
    return f"{what} is stored here with another {', '.join(fields)}" if fields else ""


def _joined(store: Store, manifest: Manifest, source: str, counts: Counts) -> Manifest:
    """The manifest of a sweep here with the cells of another part; a cell of both must be the same run and tests."""
    manifest = plain_manifest(manifest, counts)
    here = store.load_manifest(manifest.name)
    if here is None:
        return manifest
    known = {plain_key(cell, counts): index for index, cell in enumerate(here.cells)}
    cells = list(here.cells)
    for cell in manifest.cells:
        if cell.key not in known:
            cells.append(cell)
            continue
        old = cells[known[cell.key]]
        if not _same_cell(old, cell):
            raise StoreError(
                f"{source} is not merged: sweep {manifest.name}, cell {cell.key}: run {cell.run_id} on "
                f"{_tasks(cell)} there, run {old.run_id} on {_tasks(old)} here. Measure the parts of a sweep with one "
                "version of quantbench, on the same texts; or merge into a folder of its own with --output-dir"
            )
        if old.status != "done":
            cells[known[cell.key]] = dataclasses.replace(cell, key=old.key, overrides=old.overrides)
    return dataclasses.replace(here, cells=cells)


def _same_cell(one: CellEntry, other: CellEntry) -> bool:
    """Whether two cells are the same run, baseline and tests, as far as these are known."""
    pairs = [(one.tasks.get(task), other.tasks.get(task)) for task in one.tasks]
    pairs += [(one.run_id, other.run_id), (one.baseline_run_id, other.baseline_run_id)]
    return one.tasks.keys() == other.tasks.keys() and all(a == b or None in (a, b) for a, b in pairs)


def _tasks(cell: CellEntry) -> str:
    return ", ".join(f"{task} ({(protocol or 'protocol unknown')[:8]})" for task, protocol in cell.tasks.items())


def _add_costs(store: Store, run_id: str, costs: Sequence[Mapping[str, Any]]) -> None:
    known = store.load_costs(run_id)
    for cost in costs:
        if cost not in known:
            store.append_cost(run_id, cost)


def _save(store: Store, score: Score, totals: NDArray[np.float64]) -> None:
    path = store.score_path(score.run_id, score.task, score.protocol)
    with store.lock(score.run_id):
        files.make_folder(path.parent)
        files.write_array(path.with_suffix(TOTALS), totals)
        files.write_text(path, score.to_json())
        store.failure_path(score.run_id, score.task, score.protocol).unlink(missing_ok=True)
