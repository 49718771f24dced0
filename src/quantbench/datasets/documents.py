"""Texts: named sources of documents, from which calibration sets and test windows are drawn."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantbench.core.origin import Origin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LISTED = ("data", "split", "document", "place", "characters", "sha256", "begins")
"""The columns of a listing."""

BEGINNING = 60
"""Characters of a document that a listing shows."""


@dataclass(frozen=True)
class Documents:
    """One split of a source, loaded: its documents in a fixed order.

    revision  what was found (a commit, a package's sha256, a file's sha256), or "unverified" where the loader
              cannot tell, e.g. an offline cache of a hub data set
    joiner    the string put between documents when they are read as one text
    contents  for documents made from rows: what each is about, without template and answer (Example.content); such
              items are compared with test items whatever their length
    processing  what was done to the texts, plain values for the protocol of a score
    places    where each document stands in its source, its file and line; none where the source's own order says it
    """

    name: str
    split: str
    documents: Sequence[str]
    revision: str
    joiner: str = "\n\n"
    notes: tuple[str, ...] = field(default=())
    contents: Sequence[str] = field(default=(), repr=False)
    processing: Mapping[str, Any] = field(default_factory=dict, repr=False)
    places: Sequence[str] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """All documents as one text."""
        return self.joiner.join(self.documents)

    @property
    def fingerprint(self) -> str:
        """sha256 over the documents and the joiner: equal texts have equal fingerprints wherever they came from."""
        digest = hashlib.sha256(self.joiner.encode())
        for document in self.documents:
            data = document.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    def listing(self, drawn: Collection[str] | None = None) -> str:
        """CSV from which the text can be put together again by hand, "" where places are not known.

        A line a document, in their order: data, split, number, place, characters and sha256 of its text, its beginning.
        drawn: only the documents with these texts
        """
        if not self.places:
            return ""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(LISTED)
        for number, (place, text) in enumerate(zip(self.places, self.documents, strict=False)):
            if drawn is None or text in drawn:
                sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                begins = " ".join(text[:BEGINNING].split())
                writer.writerow([self.name, self.split, number, place, len(text), sha256, begins])
        return lines.getvalue()


def joined_listings(listings: Iterable[str]) -> str:
    """Several listings under one line of names."""
    bodies = [listing.partition("\n")[2] for listing in listings]
    return f"{','.join(LISTED)}\n{''.join(bodies)}" if any(bodies) else ""


@runtime_checkable
class TextSource(Protocol):
    """What a calibration set or a test on running text reads. Implementations are components (.text, .rendered)."""

    @property
    def origin(self) -> Origin:
        """What is known of the data set: it decides how far a test lies from a calibration set."""
        ...

    def load(self, split: str) -> Documents:
        """Load the split "train" or "test".

        Raises DataError if the source cannot be reached (saying whether network or name, how to prepare it, and which
        packaged options need no hub), is corrupt, or is empty.
        """
        ...

    def prepare(self) -> str:
        """Fetch everything `load` needs, for all splits; returns one line saying what lies where, and its size."""
        ...


@runtime_checkable
class TokenizerText(Protocol):
    """A TextSource whose documents depend on the tokenizer: chats in the model's own chat template."""

    def load_for(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Documents:
        """As TextSource.load, for one tokenizer. Raises DataError if that has no chat template and one is asked for."""
        ...


@runtime_checkable
class ReachableData(Protocol):
    """Data that can tell, without being read, whether they can be had at all."""

    def check_reachable(self, split: str) -> None:
        """Raise DataError if they are neither here nor can be fetched. Imports nothing that takes seconds."""
        ...


def check_reachable(data: object, split: str) -> None:
    """Raise DataError if data tell that they cannot be had; others show it when they are read."""
    if isinstance(data, ReachableData):
        data.check_reachable(split)
