"""The kernel of rounding to nearest gives, to the bit, what the grid gives pass by pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.formats import nearest_kernel
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.quantize import nearest_error, quantize

WIDTH = 80
FORMATS: list[dict[str, Any]] = [
    {"symmetric": False},
    {"symmetric": True, "scale_convention": "full_range"},
    {"symmetric": True, "scale_convention": "narrow_range"},
    {"symmetric": True, "scale_convention": "twos_complement"},
]
GROUPS: list[Any] = [1, 16, 64, 200, "channel"]  # 64: the last one is short


def without_kernel(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(nearest_kernel, "kernels", lambda _name: None)
        return work()


def weights() -> Tensor:
    """Rows of many sizes: ordinary, tiny, of one sign, of zeros, of one outlier, halfway between levels."""
    weight = random(12, WIDTH, seed=3) * torch.logspace(-9, 3, 12)[:, None]
    weight[1] = 0
    weight[2] = weight[2].abs()
    weight[3] = -weight[3].abs()
    weight[4, 7] = 1000.0
    weight[5] = torch.arange(WIDTH) / 2
    weight[6, ::2] = -0.0
    return weight


def identical(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group_size", GROUPS)
@pytest.mark.parametrize("scale_dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_weights(
    kind: dict[str, Any], scale_dtype: Any, group_size: Any, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid_format, weight = IntFormat(bits=bits, group_size=group_size, scale_dtype=scale_dtype, **kind), weights()
    quick, slow = quantize(weight, grid_format), without_kernel(lambda: quantize(weight, grid_format), monkeypatch)
    assert identical(quick.codes, slow.codes)
    assert identical(quick.params.scale, slow.params.scale)
    assert identical(quick.params.zero, slow.params.zero)
    assert identical(quick.dequantize(), without_kernel(quick.dequantize, monkeypatch))
    s = random(WIDTH, seed=4).abs() + 0.1
    columns = min(grid_format.columns_per_group(WIDTH), WIDTH)
    limit = random(12, -(-WIDTH // columns), seed=5).abs()
    for given in ({}, {"s": s}, {"limit": limit}, {"s": s, "limit": limit}):
        again = without_kernel(lambda given=given: nearest_error(weight, grid_format, **given), monkeypatch)  # type: ignore[misc]
        assert identical(nearest_error(weight, grid_format, **given), again)


def test_the_kernel_is_what_rounds() -> None:
    grid = IntFormat(bits=4, group_size=16, symmetric=False).grid
    real = dataclasses.replace(grid, zero_rounding=False)
    for asked, answered in ((grid, True), (real, False)):
        assert (nearest_kernel.nearest_codes(weights(), asked, 16) is not None) is answered
        assert (nearest_kernel.nearest_errors(weights(), asked, 16, None, None) is not None) is answered
        assert (nearest_kernel.nearest_rows(weights(), asked, 1.0) is not None) is answered


def test_a_clamp_and_a_factor_are_those_of_the_formula() -> None:
    grid_format, weight = IntFormat(bits=3, group_size=16, symmetric=False), weights()
    s, limit = torch.full((WIDTH,), 4.0), torch.full((12, WIDTH // 16), 0.5)
    expected = weight - quantize((weight * 4).clamp(-0.5, 0.5), grid_format).dequantize() / 4
    assert torch.equal(nearest_error(weight, grid_format, s, limit), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_may_be_shared_among_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_kernel, "LEAST", 2)
    grid_format, weight, before = IntFormat(bits=4, group_size=16, symmetric=False), weights(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        quick = quantize(weight, grid_format)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(quick.codes, without_kernel(lambda: quantize(weight, grid_format), monkeypatch).codes)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e9])
def test_what_has_no_grid_is_refused_as_before(bad: float) -> None:
    weight = weights()
    weight[9, 3] = bad
    with pytest.raises(ValueError, match=r"NaN or infinity|overflows"):
        quantize(weight, IntFormat(bits=2, group_size=16, symmetric=False))
    with pytest.raises(ValueError, match=r"NaN or infinity|overflows"):
        nearest_error(weight, IntFormat(bits=2, group_size=16, symmetric=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("clip_ratio", [1.0, 0.9])
@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_activations(
    kind: dict[str, Any], clip_ratio: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid_format = IntActivation(bits=8, granularity="token", dynamic=True, clip_ratio=clip_ratio, **kind)
    x = random(2, 5, WIDTH, seed=6).mul(10).to(dtype)
    x[0, 1] = 0
    x[1, 2, 3] = 300
    assert identical(grid_format.fake_quantize(x), without_kernel(lambda: grid_format.fake_quantize(x), monkeypatch))
    turned = x.transpose(0, 1)
    assert identical(
        grid_format.fake_quantize(turned), without_kernel(lambda: grid_format.fake_quantize(turned), monkeypatch)
    )
    x[1, 0, 0] = torch.nan
    found = grid_format.fake_quantize(x)
    assert bool(found[1, 0, 0].isnan())
    assert identical(found[0], grid_format.fake_quantize(x[:1])[0])
