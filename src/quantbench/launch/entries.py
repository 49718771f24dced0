"""The manifest of a sweep: what each of its cells is, as the tables and `quantbench status` read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from quantbench.cells.run import in_distribution, relation
from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.launch.naming import caption, sweep_name
from quantbench.launch.overview import is_done
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.tasks.task import protocol_id


def manifest_of(
    session: Session, cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str]
) -> Manifest:
    """The manifest of cells whose inputs can be had; `command` and `sweep_params` as for `run_grid`."""
    return Manifest(
        name=sweep_name(command, sweep_params),
        overrides=list(command),
        cells=[_entry(session, cell) for cell in cells],
        caption=caption(cells),
    )


def _entry(session: Session, cell: Cell) -> CellEntry:
    tests = session.inputs(cell).tests
    known = {task: in_distribution(cell, task) for task in cell.tasks}
    relations = {task: relation(cell, task) for task in cell.tasks}
    entry = CellEntry(
        key=" ".join(sorted(cell.overrides)) or "defaults",
        choices=cell.choices,
        overrides=list(cell.overrides),
        tasks={task: protocol_id(tests[task]) for task in cell.tasks},
        run_id=cell.run_id,
        baseline_run_id=cell.baseline.run_id,
        in_distribution={task: value for task, value in known.items() if value is not None},
        relation={task: value for task, value in relations.items() if value is not None},
        data_free=cell.calib is None,
    )
    return dataclasses.replace(entry, status="done") if is_done(session.store, entry) else entry
