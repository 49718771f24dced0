"""Workers on this machine, started through submitit's local executor."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from quantbench.core.errors import ConfigError
from quantbench.core.files import make_folder
from quantbench.launch.records import JobRecord
from quantbench.launch.worker import run_chunk

NO_LIMIT_MINUTES = 60 * 24 * 365 * 10
SIGNAL_SECONDS = 10
"""How long before its time is up a worker is told."""


def visible_gpus(wanted: int | None) -> list[int]:
    """Numbers of the first `wanted` GPUs this process may use; None: of all. Raises ConfigError if there are fewer."""
    if wanted == 0:
        return []
    import torch

    count = torch.cuda.device_count()
    if wanted is not None and wanted > count:
        raise ConfigError(f"cluster.gpus={wanted}: torch sees {count} here; null takes all there are, 0 none")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        numbers = list(range(count)) if named is None else [int(number) for number in named.split(",")[:count]]
    except ValueError:
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={named}: workers on this machine are given GPUs by number; name them so, or set "
            "cluster.gpus=0"
        ) from None
    return numbers[:wanted]


def start(chunks: Sequence[Path], logs: Path, gpus: Sequence[int], minutes: float | None) -> list[str]:
    """Start one worker per chunk, each with one of the GPUs in turn; the process ids of their controllers."""
    import submitit

    ids = []
    for index, chunk in enumerate(chunks):
        executor = submitit.LocalExecutor(folder=logs / "%j", max_num_timeout=10**6)
        executor.update_parameters(
            timeout_min=minutes or NO_LIMIT_MINUTES,
            signal_delay_s=SIGNAL_SECONDS,
            gpus_per_node=1 if gpus else 0,
            visible_gpus=[gpus[index % len(gpus)]] if gpus else (),
        )
        with _apart(logs / "controllers.log"):
            job = executor.submit(run_chunk, str(chunk))
        ids.append(str(job.job_id))
    return ids


def alive(records: Sequence[JobRecord]) -> dict[tuple[str, int], str] | None:
    """Workers that live, by (token, index); None if some were started on another machine, which cannot be asked."""
    here = socket.gethostname()
    if any(record.host != here for record in records):
        return None
    return {
        (record.token, index): job_id
        for record in records
        for index, job_id in enumerate(record.ids)
        if _is_controller(job_id, record.token)
    }


def recover_ids(record: JobRecord) -> list[str] | None:
    """The controllers of a submission whose ids were not written down, in the order they were started."""
    found = [p for p in psutil.process_iter(["pid", "create_time"]) if _is_controller(str(p.pid), record.token)]
    return [str(p.pid) for p in sorted(found, key=lambda p: p.info["create_time"])] or None


def cancel(records: Sequence[JobRecord]) -> None:
    """Terminate the workers of submissions: their controllers pass the signal on."""
    for job_id in (alive(records) or {}).values():
        os.kill(int(job_id), signal.SIGTERM)


def _is_controller(pid: str, token: str) -> bool:
    try:
        process = psutil.Process(int(pid))
        words = process.cmdline()
        return process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in words and token in words[-1]
    except psutil.Error:
        return False


@contextmanager
def _apart(output: Path) -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which a terminal sends to all of the command's, and write to a file.

    With the command's own output they would keep a pipe open that somebody waits at the end of.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    make_folder(output.parent)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    saved = {number: os.dup(number) for number in (1, 2)}
    try:
        with output.open("ab") as file:
            for number in saved:
                os.dup2(file.fileno(), number)
        yield
    finally:
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)
        signal.signal(signal.SIGINT, before)
