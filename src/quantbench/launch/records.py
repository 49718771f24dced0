"""What the command and its jobs tell each other about a sweep: the content of its state files."""

from __future__ import annotations

import os
import socket
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from quantbench.core.component import STRICT
from quantbench.core.hashing import digest
from quantbench.store.json_record import SCHEMA_VERSION, JsonRecord

State = Literal["running", "done", "failed", "interrupted"]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CellStatus(JsonRecord):
    """What became of a cell.

    job      "<token>/<index>" of the job that ran it last, or a name of its own for a cell run in the command itself
    seconds  how long it took (or has been running when it was interrupted)
    error    one line; traceback: the whole of it, and the end of the log, of a cell that failed
    """

    what: ClassVar[str] = "cell status"

    schema_version: int = SCHEMA_VERSION
    key: str
    state: State
    job: str
    host: str
    pid: int
    started: str
    seconds: float | None = None
    error: str | None = None
    traceback: str | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class JobRecord(JsonRecord):
    """One submission of one or more jobs.

    token   its name, which is that of its jobs on the cluster
    cells   per job the keys of its cells
    ids     per job its id on the cluster; empty between the intent and the submission
    host    the machine it was submitted from
    number  1 for the first submission of the sweep, and so on: clocks of machines differ, so times give no order
    """

    what: ClassVar[str] = "job record"

    schema_version: int = SCHEMA_VERSION
    token: str
    cluster: str
    created: str
    host: str
    cells: list[list[str]]
    ids: list[str] = field(default_factory=list)
    cancelled: bool = False
    number: int = 0


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FrozenCell:
    """A cell as it was submitted: its resolved configuration, and what it must still be when it runs."""

    key: str
    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    run_id: str
    tasks: dict[str, str]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Chunk(JsonRecord):
    """The cells of one job, and where it is to run them.

    root  the output folder; cwd and path: working folder and import path of the command that submitted it
    """

    what: ClassVar[str] = "chunk of cells"

    schema_version: int = SCHEMA_VERSION
    token: str
    index: int
    sweep: str
    root: str
    cwd: str
    path: list[str]
    cells: list[FrozenCell]

    @property
    def job(self) -> str:
        """Its name in a CellStatus."""
        return f"{self.token}/{self.index}"

    def is_final(self, status: CellStatus | None) -> bool:
        """Whether a cell of this job needs no more work. What failed in an earlier submission is to be tried again."""
        if status is None or status.state in {"running", "interrupted"}:
            return False
        return status.state == "done" or status.job.partition("/")[0] == self.token


def cell_key(run_id: str, tasks: dict[str, str]) -> str:
    """The name of a cell's files: the same for equal runs that are tested alike, whatever the overrides were."""
    return f"{run_id}-{digest(tasks, 8)}"


def now() -> str:
    """ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def started(key: str, job: str) -> CellStatus:
    """The status of a cell that begins now in this process."""
    return CellStatus(key=key, state="running", job=job, host=socket.gethostname(), pid=os.getpid(), started=now())
