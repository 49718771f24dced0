"""SLURM through submitit and its own commands. Works without accounting: only `exit_reason` asks `sacct`."""

from __future__ import annotations

import logging
import math
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from quantbench.core.errors import ConfigError
from quantbench.launch.records import JobRecord
from quantbench.launch.worker import run_chunk

log = logging.getLogger("quantbench")

UNCERTAIN = re.compile("timed out|unable to contact|zero bytes|connection|communication", re.IGNORECASE)
"""What `sbatch` says when it does not know whether the controller took the jobs."""
TIMEOUT = 60
"""Seconds after which a command of SLURM counts as failed."""


MANAGED = {
    **dict.fromkeys(("partition", "p"), "cluster.partition"),
    **dict.fromkeys(("account", "A"), "cluster.account"),
    **dict.fromkeys(("qos", "q"), "cluster.qos"),
    **dict.fromkeys(("time", "t"), "cluster.minutes"),
    **dict.fromkeys(("gpus_per_node", "gpus", "G"), "cluster.gpus"),
    **dict.fromkeys(("cpus_per_task", "c"), "cluster.cpus"),
    **dict.fromkeys(("mem", "mem_per_cpu", "mem_per_gpu"), "cluster.memory_gb"),
}
"""Options of sbatch that have an option of ours."""

OURS = {"job_name", "J", "array", "a", "output", "o", "error", "e", "input", "i", "open_mode", "signal", "requeue"}
OURS |= {"no_requeue", "wrap", "wait", "W", "test_only", "parsable", "nodes", "N", "ntasks", "n", "ntasks_per_node"}
OURS |= {"chdir", "D", "setup", "srun_args", "array_parallelism", "signal_delay_s", "stderr_to_stdout", "use_srun"}
"""Options of sbatch and of submitit by which jobs are found again, write where they are looked for, and are one cell at
a time."""


def refused(option: str) -> str | None:
    """Why an option of sbatch cannot be given in `cluster.extra`; None if it can."""
    name = option.lstrip("-").replace("-", "_")
    if name in MANAGED:
        return f"give {MANAGED[name]} instead"
    return "quantbench sets it itself, or jobs could not be found again" if name in OURS else None


def check() -> None:
    """Raise ConfigError if SLURM's commands are missing or its controller does not answer."""
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"cluster=slurm: {', '.join(missing)} not found: this machine cannot submit to SLURM. Use a login node of "
            "the cluster, or cluster=local for processes on this machine"
        )


def in_jobs(groups: Sequence[Sequence[str]], size: int) -> list[list[str]]:
    """Cut groups of cells into jobs of at most `size`, as even as they go; small groups are not joined."""
    jobs: list[list[str]] = []
    for group in groups:
        n = math.ceil(len(group) / size)
        cuts = [round(i * len(group) / n) for i in range(n + 1)]
        jobs += [list(group[a:b]) for a, b in pairwise(cuts)]
    return jobs


def submit(chunks: Sequence[Path], logs: Path, python: str | None, parameters: dict[str, Any]) -> list[str]:
    """One array of jobs (one job for one chunk); their ids.

    Raises ConfigError with SLURM's message if it refuses, or does not say whether it took the jobs.
    """
    import submitit

    try:
        # A folder that is there before the job: where its output cannot be opened SLURM does not start it.
        executor = submitit.SlurmExecutor(folder=logs, python=python)
        executor.update_parameters(**parameters)
        jobs = executor.map_array(run_chunk, [str(path) for path in chunks])
    except (submitit.core.utils.FailedJobError, RuntimeError) as error:
        if UNCERTAIN.search(str(error)):
            # What was taken has no content (submitit adds it when it knows the ids) and cannot run.
            _run(["scancel", f"--name={parameters['job_name']}"])
            raise ConfigError(
                f"cluster=slurm: the controller did not say whether it took the jobs: {error}. None of them will run; "
                "give the same command again in a moment"
            ) from error
        raise ConfigError(f"cluster=slurm: the jobs were refused: {error}") from error
    return [job.job_id for job in jobs]


def alive(tokens: set[str]) -> dict[tuple[str, int], str] | None:
    """Jobs in the queue by (token, index) -> id, by one `squeue` of this user's jobs; None if it fails."""
    listing = _run(["squeue", "-h", "-r", "-u", _user(), "-o", "%i|%j"])
    if listing is None:
        return None
    found: dict[tuple[str, int], str] = {}
    for line in listing.splitlines():
        job_id, _, name = line.strip().partition("|")
        if name in tokens:
            index = job_id.partition("_")[2]
            found[name, int(index) if index.isdigit() else 0] = job_id
    return found


def cancel(records: Sequence[JobRecord]) -> None:
    """Cancel the jobs of submissions. Raises ConfigError if SLURM cannot be told."""
    for record in records:
        # By name as well: ids are used again when a cluster forgets its past.
        if _run(["scancel", f"--name={record.token}"]) is None:
            raise ConfigError(f"the jobs of {record.token} could not be cancelled: scancel failed; see above")


def max_array_size() -> int:
    """How many jobs an array may have; SLURM's default where it does not say."""
    text = _run(["scontrol", "show", "config"]) or ""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", text)
    return max(1, int(found[1]) - 1) if found else 1000


def exit_reason(job_id: str) -> str:
    """What the accounting says of a job that has ended, for instance "OUT_OF_MEMORY"; "" without accounting."""
    if shutil.which("sacct") is None:
        return ""
    command = ["sacct", "-X", "-n", "-P", "-j", job_id, "-o", "State,ExitCode"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        log.warning("%s", error)
        return ""
    line = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    return f"SLURM says {line[0].replace('|', ', exit code ')}" if line else ""


def _run(command: Sequence[str]) -> str | None:
    """The output of a command of SLURM; None, with a warning, if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=TIMEOUT
        )
    except subprocess.CalledProcessError as error:
        log.warning("%s failed (%s): %s", command[0], error.returncode, error.stderr.strip())
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s failed: %s", command[0], error)
        return None
    return done.stdout


def _user() -> str:
    """The name jobs run under."""
    return pwd.getpwuid(os.getuid()).pw_name
