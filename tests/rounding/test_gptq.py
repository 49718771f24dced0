from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, correlated_inputs, hessian_stats, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import Rounding
from quantbench.rounding.gptq import Columns, Gptq
from quantbench.rounding.prepared import column_order
from recipes import make_recipe

GROUPS: list[int | Literal["channel", "tensor"]] = [8, 12, "channel", "tensor"]
MODES = [(order, static) for order in ("natural", "activation", "group_aware") for static in (False, True)]


def asymmetric(bits: int = 3, group_size: Any = "channel") -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False)


def gptq(weight: Tensor, stats: LinearStats, format: Format, **options: Any) -> QuantizedWeight:
    result = Gptq(**options).round(weight, stats, format)
    assert result.fallbacks == {}
    return result.weight


def error_ratio(weight: Tensor, fit: LinearStats, test: LinearStats, format: Format, **options: Any) -> float:
    """Output error of GPTQ calibrated on `fit`, relative to nearest, both measured on `test`."""
    H = test.require("hessian")
    ours = output_error(weight - gptq(weight, fit, format, **options).dequantize(), H)
    return ours / output_error(weight - quantize(weight, format).dequantize(), H)


def test_the_worked_example_of_the_module() -> None:
    integers = IntFormat(bits=8, group_size="channel", symmetric=True, scale_convention="narrow_range")
    weight = torch.tensor([[0.6, 0.6, 127.0]])  # the third, independent column makes the scale 1
    H = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    rounded = gptq(weight, hessian_stats(H), integers, damping=1e-6).dequantize()
    assert rounded.tolist() == [[1.0, 0.0, 127.0]]
    assert output_error(weight - rounded, H) == pytest.approx(0.56)
    assert output_error(weight - torch.tensor([[1.0, 1.0, 127.0]]), H) == pytest.approx(0.96)


@pytest.mark.parametrize("group_size", [8, "channel"])
def test_it_is_the_optimal_update_of_every_remaining_weight(group_size: Any) -> None:
    """After each column the rest moves as the closed-form solution says, with the inverse of the remaining Hessian."""
    weight, stats, grid = random(6, 24, seed=0), stats_of(correlated_inputs(300, 24, seed=0)), asymmetric(3, group_size)
    H = stats.require("hessian").double()
    H = H + 0.01 * H.diagonal().mean() * torch.eye(24)
    W, values = weight.double(), []
    for i in range(24):
        if i % grid.columns_per_group(24) == 0:
            params = grid.params(W[:, i : i + grid.columns_per_group(24)].float())
        q = grid.decode(grid.encode(W[:, i : i + 1], params), params).double()
        inverse = H[i:, i:].inverse()
        W[:, i:] -= (W[:, i : i + 1] - q) / inverse[0, 0] * inverse[:1]
        values.append(q.float())
    torch.testing.assert_close(gptq(weight, stats, grid).dequantize(), torch.cat(values, dim=1))


@settings(max_examples=25)
@given(
    damping=st.sampled_from([1e-4, 0.01, 1.0]),
    group_size=st.sampled_from(GROUPS),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
)
def test_a_diagonal_hessian_gives_nearest_rounding(
    damping: float, group_size: Any, mode: tuple[str, bool], seed: int
) -> None:
    order, static_groups = mode
    static_groups = static_groups or order == "activation"  # permuted dynamic groups are other groups than nearest's
    weight, stats = random(5, 28, seed=seed), hessian_stats(torch.diag(random(28, seed=seed + 1).square() + 0.1))
    grid = asymmetric(3, group_size)
    result = gptq(weight, stats, grid, damping=damping, order=order, static_groups=static_groups)
    expected = quantize(weight, grid)
    assert torch.equal(result.codes, expected.codes)
    assert torch.equal(result.dequantize(), expected.dequantize())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("group_size", GROUPS)
def test_neither_the_scale_of_h_nor_the_block_size_matters(group_size: Any, mode: tuple[str, bool]) -> None:
    weight, x, grid = random(8, 28, seed=1), correlated_inputs(400, 28, seed=1), asymmetric(4, group_size)
    options: dict[str, Any] = {"order": mode[0], "static_groups": mode[1]}
    stats = stats_of(x)
    base = gptq(weight, stats, grid, **options)
    scaled = hessian_stats(1000 * stats.require("hessian"))
    others = [gptq(weight, stats, grid, block_size=block_size, **options) for block_size in (1, 5, 8, 1000)]
    for other in [gptq(weight, scaled, grid, **options), *others]:
        assert torch.equal(other.codes, base.codes)
        torch.testing.assert_close(other.dequantize(), base.dequantize())


@pytest.mark.parametrize("mode", MODES)
def test_a_group_of_the_whole_width_is_per_channel(mode: tuple[str, bool]) -> None:
    weight, stats = random(8, 28, seed=2), stats_of(correlated_inputs(400, 28, seed=2))
    options: dict[str, Any] = {"order": mode[0], "static_groups": mode[1]}
    per_channel = gptq(weight, stats, asymmetric(3), **options)
    for group_size in (28, 64):
        grouped = gptq(weight, stats, asymmetric(3, group_size), **options)
        assert grouped.group_index is None
        assert torch.equal(grouped.dequantize(), per_channel.dequantize())


@pytest.mark.parametrize("static_groups", [False, True])
def test_the_order_changes_nothing_where_columns_are_in_order(static_groups: bool) -> None:
    x = correlated_inputs(400, 28, seed=3)
    x = x[:, x.square().sum(0).argsort(descending=True)]
    weight, grid = random(8, 28, seed=3), asymmetric(3, 8)
    plain, *ordered = (
        gptq(weight, stats_of(x), grid, order=order, static_groups=static_groups).dequantize()
        for order in ("natural", "activation", "group_aware")
    )
    assert all(torch.equal(plain, one) for one in ordered)


def test_activation_order_is_gptq_on_permuted_columns() -> None:
    weight, x, grid = random(8, 28, seed=4), correlated_inputs(400, 28, seed=4), asymmetric(3, 8)
    order = stats_of(x).require("hessian").diagonal().argsort(descending=True)
    result = gptq(weight, stats_of(x), grid, order="activation")
    permuted = gptq(weight[:, order], stats_of(x[:, order]), grid)
    torch.testing.assert_close(result.dequantize()[:, order], permuted.dequantize())
    assert result.group_index is not None
    assert result.group_index[order].tolist() == [i // 8 for i in range(28)]
    assert result.group_index.dtype is torch.int32
    assert result.bits_per_weight() == grid.bits_per_weight((8, 28)) + 32 * 28 / (8 * 28)


def test_group_aware_order_takes_groups_by_their_largest_and_columns_by_their_own_diagonal() -> None:
    diagonal = torch.tensor([1.0, 5.0, 2.0, 8.0, 3.0, 8.0, 9.0])
    assert column_order(diagonal, "group_aware", 3).tolist() == [6, 3, 5, 4, 1, 2, 0]
    assert column_order(diagonal, "activation", 3).tolist() == [6, 3, 5, 1, 4, 2, 0]
    assert column_order(diagonal, "natural", 3).tolist() == list(range(7))
    assert column_order(diagonal, "group_aware", 7).tolist() == column_order(diagonal, "activation", 7).tolist()


@pytest.mark.parametrize("order", ["natural", "activation", "group_aware"])
def test_the_order_of_equals_is_their_own_and_lies_where_the_diagonal_does(order: Any) -> None:
    assert column_order(torch.ones(400), order, 3).tolist() == list(range(400))
    assert column_order(torch.ones(8, device="meta"), order, 3).device.type == "meta"


def test_group_aware_order_is_gptq_on_permuted_columns_and_stores_no_group_index() -> None:
    """Also where the short group, the last four of 28 columns, comes before others."""
    weight, x, grid = random(8, 28, seed=4), correlated_inputs(400, 28, seed=4), asymmetric(3, 8)
    x[:, 26] *= 9
    order = column_order(stats_of(x).require("hessian").diagonal(), "group_aware", 8)
    assert int(order[0]) // 8 == 3
    result = gptq(weight, stats_of(x), grid, order="group_aware")
    assert result.group_index is None
    assert result.bits_per_weight() == grid.bits_per_weight((8, 28))
    H = stats_of(x).require("hessian").double()
    H = H + 0.01 * H.diagonal().mean() * torch.eye(28)
    W, values = weight.double(), torch.empty(8, 28)
    seen: list[int] = []
    for place, j in enumerate(order.tolist()):  # the closed-form update of every weight still to come
        columns = [int(k) for k in order[place:] if int(k) // 8 == j // 8]
        if not any(k // 8 == j // 8 for k in seen):
            params = grid.params(W[:, columns].float())
        rest = order[place:]
        values[:, j] = grid.decode(grid.encode(W[:, j : j + 1].float(), params), params)[:, 0]
        inverse = H[rest][:, rest].inverse()
        W[:, rest] -= (W[:, j] - values[:, j])[:, None] / inverse[0, 0] * inverse[:1]
        seen.append(j)
    torch.testing.assert_close(result.dequantize(), values)


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_the_range_search_choose_ranges_by_what_columns_count(mode: tuple[str, bool]) -> None:
    """With a diagonal Hessian nothing is compensated: the ranges are those of the weighted search on the weight."""
    grid = IntFormat(bits=2, group_size=8, symmetric=True, scale_convention="full_range", range="mse")
    weight, diagonal = random(16, 20, seed=5).pow(3), random(20, seed=6).pow(4) + 0.01
    options: dict[str, Any] = {"order": mode[0], "static_groups": mode[1] or mode[0] == "activation"}
    plain, weighted = (
        gptq(weight, hessian_stats(diagonal.diag()), grid, weighted_range=flag, **options) for flag in (False, True)
    )
    assert torch.equal(plain.params.scale, grid.params(weight).scale)
    assert torch.equal(weighted.params.scale, grid.params(weight, diagonal / diagonal.mean()).scale)
    errors = [(((one.dequantize() - weight).abs() ** 2.4) * diagonal).sum() for one in (plain, weighted)]
    assert errors[1] < 0.9 * errors[0]
    equal = hessian_stats(3 * torch.eye(20))
    assert torch.equal(gptq(weight, equal, grid, weighted_range=True, **options).dequantize(), plain.dequantize())
    small = hessian_stats(1e-24 * diagonal.diag())  # its square is 0 in float32
    assert torch.equal(gptq(weight, small, grid, weighted_range=True, **options).dequantize(), weighted.dequantize())


def test_weights_of_a_search_that_is_not_made_are_refused() -> None:
    for option, found in (
        ("quantizer.weight.range=minmax", "range=minmax"),
        ("format@quantizer.weight=nf4", "ScaledFormat"),
    ):
        with pytest.raises(ConfigError) as refused:
            make_recipe("gptq", "quantizer.rounding.weighted_range=true", option)
        assert str(refused.value).endswith(
            f"weight: rounding.weighted_range=true weights a search of ranges; {found} has none: "
            "set range=mse, or false here"
        )
    with pytest.raises(ValueError, match="range='minmax' has none"):
        asymmetric(3, 8).params(random(2, 8, seed=0), torch.ones(8))
    assert make_recipe("gptq", "quantizer.rounding.weighted_range=true", "quantizer.weight.range=mse").weight


def test_dynamic_groups_need_formats_whose_groups_have_scales_of_their_own() -> None:
    shared = "format@quantizer.weight=nvfp4"
    assert make_recipe("gptq", shared, "quantizer.rounding.static_groups=true").weight
    assert make_recipe("gptq", "quantizer.rounding.static_groups=false").weight
    with pytest.raises(ConfigError) as refused:
        make_recipe("gptq", shared, "quantizer.rounding.static_groups=false")
    assert str(refused.value).endswith(
        "rounding.static_groups=false fits groups one by one, but the groups of weight share a scale: set "
        "rounding.static_groups=true"
    )


def test_columns_know_the_weight_as_it_was_and_as_grids_are_fitted_to_it() -> None:
    weight, stats = random(3, 6, seed=4), stats_of(correlated_inputs(50, 6, seed=4))
    columns = Columns.of(weight, stats, "activation", 2, 0.01, torch.full_like(weight, 0.5))
    assert columns is not None
    assert torch.equal(columns.original(), weight)
    assert torch.equal(columns.original(clip=True), weight.clamp(-0.5, 0.5))


def test_static_groups_keep_the_parameters_of_the_original_weight() -> None:
    weight, stats, grid = random(8, 28, seed=5), stats_of(correlated_inputs(400, 28, seed=5)), asymmetric(3, 8)
    original = grid.params(weight)
    for order in ("natural", "activation", "group_aware"):
        result = gptq(weight, stats, grid, order=order, static_groups=True)
        assert result.group_index is None
        assert torch.equal(result.params.scale, original.scale)
    assert not torch.equal(gptq(weight, stats, grid).params.scale[:, 1:], original.scale[:, 1:])


@pytest.mark.parametrize(
    ("group_size", "options"),
    [
        ("channel", {}),
        (16, {"static_groups": True}),
        ("channel", {"order": "activation"}),
        (16, {"order": "group_aware"}),
        ("tensor", {}),
    ],
)
@pytest.mark.parametrize("bits", [2, 4])
def test_on_correlated_inputs_the_summed_error_is_below_nearest(
    bits: int, group_size: Any, options: dict[str, Any]
) -> None:
    ratios = []
    for seed in range(8):
        stats = stats_of(correlated_inputs(512, 48, seed=seed, mixing=seed))
        ratios.append(error_ratio(random(16, 48, seed=seed), stats, stats, asymmetric(bits, group_size), **options))
    assert sum(ratios) / len(ratios) < 0.85


def test_fewer_tokens_than_inputs_show_a_generalization_gap() -> None:
    """With 16 tokens for 64 inputs GPTQ fits the sample: far better than nearest there, worse on fresh tokens."""
    fresh, grid, weight = stats_of(correlated_inputs(4096, 64, seed=99)), asymmetric(4), random(64, 64, seed=6)
    few, many = (stats_of(correlated_inputs(tokens, 64, seed=7)) for tokens in (16, 2048))
    assert error_ratio(weight, few, few, grid) < 0.4
    assert error_ratio(weight, few, fresh, grid) > 1.2
    assert error_ratio(weight, many, many, grid) < 0.8
    assert error_ratio(weight, many, fresh, grid) < 0.8


def test_another_distribution_shows_a_larger_gap_than_fresh_tokens() -> None:
    weight, fit = random(64, 64, seed=8), stats_of(correlated_inputs(2048, 64, seed=8))
    shifted = stats_of(correlated_inputs(2048, 64, seed=9, mixing=1))
    assert error_ratio(weight, fit, shifted, asymmetric(4)) > 1.2


@pytest.mark.parametrize("mode", MODES)
def test_dead_inputs_get_zero_and_do_not_disturb_the_others(mode: tuple[str, bool]) -> None:
    x, weight = correlated_inputs(400, 24, seed=10), random(8, 24, seed=10)
    x[:, [3, 17]] = 0
    options: dict[str, Any] = {"order": mode[0], "static_groups": mode[1]}
    result = Gptq(**options).round(weight, stats_of(x), asymmetric(4, 8))
    rounded = result.weight.dequantize()
    assert result.fallbacks == {"dead_inputs": 2}
    assert torch.equal(rounded[:, [3, 17]], torch.zeros(8, 2))
    assert bool(rounded.isfinite().all())
    assert float((rounded - weight)[:, 0].norm() / weight[:, 0].norm()) < 0.5


def test_a_raised_damping_is_recorded() -> None:
    H = torch.eye(8)
    H[7, 7] = -0.05
    result = Gptq(damping=0.001).round(random(4, 8, seed=11), hessian_stats(H), asymmetric())
    assert result.fallbacks == {"damping_raised": 2}


def test_falling_back_to_nearest_is_recorded() -> None:
    weight = random(4, 2, seed=12)
    result = Gptq().round(weight, hessian_stats(torch.tensor([[1.0, 1e6], [1e6, 1.0]])), asymmetric())
    assert result.fallbacks == {"nearest": 1}
    assert torch.equal(result.weight.dequantize(), quantize(weight, asymmetric()).dequantize())


@pytest.mark.parametrize("mode", MODES)
def test_inputs_are_unharmed_and_results_repeat(mode: tuple[str, bool]) -> None:
    weight, stats = random(8, 28, seed=13), stats_of(correlated_inputs(100, 28, seed=13))
    weight_before, hessian_before = weight.clone(), stats.require("hessian").clone()
    options: dict[str, Any] = {"order": mode[0], "static_groups": mode[1]}
    first, second = (gptq(weight, stats, asymmetric(3, 8), **options).dequantize() for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(weight, weight_before)
    assert torch.equal(stats.require("hessian"), hessian_before)


@pytest.mark.parametrize("group_size", [8, "channel", "tensor"])
@pytest.mark.parametrize("convention", ["full_range", "narrow_range"])
def test_symmetric_formats_work_the_same_way(group_size: Any, convention: Any) -> None:
    grid = IntFormat(bits=4, group_size=group_size, symmetric=True, scale_convention=convention)
    weight, stats = random(16, 28, seed=14), stats_of(correlated_inputs(400, 28, seed=14))
    result = gptq(weight, stats, grid)
    assert result.params.zero is None
    assert error_ratio(weight, stats, stats, grid) < 1.0
    assert result.bits_per_weight() == grid.bits_per_weight((16, 28))


@pytest.mark.parametrize("mode", MODES)
def test_a_format_that_is_no_integer_grid_works_through_the_protocol(mode: tuple[str, bool]) -> None:
    grid, stats = PowersOfTwo(group_size=16), stats_of(correlated_inputs(512, 40, seed=16))
    weight, options = random(32, 40, seed=16), {"order": mode[0], "static_groups": mode[1]}
    assert error_ratio(weight, stats, stats, grid, **options) < 0.9
    diagonal = hessian_stats(torch.eye(40))
    nearest = quantize(weight, grid).dequantize()
    assert torch.equal(gptq(weight, diagonal, grid, **options).dequantize(), nearest)


def test_bad_options_and_missing_statistics_are_refused() -> None:
    for options in ({"damping": 0.0}, {"block_size": 0}, {"percdamp": 0.01}, {"order": "falling"}):
        with pytest.raises(ValidationError, match=next(iter(options))):
            Gptq(**options)
    with pytest.raises(ValueError, match="none were collected"):
        Gptq().round(random(2, 4, seed=15), None, asymmetric())
    assert isinstance(Gptq(), Rounding)
