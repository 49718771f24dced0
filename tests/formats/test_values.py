"""The values of small formats against their definitions, and their rounding against a search over all values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from helpers_math import random
from quantbench.formats.values import ELEMENTS

FLOATS = {"e2m1": (2, 1, 1), "e2m3": (2, 3, 1), "e3m2": (3, 2, 3), "e4m3": (4, 3, 7), "e5m2": (5, 2, 15)}
"""Exponent bits, mantissa bits, bias."""


def value_of(code: int, exponent_bits: int, mantissa_bits: int, bias: int) -> float:
    """What the bit pattern sign-exponent-mantissa stands for, were there no NaN and no infinity."""
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    sign = -1.0 if code >> (mantissa_bits + exponent_bits) else 1.0
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


def finite_codes(name: str) -> list[int]:
    """All codes but those of NaN and infinity."""
    size = 1 << ELEMENTS[name].code_bits
    reserved = {"e4m3": {0x7F}, "e5m2": {0x7C, 0x7D, 0x7E, 0x7F}}.get(name, set())
    return [code for code in range(size) if code & (size // 2 - 1) not in reserved]


def around_the_middles(values: list[float]) -> Tensor:
    """All values, what lies half-way between neighbours, and its two float32 neighbours; and values beyond the ends."""
    ordered = np.unique(np.array(values, dtype=np.float32))
    middles = (ordered[1:] + ordered[:-1]) / 2
    up, down = np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))
    ends = 1.5 * ordered[[0, -1]]
    return torch.from_numpy(np.concatenate([ordered, middles, up, down, ends]))


@pytest.mark.parametrize("name", FLOATS)
def test_a_code_is_the_bit_pattern_of_its_value(name: str) -> None:
    codes = finite_codes(name)
    expected = [value_of(code, *FLOATS[name]) for code in codes]
    assert ELEMENTS[name].decode(torch.tensor(codes, dtype=torch.uint8)).tolist() == expected
    assert ELEMENTS[name].largest == max(expected)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_go_to_the_nearest_value_and_ties_to_the_even_code(name: str) -> None:
    codes = finite_codes(name)
    values = np.array([value_of(code, *FLOATS[name]) for code in codes])
    x = torch.cat([around_the_middles(list(values)), ELEMENTS[name].largest / 4 * random(2000, seed=0)])
    distance = np.abs(x.double().numpy()[:, None] - values)
    nearest = distance == distance.min(axis=1, keepdims=True)
    even = nearest & (np.array(codes) % 2 == 0)
    chosen = np.where(even.any(axis=1, keepdims=True), even, nearest)
    assert ELEMENTS[name].decode(ELEMENTS[name].encode(x)).tolist() == values[chosen.argmax(axis=1)].tolist()


@pytest.mark.parametrize(("name", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_fp8_is_torchs_own_to_the_bit_where_torch_does_not_overflow(name: str, dtype: torch.dtype) -> None:
    fp8 = ELEMENTS[name]
    every_code = torch.arange(256).to(torch.uint8)
    ours, theirs = fp8.decode(every_code), every_code.view(dtype).float()
    assert torch.equal(ours.nan_to_num(nan=7.0), theirs.nan_to_num(nan=7.0))
    x = around_the_middles([value_of(code, *FLOATS[name]) for code in finite_codes(name)])
    x = x[x.abs() <= fp8.largest]
    assert torch.equal(fp8.encode(x), x.to(dtype).view(torch.uint8))
    beyond = torch.tensor([1e30, -1e30, torch.inf])
    assert fp8.decode(fp8.encode(beyond)).tolist() == [fp8.largest, -fp8.largest, fp8.largest]


def test_e2m1_ties_by_hand() -> None:
    x = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.75, -5.0, 5.01, 99.0])
    expected = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, -1.0, -4.0, 6.0, 6.0]
    assert ELEMENTS["e2m1"].decode(ELEMENTS["e2m1"].encode(x)).tolist() == expected


def test_nf4_are_the_quantiles_of_its_paper() -> None:
    positive = norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    expected = np.sort(np.concatenate([positive, [0], negative])) / positive.max()
    values = ELEMENTS["nf4"].decode(torch.arange(16).to(torch.uint8))
    assert values.tolist() == pytest.approx(expected.tolist(), abs=2e-6)


def test_nf4_goes_to_the_nearest_value() -> None:
    nf4 = ELEMENTS["nf4"]
    values = nf4.decode(torch.arange(16).to(torch.uint8)).double()
    x = torch.cat([around_the_middles(values.tolist()), random(2000, seed=1)])
    error = (nf4.decode(nf4.encode(x)) - x).abs().double()
    torch.testing.assert_close(error, (x.double()[:, None] - values).abs().amin(1), rtol=1e-6, atol=1e-9)
    tie = torch.tensor([float(values[7] + values[8]) / 2])  # exactly half-way from 0 to the next
    assert nf4.encode(tie).item() == 7
    assert nf4.encode(torch.nextafter(tie, torch.tensor(1.0))).item() == 8


def test_int8_are_symmetric_multiples_of_a_64th() -> None:
    int8 = ELEMENTS["int8"]
    x = torch.tensor([1.0, 1 / 128, 3 / 128, -1 / 64, 5.0, -5.0])
    assert int8.decode(int8.encode(x)).tolist() == [1.0, 0.0, 2 / 64, -1 / 64, 127 / 64, -127 / 64]
    assert int8.encode(torch.tensor([-1 / 64])).item() == 255  # two's complement


def test_e8m0_are_all_powers_of_two_of_a_normal_float32() -> None:
    scales, powers = ELEMENTS["e8m0"], torch.tensor([2.0**k for k in range(-126, 128)])
    assert torch.equal(scales.encode(powers), torch.arange(1, 255).to(torch.uint8))
    assert torch.equal(scales.decode(scales.encode(powers)), powers)
