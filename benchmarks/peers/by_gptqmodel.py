"""Runs in an environment of gptqmodel: BASE TOKENS OUT METHOD BITS, where METHOD is symmetric or asymmetric."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.peers.cost import Cost
from safetensors.torch import load_file


def main(base: Path, tokens: Path, out: Path, method: str, bits: int) -> None:
    """Write the model as GPTQ files, in groups of 64."""
    gptqmodel, torch = import_module("gptqmodel"), import_module("torch")
    ids = load_file(tokens)["tokens"].tolist()
    config = gptqmodel.QuantizeConfig(bits=bits, group_size=64, sym=method == "symmetric", desc_act=False)
    cost = Cost()
    model = gptqmodel.GPTQModel.load(str(base), config, device="cpu", dtype=torch.float32)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids]
    with cost:
        model.quantize(rows, batch_size=1)
    model.save(str(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
