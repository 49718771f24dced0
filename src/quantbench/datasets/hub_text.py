"""Texts of the Hugging Face hub: one yaml each. Works from the local cache where the hub cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import field
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes
from quantbench.core.progress import say_once
from quantbench.datasets.documents import Documents
from quantbench.datasets.hub_open import UNVERIFIED, HubSplit
from quantbench.datasets.split import cut

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("quantbench")

Side = Literal["train", "test"]
TEXTS = {"string", "large_string"}


@component
class HubText:
    """A column of a data set that `datasets.load_dataset` can read; each row is one document.

    Where a row of the column is a list of texts, each of them is one.

    path           its id on the hub ("allenai/c4"), or a file format ("json", "parquet", "text") with data_files
    config         its configuration ("en"), if it has several
    data_files     the file of each side, where the data set is too large to be loaded whole; of a name with * or ? in
                   it, the first file of the repository that it stands for
    splits         the hub's name of each side's split. If both sides name the same split (and file), it is cut 4:1
                   by document (quantbench.datasets.split)
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
        say_once(f"loading text {self.name} ({self.path}, split {self.splits[side]})")
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
        counts = ", ".join(f"{len(one.documents):,} {one.split} documents" for one in sides)
        size = readable_bytes(sum(len(document.encode()) for one in sides for document in one.documents))
        revisions = " and ".join(dict.fromkeys(one.revision for one in sides))
        return f"{self.name}: {self.path} at {revisions}, {counts}, {size} of text, in the Hugging Face cache (HF_HOME)"

    @property
    def _one_split(self) -> bool:
        files = self.data_files or {}
        return self.splits.get("train") == self.splits.get("test") and files.get("train") == files.get("test")

    def _open(self, side: Side) -> tuple[Dataset, str]:
        """The split, and the revision it was found to be."""
        file = None if self.data_files is None else self.data_files[side]
        split, label = self.splits[side], f"text {self.name}"
        return HubSplit(label, self.path, self.config, split, file, self.revision, self.converted).open()

    def _column(self, dataset: Dataset, side: Side) -> Sequence[str]:
        label = f"text {self.name}: {self.path}, split {self.splits[side]}"
        if self.column not in dataset.column_names:
            raise DataError(
                f"{label} has no column {self.column!r}; its columns: {', '.join(dataset.column_names)} (set `column`)"
            )
        feature = dataset.features[self.column]
        several = isinstance(feature, list) or hasattr(feature, "feature")
        inner = (feature[0] if isinstance(feature, list) else feature.feature) if several else feature
        if (kind := getattr(inner, "dtype", None)) not in TEXTS:
            raise DataError(f"{label}: the column {self.column!r} holds {kind or 'nested values'}, not text")
        if not len(dataset):
            raise DataError(f"{label} is empty")
        if nulls := dataset.data.column(self.column).null_count:
            raise DataError(f"{label}: {nulls} rows have no text in the column {self.column!r}")
        if self.max_documents is not None:
            dataset = dataset.select(range(min(self.max_documents, len(dataset))))
        documents: Sequence[str] = dataset[self.column]
        return documents if not several else list(islice(chain.from_iterable(documents), self.max_documents))
