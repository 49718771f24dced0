"""Activations in the formats of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.activation import FormatActivation
from quantbench.formats.base import ActivationFormat
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantize import quantize, with_params
from quantbench.formats.scaled import ScaledFormat


def fp8(group_size: Any) -> ScaledFormat:
    return ScaledFormat(element="e4m3", group_size=group_size)


def int4(group_size: Any, symmetric: bool = True) -> IntFormat:
    convention: Any = "narrow_range" if symmetric else None
    return IntFormat(
        bits=4, group_size=group_size, symmetric=symmetric, scale_convention=convention, scale_dtype="float32"
    )


PER_TOKEN: dict[str, Any] = {
    "int4_group": int4(8),
    "int4_asymmetric": int4("channel", symmetric=False),
    "fp8_token": fp8("channel"),
    "mxfp4": MxFormat(element="e2m1"),
    "mxfp8": MxFormat(element="e4m3", group_size=8),
    "nvfp4": Nvfp4Format(group_size=8),
}
EACH = pytest.mark.parametrize("grid", PER_TOKEN.values(), ids=PER_TOKEN)


def dynamic(grid: Any) -> FormatActivation:
    return FormatActivation(format=grid, dynamic=True)


def static(grid: Any) -> FormatActivation:
    return FormatActivation(format=grid, dynamic=False)


def tokens() -> Tensor:
    """[2, 3, 20], of very different sizes."""
    return random(2, 3, 20, seed=0) * torch.tensor([1.0, 100.0, 0.01])[:, None]


@EACH
def test_each_token_is_rounded_as_a_weight_of_one_row(grid: Any) -> None:
    x = tokens()
    result = dynamic(grid).fake_quantize(x)
    assert result.shape == x.shape
    for token, rounded in zip(x.reshape(-1, 20), result.reshape(-1, 20), strict=True):
        assert torch.equal(rounded, quantize(token[None], grid).dequantize()[0])


@EACH
def test_a_clipped_range_is_that_of_smaller_tokens(grid: Any) -> None:
    x = tokens()
    clipped = FormatActivation(format=grid, dynamic=True, clip_ratio=0.5).fake_quantize(x)
    for token, rounded in zip(x.reshape(-1, 1, 20), clipped.reshape(-1, 1, 20), strict=True):
        assert torch.equal(rounded, with_params(token, grid.params(token / 2), grid).dequantize())
    assert float(clipped.abs().max()) < float(x.abs().max())


def test_a_calibrated_range_is_clipped_too() -> None:
    half = FormatActivation(format=int4("tensor"), dynamic=False, clip_ratio=0.5)
    scale, zero = half.static_params(torch.tensor([-3.0, 0.0]), torch.tensor([1.0, 14.0]))
    assert (float(scale), zero) == (1.0, None)
    assert half.fake_quantize(torch.tensor([[14.0, 2.4]]), scale, zero).tolist() == [[7.0, 2.0]]


@EACH
def test_a_token_that_is_not_finite_is_visible_and_harms_no_other(grid: Any) -> None:
    x = tokens()
    x[0, 1, 4], x[1, 2, 0] = torch.nan, torch.inf
    result = dynamic(grid).fake_quantize(x)
    assert result.isnan().all(dim=-1).tolist() == [[False, True, False], [False, False, True]]
    fine = ~result.isnan()
    assert torch.equal(result[fine], dynamic(grid).fake_quantize(tokens())[fine])


@EACH
def test_zeros_stay_zero_and_no_tokens_stay_none(grid: Any) -> None:
    assert torch.equal(dynamic(grid).fake_quantize(torch.zeros(2, 20)), torch.zeros(2, 20))
    assert dynamic(grid).fake_quantize(torch.zeros(0, 20)).shape == (0, 20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_input_and_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = tokens().to(dtype)
    for grid in PER_TOKEN.values():
        result = dynamic(grid).fake_quantize(x)
        assert result.dtype is dtype
        assert torch.equal(result, dynamic(grid).fake_quantize(x.float()).to(dtype))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["token", "tensor"])
def test_integers_agree_with_the_integer_activation(granularity: Any, symmetric: bool) -> None:
    convention: Any = "narrow_range" if symmetric else None
    options: Any = {"bits": 4, "symmetric": symmetric, "scale_convention": convention, "granularity": granularity}
    grid, x = int4("channel" if granularity == "token" else "tensor", symmetric), tokens()
    assert torch.equal(dynamic(grid).fake_quantize(x), IntActivation(dynamic=True, **options).fake_quantize(x))
    if granularity == "tensor":
        low, high = torch.tensor([-1.0, -2.0]), torch.tensor([5.0, 0.5])
        ours, theirs = static(grid), IntActivation(dynamic=False, **options)
        assert ours.static_params(low, high) == theirs.static_params(low, high)
        params = ours.static_params(low, high)
        assert torch.equal(ours.fake_quantize(x, *params), theirs.fake_quantize(x, *params))


def test_static_fp8_saturates_beyond_the_calibrated_range() -> None:
    activation = static(fp8("tensor"))
    scale, zero = activation.static_params(torch.tensor([-448.0, 0.0]), torch.tensor([3.0, 2.0]))
    assert (float(scale), zero) == (1.0, None)
    x = torch.tensor([[1000.0, -17.0, 0.3]])
    assert activation.fake_quantize(x, scale).tolist() == [[448.0, -16.0, 0.3125]]


def test_static_on_the_range_it_was_fitted_to_equals_dynamic() -> None:
    x = tokens().reshape(-1, 20)
    params = static(fp8("tensor")).static_params(x.amin(0), x.amax(0))
    assert torch.equal(static(fp8("tensor")).fake_quantize(x, *params), dynamic(fp8("tensor")).fake_quantize(x))


def test_the_calibrated_scale_of_nvfp4_is_the_shared_one() -> None:
    grid, x = Nvfp4Format(group_size=8), tokens().reshape(-1, 20)
    activation = static(grid)
    shared, zero = activation.static_params(x.amin(0), x.amax(0))
    assert zero is None
    assert torch.equal(activation.fake_quantize(x, shared), quantize(x, grid).dequantize())
    largest = activation.fake_quantize(1000 * x, shared).abs().max()
    assert float(largest) == pytest.approx(float(x.abs().max()), rel=1e-6)


def test_only_static_formats_need_calibration() -> None:
    assert static(fp8("tensor")).needs == {"minimum", "maximum"}
    assert dynamic(fp8("tensor")).needs == frozenset()
    assert isinstance(dynamic(fp8("tensor")), ActivationFormat)


def test_missing_and_superfluous_parameters_are_refused() -> None:
    x = tokens()
    with pytest.raises(ValueError, match="needs the parameters that static_params"):
        static(fp8("tensor")).fake_quantize(x)
    with pytest.raises(ValueError, match="needs the parameters that static_params"):
        static(int4("tensor", symmetric=False)).fake_quantize(x, torch.tensor(1.0))
    with pytest.raises(ValueError, match="pass none"):
        dynamic(fp8("tensor")).fake_quantize(x, torch.tensor(1.0))


@pytest.mark.parametrize("grid", [fp8("channel"), fp8(8), MxFormat(element="e2m1")])
def test_static_scales_of_tokens_that_are_not_known_are_refused(grid: Any) -> None:
    with pytest.raises(ConfigError, match=r"dynamic=false needs format\.group_size=tensor"):
        static(grid)


def test_tokens_that_share_a_block_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"format\.block_rows must be 1"):
        dynamic(ScaledFormat(element="e4m3", group_size=8, block_rows=2))
