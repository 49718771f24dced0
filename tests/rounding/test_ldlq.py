from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, correlated_inputs, hessian_stats, random, stats_of
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.hessian import unit_cholesky
from quantbench.rounding.ldlq import Ldlq

GREEDY = {"sort": True, "greedy_passes": 9}


def grid(bits: int = 3, group_size: Any = "channel") -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False)


def ldlq(weight: Tensor, stats: LinearStats, format: Format, **options: Any) -> QuantizedWeight:
    result = Ldlq(**options).round(weight, stats, format)
    assert result.fallbacks == {}
    return result.weight


def test_a_worked_example() -> None:
    """H = [[2, 1], [1, 2]], damping negligible: L_21 = 1/2. Column 2: .6 -> 1, error -.4; column 1: .6 - .2 -> 0."""
    integers = IntFormat(bits=8, group_size="channel", symmetric=True, scale_convention="narrow_range")
    H = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    weight = torch.tensor([[0.6, 0.6, 127.0]])
    assert ldlq(weight, hessian_stats(H), integers, damping=1e-6).dequantize().tolist() == [[0.0, 1.0, 127.0]]


def test_the_factor_is_unit_lower_triangular() -> None:
    H = stats_of(correlated_inputs(200, 24, seed=0).double()).require("hessian")
    factor = unit_cholesky(H, 0.01)
    assert factor is not None
    L = factor.lower
    assert torch.equal(L, L.tril())
    assert torch.equal(L.diagonal(), torch.ones(24, dtype=torch.float64))
    D = L.inverse() @ factor.damped @ L.inverse().T
    torch.testing.assert_close(D, torch.diag(D.diagonal()), atol=1e-10, rtol=0)
    torch.testing.assert_close(factor.damped, H + 0.01 * H.diagonal().mean() * torch.eye(24))


@pytest.mark.parametrize("options", [{}, GREEDY])
@pytest.mark.parametrize("group_size", [8, 12, "channel", "tensor"])
def test_a_diagonal_hessian_gives_nearest_rounding(group_size: Any, options: dict[str, Any]) -> None:
    weight = random(5, 28, seed=1)
    expected = quantize(weight, grid(3, group_size))
    for H in (torch.eye(28), torch.diag(random(28, seed=2).square() + 0.1)):
        result = ldlq(weight, hessian_stats(H), grid(3, group_size), **options)
        assert torch.equal(result.codes, expected.codes)
        assert torch.equal(result.dequantize(), expected.dequantize())


@pytest.mark.parametrize("bits", [2, 4])
def test_it_is_gptq_with_the_columns_in_reverse(bits: int) -> None:
    for seed in range(5):
        weight, stats = random(12, 32, seed=seed), stats_of(correlated_inputs(200, 32, seed=seed, mixing=seed))
        backwards = hessian_stats(stats.require("hessian").flip(0, 1))
        for group_size in (8, "channel"):
            ours = ldlq(weight, stats, grid(bits, group_size))
            theirs = Gptq(static_groups=True).round(weight.flip(1), backwards, grid(bits, group_size)).weight
            assert torch.equal(ours.codes, theirs.codes.flip(1))


def test_sorting_takes_the_column_with_the_largest_diagonal_first() -> None:
    """Then it equals act-order GPTQ, which takes columns in order of falling H_jj."""
    weight, stats = random(12, 32, seed=7), stats_of(correlated_inputs(200, 32, seed=7))
    ours = ldlq(weight, stats, grid(3, 8), sort=True)
    theirs = Gptq(order="activation", static_groups=True).round(weight, stats, grid(3, 8)).weight
    assert torch.equal(ours.codes, theirs.codes)
    assert not torch.equal(ours.codes, ldlq(weight, stats, grid(3, 8)).codes)


def test_the_block_size_and_the_scale_of_h_do_not_matter() -> None:
    weight, stats = random(8, 28, seed=3), stats_of(correlated_inputs(400, 28, seed=3))
    base = ldlq(weight, stats, grid(), **GREEDY)
    for block_size in (1, 5, 1000):
        assert torch.equal(ldlq(weight, stats, grid(), block_size=block_size, **GREEDY).codes, base.codes)
    scaled = hessian_stats(1000 * stats.require("hessian"))
    assert torch.equal(ldlq(weight, scaled, grid(), **GREEDY).codes, base.codes)


@pytest.mark.parametrize("format", [grid(2), grid(4, 8), PowersOfTwo(7)], ids=["int2", "int4", "powers"])
def test_no_greedy_pass_makes_the_objective_worse(format: Format) -> None:
    weight, stats = random(16, 28, seed=4), stats_of(correlated_inputs(100, 28, seed=4))
    H = stats.require("hessian")
    H = H + 0.01 * H.diagonal().mean() * torch.eye(28)
    losses = [
        output_error(weight - ldlq(weight, stats, format, sort=True, greedy_passes=passes).dequantize(), H)
        for passes in range(4)
    ]
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(losses))
    assert losses[3] < losses[0]


def test_on_correlated_inputs_the_summed_error_is_below_nearest() -> None:
    ours, nearest = 0.0, 0.0
    for seed in range(6):
        weight, stats = random(16, 48, seed=seed), stats_of(correlated_inputs(512, 48, seed=seed, mixing=seed))
        H = stats.require("hessian")
        ours += output_error(weight - ldlq(weight, stats, grid(2)).dequantize(), H)
        nearest += output_error(weight - quantize(weight, grid(2)).dequantize(), H)
    assert ours < 0.85 * nearest


def test_what_gives_way_is_counted() -> None:
    x, weight = correlated_inputs(400, 24, seed=5), random(8, 24, seed=5)
    x[:, [3, 17]] = 0
    result = Ldlq().round(weight, stats_of(x), grid(4, 8))
    assert result.fallbacks == {"dead_inputs": 2}
    assert torch.equal(result.weight.dequantize()[:, [3, 17]], torch.zeros(8, 2))
    H = torch.eye(8)
    H[7, 7] = -0.05
    assert Ldlq(damping=0.001).round(weight[:, :8], hessian_stats(H), grid()).fallbacks == {"damping_raised": 2}
    hopeless = hessian_stats(torch.tensor([[1.0, 1e6], [1e6, 1.0]]))
    fallen = Ldlq().round(weight[:, :2], hopeless, grid())
    assert fallen.fallbacks == {"nearest": 1}
    assert torch.equal(fallen.weight.codes, quantize(weight[:, :2], grid()).codes)


def test_inputs_are_unharmed_and_bad_ones_are_refused() -> None:
    weight, stats = random(8, 28, seed=6), stats_of(correlated_inputs(100, 28, seed=6))
    weight_before, hessian_before = weight.clone(), stats.require("hessian").clone()
    ldlq(weight, stats, grid(), **GREEDY)
    assert torch.equal(weight, weight_before)
    assert torch.equal(stats.require("hessian"), hessian_before)
    with pytest.raises(ValueError, match="none were collected"):
        Ldlq().round(weight, None, grid())
    with pytest.raises(ValidationError, match="greedy_passes"):
        Ldlq(greedy_passes=-1)
