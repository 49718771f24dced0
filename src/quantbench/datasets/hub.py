"""Rows of the Hugging Face hub, or of files that are named by address; from the cache where neither is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.progress import say_once
from quantbench.datasets.rows import Rows, make_ids
from quantbench.datasets.table import ArrowTable

ADDRESS = "://"


@component
class HubSource:
    """A data set that `datasets.load_dataset` can read.

    hub        its id ("allenai/c4"), a configuration behind a colon ("allenai/c4:en"), a commit, tag or branch behind
               an at sign; several: tried in order, and the notes say which one answered and why not another
    files      the file of each side, or of both, where the data set is too large to be loaded whole; of a name with *
               or ? in it, the first file of the repository that it stands for. Addresses ("https://...") are a place of
               their own, tried after `hub`
    train, test, shots  the hub's name of each side's split; "a+b" joins two
    whole      the one split of a data set that has no other: it is cut 4:1 (quantbench.datasets.split), as it is where
               train and test are the same split (and file)
    revision   in place of that behind the at sign. Without network the cache decides, see Rows.revision
    converted  True for a repository that is a loading script, which cannot be run: the first part of the hub's own
               conversion to Parquet is read instead, from the branch refs/convert/parquet
    id         a column of unique ids; None: rows are numbered
    class_names    values of columns whose type names its classes become those names
    max_documents  use only the first rows of a split
    max_rows   of a larger split that is not cut, that many rows, evenly spaced
    """

    verbatim: ClassVar[bool] = True

    hub: tuple[Annotated[str, Field(pattern=r"^[^:@\s]+(:[^:@\s]+)?(@[^@\s]+)?$")], ...] = ()
    files: dict[str, str] | str | None = None
    train: str | None = "train"
    test: str | None = "test"
    shots: str | None = None
    whole: str | None = None
    revision: str | None = None
    converted: bool = False
    id: str | None = None
    group: str | None = None
    group_until: str | None = None
    class_names: bool = False
    max_documents: Annotated[int, Field(ge=1)] | None = None
    max_rows: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        if not self.hub and not self._addressed:
            raise ConfigError("hub: a data set of the hub needs its id, or `files` with addresses")

    @property
    def location(self) -> str:
        """The hub is the same for everybody."""
        return ""

    def check_files(self) -> None:
        """Nothing of the user's is read."""

    def check_reachable(self, name: str, side: str) -> None:
        """Ask the hub, and where it cannot be reached look whether its cache knows the data set."""
        from quantbench.datasets.hub_access import check_reachable

        failed: list[str] = []
        for path, file in self._places(name, side):
            repository, _, revision = _split(path)
            if file is not None and ADDRESS in file:  # its host is asked when it is read
                return
            try:
                check_reachable(f"data {name}", repository, self.revision or revision, self._splits[side] or side)
            except DataError as error:
                failed.append(str(error))
            else:
                return
        raise DataError("\n  ".join(dict.fromkeys(failed)))

    def cache_key(self) -> None:
        """`datasets` keeps a cache of its own."""

    def sides(self) -> tuple[str, ...]:
        """Those that have a split."""
        return tuple(side for side, split in self._splits.items() if split is not None)

    def read(self, name: str, side: str) -> Rows:
        """See Source. Raises DataError with the reason of every place if none can be read."""
        split = self._splits.get(side)
        if split is None:
            raise DataError(f"data {name}: no split {side!r} here; it has {', '.join(self.sides())}")
        failed: list[str] = []
        for path, file in self._places(name, side):
            try:
                return self._read(name, side, path, split, file, failed)
            except DataError as error:
                failed.append(str(error))
        raise DataError("\n  ".join(dict.fromkeys(failed)))

    def fetch(self, name: str) -> str:
        """Download every side."""
        found = [self.read(name, side) for side in self.sides()]
        counts = ", ".join(
            dict.fromkeys(
                f"{len(one.table):,} {'rows to be cut' if one.whole else f'{one.split} rows'}" for one in found
            )
        )
        revisions = " and ".join(dict.fromkeys(one.revision for one in found))
        return (
            f"{found[0].notes[0].removeprefix('from ')} at {revisions}, {counts}, in the Hugging Face cache (HF_HOME)"
        )

    @property
    def _splits(self) -> Mapping[str, str | None]:
        return {"train": self.whole or self.train, "test": self.whole or self.test, "shots": self.shots}

    @property
    def _files(self) -> Mapping[str, str]:
        if isinstance(self.files, str):
            return dict.fromkeys(("train", "test"), self.files)
        return self.files or {}

    @property
    def _addressed(self) -> bool:
        return any(ADDRESS in file for file in self._files.values())

    @property
    def one_split(self) -> bool:
        """Whether train and test are one split (and file), which must be cut."""
        splits, files = self._splits, self._files
        return splits["train"] is not None and (splits["train"], files.get("train")) == (
            splits["test"],
            files.get("test"),
        )

    def _places(self, name: str, side: str) -> list[tuple[str, str | None]]:
        """Ids and files to be tried."""
        from quantbench.datasets.hub_open import builder_of

        file = self._files.get(side)
        if self._files and file is None:
            raise DataError(f"data {name}: `files` names nothing for {side!r}, but {', '.join(self._files)}")
        in_hub = None if self._addressed else file
        places: list[tuple[str, str | None]] = [(path, in_hub) for path in self.hub]
        return [*places, (builder_of(f"data {name}", file or ""), file)] if self._addressed else places

    def _read(self, name: str, side: str, path: str, split: str, file: str | None, failed: Sequence[str]) -> Rows:
        from quantbench.datasets.hub_open import UNVERIFIED, HubSplit  # its libraries take a while to import

        repository, config, revision = _split(path)
        say_once(f"loading data {name} ({repository}, split {split})")
        label = f"data {name}"
        wanted = HubSplit(label, repository, config, split, file, self.revision or revision, self.converted)
        dataset, revision = wanted.open()
        notes = [f"from {repository}", *(f"not read: {reason}" for reason in failed)]
        if revision == UNVERIFIED:
            notes.append("the revision is not known: it was read from a cache or from files")
        whole = self.one_split
        indices: Sequence[int] = range(len(dataset))
        if self.max_documents is not None:
            indices = indices[: self.max_documents]
        if self.max_rows is not None and not whole and len(dataset) > self.max_rows:
            indices = [i * len(dataset) // self.max_rows for i in range(self.max_rows)]
            notes.append(f"{self.max_rows} of {len(dataset)} rows, evenly spaced")
        if not len(dataset):
            raise DataError(f"{label}: {repository}, split {split} is empty")
        chosen = dataset.select(indices) if len(indices) < len(dataset) else dataset
        table = ArrowTable(chosen, self.class_names, self.max_documents)
        ids = make_ids(f"{label}, split {side}", table, self.id) if self.id else list(map(str, indices))
        return Rows(name, side, table, ids, revision, whole, tuple(notes))


def _split(path: str) -> tuple[str, str | None, str | None]:
    """Id, configuration and revision of "ID:CONFIG@REVISION"."""
    whole, _, revision = path.partition("@")
    repository, _, config = whole.partition(":")
    return repository, config or None, revision or None
