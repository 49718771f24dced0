"""Calibration data for the tests of the mathematics: correlated inputs and their statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from quantbench.pipeline.stats import LinearStats


def random(*shape: int, seed: int) -> Tensor:
    """Standard normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated_inputs(tokens: int, width: int, seed: int, mixing: int = 0) -> Tensor:
    """X [tokens, width]. Equal `mixing` means the same distribution, equal `seed` too the same draw."""
    return random(tokens, width, seed=seed) @ random(width, width, seed=1000 + mixing) / width**0.5


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
