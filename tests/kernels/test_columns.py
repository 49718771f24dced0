"""GPTQ's columns by the compiled kernel, against the loop that anyone can read."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.double_quantization import DoubleQuantization
from quantbench.formats.int import IntFormat
from quantbench.kernels import loading
from quantbench.rounding import gptq as gptq_module
from quantbench.rounding import hessian, prepared
from quantbench.rounding.base import Rounded
from quantbench.rounding.gptq import Gptq

ORDERS: list[Any] = ["natural", "activation", "group_aware"]
FORMATS: dict[str, dict[str, Any]] = {
    "asymmetric": {"symmetric": False},
    "narrow": {"symmetric": True, "scale_convention": "narrow_range"},
    "real zero points": {"symmetric": False, "zero_rounding": False},
    "two levels": {
        "symmetric": False,
        "double_quantization": DoubleQuantization(scale_bits=3, zero_bits=None, group_size=4),
    },
    "searched": {"symmetric": False, "range": "mse"},
}


def both(monkeypatch: pytest.MonkeyPatch, rounding: Gptq, *problem: Any, bound: Any = None) -> tuple[Rounded, Rounded]:
    """By the kernel, and by the loop."""
    quick = rounding.round_clipped(problem[0], bound, *problem[1:])
    with monkeypatch.context() as patched:
        patched.setattr(gptq_module, "compiled_here", lambda: False)
        return quick, rounding.round_clipped(problem[0], bound, *problem[1:])


def assert_same(quick: Rounded, slow: Rounded, weight: torch.Tensor, stats: LinearStats) -> None:
    """But for codes and 16-bit parameters that the order of a sum decides, of which few are to be expected."""
    assert quick.fallbacks == {}
    assert slow.fallbacks == {"uncompiled": 1}
    one, other = quick.weight, slow.weight
    assert one.codes.shape == other.codes.shape
    assert float((one.codes != other.codes).float().mean()) < 2e-3
    H = stats.require("hessian")
    losses = [output_error(found.dequantize() - weight, H) for found in (one, other)]
    equal = torch.equal(one.dequantize(), other.dequantize())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6 if equal else 2e-3)
    assert (one.group_index is None) == (other.group_index is None)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_the_kernel_rounds_as_the_loop_does(
    name: str, static: bool, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, stats = random(24, 100, seed=1), stats_of(correlated_inputs(400, 100, seed=1))
    for group_size, block_size in ((16, 128), (48, 40), ("channel", 37), ("tensor", 100)):
        if group_size == "tensor" and name == "two levels":
            continue
        grid = IntFormat(bits=3, group_size=group_size, **FORMATS[name])  # type: ignore[arg-type]
        rounding = Gptq(order=order, static_groups=static, block_size=block_size)
        assert_same(*both(monkeypatch, rounding, weight, stats, grid), weight, stats)


@pytest.mark.parametrize("static", [False, True])
def test_grids_are_fitted_to_the_clipped_weight_by_both(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, stats = random(8, 64, seed=2), stats_of(correlated_inputs(300, 64, seed=2))
    bound, grid = (
        0.7 * weight.abs().amax(1, keepdim=True).expand_as(weight),
        IntFormat(bits=4, group_size=16, symmetric=False),
    )
    rounding = Gptq(order="group_aware", static_groups=static)
    assert_same(*both(monkeypatch, rounding, weight, stats, grid, bound=bound), weight, stats)


def test_parts_of_the_rows_on_several_threads_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, stats = random(200, 64, seed=3), stats_of(correlated_inputs(300, 64, seed=3))
    grid = IntFormat(bits=3, group_size=16, symmetric=False, range="mse")
    whole = Gptq().round(weight, stats, grid).weight
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(Gptq().round(weight, stats, grid).weight.codes, whole.codes)
    seen: list[tuple[int, int]] = []
    loading.in_parts(lambda start, end: seen.append((start, end)), 10, threads=4, least=3)
    assert sorted(seen) == [(0, 3), (3, 6), (6, 10)]
    with pytest.raises(ZeroDivisionError):
        loading.in_parts(lambda start, end: 1 // 0, 10, threads=2, least=1)  # type: ignore[arg-type]


def test_without_a_compiler_rounding_goes_on_and_tells(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weight, stats = random(8, 32, seed=4), stats_of(correlated_inputs(300, 32, seed=4))
    grid = IntFormat(bits=3, group_size=8, symmetric=False, range="mse")
    expected = Gptq().round(weight, stats, grid)

    def fails(name: str) -> Any:
        raise ImportError(f"no compiler for {name}")

    monkeypatch.setattr(importlib, "import_module", fails)
    loading.kernels.cache_clear()
    try:
        with caplog.at_level("INFO", logger="quantbench"):
            twice = [Gptq().round(weight, stats, grid) for _ in range(2)]
    finally:
        loading.kernels.cache_clear()
    assert [found.fallbacks for found in twice] == [{"uncompiled": 1}] * 2
    assert torch.equal(twice[0].weight.params.scale, expected.weight.params.scale)
    said = [record.message for record in caplog.records if "cannot be compiled here" in record.message]
    assert len(said) == 2
    assert "no compiler for quantbench.kernels.columns" in " ".join(said)
    assert "no compiler for quantbench.kernels.ranges" in " ".join(said)


def test_weights_that_read_one_input_share_a_factorization(monkeypatch: pytest.MonkeyPatch) -> None:
    factorize, made = hessian.inverse_cholesky, [0]

    def counted(*given: Any) -> Any:
        made[0] += 1
        return factorize(*given)

    monkeypatch.setattr(prepared, "inverse_cholesky", counted)
    stats, grid = stats_of(correlated_inputs(300, 32, seed=5)), IntFormat(bits=3, group_size=8, symmetric=False)
    weights = [random(8, 32, seed=6), random(4, 32, seed=7)]
    shared = [Gptq().round(weight, stats, grid).weight.codes for weight in weights]
    assert made == [1]
    Gptq(order="activation").round(weights[0], stats, grid)
    Gptq(damping=0.1).round(weights[0], stats.rescaled(torch.ones(32)), grid)
    assert made == [3]
    stats.forget()
    assert all(torch.equal(Gptq().round(w, stats, grid).weight.codes, c) for w, c in zip(weights, shared, strict=True))
    assert made == [4]
