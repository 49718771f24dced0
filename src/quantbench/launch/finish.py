"""Submits what is open of a sweep, follows it to its end, and prints the tables."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from quantbench.core.errors import EXIT_FAILED
from quantbench.launch.cluster import Cluster
from quantbench.launch.driver import follow, launch, summary
from quantbench.launch.overview import is_done, key_of, refreshed, updated
from quantbench.launch.state import SweepState
from quantbench.launch.submit import Work
from quantbench.report.report import report
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

log = logging.getLogger("quantbench")


def finish(
    store: Store, manifest: Manifest, cluster: Cluster, work: Sequence[Work], *, detach: bool | None = None
) -> None:
    """Submit what is open, and unless detached follow it to the end and print the tables."""
    settings = work[0].settings
    sweep = SweepState(store.root, manifest.name)
    threads = max(one.settings.threads for one in work)

    def finished() -> set[str]:
        return {key_of(entry) for entry in manifest.cells if is_done(store, entry)}

    watch = launch(sweep, cluster, work, finished, threads=threads, retry_failed=settings.retry_failed)
    how = f"quantbench status {sweep.name}; quantbench cancel {sweep.name}"
    if settings.detach if detach is None else detach:
        log.info("detached. The same command without detach=true follows; %s", how)
        return
    try:
        views = follow(watch, work, finished(), cluster.poll_seconds)
    except KeyboardInterrupt:
        log.warning("the jobs run on: the same command follows them again; %s", how)
        raise
    log.info("sweep %s: %s", sweep.name, summary(views) or "everything was done before")
    manifest = updated(refreshed(manifest, store), views)
    store.save_manifest(manifest)
    report_sweep(store, manifest, page=settings.report)


def report_sweep(store: Store, manifest: Manifest, *, page: bool) -> None:
    """Print the tables of a sweep, and write its report. Ends the process with status 1 if a cell failed."""
    report(store, [manifest], page=page)
    failed = [entry for entry in manifest.cells if entry.status == "failed"]
    if failed:
        log.error("%d of %d cells failed; the same command tries them again.", len(failed), len(manifest.cells))
        sys.exit(EXIT_FAILED)
