"""Straight-through gradients: quantization as it is in the forward direction, the identity backwards.

Rounding is constant almost everywhere, so its true gradient is zero. What learns through a quantizer passes gradients
by as if the quantizer had returned its input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def straight_through(value: Tensor, x: Tensor) -> Tensor:
    """`value`, exactly; its gradient goes to x unchanged."""
    if not x.requires_grad:
        return value
    through: Tensor = _Through.apply(value, x)  # type: ignore[no-untyped-call]
    return through


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor) -> Tensor:  # noqa: ARG004 - as autograd calls it
        return value.detach().view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:  # noqa: ARG004 - as autograd calls it
        return None, gradients[0]
