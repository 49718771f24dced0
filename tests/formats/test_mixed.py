from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from helpers_math import random
from quantbench.core.build import build
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.mixed import MixedIntFormat
from quantbench.formats.quantize import quantize
from quantbench.formats.serialization import split
from quantbench.pipeline.artifact import Artifact

BITS = (1, 3, 2, 8)
MIXED = MixedIntFormat(group_bits=BITS, group_size=8)


def test_each_group_is_that_of_an_integer_format_of_its_bits() -> None:
    weight = random(6, 28, seed=0)
    assert isinstance(MIXED, Format)
    values = quantize(weight, MIXED).dequantize()
    for k, bits in enumerate(BITS):
        group = slice(8 * k, 8 * (k + 1))
        if bits > 1:
            alone = IntFormat(bits=bits, group_size="channel", symmetric=False)
            assert torch.equal(values[:, group], quantize(weight[:, group], alone).dequantize())
        assert all(len(row.unique()) <= 2**bits for row in values[:, group])


def test_one_bit_stands_for_the_mean_and_the_mean_magnitude_around_it() -> None:
    weight = torch.tensor([[1.0, 2.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    values = quantize(weight, MixedIntFormat(group_bits=(1,), group_size=4)).dequantize()
    torch.testing.assert_close(values[0], torch.tensor([1.5, 1.5, -0.5, -0.5]), atol=2e-3, rtol=0)
    assert float(values[1].abs().max()) < 1e-7
    assert set(values[2].round(decimals=2).tolist()) <= {
        0.0,
        6.0,
    }  # m - a and m + a: its authors' rule, not the best one


def test_everything_stored_comes_back_and_is_counted() -> None:
    weight = random(6, 28, seed=1)
    quantized = quantize(weight, MIXED)
    artifact = Artifact(weights={"w": quantized})
    tensors, spec = artifact.to_tensors()
    reloaded = Artifact.from_tensors(tensors, json.loads(json.dumps(spec))).weights["w"]
    assert torch.equal(reloaded.codes, quantized.codes)
    assert torch.equal(reloaded.dequantize(), quantized.dequantize())
    assert torch.equal(MIXED.encode(weight, reloaded.params.columns(torch.arange(28) // 8)), quantized.codes)
    code_bits = 6 * (8 * 1 + 8 * 3 + 8 * 2 + 4 * 8)
    parameter_bits = 6 * (4 * 16 + (16 + 3 + 2 + 8))
    assert MIXED.bits_per_weight((6, 28)) == pytest.approx((code_bits + parameter_bits + 8 * 4) / (6 * 28))
    bytes_stored = sum(t.numel() * t.element_size() for t in tensors.values())
    assert 0 <= 8 * bytes_stored - code_bits - parameter_bits < 8 * len(tensors)


def test_the_bits_are_part_of_the_stored_format() -> None:
    assert build(json.loads(json.dumps(split(MIXED, "f", {}))), MixedIntFormat, "format") == MIXED


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="group_bits"):
        MixedIntFormat(group_bits=(0, 2), group_size=8)
    with pytest.raises(ValueError, match="does not have 4 groups"):
        MIXED.params(random(2, 16, seed=2))
    with pytest.raises(ValueError, match="NaN or infinity"):
        MIXED.params(torch.full((2, 28), float("nan")))
