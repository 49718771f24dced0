"""Whether the values of a tensor are numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: the smallest or the largest would be, which takes one pass over them."""
    return not values.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(values.detach()))
