"""The text that run and export are compared on: windows of what the run was tested on, or of a text that is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.config.composer import compose_cells
from quantbench.core.errors import DataError, QuantbenchError, StoreError
from quantbench.core.files import read_text
from quantbench.models.folder import max_length
from quantbench.models.loading import ModelSource
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

OTHER = "Or give a text of yours: --text FILE"


@dataclass(frozen=True)
class Windows:
    """Token ids int64 [L_i] each, and where they are from, in words."""

    tokens: tuple[Tensor, ...]
    origin: str


def proof_windows(
    store: Store, record: RunRecord, source: ModelSource, text: Path | None, count: int, length: int
) -> Windows:
    """Up to `count` windows of at most `length` tokens, spread over the run's tests, or over the text.

    Raises StoreError if no sweep tells what the run was tested on, DataError for a text or tests without two tokens.
    """
    length = min(length, max_length(source.config()) or length)
    if text is None:
        rows = {name: list(found) for name, found in _tests(store, record)}
        origin = ", ".join(rows)
    else:
        tokenizer = source.load_tokenizer()
        ids = tokenizer(read_text(text, "Give a text file in UTF-8"))["input_ids"]
        rows, origin = {str(text): [torch.tensor(ids[i : i + length]) for i in range(0, len(ids), length)]}, str(text)
    found: list[Tensor] = []
    share = -(-count // max(1, len(rows)))
    for own in rows.values():
        usable = [row[:length] for row in own if len(row) > 1]
        found += [usable[index * len(usable) // share] for index in range(min(share, len(usable)))]
    if not found:
        raise DataError(f"{origin or 'the tests'}: not one window of two tokens. {OTHER}")
    return Windows(tuple(found[:count]), origin)


def _tests(store: Store, record: RunRecord) -> Iterator[tuple[str, list[Tensor]]]:
    cell = cell_of_run(store, record)
    session = Session(store)
    for task in cell.tasks:
        try:
            yield task, list(session.test(cell, task).token_rows)
        except QuantbenchError as error:
            raise DataError(f"the run was tested on {task}, which cannot be read: {error}. {OTHER}") from error


def cell_of_run(store: Store, record: RunRecord) -> Cell:
    """The cell of a run, composed from the overrides of a sweep. Raises StoreError if no sweep's give this run."""
    tried = 0
    for overrides in overrides_of_run(store, record.run_id):
        tried += 1
        try:
            cells = compose_cells(overrides)
        except QuantbenchError:  # options of before, or of a --config-dir: another sweep may have it as well
            continue
        for cell in cells:
            if cell.run_id == record.run_id:
                return cell
            if cell.baseline.run_id == record.run_id:
                return cell.baseline
    problem = "no sweep in the store has it" if not tried else "its options no longer give this run"
    raise StoreError(f"run {record.run_id}: {problem}, so what it was tested on is not known. {OTHER}")


def overrides_of_run(store: Store, run_id: str) -> Iterator[list[str]]:
    """The overrides of each cell in a sweep that is this run, its own before those that are measured against it."""
    cells = [cell for manifest in store.manifests() for cell in manifest.cells]
    yield from (cell.overrides for cell in cells if cell.run_id == run_id)
    yield from (cell.overrides for cell in cells if cell.baseline_run_id == run_id != cell.run_id)
