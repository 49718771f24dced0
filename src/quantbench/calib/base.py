"""The calibration set: token sequences with provenance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CalibSet:
    """N sequences of L token ids drawn from one source by one sampler.

    tokens     int64 [N, L]
    name       the source's name
    split      the split they were drawn from
    revision   the source's revision as found
    text_fingerprint  sha256 of the text drawn from
    documents  the documents that were drawn from (for the overlap check), in no particular order
    contents   of documents made from rows: what each is about (quantbench.texts.base.Documents)
    notes      the source's: which place answered, what was left out
    shortfall  how many sequences fewer than asked (0 unless `allow_short`)
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
    contents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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

    def provenance(self) -> dict[str, str | int]:
        """What a run's record says of its calibration set."""
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
            **({"notes": "; ".join(self.notes)} if self.notes else {}),
        }
