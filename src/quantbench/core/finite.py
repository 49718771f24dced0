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
    """Whether no value is NaN or infinite: their sum would be. One that overflows says nothing, and both ends would."""
    values = values.detach()
    if not values.numel() or bool(torch.isfinite(values.sum())):
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(values))
