from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.input_stats import LinearStats
from quantbench.formats.int import IntActivation, IntFormat
from quantbench.formats.quantize import quantize
from quantbench.transforms.base import ScaleTransform, ShiftTransform
from quantbench.transforms.os_plus import OsPlus
from recipes import make_recipe

INT4 = IntFormat(bits=4, group_size="channel", symmetric=True, scale_convention="narrow_range")
TOKEN4 = IntActivation(bits=4, symmetric=True, scale_convention="narrow_range", granularity="token", dynamic=True)
STATIC = IntActivation(bits=8, symmetric=False, granularity="tensor", dynamic=False)


def with_outliers(seed: int = 0) -> Tensor:
    """Inputs [200, 16] of which two channels are large and two far from zero."""
    x = correlated_inputs(200, 16, seed=seed)
    x[:, [2, 9]] *= 30
    x[:, [5, 9]] += torch.tensor([40.0, -25.0])
    return x


def sampled(x: Tensor) -> LinearStats:
    return dataclasses.replace(stats_of(x), rows=x)


def loss(x: Tensor, weight: Tensor, s: Tensor, activation: Any = TOKEN4) -> float:
    inputs = activation.fake_quantize(x / s)
    return float((inputs @ quantize(weight * s, INT4).dequantize().T - x @ weight.T).square().sum())


def test_the_shift_is_the_middle_of_each_range() -> None:
    stats = LinearStats(n_tokens=2, minimum=torch.tensor([-1.0, 3.0]), maximum=torch.tensor([5.0, 3.0]))
    assert OsPlus().shift(stats).tolist() == [2.0, 3.0]


def test_shifted_statistics_are_those_of_the_shifted_inputs() -> None:
    x = with_outliers()
    shift = OsPlus().shift(sampled(x))
    moved, wanted = sampled(x).shifted(shift), sampled(x - shift)
    for name in ("absmax", "minimum", "maximum", "rows"):
        torch.testing.assert_close(moved.require(name), wanted.require(name))
    torch.testing.assert_close(moved.require("minimum"), -moved.require("maximum"))
    for name in ("hessian", "mean_abs"):  # they do not follow from what is there
        with pytest.raises(ValueError, match=f"'{name}' was not collected"):
            moved.require(name)


def test_shift_and_scale_leave_the_function_unchanged() -> None:
    x, weight = with_outliers(), random(5, 16, seed=1)
    z = OsPlus().shift(sampled(x))
    s = OsPlus().scale_shifted([weight], sampled(x).shifted(z), INT4, TOKEN4)
    x, weight, z, s = x.double(), weight.double(), z.double(), s.double()
    torch.testing.assert_close((x - z) / s @ (weight * s).T + weight @ z, x @ weight.T)


def test_channels_below_the_threshold_are_not_scaled_and_the_others_get_one_range() -> None:
    x = with_outliers()
    moved = sampled(x).shifted(OsPlus().shift(sampled(x)))
    s = OsPlus().scale_shifted([random(5, 16, seed=1)], moved, INT4, TOKEN4)
    r = moved.require("absmax")
    scaled = s > 1
    assert set(scaled.nonzero()[:, 0].tolist()) >= {2, 9}
    assert not bool(scaled.all())
    ranges = (r / s)[scaled]
    torch.testing.assert_close(ranges, ranges[:1].expand_as(ranges))
    assert float(r[~scaled].max()) <= float(ranges[0]) * (1 + 1e-6)


def total_error(x: Tensor, weights: list[Tensor], s: Tensor, activation: IntActivation) -> float:
    """OS+'s objective for inputs that are shifted already."""
    inputs = x / s
    params = activation.static_params(inputs.amin(0), inputs.amax(0)) if activation.needs else ()
    inputs = activation.fake_quantize(inputs, *params)
    return sum(float((inputs @ quantize(W * s, INT4).dequantize().T - x @ W.T).square().sum()) for W in weights)


@pytest.mark.parametrize("activation", [TOKEN4, STATIC])
def test_never_worse_than_the_shift_alone_and_better_with_outliers(activation: IntActivation) -> None:
    for seed in range(5):
        x, weights = with_outliers(seed), [random(5, 16, seed=seed), random(3, 16, seed=seed + 9)]
        x = x - OsPlus().shift(sampled(x))
        s = OsPlus().scale_shifted(weights, sampled(x), INT4, activation)
        found, shifted = (total_error(x, weights, scale, activation) for scale in (s, torch.ones(16)))
        assert found <= shifted * (1 + 1e-5)
        if activation is TOKEN4:
            assert found < 0.5 * shifted


def test_constant_and_dead_inputs_give_finite_scales() -> None:
    x, weight = with_outliers(), random(5, 16, seed=1)
    x[:, 3], x[:, 4] = 0, 7
    for inputs in (x, torch.zeros(8, 16)):
        stats = sampled(inputs)
        s = OsPlus().scale_shifted([weight], stats.shifted(OsPlus().shift(stats)), None, TOKEN4)
        assert bool((s.isfinite() & (s >= 1)).all())
        assert s[3] == s[4] == 1


def test_contract_and_options() -> None:
    assert isinstance(OsPlus(), ShiftTransform)
    assert not isinstance(OsPlus(), ScaleTransform)
    with pytest.raises(ValidationError, match="grid"):
        OsPlus(grid=0)
    with pytest.raises(Exception, match="OsPlus shifts and scales for quantized activations: set activation"):
        make_recipe("os_plus", "quantizer.activation=null")
