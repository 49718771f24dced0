from __future__ import annotations

import pytest
import torch

from quantbench.formats.rounding_noise import RoundingNoise

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def values(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_moves_to_one_of_its_neighbours_as_often_up_as_down(dtype: torch.dtype) -> None:
    x = values(dtype)
    moved = RoundingNoise().fake_quantize(x)
    assert moved.dtype == dtype
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    steps = moved.view(whole).long() - x.view(whole).long()
    assert set(steps.flatten().tolist()) == {-1, 1}
    n = x.numel()
    assert abs(int(steps.sum())) < 4 * n**0.5
    assert abs(int((steps[:, 1:] * steps[:, :-1]).sum())) < 4 * n**0.5
    assert abs(int((steps[1:] * steps[:-1]).sum())) < 4 * n**0.5


def test_a_token_moves_the_same_way_whatever_is_beside_it() -> None:
    x = values(torch.float32)
    noise = RoundingNoise()
    assert torch.equal(noise.fake_quantize(x)[7], noise.fake_quantize(x[7]))
    assert torch.equal(noise.fake_quantize(x.reshape(2, 32, 128)), noise.fake_quantize(x).reshape(2, 32, 128))
    assert torch.equal(noise.fake_quantize(x.T.contiguous().T), noise.fake_quantize(x))


def test_seeds_are_other_tosses() -> None:
    x = values(torch.float32)
    same = (RoundingNoise(seed=0).fake_quantize(x) == RoundingNoise(seed=1).fake_quantize(x)).float().mean()
    assert 0.45 < float(same) < 0.55


def test_zeros_and_what_is_not_finite_stay_and_nothing_becomes_infinite() -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan")])
    many = torch.full((64,), largest)
    assert torch.equal(RoundingNoise().fake_quantize(x)[:4], x[:4])
    assert RoundingNoise().fake_quantize(x)[4].isnan()
    assert RoundingNoise().fake_quantize(many).isfinite().all()
    assert RoundingNoise().fake_quantize(torch.zeros(0, 4)).shape == (0, 4)


def test_it_has_no_static_parameters() -> None:
    x = values(torch.float32)
    with pytest.raises(ValueError, match="no static parameters"):
        RoundingNoise().static_params(x[0], x[0])
    with pytest.raises(ValueError, match="no static parameters"):
        RoundingNoise().fake_quantize(x, torch.tensor(1.0))
