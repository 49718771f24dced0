"""Runs in the environment of quantbench: BASE TOKENS OUT RECIPE [OVERRIDE...]. Writes the model dequantized."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import torch
from benchmarks.peers.cost import Cost
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import quantbench

PACKAGES = ("config", "calibration", "models", "pipeline", "transforms", "rounding", "formats", "kernels")


def load_all() -> None:
    """Load the modules that quantizing needs, as other tools do when they are imported; quantbench loads them late."""
    for package in PACKAGES:
        folder = importlib.import_module(f"quantbench.{package}")
        for module in pkgutil.iter_modules(folder.__path__, f"quantbench.{package}."):
            importlib.import_module(module.name)


def main(base: Path, tokens: Path, out: Path, recipe: str, overrides: list[str]) -> None:
    """The overrides are those of the command line."""
    load_all()
    cost = Cost()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = load_file(tokens)["tokens"]
    with cost:
        quantbench.quantize(model, tokenizer, recipe, ids, overrides)
    model.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
