"""Runs in an environment of llmcompressor: BASE TOKENS OUT METHOD BITS; METHOD: gptq, gptq_symmetric, awq, w8a8."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.peers.cost import Cost
from safetensors.torch import load_file


def main(base: Path, tokens: Path, out: Path, method: str, bits: int) -> None:
    """Write the model in compressed-tensors: weights in groups of 64, or weights and inputs in 8 bits."""
    transformers, datasets, torch = (import_module(name) for name in ("transformers", "datasets", "torch"))
    if not torch.accelerator.is_available():
        torch.Tensor.pin_memory = lambda values, *_: values  # AWQ pins what it keeps, for an accelerator
    quantization, gptq = (import_module(f"llmcompressor.modifiers.{name}") for name in ("quantization", "gptq"))
    ids = load_file(tokens)["tokens"].tolist()
    data = datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 64}
    weights["symmetric"] = method == "gptq_symmetric"
    groups = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    if method.startswith("gptq"):
        recipe = [gptq.GPTQModifier(**groups)]
    elif method == "awq":
        recipe = [import_module("llmcompressor.modifiers.awq").AWQModifier(**groups)]
    else:
        smooth = import_module("llmcompressor.modifiers.transform.smoothquant")
        eight = {"targets": "Linear", "scheme": "W8A8", "ignore": ["lm_head"]}
        recipe = [smooth.SmoothQuantModifier(smoothing_strength=0.5), quantization.QuantizationModifier(**eight)]
    oneshot, cost = import_module("llmcompressor").oneshot, Cost()
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with cost:
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=data,
            recipe=recipe,
            max_seq_length=len(ids[0]),
            num_calibration_samples=len(ids),
            shuffle_calibration_samples=False,
        )
    model.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
