"""Where cells run: what `cluster=` selects."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.launch.state import JobRecord

log = logging.getLogger("quantbench")

Job = tuple[str, int]
"""Token of a submission, and the number of the job in it."""


@runtime_checkable
class Place(Protocol):
    """Where cells run."""

    def check(self) -> None:
        """Raise ConfigError if there is no such place here."""
        ...


@component
class InProcess:
    """One cell after the other, in the process of the command itself."""

    def check(self) -> None:
        """It is always there."""


@runtime_checkable
class Cluster(Place, Protocol):
    """A place that runs jobs apart from the command."""

    @property
    def poll_seconds(self) -> float:
        """How often the command looks."""
        ...

    @property
    def grace_seconds(self) -> float:
        """How long after a job's end its last word may still be on its way (shared file systems cache)."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all jobs of a submission take cells from one list; else each has its own."""
        ...

    def split(self, keys: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Submissions, each a list of jobs, each a list of cells; `keys` are cells by what they have in common."""
        ...

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """Start one job per frozen chunk, under the name `token`; their ids. Raises ConfigError where it is refused."""
        ...

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        """Which jobs are waiting or running, each with its id. None: it cannot be told now."""
        ...

    def adopt(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """The ids of a submission whose command died before it wrote them down; None if there are no such jobs."""
        ...

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """End the jobs of submissions."""
        ...

    def epitaph(self, record: JobRecord, index: int) -> str:
        """What the cluster says of a job that ended without a word; "" if nothing."""
        ...


def in_jobs(groups: Sequence[Sequence[str]], size: int) -> list[list[str]]:
    """Cut groups of cells into jobs of at most `size`, as even as they go; small groups are not joined."""
    jobs: list[list[str]] = []
    for group in groups:
        n = math.ceil(len(group) / size)
        cuts = [round(i * len(group) / n) for i in range(n + 1)]
        jobs += [list(group[a:b]) for a, b in pairwise(cuts)]
    return jobs


def last_lines(folder: Path, pattern: str, n: int = 3) -> str:
    """The last lines of the newest file of a pattern, in one line."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        return ""
    lines = [line.strip() for line in found[-1].read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-n:])


@component
class Local:
    """Processes on this machine, which live on when the command ends; each takes the next cell nobody has.

    workers  how many
    gpus     how many of the GPUs that this command sees are used; each worker sees one of them, worker i number i
             modulo `gpus`. null: all; 0: none
    minutes  the longest a worker may run before it is started again; null: no limit
    """

    workers: Annotated[int, Field(ge=1)]
    gpus: Annotated[int, Field(ge=0)] | None
    minutes: Annotated[float, Field(gt=0)] | None
    poll_seconds: Annotated[float, Field(gt=0)]
    grace_seconds: Annotated[float, Field(ge=0)]

    @property
    def shared(self) -> bool:
        """All workers share one list."""
        return True

    def check(self) -> None:
        """Raise ConfigError unless there are so many GPUs."""
        from quantbench.launch import local

        local.visible_gpus(self.gpus)

    def split(self, keys: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Every worker gets every cell, and begins where the others don't."""
        cells = [key for group in keys for key in group]
        n = min(self.workers, len(cells))
        starts = [round(i * len(cells) / n) for i in range(n)]
        return [[cells[start:] + cells[:start] for start in starts]]

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """See Cluster. Ctrl-C does not reach the workers."""
        del token, threads
        from quantbench.launch import local

        return local.start(chunks, logs, local.visible_gpus(self.gpus), self.minutes)

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        """By process id, on the machine they were started on."""
        from quantbench.launch import local

        return local.alive(records)

    def adopt(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """Workers are found by the folder of their submission."""
        del alive
        from quantbench.launch import local

        return local.adopt(record)

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """Terminate the workers."""
        from quantbench.launch import local

        local.cancel(records)

    def epitaph(self, record: JobRecord, index: int) -> str:
        """Nobody keeps a record."""
        del record, index
        return ""


@component
class Slurm:
    """Jobs of a SLURM cluster, submitted through submitit as job arrays.

    minutes        time limit of a job; near its end the job is put back into the queue and continues later
    gpus, cpus     per job; cpus null: as many as `threads`. memory_gb null: the cluster's default
    cells_per_job  cells that one job runs in turn; imports, model and baseline are paid once. 1: for clean timings
    group_by       options that the cells of one job share
    max_jobs       jobs of an array that run at the same time
    setup          shell lines run before Python starts; python: the command that starts it (null: this interpreter),
                   for instance "apptainer exec --nv image.sif python"
    srun_args      further arguments of srun; extra: further options of sbatch
    """

    partition: str | None
    account: str | None
    qos: str | None
    minutes: Annotated[int, Field(ge=1)]
    gpus: Annotated[int, Field(ge=0)]
    cpus: Annotated[int, Field(ge=1)] | None
    memory_gb: Annotated[float, Field(gt=0)] | None
    cells_per_job: Annotated[int, Field(ge=1)]
    group_by: tuple[str, ...]
    max_jobs: Annotated[int, Field(ge=1)]
    setup: tuple[str, ...]
    python: str | None
    srun_args: tuple[str, ...]
    extra: dict[str, Any]
    poll_seconds: Annotated[float, Field(gt=0)]
    grace_seconds: Annotated[float, Field(ge=0)]

    @property
    def shared(self) -> bool:
        """Every job has its own cells."""
        return False

    def check(self) -> None:
        """Raises ConfigError if SLURM's commands are not here."""
        from quantbench.launch import slurm

        slurm.check()

    def split(self, keys: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Jobs of `cells_per_job`, in arrays that the cluster takes."""
        from quantbench.launch import slurm

        jobs, most = in_jobs(keys, self.cells_per_job), slurm.max_array_size()
        return [jobs[i : i + most] for i in range(0, len(jobs), most)]

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """See Cluster."""
        from quantbench.launch import slurm

        return slurm.submit(chunks, logs, self.python, self._parameters(token, threads))

    def _parameters(self, token: str, threads: int) -> dict[str, Any]:
        """What submitit is told."""
        if self.cpus is not None and self.cpus < threads:
            raise ConfigError(f"cluster.cpus={self.cpus}: fewer than threads={threads}; give as many")
        wanted: dict[str, Any] = {
            "job_name": token,
            "time": self.minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus or threads,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gpus_per_node": self.gpus or None,
            "mem": None if self.memory_gb is None else f"{round(self.memory_gb * 1024)}M",
            "setup": list(self.setup) or None,
            "srun_args": list(self.srun_args) or None,
            "array_parallelism": self.max_jobs,
            # SLURM looks every half minute and sends it at the last look before; what comes too early is lost to a
            # short job, and a few seconds are enough to stop and to ask for another turn.
            "signal_delay_s": min(90, 5 * self.minutes),
            "additional_parameters": {"requeue": True, **self.extra},
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        """By one `squeue` for all jobs of this user."""
        from quantbench.launch import slurm

        return slurm.alive({record.token for record in records})

    def adopt(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """Jobs are found by their name."""
        found = {index: job_id for (token, index), job_id in alive.items() if token == record.token}
        if not found:
            return None
        first = next(iter(found.values())).partition("_")[0]
        return [first] if len(record.cells) == 1 else [f"{first}_{i}" for i in range(len(record.cells))]

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """By `scancel`."""
        from quantbench.launch import slurm

        slurm.cancel(records)

    def epitaph(self, record: JobRecord, index: int) -> str:
        """What `sacct` says, where the cluster has it."""
        from quantbench.launch import slurm

        return slurm.last_state(record.ids[index]) if index < len(record.ids) else ""


def user() -> str:
    """The name jobs run under."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
