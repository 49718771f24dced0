"""OmniQuant: learns how far to clip each weight's range, and how to share the spread of channels with activations.

Paper      Shao, Chen, Zhang, Xu, Zhao, Li, Zhang, Gao, Qiao, Luo: "OmniQuant: Omnidirectionally Calibrated Quantization
           for Large Language Models", ICLR 2024 (arXiv 2308.13137)
Objective  min over gamma, beta, a of 1/N sum_i mean |f(X_i; Q, s) - Y_i|^2, the squared error of the block's output

Symbols    W [out, in]  a weight of the block     s = exp(a) [in]  a scale of the input of a group of weights
           l, h [out, g]  smallest and largest element of each group of columns of W diag(s)
           gamma, beta [out, g]  the range is (sigmoid(beta) l, sigmoid(gamma) h); initially 4, so sigmoid = .982
           f(X; Q, s)  the block with weights Q = quantized W diag(s), and inputs divided by s; Y_i = f(X_i; W, 1)

Steps
 1. Learnable equivalent transformation (`let`): for each group of weights whose input a normalization writes,
    s_j = max|X_j|^alpha / max|W_:j|^(1 - alpha), SmoothQuant's scale. Inputs nothing else can write have s = 1.
 2. Learnable weight clipping (`lwc`): gamma = beta = 4; without it sigmoid(.) is 1.
 3. AdamW without weight decay on gamma, beta (lwc_lr) and a (let_lr), for `steps` minibatches; rounding has the
    gradient of the identity. The best parameters measured on all sequences are kept. The authors' 20 passes over 128
    sequences, one at a time, are 2560 steps, whatever the number of sequences here.
 4. s is folded into the normalizations, W diag(s) is rounded with the learned range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import BlockProblem, Rounded
from quantbench.rounding.fake_quantize import FakeQuantizer, Range, fake_quantizer, refuse_unlearnable
from quantbench.rounding.reconstruct import Candidate, Schedule, reconstruct, with_fallbacks
from quantbench.transforms.smooth import SmoothQuant

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_START = 4.0

USUAL_STEPS = 2560
"""Of its authors: 20 epochs of 128 sequences."""


@component
class OmniQuant:
    """OmniQuant.

    lwc, let  which of the two is learned; let is meant for recipes that quantize activations
    steps     minibatches; fewer than USUAL_STEPS are told
    batch     sequences of a minibatch
    lwc_lr, let_lr  learning rates
    alpha     SmoothQuant's, of the scales to begin with
    seed      of the order of the sequences
    """

    lwc: bool = True
    let: bool = False
    steps: Annotated[int, Field(ge=0)] = USUAL_STEPS
    batch: Annotated[int, Field(ge=1)] = 1
    lwc_lr: Annotated[float, Field(gt=0)] = 1e-2
    let_lr: Annotated[float, Field(gt=0)] = 5e-3
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 2

    @property
    def needs(self) -> frozenset[str]:
        """The block; learned scales begin with SmoothQuant's, which read absmax."""
        return frozenset({"block", "absmax"} if self.let else {"block"})

    def refusal(self, recipe: Any) -> str | None:
        """Integer formats with ranges of their own only; scales not with calibrated activation ranges."""
        if not (self.lwc or self.let):
            return "OmniQuant has nothing to learn: set rounding.lwc or rounding.let to true"
        if self.let and recipe.activation is not None and recipe.activation.needs:
            return (
                "rounding.let=true changes the range of activations while it learns: "
                "set activation.dynamic=true, or rounding.let=false"
            )
        return refuse_unlearnable(recipe, "OmniQuant")

    def round_block(self, block: BlockProblem) -> dict[str, Rounded]:
        """Steps 1 to 4 for all weights of the block."""
        logs = self._first_scales(block) if self.let else {}  # step 1
        scale_of = {name: log for i, log in logs.items() for name in block.scalable_weights[i]}
        weights = block.weights()
        layers = {n: _Layer.of(W, block.formats[n], scale_of.get(n), self.lwc) for n, W in weights.items()}
        clips = [end for layer in layers.values() for end in layer.logits]
        groups = [{"params": clips, "lr": self.lwc_lr}, {"params": list(logs.values()), "lr": self.let_lr}]

        def make() -> Candidate:
            return Candidate({n: layer.values() for n, layer in layers.items()}, _exp(logs))

        if clips or logs:
            optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=0.0)
            schedule = Schedule(self.steps, self.batch, self.seed, usual=USUAL_STEPS)
            fallbacks = reconstruct(block, make, optimizer, schedule)
        else:
            fallbacks = {}
        rounded = {n: layer.quantized() for n, layer in layers.items()}
        block.fold(_exp(logs))  # step 4
        return with_fallbacks(rounded, fallbacks)

    def _first_scales(self, block: BlockProblem) -> dict[int, Tensor]:
        """a = log s [in] of the groups that can be scaled, by their index in the block."""
        weights, smooth = block.weights(), SmoothQuant(alpha=self.alpha)
        logs: dict[int, Tensor] = {}
        for index, names in block.scalable_weights.items():
            stats = block.stats[index]
            if stats is not None:
                logs[index] = smooth.scale([weights[name] for name in names], stats, ()).log().requires_grad_()
        if not logs:
            raise ValueError("rounding.let=true found no normalization that a scale can be folded into on this model")
        return logs


def _exp(logs: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {index: a.exp() for index, a in logs.items()}


@dataclass(frozen=True)
class _Layer:
    """One weight with its grid, a = log s of its input or None, and (beta, gamma), empty if they are not learned."""

    W: Tensor
    quantizer: FakeQuantizer
    a: Tensor | None
    logits: tuple[Tensor, ...]

    @classmethod
    def of(cls, W: Tensor, format: Format, a: Tensor | None, lwc: bool) -> _Layer:
        quantizer = fake_quantizer(format, W)
        ends = quantizer.range(W) if lwc else ()
        return cls(W, quantizer, a, tuple(torch.full_like(end, _START).requires_grad_() for end in ends))

    def _scaled(self) -> tuple[Tensor, Range]:
        """W diag(s) and its clipped range."""
        W = self.W if self.a is None else self.W * self.a.exp()
        low, high = self.quantizer.range(W)
        if self.logits:
            beta, gamma = self.logits
            low, high = beta.sigmoid() * low, gamma.sigmoid() * high
        return W, (low, high)

    def values(self) -> Tensor:
        return self.quantizer.values(*self._scaled())

    def quantized(self) -> QuantizedWeight:
        W, limits = self._scaled()
        return self.quantizer.quantized(W.detach(), limits)
