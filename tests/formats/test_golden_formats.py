"""Formats against values that compressed-tensors computed (benchmarks/golden/make_compressed_tensors.py).

Its conventions and ours: symmetric integers are `full_range`, its int8 channels included; scales are not rounded to 16
bits, so scale_dtype is float32 here; an MX scale is rounded neither down nor up, see below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.mx import MxFormat
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.formats.quantize import quantize
from quantbench.formats.scaled import ScaledFormat

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "compressed_tensors.json").read_text())
WEIGHT = torch.tensor(GOLDEN["weight"]) * GOLDEN["unit"]


def golden(name: str) -> Tensor:
    return torch.tensor(GOLDEN["cases"][name]["values"])


def integers(bits: int, group_size: Any, symmetric: bool) -> IntFormat:
    convention: Any = "full_range" if symmetric else None
    return IntFormat(
        bits=bits, group_size=group_size, symmetric=symmetric, scale_convention=convention, scale_dtype="float32"
    )


FORMATS: dict[str, Format] = {
    "int4_group_symmetric": integers(4, 32, symmetric=True),
    "int4_group_asymmetric": integers(4, 32, symmetric=False),
    "int4_channel_symmetric": integers(4, "channel", symmetric=True),
    "int8_channel_symmetric": integers(8, "channel", symmetric=True),
    "fp8_channel": ScaledFormat(element="e4m3", group_size="channel"),
    "nvfp4": Nvfp4Format(),
    "mxfp8": MxFormat(element="e4m3", rule="ceil"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_values_are_those_of_compressed_tensors(name: str) -> None:
    torch.testing.assert_close(quantize(WEIGHT, FORMATS[name]).dequantize(), golden(name), rtol=1e-6, atol=0)


def test_mxfp4_has_the_scales_of_compressed_tensors_up_to_its_rounding_of_the_exponent() -> None:
    """It takes the exponent of absmax, and the next one from a significand of 1.75 on.

    So its groups are those of our rule floor below 1.75, and those of ceil above; neither of our rules is its.
    """
    floor, ceil = (quantize(WEIGHT, MxFormat(element="e2m1", rule=rule)).dequantize() for rule in ("floor", "ceil"))
    absmax = WEIGHT.abs().reshape(len(WEIGHT), -1, 32).amax(2)
    significand = 2 * absmax.frexp().mantissa
    above = (significand >= 1.75).repeat_interleave(32, dim=1)
    assert 0 < int(above.sum()) < above.numel()
    assert torch.equal(torch.where(above, ceil, floor), golden("mxfp4"))
    assert not torch.equal(floor, golden("mxfp4"))
    assert not torch.equal(ceil, golden("mxfp4"))
