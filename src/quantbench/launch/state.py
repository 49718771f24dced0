"""The state of a sweep: files that the command, its jobs and `quantbench status` tell each other through.

    sweeps/<name>/state/cells/<key>.json     what became of a cell, written by the process that runs it
    sweeps/<name>/state/jobs/<token>.json    one submission: which cells are in which of its jobs, and their ids
    sweeps/<name>/state/jobs/<token>/<i>.json         the frozen cells of job i; it runs exactly these
    sweeps/<name>/state/jobs/<token>/<i>.starts.json  how far it was each time it started
    sweeps/<name>/state/locks/               one process at a time submits; one at a time runs a cell

A file is replaced as a whole, so that it can be read at any time, from any machine that shares the folder. No decision
rests on two machines' clocks.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from quantbench.core import files, shared
from quantbench.core.errors import StoreError
from quantbench.core.locks import acquire, file_lock
from quantbench.launch.records import CellStatus, Chunk, JobRecord
from quantbench.store.json_record import JsonRecord


class SweepState:
    """Reads and writes the state of the sweep `name` under `root`. Nothing is created before something is written."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.folder = root / "sweeps" / name / "state"
        self._folders: set[Path] = set()

    def new_token(self) -> str:
        """A name for a submission that no other has, short enough for `squeue`."""
        return f"qb-{re.sub('[^A-Za-z0-9]+', '-', self.name)[:20].strip('-')}-{uuid.uuid4().hex[:8]}"

    # Cells

    def load_cell(self, key: str) -> CellStatus | None:
        """What became of a cell, None if nothing is known."""
        return _load(CellStatus, self._cell_path(key))

    def save_cell(self, status: CellStatus) -> None:
        """Tell what became of a cell."""
        self._write(self._cell_path(status.key), status)

    def forget_cell(self, key: str) -> None:
        """Remove what is known of a cell: its results are gone, so that it is to be run as if for the first time."""
        try:
            self._cell_path(key).unlink(missing_ok=True)
        except OSError as error:
            raise files.write_failure(self._cell_path(key), error) from error

    def refresh(self) -> None:
        """Have this machine learn which cells other machines have told about."""
        shared.relist(self.folder / "cells")

    def _cell_path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def lock_path(self, key: str) -> Path:
        """The lock of a cell."""
        return self.folder / "locks" / f"{key}.lock"

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Have a cell to oneself; whether it is. The operating system frees the claim of a process that dies.

        That of a machine that goes down may stay for as long as the file server waits for it. Raises StoreError where
        the file system refuses locks.
        """
        self._made(self.folder / "locks")
        lock = file_lock(self.lock_path(key))
        try:
            acquire(lock, wait=wait)
        except Timeout:
            yield False
            return
        try:
            self.refresh()  # what the one before did must be seen now
            yield True
        finally:
            lock.release()

    # Jobs

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        """One process at a time looks what is to be done and submits it."""
        with self.claim("submit", wait=True):
            yield

    def jobs(self) -> list[JobRecord]:
        """All submissions, oldest first."""
        shared.relist(self.folder / "jobs")
        found = [_load(JobRecord, path) for path in (self.folder / "jobs").glob("*.json")]
        return sorted((job for job in found if job is not None), key=lambda job: (job.number, job.created, job.token))

    def load_job(self, token: str) -> JobRecord | None:
        """A submission."""
        return _load(JobRecord, self.folder / "jobs" / f"{token}.json")

    def save_job(self, job: JobRecord) -> None:
        """Store a submission, in place of what was known of it."""
        self._write(self.folder / "jobs" / f"{job.token}.json", job)

    def chunk_path(self, token: str, index: int) -> Path:
        """Where the cells of a job are frozen."""
        return self.folder / "jobs" / token / f"{index}.json"

    def save_chunk(self, chunk: Chunk) -> Path:
        """Freeze the cells of a job; returns the path."""
        path = self.chunk_path(chunk.token, chunk.index)
        self._write(path, chunk)
        return path

    def load_chunk(self, token: str, index: int) -> Chunk | None:
        """The frozen cells of a job."""
        return _load(Chunk, self.chunk_path(token, index))

    def log_folder(self, token: str) -> Path:
        """Where the output of a submission's jobs goes."""
        return self.folder / "jobs" / token / "log"

    def _made(self, folder: Path) -> Path:
        if folder not in self._folders:
            self._folders.add(files.make_folder(folder))
        return folder

    def _write(self, path: Path, record: JsonRecord) -> None:
        self._made(path.parent)
        files.write_text(path, record.to_json())


S = TypeVar("S", bound=JsonRecord)


def _load(kind: type[S], path: Path) -> S | None:
    try:
        text = shared.read_text(path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}. Delete it: finished runs are kept and found") from error
    return kind.from_json(text, str(path))
