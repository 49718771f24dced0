"""A grid of cells, run in this process: check everything, make sure of the baselines, run, collate, print."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Mapping, Sequence

from quantbench.config.identity import digest
from quantbench.config.schema import Cell, counts, slug
from quantbench.errors import QuantbenchError
from quantbench.evals.task import protocol_id
from quantbench.launch.entry import EXIT_FAILED
from quantbench.launch.own_texts import name_by_file
from quantbench.launch.plan import print_plan
from quantbench.paths import brief
from quantbench.pipeline.recipe import full_precision
from quantbench.progress import duration
from quantbench.results.manifest import CellEntry, Manifest
from quantbench.results.report import check_columns, report
from quantbench.results.store import Store
from quantbench.run import in_distribution, record_failure, run_cell
from quantbench.session import Session, check_inputs

log = logging.getLogger("quantbench")


def run_grid(cells: Sequence[Cell], command: Sequence[str], sweep_params: Mapping[str, str] | None = None) -> None:
    """Run what is not done yet, then print the tables. Ends the process with status 1 if a cell failed.

    command       the overrides as typed, which name the sweep
    sweep_params  what a file in sweeps/ adds to them
    """
    settings = cells[0].settings
    store = Store(settings.output_dir)
    session = Session(store)
    cells = name_by_file(cells)
    check_inputs(session, cells)
    entries = [_entry(session, cell) for cell in cells]
    name = sweep_name(command, sweep_params or {})
    manifest = Manifest(name=name, overrides=list(command), cells=entries, caption=_caption(cells))
    check_columns(store, manifest)
    if settings.dry_run:
        print_plan(session, cells, entries)
        return
    store.save_manifest(manifest)
    manifest = _run_all(session, cells, manifest)
    report(store, [manifest])
    failed = [entry for entry in manifest.cells if entry.status == "failed"]
    if failed:
        log.error("%d of %d cells failed; the same command tries them again.", len(failed), len(manifest.cells))
        sys.exit(EXIT_FAILED)


def _run_all(session: Session, cells: Sequence[Cell], manifest: Manifest) -> Manifest:
    order = {digest(cell.identity["model"]): None for cell in cells}
    ranks = {key: rank for rank, key in enumerate(order)}
    by_model = sorted(range(len(cells)), key=lambda i: ranks[digest(cells[i].identity["model"])])
    started, ran = time.monotonic(), 0
    for position, index in enumerate(by_model):
        cell = cells[index]
        begun = time.monotonic()
        place = f"[{position + 1}/{len(cells)}]"
        entry, did_something = _try_cell(session, cell, manifest.cells[index], place)
        ran += did_something
        left = (time.monotonic() - started) / ran * (len(cells) - position - 1) if ran else 0.0
        after = f"; about {duration(left)} left" if did_something and position + 1 < len(cells) else ""
        outcome = f"{entry.status} in {duration(time.monotonic() - begun)}" if did_something else "done before"
        log.info("%s %s: %s%s", place, cell.label, outcome, after)
        entries = list(manifest.cells)
        entries[index] = entry
        manifest = dataclasses.replace(manifest, cells=entries)
        session.store.save_manifest(manifest)
    return manifest


def _try_cell(session: Session, cell: Cell, entry: CellEntry, place: str) -> tuple[CellEntry, bool]:
    """Run the full-precision baseline for the cell's tasks, then the cell. A failure costs this cell only."""
    baseline = baseline_of(cell)
    current = baseline
    try:
        if run_cell(session, baseline, baseline):
            log.info("full precision of %s: done", cell.choices["model"])
        current = cell
        did = run_cell(session, cell, baseline)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit in a component must not end the sweep either
        session.installed = None
        if not isinstance(error, QuantbenchError):
            log.exception("%s %s", place, current.label)
        record_failure(session, current, error)
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        log.error("%s %s: %s", place, current.label, message)
        return dataclasses.replace(entry, status="failed", error=message), True
    return dataclasses.replace(entry, status="done", error=None), did


def baseline_of(cell: Cell) -> Cell:
    """The full-precision run on the cell's tasks."""
    choices = {**cell.choices, "quantizer": "none"}
    return dataclasses.replace(cell, recipe=full_precision(), calib=None, choices=choices, overrides=())


def _entry(session: Session, cell: Cell) -> CellEntry:
    tests = session.inputs(cell).tests
    known = {task: in_distribution(cell, task) for task in cell.tasks}
    return CellEntry(
        key=" ".join(sorted(cell.overrides)) or "defaults",
        choices=cell.choices,
        overrides=list(cell.overrides),
        tasks={task: protocol_id(tests[task]) for task in cell.tasks},
        run_id=cell.run_id,
        baseline_run_id=baseline_of(cell).run_id,
        in_distribution={task: value for task, value in known.items() if value is not None},
        data_free=cell.calib is None,
    )


def sweep_name(command: Sequence[str], params: Mapping[str, str]) -> str:
    """The sweep's name: that of its file, or a slug and digest of its sorted overrides. Never a date.

    The same command finds its sweep again; operational overrides do not count.
    """
    counted = sorted(o for o in command if counts(o))
    files = [o.partition("=")[2] for o in counted if o.lstrip("+").startswith("sweep=")]
    others = [o for o in counted if not o.lstrip("+").startswith("sweep=")]
    if len(files) == 1 and not others:
        return slug(files[0])
    if not counted:
        return "default"
    base = "-".join([*files, *map(_leaf, others)])
    return f"{slug(base)}-{digest([counted, dict(params)], 8)}"


def _leaf(override: str) -> str:
    """The last part of an override's key, and its value."""
    key, equals, value = brief(override).partition("=")
    return key.rpartition(".")[2] + equals + value


def _caption(cells: Sequence[Cell]) -> dict[str, str]:
    """What a table's caption says of how much text was used: the values all cells share."""
    values = []
    for cell in cells:
        one = {"scale": cell.choices["scale"]}
        if cell.calib is not None:
            one["calibration"] = f"{cell.calib.n} x {cell.calib.length} tokens"
        values.append(one)
    shared = dict(values[0])
    for one in values:
        shared = {k: v for k, v in {**one, **shared}.items() if one.get(k, v) == v}
    return shared
