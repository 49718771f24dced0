"""`dry_run=true`: the cells of a grid, which of them are done, and what the rest will take."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from tabulate import tabulate

from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.environment import pick_device
from quantbench.core.errors import StoreError
from quantbench.core.progress import counted, duration
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
    """Expected time and disk space: by what the same work took here, else by counting operations."""
    cells = [cell for cell, _ in left]
    runs = [(cell, work) for cell, work in left if work.quantize and not cell.recipe.full_precision]
    n_scores = sum(len(work.scores) for _, work in left)
    measured, settings = _measured(session.store, cells[0].choices["model"]), cells[0].settings
    rate: float | None = None
    seconds, counted_here = 0.0, 0
    for cell, work in left:
        for name, tokens, operations in _pieces(session, cell, work):
            took = measured.seconds(name, tokens)
            if took is None:
                rate = rate or _operations_per_second(pick_device(settings.device), settings.threads)
                took, counted_here = operations / (0.5 * rate), counted_here + 1
            seconds += took
    how = "judging by what the same took here"
    if counted_here:
        how = "counting operations against this machine's speed now: rough"
        if counted_here < len(runs) + n_scores:
            how += f", for {counted_here} of them that were not measured here"
    disk = sum(_stored_bytes(session, cell) for cell, _ in runs) if settings.save == "weights" else 0.0
    return (
        f"Expected: about {duration(seconds)} and {disk / 1e9:.2g} GB for {counted(len(runs), 'quantization')} "
        f"and {counted(n_scores, 'score')} besides the full-precision ones, {how}."
    )


def _pieces(session: Session, cell: Cell, work: _Remaining) -> Iterator[tuple[str, int, float]]:
    """What is left of a cell: its name among the measurements, its tokens, and its operations.

    2 operations a parameter and token, once to evaluate; about four passes to calibrate, and as much again to round.
    """
    parameters = session.outline(cell).quantizable().parameters
    if work.quantize and not cell.recipe.full_precision:
        tokens = 0 if cell.calib is None else cell.calib.n * cell.calib.length
        yield cell.choices["quantizer"], tokens, 2.0 * parameters * max(8 * tokens, 1)
    for task in work.scores:
        tokens = session.test(cell, task).n_positions
        yield "evaluate", tokens, 2.0 * parameters * tokens


class Measured:
    """Seconds that pieces of work of one model took here, by name and number of tokens."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, name: str, tokens: int, seconds: float) -> None:
        """One measurement."""
        self._known[name][tokens].append(seconds)

    def seconds(self, name: str, tokens: int) -> float | None:
        """What as many tokens took, or the nearest number, by its time per token; None if the name was not measured."""
        if not (known := self._known.get(name)):
            return None
        nearest = min(known, key=lambda other: abs(math.log((tokens + 1) / (other + 1))))
        scale = tokens / nearest if nearest and tokens else 1.0
        return scale * median(known[nearest])


def _measured(store: Store, model: str) -> Measured:
    found = Measured()
    for run_id in store.run_ids():
        try:
            record, costs = store.load_run(run_id), store.load_costs(run_id)
        except StoreError as error:
            log.warning("what run %s took is not counted: %s", run_id, error)
            continue
        if record is not None and record.status == "quantized" and record.choices.get("model") == model:
            for cost in costs:
                what = cost["what"].partition(" ")[0]
                if "tokens" in cost and (record.layers or what == "evaluate"):
                    name = what if what == "evaluate" else record.choices["quantizer"]
                    found.add(name, int(cost["tokens"]), float(cost["seconds"]))
    return found


def _operations_per_second(device: torch.device, threads: int, size: int = 512) -> float:
    torch.set_num_threads(threads)
    matrix = torch.ones(size, size, device=device)
    (matrix @ matrix).sum().item()
    started = time.perf_counter()
    (matrix @ matrix @ matrix @ matrix).sum().item()
    return 3 * 2 * size**3 / (time.perf_counter() - started)


def _stored_bytes(session: Session, cell: Cell) -> float:
    """Bytes of the quantized weights: those of the blocks, in the recipe's format."""
    outline = session.outline(cell).quantizable()
    return outline.parameters * cell.recipe.expected_bits(outline.width) / 8
