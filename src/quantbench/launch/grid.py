"""A grid of cells: check everything, run or submit what is not done yet, collate, print."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from quantbench.cells.session import Session, check_inputs
from quantbench.config.cell import Cell
from quantbench.core.progress import counted
from quantbench.launch.cluster import Cluster
from quantbench.launch.entries import manifest_of
from quantbench.launch.finish import finish, report_sweep
from quantbench.launch.frozen import work_of
from quantbench.launch.inprocess import run_here
from quantbench.launch.plan import print_plan
from quantbench.launch.shared import check_shared
from quantbench.report.report import check_columns
from quantbench.store.store import Store

log = logging.getLogger("quantbench")


def run_grid(cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str] | None = None) -> None:
    """Run what is not done yet, then print the tables. Ends the process with status 1 if a cell failed.

    command       the overrides as typed, which name the sweep
    sweep_params  what a file in sweeps/ adds to them
    """
    settings = cells[0].settings
    launcher = check_shared(cells)
    launcher.check()
    store = Store(settings.output_dir)
    session = Session(store)
    check_inputs(session, cells)
    manifest = manifest_of(session, cells, command, sweep_params or {})
    check_columns(store, manifest)
    if settings.dry_run:
        print_plan(session, cells, manifest.cells)
        return
    store.save_manifest(manifest)
    log.info("sweep %s: %s", manifest.name, counted(len(cells), "cell"))
    if isinstance(launcher, Cluster):
        work = [work_of(cell, entry, launcher) for cell, entry in zip(cells, manifest.cells, strict=True)]
        finish(store, manifest, launcher, work)
    else:
        report_sweep(store, run_here(session, cells, manifest), page=settings.report)
