"""One cell, from top to bottom: load, calibrate, quantize, store, evaluate, record."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.core import tensors
from quantbench.core.environment import environment
from quantbench.core.errors import StoreError
from quantbench.core.files import write_text
from quantbench.core.meter import Meter
from quantbench.core.progress import duration, progress
from quantbench.metrics import metrics
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.store.records import LayerRecord, RunRecord, Score
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import protocol_id

log = logging.getLogger("quantbench")


def run_cell(session: Session, cell: Cell, baseline: Cell) -> bool:
    """Do what is not done yet of a cell; whether anything was. Exceptions go through: the grid records them."""
    inputs = session.inputs(cell)
    with session.store.lock(cell.run_id), _log_file(session.store.log_path(cell.run_id)):
        torch.set_num_threads(cell.settings.threads)
        torch.manual_seed(cell.settings.seed)
        quantized = _ensure_quantized(session, cell, inputs)
        scored = [_ensure_score(session, cell, baseline, inputs, task) for task in cell.tasks]
    return quantized or any(scored)


# Quantization


def _ensure_quantized(session: Session, cell: Cell, inputs: Inputs) -> bool:
    record = session.store.load_run(cell.run_id)
    if record is not None and record.status == "quantized":
        _check_fingerprints(record, _input_fingerprints(session, cell, inputs))
        return False
    _quantize_and_store(session, cell, inputs)
    return True


def _quantize_and_store(session: Session, cell: Cell, inputs: Inputs) -> None:
    device = session.device(cell)
    session.handle(cell)  # loading is not what is measured
    meter = Meter(device)
    fingerprints = _input_fingerprints(session, cell, inputs)
    checkpoint = None
    if cell.settings.checkpoint_blocks and not cell.recipe.full_precision:
        folder = session.store.checkpoint_dir(cell.run_id)
        checkpoint = Checkpoint(folder, cell.settings.checkpoint_blocks, fingerprints)
    quantized = _quantize(session, cell, inputs, checkpoint)
    cost = meter.read()
    handle = session.handle(cell)
    stored, spec = quantized.artifact.to_tensors()
    fingerprints = fingerprints | {"weights": tensors.fingerprint(stored)}
    if cell.settings.save == "weights" and not cell.recipe.full_precision:
        tensors.save(session.store.weights_path(cell.run_id), stored)
        write_text(session.store.spec_path(cell.run_id), Artifact.spec_text(spec))
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
        bits_model=_bits_of_model(handle, quantized.artifact),
        fallbacks=_sum_fallbacks(quantized),
        notes=_notes(quantized),
        environment=environment(device, cell.settings.threads),
        created=_now(),
    )
    session.store.save_run(record)
    if checkpoint is not None:
        checkpoint.remove()
    _append_cost(session, cell, "quantize", cost)
    log.info("  quantized in %s%s", duration(cost["seconds"]), _bits_text(record))


def _quantize(session: Session, cell: Cell, inputs: Inputs, checkpoint: Checkpoint | None = None) -> Quantized:
    handle = session.handle(cell)
    session.installed = None
    if cell.recipe.full_precision:
        quantized = Quantized(Artifact())
    else:
        tokens = None if inputs.calib is None else inputs.calib.tokens
        with progress("quantizing", "block") as show:
            quantized = quantize_model(handle, cell.recipe, tokens, session.device(cell), show, checkpoint)
    quantized.artifact.install(handle)
    session.installed = cell.run_id
    return quantized


def _install(session: Session, cell: Cell, inputs: Inputs) -> ModelHandle:
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
        artifact = Artifact.from_tensors(tensors.load(path), Artifact.read_spec(session.store.spec_path(cell.run_id)))
        _check_fingerprints(record, {"weights": artifact.fingerprint()})
        artifact.install(handle)
    else:
        log.info("  its weights were not kept: quantizing again")
        quantized = _quantize(session, cell, inputs)
        _check_fingerprints(record, {"weights": quantized.artifact.fingerprint()})
    session.installed = cell.run_id
    return handle


def _input_fingerprints(session: Session, cell: Cell, inputs: Inputs) -> dict[str, str]:
    found = {
        "model": cell.model.fingerprint(),
        "tokenizer": session.tokenizer(cell)[1],
    }
    if inputs.calib is not None:
        found |= {"calib_tokens": inputs.calib.fingerprint, "calib_text": inputs.calib.text_fingerprint}
    return found


def _check_fingerprints(record: RunRecord, found: dict[str, str]) -> None:
    for name, value in found.items():
        stored = record.fingerprints.get(name)
        if stored != value:
            raise StoreError(
                f"run {record.run_id} was made with another {name}: its record says {stored}, now it is {value}. "
                "The model, text or library has changed under the same name. Keep the old results by giving "
                f"output_dir=FOLDER, or delete the folder runs/{record.run_id} to compute it again."
            )


def _bits_of_model(handle: ModelHandle, artifact: Artifact) -> float:
    """Bits per parameter over the whole model: quantized weights as stored, everything else in its dtype."""
    bits, count = float(artifact.shift_bits), 0
    seen: set[int] = set()
    for name, parameter in handle.originals.items():
        known = artifact.quantizes(name) or name in artifact.changed
        if id(parameter) in seen and not known:  # tied to one that was counted
            continue
        seen.add(id(parameter))
        bits += artifact.bits_of(name, parameter)
        count += parameter.numel()
    return bits / count


def _notes(quantized: Quantized) -> list[str]:
    layers = {note for layer in quantized.layers for note in layer.notes}
    return [*sorted(layers), *quantized.artifact.notes]


def _sum_fallbacks(quantized: Quantized) -> dict[str, int]:
    total: dict[str, int] = {}
    for layer in quantized.layers:
        for kind, count in layer.fallbacks.items():
            total[kind] = total.get(kind, 0) + count
    return total


# Evaluation


def _ensure_score(session: Session, cell: Cell, baseline: Cell, inputs: Inputs, task: str) -> bool:
    test = inputs.tests[task]
    protocol = protocol_id(test)
    path = session.store.reference_path(baseline.run_id, task, protocol) if test.uses_reference else None
    scored = session.store.load_score(cell.run_id, task, protocol) is not None
    # The full-precision model is evaluated again where its reference was deleted: others are measured against it.
    if scored and (path is None or path.exists() or not cell.recipe.full_precision):
        return False
    device = session.device(cell)
    meter = Meter(device)
    handle = _install(session, cell, inputs)
    reference = None
    if path is not None:
        reference = Reference.capture(path) if cell.recipe.full_precision else Reference.load(path)
    with progress(f"evaluating {task}", "item") as show:
        outcome = test.score(handle, task, reference, device, show)
    items = outcome.items
    overlap = inputs.overlaps.get(task)
    score = Score(
        run_id=cell.run_id,
        task=task,
        protocol=protocol,
        protocol_values=test.protocol_values,
        origin=cell.tasks[task].origin,
        metrics=[metrics.measure(name, items) for name in outcome.metrics or test.metrics],
        n_items=len(items),
        n_tokens=int(items["n_tokens"].sum()),
        n_bytes=int(items["n_bytes"].sum()),
        environment=environment(device, cell.settings.threads),
        overlap=None if overlap is None else overlap.to_dict(),
        reference=baseline.run_id,
    )
    session.store.save_score(score, items, outcome.attachments)
    _append_cost(session, cell, f"evaluate {task}", meter.read())
    return True


# Records


def record_failure(session: Session, cell: Cell, error: BaseException) -> None:
    """Store a failed run with its traceback, unless the model itself was already quantized and stored."""
    existing = session.store.load_run(cell.run_id)
    if existing is not None and existing.status == "quantized":
        return
    log_path = session.store.log_path(cell.run_id)
    tail = log_path.read_text(errors="replace").splitlines()[-30:] if log_path.exists() else []
    session.store.save_run(
        RunRecord(
            run_id=cell.run_id,
            status="failed",
            choices=cell.choices,
            config=cell.identity,
            fingerprints={},
            environment=environment(session.device(cell), cell.settings.threads),
            created=_now(),
            error={
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
                "log_tail": "\n".join(tail),
            },
        )
    )


def _append_cost(session: Session, cell: Cell, what: str, cost: dict[str, Any]) -> None:
    device = session.device(cell)
    place = environment(device, cell.settings.threads)
    where = {"environment": place["id"], "device": str(device), "at": _now()}
    session.store.append_cost(cell.run_id, {"what": what, **cost, **where})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _bits_text(record: RunRecord) -> str:
    weights = "" if record.effective_bits is None else f", {record.effective_bits:.3f} bits per quantized weight"
    return weights + ("" if record.kv_bits is None else f", {record.kv_bits:.3f} bits per quantized key or value")


class _LogFile(logging.FileHandler):
    """A log whose lines may get lost on a full disk: they are said on the terminal all the same."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Nothing: the failure that matters is reported where results are written."""

    def close(self) -> None:
        """Close it, whether or not its last lines find room."""
        with suppress(OSError):
            super().close()


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    handler = _LogFile(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except BaseException as error:
        info = (type(error), error, error.__traceback__)
        handler.emit(log.makeRecord(log.name, logging.ERROR, __file__, 0, "stopped: %s", (error,), info))
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
