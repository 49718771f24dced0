"""The launchers that `cluster=` selects, with their options; how they do it is in `local` and `slurm`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError
from quantbench.core.locks import check_seen_by_others
from quantbench.launch import local, slurm
from quantbench.launch.cluster import Job
from quantbench.launch.records import JobRecord


@component
class InProcess:
    """One cell after the other, in the process of the command itself."""

    def check(self) -> None:
        """It is always there."""

    def check_threads(self, threads: int) -> None:
        """Threads are those of this machine."""


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
    def group_by(self) -> tuple[str, ...]:
        """Workers may load one model after another, but each cell's tests are of one model."""
        return ("model",)

    def check(self) -> None:
        """Raise ConfigError unless there are so many GPUs."""
        local.visible_gpus(self.gpus)

    def check_threads(self, threads: int) -> None:
        """Threads are those of this machine."""

    def check_folder(self, root: Path) -> None:
        """Any will do: all workers are on this machine."""

    def split(self, groups: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Every worker gets every cell, and begins where the others don't."""
        cells = [key for group in groups for key in group]
        n = min(self.workers, len(cells))
        starts = [round(i * len(cells) / n) for i in range(n)]
        return [[cells[start:] + cells[:start] for start in starts]]

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """See Cluster. Ctrl-C does not reach the workers."""
        del token, threads
        return local.start(chunks, logs, local.visible_gpus(self.gpus), self.minutes)

    def alive(self, records: Sequence[JobRecord]) -> dict[Job, str] | None:
        """By process id, on the machine they were started on."""
        return local.alive(records)

    def recover_ids(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """Workers are found by the folder of their submission."""
        del alive
        return local.recover_ids(record)

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """Terminate the workers."""
        local.cancel(records)

    def exit_reason(self, record: JobRecord, index: int) -> str:
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
    srun_args      further arguments of srun; extra: further options of sbatch, those aside
                   that the options above or quantbench itself decide
    grace_seconds  how long a job must be out of the queue's sight before it counts as over
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

    def __post_init__(self) -> None:
        for key in self.extra:
            if (reason := slurm.refused(key)) is not None:
                raise ConfigError(f"extra.{key}: {reason}")

    def check(self) -> None:
        """Raises ConfigError if SLURM's commands are not here."""
        slurm.check()

    def check_threads(self, threads: int) -> None:
        """Raises ConfigError if a job has fewer cores than a cell has threads."""
        if self.cpus is not None and self.cpus < threads:
            raise ConfigError(
                f"cluster.cpus={self.cpus}: fewer than threads={threads}; give cluster.cpus={threads}, or "
                f"threads={self.cpus}"
            )

    def check_folder(self, root: Path) -> None:
        """Raise StoreError if a lock taken on one node would not be seen on another."""
        check_seen_by_others(root)

    def split(self, groups: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Jobs of `cells_per_job`, in arrays that the cluster takes."""
        jobs, most = slurm.in_jobs(groups, self.cells_per_job), slurm.max_array_size()
        return [jobs[i : i + most] for i in range(0, len(jobs), most)]

    def submit(self, chunks: Sequence[Path], token: str, logs: Path, threads: int) -> list[str]:
        """See Cluster."""
        return slurm.submit(chunks, logs, self.python, self._parameters(token, threads))

    def _parameters(self, token: str, threads: int) -> dict[str, Any]:
        """What submitit is told."""
        self.check_threads(threads)
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
        return slurm.alive({record.token for record in records})

    def recover_ids(self, record: JobRecord, alive: dict[Job, str]) -> list[str] | None:
        """Jobs are found by their name."""
        found = {index: job_id for (token, index), job_id in alive.items() if token == record.token}
        if not found:
            return None
        first = next(iter(found.values())).partition("_")[0]
        return [first] if len(record.cells) == 1 else [f"{first}_{i}" for i in range(len(record.cells))]

    def cancel(self, records: Sequence[JobRecord]) -> None:
        """By `scancel`."""
        slurm.cancel(records)

    def exit_reason(self, record: JobRecord, index: int) -> str:
        """What `sacct` says, where the cluster has it."""
        return slurm.exit_reason(record.ids[index]) if index < len(record.ids) else ""
