"""What a launcher that runs jobs apart from the command has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from quantbench.core.launcher import Launcher
from quantbench.launch.records import JobRecord

Job = tuple[str, int]
"""Token of a submission, and the number of the job in it."""


@runtime_checkable
class Cluster(Launcher, Protocol):
    """A launcher whose jobs outlive the command."""

    @property
    def poll_seconds(self) -> float:
        """How often the command looks."""
        ...

    @property
    def grace_seconds(self) -> float:
        """How long a job must be out of sight before it is over: the queue and its last word may come late."""
        ...

    @property
    def group_by(self) -> tuple[str, ...]:
        """Option groups in which the cells of one job agree."""
        ...

    def check_folder(self, root: Path) -> None:
        """Raise StoreError if jobs cannot work together in an output folder."""
        ...

    def split(self, groups: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Submissions, each a list of jobs, each a list of keys of cells; `groups` are keys by what is shared."""
        ...

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """Start one job per frozen chunk, under the name `token`; their ids. Raises ConfigError where it is refused."""
        ...

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        """Which jobs are waiting or running, each with its id. None: it cannot be told now."""
        ...

    def recover_ids(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """The ids of a submission whose command died before it wrote them down; None if there are no such jobs."""
        ...

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """End the jobs of submissions."""
        ...

    def exit_reason(self, record: JobRecord, index: int) -> str:
        """What the cluster says of a job that ended before its cells did; "" if nothing."""
        ...
