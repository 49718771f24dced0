"""What is written down beside results: failures with their tracebacks, and what work took."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.environment import environment
from quantbench.store.records import RunRecord


def record_failure(session: Session, cell: Cell, error: BaseException) -> None:
    """Store a failed run with its traceback, unless the model itself was already quantized and stored."""
    existing = session.store.load_run(cell.run_id)
    if existing is not None and existing.status == "quantized":
        return
    log_path = session.store.log_path(cell.run_id)
    tail = log_path.read_text("utf-8", "replace").splitlines()[-30:] if log_path.exists() else []
    session.store.save_run(
        RunRecord(
            run_id=cell.run_id,
            status="failed",
            choices=cell.choices,
            config=cell.identity,
            fingerprints={},
            environment=environment(session.device(cell), cell.settings.threads),
            created=now(),
            error={
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
                "log_tail": "\n".join(tail),
            },
        )
    )


def append_cost(session: Session, cell: Cell, what: str, cost: dict[str, Any]) -> None:
    """Store what a piece of work took, and where."""
    device = session.device(cell)
    measured = environment(device, cell.settings.threads)
    where = {"environment": measured["id"], "device": str(device), "at": now()}
    session.store.append_cost(cell.run_id, {"what": what, **cost, **where})


def now() -> str:
    """ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
