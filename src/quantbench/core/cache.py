"""The cache folder, and the lock of what is made in it once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from platformdirs import user_cache_path

from quantbench.core.files import make_folder
from quantbench.core.locks import acquire, file_lock

log = logging.getLogger("quantbench")


def cache_dir() -> Path:
    """Where downloaded and derived files are kept: QUANTBENCH_CACHE, else the platform's place for caches."""
    chosen = os.environ.get("QUANTBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("quantbench")


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, a file or folder in the cache, saying so if another process has it.

    Raises StoreError if the folder of the lock cannot be written, or its file system refuses locks.
    """
    lock = file_lock(make_folder(path.parent) / f".{path.name}.lock")
    try:
        acquire(lock, wait=False)
    except Timeout:
        log.info("waiting for another process that makes %s", path)
        acquire(lock, wait=True)
    try:
        yield
    finally:
        lock.release()
