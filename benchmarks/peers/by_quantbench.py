"""Runs in the environment of quantbench: BASE TOKENS OUT RECIPE [OVERRIDE...]. Writes the model dequantized."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from benchmarks.peers.cost import Cost
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import quantbench


def main(base: Path, tokens: Path, out: Path, recipe: str, overrides: list[str]) -> None:
    """The overrides are those of the command line."""
    quantize = quantbench.quantize  # which is loaded now
    cost = Cost()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = load_file(tokens)["tokens"]
    with cost:
        quantize(model, tokenizer, recipe, ids, overrides)
    model.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
