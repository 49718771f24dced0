"""GPTQ against the values of its authors' code (benchmarks/golden/make_gptq.py).

Their symmetric grid is our `full_range`; their scales are not rounded to 16 bits, so scale_dtype is float32 here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers_math import hessian_stats
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.rounding.gptq import Gptq

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "gptq.json").read_text())


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_the_weights_are_those_of_the_authors_code(name: str) -> None:
    options = GOLDEN["cases"][name]["options"]
    weight, inputs = torch.tensor(GOLDEN["weight"]) * GOLDEN["unit"], torch.tensor(GOLDEN["inputs"]).float()
    channel = options.get("groupsize") == -1
    grid = IntFormat(
        bits=options.get("bits", 4),
        group_size="channel" if channel else GOLDEN["group_size"],
        symmetric=options["sym"],
        scale_convention="full_range" if options["sym"] else None,
        range="mse" if options.get("mse") else "minmax",
        scale_dtype="float32",
    )
    gptq = Gptq(
        order="activation" if options.get("actorder") else "natural",
        static_groups=options.get("static_groups", False),
        damping=GOLDEN["damping"],
    )
    stats = hessian_stats(2 / len(inputs) * inputs.T @ inputs)
    rounded = gptq.round(weight, stats, grid)
    expected = torch.tensor(GOLDEN["cases"][name]["values"])
    # One code that differs would differ by a whole step of its grid, thousands of times as much.
    torch.testing.assert_close(rounded.weight.dequantize(), expected, rtol=0, atol=1e-5)
    assert rounded.fallbacks == {}
    assert not torch.allclose(quantize(weight, grid).dequantize(), expected, atol=1e-3)
