"""Straight-through gradients: quantization as it is in the forward direction, the identity backwards.

Rounding is constant almost everywhere, so its true gradient is zero. What learns through a quantizer passes gradients
by as if the quantizer had returned its input.
"""

from __future__ import annotations

from functools import cache
from types import new_class
from typing import TYPE_CHECKING, Any

from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@cache
def autograd_function(steps: type) -> type[torch.autograd.Function]:
    """`steps`, a class with the static methods forward and backward, as a function of torch's autograd.

    Its base cannot be named where the class is written: torch is not loaded by then.
    """
    return new_class(steps.__name__, (steps, torch.autograd.Function))


def straight_through(value: Tensor, x: Tensor) -> Tensor:
    """`value`, exactly; its gradient goes to x unchanged."""
    if not x.requires_grad:
        return value
    through: Tensor = autograd_function(_Through).apply(value, x)  # type: ignore[no-untyped-call]
    return through


class _Through:
    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor) -> Tensor:  # noqa: ARG004 - as autograd calls it
        return value.detach().view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:  # noqa: ARG004 - as autograd calls it
        return None, gradients[0]
