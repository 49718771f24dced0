"""Tasks on running text: which of its tokens are scored, and everything that fixes a score made on them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.articles import article_numbers
from quantbench.datasets.documents import Documents, TextSource, check_reachable
from quantbench.models.encoded_text import Integers
from quantbench.models.tokenizer import bos_token, leading_special_tokens
from quantbench.tasks.token_stream import document_of, tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.tasks.text_windows import Windows

PLACEMENT = "window i of n takes slot floor(i * K / n) of the K slots that do not overlap"


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

    @property
    def origin(self) -> Origin:
        """The text's."""
        return self.source.origin

    def check_reachable(self) -> None:
        """Raise DataError if the text is neither here nor can be fetched."""
        check_reachable(self.source, self.split)

    def prepare(self) -> str:
        """Fetch the text."""
        return self.source.prepare()

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Windows:
        """Load the text and cut its windows. Raises DataError if it is shorter than what is asked for."""
        import torch

        from quantbench.tasks.text_windows import Windows
        from quantbench.tasks.window_clusters import window_clusters

        documents = self.source.load(self.split)
        if self.max_documents is not None:
            documents = dataclasses.replace(documents, documents=documents.documents[: self.max_documents])
        special = self._special_tokens(tokenizer)
        stream = tokenized(tokenizer, documents.text, special if self.bos == "first" else [])
        stream = stream.first(self.max_tokens)
        before = special if self.bos == "each" else []
        step = self.window - len(before)
        starts, slots = self._place(len(stream.ids), step, documents)
        rows = stream.ids[starts[:, None] + np.arange(step)]
        prefix = np.tile(np.array(before, dtype=np.int64), (len(starts), 1))
        # With a BOS before it a window's first token of text is scored, too.
        first_scored = starts if before else starts + 1
        n_bytes = stream.byte_ends[starts + step] - stream.byte_ends[first_scored]
        lies_in = document_of(documents, stream.byte_ends[first_scored])
        articles = article_numbers(documents.documents)[lies_in]
        clusters, clustered_by = window_clusters(starts, articles, len(stream.ids))
        return Windows(
            tokens=torch.from_numpy(np.concatenate([prefix, rows], axis=1)),
            offsets=tuple(starts.tolist()),
            n_bytes=tuple(n_bytes.tolist()),
            document_ids=tuple(lies_in.tolist()),
            clusters=tuple(clusters),
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
                "clusters": clustered_by,
                "tokenizer": tokenizer_fingerprint,
                **documents.processing,
            },
            listing=documents.listing(),
        )

    def _special_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        if self.bos != "each":
            return leading_special_tokens(tokenizer)
        return [bos_token(tokenizer, "bos", "bos=first or bos=none")]

    def _place(self, n_tokens: int, step: int, documents: Documents) -> tuple[Integers, int]:
        """Where the windows begin, in tokens, and the number of slots they could take."""
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
