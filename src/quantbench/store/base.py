"""What all of the store is built on: its folder, its locks, and how its records are read and kept from change."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.locks import acquire, file_lock
from quantbench.core.shared import is_there
from quantbench.store.json_record import JsonRecord, SchemaError, check_schema, differences
from quantbench.store.layout import Layout

log = logging.getLogger(__name__)

S = TypeVar("S", bound=JsonRecord)


class LockedFolder(Layout):
    """A store's folder. Nothing is created before something is locked or saved.

    Raises SchemaError if the folder holds results of another schema: a store is of one schema throughout, so that no
    command writes into one that it cannot read.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._locks: dict[str, FileLock] = {}
        for path in itertools.chain(root.glob("sweeps/*/manifest.json"), root.glob("runs/*/record.json")):
            if check_schema(path):  # one speaks for all
                break

    @contextlib.contextmanager
    def lock(self, run_id: str) -> Iterator[Path]:
        """Have the run to oneself: its folder is created, and other processes wait. Gives the folder.

        The same thread may take it again inside. What a killed process left half-written is removed first.
        Raises StoreError if the folder cannot be written, or its file system refuses locks.
        """
        folder = files.make_folder(self.run_dir(run_id))
        lock = self._locks.setdefault(run_id, file_lock(folder / ".lock"))
        try:
            acquire(lock, wait=False)
        except Timeout:
            log.warning("run %s is in use by another process: waiting for it to finish (%s)", run_id, lock.lock_file)
            acquire(lock, wait=True)
        try:
            if lock.lock_counter == 1:
                for leftover in folder.rglob(files.TEMPORARY):
                    leftover.unlink(missing_ok=True)
            yield folder
        finally:
            lock.release()


def load_record(kind: type[S], path: Path, remedy: str) -> S | None:
    """The record in a file, None if there is none; StoreError with `remedy` if it is damaged."""
    if not is_there(path):
        return None
    text = files.read_text(path, remedy)
    try:
        return kind.from_json(text, str(path))
    except SchemaError:
        raise
    except StoreError as error:
        raise StoreError(f"{error}. {remedy}") from error


def refuse_change(path: Path, old: JsonRecord, new: JsonRecord) -> None:
    """Raise StoreError if a finished record would be replaced by one that differs in more than time and environment."""
    changed = differences(old, new)
    if changed:
        raise StoreError(
            f"{path} is finished and is not overwritten by a different result (different: {', '.join(changed)}). "
            "If the stored one is wrong, delete it and run the same command again"
        )
