"""A grid of cells: check everything, run or submit what is not done yet, collate, print."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence

from quantbench.cells.session import Session, check_inputs
from quantbench.cli.entry import EXIT_FAILED
from quantbench.config.schema import Cell
from quantbench.core.errors import ConfigError
from quantbench.core.origin import origin_of_task
from quantbench.launch.driver import Work, counts, follow, launch
from quantbench.launch.inprocess import run_here
from quantbench.launch.launchers import Cluster, Place
from quantbench.launch.naming import caption, sweep_name
from quantbench.launch.overview import is_done, key_of, updated
from quantbench.launch.own_texts import name_by_file
from quantbench.launch.plan import print_plan
from quantbench.launch.runner import baseline_of, freeze
from quantbench.launch.state import Board
from quantbench.report.report import check_columns, report
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store
from quantbench.tasks.task import protocol_id

log = logging.getLogger("quantbench")


def run_grid(cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str] | None = None) -> None:
    """Run what is not done yet, then print the tables. Ends the process with status 1 if a cell failed.

    command       the overrides as typed, which name the sweep
    sweep_params  what a file in sweeps/ adds to them
    """
    settings = cells[0].settings
    place = one_place(cells)
    store = Store(settings.output_dir)
    session = Session(store)
    cells = name_by_file(cells)
    check_inputs(session, cells)
    entries = [_entry(session, cell) for cell in cells]
    name = sweep_name(command, sweep_params or {})
    manifest = Manifest(name=name, overrides=list(command), cells=entries, caption=caption(cells))
    check_columns(store, manifest)
    if settings.dry_run:
        print_plan(session, cells, entries)
        return
    store.save_manifest(manifest)
    board = Board(store.root, name)
    if isinstance(place, Cluster):
        finish(store, manifest, place, [_work(cell, entry, place) for cell, entry in zip(cells, entries, strict=True)])
        return
    manifest = run_here(session, board, cells, manifest)
    _report(store, manifest)


def one_place(cells: Sequence[Cell]) -> Place:
    """Where all cells run. Raises ConfigError if they do not agree, or if there is no such place here."""
    place = cells[0].cluster
    if any(cell.cluster != place for cell in cells):
        raise ConfigError("cluster: a sweep runs in one place; give one value for each of its options")
    place.check()
    return place


def finish(
    store: Store, manifest: Manifest, cluster: Cluster, work: Sequence[Work], *, detach: bool | None = None
) -> None:
    """Submit what is open, and unless detached follow it to the end and print the tables."""
    settings = work[0].settings
    board = Board(store.root, manifest.name)
    done = {key_of(entry) for entry in manifest.cells if is_done(store, entry)}
    threads = max(one.settings.threads for one in work)
    watch = launch(board, cluster, work, done, threads=threads, retry_failed=settings.retry_failed)
    how = f"quantbench status {board.name}; quantbench cancel {board.name}"
    if settings.detach if detach is None else detach:
        log.info("detached. The same command without detach=true follows; %s", how)
        return
    try:
        views = follow(watch, work, done, cluster.poll_seconds)
    except KeyboardInterrupt:
        log.warning("the jobs run on: the same command follows them again; %s", how)
        raise
    log.info("sweep %s: %s", board.name, counts(views) or "everything was done before")
    manifest = updated(manifest, views)
    store.save_manifest(manifest)
    _report(store, manifest)


def _report(store: Store, manifest: Manifest) -> None:
    report(store, [manifest])
    failed = [entry for entry in manifest.cells if entry.status == "failed"]
    if failed:
        log.error("%d of %d cells failed; the same command tries them again.", len(failed), len(manifest.cells))
        sys.exit(EXIT_FAILED)


def _work(cell: Cell, entry: CellEntry, cluster: Cluster) -> Work:
    key = key_of(entry)
    tasks = {task: protocol for task, protocol in entry.tasks.items() if protocol is not None}
    shared = getattr(cluster, "group_by", ("model",))
    unknown = [group for group in shared if group not in cell.choices]
    if unknown:
        raise ConfigError(f"cluster.group_by: {unknown[0]!r} is no group; groups: {', '.join(cell.choices)}")
    return Work(freeze(cell, key, tasks), cell.label, cell.settings, tuple(cell.choices[group] for group in shared))


def _entry(session: Session, cell: Cell) -> CellEntry:
    tests = session.inputs(cell).tests
    entry = CellEntry(
        key=" ".join(sorted(cell.overrides)) or "defaults",
        choices=cell.choices,
        overrides=list(cell.overrides),
        tasks={task: protocol_id(tests[task]) for task in cell.tasks},
        task_origins={name: origin_of_task(task) for name, task in cell.tasks.items()},
        calib_origins=[] if cell.calib is None else list(cell.calib.origins),
        run_id=cell.run_id,
        baseline_run_id=baseline_of(cell).run_id,
        data_free=cell.calib is None,
    )
    return dataclasses.replace(entry, status="done") if is_done(session.store, entry) else entry
