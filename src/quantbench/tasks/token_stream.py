"""A text as token ids, and how many of its bytes and which of its documents each of them stands for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from quantbench.datasets.documents import Documents
from quantbench.models.encoded_text import Integers, encoded_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Token ids [T] of a text, and byte_ends [T + 1]: how many of its bytes the first i tokens cover."""

    ids: Integers
    byte_ends: Integers

    def first(self, n: int | None) -> TokenStream:
        """The first n tokens; None: all."""
        return self if n is None else TokenStream(self.ids[:n], self.byte_ends[: n + 1])


def tokenized(tokenizer: PreTrainedTokenizerBase, text: str, special: list[int]) -> TokenStream:
    """A text behind some special tokens, which cover no bytes.

    A token that ends inside a character covers it whole. Raises ModelError for a tokenizer that knows no characters.
    """
    encoded = encoded_text(tokenizer, text)
    ids = np.concatenate([np.array(special, dtype=np.int64), encoded.ids])
    byte_ends = np.concatenate([np.zeros(1 + len(special), dtype=np.int64), _bytes_before(text)[encoded.ends]])
    return TokenStream(ids, np.maximum.accumulate(byte_ends))


def _bytes_before(text: str) -> Integers:
    """[characters + 1]: UTF-8 bytes of the first i characters."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def document_of(documents: Documents, positions: Integers) -> Integers:
    """The number of the document that byte positions [W] lie in; a joiner belongs to the document before it."""
    joiner = len(documents.joiner.encode("utf-8", "surrogatepass"))
    sizes = [len(document.encode("utf-8", "surrogatepass")) + joiner for document in documents.documents]
    ends = np.array(list(accumulate(sizes)), dtype=np.int64)
    return np.minimum(np.searchsorted(ends, positions, side="right"), len(ends) - 1)
