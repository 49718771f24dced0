"""Submits what is not done yet of a sweep, and follows it to its end. Any number of commands may do so at once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from quantbench.core.progress import counted, duration
from quantbench.launch.cluster import Cluster
from quantbench.launch.overview import OPEN, CellView, Watch
from quantbench.launch.records import JobRecord
from quantbench.launch.state import SweepState
from quantbench.launch.submit import Work, submit, with_ids

log = logging.getLogger("quantbench")


def launch(
    sweep: SweepState,
    cluster: Cluster,
    work: Sequence[Work],
    finished: Callable[[], set[str]],
    *,
    threads: int,
    retry_failed: bool,
) -> Watch:
    """Submit the cells that are open. `finished` tells the keys whose results are in the store.

    Raises ConfigError, with nothing submitted, if the cluster refuses or cannot be asked; StoreError if its jobs cannot
    work together in the output folder.
    """
    cluster.check()
    cluster.check_folder(sweep.root)
    with sweep.submitting():
        records = with_ids(sweep, cluster)
        unique = {one.frozen.key: one for one in work}
        done = finished()
        left = [key for key in unique if key not in done]
        views = _settled(Watch(sweep, cluster, cluster.grace_seconds), left, records, cluster.poll_seconds)
        done = finished()  # again: what a cell has told by then is in the store
        open_now = {key for key, view in views.items() if view.state in OPEN and key not in done}
        skipped = {key for key, view in views.items() if view.state == "failed" and not retry_failed} - done
        todo = [one for key, one in unique.items() if key not in done and key not in open_now and key not in skipped]
        for one in todo:
            if views[one.frozen.key].state == "done":  # its results were removed since
                sweep.forget_cell(one.frozen.key)
        jobs = submit(sweep, cluster, todo, threads)
        log.info(
            "sweep %s: %s, %d finished, %d on their way, %d submitted in %s%s",
            sweep.name,
            counted(len(unique), "cell"),
            len(done & unique.keys()),
            len(open_now),
            len(todo),
            counted(jobs, "job"),
            f", {len(skipped)} failed before (retry_failed=false)" if skipped else "",
        )
    return Watch(sweep, cluster, cluster.grace_seconds)


def _settled(
    watch: Watch, keys: Sequence[str], records: Sequence[JobRecord], poll_seconds: float
) -> dict[str, CellView]:
    """The state of each cell, when it is certain which jobs are over: a queue that answers late must not make two."""
    views = watch.look(keys, records)
    if watch.doubtful:
        log.info(
            "%s: a job of theirs is not in the queue; looking for %s whether it comes up",
            counted(len(watch.doubtful), "cell"),
            duration(watch.grace),
        )
    while watch.doubtful:
        time.sleep(min(poll_seconds, watch.grace))
        views = watch.look(keys, records)
    return views


def follow(watch: Watch, work: Sequence[Work], done: set[str], poll_seconds: float) -> dict[str, CellView]:
    """Look at the cells until none is open, and say what changes. Ctrl-C leaves the jobs alone."""
    labels = {one.frozen.key: one.label for one in work}
    keys = [key for key in labels if key not in done]
    views: dict[str, CellView] = {}
    told: set[str] = set()
    started = time.monotonic()
    wait = min(1.0, poll_seconds)
    while True:
        views = watch.look(keys, watch.sweep.jobs())
        news = [key for key in keys if views[key].state not in OPEN and key not in told]
        for key in news:
            told.add(key)
            _tell(labels[key], views[key], len(told), len(keys), time.monotonic() - started)
        if len(told) == len(keys):
            return views
        time.sleep(wait)
        wait = min(poll_seconds, wait * 1.5)


def _tell(label: str, view: CellView, ready: int, total: int, passed: float) -> None:
    number = f"[{ready}/{total}]"
    left = f"; about {duration(passed / ready * (total - ready))} left" if ready < total else ""
    if view.state == "done":
        seconds = view.status.seconds if view.status is not None else None
        log.info("%s %s: done in %s%s", number, label, duration(seconds or 0.0), left)
    else:
        where = f" on {view.status.host}" if view.status is not None else ""
        log.error("%s %s: %s%s: %s%s", number, label, view.state, where, view.error or "never submitted", left)


def summary(views: Mapping[str, CellView]) -> str:
    """How many cells are in which state."""
    found = Counter(view.state for view in views.values())
    return ", ".join(f"{n} {state}" for state, n in sorted(found.items()))
