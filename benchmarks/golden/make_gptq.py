"""Golden values of GPTQ: what its authors' code makes of one small weight (tests/golden/gptq.json).

Run by hand: python -m benchmarks.golden.make_gptq CHECKOUT, a clone of github.com/IST-DASLab/gptq. Needs torch,
transformers and numpy; no quantbench.

In the authors' code a group that begins inside a block is fitted to weights that the block's own columns have not
updated yet. Blocks as long as a group avoid that: then a group is fitted to weights updated by all columns before it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import torch
from benchmarks.golden.golden_file import UNIT, integer_weight, matrix, write
from torch import Tensor

ROWS, COLUMNS, TOKENS, GROUP, DAMPING, INPUT_SCALE = 6, 64, 64, 32, 0.01, 10

CASES: dict[str, dict[str, Any]] = {
    "asymmetric": {"sym": False},
    "symmetric": {"sym": True},
    "three_bits": {"sym": False, "bits": 3},
    "mse": {"sym": False, "mse": True},
    "act_order": {"sym": False, "actorder": True},
    "act_order_static_groups": {"sym": False, "actorder": True, "static_groups": True},
    "channel": {"sym": False, "groupsize": -1},
    "channel_symmetric_act_order": {"sym": True, "groupsize": -1, "actorder": True},
}


def quantized(theirs: Any, weight: Tensor, inputs: Tensor, options: dict[str, Any]) -> Tensor:
    """The weight [out, in] after GPTQ on inputs [tokens, in]."""
    layer = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    layer.weight.data = weight.clone()
    gptq = theirs.GPTQ(layer)
    gptq.quantizer = importlib.import_module("quant").Quantizer()
    gptq.quantizer.configure(options.get("bits", 4), perchannel=True, sym=options["sym"], mse=options.get("mse", False))
    gptq.H = 2 / len(inputs) * inputs.T @ inputs  # exact: the inputs are small integers
    gptq.fasterquant(
        blocksize=GROUP,
        percdamp=DAMPING,
        groupsize=options.get("groupsize", GROUP),
        actorder=options.get("actorder", False),
        static_groups=options.get("static_groups", False),
    )
    return layer.weight.data


def main(checkout: str) -> None:
    """Write the file."""
    sys.path.insert(0, checkout)
    torch.cuda.synchronize = lambda *_: None  # the code waits for a GPU, which takes no part
    theirs = importlib.import_module("gptq")
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=draw) * 0.4 + torch.eye(COLUMNS)
    inputs = (torch.randn(TOKENS, COLUMNS, generator=draw) @ mixing * INPUT_SCALE).round()
    powers = inputs.square().sum(0)
    assert len(set(powers.tolist())) == COLUMNS, "act-order is not unique"
    assert float(powers.max()) < 2**24, "H is not exact"
    integers = integer_weight(ROWS, COLUMNS, seed=2)
    cases = {
        name: {"options": options, "values": matrix(quantized(theirs, integers * UNIT, inputs, options))}
        for name, options in CASES.items()
    }
    content = {
        "source": "github.com/IST-DASLab/gptq, gptq.py and quant.py",
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "group_size": GROUP,
        "damping": DAMPING,
        "unit": UNIT,
        "weight": matrix(integers),
        "inputs": matrix(inputs),
        "cases": cases,
    }
    write("gptq", content)


if __name__ == "__main__":
    main(sys.argv[1])
