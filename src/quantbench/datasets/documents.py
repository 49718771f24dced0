"""Texts: named sources of documents, from which calibration sets and test windows are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantbench.core.origin import Origin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Documents:
    """One split of a source, loaded: its documents in a fixed order.

    revision  what was found (a commit, a package's sha256, a file's sha256), or "unverified" where the loader
              cannot tell, e.g. an offline cache of a hub data set
    joiner    the string put between documents when they are read as one text
    contents  for documents made from rows: what each is about, without template and answer (Example.content); such
              items are compared with test items whatever their length
    """

    name: str
    split: str
    documents: Sequence[str]
    revision: str
    joiner: str = "\n\n"
    notes: tuple[str, ...] = field(default=())
    contents: Sequence[str] = field(default=(), repr=False)

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
