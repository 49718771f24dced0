"""What the layers of data-free recipes lose, on calibration text that the session has at hand for other cells."""

from __future__ import annotations

from quantbench.calibration.base import CalibSet
from quantbench.cells.quantizing import install
from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.pipeline.observe import has_other_gains, relative_losses
from quantbench.store.records import Observed

OBSERVED_TOKENS = 512
"""About how much of it is run: a share of squares over the rows of all outputs needs no more."""


def observe(session: Session, cell: Cell, inputs: Inputs, text: CalibSet) -> None:
    """Store the relative loss of each layer of a cell that was quantized without data, on a text.

    Nothing is stored of a model whose normalizations hold scales: its weights are not the original ones plus an error.
    """
    sequences = text.tokens[: max(1, OBSERVED_TOKENS // text.tokens.shape[1])]
    handle = install(session, cell, inputs)
    if has_other_gains(handle):  # of a checkpoint: its weights are the original ones times scales, plus an error
        return
    losses = relative_losses(handle, sequences, session.device(cell))
    observed = Observed(
        run_id=cell.run_id,
        text=text.name,
        fingerprint=text.fingerprint,
        n_tokens=sequences.numel(),
        relative_loss=losses,
    )
    session.store.save_observed(observed)
