from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor

from helpers_math import random
from quantbench.transforms.hadamard import Orthogonal

SIZES = [1, 2, 3, 24, 36, 48, 64, 128, 344, 576]


def peak(x: Tensor) -> float:
    """The outlier measure: the largest magnitude of a token relative to its root mean square, averaged."""
    return float((x.abs().amax(-1) / x.square().mean(-1).sqrt()).mean())


@pytest.mark.parametrize("size", SIZES)
def test_the_matrix_is_orthogonal_and_applying_it_is_multiplying_with_it(size: int) -> None:
    rotation = Orthogonal(size, "0 test")
    Q = rotation.matrix()
    torch.testing.assert_close(Q @ Q.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-13)
    x = random(5, size, seed=0)
    torch.testing.assert_close(rotation.apply(x.double()), x.double() @ Q, rtol=0, atol=1e-13)
    torch.testing.assert_close(rotation.apply(x), (x.double() @ Q).float(), rtol=0, atol=1e-5)
    single = rotation.apply(torch.eye(size)).double()
    torch.testing.assert_close(single @ single.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-6)


def test_sizes_that_are_powers_of_two_give_sylvesters_matrix_with_random_signs() -> None:
    for size in (2, 8, 128):
        Q = Orthogonal(size, "0 test").matrix() * math.sqrt(size)
        signs = Q[:, :1]
        assert set(signs.flatten().tolist()) <= {-1.0, 1.0}
        torch.testing.assert_close(Q * signs, torch.from_numpy(hadamard(size)).double())


def test_other_sizes_are_a_kronecker_product() -> None:
    Q = Orthogonal(24, "0 test").matrix()
    part = Q[:3, :3]
    torch.testing.assert_close(Q.abs(), torch.ones(8, 8, dtype=torch.float64).kron(part.abs()))
    torch.testing.assert_close(part @ part.T, torch.eye(3, dtype=torch.float64) / 8)


def test_heads_are_rotated_each_on_its_own_or_among_each_other() -> None:
    x = random(2, 5, 12, seed=1).double()
    within, across = Orthogonal(4, "a"), Orthogonal(3, "b")
    eye3, eye4 = torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(within.apply(x), x @ torch.kron(eye3, within.matrix()))
    torch.testing.assert_close(across.apply(x, stride=4), x @ torch.kron(across.matrix(), eye4))
    torch.testing.assert_close(
        across.apply(within.apply(x), stride=4), x @ torch.kron(across.matrix(), within.matrix())
    )


def test_a_seed_stands_for_the_same_matrix_in_every_process() -> None:
    # Written down once: what was stored with a run must mean the same matrix forever.
    assert (Orthogonal(8, "0 test").matrix()[:, 0].sign().int().tolist()) == SIGNS
    assert Orthogonal(3, "0 test").matrix().flatten().tolist() == pytest.approx(THREE, abs=1e-12)


SIGNS = [1, 1, -1, -1, 1, 1, 1, -1]
THREE = [
    0.99435102528609,
    0.10097601755998,
    0.03270905670035,
    0.09681484401671,
    -0.73651937206905,
    -0.66945208980556,
    0.04350775207386,
    -0.66883709410045,
    0.74213477014943,
]


def test_seeds_differ() -> None:
    assert torch.equal(Orthogonal(24, "0 a").matrix(), Orthogonal(24, "0 a").matrix())
    for other in ("0 b", "1 a"):
        assert not torch.allclose(Orthogonal(24, "0 a").matrix(), Orthogonal(24, other).matrix())


def test_the_input_is_not_modified_and_its_dtype_is_kept() -> None:
    x = random(3, 24, seed=2).bfloat16()
    before = x.clone()
    rotated = Orthogonal(24, "0").apply(x)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(x, before)
    assert torch.equal(rotated, Orthogonal(24, "0").apply(x.float()).bfloat16())


@pytest.mark.parametrize("size", [48, 128, 576])
def test_rotation_lowers_the_outlier_measure(size: int) -> None:
    x = random(64, size, seed=3)
    x[:, [1, 7]] *= 50
    rotated = Orthogonal(size, "0 test").apply(x)
    assert peak(rotated) < 0.6 * peak(x)
    torch.testing.assert_close(rotated.square().sum(-1), x.square().sum(-1))


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row, not 0"):
        Orthogonal(0, "0")
