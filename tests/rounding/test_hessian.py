from __future__ import annotations

import pytest
import torch

from helpers_math import correlated_inputs, hessian_stats, random, stats_of
from quantbench.core.input_stats import LinearStats, finite_hessian, output_error
from quantbench.rounding.hessian import inverse_cholesky, without_dead_inputs


def test_the_factor_is_upper_triangular_and_gives_the_damped_inverse() -> None:
    H = stats_of(correlated_inputs(200, 24, seed=0).double()).require("hessian")
    factor = inverse_cholesky(H, 0.01)
    assert factor is not None
    assert factor.raised == 0
    U = factor.upper
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    assert torch.equal(U, U.triu())
    assert bool((U.diagonal() > 0).all())
    torch.testing.assert_close(U.T @ U, damped.inverse())
    torch.testing.assert_close(U, torch.linalg.cholesky(damped.inverse(), upper=True))


def test_damping_is_raised_tenfold_until_the_decomposition_succeeds() -> None:
    H = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.05]))
    factor = inverse_cholesky(H, 0.001)
    assert factor is not None
    assert factor.raised == 2  # .001 and .01 of the mean .7375 leave the last entry negative
    damped = H + 0.1 * H.diagonal().mean() * torch.eye(4)
    torch.testing.assert_close(factor.upper.T @ factor.upper, damped.inverse())


def test_what_no_damping_can_repair_gives_no_factor() -> None:
    assert inverse_cholesky(torch.tensor([[1.0, 1e6], [1e6, 1.0]]), 0.01) is None
    assert inverse_cholesky(torch.zeros(3, 3), 0.01) is None


def test_output_error_is_the_squared_error_of_the_outputs() -> None:
    x, delta = correlated_inputs(50, 8, seed=1), random(5, 8, seed=2)
    expected = 2 / 50 * float((x @ delta.T).square().sum())
    assert output_error(delta, stats_of(x).require("hessian")) == pytest.approx(expected, rel=1e-5)


def test_dead_inputs_lose_their_weight_on_copies() -> None:
    weight, H = random(3, 4, seed=3), torch.diag(torch.tensor([2.0, 0.0, 3.0, 0.0]))
    weight_before, H_before = weight.clone(), H.clone()
    live, repaired, dead = without_dead_inputs(weight, H)
    assert dead == 2
    assert repaired.diagonal().tolist() == [2.0, 1.0, 3.0, 1.0]
    assert torch.equal(live[:, [0, 2]], weight[:, [0, 2]])
    assert torch.equal(live[:, [1, 3]], torch.zeros(3, 2))
    assert torch.equal(weight, weight_before)
    assert torch.equal(H, H_before)


def test_missing_and_not_finite_hessians_are_refused() -> None:
    with pytest.raises(ValueError, match="none were collected"):
        finite_hessian(None)
    with pytest.raises(ValueError, match="'hessian' was not collected"):
        finite_hessian(LinearStats(n_tokens=1))
    with pytest.raises(ValueError, match=r"NaN or infinity.*model\.dtype"):
        finite_hessian(hessian_stats(torch.full((2, 2), torch.inf)))
