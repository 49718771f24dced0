"""The state of a sweep: files that the command, its jobs and `quantbench status` tell each other through.

    sweeps/<name>/state/cells/<key>.json     what became of a cell, written by the process that runs it
    sweeps/<name>/state/jobs/<token>.json    one submission: which cells are in which of its jobs, and their ids
    sweeps/<name>/state/jobs/<token>/<i>.json         the frozen cells of job i; it runs exactly these
    sweeps/<name>/state/jobs/<token>/<i>.starts.json  how far it was each time it started
    sweeps/<name>/state/locks/               one process at a time submits; one at a time runs a cell

A file is replaced as a whole, so that it can be read at any time, from any machine that shares the folder.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from quantbench.core import files
from quantbench.core.errors import StoreError
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
        return _load(CellStatus, self.folder / "cells" / f"{key}.json")

    def save_cell(self, status: CellStatus) -> None:
        """Tell what became of a cell."""
        self._write(self.folder / "cells" / f"{status.key}.json", status)

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Have a cell to oneself; whether it is. The operating system frees the claim of a process that dies."""
        lock = FileLock(self._made(self.folder / "locks") / f"{key}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise files.write_failure(Path(lock.lock_file), error) from error
        try:
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
        found = [_load(JobRecord, path) for path in (self.folder / "jobs").glob("*.json")]
        return sorted((job for job in found if job is not None), key=lambda job: (job.created, job.token))

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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}. Delete it: finished runs are kept and found") from error
    return kind.from_json(text, str(path))
