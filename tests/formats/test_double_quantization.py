from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, correlated_inputs, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.formats.base import Format
from quantbench.formats.double_quantization import DoubleQuantization, ScaleStorage
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.gptq import Gptq


def double(scale_bits: int = 3, zero_bits: int | None = 3, group_size: int = 16) -> DoubleQuantization:
    return DoubleQuantization(scale_bits=scale_bits, zero_bits=zero_bits, group_size=group_size)


def two_level(bits: int = 3, group_size: Any = 16, **options: Any) -> IntFormat:
    options = {"zero_rounding": False, "double_quantization": double(), "symmetric": False, **options}
    return IntFormat(bits=bits, group_size=group_size, **options)


def real_zero(bits: int = 3, group_size: Any = 16, **options: Any) -> IntFormat:
    return two_level(bits, group_size, double_quantization=None, **options)


FORMATS = [
    two_level(),
    two_level(double_quantization=double(scale_bits=8, zero_bits=None, group_size=5)),
    two_level(group_size="channel", scale_dtype="bfloat16"),
    two_level(zero_rounding=True, double_quantization=double(zero_bits=None)),
    two_level(
        symmetric=True, scale_convention="full_range", zero_rounding=True, double_quantization=double(zero_bits=None)
    ),
    real_zero(),
    real_zero(scale_dtype="float32"),
]


def error(weight: Tensor, grid: Format) -> float:
    return float((quantize(weight, grid).dequantize() - weight).norm() / weight.norm())


def assert_same(found: GridParams, expected: GridParams) -> None:
    for f in fields(GridParams):
        a, b = getattr(found, f.name), getattr(expected, f.name)
        assert (a is None) == (b is None), f.name
        assert a is None or torch.equal(a, b), f.name


def test_values_on_the_second_grid_by_hand() -> None:
    stored = ScaleStorage(torch.float16, bits=2, rows=4)
    values = torch.tensor([[1.0, 0.0], [2.0, 0.4], [4.0, 0.5], [3.4, 3.0], [7.0, 9.0]])
    kept, runs = stored.fit(values)
    assert runs is not None
    assert runs.tolist() == [[1.0, 0.0], [7.0, 9.0], [1.0, 1.0], [0.0, 0.0]]  # lowest of two runs, then their steps
    assert kept.tolist() == [[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [3.0, 3.0], [7.0, 9.0]]


@settings(max_examples=25)
@given(
    rows=st.integers(1, 9),
    bits=st.integers(2, 8),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]),
    size=st.sampled_from([1e-7, 1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_values_move_by_half_a_step_at_most_and_are_recovered_exactly(
    rows: int, bits: int, spread: float, size: float, seed: int
) -> None:
    stored = ScaleStorage(torch.float16, bits=bits, rows=4)
    values = size * (1 + spread * random(rows, 3, seed=seed).sigmoid())
    values = values.half().float().clamp(min=2.0**-24)  # a scale is rounded to its dtype before its second level
    kept, runs = stored.fit(values)
    assert runs is not None
    assert bool((kept > 0).all())
    step = runs.chunk(2)[1].repeat_interleave(4, dim=0)[:rows]
    rounding = 2**bits * (2.0**-11 * step + 2.0**-25)  # of the step to float16, up to the highest code
    assert bool(((kept - values).abs() <= step / 2 + rounding).all())
    found, found_runs = stored.unpack("scale", stored.pack("scale", kept, runs), rows, 3)
    assert torch.equal(found, kept)
    assert found_runs is not None
    assert torch.equal(found_runs, runs)


@pytest.mark.parametrize("shape", [(32, 48), (37, 43), (3, 16), (1, 5)])
@pytest.mark.parametrize("grid", FORMATS)
def test_unpack_gives_exactly_the_same_parameters(grid: IntFormat, shape: tuple[int, int]) -> None:
    weight = random(*shape, seed=1)
    fitted = quantize(weight, grid)
    codes, params = grid.unpack(grid.pack(fitted.codes, fitted.params), shape)
    assert torch.equal(codes, fitted.codes)
    assert_same(params, fitted.params)
    assert torch.equal(QuantizedWeight(codes, params, grid).dequantize(), fitted.dequantize())


@pytest.mark.parametrize("options", [{}, {"order": "activation"}, {"static_groups": True, "order": "activation"}])
@pytest.mark.parametrize("grid", FORMATS)
def test_gptq_gives_parameters_that_are_stored_exactly(grid: IntFormat, options: dict[str, Any]) -> None:
    weight, stats = random(37, 43, seed=2), stats_of(correlated_inputs(300, 43, seed=2))
    result = Gptq(**options).round(weight, stats, grid).weight
    codes, params = grid.unpack(grid.pack(result.codes, result.params), (37, 43))
    assert_same(params, result.params)
    assert torch.equal(QuantizedWeight(codes, params, grid, result.group_index).dequantize(), result.dequantize())


def test_effective_bits_are_those_of_the_paper() -> None:
    b, bits_of_scale, g = 3, 3, 16
    assert two_level(b).bits_per_weight((64, 4096)) == b + 2 * bits_of_scale / g + 64 / g**2
    assert two_level(4).bits_per_weight((64, 4096)) == pytest.approx(4.945 - 0.32)  # the paper's, without outliers
    assert real_zero(4, 64).bits_per_weight((64, 4096)) == 4 + (16 + 16) / 64


@pytest.mark.parametrize("shape", [(32, 48), (40, 72), (24, 16)])
@pytest.mark.parametrize("grid", FORMATS)
def test_effective_bits_are_those_of_the_stored_tensors(grid: IntFormat, shape: tuple[int, int]) -> None:
    fitted = quantize(random(*shape, seed=3), grid)
    stored = grid.pack(fitted.codes, fitted.params)
    total = sum(8 * t.element_size() * t.numel() for t in stored.values())
    waste = 8 * sum(t.dtype == torch.uint8 for t in stored.values())  # codes are filled up to whole bytes
    assert 0 <= total - grid.bits_per_weight(shape) * math.prod(shape) < waste


def test_more_bits_of_the_second_level_come_closer_to_the_first() -> None:
    weight = random(64, 128, seed=4)
    errors = [error(weight, two_level(double_quantization=double(bits, bits))) for bits in (2, 3, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.02 * errors[-1]
    assert errors[-1] == pytest.approx(error(weight, real_zero()), rel=0.01)


def test_an_all_zero_row_stays_zero_and_does_not_spoil_the_scales_of_its_run() -> None:
    weight = 0.01 * random(32, 64, seed=5)
    weight[[3, 7, 20]] = 0
    for grid in FORMATS:
        result = quantize(weight, grid).dequantize()
        assert torch.equal(result[[3, 7, 20]], torch.zeros(3, 64))
        assert error(weight, grid) < 1.6 * error(weight, grid.without_double_quantization())


def test_a_real_zero_point_uses_the_whole_range() -> None:
    fitted = quantize(torch.tensor([[-1.0, 0.5, 1.25, 2.5]]), real_zero(2, 4, scale_dtype="float32"))
    assert fitted.params.scale.item() == pytest.approx(3.5 / 3)
    assert fitted.params.zero is not None
    assert fitted.params.zero.item() == pytest.approx(3 / 3.5)
    assert fitted.codes.tolist() == [[0, 1, 2, 3]]
    weight = random(64, 64, seed=6)
    assert error(weight, real_zero()) < error(weight, IntFormat(bits=3, group_size=16, symmetric=False))


@settings(max_examples=30)
@given(bits=st.integers(2, 8), size=st.sampled_from([1e-4, 1.0, 1e3]), seed=st.integers(0, 99))
def test_values_on_a_grid_with_a_real_zero_point_are_fixed_points(bits: int, size: float, seed: int) -> None:
    for grid in (real_zero(bits, 8), two_level(bits, 8)):
        fitted = quantize(size * random(5, 24, seed=seed), grid)
        columns = fitted.params.columns(torch.arange(24) // 8)
        assert torch.equal(grid.encode(fitted.dequantize(), columns), fitted.codes)


def test_scales_of_any_packed_format_can_have_a_second_level() -> None:
    """A grid a user adds gets the second level by passing its parameters through `stored`."""

    class DoublyQuantized(PowersOfTwo):
        double_quantization = double(8, None, 16)

        def params(self, weight: Tensor) -> GridParams:
            return self.stored(super().params(weight))

    grid, weight = DoublyQuantized(group_size=16), random(40, 64, seed=7)
    fitted = quantize(weight, grid)
    stored = grid.pack(fitted.codes, fitted.params)
    assert stored["scale"].numel() == 40 * 4
    assert_same(grid.unpack(stored, (40, 64))[1], fitted.params)
    assert error(weight, grid) == pytest.approx(error(weight, PowersOfTwo(group_size=16)), rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group_size": "tensor"},
            "double_quantization needs group_size=channel or a number: one scale in all is stored as it is",
        ),
        ({"block_rows": 2}, "double_quantization has runs of rows already: block_rows=2 must be 1"),
        (
            {"zero_rounding": True},
            "double_quantization.zero_bits needs zero_rounding=false: zero points are rounded once; or null",
        ),
        (
            {"range": "mse"},
            "zero_rounding=false needs range=minmax: the mse search is for integer zero points",
        ),
        (
            {"symmetric": True, "scale_convention": "full_range"},
            "zero_rounding=false needs symmetric=false: a symmetric format has no zero point",
        ),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        two_level(**options)
    assert str(refused.value) == message


def test_without_double_quantization_scales_are_those_of_one_level() -> None:
    assert two_level().without_double_quantization() == real_zero()


@pytest.mark.parametrize("options", [{"scale_bits": 1}, {"zero_bits": 9}, {"group_size": 1}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        double(**options)


def test_a_scale_that_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match="overflows scale_dtype"):
        two_level().params(torch.tensor([[1e7, 0.0], [1.0, 2.0]]))
