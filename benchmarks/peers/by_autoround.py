"""Runs in an environment of auto-round: BASE TOKENS OUT METHOD, where METHOD is a format of files, and ITERATIONS."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.peers.cost import Cost
from safetensors.torch import load_file


def main(base: Path, tokens: Path, out: Path, method: str, iterations: int) -> None:
    """Write the model in groups of 64 in 4 bits, symmetric as is its default."""
    transformers, torch = import_module("transformers"), import_module("torch")
    ids = load_file(tokens)["tokens"]
    cost, AutoRound = Cost(), import_module("auto_round").AutoRound
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    rounder = AutoRound(
        model,
        tokenizer,
        bits=4,
        group_size=64,
        sym=True,
        iters=iterations,
        nsamples=len(ids),
        seqlen=ids.shape[1],
        batch_size=len(ids),
        dataset=torch.utils.data.DataLoader(rows, batch_size=len(ids)),
        device_map="cpu",
    )
    with cost:
        rounder.quantize_and_save(str(out), format=method)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
