"""For the tests of the mathematics: correlated inputs, their statistics, and a format that is not an integer grid."""

from __future__ import annotations

import torch
from torch import Tensor

from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import group_count
from quantbench.formats.grid_params import GridParams
from quantbench.formats.packed import PackedGrid


def random(*shape: int, seed: int) -> Tensor:
    """Standard normal values."""
    values: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values


def correlated_inputs(tokens: int, width: int, seed: int, mixing: int = 0) -> Tensor:
    """X [tokens, width]. Equal `mixing` means the same distribution, equal `seed` too the same draw."""
    mixed: Tensor = random(tokens, width, seed=seed) @ (random(width, width, seed=1000 + mixing) / width**0.5)
    return mixed


def stats_of(x: Tensor) -> LinearStats:
    """All statistics of inputs X [tokens, in]."""
    return LinearStats(
        n_tokens=len(x),
        hessian=2 / len(x) * x.T @ x,
        absmax=x.abs().amax(0),
        mean_abs=x.abs().mean(0),
        minimum=x.amin(0),
        maximum=x.amax(0),
    )


def hessian_stats(hessian: Tensor) -> LinearStats:
    """Statistics that consist of a Hessian only."""
    return LinearStats(n_tokens=1, hessian=hessian)


class PowersOfTwo(PackedGrid):
    """A format with uneven levels {0, +-1/4, +-1/2, +-1} x absmax, as a user might add: only the protocol is known."""

    levels = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])

    bits = 3
    scale_dtype = "float32"

    def __init__(self, group_size: int) -> None:
        self.group_size = group_size

    def columns_per_group(self, in_features: int) -> int:
        return self.group_size

    def params(self, weight: Tensor) -> GridParams:
        return GridParams(
            torch.stack([part.abs().amax(1) for part in torch.split(weight, self.group_size, dim=1)], dim=1)
        )

    def encode(self, weight: Tensor, params: GridParams) -> Tensor:
        return ((weight / params.scale)[..., None] - self.levels).abs().argmin(-1).to(torch.uint8)

    def decode(self, codes: Tensor, params: GridParams) -> Tensor:
        return self.levels[codes.long()] * params.scale

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        return 3 + 32 * group_count(shape[1], self.group_size) / shape[1]
