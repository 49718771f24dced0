from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, correlated_inputs, hessian_stats, random, stats_of
from quantbench.cells.summary import notes_of
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.corrections import Outliers
from quantbench.formats.double_quantization import DoubleQuantization
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.state import Quantized
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.spqr import Spqr, saved_errors
from recipes import make_recipe


def real_zero(group_size: Any = 8, bits: int = 3, **options: Any) -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False, zero_rounding=False, **options)


def two_level(group_size: Any = 8, bits: int = 3) -> IntFormat:
    return real_zero(group_size, bits, double_quantization=DoubleQuantization(scale_bits=3, zero_bits=3, group_size=16))


def spqr(weight: Tensor, stats: LinearStats, grid: Format, **options: Any) -> QuantizedWeight:
    result = Spqr(**{"damping": 0.01, **options}).round(weight, stats, grid)
    assert result.fallbacks == {}
    return result.weight


def share(weight: QuantizedWeight) -> float:
    kept = sum(len(c.values) for c in weight.corrections if isinstance(c, Outliers))
    return kept / weight.numel()


@pytest.mark.parametrize("order", ["natural", "activation", "group_aware"])
@pytest.mark.parametrize("threshold", [None, 1e30])
@pytest.mark.parametrize("grid", [real_zero(), real_zero("channel"), two_level(), PowersOfTwo(group_size=12)])
def test_with_an_infinite_threshold_it_is_gptq_with_dynamic_groups(
    grid: Format, threshold: float | None, order: Any
) -> None:
    weight, stats = random(24, 44, seed=0), stats_of(correlated_inputs(400, 44, seed=0))
    ours = spqr(weight, stats, grid, outlier_threshold=threshold, order=order)
    theirs = Gptq(order=order).round(weight, stats, grid).weight
    assert ours.corrections == ()
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(ours.dequantize(), theirs.dequantize())
    assert ours.bits_per_weight() == theirs.bits_per_weight()


@pytest.mark.parametrize("order", ["natural", "activation", "group_aware"])
@pytest.mark.parametrize("grid", [real_zero(), two_level(), IntFormat(bits=2, group_size=8, symmetric=False)])
def test_with_a_threshold_of_zero_it_is_the_weight_itself(grid: Format, order: Any) -> None:
    weight, stats = random(24, 44, seed=1).half().float(), stats_of(correlated_inputs(400, 44, seed=1))
    assert torch.equal(spqr(weight, stats, grid, outlier_threshold=0.0, order=order).dequantize(), weight)


@pytest.mark.parametrize("grid", [real_zero(9), IntFormat(bits=4, group_size=9, symmetric=False), PowersOfTwo(9)])
def test_saved_errors_are_those_of_fitting_without_each_weight_in_turn(grid: Format) -> None:
    W, u = random(20, 9, seed=2), random(9, seed=3).abs() + 0.2
    W[3] = W[3].abs()
    W[4] = -W[4].abs()
    W[5, 2] = W[5, 7] = 9.0  # a largest value that is there twice

    def error(columns: list[int]) -> Tensor:
        part = W[:, columns]
        params = grid.params(part)
        return ((part - grid.decode(grid.encode(part, params), params)) / u[columns]).square().sum(1)

    expected = torch.stack([error(list(range(9))) - error([j for j in range(9) if j != k]) for k in range(9)], dim=1)
    torch.testing.assert_close(saved_errors(W, u, grid), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(saved_errors(W[:, :1].contiguous(), u[:1], grid), torch.zeros(20, 1), atol=1e-4, rtol=0)


def test_an_outlier_is_kept_and_does_not_widen_its_group() -> None:
    weight = random(16, 32, seed=4)
    weight[5, 11] = 60.0
    stats = hessian_stats(torch.eye(32))
    result = spqr(weight, stats, real_zero(), outlier_threshold=0.2, order="natural")
    assert result.dequantize()[5, 11] == 60.0
    assert share(result) == 1 / (16 * 32)
    others = result.dequantize() - weight
    assert float(others[5, 8:16].abs().max()) < 0.6
    assert float((quantize(weight, real_zero()).dequantize() - weight)[5, 8:16].abs().max()) > 1.0


def test_what_is_kept_is_compensated_like_any_other_value() -> None:
    """The errors that are spread are those of the values that are stored: rounding to float16 counts, too."""
    weight, stats = random(8, 16, seed=5), stats_of(correlated_inputs(300, 16, seed=5))
    result = spqr(weight, stats, real_zero(), outlier_threshold=0.0, order="natural")
    first = result.dequantize()[:, 0]
    assert torch.equal(first, weight[:, 0].half().float())
    H = stats.require("hessian")
    H = H + 0.01 * H.diagonal().mean() * torch.eye(16)
    inverse = H.double().inverse()
    second = weight[:, 1].double() - (weight[:, 0] - first).double() * inverse[0, 1] / inverse[0, 0]
    torch.testing.assert_close(result.dequantize()[:, 1].double(), second, rtol=6e-4, atol=1e-6)


def test_the_share_of_outliers_falls_with_the_threshold_and_its_bits_are_counted() -> None:
    weight, stats = random(32, 64, seed=6), stats_of(correlated_inputs(500, 64, seed=6))
    results = [spqr(weight, stats, two_level(16), outlier_threshold=t) for t in (0.0, 0.05, 0.1, 0.2, 0.5, 2.0)]
    shares = [share(result) for result in results]
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[3] < 0.05 < shares[0]
    expected = 3 + 6 / 16 + 64 / 256 + 32 * shares[3] + 32 / 64 + 32 / 32  # the last two: counts by row, group index
    assert results[3].bits_per_weight() == pytest.approx(expected)
    artifact = Artifact(weights={"a": results[3], "b": results[5]})
    assert artifact.outlier_share == pytest.approx((shares[3] + shares[5]) / 2)
    (note,) = notes_of(Quantized(artifact))
    assert note == f"{artifact.outlier_share:.2%} of the quantized weights are kept in 16 bits as outliers"
    assert notes_of(Quantized(Artifact())) == []
    losses = [output_error(result.dequantize() - weight, stats.require("hessian")) for result in results]
    assert losses == sorted(losses)


def test_it_is_better_than_gptq_with_the_same_format_at_three_bits() -> None:
    ratios = []
    for seed in range(4):
        weight, stats = random(24, 64, seed=seed), stats_of(correlated_inputs(512, 64, seed=seed, mixing=seed))
        H = stats.require("hessian")
        ours = output_error(spqr(weight, stats, two_level(16)).dequantize() - weight, H)
        theirs = Gptq(order="activation").round(weight, stats, two_level(16)).weight
        ratios.append(ours / output_error(theirs.dequantize() - weight, H))
    assert sum(ratios) / len(ratios) < 0.9


def test_neither_the_scale_of_h_nor_the_block_size_nor_that_of_the_weight_matters() -> None:
    weight, stats = random(24, 44, seed=7), stats_of(correlated_inputs(400, 44, seed=7))
    base = spqr(weight, stats, two_level())
    scaled = hessian_stats(1024 * stats.require("hessian"))
    for other in [
        spqr(weight, scaled, two_level()),
        spqr(weight / 64, stats, two_level()),
        *(spqr(weight, stats, two_level(), block_size=size) for size in (1, 7, 8, 1000)),
    ]:
        assert torch.equal(other.codes, base.codes)
        assert share(other) == share(base)


def test_dead_inputs_failing_decompositions_and_single_rows() -> None:
    x, weight = correlated_inputs(400, 24, seed=8), random(8, 24, seed=8)
    x[:, [3, 17]] = 0
    result = Spqr().round(weight, stats_of(x), two_level())
    assert result.fallbacks == {"dead_inputs": 2}
    near = result.weight.dequantize()[:, [3, 17]].abs()  # 0 itself is not on a grid with a real zero point
    assert float(near.max()) <= 0.51 * float(result.weight.params.scale.max())
    exact = Spqr().round(weight, stats_of(x), IntFormat(bits=3, group_size=8, symmetric=False)).weight.dequantize()
    assert torch.equal(exact[:, [3, 17]], torch.zeros(8, 2))
    indefinite = hessian_stats(torch.tensor([[1.0, 1e9], [1e9, 1.0]]))
    fallen = Spqr().round(weight[:, :2], indefinite, real_zero())
    assert fallen.fallbacks == {"nearest": 1}
    single = spqr(weight[:1], stats_of(correlated_inputs(400, 24, seed=9)), two_level())
    assert bool(single.dequantize().isfinite().all())
    assert share(single) < 0.5
    constant = spqr(torch.ones(8, 24), stats_of(correlated_inputs(400, 24, seed=9)), two_level())
    assert float((constant.dequantize() - 1).abs().max()) < 1e-2


def test_inputs_are_unharmed_and_results_repeat() -> None:
    weight, stats = random(8, 28, seed=10), stats_of(correlated_inputs(100, 28, seed=10))
    before = weight.clone(), stats.require("hessian").clone()
    assert torch.equal(spqr(weight, stats, two_level()).dequantize(), spqr(weight, stats, two_level()).dequantize())
    assert torch.equal(weight, before[0])
    assert torch.equal(stats.require("hessian"), before[1])


def test_bad_options_are_refused() -> None:
    refused: list[dict[str, Any]] = [{"damping": 0.0}, {"outlier_threshold": -1.0}, {"outlier_threshold": float("inf")}]
    for options in refused:
        with pytest.raises(ValidationError, match=next(iter(options))):
            Spqr(**options)
    with pytest.raises(ValueError, match="none were collected"):
        Spqr().round(random(2, 4, seed=11), None, two_level())
    with pytest.raises(ConfigError, match="SpQR needs scales for each output row"):
        make_recipe("gptq", "rounding@quantizer.rounding=spqr", "quantizer.weight.group_size=tensor")
    with pytest.raises(ValueError, match="a weight of 7e\\+04 cannot be kept as float16"):
        spqr(7e4 * random(8, 16, seed=12).sign(), stats_of(correlated_inputs(99, 16, seed=12)), real_zero())
