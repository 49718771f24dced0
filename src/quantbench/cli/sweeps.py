"""The sub-commands about sweeps that run: status, logs, cancel, retry. Each returns its exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.core.launcher import Launcher
from quantbench.core.paths import brief, local_path, outputs_folder
from quantbench.core.progress import counted, duration
from quantbench.launch.cluster import Cluster
from quantbench.launch.overview import OPEN, UNFINISHED, CellView, Watch, key_of, refreshed, updated
from quantbench.launch.records import FrozenCell
from quantbench.launch.state import SweepState
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store

SHOWN_DIGITS = 8
"""Of a cell's key, in tables."""


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"quantbench {name}", description=description)
    parser.add_argument("--output-dir", type=local_path, default=outputs_folder(), help="default: %(default)s")
    return parser


def status(arguments: list[str]) -> int:
    """`quantbench status [SWEEP]`: where each cell stands. Status 1 if one is not done and will not be."""
    parser = _parser("status", "Where each cell of a sweep stands.")
    parser.add_argument("sweep", nargs="?", help="default: which sweeps there are")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", nargs="?", type=float, const=10.0, metavar="SECONDS", help="again and again")
    parser.add_argument("--all", action="store_true", help="list finished cells, too")
    given = parser.parse_args(arguments)
    if given.sweep is None:
        return _list_sweeps(Store(given.output_dir))
    manifest = _manifest(given.output_dir, given.sweep)
    sweep = SweepState(given.output_dir, manifest.name)
    watch = Watch(sweep, _cluster(sweep))
    while True:
        views = watch.look([key_of(entry) for entry in manifest.cells], sweep.jobs())
        text = _as_json(manifest, views) if given.json else _as_table(manifest, views, given.all)
        sys.stdout.write(text + "\n")
        is_open = any(view.state in OPEN for view in views.values())
        if given.watch is None or not is_open:
            return int(any(view.state in UNFINISHED for view in views.values()))
        sys.stdout.flush()
        time.sleep(given.watch)


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
    whole = {"sweep": manifest.name, "counts": counts, "seconds_left": _seconds_left(views), "cells": cells}
    return json.dumps(whole, indent=1)


def _as_table(manifest: Manifest, views: dict[str, CellView], everything: bool) -> str:
    rows, labels = [], _labels(manifest.cells)
    for entry in manifest.cells:
        view = views[key_of(entry)]
        if view.state == "done" and not everything:
            continue
        known = view.status
        age = "" if view.age is None or view.state in {"queued", "new"} else duration(view.age)
        error = (view.error or "").splitlines()[0][:100] if view.error else ""
        host = known.host if known and view.state != "queued" else ""
        rows.append([view.key[:SHOWN_DIGITS], view.state, labels[entry.key], view.job, host, age, error])
    counts = Counter(views[key_of(entry)].state for entry in manifest.cells)
    left = _seconds_left(views)
    summary = f"{manifest.name}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    summary += f"; about {duration(left)} left" if left else ""
    table = (
        tabulate(rows, headers=["cell", "state", "what", "job", "host", "started", "error"]) + "\n\n" if rows else ""
    )
    return table + summary


def _labels(cells: Sequence[CellEntry]) -> dict[str, str]:
    """What each cell is called, by its key: what tells it apart from the others, in full; of a lone cell all it is."""
    parts: dict[str, list[str]] = {}
    for cell in cells:
        own = [one.lstrip("+~") for one in cell.overrides]
        said = [one for one in own if one.partition("=")[0] not in cell.choices]
        parts[cell.key] = [*(f"{group}={choice}" for group, choice in cell.choices.items()), *said]
    everywhere = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    apart = {key: [part for part in own if part not in everywhere] for key, own in parts.items()}
    short = {key: " ".join(map(brief, own)) for key, own in apart.items()}
    clear = len(set(short.values())) == len(short)
    return short if clear else {key: " ".join(own) for key, own in apart.items()}


def _seconds_left(views: dict[str, CellView]) -> float | None:
    """What is open, at the pace of the finished cells and as many at a time as run now; None where nothing is known."""
    took = [v.status.seconds for v in views.values() if v.state == "done" and v.status and v.status.seconds]
    open_now = sum(view.state in OPEN for view in views.values())
    running = sum(view.state == "running" for view in views.values())
    return sum(took) / len(took) * open_now / max(1, running) if took and open_now else None


def logs(arguments: list[str]) -> int:
    """`quantbench logs CELL`: why a cell failed, its log, and where its job's output lies."""
    parser = _parser("logs", "What a cell said, and why it failed.")
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
    parser = _parser("cancel", "End the jobs of a sweep. Finished parts are kept.")
    parser.add_argument("sweep")
    given = parser.parse_args(arguments)
    manifest = _manifest(given.output_dir, given.sweep)
    sweep = SweepState(given.output_dir, manifest.name)
    cluster = _cluster(sweep)
    with sweep.submitting():
        records = [record for record in sweep.jobs() if not record.cancelled]
        views = Watch(sweep, cluster).look([key_of(entry) for entry in manifest.cells], records)
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
    parser = _parser("retry", "Submit again what failed, was lost or cancelled, exactly as it was submitted first.")
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
    manifest = store.load_manifest(name)
    if manifest is None:
        raise StoreError(f"{name}: no such sweep in {root}. Sweeps: {', '.join(store.sweep_names()) or 'none'}")
    return manifest
