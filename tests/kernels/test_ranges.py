"""The bounds that the kernel of the range search excludes ranges by are bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantbench.kernels import range_parts

ONES = np.ones(1, np.float32)


def below(v: Any, w: Any, weighted: bool, first: float, last: float) -> float:
    """The bound for a grid of steps of 1."""
    S = np.empty(1, np.float32)
    range_parts.below(v, w, weighted, ONES, 0 * ONES, ONES, first, last, np.zeros(1, np.int64), 1, S)
    return float(S[0])


def bits(values: Any) -> Any:
    return values.view(np.int32)


def test_powers_are_those_of_float32() -> None:
    u = np.concatenate([np.zeros(1), np.geomspace(1e-14, 1e5, 5000)]).astype(np.float32)
    x = np.empty_like(u)
    range_parts.power(u, bits(u), x, bits(x))
    assert x[0] == 0
    np.testing.assert_allclose(x[1:], u[1:].astype(np.float64) ** 1.2, rtol=4e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_polynomial_is_below_and_close(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    for v in (np.array([error]) for error in np.linspace(0, 3, 400)):
        one = v.astype(np.float32)
        assert below(one, ONES, weighted, 0.0, 0.0) <= float(one[0]) ** 2.4 * (1 + 1e-6)
    v, w = rng.uniform(-4, 4, 20_000).astype(np.float32), rng.uniform(0, 2, 20_000).astype(np.float32)
    u, x = np.empty_like(v), np.empty_like(v)
    range_parts.errors(v, 1.0, 8.0, 0.0, 15.0, u)
    np.testing.assert_array_equal(u, (np.rint(v) - v) ** 2)
    exact = range_parts.exact(w, weighted, u, bits(u), x, bits(x))
    assert 0.994 < below(v, w, weighted, -8.0, 7.0) / exact < 1


def test_the_norm_of_the_values_is_not_underestimated() -> None:
    rng = np.random.default_rng(1)
    for make in (rng.normal, lambda size: rng.standard_t(2, size), lambda size: np.eye(1, size, 3)[0]):
        v, w = np.asarray(make(size=64), np.float32), rng.uniform(0, 2, 64).astype(np.float32)
        smallest, largest, _, mass, norm = range_parts.summary(v, w, True)
        assert (smallest, largest) == (v.min(), v.max())
        assert mass == pytest.approx(w.sum())
        assert norm >= (w * np.abs(v) ** 2.4).sum() ** (1 / 2.4) * (1 - 1e-6)
