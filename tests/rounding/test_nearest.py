from __future__ import annotations

import torch

from helpers_math import random
from quantbench.formats.int import IntFormat
from quantbench.rounding.base import Rounding
from quantbench.rounding.nearest import Nearest


def test_every_element_goes_to_the_nearest_representable_value() -> None:
    weight, grid = random(6, 20, seed=0), IntFormat(bits=3, group_size=8, symmetric=False)
    result = Nearest().round(weight, None, grid)
    columns = torch.arange(20) // 8
    params = result.weight.params.columns(columns)
    candidates = torch.stack([grid.decode(torch.full((6, 20), code), params) for code in range(8)])
    nearest = (candidates - weight).abs().amin(0)
    assert torch.equal((result.weight.dequantize() - weight).abs(), nearest)
    assert result.fallbacks == {}


def test_it_needs_no_statistics_and_leaves_its_input_alone() -> None:
    weight = random(4, 16, seed=1)
    before = weight.clone()
    Nearest().round(weight, None, IntFormat(bits=2, group_size="channel", symmetric=False))
    assert torch.equal(weight, before)
    assert Nearest.needs == frozenset()
    assert isinstance(Nearest(), Rounding)
