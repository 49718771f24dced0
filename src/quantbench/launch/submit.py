"""Freezes cells and hands them to a cluster."""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from quantbench.config.settings import Settings
from quantbench.core.errors import QuantbenchError
from quantbench.launch.cluster import Cluster
from quantbench.launch.records import Chunk, FrozenCell, JobRecord, now
from quantbench.launch.state import SweepState

log = logging.getLogger("quantbench")


@dataclasses.dataclass(frozen=True)
class Work:
    """A cell to be submitted if it is neither done nor on its way; group: what cells of one job have in common."""

    frozen: FrozenCell
    label: str
    settings: Settings
    group: tuple[str, ...]


def with_ids(sweep: SweepState, cluster: Cluster) -> list[JobRecord]:
    """All submissions; one whose command died in between gets its ids, if its jobs are there."""
    records = []
    for record in sweep.jobs():
        if not record.ids and not record.cancelled:
            ids = _ids_of(record, cluster)
            record = dataclasses.replace(record, ids=ids or [], cancelled=ids is None)
            sweep.save_job(record)
        records.append(record)
    return records


def _ids_of(record: JobRecord, cluster: Cluster) -> list[str] | None:
    """The ids of a submission that were not written down; None if it has no jobs, which the queue may tell late."""
    end = time.monotonic() + cluster.grace_seconds
    while True:
        alive = cluster.alive([record])
        if alive is None:
            raise QuantbenchError(
                f"submission {record.token} was begun, and the cluster cannot be asked now what became of it; "
                "nothing was submitted. Try again in a moment"
            )
        ids = cluster.recover_ids(record, alive)
        if ids is not None or time.monotonic() >= end:
            return ids
        time.sleep(min(cluster.poll_seconds, cluster.grace_seconds))


def submit(sweep: SweepState, cluster: Cluster, todo: Sequence[Work], threads: int) -> int:
    """Freeze and submit cells; how many jobs they are."""
    if not todo:
        return 0
    frozen = {one.frozen.key: one.frozen for one in todo}
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in todo:
        groups.setdefault(one.group, []).append(one.frozen.key)
    n_jobs = 0
    before = max((record.number for record in sweep.jobs()), default=0)
    for number, jobs in enumerate(cluster.split(list(groups.values())), start=before + 1):
        record = JobRecord(
            token=sweep.new_token(),
            cluster=type(cluster).__name__.lower(),
            created=now(),
            host=socket.gethostname(),
            cells=jobs,
            number=number,
        )
        chunks = [_freeze(sweep, record.token, i, [frozen[key] for key in keys]) for i, keys in enumerate(jobs)]
        # The intent first: a command that is killed in between can be found out about by the name of its jobs.
        sweep.save_job(record)
        try:
            ids = cluster.submit(chunks, record.token, sweep.log_folder(record.token), threads)
        except QuantbenchError:
            sweep.save_job(dataclasses.replace(record, cancelled=True))
            raise
        sweep.save_job(dataclasses.replace(record, ids=ids))
        log.info("submitted %s: jobs %s", record.token, ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}")
        n_jobs += len(jobs)
    return n_jobs


def _freeze(sweep: SweepState, token: str, index: int, cells: list[FrozenCell]) -> Path:
    return sweep.save_chunk(
        Chunk(
            token=token,
            index=index,
            sweep=sweep.name,
            root=str(sweep.root.resolve()),
            cwd=str(Path.cwd()),
            path=[str(Path(entry).resolve()) for entry in sys.path],
            cells=cells,
        )
    )
