"""Where a sweep stands: every cell's state, from the sweep's state files and one question to the cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from quantbench.launch.cluster import Cluster, Job
from quantbench.launch.records import CellStatus, JobRecord, cell_key
from quantbench.launch.state import SweepState
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store

CellState = Literal["new", "queued", "running", "done", "failed", "interrupted", "lost", "cancelled"]

OPEN: tuple[CellState, ...] = ("queued", "running")
"""States in which a job will still say something."""
UNFINISHED: tuple[CellState, ...] = ("failed", "interrupted", "lost", "cancelled")


@dataclass(frozen=True)
class CellView:
    """A cell as it is seen now; job: its id on the cluster, "" for none."""

    key: str
    state: CellState
    status: CellStatus | None = None
    job: str = ""
    error: str | None = None

    @property
    def age(self) -> float | None:
        """Seconds since it started last, by the clocks of two machines: never negative, but off by their difference."""
        if self.status is None:
            return None
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.status.started)).total_seconds())


@dataclass
class Watch:
    """Looks at the cells of a sweep again and again; a cell that is finished is not looked at twice.

    final  what is known to change no more
    grace  seconds after its job has left the queue before a cell that has not ended counts as lost
    gone   since when a job has not been seen in the cluster's queue (monotonic seconds)
    doubtful  cells that count as open only because `grace` is not over
    """

    sweep: SweepState
    cluster: Cluster | None
    grace: float = 0.0
    final: dict[str, CellView] = field(default_factory=dict)
    gone: dict[Job, float] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)

    def look(self, keys: Iterable[str], records: Sequence[JobRecord]) -> dict[str, CellView]:
        """The state of each cell. Where the cluster cannot be asked, nothing is concluded from silence."""
        wanted = list(dict.fromkeys(keys))
        latest = _latest(records)
        open_keys = [key for key in wanted if key not in self.final]
        asked = self._concerned(records, set(open_keys))
        # The queue first: a job that is not there any more has told all it had to tell.
        alive = self.cluster.alive(asked) if self.cluster is not None and asked else {}
        self.doubtful.clear()
        self.sweep.refresh()
        files = {key: self.sweep.load_cell(key) for key in open_keys}
        self._note(asked, alive)
        for key in open_keys:
            view = self._view(key, files[key], latest.get(key), alive)
            if view.state not in OPEN and view.state != "new":
                self.final[key] = view
            files[key] = view.status
            self._current[key] = view
        return {key: self.final.get(key) or self._current[key] for key in wanted}

    def __post_init__(self) -> None:
        self._current: dict[str, CellView] = {}

    def _concerned(self, records: Sequence[JobRecord], keys: set[str]) -> list[JobRecord]:
        return [r for r in records if not r.cancelled and any(key in keys for cells in r.cells for key in cells)]

    def _note(self, records: Sequence[JobRecord], alive: dict[Job, str] | None) -> None:
        if alive is None:
            return
        for record in records:
            for index in range(len(record.cells)):
                job = (record.token, index)
                if job in alive:
                    self.gone.pop(job, None)
                else:
                    self.gone.setdefault(job, time.monotonic())

    def _view(
        self, key: str, status: CellStatus | None, record: JobRecord | None, alive: dict[Job, str] | None
    ) -> CellView:
        if record is None:
            return self._without_job(key, status)
        ours = status is not None and status.job.partition("/")[0] == record.token
        if status is not None and (status.state == "done" or (ours and status.state == "failed")):
            return CellView(key, "done" if status.state == "done" else "failed", status, error=status.error)
        if record.cancelled:
            return CellView(key, "cancelled", status, error="its job was cancelled")
        jobs = [(record.token, index) for index, cells in enumerate(record.cells) if key in cells]
        running = ours and status is not None and status.state == "running"
        if alive is None or any(job in alive for job in jobs):
            job_id = next((alive[job] for job in jobs if alive and job in alive), "")
            return CellView(key, "running" if running else "queued", status, job_id)
        if any(time.monotonic() - self.gone.get(job, 0.0) < self.grace for job in jobs):
            self.doubtful.add(key)
            return CellView(key, "running" if running else "queued", status)
        return CellView(key, "lost", status, error=self._why_lost(record, jobs[0][1], status if ours else None))

    def _without_job(self, key: str, status: CellStatus | None) -> CellView:
        """A cell that was run, if at all, in a command itself."""
        if status is None:
            return CellView(key, "new")
        if status.state in {"done", "failed"}:
            return CellView(key, "done" if status.state == "done" else "failed", status, error=status.error)
        with self.sweep.claim(key, wait=False) as free:
            if not free:
                return CellView(key, "running", status)
        if status.state == "interrupted":
            return CellView(key, "interrupted", status, error=f"ended by {status.error}; the same command goes on")
        return CellView(key, "lost", status, error=status.error or "the command that ran it ended")

    def _why_lost(self, record: JobRecord, index: int, status: CellStatus | None) -> str:
        job_id = record.ids[index] if index < len(record.ids) else "?"
        said = self.cluster.exit_reason(record, index) if self.cluster is not None else ""
        why = status.error if status is not None and status.error else "it was killed, or its machine went down"
        return (
            f"job {job_id} ended before the cell did: {said or why}; its output: {self.sweep.log_folder(record.token)}"
        )


def _latest(records: Sequence[JobRecord]) -> dict[str, JobRecord]:
    """Of each cell the submission that it was in last."""
    return {key: record for record in records for cells in record.cells for key in cells}


def key_of(entry: CellEntry) -> str:
    """The key in the state files of a manifest's cell."""
    tasks = {task: protocol for task, protocol in entry.tasks.items() if protocol is not None}
    return cell_key(entry.run_id or "", tasks)


def updated(manifest: Manifest, views: Mapping[str, CellView]) -> Manifest:
    """The manifest with what is known of its cells; what is open stays pending."""
    cells = []
    for entry in manifest.cells:
        view = views.get(key_of(entry))
        if view is not None and view.state == "done":
            entry = dataclasses.replace(entry, status="done", error=None)
        elif view is not None and view.state in UNFINISHED:
            entry = dataclasses.replace(entry, status="failed", error=view.error or view.state)
        cells.append(entry)
    return dataclasses.replace(manifest, cells=cells)


def is_done(store: Store, entry: CellEntry) -> bool:
    """Whether all results of a cell, and of its full-precision run, are in the store."""
    return store.is_done(entry)


def refreshed(manifest: Manifest, store: Store) -> Manifest:
    """The manifest with what the store and the state files say; the cluster is not asked."""
    sweep = SweepState(store.root, manifest.name)
    cells = []
    for entry in manifest.cells:
        known = None if is_done(store, entry) else sweep.load_cell(key_of(entry))
        if is_done(store, entry):
            entry = dataclasses.replace(entry, status="done", error=None)
        elif known is not None and known.state == "failed":
            entry = dataclasses.replace(entry, status="failed", error=known.error)
        cells.append(entry)
    return dataclasses.replace(manifest, cells=cells)
