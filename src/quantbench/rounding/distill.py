"""Layer-by-layer knowledge distillation: the weights themselves are trained so that the quantized block does better.

Paper      Yao, Aminabadi, Zhang, Wu, Li, He: "ZeroQuant: Efficient and Affordable Post-Training Quantization for
           Large-Scale Transformers", NeurIPS 2022 (arXiv 2206.01861), section 4.2
Objective  min over W' of 1/N sum_i mean |f(X_i; Q(W')) - Y_i|^2, the squared error of the block's output

Symbols    W' [out, in]  a weight of the block, W to begin with     Q(W')  its dequantized values, rounded to nearest
           X_i  what the quantized blocks before write              Y_i = f(X_i; W), the full-precision block on X_i

Steps
 1. W' = W.
 2. Adam on W', for `steps` minibatches; scales are fitted to W' anew in each, and Q has the gradient of the identity.
    The best W' measured on all sequences is kept. It is rounded to nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from quantbench.core.component import Part, component
from quantbench.core.lazy import lazy_module
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.formats.straight_through import straight_through
from quantbench.rounding.base import BlockProblem, Rounded
from quantbench.rounding.reconstruct import Candidate, Schedule, reconstruct, with_fallbacks

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

USUAL_STEPS = 100
"""The default here; the authors' number depends on the model."""


@component
class Distill(Part):
    """Layer-by-layer distillation. It takes any format.

    steps  minibatches; 0 is rounding to nearest, and fewer than USUAL_STEPS are told
    batch  sequences of a minibatch
    lr     learning rate of Adam
    seed   of the order of the sequences
    """

    needs: ClassVar[frozenset[str]] = frozenset({"block"})

    steps: Annotated[int, Field(ge=0)] = USUAL_STEPS
    batch: Annotated[int, Field(ge=1)] = 8
    lr: Annotated[float, Field(gt=0)] = 5e-6
    seed: Annotated[int, Field(ge=0)] = 0

    def round_block(self, block: BlockProblem) -> dict[str, Rounded]:
        """Steps 1 and 2 for all weights of the block."""
        trained = {name: W.clone().requires_grad_() for name, W in block.weights().items()}  # step 1

        def make() -> Candidate:
            return Candidate({name: _nearest(W, block.formats[name]) for name, W in trained.items()})

        optimizer = torch.optim.Adam(list(trained.values()), lr=self.lr)
        schedule = Schedule(self.steps, self.batch, self.seed, usual=USUAL_STEPS)
        fallbacks = reconstruct(block, make, optimizer, schedule)
        rounded = {name: quantize(W.detach(), block.formats[name]) for name, W in trained.items()}
        return with_fallbacks(rounded, fallbacks)


def _nearest(W: Tensor, format: Format) -> Tensor:
    """Q(W), with the gradient of the identity."""
    return straight_through(quantize(W.detach(), format).dequantize(), W)
