"""Rows of the Hugging Face hub: a list of places that hold the data set, tried in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.progress import say_once
from quantbench.datasets.hub_open import UNVERIFIED, HubSplit
from quantbench.datasets.rows import Row, Rows, cut_rows, make_rows


def named(row: Row, features: Any) -> Row:
    """A row in which numbers of named classes, and lists of them, are the classes' names."""
    return {column: _name(value, features[column]) for column, value in row.items()}


def _name(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [_name(one, getattr(feature, "feature", None)) for one in value]
    names = getattr(feature, "names", None)
    return names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else value


@component
class HubPlace:
    """One place where a data set lies.

    path        its id on the hub, or a builder ("json", "csv", "parquet") whose `data_files` are URLs
    config      its configuration, if it has several
    data_files  the file of each of our splits; null: whatever the repository's own card says
    splits      the place's name for each of our splits; "a+b" joins two
    revision    commit, tag or branch; null: main
    converted   true for a repository that is a loading script: the hub's own conversion to Parquet is read instead
    """

    path: Annotated[str, Field(min_length=1)]
    config: str | None = None
    data_files: dict[str, str] | None = None
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    revision: str | None = None
    converted: bool = False

    def wanted(self, label: str, split: str) -> HubSplit:
        """What is to be opened for one of our splits. Raises DataError if this place has not got it."""
        for option, given in (("splits", self.splits), ("data_files", self.data_files)):
            if given is not None and split not in given:
                raise DataError(
                    f"{label}: {self.path} has no {split!r} split here (`{option}` names {', '.join(given)})"
                )
        file = None if self.data_files is None else self.data_files[split]
        return HubSplit(label, self.path, self.config, self.splits[split], file, self.revision, self.converted)

    @property
    def is_whole(self) -> bool:
        """Whether our train and test splits are one there, so that it must be cut."""
        files = self.data_files or {}
        both = "train" in self.splits and self.splits["train"] == self.splits.get("test")
        return both and files.get("train") == files.get("test")


@component
class HubRows:
    """Rows that `datasets.load_dataset` can read.

    places    where the data set lies: the first that can be read is used, and the notes say which one and why not
              another. If both sides are one split there, it is cut 4:1 (quantbench.datasets.rows.cut_rows)
    id        a column of unique ids; null: rows are numbered
    group     for a cut: rows of equal values in this column lie on one side
    class_names  true: values of columns whose type names its classes become those names
    max_rows  of a larger split that many rows are used, evenly spaced; null: all
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    family: Annotated[str, Field(min_length=1)]
    places: Annotated[tuple[HubPlace, ...], Field(min_length=1)]
    class_names: bool = False
    id: str | None = None
    group: str | None = None
    max_rows: Annotated[int, Field(ge=1)] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def load(self, split: str) -> Rows:
        """See RowSource. Raises DataError with the reason of every place if none can be read."""
        failed: list[str] = []
        for place in self.places:
            try:
                return self._load(place, split, failed)
            except DataError as error:
                failed.append(str(error))
        raise DataError("\n  ".join(dict.fromkeys(failed)))

    def prepare(self) -> str:
        """Download every split."""
        names = list(dict.fromkeys(name for place in self.places for name in place.splits))
        sides = [self.load(name) for name in names]
        counts = ", ".join(f"{len(side.rows)} {side.split} rows" for side in sides)
        return f"{self.name}: {sides[0].notes[0]} {sides[0].revision}, {counts}, in the Hugging Face cache (HF_HOME)"

    def _load(self, place: HubPlace, split: str, failed: Sequence[str]) -> Rows:
        wanted = place.wanted(f"data {self.name}", split)
        say_once(f"loading data {self.name} ({place.path}, split {wanted.split})")
        dataset, revision = wanted.open()
        notes = [f"from {place.path}", *(f"not read: {reason}" for reason in failed)]
        if revision == UNVERIFIED:
            notes.append("the revision is not known: it was read from a cache or from files")
        indices: Sequence[int] = range(len(dataset))
        whole = place.is_whole
        if self.max_rows is not None and not whole and len(dataset) > self.max_rows:
            indices = [i * len(dataset) // self.max_rows for i in range(self.max_rows)]
            notes.append(f"{self.max_rows} of {len(dataset)} rows, evenly spaced")
            dataset = dataset.select(indices)
        rows: list[Row] = dataset.to_list()
        if self.class_names:
            rows = [named(row, dataset.features) for row in rows]
        found = make_rows(self.name, split, rows, self.id, revision, notes)
        if self.id is None:
            found = Rows(self.name, split, rows, [str(i) for i in indices], revision, found.notes)
        return cut_rows(found, split, self.group) if whole else found
