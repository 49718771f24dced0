"""What of a cell is done already: found in the store, without loading what computes.

Finished cells are asked for again and again: by a grid to which cells are added, or that is only to be shown.
"""

from __future__ import annotations

from quantbench.calibration.base import CalibSet
from quantbench.cells.fingerprints import check_fingerprints, input_fingerprints
from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.pipeline.recipe import Recipe
from quantbench.tasks.task import protocol_id


def is_quantized(session: Session, cell: Cell, inputs: Inputs) -> bool:
    """Whether the cell's model is quantized and stored. Raises StoreError if it was made of other inputs."""
    record = session.store.load_run(cell.run_id)
    if record is None or record.status != "quantized":
        return False
    check_fingerprints(record, input_fingerprints(session, cell, inputs))
    return True


def text_to_observe(session: Session, cell: Cell, inputs: Inputs) -> CalibSet | None:
    """The text on which the cell's layers are still to be observed; None if they are not.

    They are where they were quantized without data and text is at hand; not those of rotated models, whose weights are
    not the original ones plus an error, nor where the quantized weights would have to be computed again.
    """
    store, recipe = session.store, cell.recipe
    if inputs.calib is not None or recipe.rewrites or (isinstance(recipe, Recipe) and recipe.weight is None):
        return None
    at_hand = session.installed == cell.run_id or store.weights_path(cell.run_id).exists()
    done = store.load_observed(cell.run_id) is not None
    return session.text_at_hand(cell) if at_hand and not done else None


def is_scored(session: Session, cell: Cell, baseline: Cell, inputs: Inputs, task: str) -> bool:
    """Whether the cell has its score on a task.

    The full-precision model is scored again where its reference was deleted: others are measured against it.
    """
    test = inputs.tests[task]
    protocol = protocol_id(test)
    if session.store.load_score(cell.run_id, task, protocol) is None:
        return False
    captures = test.uses_reference and cell.run_id == baseline.run_id
    return not captures or session.store.reference_path(baseline.run_id, task, protocol).exists()


def all_scored(session: Session, cell: Cell) -> bool:
    """Whether a cell has a score on each of its tasks: nothing is left to be compared with full precision."""
    store = session.store
    return all(store.load_score(cell.run_id, task, protocol_id(session.test(cell, task))) for task in cell.tasks)
