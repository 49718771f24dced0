"""Random models of a few thousand weights, and a tokenizer, built in code: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

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


def tiny_llama(seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    """Two blocks, grouped-query attention; `tied`: the head shares the embeddings' weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _settled(LlamaForCausalLM(config))


def tiny_llama_tied() -> LlamaForCausalLM:
    """A Llama whose head shares the embeddings' weights."""
    return tiny_llama(tied=True)


def tiny_opt() -> OPTForCausalLM:
    """Biases, LayerNorm, ReLU, learned positions, and embeddings narrower than the hidden states."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _settled(OPTForCausalLM(config))


def tiny_gpt_neox() -> GPTNeoXForCausalLM:
    """Parallel residual and a fused query-key-value matrix."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _settled(GPTNeoXForCausalLM(config))


def tiny_gpt2() -> GPT2LMHeadModel:
    """Weights stored transposed (Conv1D), tied head."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=POSITIONS,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _settled(GPT2LMHeadModel(config))


def tiny_gemma2() -> Gemma2ForCausalLM:
    """Alternating sliding-window attention, norms with gain 1 + weight, and a soft cap on the logits."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=POSITIONS,
        sliding_window=4,
        final_logit_softcapping=0.5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return _settled(Gemma2ForCausalLM(config))


def tiny_qwen3() -> Qwen3ForCausalLM:
    """Norms on queries and keys."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=1,
    )
    return _settled(Qwen3ForCausalLM(config))


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
