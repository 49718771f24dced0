"""fp8, NF4, MX, NVFP4 and two-dimensional blocks: what every format must do, and small cases worked by hand."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from helpers_math import hessian_stats, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import output_error
from quantbench.formats.base import Format
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantize import quantize
from quantbench.formats.scaled import ScaledFormat
from quantbench.rounding.gptq import Gptq
from quantbench.transforms.awq import AwqClip
from recipes import make_recipe

Element = Literal["e2m1", "e4m3", "e5m2", "nf4"]


def scaled(element: Element = "e4m3", group_size: Any = 8, **options: Any) -> ScaledFormat:
    return ScaledFormat(element=element, group_size=group_size, **options)


def int4(group_size: Any = 8, **options: Any) -> IntFormat:
    return IntFormat(bits=4, group_size=group_size, **{"symmetric": False, **options})


FORMATS: dict[str, Any] = {
    "fp8_channel": scaled(group_size="channel"),
    "fp8_tensor": scaled(group_size="tensor"),
    "fp8_group": scaled("e5m2", 8),
    "fp8_block": scaled(group_size=8, block_rows=2, scale_dtype="bfloat16"),
    "nf4": scaled("nf4", 8, scale_dtype="float16"),
    "mxfp4": MxFormat(element="e2m1", group_size=8),
    "mxfp4_ceil": MxFormat(element="e2m1", rule="ceil", group_size=8),
    "mxfp6": MxFormat(element="e2m3", group_size=8),
    "mxfp6_e3m2": MxFormat(element="e3m2", group_size=8),
    "mxfp8": MxFormat(element="e4m3", group_size=8),
    "mxint8": MxFormat(element="int8"),
    "nvfp4": Nvfp4Format(group_size=8),
    "int4_block": int4(8, block_rows=2),
    "int4_rows": int4("channel", block_rows=4),
    "int4_symmetric_block": int4(8, block_rows=64, symmetric=True, scale_convention="full_range", range="mse"),
}
EACH = pytest.mark.parametrize("grid", FORMATS.values(), ids=FORMATS)


@EACH
def test_effective_bits_are_those_of_what_is_stored(grid: Format) -> None:
    stored = quantize(random(5, 21, seed=0), grid)
    packed = grid.pack(stored.codes, stored.params)
    bits = sum(8 * t.element_size() * t.numel() for t in packed.values())
    padding = bits - stored.bits_per_weight() * 5 * 21
    assert -1e-6 < padding < 8 * (1 + ("zero" in packed))
    assert padding == pytest.approx(round(padding))


@EACH
@pytest.mark.parametrize("rows", [1, 5])
def test_what_is_stored_comes_back_bit_for_bit(grid: Format, rows: int) -> None:
    stored = quantize(random(rows, 21, seed=1), grid)
    codes, params = grid.unpack(grid.pack(stored.codes, stored.params), (rows, 21))
    assert torch.equal(codes, stored.codes)
    for name in ("scale", "zero", "global_scale"):
        ours, given = getattr(params, name), getattr(stored.params, name)
        assert (ours is None) == (given is None)
        assert given is None or torch.equal(ours, given)


@EACH
@pytest.mark.parametrize("magnitude", [1e-25, 1e-3, 1.0, 1e4])
def test_representable_values_are_fixed_points(grid: Format, magnitude: float) -> None:
    stored = quantize(magnitude * random(5, 21, seed=2), grid)
    columns = torch.arange(21) // grid.columns_per_group(21)
    values = stored.dequantize()
    assert bool(values.isfinite().all())
    again = grid.decode(grid.encode(values, stored.params.columns(columns)), stored.params.columns(columns))
    assert torch.equal(again, values)


@EACH
def test_no_value_is_nearer_than_the_one_chosen(grid: Format) -> None:
    weight = random(5, 21, seed=3)
    stored = quantize(weight, grid)
    params = stored.params.columns(torch.arange(21) // grid.columns_per_group(21))
    every = 2**grid.code_bits  # type: ignore[attr-defined]
    values = torch.stack([grid.decode(torch.full((5, 21), c, dtype=torch.uint8), params) for c in range(every)])
    values = values.nan_to_num(nan=1e30, posinf=1e30, neginf=-1e30)
    if isinstance(grid, IntFormat) and grid.symmetric:
        values = values[1:] if grid.scale_convention == "narrow_range" else values
    least = (values - weight).abs().amin(0)
    torch.testing.assert_close((stored.dequantize() - weight).abs(), least, rtol=1e-4, atol=1e-5)


@EACH
def test_zeros_stay_zero_whole_weights_and_single_groups(grid: Format) -> None:
    assert torch.equal(quantize(torch.zeros(4, 21), grid).dequantize(), torch.zeros(4, 21))
    weight = random(4, 21, seed=4)
    weight[:2, :8] = 0
    assert torch.equal(quantize(weight, grid).dequantize()[:2, :8], torch.zeros(2, 8))


@EACH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(grid: Format, bad: float) -> None:
    weight = random(3, 21, seed=5)
    weight[2, 20] = bad
    with pytest.raises(ValueError, match=r"\[3, 21\] holds NaN or infinity"):
        grid.params(weight)


@EACH
def test_tiny_and_huge_weights_give_finite_values_or_are_refused(grid: Format) -> None:
    for magnitude in (1e-44, 1e-38, 1e30, 3e38):
        weight = magnitude * torch.linspace(-1, 1, 63).reshape(3, 21)
        if magnitude > 1 and getattr(grid, "scale_dtype", "") == "float16":
            with pytest.raises(ValueError, match="overflow"):
                grid.params(weight)
            continue
        values = quantize(weight, grid).dequantize()
        assert bool(values.isfinite().all())
        assert bool((values.abs() <= 1.5 * magnitude + 1e-6).all())


@EACH
def test_groups_are_fitted_by_themselves_where_the_format_says_so(grid: Format) -> None:
    weight, width = random(6, 21, seed=6), grid.columns_per_group(21)
    if not grid.independent_groups:
        small = weight.clone()
        small[:, 8:] /= 1000
        assert not torch.equal(grid.params(weight[:, 8:16] / 1000).scale, grid.params(small).scale[:, 1:2])
        return
    parts = [quantize(weight[:, start : start + width], grid).dequantize() for start in range(0, 21, width)]
    assert torch.equal(quantize(weight, grid).dequantize(), torch.cat(parts, dim=1))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp4_ceil", "mxfp8", "mxint8"])
def test_mx_is_idempotent_even_when_fitted_again(name: str) -> None:
    once = quantize(random(16, 21, seed=7), FORMATS[name]).dequantize()
    assert torch.equal(quantize(once, FORMATS[name]).dequantize(), once)


@pytest.mark.parametrize("name", ["fp8_channel", "fp8_block", "nvfp4"])
def test_fitting_again_moves_nothing_by_more_than_the_rounding_of_the_scale(name: str) -> None:
    once = quantize(random(16, 21, seed=7), FORMATS[name]).dequantize()
    tolerance = 2**-7 if name == "fp8_block" else 1e-6  # its scales are bfloat16
    torch.testing.assert_close(quantize(once, FORMATS[name]).dequantize(), once, rtol=tolerance, atol=0)


def test_published_effective_bits() -> None:
    shape = (4096, 4096)
    assert MxFormat(element="e2m1").bits_per_weight(shape) == 4.25
    assert MxFormat(element="int8").bits_per_weight(shape) == 8.25
    assert scaled("nf4", 64).bits_per_weight(shape) == 4.5
    assert Nvfp4Format().bits_per_weight(shape) == 4.5 + 32 / 4096**2
    assert scaled(group_size=128, block_rows=128).bits_per_weight(shape) == 8 + 32 / 128**2
    assert int4(128, block_rows=2).bits_per_weight(shape) == 4 + 20 / 256
    assert scaled(group_size="tensor").bits_per_weight((2, 3)) == 8 + 32 / 6


def test_mx_rules_by_hand() -> None:
    weight = torch.tensor([[7.9, 1.0, -0.3, 0.0]])
    floor, ceil = (MxFormat(element="e2m1", rule=rule, group_size=4) for rule in ("floor", "ceil"))
    assert quantize(weight, floor).dequantize().tolist() == [[6.0, 1.0, -0.5, 0.0]]  # 7.9 saturates
    assert quantize(weight, ceil).dequantize().tolist() == [[8.0, 1.0, 0.0, 0.0]]  # -.3 / 2 is nearer to 0
    assert ceil.params(torch.tensor([[6.0]])).scale.item() == 1.0
    assert ceil.params(torch.tensor([[6.0001]])).scale.item() == 2.0
    assert floor.params(torch.tensor([[ELEVEN_BELOW * 4]])).scale.item() == ELEVEN_BELOW


ELEVEN_BELOW = 2.0**-11


@pytest.mark.parametrize("element", ["e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "int8"])
def test_ceil_is_the_smallest_power_of_two_that_saturates_nothing(element: Any) -> None:
    grid = MxFormat(element=element, rule="ceil", group_size=1)
    peaks = torch.cat([random(300, 1, seed=8).exp(), 2.0 ** torch.arange(-20, 20.0)[:, None]])
    scale = grid.params(peaks).scale
    largest = grid._elements.largest
    assert bool((peaks <= largest * scale).all())
    assert bool((peaks > largest * scale / 2).all())


def test_mx_scales_are_stored_as_exponents_and_kept_in_range() -> None:
    grid = MxFormat(element="e2m1", group_size=2)
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1e-40, 0.0, 3e38, 0.0]])
    stored = grid.pack(*(lambda q: (q.codes, q.params))(quantize(weight, grid)))
    assert stored["scale"].dtype == torch.uint8
    assert stored["scale"].tolist() == [[127 - 2, 127, 1, 127 + 125]]


def test_nvfp4_by_hand() -> None:
    weight = torch.zeros(1, 12)
    weight[0, :4] = torch.tensor([6 * 448.0, 448.0, -1.5 * 448, 0.0])  # S = 1, s = 448
    weight[0, 4:8] = torch.tensor([6.0, 2.4, -0.5, 0.1])  # s = 1
    weight[0, 8:] = torch.tensor([6.0 * 2**-12, 2.0**-10, 2.0**-12, 0.0])  # s = 2^-12 is too small for e4m3: 2^-9
    stored = quantize(weight, Nvfp4Format(group_size=4))
    assert stored.params.scale.tolist() == [[448.0, 1.0, 2.0**-9]]
    assert stored.params.global_scale is not None
    assert stored.params.global_scale.tolist() == [[1.0, 1.0, 1.0]]
    expected = [6 * 448.0, 448.0, -1.5 * 448, 0.0, 6.0, 2.0, -0.5, 0.0, 2.0**-9, 2.0**-10, 0.0, 0.0]
    expected[8] = 2.0**-9 * 1.0  # 6 * 2^-12 / 2^-9 = .75, a tie: to the even 1
    assert stored.dequantize().tolist() == [expected]


@pytest.mark.parametrize("rows", [2, 3, 8])
@pytest.mark.parametrize("name", ["int", "fp8"])
def test_a_block_is_rounded_as_if_it_were_one_row(name: str, rows: int) -> None:
    weight = random(7, 20, seed=9)
    options: Any = {"group_size": 8, "block_rows": rows}
    whole = quantize(weight, int4(**options) if name == "int" else scaled(**options))
    for top in range(0, 7, rows):
        for left in range(0, 20, 8):
            block = weight[top : top + rows, left : left + 8]
            row = int4("channel") if name == "int" else scaled(group_size="channel")
            alone = quantize(block.reshape(1, -1), row).dequantize().reshape(block.shape)
            assert torch.equal(whole.dequantize()[top : top + rows, left : left + 8], alone)


def test_rows_of_a_block_that_no_longer_agree_cannot_be_stored() -> None:
    grid = int4(8, block_rows=2)
    stored = quantize(random(4, 8, seed=10), grid)
    zero = stored.params.zero
    assert zero is not None
    zero[1] += 1
    with pytest.raises(ValueError, match=r"each row has a zero of its own, but 2 rows share one"):
        grid.pack(stored.codes, GridParams(stored.params.scale, zero))


def test_clipping_treats_rows_that_share_a_scale_together() -> None:
    weight, stats = random(7, 16, seed=11).pow(3), stats_of(random(64, 16, seed=12))
    grid, H = IntFormat(bits=2, group_size=8, block_rows=3, symmetric=False), stats.require("hessian")
    bound = AwqClip().bound(weight, stats, grid)
    clipped = weight.clamp(-bound, bound)

    def errors(candidate: Tensor) -> list[float]:
        delta = quantize(candidate, grid).dequantize() - weight
        return [
            output_error(delta[top : top + 3, g : g + 8], H[g : g + 8, g : g + 8]) for top in (0, 3, 6) for g in (0, 8)
        ]

    assert all(ours <= theirs * (1 + 1e-5) for ours, theirs in zip(errors(clipped), errors(weight), strict=True))
    assert sum(errors(clipped)) < 0.95 * sum(errors(weight))


@EACH
@pytest.mark.parametrize("static", [True, False])
def test_gptq_on_a_diagonal_hessian_is_nearest_rounding(grid: Format, static: bool) -> None:
    if not static and not grid.independent_groups:
        return
    weight = random(5, 21, seed=13)
    H = torch.diag(random(21, seed=14).exp())
    rounded = Gptq(order="activation" if static else "natural", static_groups=static).round(
        weight, hessian_stats(H), grid
    )
    torch.testing.assert_close(rounded.weight.dequantize(), quantize(weight, grid).dequantize(), rtol=1e-6, atol=1e-7)


def test_dynamic_groups_that_share_a_scale_are_refused() -> None:
    assert make_recipe("gptq", "format@quantizer.weight=nvfp4").weight == Nvfp4Format()
    dynamic = "quantizer.rounding.static_groups=false"
    with pytest.raises(ConfigError, match=r"static_groups=false .* the groups of weight share a scale: set .*=true"):
        make_recipe("gptq", "format@quantizer.weight=nvfp4", dynamic)
    rule = "{down: {_target_: quantbench.pipeline.policy.Rule, match: down, format: {_target_: %s}}}"
    rules = "+quantizer.policy.rules=" + rule % "quantbench.formats.nvfp4.Nvfp4Format"
    with pytest.raises(ConfigError, match=r"the groups of policy\.rules\.down\.format share a scale"):
        make_recipe("gptq", "+" + rules, dynamic)
    make_recipe("gptq", "format@quantizer.weight=mxfp4", dynamic)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="block_rows=2 must be 1"):
        scaled(group_size="tensor", block_rows=2)
    with pytest.raises(ConfigError, match="block_rows=2 must be 1"):
        int4("tensor", block_rows=2)
    with pytest.raises(ValueError, match="overflow scale_dtype='float16'"):
        scaled("nf4", scale_dtype="float16").params(torch.tensor([[1e6]]))
    contradictions: list[Any] = [{"element": "e3m3"}, {"rule": "nearest"}, {"group_size": "channel"}]
    for wrong in contradictions:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            MxFormat(**{"element": "e2m1", **wrong})
