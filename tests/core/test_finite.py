"""One value that is no number is found wherever it lies, in every dtype."""

from __future__ import annotations

import math

import pytest
import torch

from quantbench.core.finite import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_is_found(dtype: torch.dtype, bad: float) -> None:
    for place in (0, 1, 36, 69):
        values = torch.linspace(-3, 3, 70, dtype=dtype).reshape(7, 10)
        assert all_finite(values)
        values.view(-1)[place] = bad
        assert not all_finite(values)
        assert not all_finite(values.t())


def test_nothing_and_the_largest_numbers_are_finite() -> None:
    assert all_finite(torch.empty(0, 3))
    assert all_finite(torch.tensor([torch.finfo(torch.float32).max, torch.finfo(torch.float32).min]))
    assert all_finite(torch.tensor(1.0, requires_grad=True))
    assert all_finite(torch.full((3,), torch.finfo(torch.float32).max))  # the sum overflows
    assert all_finite(torch.full((300,), 60_000.0, dtype=torch.float16))
    assert not all_finite(torch.tensor([torch.finfo(torch.float32).max] * 3 + [torch.inf]))
    assert not all_finite(torch.tensor([torch.inf, -torch.inf]))
