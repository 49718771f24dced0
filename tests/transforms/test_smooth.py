from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.input_stats import LinearStats
from quantbench.transforms.base import ScaleTransform
from quantbench.transforms.smooth import SmoothQuant


def test_exact_small_case() -> None:
    stats = LinearStats(n_tokens=1, absmax=torch.tensor([16.0, 1.0]))
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[-4.0, 9.0], [0.5, 1.0]])]
    scale = SmoothQuant(alpha=0.5).scale(weights, stats, ())
    assert scale.tolist() == pytest.approx([2.0, 1 / 3])


@settings(max_examples=20)
@given(seed=st.integers(0, 99))
def test_alpha_one_half_equalises_the_maxima_of_inputs_and_weights(seed: int) -> None:
    x, weights = correlated_inputs(64, 12, seed=seed), [random(5, 12, seed=seed), random(3, 12, seed=seed + 1)]
    scale = SmoothQuant(alpha=0.5).scale(weights, stats_of(x), ())
    inputs = stats_of(x).rescaled(scale).require("absmax")
    torch.testing.assert_close(inputs, (torch.cat(weights) * scale).abs().amax(0))


@settings(max_examples=20)
@given(alpha=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_function_is_unchanged(alpha: float, seed: int) -> None:
    x, weight = correlated_inputs(64, 12, seed=seed), random(5, 12, seed=seed)
    scale = SmoothQuant(alpha=alpha).scale([weight], stats_of(x), ()).double()
    after, before = x.double() / scale @ (weight.double() * scale).T, x.double() @ weight.double().T
    torch.testing.assert_close(after, before, rtol=0, atol=1e-13)


def test_the_ends_of_alpha_move_everything_to_one_side() -> None:
    x, weight = correlated_inputs(64, 12, seed=0), random(5, 12, seed=0)
    all_to_weights = stats_of(x).rescaled(SmoothQuant(alpha=1.0).scale([weight], stats_of(x), ()))
    torch.testing.assert_close(all_to_weights.require("absmax"), torch.ones(12))
    all_to_inputs = weight * SmoothQuant(alpha=0.0).scale([weight], stats_of(x), ())
    torch.testing.assert_close(all_to_inputs.abs().amax(0), torch.ones(12))


def test_dead_inputs_and_dead_columns_give_positive_finite_scales() -> None:
    x, weight = correlated_inputs(64, 12, seed=1), random(5, 12, seed=1)
    x[:, 2], weight[:, 7] = 0, 0
    for alpha in (0.0, 0.5, 0.85, 1.0):
        scale = SmoothQuant(alpha=alpha).scale([weight], stats_of(x), ())
        assert bool((scale.isfinite() & (scale > 0)).all())


def test_contract_and_options() -> None:
    assert isinstance(SmoothQuant(alpha=0.8), ScaleTransform)
    assert SmoothQuant.needs == {"absmax"}
    assert SmoothQuant(alpha=0.8).producers == {"norm"}
    with pytest.raises(ValidationError, match="alpha"):
        SmoothQuant(alpha=1.5)
    with pytest.raises(ValueError, match="'absmax' was not collected"):
        SmoothQuant(alpha=0.5).scale([random(2, 2, seed=2)], LinearStats(n_tokens=1), ())
