from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from helpers_math import PowersOfTwo, correlated_inputs, hessian_stats, random, stats_of
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, output_error, quick_output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.transforms.awq import AwqClip, AwqScale
from quantbench.transforms.base import Clip, ScaleTransform

GROUPS: list[int | Literal["channel", "tensor"]] = [8, 12, "channel", "tensor"]
INTEGERS = IntFormat(bits=2, group_size="channel", symmetric=False, scale_dtype="float32")


def asymmetric(bits: int = 3, group_size: Any = 8) -> IntFormat:
    return IntFormat(bits=bits, group_size=group_size, symmetric=False)


def salient_inputs(seed: int) -> Tensor:
    """Inputs of which a few channels are much larger than the rest, as in language models."""
    x = correlated_inputs(128, 28, seed=seed, mixing=seed)
    x[:, :3] *= 12
    return x


def scaled_error(weights: Sequence[Tensor], stats: LinearStats, format: Format, scale: Tensor) -> float:
    H = stats.require("hessian")
    return sum(output_error(w - quantize(w * scale, format).dequantize() / scale, H) for w in weights)


def clip(weight: Tensor, stats: LinearStats, format: Format, **options: Any) -> Tensor:
    bound = AwqClip(**options).bound(weight, stats, format)
    return weight.clamp(-bound, bound)


def group_errors(weight: Tensor, rounded: Tensor, hessian: Tensor, columns: int) -> Tensor:
    """dw^T H_gg dw for each row and group [out, groups]."""
    errors = []
    for start in range(0, weight.shape[1], columns):
        group = slice(start, start + columns)
        dw = (weight - rounded)[:, group]
        errors.append(((dw @ hessian[group, group]) * dw).sum(1))
    return torch.stack(errors, dim=1)


def test_the_scale_is_never_worse_than_nearest_on_its_objective() -> None:
    for seed in range(40):
        x = salient_inputs(seed) if seed % 2 else correlated_inputs(64, 28, seed=seed, mixing=seed)
        weights, stats = [random(6, 28, seed=seed), random(4, 28, seed=seed + 100)], stats_of(x)
        grid = asymmetric(2 + seed % 3, GROUPS[seed % 4])
        scale = AwqScale().scale(weights, stats, [grid, grid])
        assert bool((scale.isfinite() & (scale > 0)).all())
        assert scaled_error(weights, stats, grid, scale) <= scaled_error(weights, stats, grid, torch.ones(28))


@pytest.mark.parametrize("width", [28, 200, 400])
def test_the_search_takes_the_scale_that_trying_all_would(width: int) -> None:
    for seed in range(6):
        x = correlated_inputs(512, width, seed=seed, mixing=seed)
        x[:, :3] *= 12
        stats, weights = stats_of(x), [random(300, width, seed=seed), random(8, width, seed=seed + 100)]
        grid = asymmetric(2 + seed % 3)
        mean_abs = stats.require("mean_abs")
        tried = [mean_abs.pow(k / 20).clamp(min=1e-4) for k in range(20)]
        tried = [s / (s.max() * s.min()).sqrt() for s in tried]
        best = min(range(20), key=lambda k: scaled_error(weights, stats, grid, tried[k]))
        assert torch.equal(AwqScale().scale(weights, stats, [grid, grid]), tried[best])


@pytest.mark.parametrize(("rows", "width"), [(3, 5), (300, 192), (520, 401)])
def test_the_quick_error_is_the_error_and_gives_up_above_a_bound(rows: int, width: int) -> None:
    delta, H = random(rows, width, seed=1), stats_of(random(600, width, seed=2)).require("hessian")
    exact = float(((delta.double() @ H.double()) * delta.double()).sum())
    assert quick_output_error(delta, H, torch.inf) == pytest.approx(exact, rel=1e-5)
    assert quick_output_error(delta, H, 1.001 * exact) == pytest.approx(exact, rel=1e-5)
    assert quick_output_error(delta, H, 0.999 * exact) == torch.inf


def test_the_scale_leaves_the_function_unchanged() -> None:
    for seed in range(10):
        x, weight = salient_inputs(seed), random(6, 28, seed=seed)
        s = AwqScale().scale([weight], stats_of(x), [asymmetric(2 + seed % 3)]).double()
        x, weight = x.double(), weight.double()
        torch.testing.assert_close(x / s @ (weight * s).T, x @ weight.T, rtol=0, atol=1e-12)


def test_each_weight_counts_with_its_own_format_and_one_that_is_not_rounded_not_at_all() -> None:
    stats, weights = stats_of(salient_inputs(3)), [random(8, 28, seed=3), random(8, 28, seed=4).pow(3)]
    coarse, fine = asymmetric(2), asymmetric(4)
    scale = AwqScale().scale(weights, stats, [coarse, fine])
    H, mean_abs = stats.require("hessian"), stats.require("mean_abs")
    tried = [mean_abs.pow(k / 20) for k in range(20)]
    errors = []
    for s in (s / (s.max() * s.min()).sqrt() for s in tried):
        pairs = zip(weights, (coarse, fine), strict=True)
        errors.append(sum(output_error(W - quantize(W * s, grid).dequantize() / s, H) for W, grid in pairs))
    best = tried[min(range(20), key=errors.__getitem__)]
    torch.testing.assert_close(scale, best / (best.max() * best.min()).sqrt())
    alone = AwqScale().scale(weights[:1], stats, [coarse])
    assert torch.equal(AwqScale().scale(weights, stats, [coarse, None]), alone)


def test_salient_channels_are_scaled_up_and_the_error_falls() -> None:
    weights, stats = [random(32, 28, seed=0)], stats_of(salient_inputs(0))
    scale = AwqScale().scale(weights, stats, [asymmetric(3)])
    assert float(scale[:3].min()) > float(scale[3:].max())
    unscaled = scaled_error(weights, stats, asymmetric(3), torch.ones(28))
    assert scaled_error(weights, stats, asymmetric(3), scale) < 0.8 * unscaled


def test_the_scale_is_the_best_of_its_grid_and_normalised() -> None:
    weights, stats, grid = [random(8, 28, seed=1)], stats_of(salient_inputs(1)), asymmetric(3)
    scale = AwqScale(grid=4).scale(weights, stats, [grid])
    assert float(scale.max() * scale.min()) == pytest.approx(1.0)
    mean_abs = stats.require("mean_abs")
    candidates = [mean_abs.pow(k / 4) for k in range(4)]
    errors = [scaled_error(weights, stats, grid, s / (s.max() * s.min()).sqrt()) for s in candidates]
    assert scaled_error(weights, stats, grid, scale) == pytest.approx(min(errors))
    alpha = errors.index(min(errors)) / 4
    torch.testing.assert_close(scale / scale[0], (mean_abs / mean_abs[0]).pow(alpha))


def test_a_grid_of_one_and_an_exact_weight_keep_the_identity() -> None:
    stats = stats_of(salient_inputs(2))
    assert torch.equal(AwqScale(grid=1).scale([random(4, 28, seed=2)], stats, [asymmetric()]), torch.ones(28))
    exact = torch.randint(0, 4, (6, 28), generator=torch.Generator().manual_seed(0)).float()
    exact[:, 0], exact[:, 1] = 0, 3
    assert torch.equal(AwqScale().scale([exact], stats, [INTEGERS]), torch.ones(28))


def test_dead_inputs_are_safe() -> None:
    x = salient_inputs(3)
    x[:, [0, 9]] = 0
    weights, stats = [random(8, 28, seed=3)], stats_of(x)
    scale = AwqScale().scale(weights, stats, [asymmetric()] * len(weights))
    assert bool((scale.isfinite() & (scale > 0)).all())
    all_dead = stats_of(torch.zeros(16, 28))
    assert torch.equal(AwqScale().scale(weights, all_dead, [asymmetric()] * len(weights)), torch.ones(28))
    assert torch.equal(clip(weights[0], all_dead, asymmetric()), weights[0])


def test_clip_exact_small_case() -> None:
    """Levels of step 2 (range 0 to 6): clamping 6 to 3 makes the others, at step 1, exact."""
    weight = torch.tensor([[0.0, 1.0, 2.0, 6.0]])
    indifferent = hessian_stats(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.01])))
    assert clip(weight, indifferent, INTEGERS, grid=2, max_shrink=1.0).tolist() == [[0.0, 1.0, 2.0, 3.0]]
    attentive = hessian_stats(torch.diag(torch.tensor([1.0, 1.0, 1.0, 10.0])))
    assert torch.equal(clip(weight, attentive, INTEGERS, grid=2, max_shrink=1.0), weight)


@settings(max_examples=30)
@given(bits=st.integers(2, 4), group_size=st.sampled_from(GROUPS), seed=st.integers(0, 99))
def test_clipping_is_never_worse_than_not_clipping_on_its_objective(bits: int, group_size: Any, seed: int) -> None:
    weight, stats = random(6, 28, seed=seed).pow(3), stats_of(correlated_inputs(64, 28, seed=seed))
    grid, H = asymmetric(bits, group_size), stats.require("hessian")
    clipped = clip(weight, stats, grid)
    columns = grid.columns_per_group(28)
    ours = group_errors(weight, quantize(clipped, grid).dequantize(), H, columns)
    unclipped = group_errors(weight, quantize(weight, grid).dequantize(), H, columns)
    if group_size == "tensor":
        ours, unclipped = ours.sum(), unclipped.sum()
    assert bool((ours <= unclipped * (1 + 1e-5)).all())


@pytest.mark.parametrize("group_size", GROUPS)
def test_clipping_only_clamps_and_by_at_most_max_shrink(group_size: Any) -> None:
    weight, stats = random(6, 28, seed=4).pow(3), stats_of(correlated_inputs(64, 28, seed=4))
    before, grid = weight.clone(), asymmetric(2, group_size)
    clipped = clip(weight, stats, grid, max_shrink=0.3)
    assert torch.equal(weight, before)
    assert not torch.equal(clipped, weight)
    changed = clipped != weight
    assert bool((clipped.sign() == weight.sign()).all())
    assert bool((clipped.abs() <= weight.abs()).all())
    rows = range(0, 6, 6 if group_size == "tensor" else 1)
    height, columns = 6 // len(rows), grid.columns_per_group(28)
    for row in rows:
        for start in range(0, 28, columns):
            part = (slice(row, row + height), slice(start, start + columns))
            assert float(clipped[part].abs().max()) >= 0.7499 * float(weight[part].abs().max())
            assert len(set(clipped[part].abs()[changed[part]].tolist())) <= 1  # one threshold for each scale


def test_a_format_that_is_no_integer_grid_works_through_the_protocol() -> None:
    grid, stats, weight = PowersOfTwo(group_size=16), stats_of(salient_inputs(6)), random(8, 28, seed=6)
    scale = AwqScale().scale([weight], stats, [grid])
    assert scaled_error([weight], stats, grid, scale) < scaled_error([weight], stats, grid, torch.ones(28))
    H, clipped = stats.require("hessian"), clip(weight, stats, grid)
    ours = group_errors(weight, quantize(clipped, grid).dequantize(), H, 16)
    assert bool((ours <= group_errors(weight, quantize(weight, grid).dequantize(), H, 16) * (1 + 1e-5)).all())


def test_contracts_and_refusals() -> None:
    weight, stats = random(4, 28, seed=5), stats_of(correlated_inputs(64, 28, seed=5))
    assert isinstance(AwqScale(), ScaleTransform)
    assert isinstance(AwqClip(), Clip)
    assert AwqScale.needs == {"mean_abs", "hessian"}
    assert AwqScale().producers == {"norm", "linear", "activation"}
    assert AwqClip.needs == {"hessian"}
    with pytest.raises(ConfigError, match="weight format"):
        AwqScale().scale([weight], stats, [None])
    with pytest.raises(ValueError, match="NaN or infinity"):
        clip(weight, hessian_stats(torch.full((28, 28), torch.nan)), asymmetric())
    with pytest.raises(ValidationError, match="max_shrink"):
        AwqClip(max_shrink=0.0)
