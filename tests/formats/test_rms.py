from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers_math import random
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.formats.rms import RmsFormat


def test_two_bits_stand_for_thirds_of_the_range() -> None:
    grid = RmsFormat(bits=2, group_size="tensor", factor=2.0)
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0], [2.0, 0.1, -0.1, -2.0]])
    scale = float((2 * weight.square().mean().sqrt()).half())
    quantized = quantize(weight, grid)
    assert quantized.params.scale.tolist() == [[scale]]
    expected = torch.tensor([[1.0, -1.0, 1.0, -1.0], [3.0, 1.0, -1.0, -3.0]]) / 3 * scale
    torch.testing.assert_close(quantized.dequantize(), expected)
    assert grid.bits_per_weight((2, 4)) == 2 + 16 / 8


@pytest.mark.parametrize("group_size", [8, 12, "channel", "tensor"])
def test_values_are_nearest_and_stored_values_return(group_size: Any) -> None:
    grid, weight = RmsFormat(bits=3, group_size=group_size), random(6, 28, seed=0)
    assert isinstance(grid, Format)
    quantized = quantize(weight, grid)
    columns = torch.arange(28) // grid.columns_per_group(28)
    candidates = torch.stack([grid.decode(torch.full((6, 28), c), quantized.params.columns(columns)) for c in range(8)])
    torch.testing.assert_close((quantized.dequantize() - weight).abs(), (candidates - weight).abs().amin(0))
    codes, params = grid.unpack(grid.pack(quantized.codes, quantized.params), (6, 28))
    assert torch.equal(codes, quantized.codes)
    assert torch.equal(params.scale, quantized.params.scale)


def test_a_group_of_zeros_stays_near_zero_and_bad_weights_are_refused() -> None:
    grid = RmsFormat(bits=4, group_size="channel")
    assert float(quantize(torch.zeros(2, 8), grid).dequantize().abs().max()) < 1e-7
    for bad in (torch.tensor([[1.0, float("nan")]]), torch.tensor([[1e6, 1e6]])):
        with pytest.raises(ValueError, match="NaN, infinity or values too large"):
            grid.params(bad)
