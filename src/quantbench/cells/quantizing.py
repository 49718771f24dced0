"""The quantized model of a cell: made and stored once, and put into the loaded model for evaluation."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from quantbench.cells.fingerprints import check_fingerprints, input_fingerprints
from quantbench.cells.recording import append_cost, now
from quantbench.cells.session import Inputs, Session
from quantbench.cells.summary import bits_of_model, notes_of, sum_fallbacks
from quantbench.checkpoints.read import read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.config.cell import Cell
from quantbench.core import tensors
from quantbench.core.environment import environment
from quantbench.core.files import write_text
from quantbench.core.meter import Meter
from quantbench.core.out_of_memory import memory_explained
from quantbench.core.progress import duration, progress
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.any_recipe import AnyRecipe
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.stored import check_stored
from quantbench.pipeline.walker import quantize_model
from quantbench.store.records import LayerRecord, RunRecord

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger("quantbench")


def quantize_and_store(session: Session, cell: Cell, inputs: Inputs) -> None:
    """Quantize the cell's model and store it. Raises StoreError if what is stored is not what was quantized."""
    device = session.device(cell)
    session.handle(cell)  # loading is not what is measured
    meter = Meter(device)
    fingerprints = input_fingerprints(session, cell, inputs)
    checkpoint, read = None, isinstance(cell.recipe, CheckpointRecipe)
    if not cell.recipe.full_precision:
        log.info("%s %s", "reading" if read else "quantizing", cell.label)
    if cell.settings.checkpoint_blocks and not cell.recipe.full_precision:
        folder = session.store.checkpoint_dir(cell.run_id)
        checkpoint = Checkpoint(folder, cell.settings.checkpoint_blocks, fingerprints)
    quantized = _quantize(session, cell, inputs, checkpoint)
    cost = meter.read()
    handle = session.handle(cell)
    stored, spec = quantized.artifact.to_tensors(handle.weight_keeper())
    fingerprints = fingerprints | {"weights": tensors.fingerprint(stored)}
    if cell.settings.save == "weights" and not cell.recipe.full_precision:
        tensors.save(session.store.weights_path(cell.run_id), stored)
        write_text(session.store.spec_path(cell.run_id), Artifact.spec_text(spec))
        stored = tensors.load(session.store.weights_path(cell.run_id))
        spec = Artifact.read_spec(session.store.spec_path(cell.run_id))
    check_stored(quantized.artifact, stored, spec)
    if inputs.calib is not None and inputs.calib.listing:
        write_text(session.store.listing_path(cell.run_id), inputs.calib.listing)
    record = RunRecord(
        run_id=cell.run_id,
        status="quantized",
        choices=cell.choices,
        config=cell.identity,
        fingerprints=fingerprints,
        calibration=None if inputs.calib is None else inputs.calib.provenance(),
        origins=[] if cell.calib is None else list(cell.calib.origins),
        layers=[LayerRecord(**dataclasses.asdict(layer)) for layer in quantized.layers],
        effective_bits=quantized.artifact.effective_bits,
        kv_bits=quantized.artifact.kv_bits,
        bits_model=bits_of_model(handle, quantized.artifact),
        fallbacks=sum_fallbacks(quantized),
        notes=[*handle.notes, *notes_of(quantized)],
        environment=environment(device, cell.settings.threads),
        created=now(),
    )
    session.store.save_run(record)
    if checkpoint is not None:
        checkpoint.remove()
    tokens = 0 if inputs.calib is None else inputs.calib.tokens.numel()
    append_cost(session, cell, "quantize", cost | {"tokens": tokens})
    if not cell.recipe.full_precision:
        log.info("  %s in %s%s", "read" if read else "quantized", duration(cost["seconds"]), _bits_text(record))


def _quantize(session: Session, cell: Cell, inputs: Inputs, checkpoint: Checkpoint | None = None) -> Quantized:
    handle = session.handle(cell)
    session.installed = None
    if cell.recipe.full_precision:
        quantized = Quantized(Artifact())
    else:
        tokens = None if inputs.calib is None else inputs.calib.tokens
        quantized = _made(handle, cell.recipe, tokens, session.device(cell), checkpoint)
    quantized.artifact.install(handle)
    session.installed = cell.run_id
    return quantized


def _made(
    handle: ModelHandle,
    recipe: AnyRecipe,
    tokens: Tensor | None,
    device: torch.device,
    checkpoint: Checkpoint | None,
) -> Quantized:
    """Quantized by a recipe, or read from a checkpoint."""
    if isinstance(recipe, CheckpointRecipe):
        with progress("reading", "tensor") as show:
            return read_checkpoint(handle, recipe, show)
    assert isinstance(recipe, Recipe)
    fits = "more of it in files (a smaller memory_gib)" if device.type == "cpu" else "device=cpu"
    if tokens is not None:
        fits = f"sequences shorter than {tokens.shape[1]} tokens (calib.length), or {fits}"
    with progress("quantizing", "block") as show, memory_explained("quantizing", device, fits):
        return quantize_model(handle, recipe, tokens, device, show, checkpoint)


def install(session: Session, cell: Cell, inputs: Inputs) -> ModelHandle:
    """The model with the cell's quantized weights in it: as it stands, from the store, or quantized again."""
    handle = session.handle(cell)
    if session.installed == cell.run_id:
        return handle
    path = session.store.weights_path(cell.run_id)
    record = session.store.load_run(cell.run_id)
    assert record is not None
    if cell.recipe.full_precision:
        Artifact().install(handle)
    elif path.exists():
        stored = tensors.load(path)
        check_fingerprints(record, {"weights": tensors.fingerprint(stored)})
        spec = Artifact.read_spec(session.store.spec_path(cell.run_id))
        Artifact.from_tensors(stored, spec, handle.weight_keeper()).install(handle)
    else:
        log.info("  its weights were not kept: quantizing again")
        quantized = _quantize(session, cell, inputs)
        check_fingerprints(record, {"weights": quantized.artifact.fingerprint()})
    session.installed = cell.run_id
    return handle


def _bits_text(record: RunRecord) -> str:
    weights = "" if record.effective_bits is None else f", {record.effective_bits:.3f} bits per quantized weight"
    return weights + ("" if record.kv_bits is None else f", {record.kv_bits:.3f} bits per quantized key or value")
