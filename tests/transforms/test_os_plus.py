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
from quantbench.transforms.base import Readers, ScaleTransform, ShiftTransform
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


def choose(
    transform: OsPlus, weights: list[Tensor], x: Tensor, activation: Any = TOKEN4, biased: bool = True, **options: Any
) -> tuple[Tensor | None, Tensor | None]:
    formats = options.get("formats", [INT4] * len(weights))
    scalable = options.get("scalable", True)
    return transform.shift_and_scale(Readers(weights, formats, sampled(x), activation, biased, scalable))


def middle(x: Tensor) -> Tensor:
    return (x.amax(0) + x.amin(0)) / 2


@pytest.mark.parametrize("shift", ["bias", True, False])
@pytest.mark.parametrize("biased", [False, True])
def test_what_is_shifted_is_moved_to_the_middle_of_its_range(shift: Any, biased: bool) -> None:
    x = with_outliers()
    z, s = choose(OsPlus(shift=shift), [random(5, 16, seed=1)], x, biased=biased)
    assert s is not None
    if shift is True or (shift == "bias" and biased):
        assert z is not None
        torch.testing.assert_close(z, middle(x))
    else:
        assert z is None


def test_its_authors_do_not_shift_what_a_normalization_without_a_bias_wrote() -> None:
    assert make_recipe("os_plus").transforms["os_plus"] == OsPlus(shift="bias")


def test_shifted_statistics_are_those_of_the_shifted_inputs() -> None:
    x = with_outliers()
    shift = middle(x)
    moved, wanted = sampled(x).shifted(shift), sampled(x - shift)
    for name in ("absmax", "minimum", "maximum", "rows"):
        torch.testing.assert_close(moved.require(name), wanted.require(name))
    torch.testing.assert_close(moved.require("minimum"), -moved.require("maximum"))
    for name in ("hessian", "mean_abs"):  # they do not follow from what is there
        with pytest.raises(ValueError, match=f"'{name}' was not collected"):
            moved.require(name)


def test_shift_and_scale_leave_the_function_unchanged() -> None:
    x, weight = with_outliers(), random(5, 16, seed=1)
    z, s = choose(OsPlus(), [weight], x)
    assert z is not None
    assert s is not None
    x, weight, z, s = x.double(), weight.double(), z.double(), s.double()
    torch.testing.assert_close((x - z) / s @ (weight * s).T + weight @ z, x @ weight.T)


def test_channels_below_the_threshold_are_not_scaled_and_the_others_get_one_range() -> None:
    x = with_outliers()
    z, s = choose(OsPlus(), [random(5, 16, seed=1)], x)
    assert z is not None
    assert s is not None
    r = sampled(x - z).require("absmax")
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
        x = x - middle(x)
        _, s = choose(OsPlus(shift=False), weights, x, activation)
        assert s is not None
        found, shifted = (total_error(x, weights, scale, activation) for scale in (s, torch.ones(16)))
        assert found <= shifted * (1 + 1e-5)
        if activation is TOKEN4:
            assert found < 0.5 * shifted


def once_large(seed: int) -> Tensor:
    """Inputs of which a channel is large for a single token: its middle is far from where all others are."""
    x = correlated_inputs(200, 16, seed=seed)
    x[17, 4] = 60
    return x


@pytest.mark.parametrize(
    ("inputs", "activation", "shifts"), [(once_large, TOKEN4, False), (with_outliers, STATIC, True)]
)
@pytest.mark.parametrize("scalable", [False, True])
def test_the_search_shifts_where_that_is_better(inputs: Any, activation: Any, shifts: bool, scalable: bool) -> None:
    for seed in range(3):
        x, weights = inputs(seed), [random(5, 16, seed=seed), random(3, 16, seed=seed + 9)]
        z, s = choose(OsPlus(shift="search"), weights, x, activation, scalable=scalable)
        assert (z is not None) == shifts
        assert (s is not None) == scalable
        errors = []
        for always in (True, False):
            other, scale = choose(OsPlus(shift=always), weights, x, activation, scalable=scalable)
            moved = x if other is None else x - other
            errors.append(total_error(moved, weights, torch.ones(16) if scale is None else scale, activation))
        moved = x if z is None else x - z
        found = total_error(moved, weights, torch.ones(16) if s is None else s, activation)
        assert found == pytest.approx(min(errors))


def test_a_weight_that_is_not_rounded_counts_with_its_inputs_alone() -> None:
    x, weights = with_outliers(), [random(5, 16, seed=1)]
    _, s = choose(OsPlus(grid=5), weights, x, formats=[None])
    assert s is not None
    moved, errors = x - middle(x), []
    r = moved.abs().amax(0)
    tried = [(r / (r.max() * (r.median() / r.max()) ** (k / 5))).clamp(min=1) for k in range(6)]
    for scale in tried:
        inputs = TOKEN4.fake_quantize(moved / scale)
        errors.append(float((inputs @ (weights[0] * scale).T - moved @ weights[0].T).square().sum()))
    torch.testing.assert_close(s, tried[min(range(6), key=errors.__getitem__)])


def test_constant_and_dead_inputs_give_finite_scales() -> None:
    x, weight = with_outliers(), random(5, 16, seed=1)
    x[:, 3], x[:, 4] = 0, 7
    for inputs in (x, torch.zeros(8, 16)):
        _, s = choose(OsPlus(), [weight], inputs, formats=[None])
        assert s is not None
        assert bool((s.isfinite() & (s >= 1)).all())
        assert s[3] == s[4] == 1


def test_contract_and_options() -> None:
    assert isinstance(OsPlus(), ShiftTransform)
    assert not isinstance(OsPlus(), ScaleTransform)
    with pytest.raises(ValidationError, match="grid"):
        OsPlus(grid=0)
    with pytest.raises(ValidationError, match="shift"):
        OsPlus(shift="always")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="OsPlus shifts and scales for quantized activations: set activation"):
        make_recipe("os_plus", "quantizer.activation=null")
