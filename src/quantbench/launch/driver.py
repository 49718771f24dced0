"""Submits what is not done yet of a sweep, and follows it to its end. Any number of commands may do so at once."""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantbench.config.schema import Settings
from quantbench.core.errors import QuantbenchError
from quantbench.core.progress import counted, duration
from quantbench.launch.launchers import Cluster
from quantbench.launch.overview import OPEN, CellView, Watch
from quantbench.launch.state import Board, Chunk, FrozenCell, JobRecord, now

log = logging.getLogger("quantbench")


@dataclasses.dataclass(frozen=True)
class Work:
    """A cell to be submitted if it is neither done nor on its way; group: what cells of one job have in common."""

    frozen: FrozenCell
    label: str
    settings: Settings
    group: tuple[str, ...]


def launch(
    board: Board, cluster: Cluster, work: Sequence[Work], done: set[str], *, threads: int, retry_failed: bool
) -> Watch:
    """Submit the cells that are open. `done`: keys whose results are in the store.

    Raises ConfigError, with nothing submitted, if the cluster refuses or cannot be asked.
    """
    cluster.check()
    watch = Watch(board, cluster)
    with board.submitting():
        records = _adopted(board, cluster)
        unique = {one.frozen.key: one for one in work}
        views = watch.look([key for key in unique if key not in done], records)
        open_now = {key for key, view in views.items() if view.state in OPEN}
        skipped = {key for key, view in views.items() if view.state == "failed" and not retry_failed}
        # What counts as done without its results is done again.
        todo = [one for key, one in unique.items() if key not in done and key not in open_now and key not in skipped]
        jobs = _submit(board, cluster, todo, threads)
        log.info(
            "sweep %s: %s, %d finished, %d on their way, %d submitted in %s%s",
            board.name,
            counted(len(unique), "cell"),
            sum(key in done for key in unique),
            len(open_now),
            len(todo),
            counted(jobs, "job"),
            f", {len(skipped)} failed before (retry_failed=false)" if skipped else "",
        )
    return Watch(board, cluster, cluster.grace_seconds)


def follow(watch: Watch, work: Sequence[Work], done: set[str], poll_seconds: float) -> dict[str, CellView]:
    """Look at the cells until none is open, and say what changes. Ctrl-C leaves the jobs alone."""
    labels = {one.frozen.key: one.label for one in work}
    keys = [key for key in labels if key not in done]
    views: dict[str, CellView] = {}
    told: set[str] = set()
    started = time.monotonic()
    wait = min(1.0, poll_seconds)
    while True:
        views = watch.look(keys, watch.board.jobs())
        news = [key for key in keys if views[key].state not in OPEN and key not in told]
        for key in news:
            told.add(key)
            _tell(labels[key], views[key], f"[{len(told)}/{len(keys)}]", time.monotonic() - started, len(keys))
        if len(told) == len(keys):
            return views
        time.sleep(wait)
        wait = min(poll_seconds, wait * 1.5)


def _tell(label: str, view: CellView, place: str, passed: float, total: int) -> None:
    ready = int(place[1:].partition("/")[0])
    left = f"; about {duration(passed / ready * (total - ready))} left" if ready < total else ""
    if view.state == "done":
        seconds = view.status.seconds if view.status is not None else None
        log.info("%s %s: done in %s%s", place, label, duration(seconds or 0.0), left)
    else:
        log.error("%s %s: %s: %s%s", place, label, view.state, view.error or "never submitted", left)


def _adopted(board: Board, cluster: Cluster) -> list[JobRecord]:
    """All submissions; one whose command died in between gets its ids, if its jobs are there."""
    records = []
    for record in board.jobs():
        if not record.ids and not record.cancelled:
            alive = cluster.alive([record])
            if alive is None:
                raise QuantbenchError(
                    f"submission {record.token} was begun, and the cluster cannot be asked now what became of it; "
                    "nothing was submitted. Try again in a moment"
                )
            ids = cluster.adopt(record, alive)
            record = dataclasses.replace(record, ids=ids or [], cancelled=ids is None)
            board.save_job(record)
        records.append(record)
    return records


def _submit(board: Board, cluster: Cluster, todo: Sequence[Work], threads: int) -> int:
    """Freeze and submit cells; how many jobs they are."""
    if not todo:
        return 0
    frozen = {one.frozen.key: one.frozen for one in todo}
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in todo:
        groups.setdefault(one.group, []).append(one.frozen.key)
    n_jobs = 0
    for jobs in cluster.split(list(groups.values())):
        record = JobRecord(
            token=board.new_token(),
            cluster=type(cluster).__name__.lower(),
            created=now(),
            host=socket.gethostname(),
            cells=jobs,
        )
        chunks = [_freeze(board, record.token, i, [frozen[key] for key in keys]) for i, keys in enumerate(jobs)]
        # The intent first: a command that is killed in between can be found out about by the name of its jobs.
        board.save_job(record)
        try:
            ids = cluster.submit(chunks, record.token, board.log_folder(record.token), threads)
        except QuantbenchError:
            board.save_job(dataclasses.replace(record, cancelled=True))
            raise
        board.save_job(dataclasses.replace(record, ids=ids))
        log.info("submitted %s: jobs %s", record.token, ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}")
        n_jobs += len(jobs)
    return n_jobs


def _freeze(board: Board, token: str, index: int, cells: list[FrozenCell]) -> Path:
    return board.save_chunk(
        Chunk(
            token=token,
            index=index,
            sweep=board.name,
            root=str(board.root.resolve()),
            cwd=str(Path.cwd()),
            path=[str(Path(entry).resolve()) for entry in sys.path],
            cells=cells,
        )
    )


def counts(views: Mapping[str, CellView]) -> str:
    """How many cells are in which state, in words."""
    found = Counter(view.state for view in views.values())
    return ", ".join(f"{n} {state}" for state, n in sorted(found.items()))
