from __future__ import annotations

import pytest
import torch

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.formats.int import IntFormat
from quantbench.rounding.base import Rounding
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.lowrank import LowRankCompensation
from quantbench.rounding.nearest import Nearest
from recipes import make_recipe

GRID = IntFormat(bits=3, group_size=8, symmetric=False)


def test_full_rank_gives_the_weight_back() -> None:
    weight = random(12, 20, seed=0)
    for rank in (12, 99):
        exact = LowRankCompensation(inner=Nearest(), rank=rank, factor_dtype="float32").round(weight, None, GRID)
        torch.testing.assert_close(exact.weight.dequantize(), weight, rtol=0, atol=1e-5)
    half = LowRankCompensation(inner=Nearest(), rank=12).round(weight, None, GRID).weight.dequantize()
    assert 0 < float((half - weight).abs().max()) < 1e-3


def test_the_error_left_is_the_norm_of_the_smaller_singular_values() -> None:
    weight = random(12, 20, seed=1)
    S = torch.linalg.svdvals(weight - Nearest().round(weight, None, GRID).weight.dequantize())
    errors = []
    for m in range(13):
        rounding = LowRankCompensation(inner=Nearest(), rank=m, factor_dtype="float32")
        errors.append(float((weight - rounding.round(weight, None, GRID).weight.dequantize()).norm()))
        assert errors[-1] == pytest.approx(float(S[m:].norm()), abs=1e-5)
    assert errors == sorted(errors, reverse=True)


def test_rank_zero_is_the_inner_rounding_and_all_stored_bits_are_counted() -> None:
    weight, stats = random(12, 20, seed=2), stats_of(correlated_inputs(100, 20, seed=2))
    inner = Gptq().round(weight, stats, GRID).weight
    zero = LowRankCompensation(inner=Gptq(), rank=0).round(weight, stats, GRID).weight
    assert torch.equal(zero.dequantize(), inner.dequantize())
    assert zero.corrections == ()
    three = LowRankCompensation(inner=Gptq(), rank=3).round(weight, stats, GRID).weight
    assert torch.equal(three.codes, inner.codes)
    assert three.bits_per_weight() == pytest.approx(inner.bits_per_weight() + 16 * 3 * (12 + 20) / (12 * 20))


def test_fallbacks_and_needs_are_those_of_the_inner_rounding() -> None:
    x = correlated_inputs(100, 20, seed=3)
    x[:, 4] = 0
    rounding = LowRankCompensation(inner=Gptq(), rank=2)
    assert isinstance(rounding, Rounding)
    assert rounding.needs == {"hessian"}
    assert rounding.round(random(12, 20, seed=3), stats_of(x), GRID).fallbacks == {"dead_inputs": 1}
    assert make_recipe("zeroquant_lorc").data_free
    assert not make_recipe("zeroquant_lorc", "rounding@quantizer.rounding.inner=gptq").data_free


def test_a_refusal_of_the_inner_rounding_counts_and_factors_may_not_overflow() -> None:
    with pytest.raises(ConfigError, match="SliM-LLM"):
        make_recipe("zeroquant_lorc", "rounding@quantizer.rounding.inner=slim_llm")
    huge = IntFormat(bits=2, group_size="channel", symmetric=False, scale_dtype="float32")
    with pytest.raises(ValueError, match="factor_dtype='float16'"):
        LowRankCompensation(inner=Nearest(), rank=1).round(1e12 * random(4, 8, seed=4), None, huge)
