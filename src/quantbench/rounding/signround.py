"""Signed-gradient rounding: learns, with the signs of gradients alone, which way each weight rounds, and each range.

Paper      Cheng, Zhang, Shen, Cai, He, Lv, Liu: "Optimize Weight Rounding via Signed Gradient Descent for the
           Quantization of LLMs", 2023 (arXiv 2309.05516); its code is called AutoRound
Objective  min over V, alpha, beta of 1/N sum_i mean |f(X_i; Q) - Y_i|^2, the squared error of the block's output

Symbols    W [out, in]  a weight of the block        V [out, in] in [-.5, .5]  offsets, in units of a step, initially 0
           l, h [out, g]  smallest and largest weight of each group of columns
           alpha, beta [out, g] in [.5, 1]  what h and l are multiplied with, initially 1
           s, z [out, g]  scale and zero point fitted to the range (beta l, alpha h)
           f(X; Q)  the block with weights Q = s (clamp(round(W / s + V) + z) - z); Y_i = f(X_i; W)

Steps      T times, t = 0 .. T - 1:
 1. On a minibatch, the gradients of the objective in V, alpha, beta; rounding has the gradient of the identity.
 2. Each parameter moves by (1 - t / T) lr against the sign of its gradient, lr being 1 / T unless told otherwise: the
    moves add up to about 1/2, so that V can just reach the ends of its range.
 3. V, alpha and beta are put back into their ranges.
The best parameters measured on all sequences are kept. T = 0 is rounding to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import BlockProblem, Rounded
from quantbench.rounding.fake_quantize import FakeQuantizer, Range, fake_quantizer, refuse_unlearnable
from quantbench.rounding.reconstruct import Candidate, Schedule, SignSgd, reconstruct, with_fallbacks

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

_SMALLEST_FACTOR = 0.5

USUAL_STEPS = 200
"""Of its authors: the default of their code."""


@component
class SignRound(Part):
    """Signed-gradient rounding.

    steps        T; 0 is rounding to nearest, and fewer than USUAL_STEPS are told
    batch        sequences of a minibatch
    lr           the first step; null: 1 / T
    learn_range  false: alpha = beta = 1, only the rounding is learned
    seed         of the order of the sequences
    """

    needs: ClassVar[frozenset[str]] = frozenset({"block"})

    steps: Annotated[int, Field(ge=0)] = USUAL_STEPS
    batch: Annotated[int, Field(ge=1)] = 8
    lr: Annotated[float, Field(gt=0)] | None = None
    learn_range: bool = True
    seed: Annotated[int, Field(ge=0)] = 42

    def refusal(self, recipe: Any) -> str | None:
        """Integer formats with ranges of their own only."""
        return refuse_unlearnable(recipe, "signed-gradient rounding")

    def round_block(self, block: BlockProblem) -> dict[str, Rounded]:
        """Steps 1 to 3, T times, for all weights of the block."""
        layers = {name: _Layer.of(W, block.formats[name]) for name, W in block.weights().items()}
        learned = [p for layer in layers.values() for p in layer.parameters(self.learn_range)]
        for parameter in learned:
            parameter.requires_grad_()

        def make() -> Candidate:
            return Candidate({name: layer.values() for name, layer in layers.items()})

        def constrain() -> None:  # step 3
            for layer in layers.values():
                layer.V.clamp_(-0.5, 0.5)
                layer.alpha.clamp_(_SMALLEST_FACTOR, 1)
                layer.beta.clamp_(_SMALLEST_FACTOR, 1)

        schedule = Schedule(self.steps, self.batch, self.seed, decay=True, usual=USUAL_STEPS)
        rate = 1 / max(1, self.steps) if self.lr is None else self.lr
        fallbacks = reconstruct(block, make, SignSgd(learned, rate), schedule, constrain)
        return with_fallbacks({name: layer.quantized() for name, layer in layers.items()}, fallbacks)


@dataclass(frozen=True)
class _Layer:
    """One weight with its grid, its ends (l, h), and what is learned of it."""

    W: Tensor
    quantizer: FakeQuantizer
    ends: Range
    V: Tensor
    alpha: Tensor
    beta: Tensor

    @classmethod
    def of(cls, W: Tensor, format: Format) -> _Layer:
        quantizer = fake_quantizer(format, W)
        low, high = quantizer.range(W)
        return cls(W, quantizer, (low, high), torch.zeros_like(W), torch.ones_like(high), torch.ones_like(low))

    def parameters(self, learn_range: bool) -> list[Tensor]:
        return [self.V, self.alpha, self.beta] if learn_range else [self.V]

    def _range(self) -> Range:
        low, high = self.ends
        return self.beta * low, self.alpha * high

    def values(self) -> Tensor:
        return self.quantizer.values(self.W, self._range(), self.V)

    def quantized(self) -> QuantizedWeight:
        return self.quantizer.quantized(self.W, self._range(), self.V)
