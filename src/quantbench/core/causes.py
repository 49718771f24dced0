"""What lies behind a library's error: the system's own refusal of a file, told from all else."""

from __future__ import annotations

import errno
from collections.abc import Iterator

REFUSALS = {
    errno.EACCES: "may not be read or written by this user",
    errno.EPERM: "may not be read or written by this user",
    errno.EROFS: "lies on a file system that cannot be written to",
    errno.ENOSPC: "lies on a disk that is full",
    errno.EDQUOT: "lies where this user's quota is used up",
}
"""Numbers of the system's errors that are about a file, not about what it holds."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, the last first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def refused_file(error: BaseException) -> str | None:
    """In words, the file or folder that the system refused, if that is why; a refused connection names no file."""
    for one in causes(error):
        if isinstance(one, OSError) and one.errno in REFUSALS and one.filename is not None:
            return f"{one.filename} {REFUSALS[one.errno]} ({type(one).__name__}: {one.strerror})"
    return None
