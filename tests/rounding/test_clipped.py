"""A clip before a rounding that makes up for its errors: grids of the clipped weight, errors of the weight as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import correlated_inputs, hessian_stats, random, stats_of
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import with_params
from quantbench.pipeline import rounder
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding.base import ClippedRounding, Rounded, Rounding, round_with_clip
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.ldlq import Ldlq
from quantbench.rounding.lowrank import LowRankCompensation
from quantbench.rounding.nearest import Nearest
from quantbench.rounding.slim_llm import SlimLlm
from quantbench.rounding.spqr import Spqr
from quantbench.transforms.awq import AwqClip
from recipes import make_recipe
from tiny import VOCABULARY, tiny_handle

GRID = IntFormat(bits=2, group_size=24, symmetric=False)
COMPENSATING: dict[str, Any] = {
    "gptq": Gptq(),
    "gptq activation static": Gptq(order="activation", static_groups=True),
    "gptq activation": Gptq(order="activation"),
    "gptq group-aware": Gptq(order="group_aware"),
    "spqr": Spqr(outlier_threshold=None),
    "ldlq": Ldlq(),
    "ldlq sorted": Ldlq(sort=True, greedy_passes=1),
    "slim_llm": SlimLlm(allocate=False, tau_range=0.0),
    "lorc on gptq": LowRankCompensation(inner=Gptq(), rank=0),
}


def heavy_tailed(seed: int) -> tuple[Tensor, LinearStats]:
    x = correlated_inputs(512, 48, seed=seed, mixing=seed)
    normal = random(32, 48, seed=seed)
    return normal.sign() * normal.abs().pow(1.5), dataclasses.replace(stats_of(x), rows=x[:64])


def of_the_clipped_weight(
    rounding: Rounding, weight: Tensor, bound: Tensor | None, stats: LinearStats | None, format: Format
) -> Rounded:
    return rounding.round(weight if bound is None else weight.clamp(-bound, bound), stats, format)


@pytest.mark.parametrize("name", COMPENSATING)
def test_on_heavy_tails_the_error_is_below_that_of_rounding_the_clipped_weight(name: str) -> None:
    rounding, ours, clipped, unclipped = COMPENSATING[name], 0.0, 0.0, 0.0
    assert isinstance(rounding, ClippedRounding)
    for seed in range(4):
        weight, stats = heavy_tailed(seed)
        bound, H = AwqClip().bound(weight, stats, GRID), stats.require("hessian")
        before = weight.clone()
        ours += output_error(round_with_clip(rounding, weight, bound, stats, GRID).weight.dequantize() - weight, H)
        assert torch.equal(weight, before)
        other = of_the_clipped_weight(rounding, weight, bound, stats, GRID)
        clipped += output_error(other.weight.dequantize() - weight, H)
        unclipped += output_error(rounding.round(weight, stats, GRID).weight.dequantize() - weight, H)
    assert ours < 0.9 * clipped
    assert ours < 0.95 * unclipped


@pytest.mark.parametrize("name", [name for name in COMPENSATING if name not in {"gptq activation", "spqr"}])
def test_on_a_diagonal_hessian_it_is_the_weight_in_the_grid_of_the_clipped_one(name: str) -> None:
    weight, bound = random(8, 48, seed=9).pow(3), random(8, 48, seed=10).abs() + 0.5
    stats = dataclasses.replace(
        hessian_stats(torch.diag(random(48, seed=11).square() + 0.1)), rows=random(8, 48, seed=1)
    )
    expected = with_params(weight, GRID.params(weight.clamp(-bound, bound)), GRID).dequantize()
    assert torch.equal(round_with_clip(COMPENSATING[name], weight, bound, stats, GRID).weight.dequantize(), expected)


def test_a_bound_beyond_every_weight_changes_nothing_and_the_fallback_is_to_the_clipped_weight() -> None:
    weight, stats = heavy_tailed(5)
    for rounding in COMPENSATING.values():
        wide = round_with_clip(rounding, weight, torch.full_like(weight, 1e4), stats, GRID).weight
        assert torch.equal(wide.dequantize(), rounding.round(weight, stats, GRID).weight.dequantize())
    bound, indefinite = torch.ones_like(weight), torch.eye(48)
    indefinite[0, 1] = indefinite[1, 0] = 1e6
    nearest = Nearest().round(weight.clamp(-1, 1), None, GRID).weight.dequantize()
    for rounding in (Gptq(), Spqr(), Ldlq()):
        fallen = round_with_clip(rounding, weight, bound, hessian_stats(indefinite), GRID)
        assert fallen.fallbacks == {"nearest": 1}
        assert torch.equal(fallen.weight.dequantize(), nearest)


def test_outliers_keep_their_own_value_and_low_rank_factors_the_error_of_the_weight() -> None:
    weight, stats = heavy_tailed(6)
    bound = torch.full_like(weight, 2.0)
    kept = round_with_clip(Spqr(outlier_threshold=0.0), weight.half().float(), bound, stats, GRID).weight
    assert torch.equal(kept.dequantize(), weight.half().float())
    whole: Any = LowRankCompensation(inner=Nearest(), rank=32, factor_dtype="float32")
    torch.testing.assert_close(
        round_with_clip(whole, weight, bound, None, GRID).weight.dequantize(), weight, atol=1e-4, rtol=0
    )


def test_a_rounding_that_makes_up_for_nothing_is_given_the_clipped_weight() -> None:
    weight, _ = heavy_tailed(7)
    bound = torch.full_like(weight, 1.5)
    assert not isinstance(Nearest(), ClippedRounding)
    ours = round_with_clip(Nearest(), weight, bound, None, GRID).weight
    assert torch.equal(ours.dequantize(), Nearest().round(weight.clamp(-1.5, 1.5), None, GRID).weight.dequantize())
    unbounded = round_with_clip(Nearest(), weight, None, None, GRID).weight
    assert torch.equal(unbounded.dequantize(), Nearest().round(weight, None, GRID).weight.dequantize())


@torch.no_grad()
@pytest.mark.parametrize("columns", [0, 2])
def test_a_recipe_with_a_clip_hands_on_the_models_own_weights(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(rounding: Rounding, weight: Tensor, bound: Tensor | None, *rest: Any) -> Rounded:
        if bound is not None:
            seen.append((weight.clone(), bound.clone()))
        return round_with_clip(rounding, weight, bound, *rest)

    monkeypatch.setattr(rounder, "round_with_clip", watched)
    options = ["quantizer.weight.group_size=16", "quantizer.weight.bits=2", "+clip@quantizer.clip=awq"]
    recipe = make_recipe("gptq", *options, f"quantizer.policy.outlier_columns={columns}")
    tokens = torch.randint(0, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(1))
    handle = tiny_handle()
    own = [value for value in handle.originals.values() if value.dim() == 2]
    quantize_model(handle, recipe, tokens, torch.device("cpu"), lambda _done, _total: None)
    assert len(seen) == 14
    assert any(bool((bound < weight.abs()).any()) for weight, bound in seen)
    for weight, bound in seen:
        assert bound.shape == weight.shape
        same = (w for w in own if w.shape == (len(weight), weight.shape[1] + columns))
        assert any(bool(torch.isin(weight, w).all()) for w in same)
