"""Golden values of compressed-tensors, its fake quantization of a small weight: tests/golden/compressed_tensors.json.

Run by hand where `pip install compressed-tensors` was: python -m benchmarks.golden.make_compressed_tensors. No
quantbench is needed. Ranges are the smallest and the largest element of each group: what its min-max observers find.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

import torch
from benchmarks.golden.golden_file import UNIT, integer_weight, matrix, write
from torch import Tensor

ROWS, COLUMNS = 4, 64

CASES: dict[str, dict[str, Any]] = {
    "int4_group_symmetric": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
    "int4_group_asymmetric": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False},
    "int4_channel_symmetric": {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True},
    "int8_channel_symmetric": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
    "fp8_channel": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
    "nvfp4": {"preset": "NVFP4A16"},
    "mxfp4": {"preset": "MXFP4A16"},
    "mxfp8": {"preset": "MXFP8A16"},
}


def quantized(theirs: Any, weight: Tensor, options: dict[str, Any]) -> Tensor:
    """The weight [out, in] on the grids of the scheme that the options describe."""
    utils = importlib.import_module("compressed_tensors.quantization.utils")
    forward = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    if "preset" in options:
        args = theirs.preset_name_to_scheme(options["preset"], ["Linear"]).weights
    else:
        args = theirs.QuantizationArgs(**options)
    global_scale = None
    if args.strategy == "tensor_group":
        global_scale = utils.generate_gparam(weight.min(), weight.max())
    groups = weight.reshape(ROWS, -1, args.group_size or COLUMNS)
    scale, zero = utils.calculate_qparams(groups.amin(-1), groups.amax(-1), args, global_scale=global_scale)
    values: Tensor = forward.fake_quantize(weight, scale, zero, args, global_scale=global_scale)
    return values


def main() -> None:
    """Write the file."""
    theirs = importlib.import_module("compressed_tensors.quantization")
    integers = integer_weight(ROWS, COLUMNS, seed=3)
    cases = {
        name: {"options": options, "values": matrix(quantized(theirs, integers * UNIT, options))}
        for name, options in CASES.items()
    }
    content = {
        "source": "compressed-tensors",
        "version": version("compressed-tensors"),
        "torch": torch.__version__,
        "unit": UNIT,
        "weight": matrix(integers),
        "cases": cases,
    }
    write("compressed_tensors", content)


if __name__ == "__main__":
    main()
