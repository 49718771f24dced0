"""Texts of the Hugging Face hub: one yaml each. Works from the local cache where the hub cannot be reached."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from quantbench.component import component
from quantbench.errors import DataError
from quantbench.texts.base import Documents
from quantbench.texts.hub_access import Commit, explain, find_commit, find_file, from_cache_only, quiet
from quantbench.texts.split import cut

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("quantbench")

UNVERIFIED = "unverified"
FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}
PACKED = {".gz", ".zst", ".bz2", ".xz"}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Side = Literal["train", "test"]


@component
class HubText:
    """A column of a data set that `datasets.load_dataset` can read; each row is one document.

    path           its id on the hub ("allenai/c4"), or a file format ("json", "parquet", "text") with data_files
    config         its configuration ("en"), if it has several
    data_files     the file of each side, where the data set is too large to be loaded whole
    splits         the hub's name of each side's split. If both sides name the same split (and file), it is cut 4:1
                   by document (quantbench.texts.split)
    revision       commit, tag or branch; None: main. Without network the cache decides, see Documents.revision
    converted      True for a repository that is a loading script, which cannot be run: the first part of the hub's own
                   conversion to Parquet is read instead, from the branch refs/convert/parquet
    max_documents  use only the first rows of a split
    """

    name: Annotated[str, Field(min_length=1)]
    family: str = "lm"
    path: Annotated[str, Field(min_length=1)]
    config: str | None = None
    data_files: dict[Side, str] | None = None
    splits: dict[Side, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    column: Annotated[str, Field(min_length=1)] = "text"
    revision: str | None = None
    converted: bool = False
    joiner: str = "\n\n"
    max_documents: Annotated[int, Field(ge=1)] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def load(self, split: str) -> Documents:
        """One side.

        Raises DataError if neither hub nor cache has it (saying which of name, revision, access or network is at fault)
        and if it has no such split or column, is empty, or cannot be read.
        """
        side: Side = "test" if split == "test" else "train"
        for option, given in (("splits", self.splits), ("data_files", self.data_files)):
            if given is not None and side not in given:
                raise DataError(f"text {self.name}: {option} names nothing for {side!r}")
        log.info("loading text %s (%s, split %s)", self.name, self.path, self.splits[side])
        dataset, revision = self._open(side)
        documents = self._column(dataset, side)
        notes: tuple[str, ...] = ()
        if revision == UNVERIFIED:
            notes = ("the revision is not known: it was read from a cache or from files",)
        if self._one_split:
            documents = cut(list(documents), self.name)[side]
            notes += (f"cut 4:1 by document from the split {self.splits[side]}",)
        return Documents(self.name, side, documents, revision, self.joiner, notes)

    def prepare(self) -> str:
        """Download both sides."""
        sides = [self.load(side) for side in self.splits]
        counts = ", ".join(f"{len(side.documents)} {side.split} documents" for side in sides)
        return f"{self.name}: {self.path} {sides[0].revision}, {counts}, in the Hugging Face cache (HF_HOME)"

    @property
    def _one_split(self) -> bool:
        files = self.data_files or {}
        return self.splits.get("train") == self.splits.get("test") and files.get("train") == files.get("test")

    def _file(self, side: Side) -> str | None:
        """The one file of the repository to read; None: the whole configuration."""
        if self.data_files is not None:
            return self.data_files[side]
        return f"{self.config or 'default'}/{self.splits[side]}/0000.parquet" if self.converted else None

    def _open(self, side: Side) -> tuple[Dataset, str]:
        """The split, and the revision it was found to be."""
        file = self._file(side)
        if file is not None and file.endswith(".zst") and importlib.util.find_spec("zstandard") is None:
            raise DataError(f"text {self.name}: .zst files need the package zstandard: pip install 'quantbench[zst]'")
        split, revision = self.splits[side], "refs/convert/parquet" if self.converted else self.revision
        on_hub = _HUB_ID.fullmatch(self.path) is not None and not Path(self.path).exists()
        commit = find_commit(self.name, self.path, revision) if on_hub else Commit()
        if on_hub and file is not None:
            found = find_file(self.name, self.path, file, revision, commit)
            if found is not None:
                options = {"data_files": {split: str(found.path)}}
                return self._load(_format(self.name, file), split, commit, options), found.sha
        # Where the hub cannot be reached, a set that `datasets` has cached under the same arguments will do.
        given = {split: self.data_files[side]} if self.data_files is not None else None
        dataset = self._load(
            self.path, split, commit, {"name": self.config, "data_files": given, "revision": commit.sha or revision}
        )
        return dataset, self._revision_of(dataset, commit) if on_hub else UNVERIFIED

    def _load(self, path: str, split: str, commit: Commit, options: dict[str, Any]) -> Dataset:
        import datasets

        # Readers of many formats, and an HTTP library that is another one in other versions: hence `Exception`.
        try:
            with quiet(), from_cache_only(commit.unreachable is not None):
                return datasets.load_dataset(path, split=split, **options)
        except Exception as error:
            raise explain(self.name, self.path, split, commit, error) from error

    def _revision_of(self, dataset: Dataset, commit: Commit) -> str:
        """The commit that the cache folder of the loaded files is named by, or UNVERIFIED.

        Raises DataError if a commit was asked for and another one was found: `datasets` takes what the cache has.
        """
        files = dataset.cache_files
        found = Path(files[0]["filename"]).parent.name if files else ""
        if not _COMMIT.fullmatch(found):
            return UNVERIFIED
        asked = self.revision if self.revision and _COMMIT.fullmatch(self.revision) else commit.sha
        if asked and asked != found:
            raise DataError(
                f"text {self.name}: commit {asked} of {self.path} was asked for, but only {found} could be loaded "
                f"(from the cache); set revision={found} to use it, or prepare the other one with network"
            )
        return found

    def _column(self, dataset: Dataset, side: Side) -> Sequence[str]:
        label = f"text {self.name}: {self.path}, split {self.splits[side]}"
        if self.column not in dataset.column_names:
            raise DataError(
                f"{label} has no column {self.column!r}; its columns: {', '.join(dataset.column_names)} (set `column`)"
            )
        if (kind := getattr(dataset.features[self.column], "dtype", None)) not in {"string", "large_string"}:
            raise DataError(f"{label}: the column {self.column!r} holds {kind or 'nested values'}, not text")
        if not len(dataset):
            raise DataError(f"{label} is empty")
        if nulls := dataset.data.column(self.column).null_count:
            raise DataError(f"{label}: {nulls} rows have no text in the column {self.column!r}")
        if self.max_documents is not None:
            dataset = dataset.select(range(min(self.max_documents, len(dataset))))
        documents: Sequence[str] = dataset[self.column]
        return documents


def _format(name: str, file: str) -> str:
    """The reader of `datasets` for a file name."""
    suffixes = [suffix for suffix in Path(file).suffixes if suffix not in PACKED]
    if not suffixes or suffixes[-1] not in FORMATS:
        raise DataError(f"text {name}: data_files {file!r}: expected a name ending in {', '.join(FORMATS)}")
    return FORMATS[suffixes[-1]]
