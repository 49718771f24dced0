"""The calibration set: token sequences with provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantbench.core.lazy import lazy_module
from quantbench.core.origin import Origin
from quantbench.datasets.documents import TextSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class CalibSet:
    """N sequences of L token ids drawn from one source by one sampler.

    tokens     int64 [N, L]
    name       the source's name
    split      the split they were drawn from
    revision   the source's revision as found
    text_fingerprint  sha256 of the text drawn from
    documents  the documents that were drawn from (for the overlap check), in no particular order
    contents   of documents made from rows: what each is about (quantbench.datasets.documents.Documents)
    notes      the source's: which place answered, what was left out
    shortfall  how many sequences fewer than asked (0 unless `allow_short`)
    parts      of a mixture: what it was mixed from
    before     how many tokens of each sequence are special ones that were put before the text
    listing    where the documents drawn from stand in their source (quantbench.datasets.documents.Documents.listing)
    """

    tokens: Tensor
    name: str
    split: str
    revision: str
    text_fingerprint: str
    documents: tuple[str, ...]
    seed: int
    draw: int
    shortfall: int = 0
    parts: tuple[CalibSet, ...] = field(default=(), repr=False)
    contents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    before: int = 0
    listing: str = field(default="", repr=False)

    @property
    def n_tokens(self) -> int:
        """N x L."""
        return self.tokens.numel()

    @property
    def fingerprint(self) -> str:
        """sha256 of shape and token ids: the data that calibration sees, whatever it came from."""
        digest = hashlib.sha256(str(tuple(self.tokens.shape)).encode())
        digest.update(self.tokens.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def provenance(self) -> dict[str, Any]:
        """What a run's record says of its calibration set, and of each part of a mixture."""
        parts = {"parts": [{**part.provenance(), "fingerprint": part.fingerprint} for part in self.parts]}
        return {
            "name": self.name,
            "split": self.split,
            "revision": self.revision,
            "n": len(self.tokens),
            "length": self.tokens.shape[1],
            "n_tokens": self.n_tokens,
            "seed": self.seed,
            "draw": self.draw,
            "shortfall": self.shortfall,
            "special_tokens_before": self.before,
            **(parts if self.parts else {}),
            **({"notes": "; ".join(self.notes)} if self.notes else {}),
        }


def behind(before: Sequence[int], tokens: Tensor) -> Tensor:
    """The same tokens before each of the sequences [N, L]."""
    first = torch.tensor(before, dtype=torch.int64).expand(len(tokens), -1)
    return torch.cat([first, tokens], dim=1)


@runtime_checkable
class AnyCalibration(Protocol):
    """What `calib=` selects: something that draws a CalibSet. Implementations are components (.calibration, ...)."""

    @property
    def n(self) -> int:
        """How many sequences are asked for."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        ...

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The data sets drawn from: several for a mixture."""
        ...

    @property
    def sources(self) -> tuple[TextSource, ...]:
        """What has to be fetched."""
        ...

    def draw_set(self, tokenizer: PreTrainedTokenizerBase) -> CalibSet:
        """Draw the set. Raises DataError if there is not enough to draw from."""
        ...
