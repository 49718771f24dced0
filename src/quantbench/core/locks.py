"""Locks between processes of one machine, or of several that share the folder: `flock`, freed by a process's end.

Where a file system has none, two processes would do the same work at once; that is refused rather than worked around.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from quantbench.core.errors import StoreError
from quantbench.core.files import write_failure

PATIENCE_SECONDS = 60.0
"""How long a file system is asked that has no lock to give just now: NFS has none while its lock service starts."""
ASK_AGAIN_SECONDS = 1.0

UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
LOCAL_OPTIONS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
"""Options of an NFS or Lustre mount with which a lock is seen on the same machine only (nfs(5), mount.lustre(8))."""
MOUNTS = Path("/proc/self/mountinfo")


def file_lock(path: Path) -> FileLock:
    """A lock that is a file at `path`; the same thread may take it again inside."""
    return FileLock(path, fallback_to_soft=False)


def acquire(lock: FileLock, *, wait: bool) -> None:
    """Take a lock, at once or not at all unless `wait`.

    Raises filelock.Timeout if another process has it, StoreError where the file cannot be written or the file system
    refuses locks.
    """
    path = Path(lock.lock_file)
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            lock.acquire(timeout=-1 if wait else 0)
            return
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in UNSUPPORTED or (error.errno == errno.ENOLCK and time.monotonic() >= end):
                raise _refused(path, str(error)) from error
            if error.errno != errno.ENOLCK:
                raise write_failure(path, error) from error
            time.sleep(ASK_AGAIN_SECONDS)


def check_seen_by_others(folder: Path) -> None:
    """Raise StoreError if locks in a folder, or in the place where it will be, hold on this machine only."""
    kind, options = _mount(folder)
    local = sorted(LOCAL_OPTIONS & options)
    if local and (kind.startswith("nfs") or kind == "lustre"):
        raise _refused(folder, f"{kind} mounted with {local[0]}: other machines do not see a lock taken here")


def _refused(path: Path, why: str) -> StoreError:
    return StoreError(
        f"{path}: the file system refuses locks ({why}), without which two processes might do the same work at once. "
        "Have it mounted with locks (NFS: without nolock and local_lock, with its lock service running; Lustre: with "
        "the option flock), or use a folder on another file system"
    )


def _mount(folder: Path) -> tuple[str, set[str]]:
    """Type and options of the file system that a folder lies on; ("", {}) where the system does not say."""
    path = folder.resolve()
    found: tuple[int, str, set[str]] = (-1, "", set())
    for point, kind, options in _mounts():
        if path.is_relative_to(point) and len(point.parts) >= found[0]:
            found = (len(point.parts), kind, options)
    return found[1], found[2]


def _mounts() -> Iterator[tuple[Path, str, set[str]]]:
    """Mount point, type and options of each mounted file system, later ones lying on top (proc_pid_mountinfo(5))."""
    if not MOUNTS.exists():
        return
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        kind, _, options = after.split()
        yield Path(point), kind, set(options.split(","))
