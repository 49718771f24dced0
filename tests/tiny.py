"""Random models of a few thousand weights, and a tokenizer, built in code: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from quantbench.models.handle import ModelHandle

M = TypeVar("M", bound=PreTrainedModel)

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
BOS, EOS = "<s>", "</s>"
VOCABULARY = 2 + len(BYTES)
POSITIONS = 128


def tiny_tokenizer(add_bos: bool = True) -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte; with `add_bos` it puts <s> before a text, as Llama's does."""
    vocabulary = {token: index for index, token in enumerate([BOS, EOS, *BYTES])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if add_bos:
        backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)  # type: ignore[no-untyped-call]


def _make(kind: Callable[[Any], M], config: Callable[..., PreTrainedConfig], seed: int = 0, **own: Any) -> M:
    """A model of two blocks, hidden states of width 32 and four heads; `own` are what its family needs besides."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": POSITIONS}
    torch.manual_seed(seed)
    return _settled(kind(config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **(shape | own))))


def tiny_llama(seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    """Two blocks, grouped-query attention; `tied`: the head shares the embeddings' weights."""
    own = {"intermediate_size": 48, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    return _make(LlamaForCausalLM, LlamaConfig, seed, **own)


def tiny_llama_tied() -> LlamaForCausalLM:
    """A Llama whose head shares the embeddings' weights."""
    return tiny_llama(tied=True)


def tiny_opt() -> OPTForCausalLM:
    """Biases, LayerNorm, ReLU, learned positions, and embeddings narrower than the hidden states."""
    return _make(OPTForCausalLM, OPTConfig, word_embed_proj_dim=16, ffn_dim=64, pad_token_id=1)


def tiny_gpt_neox() -> GPTNeoXForCausalLM:
    """Parallel residual and a fused query-key-value matrix."""
    return _make(GPTNeoXForCausalLM, GPTNeoXConfig, intermediate_size=64)


def tiny_gpt2() -> GPT2LMHeadModel:
    """Weights stored transposed (Conv1D), tied head."""
    return _make(GPT2LMHeadModel, GPT2Config)


GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}


def tiny_gemma2() -> Gemma2ForCausalLM:
    """Alternating sliding-window attention, norms with gain 1 + weight, and a soft cap on the logits."""
    own: dict[str, Any] = {"sliding_window": 4, "final_logit_softcapping": 0.5, "pad_token_id": 1}
    return _make(Gemma2ForCausalLM, Gemma2Config, **GROUPED, **own)


def tiny_qwen3() -> Qwen3ForCausalLM:
    """Norms on queries and keys."""
    return _make(Qwen3ForCausalLM, Qwen3Config, **GROUPED)


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "llama_tied": tiny_llama_tied,
    "opt": tiny_opt,
    "gpt_neox": tiny_gpt_neox,
    "gpt2": tiny_gpt2,
    "gemma2": tiny_gemma2,
    "qwen3": tiny_qwen3,
}


def tiny_handle(model: PreTrainedModel | None = None) -> ModelHandle:
    """A handle on a tiny model (a Llama unless given) and the tiny tokenizer."""
    return ModelHandle(tiny_llama() if model is None else model, tiny_tokenizer(), "tiny")


def save_tiny_model(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """Write a tiny model (a Llama unless given) and its tokenizer, for `model=local model.path=FOLDER`."""
    (tiny_llama() if model is None else model).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _settled(model: M) -> M:
    """Evaluation mode; weights five times the usual random ones, so that distributions are far from uniform."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    model.requires_grad_(False)
    model.train(False)
    return model
