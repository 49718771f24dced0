"""The shape of a model from its configuration: the keys of config.json as transformers writes it, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbench.core.errors import ConfigError
from quantbench.roofline.shape import Block, GroupedAttention, LatentAttention, Mlp, Shape

GATED = frozenset(
    {
        *("baichuan", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3_text"),
        *("glm", "glm4", "gpt_oss", "granite", "granitemoe", "helium", "internlm2", "llama", "mistral", "mixtral"),
        *("olmo", "olmo2", "olmo3", "olmoe", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
        *("seed_oss", "smollm3", "stablelm"),
    }
)
"""Model types whose MLP is act(gate) x up."""

PLAIN = frozenset(
    {
        *("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "nemotron", "opt", "phi"),
        "starcoder2",
    }
)
"""Model types whose MLP is act(up)."""

LEARNED = {"gpt2": 0, "gpt_bigcode": 0, "opt": 2}
"""Model types with learned positions: rows beside those of `max_position_embeddings`."""

FOUR_TIMES = frozenset({"bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gptj"})
"""Model types whose MLP is four times as wide as the hidden states unless it is given."""

NO_LIMIT = frozenset({"bloom", "mpt"})
"""Model types whose positions are biases of attention (ALiBi), or whose configuration states a limit that is none."""

ALL_HEADS = frozenset({"bloom", "codegen", "gpt2", "gpt_neox", "gptj", "mpt", "opt"})
"""Model types that have a key and a value head for each query head."""

HIDDEN = ("hidden_size", "n_embd", "d_model")
BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")

Config = Mapping[str, Any]


def shape(config: Config, name: str = "model") -> Shape:
    """The shape that a configuration describes, such as `PreTrainedConfig.to_dict()` gives.

    Raises ConfigError for a model type whose operators are not known, and for a field that is missing, naming it.
    """
    text = config["text_config"] if isinstance(config.get("text_config"), Mapping) else config
    return _Reader(text, name).shape()


class _Reader:
    """Reads one configuration."""

    def __init__(self, config: Config, name: str) -> None:
        self._config, self._name = config, name
        self._type = str(config.get("model_type"))
        if self._type not in GATED | PLAIN:
            known = ", ".join(sorted(GATED | PLAIN))
            raise ConfigError(
                f"model {name}: model_type={config.get('model_type')!r} cannot be modelled: which operators it has is "
                f"not known. Known are {known}"
            )
        self._hidden = self._number(*HIDDEN)
        self._heads = self._number(*HEADS)

    def shape(self) -> Shape:
        """The whole model."""
        vocabulary = self._number("vocab_size")
        blocks = tuple(
            Block(attention=self._attention(index), mlps=self._mlps(index)) for index in range(self._number(*BLOCKS))
        )
        limit = None if self._type in NO_LIMIT else self._optional(*LENGTH)
        extra = LEARNED.get(self._type)
        return Shape(
            name=self._name,
            hidden=self._hidden,
            vocabulary=vocabulary,
            blocks=blocks,
            tied=bool(self._config.get("tie_word_embeddings", False)),
            embedding_width=self._optional("word_embed_proj_dim") or self._hidden,
            positions=0 if extra is None else self._number(*LENGTH) + extra,
            max_length=limit,
        )

    def _attention(self, index: int) -> GroupedAttention | LatentAttention:
        if self._config.get("kv_lora_rank") is not None:
            return LatentAttention(
                hidden=self._hidden,
                heads=self._heads,
                query_rank=self._optional("q_lora_rank"),
                latent=self._number("kv_lora_rank"),
                plain=self._number("qk_nope_head_dim"),
                rotary=self._number("qk_rope_head_dim"),
                value=self._number("v_head_dim"),
            )
        width = self._optional("head_dim") or self._hidden // self._heads
        return GroupedAttention(
            hidden=self._hidden, heads=self._heads, kv_heads=self._kv_heads(), width=width, window=self._window(index)
        )

    def _kv_heads(self) -> int:
        if self._type in ALL_HEADS:
            return self._heads
        if self._type == "falcon" and not self._config.get("new_decoder_architecture"):
            return 1 if self._config.get("multi_query") else self._heads
        if self._type == "gpt_bigcode":
            return 1 if self._config.get("multi_query", True) else self._heads
        return self._optional("num_key_value_heads", "num_kv_heads") or self._heads

    def _window(self, index: int) -> int | None:
        kinds = self._config.get("layer_types")
        if kinds is None:
            used = self._config.get("use_sliding_window", True)
            return self._optional("sliding_window") if used else None
        kind = kinds[index] if isinstance(kinds, Sequence) and index < len(kinds) else None
        if kind == "full_attention":
            return None
        if kind == "sliding_attention":
            return self._number("sliding_window")
        if kind == "chunked_attention":
            return self._number("attention_chunk_size")
        raise ConfigError(
            f"model {self._name}: layer_types[{index}]={kind!r} cannot be modelled; known are full_attention, "
            "sliding_attention, chunked_attention"
        )

    def _mlps(self, index: int) -> tuple[Mlp, ...]:
        gated = self._type in GATED
        experts = self._optional(*EXPERTS)
        if experts is None or not self._is_sparse(index):
            return (Mlp(hidden=self._hidden, width=self._dense_width(), gated=gated),)
        chosen = self._number("num_experts_per_tok")
        width = self._optional("moe_intermediate_size") or self._number(*WIDTH)
        routed = Mlp(hidden=self._hidden, width=width, gated=gated, experts=experts, chosen=chosen, prefix="experts.")
        shared = self._optional("shared_expert_intermediate_size")
        if shared is None and (several := self._optional("n_shared_experts")) is not None:
            shared = several * width
        if shared is None:
            return (routed,)
        return routed, Mlp(hidden=self._hidden, width=shared, gated=gated, prefix="shared_experts.")

    def _is_sparse(self, index: int) -> bool:
        """Whether a block of a mixture has experts: DeepSeek's first are dense, Qwen's as its lists say."""
        if index < (self._optional("first_k_dense_replace") or 0) or index in (
            self._config.get("mlp_only_layers") or ()
        ):
            return False
        every = self._optional("decoder_sparse_step") or 1
        frequency = self._optional("moe_layer_freq") or 1
        return (index + 1) % every == 0 and index % frequency == 0

    def _dense_width(self) -> int:
        if self._type in FOUR_TIMES:
            return self._optional(*WIDTH[1:]) or 4 * self._hidden
        if self._type == "mpt":
            return self._number("expansion_ratio") * self._hidden
        return self._number(*WIDTH)

    def _number(self, *names: str) -> int:
        found = self._optional(*names)
        if found is None:
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(
                f"model {self._name}: its configuration ({self._type}) has no {names[0]}{others}: it cannot be modelled"
            )
        return found

    def _optional(self, *names: str) -> int | None:
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                if value == 0 and not isinstance(value, bool):
                    return None
                raise ConfigError(f"model {self._name}: {name}={value!r} in its configuration: expected a whole number")
            return value
        return None
