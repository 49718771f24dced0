"""The scores of a cell: its model on each of its tasks, compared with what full precision makes of them."""

from __future__ import annotations

import pandas as pd

from quantbench.cells.quantizing import install
from quantbench.cells.recording import append_cost, now
from quantbench.cells.session import Inputs, Session
from quantbench.config.cell import Cell
from quantbench.core.environment import environment
from quantbench.core.errors import QuantbenchError
from quantbench.core.meter import Meter
from quantbench.core.out_of_memory import memory_explained
from quantbench.core.progress import progress
from quantbench.metrics import metrics
from quantbench.metrics.clusters import clusters_digest
from quantbench.store.records import Failure, Score
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, protocol_id


def score(session: Session, cell: Cell, baseline: Cell, inputs: Inputs, task: str) -> None:
    """Score the cell on a task, and store that. What fails is stored, too, and goes through."""
    test = inputs.tests[task]
    protocol = protocol_id(test)
    path = session.store.reference_path(baseline.run_id, task, protocol) if test.uses_reference else None
    _refuse_again(session, cell, task, protocol)
    device = session.device(cell)
    meter = Meter(device)
    try:
        reference = None
        if path is not None:
            captures = cell.run_id == baseline.run_id
            reference = Reference.capture(path) if captures else Reference.load(path)
        outcome = _outcome(session, cell, inputs, task, reference)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        failure = Failure(error=why, attempt=session.attempt, created=now())
        session.store.save_failure(cell.run_id, task, protocol, failure)
        raise
    items, handle = outcome.items, session.handle(cell)
    metrics.check_items(items, len(items), f"the items of task {task!r}")
    overlap = inputs.overlaps.get(task)
    scored = Score(
        run_id=cell.run_id,
        task=task,
        protocol=protocol,
        protocol_values=test.protocol_values,
        origin=cell.tasks[task].origin,
        metrics=[metrics.measure(name, items, outcome.estimates) for name in outcome.metrics or test.metrics],
        n_items=len(items),
        n_clusters=items["cluster"].nunique(),
        clusters=clusters_digest(items["item"].tolist(), items["cluster"].tolist()),
        n_tokens=int(items["n_tokens"].sum()),
        n_bytes=int(items["n_bytes"].sum()),
        environment=environment(device, cell.settings.threads)
        | {"dtype": str(handle.model.dtype).removeprefix("torch.")},
        cut_prompts=_count(items, "truncated"),
        cut_answers=_count(items, "unfinished"),
        overlap=None if overlap is None else overlap.to_dict(),
        reference=baseline.run_id,
    )
    session.store.save_score(scored, items, outcome.attachments, outcome.estimates, outcome.positions)
    append_cost(session, cell, f"evaluate {task}", meter.read() | {"tokens": test.n_positions})


def _count(items: pd.DataFrame, column: str) -> int | None:
    return int(items[column].sum()) if column in items else None


def _outcome(session: Session, cell: Cell, inputs: Inputs, task: str, reference: Reference | None) -> Outcome:
    """What scoring gives. reference: of full precision, which is captured or compared with; None: neither."""
    handle = install(session, cell, inputs)
    device = session.device(cell)
    fits = "shorter windows or prompts" + ("" if device.type == "cpu" else ", or the machine's own memory (device=cpu)")
    with progress(f"evaluating {task}", "item") as show, memory_explained(f"evaluating {task}", device, fits):
        return inputs.tests[task].score(handle, task, reference, device, show)


def _refuse_again(session: Session, cell: Cell, task: str, protocol: str) -> None:
    """Raise QuantbenchError for what this command or submission has tried already, perhaps in another process."""
    before = session.store.load_failure(cell.run_id, task, protocol)
    if before is not None and session.attempt and before.attempt == session.attempt:
        raise QuantbenchError(f"task {task}: {before.error} (not tried again for every cell that needs it)")
