"""Shapes read from configurations alone are those of the models that transformers makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedModel

import tiny
from llm_viewer import LLAMA2_7B
from quantbench.core.errors import ConfigError
from quantbench.models.slots import block_slots
from quantbench.models.structure import find_blocks
from quantbench.roofline.naming import place
from quantbench.roofline.reading import GATED, PLAIN, shape
from quantbench.roofline.shape import GroupedAttention, LatentAttention

FAMILIES = {**tiny.FAMILIES, "phi3": tiny.tiny_phi3, "deepseek_v3": tiny.tiny_deepseek_v3}


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_every_matrix_of_a_model_is_in_its_shape_under_the_role_of_its_name(
    make: Callable[[], PreTrainedModel],
) -> None:
    model = make()
    found = shape(model.config.to_dict(), "tiny")
    prefix, blocks = find_blocks(model)
    layers: Counter[tuple[int | None, tuple[str, ...]]] = Counter()
    for index, block in enumerate(blocks):
        for slot in block_slots(f"{prefix}.{index}", block):
            layers[place(slot.name)] += slot.shape[0] * slot.shape[1]
    sizes = {(block, linear.role): linear.size for block, linear in found.linears()}
    matrices = {key: size for key, size in layers.items() if key[1] != ("router",)}
    assert matrices == {(block, roles): sum(sizes[block, role] for role in roles) for block, roles in matrices}
    covered = {(block, role) for block, roles in layers for role in roles}
    assert {key for key in sizes if key[0] is not None and key[1] != "router"} == covered - {
        key for key in covered if key[1] == "router"
    }
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert found.head.size == head.weight.numel()
    assert found.tied == (head.weight is model.get_input_embeddings().weight)


def test_a_gated_model_without_biases_has_as_many_parameters_as_its_shape_says() -> None:
    for make in (tiny.tiny_llama, tiny.tiny_llama_tied, tiny.tiny_mistral, tiny.tiny_mixtral):
        model = make()
        assert shape(model.config.to_dict()).parameters == sum(one.numel() for one in model.parameters())


def test_windows_are_those_of_the_blocks() -> None:
    gemma = shape(tiny.tiny_gemma3().config.to_dict())
    windows = [block.attention.window for block in gemma.blocks]
    assert windows == [4, None]
    assert [block.attention.window for block in shape(tiny.tiny_mistral().config.to_dict()).blocks] == [8, 8]
    assert [block.attention.window for block in shape(tiny.tiny_qwen2().config.to_dict()).blocks] == [None, None]


def test_latent_attention_caches_a_latent_and_a_rotary_key() -> None:
    found = shape(tiny.tiny_deepseek_v3().config.to_dict())
    assert isinstance(found.blocks[0].attention, LatentAttention)
    assert found.cached_per_token == 2 * (8 + 4)
    assert [len(block.mlps) for block in found.blocks] == [1, 2]  # dense; routed and shared experts


def test_grouped_queries_share_keys() -> None:
    attention = shape({**LLAMA2_7B, "num_key_value_heads": 8}).blocks[0].attention
    assert isinstance(attention, GroupedAttention)
    assert (attention.kv_heads, attention.cached) == (8, 2 * 8 * 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type='mamba' cannot be modelled"),
        ({"model_type": None}, "model_type=None cannot be modelled"),
        ({"hidden_size": None}, r"has no hidden_size \(or n_embd, d_model\)"),
        ({"intermediate_size": None}, "has no intermediate_size"),
        ({"vocab_size": None}, "has no vocab_size: it cannot be modelled"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers='32' in its configuration: expected a whole number"),
        ({"kv_lora_rank": 8}, "has no qk_nope_head_dim"),
        ({"num_local_experts": 8}, "has no num_experts_per_tok"),
        ({"layer_types": ["linear_attention"] * 32}, r"layer_types\[0\]='linear_attention' cannot be modelled"),
    ],
)
def test_a_configuration_that_cannot_be_modelled_is_refused_by_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"model odd: .*{message}"):
        shape({**LLAMA2_7B, **changes}, "odd")


def test_a_text_model_inside_another_configuration_is_found() -> None:
    assert shape({"model_type": "some_vlm", "text_config": LLAMA2_7B}).parameters == 6_738_415_616


def test_no_model_type_is_of_two_kinds() -> None:
    assert not GATED & PLAIN


@pytest.mark.parametrize(
    ("layer", "block", "roles"),
    [
        ("model.layers.3.self_attn.q_proj", 3, ("q_proj",)),
        ("transformer.h.0.attn.c_attn", 0, ("q_proj", "k_proj", "v_proj")),
        ("transformer.h.11.mlp.c_proj", 11, ("down_proj",)),
        ("transformer.h.11.attn.c_proj", 11, ("o_proj",)),
        ("model.layers.1.mlp.experts.7.up_proj", 1, ("experts.up_proj",)),
        ("model.layers.1.mlp.experts.gate_up_proj.2", 1, ("experts.gate_proj", "experts.up_proj")),
        ("model.layers.1.mlp.shared_expert.down_proj", 1, ("shared_experts.down_proj",)),
        ("lm_head", None, ("lm_head",)),
        ("model.embed_tokens", None, ("embeddings",)),
    ],
)
def test_layers_are_placed_by_their_names(layer: str, block: int | None, roles: tuple[str, ...]) -> None:
    assert place(layer) == (block, roles)


def test_a_layer_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layer model\.layers\.0\.mixer\.in_proj: which matrix it is, is not known"):
        place("model.layers.0.mixer.in_proj")
