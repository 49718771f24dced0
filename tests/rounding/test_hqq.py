from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, random
from quantbench.core.errors import ConfigError
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize, with_params
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.hqq import Hqq, shrink
from recipes import assert_pure_and_data_free, make_recipe


def real_zero(bits: int = 4, group_size: Any = 64, **options: Any) -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False, zero_rounding=False, **options)


def hqq(weight: Tensor, grid: IntFormat, **options: Any) -> QuantizedWeight:
    return Hqq(**options).round(weight, None, grid).weight


def objective(weight: Tensor, rounded: QuantizedWeight, group_size: int, p: float = 0.7) -> Tensor:
    """Sum of |error|^p in each group [out, g]."""
    error = (rounded.dequantize() - weight).abs().pow(p)
    return torch.stack([part.sum(1) for part in torch.split(error, group_size, dim=1)], dim=1)


@settings(max_examples=15)
@given(
    bits=st.integers(2, 5),
    group_size=st.sampled_from([5, 16, 64]),
    p=st.sampled_from([0.5, 0.7, 1.0]),
    beta=st.sampled_from([0.5, 10.0, 1e4]),
    unit=st.sampled_from(["weight", "step"]),
    seed=st.integers(0, 99),
)
def test_no_group_ends_worse_than_rounding_to_nearest(
    bits: int, group_size: int, p: float, beta: float, unit: str, seed: int
) -> None:
    weight, grid = random(6, 44, seed=seed), real_zero(bits, group_size)
    ours = objective(weight, hqq(weight, grid, p=p, beta=beta, unit=unit, start="real"), group_size, p)
    start = objective(weight, quantize(weight, grid), group_size, p)
    assert bool((ours <= start * (1 + 1e-6)).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_zero_points_may_begin_at_integers(bits: int) -> None:
    weight, grid = 0.02 * random(64, 256, seed=1), real_zero(bits)
    found = hqq(weight, grid, start="rounded")
    integers = quantize(weight, IntFormat(bits=bits, group_size=64, symmetric=False))
    assert bool((objective(weight, found, 64) <= objective(weight, integers, 64) * (1 + 1e-6)).all())
    assert found.params.zero is not None
    assert not torch.equal(found.params.zero, found.params.zero.round())
    weight = 0.5 * (torch.arange(64.0) % 2**bits - 2)[None]  # on the grid of integers, which nothing improves
    assert torch.equal(hqq(weight, grid, start="rounded").dequantize(), weight)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_objective_is_smaller_than_nearest_and_smallest_with_errors_in_steps(bits: int) -> None:
    weight, grid = 0.02 * random(64, 256, seed=1), real_zero(bits)
    integers = IntFormat(bits=bits, group_size=64, symmetric=False)
    nearest, own, step, rounded_zero = (
        float(objective(weight, found, 64).sum())
        for found in (
            quantize(weight, grid),
            hqq(weight, grid, start="real"),
            hqq(weight, grid, unit="step", start="real"),
            quantize(weight, integers),
        )
    )
    assert step < own < 0.985 * nearest
    assert nearest < rounded_zero


def test_a_small_case_by_hand() -> None:
    """With beta so small that no error is given way to, one iteration makes the mean error of a group 0."""
    weight = torch.tensor([[0.0, 0.6, 1.6, 2.6, 15.0], [0.0, 1.0, 2.0, 2.9, 15.0]])  # scales 1, zero points 0
    rounded = hqq(weight, real_zero(4, 5), iterations=1, beta=1e-9, p=0.7)
    assert rounded.codes.tolist() == [[0, 1, 2, 3, 15]] * 2
    assert rounded.params.zero is not None
    # errors at first 0 .4 .4 .4 0, then .24 .16 .16 .16 .24; in the second row the sum of powers would grow
    assert rounded.params.zero[:, 0].tolist() == pytest.approx([0.24, 0.0], abs=1e-4)


def test_shrink_is_soft_thresholding_for_p_one_and_keeps_large_errors_otherwise() -> None:
    x = torch.tensor([-3.0, -0.1, 0.0, 0.4, 2.0])
    assert shrink(x, 1.0, 2.0).tolist() == pytest.approx([-2.5, 0.0, 0.0, 0.0, 1.5])
    assert shrink(x, 0.5, 2.0)[4].item() == pytest.approx(2 - 2**-0.5 / 2)


def test_errors_in_steps_make_the_scale_of_the_weight_irrelevant() -> None:
    weight, grid = random(8, 128, seed=2), real_zero(3)
    assert torch.equal(hqq(weight, grid, unit="step").codes, hqq(weight / 256, grid, unit="step").codes)


def test_zero_points_are_real_stored_in_float16_and_counted() -> None:
    grid, weight = real_zero(), random(8, 100, seed=3)
    rounded = hqq(weight, grid)
    zero = rounded.params.zero
    assert zero is not None
    assert bool((zero != zero.round()).any())
    stored = grid.pack(rounded.codes, rounded.params)
    assert stored["zero"].dtype == torch.float16
    codes, params = grid.unpack(stored, (8, 100))
    assert torch.equal(QuantizedWeight(codes, params, grid).dequantize(), rounded.dequantize())
    assert rounded.bits_per_weight() == 4 + (16 + 16) * 2 / 100
    assert torch.equal(rounded.params.scale, grid.params(weight).scale)


def test_zero_rows_and_constant_rows() -> None:
    weight = torch.zeros(3, 64)
    weight[1] = 0.25
    weight[2] = random(64, seed=4)
    rounded = hqq(weight, real_zero()).dequantize()
    assert torch.equal(rounded[0], torch.zeros(64))
    torch.testing.assert_close(rounded[1], weight[1], rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        hqq(weight / 0, real_zero())


def test_it_reads_no_data_and_does_not_change_its_input() -> None:
    recipe = make_recipe("hqq")
    assert_pure_and_data_free(recipe)
    assert recipe.weight is not None
    assert recipe.weight.bits_per_weight((64, 640)) == 4.5


def test_formats_without_a_real_zero_point_for_each_row_are_refused() -> None:
    for options in ("zero_rounding=true", "group_size=tensor"):
        with pytest.raises(ConfigError, match="HQQ"):
            make_recipe("hqq", f"quantizer.weight.{options}")
    with pytest.raises(ConfigError, match="double_quantization"):
        make_recipe("hqq", "format@quantizer.weight=int_double_quantization", "quantizer.weight.zero_rounding=false")
    with pytest.raises(ValueError, match="HQQ moves zero points"):
        Hqq().round(random(2, 8, seed=6), None, PowersOfTwo(8))
    with pytest.raises(ValidationError, match="p"):
        Hqq(p=1.5)


def step_by_step(W: Tensor, grid: IntFormat, p: float, beta: float, kappa: float, unit: str) -> QuantizedWeight:
    """The steps with every row in every iteration, for one group of all columns."""
    fitted = grid.params(W)
    assert fitted.zero is not None
    start = now = replace(fitted, zero=fitted.zero.round())
    best, least = fitted.zero.round(), torch.full_like(fitted.scale, torch.inf)
    for _ in range(21):
        assert now.zero is not None
        C, s = grid.encode(W, now).float(), now.scale
        error = W - s * (C - now.zero)
        objective = error.abs().pow(p).sum(1, keepdim=True)
        better = objective < least
        if not bool(better.any()):
            break
        least, best = torch.where(better, objective, least), torch.where(better, now.zero, best)
        u = s if unit == "step" else 1.0
        now = grid.stored(replace(now, zero=(C - (W - shrink(error / u, p, beta) * u) / s).mean(1, keepdim=True)))
        beta *= kappa
    return with_params(W, replace(start, zero=best), grid)


@settings(max_examples=25)
@given(
    bits=st.sampled_from([3, 4, 8]),
    p=st.sampled_from([0.5, 0.7, 1.0]),
    beta=st.sampled_from([0.5, 10.0, 300.0]),
    unit=st.sampled_from(["weight", "step"]),
    size=st.sampled_from([0.02, 0.3, 3.0]),
    seed=st.integers(0, 99),
)
def test_neither_leaving_out_what_has_settled_nor_stacking_groups_makes_a_bit_of_difference(
    bits: int, p: float, beta: float, unit: str, size: float, seed: int
) -> None:
    weight, grid = size * random(40, 148, seed=seed), real_zero(bits)  # groups of 64, 64 and 20 columns
    weight[3] *= 50  # errors of some rows are given way to, those of others are not
    weight[:, 64:128] *= 10  # and groups end at different iterations
    found = hqq(weight, grid, p=p, beta=beta, unit=unit)
    alone = [step_by_step(W, grid, p, beta, 1.01, unit) for W in torch.split(weight, 64, dim=1)]
    assert torch.equal(found.codes, torch.cat([one.codes for one in alone], dim=1))
    params = GridParams.join([one.params for one in alone])
    assert found.params.zero is not None
    assert params.zero is not None
    assert torch.equal(found.params.zero, params.zero)
    assert torch.equal(found.params.scale, params.scale)
