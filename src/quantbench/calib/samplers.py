"""Samplers: how sequences of tokens are drawn from documents. A seed fixes an order; draw k takes its k-th part.

Tokens are those of the text alone: no BOS or other special token is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quantbench.component import component
from quantbench.texts.base import Documents


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
        """See Sampler."""
        tokens = np.array(token_ids(tokenizer, documents.text), dtype=np.int64)
        generator = np.random.default_rng(seed)
        spare = len(tokens) % length if len(tokens) >= length else 0
        phase = int(generator.integers(0, spare + 1))
        slots = (len(tokens) - phase) // length
        chosen = generator.permutation(slots)[draw * n : (draw + 1) * n]
        rows = [tokens[phase + slot * length : phase + (slot + 1) * length] for slot in chosen]
        available = f"{len(tokens)} tokens, {slots} windows of {length}"
        return Sample(_stack(rows, length), tuple(documents.documents), available)


@component
class DocumentWindows:
    """One random crop of each document that has at least `length` tokens, documents in random order."""

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler. Documents are tokenized one by one, and only until enough are found."""
        rows: list[Sequence[int]] = []
        used: list[str] = []
        found = 0
        for document, generator in _in_random_order(documents, seed):
            ids = token_ids(tokenizer, document)
            if len(ids) < length:
                continue
            start = int(generator.integers(0, len(ids) - length + 1))
            if found >= draw * n:
                rows.append(ids[start : start + length])
                used.append(document)
            found += 1
            if len(rows) == n:
                break
        available = f"{found} of {len(documents.documents)} documents with at least {length} tokens"
        return Sample(_stack(rows, length), tuple(used), available)


@component
class WholeDocuments:
    """Whole documents in random order, joined and cut into sequences; the rest at the end is dropped."""

    def sample(
        self, documents: Documents, tokenizer: PreTrainedTokenizerBase, n: int, length: int, seed: int, draw: int
    ) -> Sample:
        """See Sampler."""
        joint = token_ids(tokenizer, documents.joiner)
        stream: list[int] = []
        used: list[str] = []
        first, last = draw * n * length, (draw + 1) * n * length
        for document, _ in _in_random_order(documents, seed):
            begin = len(stream)
            stream += [*(joint if stream else []), *token_ids(tokenizer, document)]
            if len(stream) > first and begin < last:
                used.append(document)
            if len(stream) >= last:
                break
        rows = [stream[i : i + length] for i in range(first, min(last, len(stream)) - length + 1, length)]
        return Sample(_stack(rows, length), tuple(used), f"{len(stream)} tokens")


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text, without special tokens and without a warning about its length."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _in_random_order(documents: Documents, seed: int) -> Iterator[tuple[str, np.random.Generator]]:
    generator = np.random.default_rng(seed)
    for index in generator.permutation(len(documents.documents)):
        yield documents.documents[int(index)], generator


def _stack(rows: Sequence[Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]], length: int) -> Tensor:
    if not rows:
        return torch.empty(0, length, dtype=torch.int64)
    return torch.from_numpy(np.array(rows, dtype=np.int64))
