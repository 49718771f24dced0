"""What `calib=` selects: a source, a sampler, and how much to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from quantbench.calibration.base import CalibSet, behind
from quantbench.calibration.samplers import Sampler
from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents, TextSource, TokenizerText, check_reachable
from quantbench.models.tokenizer import CalibrationBos, before_sequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@component
class Calibration:
    """n sequences of `length` tokens of a text.

    bos          "none": the text's tokens alone. "each": the first of the `length` tokens is a BOS. "auto": what the
                 model's own tokenizer puts before a text, a BOS for Llama, Mistral, Gemma, nothing for GPT-2, Qwen
    draw         which of the disjoint sets of n sequences that a seed gives
    allow_short  take fewer sequences where the text has no more, and record the shortfall
    """

    source: TextSource
    sampler: Sampler
    n: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=8)]
    seed: Annotated[int, Field(ge=0)]
    draw: Annotated[int, Field(ge=0)] = 0
    split: Literal["train", "test"] = "train"
    allow_short: bool = False
    bos: CalibrationBos = "none"

    @property
    def origins(self) -> tuple[Origin, ...]:
        """See AnyCalibration."""
        return (self.source.origin,)

    @property
    def sources(self) -> tuple[TextSource, ...]:
        """See AnyCalibration."""
        return (self.source,)

    def check_reachable(self) -> None:
        """Raise DataError if the text is neither here nor can be fetched."""
        check_reachable(self.source, self.split)

    def documents(self, tokenizer: PreTrainedTokenizerBase) -> Documents:
        """The text drawn from."""
        if isinstance(self.source, TokenizerText):
            return self.source.load_for(self.split, tokenizer)
        return self.source.load(self.split)

    def draw_set(self, tokenizer: PreTrainedTokenizerBase) -> CalibSet:
        """Draw the set. Raises DataError if the text is too short, unless `allow_short`, or has no sequence at all."""
        before = before_sequence(tokenizer, self.bos)
        documents = self.documents(tokenizer)
        sample = self.sampler.sample(documents, tokenizer, self.n, self.length - len(before), self.seed, self.draw)
        shortfall = self.n - len(sample.tokens)
        if not len(sample.tokens) or (shortfall and not self.allow_short):
            raise DataError(
                f"calib={self.source.origin.name}: {self.n} sequences of {self.length} tokens were asked for as draw "
                f"{self.draw} ({self.n * self.length} tokens), and {len(sample.tokens)} can be had: the {self.split} "
                f"text has {sample.available}. Lower calib.n, calib.length or calib.draw (a scale sets the "
                "first two), or take what there is with calib.allow_short=true."
            )
        about = dict(zip(documents.documents, documents.contents, strict=False))
        return CalibSet(
            tokens=behind(before, sample.tokens),
            name=self.source.origin.name,
            split=self.split,
            revision=documents.revision,
            text_fingerprint=documents.fingerprint,
            documents=sample.documents,
            seed=self.seed,
            draw=self.draw,
            shortfall=shortfall,
            notes=tuple(documents.notes),
            before=len(before),
            contents=tuple(about[document] for document in sample.documents if document in about),
            listing=documents.listing(set(sample.documents)),
        )
