"""Atomic writes: a file is the whole new version or the whole old one, and a failed write leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import humanize
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from quantbench.core import shared
from quantbench.core.errors import StoreError

TEMPORARY = ".*.tmp"
"""Pattern of the temporary files of `replacing`: a killed process may leave one."""

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_failure(path: Path, error: Exception) -> StoreError:
    """What to tell the user when `path` cannot be written: why, how much space is left, and that work is not lost."""
    code = getattr(error, "errno", None)
    if code is None and (found := re.search(r"\(os error (\d+)\)", str(error))):  # as safetensors words it
        code = int(found[1])
    hint = "remove that cause"
    if code in NO_SPACE:
        hint = "free some space (or raise the quota or file-size limit)"
    elif code in NOT_ALLOWED:
        hint = "make the folder writable or choose another output folder"
    return StoreError(
        f"cannot write {path}: {error} ({readable_bytes(_free_bytes(path))} free on that file system). "
        f"Everything finished before is kept: {hint}, then run the same command again to continue."
    )


def _free_bytes(path: Path) -> int:
    for folder in path.absolute().parents:
        with contextlib.suppress(OSError):  # a parent that is missing or closed to us: ask the next one up
            return shutil.disk_usage(folder).free
    return 0


def readable_bytes(count: int) -> str:
    """A byte count in the largest binary unit that keeps it at least 1: "3.2 MiB"."""
    return humanize.naturalsize(count, binary=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the body has written it, it is synced to disk and takes the place of `path`.

    If anything fails or interrupts, `path` is untouched and the temporary file is removed. Raises StoreError where the
    operating system refuses (full disk, quota, permission).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
            inode = os.fstat(written.fileno()).st_ino
        shared.rename(temporary, path, inode)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # where we may not look or write, nothing was created either
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Create the folder and its parents if they are missing; raises StoreError if that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return path


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text atomically; bytes of a file's name that are no UTF-8 are written as \udcXX."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, data: Any) -> None:
    """Write plain values as JSON, atomically. NaN and infinity are not JSON: ValueError."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame, compression: Literal["snappy", "zstd"] = "snappy") -> None:
    """Write a frame as Parquet (without its index), atomically."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False, compression=compression)


def write_array(path: Path, array: NDArray[np.float64]) -> None:
    """Write an array of numbers as .npy, atomically."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path, remedy: str) -> NDArray[np.float64]:
    """The float64 array in a .npy file; StoreError with `remedy` if it is missing, damaged or of another type."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"cannot read {path}: {error}. {remedy}") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.float64:
        raise StoreError(f"cannot read {path}: it holds no float64 numbers. {remedy}")
    return found


def read_text(path: Path, remedy: str) -> str:
    """The UTF-8 text of a file; StoreError with `remedy` (what the user can do) if it cannot be read."""
    try:
        return shared.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}. {remedy}") from error


def read_json(path: Path, remedy: str) -> Any:
    """The plain values in a JSON file; StoreError with `remedy` if it is missing, or no JSON that can be read."""
    text = read_text(path, remedy)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # beside what is no JSON: numbers too long, nesting too deep
        raise StoreError(f"{path} is damaged or truncated: {error}. {remedy}") from error


def read_parquet(path: Path, remedy: str) -> pd.DataFrame:
    """The frame in a Parquet file; StoreError with `remedy` if it is missing, truncated or not Parquet."""
    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error}. {remedy}") from error
