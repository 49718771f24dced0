"""Which matrix of a shape a layer is, by its name in the models of transformers."""

from __future__ import annotations

import re
from typing import NamedTuple

from quantbench.core.errors import ConfigError

_BLOCK = re.compile(r"\.(\d+)\.")
_EXPERT = re.compile(r"\bexperts\.(?:\d+\.(?P<one>\w+)|(?P<stacked>\w+)\.\d+)$")

_QKV, _GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")

ROLES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")},
    **{name: (name,) for name in ("q_a_proj", "q_b_proj", "kv_b_proj", "project_in", "project_out", "lm_head")},
    "kv_a_proj_with_mqa": ("kv_a_proj",),
    **dict.fromkeys(("qkv_proj", "query_key_value", "W_pack", "Wqkv", "wqkv", "c_attn"), _QKV),
    **dict.fromkeys(("out_proj", "self_attention.dense", "self_attn.dense", "attention.dense", "wo"), ("o_proj",)),
    **dict.fromkeys(("attn.c_proj", "attn.out_proj"), ("o_proj",)),
    **dict.fromkeys(("gate_up_proj",), _GATE_UP),
    **dict.fromkeys(("dense_h_to_4h", "fc1", "fc_in", "mlp.c_fc"), ("up_proj",)),
    **dict.fromkeys(("dense_4h_to_h", "fc2", "fc_out", "mlp.c_proj"), ("down_proj",)),
    "w1": ("gate_proj",),
    "w3": ("up_proj",),
    "w2": ("down_proj",),
    **dict.fromkeys(("mlp.gate", "block_sparse_moe.gate", "router", "router.layer"), ("router",)),
    **dict.fromkeys(("embed_out", "output"), ("lm_head",)),
    **dict.fromkeys(("embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings"), ("embeddings",)),
}
"""End of a layer's name -> the matrices in it; the longest end counts."""


class Place(NamedTuple):
    """Where a layer is: the number of its block, None outside of them, and the roles of the matrices in it."""

    block: int | None
    roles: tuple[str, ...]


def place(layer: str) -> Place:
    """The matrices that a layer holds. Raises ConfigError for a name that is not known."""
    found = _BLOCK.search(f".{layer}.")
    block = None if found is None else int(found[1])
    expert = _EXPERT.search(layer)
    if expert is not None:
        roles = ROLES.get(expert["one"] or expert["stacked"])
        prefix = "experts."
    else:
        ends = sorted((end for end in ROLES if f".{layer}".endswith(f".{end}")), key=len)
        roles = ROLES[ends[-1]] if ends else None
        prefix = "shared_experts." if re.search(r"\bshared_experts?\.", layer) else ""
    if roles is None:
        raise ConfigError(
            f"layer {layer}: which matrix it is, is not known; known ends of names are {', '.join(ROLES)}"
        )
    return Place(block, tuple(prefix + role for role in roles))
