"""The manifest of a sweep: what each of its cells is, as the tables and `quantbench status` read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from quantbench.cells.session import Session
from quantbench.checkpoints.recipe import CheckpointRecipe
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
    entry = CellEntry(
        key=" ".join(sorted(cell.overrides)) or "defaults",
        choices=cell.choices,
        overrides=list(cell.overrides),
        tasks={task: protocol_id(tests[task]) for task in cell.tasks},
        run_id=cell.run_id,
        baseline_run_id=cell.baseline.run_id,
        task_origins={name: task.origin for name, task in cell.tasks.items()},
        calib_origins=[] if cell.calib is None else list(cell.calib.origins),
        data_free=cell.calib is None,
        calib_said=cell.recipe.calib if isinstance(cell.recipe, CheckpointRecipe) else None,
    )
    return dataclasses.replace(entry, status="done") if is_done(session.store, entry) else entry
