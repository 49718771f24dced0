"""Hashes of files, folders and plain values: all sha256."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from quantbench.core.errors import ConfigError


def digest(value: Any, length: int = 16) -> str:
    """The first hex digits of the sha256 of a plain value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def hash_path(path: Path) -> str:
    """sha256 of a file, or of all files of a folder with their relative names; ConfigError if nothing lies there."""
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    lines = [f"{f.relative_to(path)} {file_sha256(f)}" for f in sorted(path.rglob("*")) if f.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def code_sha256(folder: Path) -> str:
    """sha256 of all files of a package's folder with their relative names, compiled ones left out; once a process."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return hashlib.sha256("\n".join(f"{f.relative_to(folder)} {file_sha256(f)}" for f in files).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file; read again only if its size or time of change is new."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
