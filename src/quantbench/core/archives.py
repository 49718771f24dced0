"""Members of a wheel or source archive: chosen by name, checked to stay inside their folder, written with a record."""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TypedDict

from quantbench.core.errors import DataError
from quantbench.core.hashing import file_sha256


class Member(TypedDict):
    """What is on record of an unpacked file."""

    bytes: int
    sha256: str


def extract(path: Path, patterns: Sequence[str], folder: Path, label: str) -> dict[str, Member]:
    """Write the members that the patterns mean below `folder`; the record of each by its name.

    patterns  names, in which * also stands for slashes
    label     what the archive is called in messages
    Raises DataError for a damaged archive, a pattern without a member, and a member that would lie outside of `folder`
    or is no plain file.
    """
    recorded: dict[str, Member] = {}
    with _opened(path, label) as archive:
        for name in _select(archive.files(), patterns, label):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            recorded[name] = {"bytes": target.stat().st_size, "sha256": file_sha256(target)}
    return recorded


def _select(plain: dict[str, bool], patterns: Sequence[str], label: str) -> list[str]:
    """Names that the patterns mean, all of them safe. `plain`: each member, and whether it is a plain file."""
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in plain if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise DataError(f"{label} holds no file {pattern!r}")
        chosen |= found
    for name in chosen:
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
        if outside or not plain[name]:
            raise DataError(f"{label}: refused to unpack {name!r}, which would lie outside of its folder or is a link")
    return sorted(chosen)


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def files(self) -> dict[str, bool]:
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        return {info.filename: not stat.S_ISLNK(info.external_attr >> 16) for info in infos}

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def files(self) -> dict[str, bool]:
        return {info.name: info.isfile() for info in self._archive.getmembers() if not info.isdir()}

    def open(self, name: str) -> IO[bytes]:
        file = self._archive.extractfile(name)
        assert file is not None
        return file


@contextmanager
def _opened(path: Path, label: str) -> Iterator[_Zip | _Tar]:
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield _Tar(tar)
        else:
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{label}: {path.name} is damaged: {error}") from error
