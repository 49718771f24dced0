"""What GPTQ makes of the Hessian alone: steps 1 to 3 of `quantbench.rounding.gptq`, whose symbols are used here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantbench.core.lazy import lazy_module
from quantbench.rounding.hessian import inverse_cholesky, with_dead_inputs_apart

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Order = Literal["natural", "activation", "group_aware"]


def column_order(diagonal: Tensor, order: Order, g: int) -> Tensor:
    """Step 2: the columns in the order of rounding, int64 [in], given H_jj [in] and groups of g columns."""
    natural = torch.arange(len(diagonal), device=diagonal.device)
    if order == "natural":
        return natural
    falling = diagonal.argsort(descending=True, stable=True)
    if order == "activation":
        return falling
    largest = torch.stack([part.amax() for part in torch.split(diagonal, g)])
    turn = largest.argsort(descending=True, stable=True).argsort()
    return falling[turn[falling // g].argsort(stable=True)]


@dataclass(frozen=True)
class Prepared:
    """H and all weights that read one input, prepared.

    order     the columns in the order of rounding, int64 [in]
    U         [in, in], upper triangular: the damped H, permuted, is (U^T U)^-1
    diagonal  H_jj [in] in that order, before damping
    dead      bool [in]: inputs that were always zero, in their own order
    raised    how often the damping was multiplied by ten
    """

    order: Tensor
    U: Tensor
    diagonal: Tensor
    dead: Tensor
    raised: int

    @classmethod
    def of(cls, hessian: Tensor, order: Order, g: int, damping: float) -> Prepared | None:
        """For H [in, in] and groups of g columns; None where H has no Cholesky decomposition."""
        H, dead = with_dead_inputs_apart(hessian)  # step 1
        permutation = column_order(H.diagonal(), order, g)  # step 2
        H = H.index_select(0, permutation).index_select(1, permutation)
        factor = inverse_cholesky(H, damping)  # step 3
        if factor is None:
            return None
        return cls(permutation, factor.upper, H.diagonal().clone(), dead, factor.raised)
