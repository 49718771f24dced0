"""Samplers: how sequences of tokens are drawn from documents. A seed fixes an order; draw k takes its k-th part.

Tokens are those of the text alone: a BOS is put before the sequences, if one is wanted, by what draws them
(`Calibration.bos`). Random numbers come from Python's `random`, whose sequence for a seed does not change with the
versions of numpy or torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.datasets.documents import Documents
from quantbench.models.encoded_text import Integers, encoded_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class Sample:
    """tokens int64 [<= n, length], the documents they were drawn from, and what there was to draw from, in words."""

    tokens: Tensor
    documents: tuple[str, ...]
    available: str


@runtime_checkable
class Sampler(Protocol):
    """Draws sequences. Implementations are components."""

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """The draw-th disjoint set of n sequences of `length` tokens; fewer where the text does not have them."""
        ...


@component
class JoinedWindows:
    """Windows of the joined text that do not overlap, at a random phase, in random order: draws share no token."""

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler. The whole text is tokenized; further draws of the same process find it done."""
        text = encoded_text(tokenizer, documents.text)
        n_tokens = len(text.ids)
        generator = random.Random(seed)
        slots = n_tokens // length
        # The phase may use up what the windows leave over, so that it never costs one.
        phase = generator.randint(0, n_tokens - slots * length)
        order = list(range(slots))
        generator.shuffle(order)
        starts = phase + length * np.array(order[draw * n : (draw + 1) * n], dtype=np.int64)
        tokens = text.ids[starts[:, None] + np.arange(length)]
        used = _documents_between(documents, text.begins[starts], text.ends[starts + length - 1])
        return Sample(torch.from_numpy(tokens), used, f"{n_tokens} tokens, {slots} windows of {length}")


@component
class DocumentWindows:
    """One random crop of each document that has at least `length` tokens, documents in random order.

    As GPTQ's authors sample C4 (Frantar et al. 2022, arXiv 2210.17323), but no document is taken twice.
    """

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler. Documents are tokenized one by one, and only until enough are found."""
        generator = random.Random(seed)
        rows: list[list[int]] = []
        used: list[str] = []
        for document in _shuffled(documents, generator):
            ids = _ids(tokenizer, document)
            if len(ids) < length:
                continue
            start = generator.randint(0, len(ids) - length)
            rows.append(ids[start : start + length])
            used.append(document)
            if len(rows) == (draw + 1) * n:
                break
        available = (
            f"{len(rows)} of {len(documents.documents)} documents with at least {length} tokens "
            "(sampler@calib.sampler=joined_windows needs no long documents)"
        )
        return Sample(_stack(rows[draw * n :], length), tuple(used[draw * n :]), available)


@component
class WholeDocuments:
    """Whole documents in random order, each with the joiner behind it, cut into sequences; the rest is dropped."""

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler. Documents are tokenized one by one, and only until enough tokens are found."""
        stream: list[int] = []
        placed: list[tuple[str, int, int]] = []
        first, last = draw * n * length, (draw + 1) * n * length
        for document in _shuffled(documents, random.Random(seed)):
            begin = len(stream)
            stream += _ids(tokenizer, document + documents.joiner)
            placed.append((document, begin, len(stream)))
            if len(stream) >= last:
                break
        rows = [stream[i : i + length] for i in range(first, min(last, len(stream)) - length + 1, length)]
        taken = first + len(rows) * length
        used = tuple(document for document, begin, end in placed if begin < taken and end > first)
        return Sample(_stack(rows, length), used, f"{len(stream)} tokens, {len(stream) // length} sequences")


@component
class OneItem:
    """One document a sequence: its last `length` tokens, documents in random order, those that are shorter left out.

    For documents made from rows. The end of an item is kept because it holds the question and the answer. Calibration
    sequences have one length and are never padded (padding would be calibrated on, too): items shorter than that
    can only be packed (whole_documents).
    """

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler."""
        rows: list[list[int]] = []
        used: list[str] = []
        for document in _shuffled(documents, random.Random(seed)):
            ids = _ids(tokenizer, document)
            if len(ids) >= length:
                rows.append(ids[-length:])
                used.append(document)
            if len(rows) == (draw + 1) * n:
                break
        available = (
            f"{len(rows)} of {len(documents.documents)} items with at least {length} tokens "
            "(sampler@calib.sampler=whole_documents packs short ones)"
        )
        return Sample(_stack(rows[draw * n :], length), tuple(used[draw * n :]), available)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _shuffled(documents: Documents, generator: random.Random) -> Iterator[str]:
    order = list(range(len(documents.documents)))
    generator.shuffle(order)
    return (documents.documents[i] for i in order)


def _documents_between(documents: Documents, first: Integers, stop: Integers) -> tuple[str, ...]:
    """The documents that have a character in one of the stretches [first[i], stop[i]) of the joined text."""
    lengths = np.array([len(document) for document in documents.documents], dtype=np.int64)
    begins = np.cumsum(lengths + len(documents.joiner)) - lengths - len(documents.joiner)
    lowest = np.searchsorted(begins + lengths, first, side="right")
    highest = np.searchsorted(begins, stop, side="left")
    touched = {i for low, high in zip(lowest, highest, strict=True) for i in range(low, high)}
    return tuple(documents.documents[i] for i in sorted(touched))


def _stack(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, length)
