"""The least that a recipe's work can take: its multiplications, at the rate at which the machine multiplies matrices.

Of a model of Llama's shape, with T calibration tokens in sequences of L and linear layers W [out, in]: a forward of the
blocks takes 2 T sum(out in) operations, and its attention, where each token reads on the average half of its sequence,
2 T L hidden; a Hessian of one input 2 T in^2, of which a symmetric product needs half; the inverse of its Cholesky
factor in^3; rounding by columns out in^2, since each column's error goes into those behind it. What is not counted
takes time, too: a floor is no promise.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Blocks of Llama's shape."""

    blocks: int
    hidden: int
    key_value: int
    intermediate: int

    def layers(self) -> list[tuple[int, int]]:
        """(rows, columns) of the weights that read one input, stacked."""
        h, m = self.hidden, self.intermediate
        return [(h + 2 * self.key_value, h), (h, h), (2 * m, h), (h, m)]


PACKAGED = Shape(blocks=30, hidden=576, key_value=192, intermediate=1536)
"""SmolLM2-135M."""


def operations(recipe: str, tokens: int, length: int = 512, shape: Shape = PACKAGED) -> float | None:
    """Multiplications and additions of a recipe; None where nothing that costs is a matrix product.

    GPTQ runs each weight once, as the next one's input is calibrated on what it writes; AWQ twice, once in full
    precision for its scales, which are sought among 20, each of which is judged by tr(dW H dW^T). SmoothQuant's scales
    need what normalizations write alone, and for that no more than attention in full precision. Nothing reads what the
    last block writes when it is quantized.
    """
    layers = shape.layers()
    attention = 2.0 * tokens * length * shape.hidden
    forward = attention + sum(2.0 * tokens * rows * columns for rows, columns in layers)
    hessians = sum(1.0 * tokens * columns**2 for _, columns in layers)
    if recipe.startswith("gptq"):
        rounding = sum(columns**3 + rows * columns**2 for rows, columns in layers)
        return shape.blocks * (forward + hessians + rounding)
    if recipe == "awq":
        search = sum(20.0 * rows * columns**2 for rows, columns in layers)
        return shape.blocks * (2 * forward + hessians + search) - forward
    until_norms = attention + sum(2.0 * tokens * rows * columns for rows, columns in layers[:2])
    return shape.blocks * (until_norms + forward) - forward if recipe == "smoothquant" else None


def matrix_rate(threads: int) -> float:
    """Operations per processor second of a product of float32 matrices that are large enough."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(4096, 1536), torch.randn(1536, 1536)
    left @ right
    started, times = time.process_time(), 4
    for _ in range(times):
        left @ right
    return times * 2.0 * 4096 * 1536**2 / (time.process_time() - started)
