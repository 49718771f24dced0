"""Runs in an environment of hqq: BASE TOKENS OUT METHOD; METHOD is the number of bits, in groups of 64."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.peers.cost import Cost


def main(base: Path, out: Path, bits: int) -> None:
    """Write the model dequantized."""
    transformers, torch = import_module("transformers"), import_module("torch")
    hqq = import_module("hqq.core.quantize")
    settings = hqq.BaseQuantizeConfig(nbits=bits, group_size=64, axis=1)
    cost = Cost()
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    linears = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    with cost:
        made = [hqq.HQQLinear(m, settings, compute_dtype=torch.float32, device="cpu", del_orig=False) for m in linears]
    for module, quantized in zip(linears, made, strict=True):
        module.weight.data = quantized.dequantize()
    model.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]), int(sys.argv[4]))
