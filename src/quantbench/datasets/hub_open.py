"""Opening one split of a data set that `datasets` can read: from the hub, its cache, or named files."""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.core.errors import DataError
from quantbench.datasets.hub_access import Commit, explain, find_commit, find_file, first_match, from_cache_only, quiet

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("quantbench")

UNVERIFIED = "unverified"
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".txt": ("text", {}),
}
PACKED = {".gz", ".zst", ".bz2", ".xz"}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubSplit:
    """What is to be opened.

    label      what messages call the data set
    path       its id on the hub, or a file format ("json", "parquet", "csv", "text") with `file`
    config     its configuration, if it has several
    split      the hub's name of the split
    file       the one file to read, of a name with * or ? the first that it stands for; None: the whole configuration
    revision   commit, tag or branch; None: main
    converted  read the hub's own conversion to Parquet of a repository that is a loading script
    """

    label: str
    path: str
    config: str | None
    split: str
    file: str | None
    revision: str | None
    converted: bool

    def open(self) -> tuple[Dataset, str]:
        """The split, and the revision it was found to be.

        Raises DataError if neither hub nor cache has it (saying which of name, revision, access or network is at fault)
        or it cannot be read.
        """
        file = self.file
        if file is None and self.converted:
            file = f"{self.config or 'default'}/{self.split}/0000.parquet"
        if file is not None and file.endswith(".zst") and importlib.util.find_spec("zstandard") is None:
            raise DataError(f"{self.label}: .zst files need the package zstandard: pip install 'quantbench[zst]'")
        revision = "refs/convert/parquet" if self.converted else self.revision
        on_hub = _HUB_ID.fullmatch(self.path) is not None and not Path(self.path).exists()
        commit = find_commit(self.label, self.path, revision) if on_hub else Commit()
        if on_hub and file is not None and set(file) & set("*?"):
            file = first_match(self.label, self.path, file, revision, commit)
            log.info("  the file %s", file)
        if on_hub and file is not None:
            found = find_file(self.label, self.path, file, revision, commit)
            if found is not None:
                builder, options = _format(self.label, file)
                return self._load(builder, commit, {"data_files": {self.split: str(found.path)}, **options}), found.sha
        # Where the hub cannot be reached, a set that `datasets` has cached under the same arguments will do.
        given = None if self.file is None else {self.split: self.file}
        options = {"name": self.config, "data_files": given, "revision": commit.sha or revision}
        if not on_hub and self.file is not None and ".tsv" in self.file:
            options |= FORMATS[".tsv"][1]
        dataset = self._load(self.path, commit, options)
        return dataset, self._revision_of(dataset, commit) if on_hub else UNVERIFIED

    def _load(self, path: str, commit: Commit, options: dict[str, object]) -> Dataset:
        import datasets

        # Readers of many formats, and an HTTP library that is another one in other versions: hence `Exception`.
        try:
            with quiet(), from_cache_only(commit.unreachable is not None):
                return datasets.load_dataset(path, split=self.split, **options)
        except Exception as error:
            if "://" in (self.file or ""):
                raise self._address(error) from error
            raise explain(self.label, self.path, self.split, commit, error) from error

    def _address(self, error: Exception) -> DataError:
        """What to tell the user about a file that is named by its address."""
        text = " ".join(str(error).split())
        return DataError(
            f"{self.label}: {self.file} cannot be read: {type(error).__name__}: {text}. Where its host is out of "
            "reach: fetch the file elsewhere and name it in `files` of an option of yours (--config-dir), or "
            "choose other data"
        )

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
                f"{self.label}: commit {asked} of {self.path} was asked for, but only {found} could be loaded "
                f"(from the cache); set revision={found} to use it, or prepare the other one with network"
            )
        return found


def builder_of(label: str, file: str) -> str:
    """The format that `datasets` reads a file as, by its name. Raises DataError for an ending it does not know."""
    return _format(label, file)[0]


def _format(label: str, file: str) -> tuple[str, dict[str, object]]:
    """The reader of `datasets` for a file name, and its options; of "zip://inner::address" the inner name counts."""
    suffixes = [suffix for suffix in Path(file.partition("::")[0]).suffixes if suffix not in PACKED]
    if not suffixes or suffixes[-1] not in FORMATS:
        raise DataError(f"{label}: files {file!r}: expected a name ending in {', '.join(FORMATS)}")
    return FORMATS[suffixes[-1]]
