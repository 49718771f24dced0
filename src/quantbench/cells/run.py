"""One cell, from top to bottom: load, calibrate, quantize, store, evaluate, record."""

from __future__ import annotations

import torch

from quantbench.cells.cell_log import cell_log
from quantbench.cells.observing import ensure_observed
from quantbench.cells.quantizing import ensure_quantized
from quantbench.cells.scoring import ensure_score
from quantbench.cells.session import Session
from quantbench.config.cell import Cell


def run_cell(session: Session, cell: Cell, baseline: Cell) -> bool:
    """Do what is not done yet of a cell; whether anything was. Exceptions go through: the grid records them."""
    inputs = session.inputs(cell)
    with session.store.lock(cell.run_id), cell_log(session.store.log_path(cell.run_id)):
        torch.set_num_threads(cell.settings.threads)
        torch.manual_seed(cell.settings.seed)
        quantized = ensure_quantized(session, cell, inputs)
        ensure_observed(session, cell, inputs)
        scored = [ensure_score(session, cell, baseline, inputs, task) for task in cell.tasks]
    return quantized or any(scored)
