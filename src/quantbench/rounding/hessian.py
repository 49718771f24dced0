"""What methods that minimise tr(dW H dW^T) share: H = 2/n X^T X, its dead inputs, its damping, its inverse factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantbench.pipeline.stats import LinearStats

DAMPING_RAISES = 5
"""How often a failing Cholesky decomposition is tried again, each time with ten times the damping."""


def finite_hessian(stats: LinearStats | None) -> Tensor:
    """H float32 [in, in]. Raises ValueError if it was not collected, or if it holds NaN or infinity."""
    if stats is None:
        raise ValueError("calibration statistics are needed, but none were collected")
    hessian = stats.require("hessian")
    if not bool(hessian.isfinite().all()):
        raise ValueError(
            "the Hessian holds NaN or infinity: the layer's inputs overflow; run the model in a wider dtype"
            " (model.dtype=float32 or bfloat16)"
        )
    return hessian


def output_error(delta: Tensor, hessian: Tensor) -> float:
    """tr(dW H dW^T) for dW [out, in]: the squared output error over the calibration inputs, times 2/n."""
    return float(((delta @ hessian) * delta).sum())


def without_dead_inputs(weight: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor, int]:
    """Copies of weight and H in which inputs that were always zero have weight 0 and H_jj = 1; and their number."""
    weight, hessian = weight.clone(), hessian.clone()
    dead = hessian.diagonal() == 0
    weight[:, dead] = 0
    hessian.diagonal()[dead] = 1
    return weight, hessian, int(dead.sum())


@dataclass(frozen=True)
class InverseCholesky:
    """The factor U of the damped inverse, (H + damping mean(diag H) I)^-1 = U^T U.

    upper: U [in, in], upper triangular; raised: how often the damping had to be multiplied by ten.
    """

    upper: Tensor
    raised: int


def inverse_cholesky(hessian: Tensor, damping: float) -> InverseCholesky | None:
    """The factor U of the damped inverse, or None if H is too far from positive definite for every damping tried."""
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    unit = damping * hessian.diagonal().mean()
    for raised in range(DAMPING_RAISES + 1):
        upper = _inverse_factor(hessian + 10**raised * unit * identity, identity)
        if upper is not None:
            return InverseCholesky(upper, raised)
    return None


def _inverse_factor(hessian: Tensor, identity: Tensor) -> Tensor | None:
    """U without forming H^-1, which would cost time and accuracy; None where the decomposition fails.

    Decomposing H from its last row up gives H = R R^T with R upper triangular; then H^-1 = R^-T R^-1 and U = R^-1.
    """
    lower, info = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if int(info) != 0:
        return None
    upper = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
    return upper if bool(upper.isfinite().all()) else None
