"""Models of random weights in several files, of any size: written tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tiny import tiny_tokenizer


def save_sharded(folder: Path, **shape: Any) -> int:
    """A Llama of random weights in float32, one file a block and one for the rest; the bytes of its weights."""
    config = LlamaConfig(bos_token_id=0, eos_token_id=1, max_position_embeddings=512, **shape)
    config.architectures, config.dtype = ["LlamaForCausalLM"], "float32"
    config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    generator, places = torch.Generator().manual_seed(0), dict[str, str]()
    for part in [f"model.layers.{index}." for index in range(config.num_hidden_layers)] + [""]:
        names = [name for name in shapes if name.startswith(part) and name not in places]
        file = f"{part or 'rest.'}safetensors"
        save_file({name: _values(name, shapes[name], generator) for name in names}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    total: int = 4 * sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def _values(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.empty(shape).normal_(0, shape[-1] ** -0.5, generator=generator)
