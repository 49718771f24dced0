"""`dry_run=true`: the cells of a grid, which of them are done, and what the rest will take."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from tabulate import tabulate

from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.environment import pick_device
from quantbench.core.errors import StoreError
from quantbench.core.progress import counted, duration
from quantbench.models.structure import find_blocks
from quantbench.store.manifest import CellEntry
from quantbench.store.store import Store

log = logging.getLogger("quantbench")


@dataclass
class _Remaining:
    """What is left to do for one run."""

    quantize: bool
    scores: list[str]


def print_plan(session: Session, cells: Sequence[Cell], entries: Sequence[CellEntry]) -> None:
    """Print one line a cell, then the expected time and disk space, from what earlier runs of the store took."""
    store = session.store
    rows = []
    left: dict[str, tuple[Cell, _Remaining]] = {}
    for cell, entry in zip(cells, entries, strict=True):
        work = _work(store, cell.run_id, entry)
        state = "done" if not (work.quantize or work.scores) else "to evaluate" if not work.quantize else "to run"
        rows.append([state, cell.label, cell.run_id, " ".join(work.scores) or "-"])
        if state != "done":
            left[cell.run_id] = (cell, work)
    sys.stdout.write(tabulate(rows, headers=["state", "cell", "run", "tasks to score"]) + "\n\n")
    runs = counted(len({e.run_id for e in entries}), "run")
    sys.stdout.write(f"{counted(len(cells), 'cell')}, {runs}, {len(left)} not done.\n")
    if left:
        sys.stdout.write(_expectation(session, list(left.values())) + "\n")


def _work(store: Store, run_id: str, entry: CellEntry) -> _Remaining:
    record = store.load_run(run_id)
    scored = {(score.task, score.protocol) for score in store.scores(run_id)}
    missing = [task for task, protocol in entry.tasks.items() if (task, protocol) not in scored]
    return _Remaining(record is None or record.status == "failed", missing)


def _expectation(session: Session, left: list[tuple[Cell, _Remaining]]) -> str:
    """Expected time and disk space: by what earlier runs of the same model took here, else by counting operations."""
    cells = [cell for cell, _ in left]
    runs = [(cell, work) for cell, work in left if work.quantize and not cell.recipe.full_precision]
    n_scores = sum(len(work.scores) for _, work in left)
    by_kind = _measured(session.store, cells[0].choices["model"])
    if by_kind["evaluate"]:
        quantize = median(by_kind["quantize"]) if by_kind["quantize"] else 0.0
        seconds = len(runs) * quantize + n_scores * median(by_kind["evaluate"])
        how = "judging by what earlier runs of this model took here"
    else:
        seconds, how = _counted(session, left), "counting operations against this machine's speed now: rough"
    disk = sum(_stored_bytes(session, cell) for cell, _ in runs) if cells[0].settings.save == "weights" else 0.0
    return (
        f"Expected: about {duration(seconds)} and {disk / 1e9:.2g} GB for {counted(len(runs), 'quantization')} "
        f"and {counted(n_scores, 'score')} besides the full-precision ones, {how}."
    )


def _measured(store: Store, model: str) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"quantize": [], "evaluate": []}
    for run_id in store.run_ids():
        try:
            record, costs = store.load_run(run_id), store.load_costs(run_id)
        except StoreError as error:
            log.warning("what run %s took is not counted: %s", run_id, error)
            continue
        if record is not None and record.status == "quantized" and record.choices.get("model") == model:
            for cost in costs:
                if record.layers or cost["what"] != "quantize":
                    seconds[cost["what"].partition(" ")[0]].append(float(cost["seconds"]))
    return seconds


def _counted(session: Session, left: list[tuple[Cell, _Remaining]]) -> float:
    """2 operations a parameter and token: about four passes to calibrate, as much again to round, one to evaluate."""
    rate = _operations_per_second(pick_device(left[0][0].settings.device), left[0][0].settings.threads)
    operations = 0.0
    for cell, work in left:
        tokens = 8 * cell.calib.n * cell.calib.length if work.quantize and cell.calib is not None else 0
        for task in work.scores:
            tokens += session.test(cell, task).n_positions
        operations += 2.0 * _parameters(session, cell)[0] * tokens
    return operations / (0.5 * rate)


def _operations_per_second(device: torch.device, threads: int, size: int = 1024) -> float:
    torch.set_num_threads(threads)
    matrix = torch.ones(size, size, device=device)
    (matrix @ matrix).sum().item()
    started = time.perf_counter()
    (matrix @ matrix @ matrix @ matrix).sum().item()
    return 3 * 2 * size**3 / (time.perf_counter() - started)


def _stored_bytes(session: Session, cell: Cell) -> float:
    """Bytes of the quantized weights: those of the blocks, in the recipe's format."""
    total, width = _parameters(session, cell)
    bits = 16.0 if cell.recipe.weight is None else cell.recipe.weight.bits_per_weight((width, width))
    return total * bits / 8


def _parameters(session: Session, cell: Cell) -> tuple[int, int]:
    """Parameters of the decoder blocks, and the hidden size; no weights are loaded."""
    model = session.skeleton(cell)
    _, blocks = find_blocks(model)
    return sum(p.numel() for p in blocks.parameters()), int(model.config.hidden_size)
