"""Random models of a few thousand weights, and a tokenizer, built in code: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
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
    given = {name: value for name, value in (shape | own).items() if value is not None}
    return settled(kind(config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **given)))


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


def tiny(config: type[PreTrainedConfig], model: Callable[[Any], M], **options: Any) -> M:
    """Two blocks of a family; `options` are those of its configuration beside the usual ones, null: leave one out."""
    usual = {"intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": 1}
    return _make(model, config, **(usual | options))


def tiny_mistral() -> MistralForCausalLM:
    """A sliding window in all blocks."""
    return tiny(MistralConfig, MistralForCausalLM, sliding_window=8)


def tiny_qwen2() -> Qwen2ForCausalLM:
    """Biases of queries, keys and values; a tied head."""
    return tiny(Qwen2Config, Qwen2ForCausalLM, tie_word_embeddings=True)


def tiny_gemma3() -> Gemma3ForCausalLM:
    """Local and global attention with two rotary bases, norms around each half of a block, and on queries and keys."""
    kinds = ["sliding_attention", "full_attention"]
    return tiny(Gemma3TextConfig, Gemma3ForCausalLM, head_dim=8, sliding_window=4, layer_types=kinds)


def tiny_bloom() -> BloomForCausalLM:
    """ALiBi, a fused query-key-value matrix, LayerNorms with biases, a tied head."""
    return tiny(BloomConfig, BloomForCausalLM, n_layer=2, n_head=4, num_hidden_layers=None, num_attention_heads=None)


def tiny_falcon() -> FalconForCausalLM:
    """One key and value head for all queries, fused; attention and MLP side by side behind one norm."""
    return tiny(FalconConfig, FalconForCausalLM, multi_query=True, parallel_attn=True, bias=False)


def tiny_falcon_two_norms() -> FalconForCausalLM:
    """Groups of key and value heads, and a norm for each of attention and MLP, as the 40B model has."""
    return tiny(FalconConfig, FalconForCausalLM, new_decoder_architecture=True, num_kv_heads=2)


def tiny_phi() -> PhiForCausalLM:
    """Attention and MLP side by side behind one norm, partial rotary embedding, biases everywhere."""
    return tiny(PhiConfig, PhiForCausalLM, num_key_value_heads=4)


def tiny_phi3() -> Phi3ForCausalLM:
    """Fused queries, keys and values, and fused gate and up; every head has a key and value of its own."""
    return tiny(Phi3Config, Phi3ForCausalLM, num_key_value_heads=4)


def tiny_mixtral() -> MixtralForCausalLM:
    """Four experts, two for each token."""
    return tiny(MixtralConfig, MixtralForCausalLM, num_local_experts=4, num_experts_per_tok=2)


def tiny_qwen2_moe() -> Qwen2MoeForCausalLM:
    """A shared expert with a gate beside the routed ones; the first block is dense."""
    options: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    options |= {"shared_expert_intermediate_size": 24, "mlp_only_layers": [0]}
    return tiny(Qwen2MoeConfig, Qwen2MoeForCausalLM, **options)


def tiny_qwen3_moe() -> Qwen3MoeForCausalLM:
    """Sixteen experts, of which some see few tokens and some see none."""
    options = {"num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    return tiny(Qwen3MoeConfig, Qwen3MoeForCausalLM, **options)


def tiny_gpt_oss() -> GptOssForCausalLM:
    """Experts stored transposed and with biases; attention sinks."""
    options = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 8}
    return tiny(GptOssConfig, GptOssForCausalLM, **options)


def tiny_deepseek_v3() -> DeepseekV3ForCausalLM:
    """Latent attention; a dense block, then routed experts beside a shared one. Routing has a bias of its own."""
    options: dict[str, Any] = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    options |= {"n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    options |= {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    return tiny(DeepseekV3Config, DeepseekV3ForCausalLM, num_key_value_heads=4, **options)


MORE_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "mistral": tiny_mistral,
    "qwen2": tiny_qwen2,
    "gemma3": tiny_gemma3,
    "bloom": tiny_bloom,
    "falcon": tiny_falcon,
    "falcon_two_norms": tiny_falcon_two_norms,
    "phi": tiny_phi,
}

MIXTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": tiny_mixtral,
    "qwen2_moe": tiny_qwen2_moe,
    "qwen3_moe": tiny_qwen3_moe,
    "gpt_oss": tiny_gpt_oss,
}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "llama_tied": tiny_llama_tied,
    "opt": tiny_opt,
    "gpt_neox": tiny_gpt_neox,
    "gpt2": tiny_gpt2,
    "gemma2": tiny_gemma2,
    "qwen3": tiny_qwen3,
    **MORE_FAMILIES,
    **MIXTURES,
}


def tiny_handle(model: PreTrainedModel | None = None) -> ModelHandle:
    """A handle on a tiny model (a Llama unless given) and the tiny tokenizer."""
    return ModelHandle(tiny_llama() if model is None else model, tiny_tokenizer(), "tiny")


def save_tiny_model(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """Write a tiny model (a Llama unless given) and its tokenizer, for `model=local model.path=FOLDER`."""
    (tiny_llama() if model is None else model).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def settled(model: M) -> M:
    """Evaluation mode; weights five times the usual random ones, so that distributions are far from uniform."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    model.requires_grad_(False)
    model.train(False)
    return model
