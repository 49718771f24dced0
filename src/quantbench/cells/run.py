"""One cell, from top to bottom: load, calibrate, quantize, store, evaluate, record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.cells.cell_log import cell_log
from quantbench.cells.done import is_quantized, is_scored, text_to_observe
from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch

    from quantbench.cells import observing, quantizing, scoring
else:
    torch = lazy_module("torch")
    observing = lazy_module("quantbench.cells.observing")
    quantizing = lazy_module("quantbench.cells.quantizing")
    scoring = lazy_module("quantbench.cells.scoring")


def run_cell(session: Session, cell: Cell, baseline: Cell) -> bool:
    """Do what is not done yet of a cell; whether anything was. Exceptions go through: the grid records them."""
    inputs, did = session.inputs(cell), False
    with session.store.lock(cell.run_id), cell_log(session.store.log_path(cell.run_id)):
        torch.set_num_threads(cell.settings.threads)
        torch.manual_seed(cell.settings.seed)
        if not is_quantized(session, cell, inputs):
            quantizing.quantize_and_store(session, cell, inputs)
            did = True
        if (text := text_to_observe(session, cell, inputs)) is not None:
            observing.observe(session, cell, inputs, text)
        for task in cell.tasks:
            if not is_scored(session, cell, baseline, inputs, task):
                scoring.score(session, cell, baseline, inputs, task)
                did = True
    return did
