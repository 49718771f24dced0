"""The rotary position embedding, and its inverse.

Paper      Su et al.: "RoFormer: Enhanced Transformer with Rotary Position Embedding" (arXiv 2104.09864)
Function   y_t = (cos_t + sin_t J) x_t  on the first r channels of a head;  J^2 = -1 turns pairs of channels:
             half         (x_i, x_i+r/2) -> (-x_i+r/2, x_i)     most models
             interleaved  (x_2i, x_2i+1) -> (-x_2i+1, x_2i)     the paper
Inverse    x_t = (cos_t - sin_t J) y_t / (cos_t^2 + sin_t^2);  the denominator is 1, or what scales long contexts (YaRN)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Style = Literal["half", "interleaved"]
"""Which channels of a head make a pair."""


@dataclass(frozen=True)
class Rotary:
    """cos, sin [.., T, r] or [.., T, r / 2], one for each pair, as a model computes them."""

    cos: Tensor
    sin: Tensor
    style: Style

    def apply(self, x: Tensor) -> Tensor:
        """x float32 [.., T, d] with positions."""
        cos, sin, turned, rest = self._parts(x)
        return torch.cat([turned * cos + self._turn(turned) * sin, rest], dim=-1)

    def undo(self, y: Tensor) -> Tensor:
        """What `apply` was given."""
        cos, sin, turned, rest = self._parts(y)
        return torch.cat([(turned * cos - self._turn(turned) * sin) / (cos.square() + sin.square()), rest], dim=-1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """cos and sin for every channel; the channels that are turned, and those that are not."""
        cos, sin = (self._for_channels(part.float(), x.shape[-1]) for part in (self.cos, self.sin))
        return cos, sin, x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]

    def _for_channels(self, part: Tensor, width: int) -> Tensor:
        pairs_alike = part.shape[-1] % 2 == 0 and torch.equal(*self._pairs(part))
        if pairs_alike or 2 * part.shape[-1] > width:
            return part
        return torch.cat([part, part], dim=-1) if self.style == "half" else part.repeat_interleave(2, dim=-1)

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.style == "interleaved":
            return x[..., ::2], x[..., 1::2]
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]

    def _turn(self, x: Tensor) -> Tensor:
        """J x."""
        first, second = self._pairs(x)
        if self.style == "half":
            return torch.cat([-second, first], dim=-1)
        return torch.stack([-second, first], dim=-1).flatten(-2)
