"""Model folders as transformers reads them: configuration, tensors in shards, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from quantbench.core.files import write_failure
from quantbench.models.pretrained import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARD = "5GB"


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Errors of the operating system as StoreError, which says what is free and what to do."""
    try:
        with quiet_transformers():
            yield
    except (OSError, SafetensorError) as error:
        raise write_failure(folder, error) from error


def save_dense(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Everything of a model in full precision. Raises StoreError where the operating system refuses."""
    with _refusals(folder):
        model.save_pretrained(folder, max_shard_size=SHARD)
        tokenizer.save_pretrained(folder)


def _own(tensor: Tensor) -> Tensor:
    """The tensor with memory of its own: what is left of a larger one is not taken for a shared weight."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole and tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)


def save_quantized(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tensors: Mapping[str, Tensor],
    quantization: Mapping[str, Any],
    folder: Path,
) -> None:
    """Tensors under the names given, and `quantization` as the configuration's quantization_config."""
    with _refusals(folder):
        save_torch_state_dict(
            {name: _own(tensor) for name, tensor in tensors.items()},
            folder,
            max_shard_size=SHARD,
            metadata={"format": "pt"},
        )
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {
            "architectures": [type(model).__name__],
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization_config": dict(quantization),
        }
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
