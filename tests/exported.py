"""What is exported in tests: weights on their grids, and small models that were quantized and never stored."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quantbench.export.subject import Subject
from quantbench.formats.base import Format
from quantbench.formats.grid import Convention
from quantbench.formats.int import IntFormat
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import BOS, BYTES, EOS, VOCABULARY, tiny

GROUPS = "quantizer.weight.group_size=32"


def weight(rows: int = 32, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + 0.3


def rounded(kind: Format, rows: int = 32, width: int = 64) -> QuantizedWeight:
    """Rounded to nearest."""
    values = weight(rows, width)
    params = kind.params(values)
    index = torch.arange(width) // kind.columns_per_group(width)
    return QuantizedWeight(kind.encode(values, params.columns(index)), params, kind)


def integers(bits: int, symmetric: bool, group_size: Any = 32, **options: Any) -> IntFormat:
    convention: Convention | None = "full_range" if symmetric else None
    return IntFormat(bits=bits, group_size=group_size, symmetric=symmetric, scale_convention=convention, **options)


def wide_llama(tied: bool = False) -> LlamaForCausalLM:
    """Two blocks whose widths are multiples of 32."""
    return tiny(LlamaConfig, LlamaForCausalLM, hidden_size=64, intermediate_size=128, tie_word_embeddings=tied)


def tokenizer_with_a_merge() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, in which two letters z are one token in the place of the last byte's: GGUF needs merges."""
    vocabulary = {token: index for index, token in enumerate([BOS, EOS, *BYTES[:-1], "zz"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("z", "z")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)  # type: ignore[no-untyped-call]


def subject_of(name: str, *overrides: str, model: Any = None) -> Subject:
    """A quantized model that was never stored."""
    handle = ModelHandle(model or wide_llama(), tokenizer_with_a_merge(), "tiny")
    recipe = make_recipe(name, *overrides)
    data = None
    if not recipe.data_free:
        data = torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))
    artifact = quantize_model(handle, recipe, data, torch.device("cpu"), lambda _done, _all: None).artifact
    artifact.install(handle)
    return Subject("run", artifact, handle.model, handle.tokenizer, torch.float32)
