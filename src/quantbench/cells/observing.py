"""What the layers of data-free recipes lose, on calibration text that the session has at hand for other cells."""

from __future__ import annotations

from quantbench.cells.quantizing import install
from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.pipeline.observe import has_other_gains, relative_losses
from quantbench.pipeline.recipe import Recipe
from quantbench.store.records import Observed

OBSERVED_TOKENS = 512
"""About how much of it is run: a share of squares over the rows of all outputs needs no more."""


def ensure_observed(session: Session, cell: Cell, inputs: Inputs) -> None:
    """Store the relative loss of each layer of a cell that was quantized without data, once; nothing without text.

    Nothing, too, for rotated models and those whose normalizations hold scales, whose weights are not the original ones
    plus an error, and where the quantized weights would have to be computed again.
    """
    store, recipe = session.store, cell.recipe
    if inputs.calib is not None or recipe.rewrites or (isinstance(recipe, Recipe) and recipe.weight is None):
        return
    at_hand = session.installed == cell.run_id or store.weights_path(cell.run_id).exists()
    text = session.text_at_hand(cell)
    if text is None or not at_hand or store.load_observed(cell.run_id) is not None:
        return
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
    store.save_observed(observed)
