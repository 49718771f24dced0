"""Negative controls: what calibration does when the data say nothing, or only how often each token occurs."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from quantbench.calibration.base import CalibSet, behind
from quantbench.calibration.calibration import Calibration
from quantbench.core.component import component
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents, TextSource
from quantbench.models.tokenizer import CalibrationBos, before_sequence

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
else:
    torch = lazy_module("torch")

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
"""Where a sentence ends: a sign and white space, a Chinese sign, or the end of a line."""


@component
class RandomTokens:
    """n sequences of tokens drawn uniformly from the vocabulary; special tokens are left out.

    draw  which of the sets of n sequences that the seed's stream of tokens gives: draws share none of it
    bos   what stands before each sequence: see Calibration
    """

    n: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=8)]
    seed: Annotated[int, Field(ge=0)]
    draw: Annotated[int, Field(ge=0)] = 0
    bos: CalibrationBos = "none"

    @property
    def origins(self) -> tuple[Origin, ...]:
        """See AnyCalibration."""
        return (Origin(name="random_tokens", family="control"),)

    @property
    def sources(self) -> tuple[TextSource, ...]:
        """Nothing to fetch."""
        return ()

    def draw_set(self, tokenizer: PreTrainedTokenizerBase) -> CalibSet:
        """See AnyCalibration."""
        ids, before = ordinary_ids(tokenizer), before_sequence(tokenizer, self.bos)
        generator = random.Random(self.seed)
        size = self.n * (self.length - len(before))
        drawn = generator.choices(ids, k=(self.draw + 1) * size)[self.draw * size :]
        return CalibSet(
            tokens=behind(before, torch.tensor(drawn, dtype=torch.int64).reshape(self.n, -1)),
            name="random_tokens",
            split="none",
            revision=f"{len(ids)} ordinary tokens of the tokenizer",
            text_fingerprint="",
            documents=(),
            seed=self.seed,
            draw=self.draw,
            before=len(before),
        )


def ordinary_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the vocabulary but those of special and control tokens, ascending."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids) - added)
    if not ids:
        raise ModelError(f"tokenizer class {type(tokenizer).__name__} has no token that is not a special one")
    return ids


@component
class Shuffled(Calibration):
    """A calibration set whose order is lost.

    unit  tokens: all tokens of the set are permuted (but those before the text, see bos), so that only how often each
          occurs is left;
          sentences: those of all documents are, before sequences are drawn from them, so that what is left is what
          stands inside a sentence (quantbench.calibration.controls.SENTENCE_END says where one ends)
    """

    unit: Literal["tokens", "sentences"] = "tokens"

    @property
    def origins(self) -> tuple[Origin, ...]:
        """See AnyCalibration."""
        return (Origin(name=self._name, family="control"),)

    @property
    def _name(self) -> str:
        return f"shuffled {self.unit} of {self.source.origin.name}"

    def documents(self, tokenizer: PreTrainedTokenizerBase) -> Documents:
        """The text, its sentences in random order and in documents of as many sentences as before."""
        found = Calibration.documents(self, tokenizer)
        if self.unit == "tokens":
            return found
        parts = [[s for s in SENTENCE_END.split(document) if s.strip()] for document in found.documents]
        sentences = [sentence for part in parts for sentence in part]
        random.Random(self.seed).shuffle(sentences)
        lengths = [len(part) for part in parts if part]
        ends = list(itertools.accumulate(lengths))
        documents = [" ".join(sentences[end - size : end]) for end, size in zip(ends, lengths, strict=True)]
        options: dict[str, Any] = {"notes": (*found.notes, "sentences shuffled")}
        return Documents(found.name, found.split, documents, found.revision, found.joiner, **options)

    def draw_set(self, tokenizer: PreTrainedTokenizerBase) -> CalibSet:
        """See AnyCalibration."""
        found = Calibration.draw_set(self, tokenizer)
        if self.unit == "sentences":
            return dataclasses.replace(found, name=self._name)
        special, text = found.tokens[:, : found.before], found.tokens[:, found.before :]
        order = list(range(text.numel()))
        random.Random(self.seed).shuffle(order)
        text = text.flatten()[torch.tensor(order)].reshape(text.shape)
        return dataclasses.replace(found, tokens=torch.cat([special, text], dim=1), name=self._name)
