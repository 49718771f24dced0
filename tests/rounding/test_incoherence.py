from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from helpers_math import correlated_inputs, random, stats_of
from quantbench.core.component import Part
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format, FormatDefaults
from quantbench.formats.incoherent import COLUMNS, ROWS, Basis, Incoherent, KroneckerOrthogonal
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.formats.rms import RmsFormat
from quantbench.formats.serialization import join, split
from quantbench.rounding.base import Rounded, Rounding
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.incoherence import Incoherence, channel_scales
from quantbench.rounding.ldlq import Ldlq
from quantbench.rounding.nearest import Nearest
from recipes import make_recipe

CPU = torch.device("cpu")
TWO_BITS = RmsFormat(bits=2, group_size="tensor")
SIZES = [1, 2, 13, 36, 48, 127]


def matrix(n: int, seed: int = 0, side: int = ROWS) -> Tensor:
    return KroneckerOrthogonal.random(n, seed, side, CPU).times(torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("n", SIZES)
def test_the_matrices_are_orthogonal_for_every_size(n: int) -> None:
    Q = KroneckerOrthogonal.random(n, 3, ROWS, CPU)
    dense = Q.times(torch.eye(n, dtype=torch.float64))
    identity = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(dense @ dense.T, identity, atol=1e-12, rtol=0)
    x = random(n, 5, seed=1).double()
    torch.testing.assert_close(Q.times(x), dense @ x)
    torch.testing.assert_close(Q.inverse_times(x), dense.T @ x)


def test_the_factors_are_near_the_square_root_and_every_entry_is_mixed() -> None:
    for size, factors in ((48, [6, 8]), (13, [1, 13])):
        Q = KroneckerOrthogonal.random(size, 0, ROWS, CPU)
        assert [len(Q.a), len(Q.b)] == factors
    assert float(matrix(48).abs().max()) < 0.9
    assert int((matrix(48) == 0).sum()) == 0


def test_seed_and_side_matter() -> None:
    assert torch.equal(matrix(24), matrix(24))
    assert not torch.allclose(matrix(24, seed=0), matrix(24, seed=1))
    assert not torch.allclose(matrix(24, side=ROWS), matrix(24, side=COLUMNS))


@pytest.mark.parametrize("shape", [(12, 36), (13, 20), (1, 7)])
@pytest.mark.parametrize("rescale", [True, False])
def test_the_proxy_loss_is_the_same_in_both_bases(shape: tuple[int, int], rescale: bool) -> None:
    out, width = shape
    W, dW = random(out, width, seed=2).double(), random(out, width, seed=3).double()
    H = stats_of(correlated_inputs(100, width, seed=2).double()).require("hessian")
    basis = Basis.random(shape, 0, channel_scales(W, H) if rescale else None, CPU)
    changed = basis.weight(dW) @ basis.hessian(H) @ basis.weight(dW).T
    assert float(changed.trace()) == pytest.approx(float((dW @ H @ dW.T).trace()), rel=1e-10)
    torch.testing.assert_close(basis.weight_back(basis.weight(W)), W, rtol=1e-10, atol=1e-12)


class Exactly(FormatDefaults):
    """A format that keeps one weight exactly, whatever it is."""

    def columns_per_group(self, in_features: int) -> int:
        return in_features


class Untouched(Part):
    """A rounding without rounding."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        kept: Any = _Kept(weight)
        return Rounded(QuantizedWeight(torch.zeros(weight.shape, dtype=torch.uint8), kept, kept))


class _Kept(Exactly):
    def __init__(self, weight: Tensor) -> None:
        self.kept = weight

    def columns(self, index: Tensor) -> None: ...

    def decode(self, codes: Tensor, params: Any) -> Tensor:
        return self.kept


def test_without_rounding_the_weight_comes_back() -> None:
    weight, stats = random(12, 36, seed=4), stats_of(correlated_inputs(100, 36, seed=4))
    inner: Any = Untouched()
    rounded = Incoherence(inner=inner, seed=5).round(weight, stats, TWO_BITS)
    torch.testing.assert_close(rounded.weight.dequantize(), weight, rtol=1e-5, atol=1e-6)


def test_the_scales_balance_inputs_and_weights_and_survive_dead_ones() -> None:
    weight = random(8, 12, seed=6)
    H = stats_of(correlated_inputs(100, 12, seed=6)).require("hessian")
    s = channel_scales(weight, H).float()
    balance = H.diagonal() / s.square() / (weight * s).square().sum(0)
    torch.testing.assert_close(balance, balance[:1].expand(12), rtol=1e-2, atol=0)
    H[:, 3], H[3] = 0, 0
    weight[:, 5] = 0
    dead = channel_scales(weight, H).float()
    assert bool((dead >= 0.0099).all() and (dead <= 101).all())
    assert torch.equal(channel_scales(torch.zeros(2, 3), torch.zeros(3, 3)).float(), torch.ones(3))


def test_a_stored_weight_is_the_same_in_a_new_process() -> None:
    weight, stats = random(12, 30, seed=7), stats_of(correlated_inputs(100, 30, seed=7))
    rounded = Incoherence(inner=Ldlq(), seed=11).round(weight, stats, TWO_BITS).weight
    (correction,) = rounded.corrections
    tensors: dict[str, Tensor] = {}
    spec = join(split(correction, "c", tensors), tensors)
    s = spec["s"].tolist()
    text = (
        "import torch; from quantbench.formats.incoherent import Incoherent;"
        f"c = Incoherent(seed={spec['seed']}, s=torch.tensor({s}, dtype=torch.float16));"
        "w = torch.arange(360.0).reshape(12, 30).sin(); print(c.apply(w).double().sum(1).tolist())"
    )
    fresh = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert isinstance(correction, Incoherent)
    here = correction.apply(torch.arange(360.0).reshape(12, 30).sin()).double().sum(1)
    assert fresh.strip() == str(here.tolist())


def test_the_bits_of_seed_and_scales_are_counted() -> None:
    weight, stats = random(12, 36, seed=8), stats_of(correlated_inputs(100, 36, seed=8))
    scaled = Incoherence(inner=Nearest()).round(weight, stats, TWO_BITS).weight
    plain = Incoherence(inner=Nearest(), rescale=False).round(weight, None, TWO_BITS).weight
    on_grid = TWO_BITS.bits_per_weight((12, 36))
    assert plain.bits_per_weight() == pytest.approx(on_grid + 32 / (12 * 36))
    assert scaled.bits_per_weight() == pytest.approx(on_grid + (32 + 16 * 36) / (12 * 36))
    assert torch.unique(plain.on_grid().abs()).numel() == 2


def test_another_seed_gives_another_weight_of_similar_loss() -> None:
    weight, stats = random(24, 36, seed=9), stats_of(correlated_inputs(200, 36, seed=9))
    H = stats.require("hessian")
    weights = [Incoherence(inner=Ldlq(), seed=k).round(weight, stats, TWO_BITS).weight.dequantize() for k in (0, 0, 1)]
    losses = [output_error(weight - w, H) for w in weights]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert losses[2] == pytest.approx(losses[0], rel=0.3)


def test_outliers_of_the_weight_cost_less_in_another_basis() -> None:
    weight, stats = random(32, 48, seed=10), stats_of(correlated_inputs(300, 48, seed=10))
    weight[::7, ::5] *= 15
    H = stats.require("hessian")
    plain, processed = (
        output_error(weight - rounding.round(weight, stats, TWO_BITS).weight.dequantize(), H)
        for rounding in (Ldlq(), Incoherence(inner=Ldlq()))
    )
    assert processed < 0.7 * plain


def test_what_does_not_fit_is_refused_and_needs_are_those_of_the_parts() -> None:
    assert isinstance(Incoherence(inner=Nearest()), Rounding)
    assert Incoherence(inner=Nearest()).needs == {"hessian"}
    assert Incoherence(inner=Nearest(), rescale=False).needs == frozenset()
    assert make_recipe(
        "quip", "rounding@quantizer.rounding.inner=nearest", "quantizer.rounding.rescale=false"
    ).data_free
    with pytest.raises(ConfigError, match="set clip to null"):
        make_recipe("quip", "+clip@quantizer.clip=awq")
    with pytest.raises(ConfigError, match="inner reads rows"):
        make_recipe("quip", "rounding@quantizer.rounding.inner=slim_llm", "format@quantizer.weight=int")
    with pytest.raises(ConfigError, match=r"quantizer\.rounding\.seed"):
        make_recipe("quip", "quantizer.rounding.seed=-1")


def test_any_rounding_may_stand_inside() -> None:
    weight, stats = random(12, 36, seed=12), stats_of(correlated_inputs(100, 36, seed=12))
    for inner in (Nearest(), Gptq(order="activation"), Ldlq(sort=True, greedy_passes=2)):
        rounded = Incoherence(inner=inner).round(weight, stats, RmsFormat(bits=4, group_size=12))
        assert float((rounded.weight.dequantize() - weight).norm() / weight.norm()) < 0.3
