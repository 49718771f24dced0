"""The sub-commands about sweeps that run: status, logs, cancel, retry. Each returns its exit status."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from quantbench.cli.parser import subcommand
from quantbench.cli.standing import as_table, seconds_left
from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.core.launcher import Launcher
from quantbench.core.progress import counted
from quantbench.launch.cluster import Cluster
from quantbench.launch.overview import OPEN, UNFINISHED, CellView, Watch, key_of, refreshed, updated
from quantbench.launch.records import FrozenCell
from quantbench.launch.state import SweepState
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store

CLEAR = "\x1b[H\x1b[2J"
"""Empties a terminal (ECMA-48: CUP, ED)."""
AROUND = 11
"""Lines of a screen that are not rows: headings, what is left out of each state, the counts, and the cursor's."""


def status(arguments: list[str]) -> int:
    """`quantbench status [SWEEP]`: where each cell stands. Status 1 if one is not done and will not be."""
    parser = subcommand("status", "Where each cell of a sweep stands.")
    parser.add_argument("sweep", nargs="?", help="default: which sweeps there are")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", nargs="?", type=float, const=10.0, metavar="SECONDS", help="again and again")
    parser.add_argument("--all", action="store_true", help="list finished cells, too")
    given = parser.parse_args(arguments)
    if given.sweep is None:
        return _list_sweeps(Store(given.output_dir))
    manifest = _manifest(given.output_dir, given.sweep)
    sweep = SweepState(given.output_dir, manifest.name)
    cluster = _cluster(sweep)
    watch = Watch(sweep, cluster, cluster.grace_seconds if cluster is not None and given.watch is not None else 0.0)
    while True:
        views = watch.look([key_of(entry) for entry in manifest.cells], sweep.jobs())
        if given.json:
            text = _as_json(manifest, views)
        elif given.watch is not None and sys.stdout.isatty():
            text = CLEAR + _screen(manifest, views, given.all)
        else:
            text = as_table(manifest, views, everything=given.all)
        sys.stdout.write(text + "\n")
        is_open = any(view.state in OPEN for view in views.values())
        if given.watch is None or not is_open:
            return int(any(view.state in UNFINISHED for view in views.values()))
        sys.stdout.flush()
        time.sleep(given.watch)


def _screen(manifest: Manifest, views: dict[str, CellView], everything: bool) -> str:
    size = shutil.get_terminal_size()
    text = as_table(manifest, views, everything=everything, most=max(1, size.lines - AROUND))
    return "\n".join(line[: size.columns] for line in text.splitlines())


def _list_sweeps(store: Store) -> int:
    rows = []
    for manifest in store.manifests():
        counts = Counter(entry.status for entry in refreshed(manifest, store).cells)
        rows.append([manifest.name, *(counts[state] or "" for state in ("done", "failed", "pending"))])
    table = tabulate(rows, headers=["sweep", "done", "failed", "pending"]) if rows else f"no sweeps in {store.root}"
    sys.stdout.write(table + "\n")
    return 0


def _as_json(manifest: Manifest, views: dict[str, CellView]) -> str:
    cells: list[dict[str, Any]] = []
    for entry in manifest.cells:
        view = views[key_of(entry)]
        known = view.status
        cells.append(
            {
                "cell": view.key,
                "run": entry.run_id,
                "overrides": entry.overrides,
                "state": view.state,
                "job": view.job or (known.job if known else None),
                "host": known.host if known else None,
                "started": known.started if known else None,
                "seconds": known.seconds if known else None,
                "error": view.error,
            }
        )
    counts = Counter(str(cell["state"]) for cell in cells)
    whole = {"sweep": manifest.name, "counts": counts, "seconds_left": seconds_left(views), "cells": cells}
    return json.dumps(whole, indent=1)


def logs(arguments: list[str]) -> int:
    """`quantbench logs CELL`: why a cell failed, its log, and where its job's output lies."""
    parser = subcommand("logs", "What a cell said, and why it failed.")
    parser.add_argument("cell", help="first characters of a cell's or run's id, as `status` shows them")
    given = parser.parse_args(arguments)
    store = Store(given.output_dir)
    found: dict[str, tuple[SweepState, CellEntry]] = {}
    for manifest in store.manifests():
        for entry in manifest.cells:
            if key_of(entry).startswith(given.cell):
                found[key_of(entry)] = SweepState(given.output_dir, manifest.name), entry
    if len(found) != 1:
        some = ", ".join(sorted(found)[:5])
        raise StoreError(f"logs {given.cell}: {f'not unique: {some}' if found else f'no such cell in {store.root}'}")
    key, (sweep, entry) = found.popitem()
    known = sweep.load_cell(key)
    sys.stdout.write(f"cell {key}   {entry.key}\n")
    if known is not None:
        sys.stdout.write(f"{known.state}, in {known.job} on {known.host}, started {known.started}\n")
        for text in (known.error, known.traceback):
            sys.stdout.write(f"\n{text.rstrip()}\n" if text else "")
        token = known.job.partition("/")[0]
        if sweep.log_folder(token).exists():
            sys.stdout.write(f"\noutput of its job: {sweep.log_folder(token)}\n")
    log_path = store.log_path(entry.run_id or key.partition("-")[0])
    if log_path.exists():
        sys.stdout.write(f"\nlog ({log_path}):\n{log_path.read_text('utf-8', 'replace')}")
    return 0


def cancel(arguments: list[str]) -> int:
    """`quantbench cancel SWEEP`: end its jobs."""
    parser = subcommand("cancel", "End the jobs of a sweep. Finished parts are kept.")
    parser.add_argument("sweep")
    given = parser.parse_args(arguments)
    manifest = _manifest(given.output_dir, given.sweep)
    sweep = SweepState(given.output_dir, manifest.name)
    cluster = _cluster(sweep)
    with sweep.submitting():
        records = [record for record in sweep.jobs() if not record.cancelled]
        # With a grace that does not end: a job that the queue does not show yet is to be ended as well.
        views = Watch(sweep, cluster, math.inf).look([key_of(entry) for entry in manifest.cells], records)
        concerned = {key for key, view in views.items() if view.state in OPEN}
        ending = [record for record in records if concerned & {key for cells in record.cells for key in cells}]
        if cluster is not None and ending:
            cluster.cancel(ending)
        for record in ending:
            sweep.save_job(dataclasses.replace(record, cancelled=True))
    ended, cells = counted(len(ending), "submission"), counted(len(concerned), "open cell")
    sys.stdout.write(f"{manifest.name}: {ended} with {cells} cancelled\n")
    return 0


def retry(arguments: list[str]) -> int:
    """`quantbench retry SWEEP`: submit what failed, was lost or cancelled again, as it was frozen, and follow it."""
    parser = subcommand("retry", "Submit again what failed, was lost or cancelled, exactly as it was submitted first.")
    parser.add_argument("sweep")
    parser.add_argument("--detach", action="store_true", help="do not wait for it")
    given = parser.parse_args(arguments)
    manifest = _manifest(given.output_dir, given.sweep)
    sweep = SweepState(given.output_dir, manifest.name)
    cluster = _cluster(sweep)
    if cluster is None:
        raise StoreError(f"retry {given.sweep}: it was run in a command of its own; give that command again")
    views = Watch(sweep, cluster).look([key_of(entry) for entry in manifest.cells], sweep.jobs())
    wanted = {key for key, view in views.items() if view.state in UNFINISHED}
    frozen = _frozen(sweep, wanted)
    if not frozen:
        sys.stdout.write(f"{manifest.name}: nothing failed, was lost or cancelled\n")
        return 0
    from quantbench.launch.finish import finish
    from quantbench.launch.frozen import work_again

    work = [work_again(one, sweep, cluster) for one in frozen.values()]
    finish(Store(sweep.root), updated(manifest, views), cluster, work, detach=given.detach)
    return 0


def _frozen(sweep: SweepState, keys: set[str]) -> dict[str, FrozenCell]:
    """The cells of these keys as they were submitted last."""
    found: dict[str, FrozenCell] = {}
    for record in sweep.jobs():
        for index, cells in enumerate(record.cells):
            if keys & set(cells) and (chunk := sweep.load_chunk(record.token, index)) is not None:
                found |= {cell.key: cell for cell in chunk.cells if cell.key in keys}
    return found


def _cluster(sweep: SweepState) -> Cluster | None:
    """The cluster of a sweep's last submission; None if it had none."""
    for record in reversed(sweep.jobs()):
        chunk = sweep.load_chunk(record.token, 0)
        if chunk is not None:
            launcher = build(chunk.cells[0].config["cluster"], Launcher, "cluster")
            return launcher if isinstance(launcher, Cluster) else None
    return None


def _manifest(root: Path, name: str) -> Manifest:
    store = Store(root)
    manifest = store.load_manifest(store.find_sweep(name))
    assert manifest is not None
    return manifest
