"""The differentiable integer grid: its values are the format's, its gradients those of straight-through rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import PowersOfTwo, random
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.straight_through import straight_through
from quantbench.rounding.fake_quantize import FakeQuantizer, fake_quantizer, unlearnable

FORMATS: list[dict[str, Any]] = [
    {"bits": 3, "group_size": 4, "symmetric": False},
    {"bits": 4, "group_size": 5, "symmetric": False},  # the last group is short
    {"bits": 2, "group_size": "channel", "symmetric": True, "scale_convention": "full_range"},
    {"bits": 3, "group_size": 4, "symmetric": True, "scale_convention": "narrow_range"},
    {"bits": 4, "group_size": "tensor", "symmetric": False},
]


def made(**options: Any) -> IntFormat:
    return IntFormat(**options)


def test_straight_through_is_the_value_and_the_identity_backwards() -> None:
    x = random(50, seed=0).requires_grad_()
    y = straight_through(x.detach() * 0.1234567, x)
    assert torch.equal(y, x.detach() * 0.1234567)
    (gradient,) = torch.autograd.grad(y, x, torch.arange(50.0))
    assert torch.equal(gradient, torch.arange(50.0))


@pytest.mark.parametrize("options", FORMATS)
def test_with_the_whole_range_and_no_offset_it_rounds_to_nearest(options: dict[str, Any]) -> None:
    grid, weight = made(**options), random(6, 12, seed=1)
    soft = fake_quantizer(grid, weight)
    nearest = quantize(weight, grid)
    assert torch.equal(soft.values(weight, soft.range(weight)), nearest.dequantize())
    stored = soft.quantized(weight, soft.range(weight), torch.zeros_like(weight))
    assert torch.equal(stored.codes, nearest.codes)
    assert torch.equal(stored.params.scale, nearest.params.scale)


@pytest.mark.parametrize("options", FORMATS)
def test_what_is_stored_is_what_was_learned_with(options: dict[str, Any]) -> None:
    grid, weight = made(**options), random(6, 12, seed=2)
    soft = fake_quantizer(grid, weight)
    low, high = soft.range(weight)
    limits = (low * torch.empty_like(low).uniform_(0.5, 1), high * torch.empty_like(high).uniform_(0.5, 1))
    offset = torch.empty_like(weight).uniform_(-0.5, 0.5)
    stored = soft.quantized(weight, limits, offset)
    assert torch.equal(stored.dequantize(), soft.values(weight, limits, offset))
    assert torch.equal(stored.params.scale, stored.params.scale.half().float())
    codes, params = grid.unpack(grid.pack(stored.codes, stored.params), (6, 12))
    assert torch.equal(codes, stored.codes)
    assert torch.equal(params.scale, stored.params.scale)


@pytest.mark.parametrize("options", [FORMATS[0], FORMATS[2], FORMATS[3]])
def test_gradients_are_those_of_straight_through_rounding(options: dict[str, Any]) -> None:
    grid, weight, offset = made(**options), random(6, 12, seed=3), 0.4 * random(6, 12, seed=4).clamp(-1, 1)
    shrink = 0.5 + 0.5 * torch.rand(2, generator=torch.Generator().manual_seed(0))
    outer = random(6, 12, seed=5)

    def gradients(function: Any) -> list[Tensor]:
        given = [t.clone().requires_grad_() for t in (weight, offset, shrink)]
        return list(torch.autograd.grad(function(*given), given, outer))

    soft = FakeQuantizer(grid, weight.shape)
    low, high = soft.range(weight)

    def here(w: Tensor, v: Tensor, factors: Tensor) -> Tensor:
        return soft.values(w, (low * factors[0], high * factors[1]), v)

    def rounded(x: Tensor) -> Tensor:
        return x + (x.round() - x).detach()

    def reference(w: Tensor, v: Tensor, factors: Tensor) -> Tensor:
        down, up, steps = low * factors[0], high * factors[1], 2**grid.bits - 1
        lowest = 0
        if grid.symmetric:
            narrow = grid.scale_convention == "narrow_range"
            lowest = int(narrow)
            scale = torch.maximum(-down, up) / ((steps - 1) / 2 if narrow else steps / 2)
        else:
            scale = (up - down) / float(steps)
        scale = scale + (scale.half().float() - scale).detach()
        zero = torch.tensor(2.0 ** (grid.bits - 1)) if grid.symmetric else rounded(-down / scale)
        groups, offsets = w.reshape(6, low.shape[1], -1), v.reshape(6, low.shape[1], -1)
        q = (rounded(groups / scale + offsets) + zero).clamp(lowest, steps) - zero
        values: Tensor = (q * scale).reshape(6, 12)
        return values

    for found, expected in zip(gradients(here), gradients(reference), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_formats_whose_ranges_cannot_be_learned() -> None:
    class Halved(IntFormat):
        def params(self, weight: Tensor, importance: Tensor | None = None) -> GridParams:
            found = super().params(weight)
            return GridParams(found.scale / 2, found.zero)

    assert unlearnable(made(**FORMATS[0])) is None
    assert unlearnable(None) is None
    assert "set range: minmax" in str(unlearnable(made(**FORMATS[0], range="mse")))
    assert "PowersOfTwo is no integer format" in str(unlearnable(PowersOfTwo(4)))
    assert "not those of the minimum and maximum" in str(unlearnable(Halved(**FORMATS[0])))


@pytest.mark.parametrize("value", [float("nan"), 1e9])
def test_weights_that_have_no_scale_are_refused(value: float) -> None:
    weight = random(4, 8, seed=0)
    weight[1, 2] = value
    with pytest.raises(ValueError, match=r"NaN or infinity|overflows scale_dtype"):
        fake_quantizer(made(**FORMATS[0]), weight)


def test_a_group_of_zeros_stays_zero() -> None:
    weight = random(4, 8, seed=0)
    weight[:, :4] = 0
    soft = fake_quantizer(made(**FORMATS[0]), weight)
    assert not soft.values(weight, soft.range(weight))[:, :4].any()
