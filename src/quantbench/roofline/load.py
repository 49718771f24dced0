"""What is asked of a model: how many sequences of what length, on how many chips."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantbench.core.errors import ConfigError
from quantbench.roofline.hardware import Hardware
from quantbench.roofline.shape import GroupedAttention, Shape

ATTENTION = ("fused", "eager")


@dataclass(frozen=True, kw_only=True)
class Load:
    """A batch of sequences.

    batch            sequences at once
    context          tokens of each: prefilled, and seen by the decoded token, its own among them
    new_tokens       decoded after `context`, for the time of a whole answer and the size of the cache
    tensor_parallel  chips that share every matrix
    attention        "fused": scores stay on the chip, and what the causal mask or a window hides is not computed, as in
                     FlashAttention; "eager": all scores are computed, stored and read
    memory_share     share of the memory that weights, cache and activations may take; 0.9 is what vLLM takes by default
    """

    batch: int = 1
    context: int = 2048
    new_tokens: int = 0
    tensor_parallel: int = 1
    attention: str = "fused"
    memory_share: float = 0.9

    def __post_init__(self) -> None:
        for key, least in (("batch", 1), ("context", 1), ("new_tokens", 0), ("tensor_parallel", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{key}={value!r}: expected a whole number of at least {least}")
        if self.attention not in ATTENTION:
            raise ConfigError(f"attention={self.attention}: must be one of {', '.join(ATTENTION)}")
        if not (math.isfinite(self.memory_share) and 0 < self.memory_share <= 1):
            raise ConfigError(f"memory_share={self.memory_share}: expected a share above 0 and up to 1")

    @property
    def length(self) -> int:
        """Tokens of each sequence at its end."""
        return self.context + self.new_tokens

    @property
    def words(self) -> str:
        """What stands beside a number that holds for this load."""
        several = f", {self.tensor_parallel} chips" if self.tensor_parallel > 1 else ""
        eager = ", eager attention" if self.attention == "eager" else ""
        return f"batch {self.batch}, context {self.context:,d}{several}{eager}"

    def check(self, model: Shape, machine: Hardware) -> None:
        """Raise ConfigError if the model takes no such sequence, or cannot be shared out like that."""
        if model.max_length is not None and self.length > model.max_length:
            told = f"context={self.context}" + (f" and new_tokens={self.new_tokens}" if self.new_tokens else "")
            raise ConfigError(f"{told}: model {model.name} takes {model.max_length} positions at most")
        if self.tensor_parallel == 1:
            return
        if machine.interconnect is None:
            raise ConfigError(
                f"tensor_parallel={self.tensor_parallel}: hardware {machine.name} has no interconnect_gb_s; give it, "
                "or tensor_parallel=1"
            )
        for block in model.blocks:
            if block.attention.heads % self.tensor_parallel:
                fitting = [n for n in range(2, block.attention.heads + 1) if block.attention.heads % n == 0]
                raise ConfigError(
                    f"tensor_parallel={self.tensor_parallel}: the {block.attention.heads} heads of model {model.name} "
                    f"cannot be shared out; {', '.join(map(str, fitting))} divide them"
                )

    def kv_heads(self, attention: GroupedAttention) -> int:
        """Key and value heads on each chip: where there are fewer than chips, they are copied."""
        return -(-attention.kv_heads // self.tensor_parallel)
