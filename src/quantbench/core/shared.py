"""Files that other machines write as well: what NFS and its like make of looking up, reading and renaming.

A client remembers for up to a minute which names a folder has, so that a file made elsewhere may seem missing; listing
the folder asks the server again (nfs(5), "Directory entry caching" and "Close-to-open cache consistency"). A file that
is replaced elsewhere while it is read is stale (ESTALE). A rename whose answer was lost is asked for twice and then
fails although it was done (rename(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

STALE_TRIES = 5
"""How often a file is opened that is replaced again and again while it is read."""


def read_text(path: Path) -> str:
    """The UTF-8 text of a file that may be replaced meanwhile. Raises OSError as `Path.read_text`."""
    for _ in range(STALE_TRIES - 1):
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_text(encoding="utf-8")


def relist(folder: Path) -> None:
    """Have this machine learn which files a folder has by now; nothing if there is no such folder."""
    if is_there(folder):
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as names:
            for _ in names:
                pass


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder, one that another machine made a moment ago included."""
    if path.exists():
        return True
    if path.parent == path or not is_there(path.parent):
        return False
    relist(path.parent)
    return path.exists()


def appears(path: Path, seconds: float) -> bool:
    """Whether a file is there now or within so many seconds."""
    end = time.monotonic() + seconds
    while not is_there(path):
        if time.monotonic() >= end:
            return False
        time.sleep(min(1.0, seconds / 10))
    return True


def rename(source: Path, target: Path, inode: int) -> None:
    """Rename a file, whose inode number is given, over another one. Raises OSError where it was not done."""
    try:
        source.replace(target)
    except FileNotFoundError:
        if not is_there(target) or target.stat().st_ino != inode:
            raise
