"""Runs in an environment of torchao: BASE TOKENS OUT METHOD, where METHOD is int4 (groups of 64) or w8a8."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.peers.cost import Cost


def main(base: Path, out: Path, method: str) -> None:
    """Write the model as transformers writes what torchao quantized."""
    transformers, torch = import_module("transformers"), import_module("torch")
    ao = import_module("torchao.quantization")
    if method == "int4":
        asymmetric = ao.MappingType.ASYMMETRIC
        settings = ao.IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=ao.PerGroup(64), mapping_type=asymmetric
        )
    else:
        settings = ao.Int8DynamicActivationInt8WeightConfig()
    cost = Cost()
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with cost:
        ao.quantize_(model.model, settings)
    # Written by the way of transformers, which quantizes while it loads.
    config = transformers.TorchAoConfig(settings)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=config)
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]), sys.argv[4])
