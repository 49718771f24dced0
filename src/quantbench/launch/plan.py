"""`dry_run=true`: the cells of a grid, which of them are done, and what the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tabulate import tabulate

from quantbench.config.schema import Cell
from quantbench.progress import duration
from quantbench.results.manifest import CellEntry
from quantbench.results.store import Store


@dataclass
class _Work:
    """What is left to do for one run."""

    quantize: bool
    scores: list[str]


def print_plan(store: Store, cells: Sequence[Cell], entries: Sequence[CellEntry]) -> None:
    """Print one line a cell, then the expected time and disk space, from what earlier runs of the store took."""
    rows = []
    left: dict[str, tuple[Cell, _Work]] = {}
    for cell, entry in zip(cells, entries, strict=True):
        work = _work(store, cell.run_id, entry)
        state = "done" if not (work.quantize or work.scores) else "to evaluate" if not work.quantize else "to run"
        rows.append([state, cell.label, cell.run_id, " ".join(work.scores) or "-"])
        if state != "done":
            left[cell.run_id] = (cell, work)
    sys.stdout.write(tabulate(rows, headers=["state", "cell", "run", "tasks to score"]) + "\n\n")
    sys.stdout.write(f"{len(cells)} cells, {len({e.run_id for e in entries})} runs, {len(left)} not done.\n")
    if left:
        sys.stdout.write(_expectation(store, [work for _, work in left.values()], list(cells)) + "\n")


def _work(store: Store, run_id: str, entry: CellEntry) -> _Work:
    record = store.load_run(run_id)
    scored = {(score.task, score.protocol) for score in store.scores(run_id)}
    missing = [task for task, protocol in entry.tasks.items() if (task, protocol) not in scored]
    return _Work(record is None or record.status == "failed", missing)


def _expectation(store: Store, work: list[_Work], cells: list[Cell]) -> str:
    """Median seconds of earlier quantizations and evaluations of the same model in this store, times what is left."""
    model = cells[0].choices["model"]
    quantize: list[float] = []
    score: list[float] = []
    sizes: list[int] = []
    for run_id in store.run_ids():
        record = store.load_run(run_id)
        if record is None or record.choices.get("model") != model or record.status == "failed":
            continue
        for cost in store.load_costs(run_id):
            (quantize if cost["what"] == "quantize" else score).append(float(cost["seconds"]))
        path = store.weights_path(run_id)
        if path.exists():
            sizes.append(path.stat().st_size)
    if not score:
        return f"Nothing of {model} has run in {store.root} yet, so no time or disk space can be given."
    n_quantize, n_scores = sum(w.quantize for w in work), sum(len(w.scores) for w in work)
    seconds = n_quantize * (median(quantize) if quantize else 0.0) + n_scores * median(score)
    disk = n_quantize * (median(sizes) if sizes else 0)
    keeps = "" if cells[0].settings.save == "weights" else " (save=none: nothing is kept)"
    return (
        f"Expected: about {duration(seconds)} and {disk / 1e9:.1f} GB{keeps}, judging by earlier runs of {model} here: "
        f"{n_quantize} quantizations, {n_scores} scores."
    )
