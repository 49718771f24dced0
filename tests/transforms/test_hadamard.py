from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor

from helpers_math import random
from quantbench.transforms.hadamard import Orthogonal, shortfall
from quantbench.transforms.hadamard_matrices import factors, hadamard_matrix, prime_power

ORDERS = [*range(4, 264, 4), 332, 356, 428]
SIZES = [1, 2, 3, 18, 24, 36, 48, 64, 128, 344, 576]


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


@pytest.mark.parametrize("order", ORDERS)
def test_a_hadamard_matrix_has_signs_alone_and_orthogonal_rows(order: int) -> None:
    H = hadamard_matrix(order).astype(np.int64)
    assert H.shape == (order, order)
    assert set(np.unique(H)) <= {-1, 1}
    assert np.array_equal(H @ H.T, order * np.eye(order, dtype=np.int64))


@pytest.mark.parametrize("order", [-4, 0, 3, 6, 30, 268])
def test_an_order_without_a_construction_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"no construction of a Hadamard matrix of order {order} is known here"):
        hadamard_matrix(order)


def test_every_multiple_of_four_up_to_264_is_there() -> None:
    assert all(factors(order)[2] == 1 for order in (1, 2, *range(4, 268, 4)))


@pytest.mark.parametrize("size", [576, 896, 1536, 4864, 5632, 8960, 11008, 13696, 13824, 14336, 18944, 28672, 29568])
def test_widths_of_models_have_hadamard_matrices_and_no_random_factor(size: int) -> None:
    p, h, m = factors(size)
    assert p * h * m == size
    assert m == 1
    assert shortfall(size) is None
    x = torch.zeros(1, size, dtype=torch.float64)
    x[0, 1] = 1  # a channel that stands out
    spread = Orthogonal(size, "0 test").apply(x).abs()
    torch.testing.assert_close(spread, torch.full_like(spread, size**-0.5))  # as evenly as can be


@pytest.mark.parametrize(("size", "odd"), [(3, 3), (9, 9), (18, 9), (4 * 73, 73)])
def test_where_none_is_known_a_random_orthogonal_factor_takes_its_place_and_is_told(size: int, odd: int) -> None:
    assert factors(size) == (size // odd, 1, odd)
    assert shortfall(size) == (
        f"rotation of {size} channels: no Hadamard matrix of that order is known here, a random orthogonal factor "
        f"[{odd}, {odd}]"
    )
    Q = Orthogonal(size, "0 test").matrix()
    part, p = Q[:odd, :odd], size // odd
    torch.testing.assert_close(Q.abs(), torch.ones(p, p, dtype=torch.float64).kron(part.abs()))
    torch.testing.assert_close(part @ part.T, torch.eye(odd, dtype=torch.float64) / p)


@pytest.mark.parametrize(
    ("number", "found"),
    [(1, None), (3, (3, 1)), (9, (3, 2)), (27, (3, 3)), (35, None), (45, None), (121, (11, 2)), (8, None), (0, None)],
)
def test_powers_of_odd_primes(number: int, found: tuple[int, int] | None) -> None:
    assert prime_power(number) == found


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
