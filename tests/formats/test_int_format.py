from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.base import Format
from quantbench.formats.grid import Convention
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.formats.serialization import split

CONVENTIONS: list[Convention | None] = [None, "full_range", "narrow_range", "twos_complement"]
GROUPS: list[int | Literal["channel", "tensor"]] = [1, 5, 8, 64, "channel", "tensor"]


def int_format(bits: int = 4, convention: Convention | None = None, **options: Any) -> IntFormat:
    options = {"group_size": "channel", **options}
    return IntFormat(bits=bits, symmetric=convention is not None, scale_convention=convention, **options)


def rounded(format: Format, weight: Tensor) -> Tensor:
    return quantize(weight, format).dequantize()


@pytest.mark.parametrize(
    ("bits", "group_size", "expected"),
    [(4, 128, 4.156), (3, 128, 3.148), (2, 128, 2.141), (2, 64, 2.281), (4, 32, 4.625)],
)
def test_effective_bits_are_the_published_ones(bits: int, group_size: int, expected: float) -> None:
    assert int_format(bits, group_size=group_size).bits_per_weight((64, 4096)) == pytest.approx(expected, abs=5e-4)


def test_effective_bits_count_short_groups_and_what_is_really_stored() -> None:
    assert int_format(group_size=128).bits_per_weight((192, 576)) == 4 + 5 * (16 + 4) / 576
    assert int_format(convention="full_range").bits_per_weight((192, 576)) == 4 + 16 / 576
    assert int_format(scale_dtype="float32").bits_per_weight((192, 576)) == 4 + (32 + 4) / 576
    assert int_format(group_size="tensor").bits_per_weight((192, 576)) == 4 + (16 + 4) / (192 * 576)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("group_size", GROUPS)
def test_effective_bits_agree_with_the_stored_tensors(group_size: Any, convention: Convention | None) -> None:
    grid = int_format(3, convention, group_size=group_size)
    stored = quantize(random(6, 21, seed=0), grid)
    zero_bits = 0 if stored.params.zero is None else 3 * stored.params.zero.numel()
    bits = 3 * stored.codes.numel() + 16 * stored.params.scale.numel() + zero_bits
    assert stored.bits_per_weight() == pytest.approx(bits / (6 * 21))


def test_asymmetric_exact_small_case() -> None:
    stored = quantize(torch.tensor([[-1.0, 0.0, 0.6, 2.0]]), int_format(2))
    assert stored.params.scale.tolist() == [[1.0]]
    assert stored.params.zero is not None
    assert stored.params.zero.tolist() == [[1.0]]
    assert stored.codes.tolist() == [[0, 1, 2, 3]]
    assert stored.dequantize().tolist() == [[-1.0, 0.0, 1.0, 2.0]]


def test_full_range_reaches_further_down_than_up() -> None:
    stored = quantize(torch.tensor([[1.0, -1.0, 0.0]]), int_format(convention="full_range"))
    assert stored.params.zero is None
    assert stored.codes.tolist() == [[15, 0, 8]]
    assert stored.dequantize()[0].tolist() == pytest.approx([14 / 15, -16 / 15, 0.0], abs=5e-4)


def test_narrow_range_keeps_both_ends_and_never_uses_the_lowest_code() -> None:
    grid = int_format(convention="narrow_range", scale_dtype="float32")
    stored = quantize(torch.tensor([[1.0, -1.0, 0.0]]), grid)
    assert stored.codes.tolist() == [[15, 1, 8]]
    assert stored.dequantize()[0].tolist() == pytest.approx([1.0, -1.0, 0.0])
    assert grid.encode(torch.tensor([[-9.0]]), stored.params).item() == 1


def test_twos_complement_has_the_scale_of_narrow_range_and_one_level_more() -> None:
    grid = int_format(convention="twos_complement", scale_dtype="float32")
    stored = quantize(torch.tensor([[7.0, -7.0, 0.4]]), grid)
    assert stored.params.scale.tolist() == [[1.0]]
    assert stored.codes.tolist() == [[15, 1, 8]]
    moved = torch.tensor([[9.0, -7.6, -9.0]])  # as weights do while others are rounded, or beyond a clipped range
    assert grid.decode(grid.encode(moved, stored.params), stored.params).tolist() == [[7, -8, -8]]
    narrow = int_format(convention="narrow_range", scale_dtype="float32")
    assert narrow.decode(narrow.encode(moved, stored.params), stored.params).tolist() == [[7, -7, -7]]


def test_a_group_on_one_side_of_zero_keeps_zero_in_its_range() -> None:
    assert rounded(int_format(8), torch.tensor([[5.0, 5.5, 6.0]]))[0].tolist() == pytest.approx(
        [5.0, 5.5, 6.0], abs=0.02
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_all_zero_rows_get_the_range_minus_one_to_one(convention: Convention | None) -> None:
    stored = quantize(torch.zeros(2, 4), int_format(convention=convention, scale_dtype="float32"))
    levels = 7 if convention in ("narrow_range", "twos_complement") else 7.5
    assert torch.equal(stored.params.scale, torch.full((2, 1), 1 / levels))
    assert torch.equal(stored.dequantize(), torch.zeros(2, 4))


@settings(max_examples=60)
@given(
    bits=st.integers(2, 8),
    convention=st.sampled_from(CONVENTIONS),
    group_size=st.sampled_from(GROUPS),
    magnitude=st.sampled_from([1e-9, 1e-4, 1.0, 1e3]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    seed=st.integers(0, 99),
)
def test_representable_values_are_fixed_points(
    bits: int, convention: Convention | None, group_size: Any, magnitude: float, dtype: Any, seed: int
) -> None:
    grid = int_format(bits, convention, group_size=group_size, scale_dtype=dtype)
    weight = magnitude * random(3, 13, seed=seed)
    stored = quantize(weight, grid)
    columns = torch.arange(13) // grid.columns_per_group(13)
    values = stored.dequantize()
    assert torch.equal(grid.encode(values, stored.params.columns(columns)), stored.codes)


@settings(max_examples=30)
@given(bits=st.integers(2, 8), convention=st.sampled_from(CONVENTIONS), seed=st.integers(0, 99))
def test_no_value_moves_by_more_than_half_a_step(bits: int, convention: Convention | None, seed: int) -> None:
    weight = random(3, 13, seed=seed)
    stored = quantize(weight, int_format(bits, convention, scale_dtype="float32"))
    reach = 1.0 if convention == "full_range" else 0.5  # its largest level lies half a step inside the range
    assert bool(((stored.dequantize() - weight).abs() <= 1.0001 * reach * stored.params.scale).all())


@settings(max_examples=30)
@given(bits=st.integers(2, 8), group_size=st.sampled_from(GROUPS), seed=st.integers(0, 99))
def test_narrow_range_is_idempotent_even_when_fitted_again(bits: int, group_size: Any, seed: int) -> None:
    once = rounded(int_format(bits, "narrow_range", group_size=group_size), random(3, 13, seed=seed))
    assert torch.equal(rounded(int_format(bits, "narrow_range", group_size=group_size), once), once)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_what_is_stored_reproduces_bit_for_bit(convention: Convention | None, dtype: Any) -> None:
    grid = int_format(convention=convention, group_size=8, scale_dtype=dtype)
    stored = quantize(random(5, 20, seed=1), grid)
    scale = stored.params.scale.to(getattr(torch, dtype))
    zero = None if stored.params.zero is None else stored.params.zero.to(torch.uint8).float()
    again = QuantizedWeight(stored.codes.clone(), GridParams(scale.float(), zero), grid)
    assert torch.equal(again.dequantize(), stored.dequantize())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_group_is_fitted_by_itself_the_short_last_one_too(convention: Convention | None) -> None:
    grid = int_format(convention=convention, group_size=8, range="mse")
    weight = random(4, 20, seed=2)
    parts = [rounded(grid, weight[:, start : start + 8]) for start in (0, 8, 16)]
    assert torch.equal(rounded(grid, weight), torch.cat(parts, dim=1))


def test_per_tensor_has_one_scale_and_group_of_the_width_is_per_channel() -> None:
    weight = random(4, 20, seed=3)
    assert int_format(group_size="tensor").params(weight).scale.shape == (1, 1)
    assert torch.equal(
        rounded(int_format(group_size="tensor"), weight), rounded(int_format(), weight.reshape(1, -1)).reshape(4, 20)
    )
    assert torch.equal(rounded(int_format(group_size=20), weight), rounded(int_format(), weight))


@settings(max_examples=20)
@given(bits=st.integers(2, 8), convention=st.sampled_from(CONVENTIONS), seed=st.integers(0, 99))
def test_mse_range_is_never_worse_than_minmax_in_its_norm(bits: int, convention: Convention | None, seed: int) -> None:
    weight = random(6, 20, seed=seed)
    errors = {
        kind: (rounded(int_format(bits, convention, group_size=10, range=kind), weight) - weight).abs().pow(2.4)
        for kind in ("minmax", "mse")
    }
    per_group = {kind: error.reshape(6, 2, 10).sum(-1) for kind, error in errors.items()}
    assert bool((per_group["mse"] <= per_group["minmax"]).all())


def test_mse_range_shrinks_where_an_outlier_spoils_the_range() -> None:
    weight = torch.cat([random(1, 200, seed=4), torch.tensor([[8.0]])], dim=1)
    least, most = (int_format(2, range=kind).params(weight).scale for kind in ("mse", "minmax"))
    assert bool(least < most)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_more_bits_mean_less_error(convention: Convention | None) -> None:
    weight = random(16, 64, seed=5)
    errors = [float((rounded(int_format(bits, convention), weight) - weight).norm()) for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    weight = random(3, 8, seed=6)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match=r"\[3, 8\] holds NaN or infinity"):
        int_format().params(weight)


def test_a_scale_that_overflows_is_refused_and_one_that_underflows_is_the_smallest() -> None:
    for largest in (1e7, -1e7):
        with pytest.raises(
            ValueError, match=r"^weights up to 1e\+07 need a scale that overflows scale_dtype='float16'$"
        ):
            int_format().params(torch.tensor([[largest, 0.5]]))
    tiny = quantize(torch.tensor([[1e-9, -1e-9]]), int_format())
    assert tiny.params.scale.item() == 2.0**-24
    assert tiny.dequantize().tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("symmetric", "convention"), [(True, None), (False, "full_range")])
def test_contradicting_conventions_are_refused(symmetric: bool, convention: Convention | None) -> None:
    with pytest.raises(ConfigError, match="scale_convention"):
        IntFormat(bits=4, group_size=8, symmetric=symmetric, scale_convention=convention)


def test_one_scale_in_all_has_no_blocks_of_rows() -> None:
    with pytest.raises(ConfigError, match="block_rows=2 must be 1"):
        int_format(group_size="tensor", block_rows=2)


@pytest.mark.parametrize(
    "options", [{"bits": 1}, {"bits": 9}, {"bits": "4"}, {"group_size": 0}, {"group_size": "row"}, {"range": "max"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        IntFormat(**{"bits": 4, "group_size": 8, "symmetric": False, **options})


def test_the_spec_builds_the_same_format_again() -> None:
    grid = int_format(3, "narrow_range", group_size=32, range="mse", scale_dtype="bfloat16")
    spec = split(grid, "", {})
    assert spec.pop("_target_") == "quantbench.formats.int.IntFormat"
    assert IntFormat(**spec) == grid
    assert isinstance(grid, Format)
