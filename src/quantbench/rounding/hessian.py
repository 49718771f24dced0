"""What methods that minimise tr(dW H dW^T) share: H = 2/n X^T X, its dead inputs, its damping, its inverse factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


DAMPING_RAISES = 5
"""How often a failing Cholesky decomposition is tried again, each time with ten times the damping."""


def without_dead_inputs(weight: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor, int]:
    """Copies of weight and H in which inputs that were always zero have weight 0 and H_jj = 1; and their number."""
    hessian, dead = with_dead_inputs_apart(hessian)
    return weight.masked_fill(dead, 0), hessian, int(dead.sum())


def with_dead_inputs_apart(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """A copy of H in which inputs that were always zero have H_jj = 1; and which these are, bool [in]."""
    hessian, dead = hessian.clone(), hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    return hessian, dead


@dataclass(frozen=True)
class InverseCholesky:
    """The factor U of the damped inverse, (H + damping mean(diag H) I)^-1 = U^T U.

    upper: U [in, in], upper triangular; raised: how often the damping had to be multiplied by ten.
    """

    upper: Tensor
    raised: int


def inverse_cholesky(hessian: Tensor, damping: float) -> InverseCholesky | None:
    """The factor U of the damped inverse, or None if H is too far from positive definite for every damping tried."""
    found = _damped(hessian, damping, _inverse_factor)
    return None if found is None else InverseCholesky(found.factor, found.raised)


@dataclass(frozen=True)
class UnitCholesky:
    """The damped Hessian and its factor: H + damping mean(diag H) I = L D L^T.

    lower: L [in, in], lower triangular with ones on its diagonal; damped: the left side; raised: as above.
    """

    lower: Tensor
    damped: Tensor
    raised: int


def unit_cholesky(hessian: Tensor, damping: float) -> UnitCholesky | None:
    """The factor L of the damped Hessian, or None if no damping tried makes it positive definite."""
    found = _damped(hessian, damping, _lower_factor)
    if found is None:
        return None
    return UnitCholesky(found.factor / found.factor.diagonal(), found.hessian, found.raised)


@dataclass(frozen=True)
class _Damped:
    factor: Tensor
    hessian: Tensor
    raised: int


def _damped(hessian: Tensor, damping: float, factorize: Callable[[Tensor], Tensor | None]) -> _Damped | None:
    """A factor of the damped Hessian, with the first damping at which the decomposition succeeds."""
    damped, diagonal = hessian.clone(), hessian.diagonal()
    unit = damping * diagonal.mean()
    for raised in range(DAMPING_RAISES + 1):
        damped.diagonal().copy_(diagonal + 10**raised * unit)
        factor = factorize(damped)
        if factor is not None:
            return _Damped(factor, damped, raised)
    return None


def _lower_factor(hessian: Tensor) -> Tensor | None:
    """The lower Cholesky factor; None where the decomposition fails."""
    lower, info = torch.linalg.cholesky_ex(hessian)
    return lower if int(info) == 0 and all_finite(lower) else None


def _inverse_factor(hessian: Tensor) -> Tensor | None:
    """U without forming H^-1, which would cost time and accuracy; None where the decomposition fails.

    Decomposing H from its last row up gives H = R R^T with R upper triangular; then H^-1 = R^-T R^-1 and U = R^-1.
    """
    lower = _lower_factor(hessian.flip(0, 1))
    if lower is None:
        return None
    R = lower.flip(0, 1)
    del lower  # each of these is as large as H, which may have gigabytes
    upper = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device).t()  # its columns are contiguous
    torch.linalg.solve_triangular(R, upper, upper=True, out=upper)
    return upper if all_finite(upper) else None
