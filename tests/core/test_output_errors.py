"""What a layer loses: its output error, and the share of its output that this is."""

from __future__ import annotations

import pytest
import torch

from quantbench.core.input_stats import LinearStats, output_errors


def test_the_share_is_that_of_the_outputs_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, delta = (torch.randn(size, generator=generator) for size in ((50, 6), (3, 6), (3, 6)))
    change, whole = (float((x @ matrix.t()).square().sum()) for matrix in (delta, weight))
    of_hessian = output_errors(delta, weight, LinearStats(50, hessian=2 / 50 * x.t() @ x))
    assert of_hessian == pytest.approx((2 / 50 * change / 3, change / whole), rel=1e-5)
    loss, share = output_errors(delta, weight, LinearStats(50, rows=x))
    assert loss is None
    assert share == pytest.approx(change / whole, rel=1e-5)


def test_it_is_the_same_after_a_rewrite_of_weight_and_inputs() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, delta = (torch.randn(size, generator=generator) for size in ((50, 6), (3, 6), (3, 6)))
    scale = torch.rand(6, generator=generator) + 0.5
    stats = LinearStats(50, hessian=2 / 50 * x.t() @ x)
    rewritten = output_errors(delta * scale, weight * scale, stats.rescaled(scale))
    assert rewritten == pytest.approx(output_errors(delta, weight, stats), rel=1e-5)


def test_nothing_is_said_where_nothing_was_collected_or_nothing_comes_out() -> None:
    one = torch.ones(2, 2)
    assert output_errors(one, one, None) == (None, None)
    assert output_errors(one, one, LinearStats(5, absmax=torch.ones(2))) == (None, None)
    assert output_errors(one, one, LinearStats(5, hessian=torch.zeros(2, 2))) == (0.0, None)
