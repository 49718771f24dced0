from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.corrections import Outliers
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.easyquant import EasyQuant, squared_error
from recipes import assert_pure_and_data_free, make_recipe


def symmetric(bits: int = 4, group_size: Any = "channel", **options: Any) -> IntFormat:
    options = {"scale_convention": "narrow_range", **options}
    return IntFormat(bits=bits, group_size=group_size, symmetric=True, **options)


def easyquant(weight: Tensor, grid: IntFormat, **options: Any) -> QuantizedWeight:
    return EasyQuant(**options).round(weight, None, grid).weight


def errors(weight: Tensor, rounded: QuantizedWeight, group_size: int) -> Tensor:
    """Squared error of each group [out, g], on the grid alone."""
    error = (rounded.on_grid() - weight).square()
    return torch.stack([part.sum(1) for part in torch.split(error, group_size, dim=1)], dim=1)


def test_the_gradient_is_that_of_finite_differences() -> None:
    W, grid = random(16, 40, seed=0), symmetric(3)
    s = 0.83 * grid.params(W).scale
    levels = (W / s).round().clamp(-3, 3)  # f is quadratic in s as long as no level changes: differences are exact
    h = 1e-4 * s

    def f(scale: Tensor) -> Tensor:
        return (levels.double() * scale.double() - W.double()).square().sum(1, keepdim=True)

    found, slope = squared_error(W, GridParams(s), grid)
    torch.testing.assert_close(found.double(), f(s), rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.double(), (f(s + h) - f(s - h)) / (2 * h), rtol=1e-3, atol=1e-3)


@settings(max_examples=15)
@given(
    bits=st.integers(2, 5),
    group_size=st.sampled_from([5, 16, 44]),
    convention=st.sampled_from(["narrow_range", "full_range"]),
    learning_rate=st.sampled_from([1e-3, 0.01, 0.5]),
    seed=st.integers(0, 99),
)
def test_no_group_ends_worse_than_it_began(
    bits: int, group_size: int, convention: str, learning_rate: float, seed: int
) -> None:
    weight, grid = random(6, 44, seed=seed), symmetric(bits, group_size, scale_convention=convention)
    ours = easyquant(weight, grid, sigma=None, learning_rate=learning_rate, steps=20)
    start = errors(weight, quantize(weight, grid), group_size)
    assert bool((errors(weight, ours, group_size) <= start * (1 + 1e-6)).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_error_comes_close_to_that_of_the_best_scale(bits: int) -> None:
    weight, grid = 0.02 * random(32, 256, seed=1), symmetric(bits, scale_dtype="float32")
    ours = errors(weight, easyquant(weight, grid, sigma=None), 256)
    start = grid.params(weight).scale
    tried = [squared_error(weight, GridParams(start * (i / 400)), grid)[0] for i in range(80, 401)]
    best = torch.cat(tried, dim=1).amin(1, keepdim=True)
    assert float(ours.sum()) < 1.03 * float(best.sum())
    assert float(ours.sum()) < 0.9 * float(errors(weight, quantize(weight, grid), 256).sum())


def test_outliers_are_beyond_n_standard_deviations_and_keep_their_values() -> None:
    weight = random(64, 512, seed=2) + 0.5
    rounded = easyquant(weight, symmetric(), steps=0)
    (outliers,) = rounded.corrections
    assert isinstance(outliers, Outliers)
    beyond = (weight - weight.mean()).abs() > 3 * weight.std()
    assert len(outliers.values) == int(beyond.sum())
    assert len(outliers.values) / weight.numel() == pytest.approx(0.0027, rel=0.3)  # of a normal distribution
    assert torch.equal(rounded.dequantize()[beyond], weight[beyond].half().float())
    assert float(rounded.params.scale.max()) <= 3.6 / 7 + 1e-3
    extra = 32 * int(beyond.sum()) / weight.numel() + 32 / 512
    assert rounded.bits_per_weight() == pytest.approx(4 + 16 / 512 + extra)


def test_without_outliers_and_steps_it_is_rounding_to_nearest() -> None:
    weight, grid = random(8, 44, seed=3), symmetric(4, 8)
    plain = easyquant(weight, grid, sigma=None, steps=0)
    assert torch.equal(plain.dequantize(), quantize(weight, grid).dequantize())
    assert plain.corrections == ()


def test_isolation_and_optimisation_each_lower_the_error() -> None:
    weight = random(32, 256, seed=4)
    weight = weight * (1 + 4 * (random(32, 256, seed=5) > 2.5).float())
    found = [
        float((easyquant(weight, symmetric(), **options).dequantize() - weight).norm())
        for options in ({"sigma": None, "steps": 0}, {"steps": 0}, {})
    ]
    assert found[0] > 1.1 * found[1] > 1.1 * found[2]


def test_the_scale_of_the_weight_does_not_matter() -> None:
    weight = random(8, 64, seed=6)
    first, second = (easyquant(w, symmetric(scale_dtype="float32")).codes for w in (weight, weight / 256))
    assert torch.equal(first, second)


def test_zero_and_constant_weights() -> None:
    zeros = easyquant(torch.zeros(4, 16), symmetric())
    assert torch.equal(zeros.dequantize(), torch.zeros(4, 16))
    assert zeros.corrections == ()
    constant = easyquant(torch.full((4, 16), 0.3), symmetric())
    torch.testing.assert_close(constant.dequantize(), torch.full((4, 16), 0.3), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        easyquant(torch.full((2, 4), float("nan")), symmetric())


def test_it_reads_no_data_and_does_not_change_its_input() -> None:
    recipe = make_recipe("easyquant")
    assert_pure_and_data_free(recipe)


def test_formats_with_a_zero_point_or_shared_scales_are_refused() -> None:
    with pytest.raises(ConfigError, match="EasyQuant optimises scales around zero"):
        make_recipe("easyquant", "quantizer.weight.symmetric=false", "quantizer.weight.scale_convention=null")
    with pytest.raises(ConfigError, match="EasyQuant gives every row"):
        make_recipe("easyquant", "quantizer.weight.group_size=tensor")
    with pytest.raises(ValidationError, match="steps"):
        EasyQuant(steps=-1)
