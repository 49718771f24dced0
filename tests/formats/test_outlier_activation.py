from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.base import ActivationFormat
from quantbench.formats.int import IntActivation
from quantbench.formats.outlier_activation import OutlierActivation

INT8: dict[str, Any] = {"bits": 8, "symmetric": True, "scale_convention": "narrow_range"}
PER_TOKEN = IntActivation(**INT8, granularity="token", dynamic=True)


def of(threshold: float) -> OutlierActivation:
    return OutlierActivation(inner=PER_TOKEN, threshold=threshold)


def test_without_outliers_it_is_the_inner_format_and_with_nothing_else_the_identity() -> None:
    x = 4 * random(2, 5, 16, seed=0)
    assert isinstance(of(6.0), ActivationFormat)
    assert torch.equal(of(1e30).fake_quantize(x), PER_TOKEN.fake_quantize(x))
    assert torch.equal(of(0.0).fake_quantize(x), x)
    assert not torch.equal(PER_TOKEN.fake_quantize(x), x)


def test_an_example_by_hand() -> None:
    """Feature 1 has an outlier in the second token: it stays in both, and the scales are 1/127 and 2/127."""
    x = torch.tensor([[1.0, 0.123, 0.3], [-2.0, 8.0, 0.5]])
    expected = torch.tensor([[1.0, 0.123, 38 / 127], [-2.0, 8.0, 32 * 2 / 127]])
    torch.testing.assert_close(of(6.0).fake_quantize(x), expected)
    assert torch.equal(of(6.0).fake_quantize(x)[:, 1], x[:, 1])
    assert not torch.equal(of(8.0).fake_quantize(x)[:, 1], x[:, 1])  # beyond, not at, the threshold


def test_outliers_are_those_of_each_sequence() -> None:
    """So a result does not depend on what else is in the batch."""
    x = random(3, 5, 16, seed=1).bfloat16()
    x[1, 2, 7] = 30.0
    together = of(6.0).fake_quantize(x)
    assert together.dtype == torch.bfloat16
    for k in range(3):
        assert torch.equal(together[k], of(6.0).fake_quantize(x[k]))
    assert torch.equal(together[1, :, 7], x[1, :, 7])
    single = torch.tensor([1.0, 0.3, 9.0])
    assert float(of(6.0).fake_quantize(single)[2]) == 9.0


def test_only_dynamic_formats_may_stand_inside() -> None:
    static = IntActivation(**INT8, granularity="tensor", dynamic=False)
    with pytest.raises(ConfigError, match="must be dynamic"):
        OutlierActivation(inner=static)
    with pytest.raises(ValueError, match="pass no scale"):
        of(6.0).fake_quantize(torch.ones(2, 2), torch.ones(()))
    assert of(6.0).needs == frozenset()
