"""How good quantized weights are: one loop for all tools, BASE OUT, in the environment of quantbench.

OUT is a model folder in full precision that holds dequantized weights, or a quantized checkpoint that quantbench reads.
Inputs are not quantized: what is scored are the weights. 8 windows of 512 tokens of each of TEXTS; divergence from BASE
and perplexity in float64 over the whole vocabulary. A line of JSON is printed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from benchmarks.peers.cost import WORD
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from quantbench.cells.session import Session
from quantbench.checkpoints.read import read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.config.composer import compose_cells
from quantbench.core.progress import progress
from quantbench.models.handle import ModelHandle
from quantbench.store.store import Store
from quantbench.tasks.text_windows import Windows

TEXTS = ("wiki_sample", "code_sample")

POSITIONS = 16
"""At a time: few enough for a processor's cache."""


def windows(base: Path) -> dict[str, Tensor]:
    """The windows int64 [8, 512] of each text."""
    (cell,) = compose_cells(["quantizer=none", "model=local", f"model.path={base}", "eval=two_samples"])
    session, found = Session(Store(base.parent / "unused")), {}
    for text in TEXTS:
        test = session.test(cell, text)
        assert isinstance(test, Windows)
        found[text] = test.tokens
    return found


def quantized(base: Path, out: Path) -> PreTrainedModel:
    """The model with the weights of OUT. Raises ModelError for a checkpoint that is not read."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" not in config:
        return _load(out)
    (cell,) = compose_cells(
        ["quantizer=checkpoint", f"quantizer.path={out}", "model=local", f"model.path={base}", "model.dtype=float32"]
    )
    recipe, handle = cell.recipe, cell.model.load()
    assert isinstance(recipe, CheckpointRecipe)
    assert isinstance(handle, ModelHandle)
    with progress("reading", "layer") as show:
        artifact = read_checkpoint(handle, recipe, show).artifact
    artifact.ops.clear()
    artifact.install(handle)
    model: PreTrainedModel = handle.model
    return model


def _load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train(False)
    return model


def full_logits(base: Path, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logits float32 [W, L - 1, V] of the full-precision model on each text, computed once for all tools (1.6 GB)."""
    kept = base.parent / "full_logits.safetensors"
    if not kept.exists():
        model, begun = _load(base), kept.with_suffix(".begun")
        found = {text: torch.cat([model(one[None]).logits[:, :-1] for one in own]) for text, own in tokens.items()}
        save_file(found, begun)
        begun.rename(kept)
    return load_file(kept)


def score(full: Tensor, other: PreTrainedModel, tokens: Tensor) -> dict[str, float]:
    """KL (nats per token) and perplexity of the other on windows int64 [W, L], and the first one's perplexity.

    full: the logits [W, L - 1, V] of the model that is compared with.
    """
    sums = dict.fromkeys(("kl", "nll", "nll_full"), 0.0)
    for window, logits in zip(tokens, full, strict=True):
        parts = zip(
            *(part.split(POSITIONS) for part in (logits, other(window[None]).logits[0, :-1], window[1:])), strict=True
        )
        for theirs, ours, targets in parts:
            p, q = theirs.double().log_softmax(1), ours.double().log_softmax(1)
            sums["kl"] += float((p.exp() * (p - q)).sum())
            for name, logs in (("nll", q), ("nll_full", p)):
                sums[name] -= float(logs.gather(1, targets[:, None]).sum())
    means = {name: value / tokens[:, 1:].numel() for name, value in sums.items()}
    return {
        "kl": means["kl"],
        "perplexity": math.exp(means["nll"]),
        "full_precision_perplexity": math.exp(means["nll_full"]),
    }


def main(base: Path, out: Path) -> None:
    """Print the scores on each text."""
    tokens, other = windows(base), quantized(base, out)
    with torch.no_grad():
        full = full_logits(base, tokens)
        found = {text: score(full[text], other, own) for text, own in tokens.items()}
    print(f"\n{WORD}{json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
