"""A cluster and a sweep that are made up: nothing runs, the test says what the queue shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantbench.launch.cluster import Job
from quantbench.launch.records import CellStatus, FrozenCell, JobRecord, now
from quantbench.launch.state import SweepState
from quantbench.launch.submit import Work

Queue = Callable[[], dict[Job, str] | None]


@dataclasses.dataclass
class MadeUp:
    """Takes every job; `queue` tells which are alive each time it is asked."""

    queue: Queue
    poll_seconds: float = 0.01
    grace_seconds: float = 0.3
    group_by: tuple[str, ...] = ()
    submitted: list[str] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        pass

    def check_threads(self, threads: int) -> None:
        pass

    def check_folder(self, root: Path) -> None:
        pass

    def split(self, groups: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        return [[[key] for group in groups for key in group]]

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        self.submitted.append(token)
        return [f"1_{i}" for i in range(len(chunks))]

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        return self.queue()

    def recover_ids(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        return [alive[job] for job in alive if job[0] == record.token] or None

    def cancel(self, records: Sequence[JobRecord]) -> None:
        pass

    def exit_reason(self, record: JobRecord, index: int) -> str:
        return ""


def work(*keys: str) -> list[Work]:
    """Cells to be submitted."""
    settings: Any = None
    return [Work(frozen(key), key, settings, ()) for key in keys]


def frozen(key: str) -> FrozenCell:
    """A cell that nothing can be built from."""
    return FrozenCell(key=key, config={}, choices={}, overrides=[], run_id=key, tasks={})


def tell(sweep: SweepState, key: str, state: Any, job: str, **fields: Any) -> None:
    """Write down what became of a cell."""
    given: dict[str, Any] = {"host": "n1", "pid": 1, "started": now()} | fields
    sweep.save_cell(CellStatus(key=key, state=state, job=job, **given))
