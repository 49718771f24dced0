"""In how many bits what an operator reads and writes is stored, and in which arithmetic it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SERVED = 16.0
"""Bits of everything that is not quantized: models are served in 16-bit floats, whatever they were evaluated in."""

Key = tuple[int | None, str]
"""Number of a block (None: outside of them) and role of a matrix."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Bits an element takes on average, scales and offsets counted.

    weight       of the matrices of blocks that `weights` does not name
    weights      of single matrices; `(None, "lm_head")` is the head, `(None, "embeddings")` the embeddings
    inputs       of the inputs of quantized matrices
    others       of all other activations: outputs, scores, the residual stream
    kv           of the key-value cache, but for the newest `kv_residual` tokens and the first `kv_sinks`
    arithmetic   of quantized matrices (quantbench.roofline.hardware.RATES)
    other_arithmetic  of everything else
    """

    weight: float = SERVED
    weights: Mapping[Key, float] = field(default_factory=dict)
    inputs: float = SERVED
    others: float = SERVED
    kv: float = SERVED
    kv_residual: int = 0
    kv_sinks: int = 0
    arithmetic: str = "fp16"
    other_arithmetic: str = "fp16"

    def of(self, block: int | None, role: str) -> float:
        """Bits of a weight of a matrix. A router and what lies outside of the blocks stay as they are unless named."""
        kept = SERVED if block is None or role == "router" else self.weight
        return self.weights.get((block, role), kept)

    def quantizes(self, block: int | None, role: str) -> bool:
        """Whether the matrix has quantized weights, and so quantized inputs and their arithmetic."""
        return self.of(block, role) < SERVED

    def cache_bits(self, tokens: float, length: int) -> float:
        """Bits that a channel of so many cached tokens takes, of the newest of a sequence of `length`."""
        kept = min(tokens, self.kv_residual)
        if tokens >= length:
            kept = min(tokens, kept + self.kv_sinks)
        return kept * SERVED + (tokens - kept) * self.kv
