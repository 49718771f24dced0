"""Cells as they are submitted: frozen to plain values, and built again from them in the process that runs them."""

from __future__ import annotations

import dataclasses

from quantbench.cells.session import Session
from quantbench.config.cell import Cell, cell_of
from quantbench.core.errors import ConfigError, StoreError
from quantbench.launch.cluster import Cluster
from quantbench.launch.overview import key_of
from quantbench.launch.records import FrozenCell
from quantbench.launch.state import SweepState
from quantbench.launch.submit import Work
from quantbench.store.manifest import CellEntry
from quantbench.tasks.task import protocol_id


def work_of(cell: Cell, entry: CellEntry, cluster: Cluster) -> Work:
    """A cell of a manifest, to be submitted. Raises ConfigError if `cluster.group_by` names what is no group."""
    tasks = {task: protocol for task, protocol in entry.tasks.items() if protocol is not None}
    return _work(freeze(cell, key_of(entry), tasks), cell, cluster)


def work_again(frozen: FrozenCell, sweep: SweepState, cluster: Cluster) -> Work:
    """A cell that was submitted before, to be submitted as it was, whatever became of it."""
    cell = _built(frozen, sweep)
    settings = dataclasses.replace(cell.settings, retry_failed=True)
    return _work(frozen, dataclasses.replace(cell, settings=settings), cluster)


def _work(frozen: FrozenCell, cell: Cell, cluster: Cluster) -> Work:
    unknown = [group for group in cluster.group_by if group not in cell.choices]
    if unknown:
        raise ConfigError(f"cluster.group_by: {unknown[0]!r} is no group; groups: {', '.join(cell.choices)}")
    return Work(frozen, cell.label, cell.settings, tuple(cell.choices[group] for group in cluster.group_by))


def freeze(cell: Cell, key: str, tasks: dict[str, str]) -> FrozenCell:
    """A cell as it is submitted; `tasks` are the protocol ids of its tasks."""
    choices, overrides = dict(cell.choices), list(cell.overrides)
    return FrozenCell(key=key, config=cell.plain, choices=choices, overrides=overrides, run_id=cell.run_id, tasks=tasks)


def rebuild(frozen: FrozenCell, sweep: SweepState) -> Cell:
    """The cell that was submitted. Raises StoreError if it is another one by now (files or quantbench changed)."""
    cell = _built(frozen, sweep)
    if cell.run_id != frozen.run_id:
        raise StoreError(
            f"what was submitted as run {frozen.run_id} would now be {cell.run_id}: a local file it reads, or "
            "quantbench itself, has changed since. Nothing was run; the same command submits it as it is now"
        )
    return cell


def check_tasks(session: Session, cell: Cell, frozen: FrozenCell) -> None:
    """Raise StoreError if a test set is not the one the cell was submitted for."""
    tests = session.inputs(cell).tests
    changed = [task for task, protocol in frozen.tasks.items() if protocol_id(tests[task]) != protocol]
    if changed:
        raise StoreError(
            f"the test set of task {changed[0]} has changed since the cell was submitted; the same command submits it "
            "as it is now"
        )


def _built(frozen: FrozenCell, sweep: SweepState) -> Cell:
    config = {**frozen.config, "output_dir": str(sweep.root)}
    return cell_of(config, frozen.overrides, frozen.choices)
