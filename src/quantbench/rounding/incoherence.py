"""QuIP's incoherence processing: a weight is rounded in a random basis, in which no element stands out.

Paper      Chee, Cai, Kuleshov, De Sa: "QuIP: 2-Bit Quantization of Large Language Models With Guarantees", NeurIPS 2023
           (arXiv 2307.13304)
Objective  that of the inner rounding: tr((W - Q) H (W - Q)^T) has the same value in both bases

Symbols    W [out, in]  the weight        H [in, in]  2/n X^T X      s [in]  scales of the input channels
           U [out, out], V [in, in]  random orthogonal matrices (formats/incoherent.py)

Steps
 1. rescale: s_j = (H_jj / sum over i of W_ij^2)^(1/4), both relative to their largest value and at least 1e-8 of it;
    it makes the sum of |W_:j s_j|^2 times the sum of H_jj / s_j^2 smallest.
 2. W' = U W diag(s) V^T, H' = V diag(s)^-1 H diag(s)^-1 V^T.
 3. The inner rounding rounds W' with H'. What is stored are the codes of W', the seed of U and V, and s in float16.
 4. The weight is U^T Q' V diag(s)^-1.

An input that was always zero is not treated apart: in the new basis no channel is zero, and the damping of the inner
rounding bounds the error there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from quantbench.core.component import component
from quantbench.core.input_stats import LinearStats, finite_hessian
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.incoherent import Basis, Incoherent, Seed
from quantbench.rounding.base import Rounded, Rounding
from quantbench.rounding.wrapper import Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

SMALLEST = 1e-8


@component
class Incoherence(Wrapper):
    """Incoherence processing around `inner`. U and V depend on the seed and the weight's shape alone."""

    inner: Rounding
    seed: Seed = 0
    rescale: bool = True

    @property
    def needs(self) -> frozenset[str]:
        """What the inner rounding reads; the Hessian for step 1."""
        return self.inner.needs | ({"hessian"} if self.rescale else set())

    def refusal(self, recipe: Any) -> str | None:
        """Ranges and statistics of the old basis mean nothing in the new one."""
        if recipe.clip is not None:
            return "clip searches ranges in a basis that incoherence processing leaves: set clip to null"
        if extra := sorted(self.inner.needs - {"hessian"}):
            return f"rounding.inner reads {extra[0]}, but only the hessian can be given in the new basis"
        return super().refusal(recipe)

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        """Round weight float32 [out, in]. Raises ValueError if a Hessian is needed and is missing or not finite."""
        H = finite_hessian(stats) if self.needs else None
        s = channel_scales(weight, H) if self.rescale and H is not None else None  # step 1
        basis = Basis.random((weight.shape[0], weight.shape[1]), self.seed, s, weight.device)
        if stats is not None:
            stats = LinearStats(n_tokens=stats.n_tokens, hessian=None if H is None else basis.hessian(H))
        rounded = self.inner.round(basis.weight(weight), stats, format)  # steps 2 and 3
        back = (*rounded.weight.corrections, Incoherent(seed=self.seed, s=s))
        return dataclasses.replace(rounded, weight=dataclasses.replace(rounded.weight, corrections=back))


def channel_scales(weight: Tensor, hessian: Tensor) -> Tensor:
    """Step 1: s float16 [in], between 1e-2 and 1e2."""
    ratio = _relative(hessian.diagonal()) / _relative(weight.square().sum(0))
    return ratio.pow(0.25).half()


def _relative(values: Tensor) -> Tensor:
    largest = values.max()
    return (values / largest).clamp(min=SMALLEST) if bool(largest > 0) else torch.ones_like(values)
