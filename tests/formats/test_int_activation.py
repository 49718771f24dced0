from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from helpers_math import random
from quantbench.core.errors import ConfigError
from quantbench.formats.base import ActivationFormat
from quantbench.formats.grid import Convention
from quantbench.formats.int import IntActivation
from quantbench.formats.serialization import split

PER_TOKEN = IntActivation(bits=8, symmetric=True, scale_convention="narrow_range", granularity="token", dynamic=True)
STATIC = IntActivation(bits=4, symmetric=False, granularity="tensor", dynamic=False)


def test_per_token_symmetric_exact_small_case() -> None:
    x = torch.tensor([[[127.0, 3.4, -0.6], [0.0, -1.0, 0.504]]])
    assert PER_TOKEN.fake_quantize(x)[0].tolist() == [[127.0, 3.0, -1.0], pytest.approx([0.0, -1.0, 64 / 127])]


def test_tokens_do_not_influence_each_other_but_share_a_per_tensor_range() -> None:
    x = torch.stack([random(16, seed=0), 100 * random(16, seed=1)])
    per_tensor = IntActivation(bits=8, symmetric=False, granularity="tensor", dynamic=True)
    assert torch.equal(PER_TOKEN.fake_quantize(x)[0], PER_TOKEN.fake_quantize(x[:1])[0])
    assert not torch.equal(per_tensor.fake_quantize(x)[0], per_tensor.fake_quantize(x[:1])[0])


@pytest.mark.parametrize("convention", [None, "full_range", "narrow_range", "twos_complement"])
def test_all_zero_tokens_stay_zero(convention: Convention | None) -> None:
    symmetric = convention is not None
    grid = IntActivation(bits=8, symmetric=symmetric, scale_convention=convention, granularity="token", dynamic=True)
    assert torch.equal(grid.fake_quantize(torch.zeros(2, 3, 8)), torch.zeros(2, 3, 8))


def test_a_not_finite_token_is_visible_and_harms_no_other() -> None:
    x = random(3, 8, seed=2)
    x[1, 4] = torch.nan
    result = PER_TOKEN.fake_quantize(x)
    assert bool(result[1].isnan().all())
    assert torch.equal(result[[0, 2]], PER_TOKEN.fake_quantize(x[[0, 2]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_result_has_the_dtype_of_the_input_and_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = random(4, 32, seed=3).to(dtype)
    result = PER_TOKEN.fake_quantize(x)
    assert result.dtype is dtype
    assert torch.equal(result, PER_TOKEN.fake_quantize(x.float()).to(dtype))


def test_static_parameters_come_from_the_channels_ranges_and_are_then_fixed() -> None:
    scale, zero = STATIC.static_params(torch.tensor([-5.0, 0.0]), torch.tensor([2.0, 10.0]))
    assert (float(scale), zero) == (1.0, torch.tensor(5.0))
    x = torch.tensor([-9.0, -4.6, 0.2, 9.6, 30.0])
    assert STATIC.fake_quantize(x, scale, zero).tolist() == [-5.0, -5.0, 0.0, 10.0, 10.0]


def test_static_on_the_range_it_was_fitted_to_equals_dynamic() -> None:
    x = random(6, 16, seed=4)
    dynamic = IntActivation(bits=4, symmetric=False, granularity="tensor", dynamic=True)
    static = STATIC.fake_quantize(x, *STATIC.static_params(x.amin(0), x.amax(0)))
    assert torch.equal(static, dynamic.fake_quantize(x))


def test_a_clipped_range_is_covered_by_finer_steps_and_what_lies_beyond_saturates() -> None:
    clipped = IntActivation(
        bits=4, symmetric=True, scale_convention="twos_complement", granularity="token", dynamic=True, clip_ratio=0.7
    )
    x = torch.tensor([[10.0, 6.9, 1.2], [-10.0, -7.4, 0.6]])  # scales 0.7 * 10 / 7
    assert clipped.fake_quantize(x).tolist() == [[7.0, 7.0, 1.0], [-8.0, -7.0, 1.0]]
    static = IntActivation(bits=4, symmetric=False, granularity="tensor", dynamic=False, clip_ratio=0.5)
    scale, zero = static.static_params(torch.tensor([-10.0, 0.0]), torch.tensor([4.0, 20.0]))
    assert (float(scale), zero) == (1.0, torch.tensor(5.0))
    assert static.fake_quantize(torch.tensor([-9.0, 3.2, 20.0]), scale, zero).tolist() == [-5.0, 3.0, 10.0]


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1])
def test_a_range_is_clipped_to_some_part_of_itself(ratio: float) -> None:
    with pytest.raises(ValidationError, match="clip_ratio"):
        IntActivation(bits=8, symmetric=False, granularity="token", dynamic=True, clip_ratio=ratio)


def test_only_static_formats_need_calibration() -> None:
    assert STATIC.needs == {"minimum", "maximum"}
    assert PER_TOKEN.needs == frozenset()


def test_missing_and_superfluous_parameters_are_refused() -> None:
    x, scale = random(2, 4, seed=5), torch.tensor(1.0)
    symmetric = IntActivation(
        bits=8, symmetric=True, scale_convention="full_range", granularity="tensor", dynamic=False
    )
    for grid, given, message in (
        (STATIC, (None, scale), "a static activation format needs the scale and zero that static_params returned"),
        (STATIC, (scale, None), "a static activation format needs the scale and zero that static_params returned"),
        (
            symmetric,
            (scale, scale),
            "a static activation format needs the scale and no zero that static_params returned",
        ),
        (
            PER_TOKEN,
            (scale, None),
            "a dynamic activation format takes its range from the values: pass no scale or zero",
        ),
        (
            PER_TOKEN,
            (None, scale),
            "a dynamic activation format takes its range from the values: pass no scale or zero",
        ),
    ):
        with pytest.raises(ValueError, match=rf"^{message}$"):
            grid.fake_quantize(x, *given)


def test_contradictions_are_refused() -> None:
    message = "^granularity='token' needs dynamic=true: the tokens to come are not known in advance$"
    with pytest.raises(ConfigError, match=message):
        IntActivation(bits=8, symmetric=False, granularity="token", dynamic=False)
    with pytest.raises(ConfigError, match="full_range, narrow_range or twos_complement"):
        IntActivation(bits=8, symmetric=True, granularity="token", dynamic=True)


def test_the_spec_builds_the_same_format_again() -> None:
    spec = split(PER_TOKEN, "", {})
    assert spec.pop("_target_") == "quantbench.formats.int.IntActivation"
    assert IntActivation(**spec) == PER_TOKEN
    assert isinstance(PER_TOKEN, ActivationFormat)
