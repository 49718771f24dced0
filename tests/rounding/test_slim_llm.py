from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.grid import IntGrid, containing_zero
from quantbench.formats.int import IntFormat
from quantbench.formats.mixed import MixedIntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.range_search import smallest_error
from quantbench.rounding import gptq
from quantbench.rounding.base import Rounding
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.hessian import inverse_cholesky
from quantbench.rounding.slim_llm import SlimLlm, allocated, allocation_losses, salient, salient_groups
from recipes import make_recipe

PLAIN: dict[str, Any] = {"allocate": False, "tau_range": 0}


def grid(bits: int = 2, group_size: int = 8) -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False)


def with_rows(x: Tensor) -> LinearStats:
    return dataclasses.replace(stats_of(x), rows=x)


def uneven(width: int, seed: int) -> LinearStats:
    """Inputs whose groups of eight columns differ in size, so that salience differs."""
    return with_rows(correlated_inputs(200, width, seed=seed) * (1 + torch.arange(width) // 8)[None])


@pytest.mark.parametrize("bits", [2, 3, 7])
@pytest.mark.parametrize("groups", [1, 2, 5, 8])
def test_the_mean_of_the_bits_is_exact_for_every_p(groups: int, bits: int) -> None:
    order = salient_groups(random(8 * groups, seed=0).square(), 8)
    for p in range(groups // 2 + 1):
        chosen = allocated(bits, groups, order, p)
        assert sum(chosen) == bits * groups
        assert sorted(chosen).count(bits + 1) == p
        assert all(chosen[k] == bits + 1 for k in order[:p])


@pytest.mark.parametrize("width", [40, 44, 5])
@pytest.mark.parametrize("bits", [2, 3])
def test_without_allocation_and_range_search_it_is_gptq_bit_for_bit(
    bits: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gptq, "compiled_here", lambda: False)  # the loop that both share
    weight, stats = random(12, width, seed=1), uneven(width, seed=1)
    ours = SlimLlm(**PLAIN).round(weight, stats, grid(bits)).weight
    theirs = Gptq(block_size=8).round(weight, stats, grid(bits)).weight
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(ours.params.scale, theirs.params.scale)
    assert torch.equal(ours.dequantize(), theirs.dequantize())


@pytest.mark.parametrize("bits", [2, 3])
def test_the_chosen_allocation_has_the_smallest_divergence(bits: int) -> None:
    """The loss of each p is that of its weight rounded at once; p = 0 is among them."""
    weight, stats = random(20, 48, seed=2), uneven(48, seed=2)
    X = stats.require("rows")
    order = salient_groups(random(48, seed=3).square(), 8)
    losses = allocation_losses(weight, X, order, grid(bits))
    assert len(losses) == 4
    log_p = (X @ weight.T).log_softmax(-1)
    for p, loss in enumerate(losses.tolist()):
        mixed = MixedIntFormat(group_bits=allocated(bits, 6, order, p), group_size=8)
        log_q = (X @ quantize(weight, mixed).dequantize().T).log_softmax(-1)
        expected = torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
        assert loss == pytest.approx(float(expected), rel=1e-3)


def test_the_rounding_takes_that_allocation_by_salience() -> None:
    weight, stats = random(20, 48, seed=4), uneven(48, seed=4)
    factor = inverse_cholesky(stats.require("hessian"), 0.01)
    assert factor is not None
    order = salient_groups((weight / factor.upper.diagonal()).square().sum(0), 8)
    p = int(allocation_losses(weight, stats.require("rows"), order, grid()).argmin())
    assert p > 0
    rounded = SlimLlm().round(weight, stats, grid()).weight
    assert isinstance(rounded.format, MixedIntFormat)
    assert rounded.format.group_bits == allocated(2, 6, order, p)
    assert set(rounded.format.group_bits) <= {1, 2, 3}
    assert order[0] == 5  # the columns with the largest inputs


def test_a_short_last_group_keeps_the_bits_of_the_format() -> None:
    weight, stats = random(20, 44, seed=5), uneven(44, seed=5)
    rounded = SlimLlm().round(weight, stats, grid()).weight
    assert isinstance(rounded.format, MixedIntFormat)
    bits = rounded.format.group_bits
    assert bits[-1] == 2
    assert sum(bits) == 2 * 6
    assert len(set(bits)) > 1
    narrow = SlimLlm().round(weight[:, :5], stats.select(torch.arange(5)), grid()).weight
    assert isinstance(narrow.format, MixedIntFormat)
    assert narrow.format.group_bits == (2,)


@pytest.mark.parametrize("bits", [2, 3])
def test_the_range_search_never_does_worse_than_the_whole_range(bits: int) -> None:
    W, delta = random(10, 16, seed=6), random(10, 16, seed=7).square()
    importance = torch.where(salient(delta), 2.0, 1.0)
    arithmetic = IntGrid(bits, None, "float16")
    bounds = containing_zero(*W.aminmax(dim=1, keepdim=True))

    def objective(factors: list[float]) -> Tensor:
        found = smallest_error(arithmetic, W, bounds, factors, importance)
        q = arithmetic.values(arithmetic.levels(W, found), found)
        return (importance * (q - W).abs().pow(2.4)).sum(1)

    searched, whole = objective(SlimLlm().taus()), objective([1.0])
    assert bool((searched <= whole).all())
    assert float(searched.sum()) < 0.99 * float(whole.sum())
    assert len(SlimLlm().taus()) == 101
    assert (min(SlimLlm().taus()), max(SlimLlm().taus())) == pytest.approx((0.9, 1.1))


def test_salient_weights_are_those_far_above_the_mean() -> None:
    delta = torch.ones(4, 8)
    assert not bool(salient(delta).any())  # a group without outliers is no error
    assert not bool(salient(torch.ones(1, 1)).any())
    delta[2, 3] = 100.0
    assert salient(delta).nonzero().tolist() == [[2, 3]]


def test_the_weight_of_salient_elements_matters_unless_it_is_one() -> None:
    weight, stats = random(16, 32, seed=8), uneven(32, seed=8)
    weight[3, 5], weight[9, 20] = 6.0, -5.0
    scales = [
        SlimLlm(allocate=False, salient_weight=lam).round(weight, stats, grid(3, 16)).weight.params.scale
        for lam in (1.0, 30.0)
    ]
    assert not torch.equal(scales[0], scales[1])


def test_both_kinds_of_salience_agree_on_a_diagonal_hessian() -> None:
    H = torch.diag(random(32, seed=9).square() + 0.1)
    stats = LinearStats(n_tokens=1, hessian=H, rows=random(64, 32, seed=10) * H.diagonal().sqrt())
    weight = random(8, 32, seed=9)
    first, second = (
        SlimLlm(salience=kind).round(weight, stats, grid()).weight.dequantize() for kind in ("cholesky", "diag_inverse")
    )
    torch.testing.assert_close(first, second)


def test_uneven_inputs_are_served_better_than_by_gptq() -> None:
    ours, theirs = 0.0, 0.0
    for seed in range(4):
        weight, stats = random(24, 64, seed=seed), uneven(64, seed=seed)
        H = stats.require("hessian")
        ours += output_error(weight - SlimLlm().round(weight, stats, grid()).weight.dequantize(), H)
        theirs += output_error(weight - Gptq().round(weight, stats, grid()).weight.dequantize(), H)
    assert ours < theirs


def test_what_gives_way_is_counted_and_inputs_are_unharmed() -> None:
    x, weight = correlated_inputs(100, 24, seed=11), random(8, 24, seed=11)
    x[:, 3] = 0
    stats, before = with_rows(x), weight.clone()
    result = SlimLlm().round(weight, stats, grid())
    assert result.fallbacks == {"dead_inputs": 1}
    assert bool(result.weight.dequantize().isfinite().all())
    assert torch.equal(weight, before)
    hopeless = LinearStats(n_tokens=1, hessian=torch.tensor([[1.0, 1e6], [1e6, 1.0]]), rows=torch.ones(1, 2))
    fallen = SlimLlm().round(weight[:, :2], hopeless, grid())
    assert fallen.fallbacks == {"nearest": 1}
    assert torch.equal(fallen.weight.codes, quantize(weight[:, :2], grid()).codes)


@pytest.mark.parametrize(
    "override",
    [
        "quantizer.weight.bits=8",
        "quantizer.weight.group_size=channel",
        "quantizer.weight.range=mse",
        "format@quantizer.weight=rms",
        "format@quantizer.weight=int8_channel",
    ],
)
def test_formats_it_cannot_start_from_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="weight: SliM-LLM"):
        make_recipe("slim_llm", override)


def test_formats_of_the_policy_are_looked_at_too() -> None:
    other = "{_target_: quantbench.formats.rms.RmsFormat, bits: 2, group_size: 8}"
    rule = f"{{_target_: quantbench.pipeline.policy.Rule, match: o_proj, format: {other}}}"
    with pytest.raises(ConfigError, match=r"policy\.rules\.o\.format: SliM-LLM"):
        make_recipe("slim_llm", f"+quantizer.policy.rules.o={rule}")
    with pytest.raises(ValueError, match="integers of 2 to 7 bits"):
        SlimLlm().round(random(2, 8, seed=0), uneven(8, seed=0), grid(8))
    assert isinstance(SlimLlm(), Rounding)
