"""What a run was made of, so that it is not taken for another one whose inputs have changed under the same names."""

from __future__ import annotations

from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.core.errors import StoreError
from quantbench.store.records import RunRecord


def input_fingerprints(session: Session, cell: Cell, inputs: Inputs) -> dict[str, str]:
    """Hashes of the weights, tokenizer, calibration tokens and text that a cell reads, by name."""
    found = {
        "model": cell.model.fingerprint(),
        "tokenizer": session.tokenizer(cell)[1],
    }
    if inputs.calib is not None:
        found |= {"calib_tokens": inputs.calib.fingerprint, "calib_text": inputs.calib.text_fingerprint}
    return found


def check_fingerprints(record: RunRecord, found: dict[str, str]) -> None:
    """Raise StoreError if the run was made of something else than what is there now."""
    for name, value in found.items():
        stored = record.fingerprints.get(name)
        if stored != value:
            raise StoreError(
                f"run {record.run_id} was made with another {name}: its record says {stored}, now it is {value}. "
                "The model, text or library has changed under the same name. Keep the old results by giving "
                f"output_dir=FOLDER, or delete the folder runs/{record.run_id} to compute it again."
            )
