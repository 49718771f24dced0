"""Orthogonal rotation of what flows through a model, so that no channel of an activation stands out.

Paper      QuaRot (arXiv 2404.00456); the names R1, R2 are SpinQuant's (arXiv 2405.16406)
Rewrite    x (R W^T) = (x R) (W R)^T: whoever writes x writes x R, whoever reads it has W R in place of W [out, in].
             residual  R1 [d, d] on the residual stream x [.., d]. Root-mean-square normalizations commute with R1 once
                       their gain g is folded into their readers: norm(x R1) = norm(x) R1 for g = 1. Then
                       embeddings E <- E R1; readers, head W <- W diag(g) R1; writers W <- R1^T W, bias <- bias R1
             value     R2 [h, h], h the width of a head, between values and what reads the attention's output:
                       attention weights mix tokens, not channels, so each head's R2 passes through.
                       per head W_v <- R2^T W_v, bias <- bias R2, W_o <- W_o R2
             heads     the input of W_o [.., heads h] is rotated across heads as the model runs; W_o <- W_o (R x I_h)
             down      the input of the MLP's last layer is rotated as the model runs; W <- W R
           The embeddings' mean is not subtracted, as QuaRot's authors do: that changes the function.
Matrices   `transforms.hadamard`; one for the stream, one of its own for every layer's value, heads and down.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from quantbench.core.component import Part, component
from quantbench.transforms.hadamard import Orthogonal


@component
class Rotation(Part):
    """Which rotations, and their seed: an axis of replicates, since random rotations differ noticeably.

    residual  R1 on the residual stream, folded into the weights
    value     R2 per head between values and the attention's output projection, folded into the weights
    heads     across heads before the output projection, as the model runs
    down      before the last layer of the MLP, as the model runs
    """

    residual: bool = True
    value: bool = True
    heads: bool = True
    down: bool = True
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _rotates(self) -> Rotation:
        if not (self.residual or self.value or self.heads or self.down):
            raise ValueError("residual, value, heads and down are all false: nothing is rotated; set rotation: null")
        return self

    def matrix(self, size: int, what: str) -> Orthogonal:
        """The rotation of what `what` names, of a given size."""
        return Orthogonal(size, self.text(what))

    def text(self, what: str) -> str:
        """The text that seeds the rotation of what `what` names."""
        return f"{self.seed} {what}"
