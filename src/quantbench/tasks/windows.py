"""Test windows: which tokens of a text are scored, and everything that fixes a score made on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError, ModelError
from quantbench.core.origin import UNKNOWN, described
from quantbench.datasets.documents import Documents, TextSource
from quantbench.models.handle import ModelHandle
from quantbench.models.tokenizer import leading_special_tokens
from quantbench.tasks.evaluate import evaluate
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, Show

Integers = NDArray[np.int64]

METRICS = ("perplexity", "nll", "bits_per_byte", "kl", "same_top")
PLACEMENT = "window i of n takes slot floor(i * K / n) of the K slots that do not overlap"


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows of L tokens; in each, every token but the first is scored.

    tokens            int64 [W, L]
    offsets           where each begins in the tokenized text, in tokens
    n_bytes           UTF-8 bytes of the text its scored tokens stand for
    document_ids      number of the document its first scored token begins in
    documents         all documents of the text
    text_fingerprint  sha256 of the text; revision: its source's, as found
    protocol_values   everything that fixes a score, plain values
    """

    tokens: Tensor
    offsets: tuple[int, ...]
    n_bytes: tuple[int, ...]
    document_ids: tuple[int, ...]
    documents: tuple[str, ...] = field(repr=False)
    text_fingerprint: str
    revision: str
    protocol_values: dict[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of language modelling."""
        return METRICS

    @property
    def uses_reference(self) -> bool:
        """Every window's predictions are compared with those of the full-precision model."""
        return True

    @property
    def token_rows(self) -> Sequence[Tensor]:
        """The windows."""
        return list(self.tokens)

    @property
    def n_positions(self) -> int:
        """W x L."""
        return self.tokens.numel()

    def score(
        self, handle: ModelHandle, task: str, reference: Reference | None, device: torch.device, show: Show
    ) -> Outcome:
        """See TestSet."""
        return Outcome(evaluate(handle, self, task, reference, device, show).items)

    def frame(self) -> pd.DataFrame:
        """Columns item, document, n_tokens, n_bytes; one row per window."""
        return pd.DataFrame(
            {
                "item": [str(offset) for offset in self.offsets],
                "document": [str(number) for number in self.document_ids],
                "n_tokens": self.tokens.shape[1] - 1,
                "n_bytes": self.n_bytes,
            }
        )

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if the windows are longer than the `limit` positions a model takes."""
        length = self.tokens.shape[1]
        if limit is not None and length > limit:
            raise ConfigError(
                f"task {task}: windows of {length} tokens, but the model takes at most {limit}; "
                f"use scale.window={limit} or less"
            )


@component
class TextTask:
    """Perplexity and divergence on windows of a text that do not overlap.

    window         tokens of a window, a BOS that is put before each one counted
    n_windows      how many, evenly spaced over the whole text; None: all, the rest at the end is dropped
    bos            "first": the tokenizer's own special tokens once, before the text (as GPTQ's authors evaluate);
                   "each": a BOS before every window; "none"
    max_documents, max_tokens  use only the beginning of the text
    """

    source: TextSource
    split: Literal["train", "test"] = "test"
    window: Annotated[int, Field(ge=2)]
    n_windows: Annotated[int, Field(ge=1)] | None
    bos: Literal["none", "first", "each"]
    max_documents: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> dict[str, str]:
        """name, family, domain and language of the test distribution."""
        about = described(self)
        known = {key: str(about.get(key, UNKNOWN)) for key in ("domain", "language")}
        return {"name": self.source.name, "family": self.source.family, **known}

    def prepare(self) -> str:
        """Fetch the text."""
        return self.source.prepare()

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Windows:
        """Load the text and cut its windows. Raises DataError if it is shorter than what is asked for."""
        documents = self.source.load(self.split)
        if self.max_documents is not None:
            documents = dataclasses.replace(documents, documents=documents.documents[: self.max_documents])
        special = self._special_tokens(tokenizer)
        stream = _tokenize(tokenizer, documents.text, special if self.bos == "first" else [])
        stream = stream.first(self.max_tokens)
        before = special if self.bos == "each" else []
        step = self.window - len(before)
        starts, slots = self._place(len(stream.ids), step, documents)
        rows = stream.ids[starts[:, None] + np.arange(step)]
        prefix = np.tile(np.array(before, dtype=np.int64), (len(starts), 1))
        # With a BOS before it a window's first token of text is scored, too.
        first_scored = starts if before else starts + 1
        n_bytes = stream.byte_ends[starts + step] - stream.byte_ends[first_scored]
        return Windows(
            tokens=torch.from_numpy(np.concatenate([prefix, rows], axis=1)),
            offsets=tuple(starts.tolist()),
            n_bytes=tuple(n_bytes.tolist()),
            document_ids=tuple(_document_of(documents, stream.byte_ends[first_scored]).tolist()),
            documents=tuple(documents.documents),
            text_fingerprint=documents.fingerprint,
            revision=documents.revision,
            protocol_values={
                "kind": "perplexity and divergence on text windows",
                "text": documents.fingerprint,
                "joiner": documents.joiner,
                "split": self.split,
                "window": self.window,
                "windows": {"n": len(starts), "K": slots, "placement": PLACEMENT},
                "bos": self.bos,
                "tokenizer": tokenizer_fingerprint,
            },
        )

    def _special_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        if self.bos != "each":
            return leading_special_tokens(tokenizer)
        if tokenizer.bos_token_id is None:
            raise ConfigError("bos=each: this model's tokenizer has no BOS token; use bos=first or bos=none")
        return [int(tokenizer.bos_token_id)]

    def _place(self, n_tokens: int, step: int, documents: Documents) -> tuple[Integers, int]:
        slots = n_tokens // step
        wanted = self.n_windows or 1
        if slots < wanted:
            raise DataError(
                f"text {documents.name}, split {documents.split}: {n_tokens} tokens make {slots} windows of "
                f"{self.window} tokens, but {wanted} {'is' if wanted == 1 else 'are'} needed; "
                "use a longer text, shorter windows (scale.window) or fewer (scale.windows)"
            )
        n = self.n_windows or slots
        return np.arange(n) * slots // n * step, slots


@dataclass(frozen=True, eq=False)
class _Stream:
    """Token ids [T] of a text, and byte_ends [T + 1]: how many of its bytes the first i tokens cover."""

    ids: Integers
    byte_ends: Integers

    def first(self, n: int | None) -> _Stream:
        return self if n is None else _Stream(self.ids[:n], self.byte_ends[: n + 1])


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str, special: list[int]) -> _Stream:
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer class {type(tokenizer).__name__} does not say which characters a token stands for, so bits per "
            "byte cannot be computed: it needs a tokenizer.json"
        )
    # verbose=False: a text longer than the model is no mistake here.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.array([*special, *encoded["input_ids"]], dtype=np.int64)
    ends = np.array([end for _, end in encoded["offset_mapping"]], dtype=np.int64)
    byte_ends = np.concatenate([np.zeros(1 + len(special), dtype=np.int64), _bytes_before(text)[ends]])
    return _Stream(ids, np.maximum.accumulate(byte_ends))


def _bytes_before(text: str) -> Integers:
    """[characters + 1]: UTF-8 bytes of the first i characters."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def _document_of(documents: Documents, positions: Integers) -> Integers:
    """The number of the document that byte positions [W] lie in; a joiner belongs to the document before it."""
    joiner = len(documents.joiner.encode("utf-8", "surrogatepass"))
    sizes = [len(document.encode("utf-8", "surrogatepass")) + joiner for document in documents.documents]
    ends = np.array(list(accumulate(sizes)), dtype=np.int64)
    return np.minimum(np.searchsorted(ends, positions, side="right"), len(ends) - 1)
