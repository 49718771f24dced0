"""The quantized key-value cache on small random models: which are supported, and what an installed cache does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.core import tensors as stored_tensors
from quantbench.core.errors import ModelError
from quantbench.formats.kv import KVCache, attention
from quantbench.models.structure import find_blocks
from quantbench.pipeline import attention as attention_module
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.attention import QuantizeKVCache, cache_operations, find_attention
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import (
    FAMILIES,
    VOCABULARY,
    tiny_gemma2,
    tiny_gpt_oss,
    tiny_handle,
    tiny_llama,
    tiny_mistral,
    tiny_mixtral,
)

CPU = torch.device("cpu")
KIVI = ("quantizer.kv_cache.group_size=4", "quantizer.kv_cache.residual=8")


UNREACHABLE = {"bloom", "falcon", "falcon_two_norms", "gpt_oss"}
"""Families whose attention is refused: their tests are below."""

SUPPORTED = {name: make for name, make in FAMILIES.items() if name not in UNREACHABLE}


def tokens(n: int = 2, length: int = 24) -> Tensor:
    return torch.randint(2, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor | None = None) -> Tensor:
    result: Tensor = model(input_ids=tokens() if ids is None else ids, use_cache=False).logits
    return result


def installed(model: PreTrainedModel, recipe: Recipe) -> Artifact:
    handle = tiny_handle(model)
    data = None if recipe.data_free else tokens(4)
    artifact = quantize_model(handle, recipe, data, CPU, lambda _done, _total: None).artifact
    artifact.install(handle)
    return artifact


def cache_of(model: PreTrainedModel, **options: Any) -> list[QuantizeKVCache]:
    given: dict[str, Any] = {"keys": "token", "bits": 8, "group_size": "head", "residual": 0}
    cache = KVCache(**given | options)
    return [op for ops in cache_operations(cache, model, *find_blocks(model)) for op in ops]


def install_all(model: PreTrainedModel, ops: list[QuantizeKVCache]) -> list[Any]:
    modules = dict(model.named_modules())
    return [op.install(modules[op.module]) for op in ops]


@pytest.mark.parametrize("family", SUPPORTED)
def test_a_residual_as_long_as_the_sequence_is_the_model_bit_for_bit(family: str) -> None:
    model = SUPPORTED[family]()
    before = logits(model)
    recipe = make_recipe("kivi2", "quantizer.kv_cache.group_size=4", "quantizer.kv_cache.residual=24")
    artifact = installed(model, recipe)
    assert torch.equal(logits(model), before)
    assert len(artifact.ops) == 2
    longer = tokens(1, 25)
    quantized = logits(model, longer)
    for block in find_blocks(model)[1]:
        for module in block.modules():
            module._forward_pre_hooks.clear()
    full = logits(model, longer)
    torch.testing.assert_close(quantized[:, :24], full[:, :24], rtol=1e-3, atol=1e-4)  # attention in float32 is ours
    assert not torch.allclose(quantized[:, 24], full[:, 24], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", SUPPORTED)
@pytest.mark.parametrize("name", ["kv4", "kivi4"])
def test_error_falls_with_bits(family: str, name: str) -> None:
    errors = []
    for bits in (8, 4, 2):
        model = SUPPORTED[family]()
        before = logits(model)
        overrides = KIVI if name == "kivi4" else ()
        installed(model, make_recipe(name, f"quantizer.kv_cache.bits={bits}", *overrides))
        errors.append(float((logits(model) - before).norm() / before.norm()))
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.1


@pytest.mark.parametrize("family", SUPPORTED)
def test_a_later_token_never_changes_earlier_logits(family: str) -> None:
    model = SUPPORTED[family]()
    installed(model, make_recipe("kivi2", *KIVI, "quantizer.kv_cache.rotate=true"))
    changed = tokens()
    changed[:, 17:] = 5
    before, after = logits(model), logits(model, changed)
    torch.testing.assert_close(before[:, :17], after[:, :17], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before[:, 17:], after[:, 17:], atol=1e-2)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_models_implementation_does_not_matter_and_is_left_alone(implementation: str) -> None:
    model = tiny_mistral()
    model.set_attn_implementation(implementation)
    ops = cache_of(model, bits=3)
    hooks = install_all(model, ops)
    found = logits(model)
    expected = tiny_mistral()
    install_all(expected, ops)
    torch.testing.assert_close(found, logits(expected), rtol=1e-4, atol=1e-4)
    for hook in hooks:
        hook.remove()
    untouched = tiny_mistral()
    untouched.set_attn_implementation(implementation)
    assert torch.equal(logits(model), logits(untouched))
    configs: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    assert {id(config) for config in configs} == {id(model.config)}
    assert model.config._attn_implementation == implementation


def test_soft_capped_scores_are_capped() -> None:
    model = tiny_gemma2()
    for block in model.model.layers:
        block.self_attn.attn_logit_softcapping = 0.3
    before = logits(model)
    install_all(model, cache_of(model, residual=1, bits=8))
    torch.testing.assert_close(logits(model), before, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("family", ["bloom", "falcon", "falcon_two_norms"])
def test_a_model_that_does_not_use_the_interface_is_refused(family: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    with pytest.raises(ModelError, match=r"kv_cache: transformer\.h\.0 .* does not compute attention through"):
        quantize_model(handle, make_recipe("kv4"), None, CPU, lambda _done, _total: None)


def test_an_argument_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"called with s_aux, which quantbench's does not know"):
        cache_of(tiny_gpt_oss())


def test_arguments_without_effect_are_not() -> None:
    assert len(cache_of(tiny_mixtral())) == 2


def test_attention_of_another_kind_is_noticed() -> None:
    model = tiny_llama()
    block = model.model.layers[1].self_attn
    block.scaling = torch.nn.Parameter(torch.tensor(block.scaling), requires_grad=False)
    original = type(block).forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        output, weights = original(block, *args, **kwargs)
        return output * (2 if "_quantbench_attend" not in block.__dict__ else 1), weights

    block.forward = doubled
    with pytest.raises(ModelError, match=r"model\.layers\.1: attention as kv_cache computes it changed"):
        find_attention(model, *find_blocks(model))


def test_a_cache_in_use_is_refused() -> None:
    model = tiny_llama()
    install_all(model, cache_of(model))
    with torch.no_grad():
        past = model(input_ids=tokens(1)).past_key_values
        with pytest.raises(ModelError, match=r"attention of 2 queries to 26 keys; whole sequences are wanted"):
            model(input_ids=tokens(1, 2), past_key_values=past)


def test_after_an_error_the_configuration_is_the_models_own() -> None:
    model = tiny_llama()
    install_all(model, cache_of(model))
    module: Any = model.model.layers[1].self_attn
    module.k_proj.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn: NaN, infinity, or a range"):
        logits(model)
    assert module.config is model.config
    assert "_quantbench_attend" not in module.__dict__


def test_biases_on_scores_and_masks_of_heads() -> None:
    draw = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 3, 9, 4, generator=draw) for _ in range(3))
    bias = torch.randn(2, 3, 9, 9, generator=draw)
    allowed = torch.rand(2, 3, 9, 9, generator=draw) < 0.5
    allowed |= torch.eye(9, dtype=torch.bool)
    found = attention(query, key, value, None, 0.5, allowed, bias)
    added = bias.masked_fill(~allowed, -torch.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=0.5)
    torch.testing.assert_close(found, expected)


def test_the_next_block_is_calibrated_on_what_the_quantized_cache_gives() -> None:
    small = "quantizer.weight.group_size=16"
    plain = installed(tiny_llama(), make_recipe("gptq", small)).weights
    cached = installed(tiny_llama(), make_recipe("gptq", small, "+kv_cache@quantizer.kv_cache=kv4_token")).weights
    same = {name: torch.equal(plain[name].codes, cached[name].codes) for name in plain}
    assert all(equal for name, equal in same.items() if ".0." in name)
    assert not any(equal for name, equal in same.items() if ".1." in name)


def test_a_cache_alone_is_a_data_free_recipe_that_is_stored_and_named(tmp_path: Path) -> None:
    recipe = make_recipe("kv4_rotated")
    assert recipe.data_free
    assert not recipe.full_precision
    model = tiny_llama()
    artifact = installed(model, recipe)
    before = logits(model)
    found, spec = artifact.to_tensors()
    stored_tensors.save(tmp_path / "weights.safetensors", found)
    reloaded = Artifact.from_tensors(stored_tensors.load(tmp_path / "weights.safetensors"), spec)
    handle = tiny_handle(tiny_llama())
    reloaded.install(handle)
    assert torch.equal(logits(handle.model), before)
    assert artifact.effective_bits is None
    assert artifact.kv_bits == reloaded.kv_bits == 4 + 32 / 8
    assert artifact.notes == [
        "kv cache: per token 4 bit, groups of head, keys and values rotated, residual 0, applied causally",
    ]


def test_an_artifact_without_tensors_is_stored(tmp_path: Path) -> None:
    found, spec = installed(tiny_llama(), make_recipe("kivi2", *KIVI)).to_tensors()
    assert found == {}
    stored_tensors.save(tmp_path / "weights.safetensors", found)
    assert len(Artifact.from_tensors(stored_tensors.load(tmp_path / "weights.safetensors"), spec).ops) == 2


def test_the_rotation_seed_changes_the_result_and_layers_differ() -> None:
    seeds = []
    for seed in (0, 1):
        ops = cache_of(tiny_llama(), rotate=True, rotation_seed=seed)
        seeds += [op.seed for op in ops]
    assert len({*seeds}) == 4


@pytest.mark.parametrize("mask_heads", [1, 6])
def test_heads_taken_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch, mask_heads: int) -> None:
    draw = torch.Generator().manual_seed(3)
    query = torch.randn(2, 6, 9, 4, generator=draw)
    key, value = torch.randn(2, 3, 9, 4, generator=draw), torch.randn(2, 3, 9, 5, generator=draw)
    mask = torch.randn(2, mask_heads, 9, 9, generator=draw) - 1e9 * torch.ones(9, 9).triu(1)
    cache = KVCache(keys="token", bits=3, group_size="head", residual=2)
    whole = attention_module.attend_by_heads(query, key, value, mask, {}, cache, None)
    monkeypatch.setattr(attention_module, "MOST_SCORES", 2 * 2 * 9 * 9 * 2)
    parts = attention_module.attend_by_heads(query, key, value, mask, {}, cache, None)
    torch.testing.assert_close(parts, whole)
    heads = [
        attention(query[:, [h]], key[:, [h // 2]], value[:, [h // 2]], cache, 0.5, bias=mask[:, [h % mask_heads]])
        for h in range(6)
    ]
    torch.testing.assert_close(whole, torch.cat(heads, 1).transpose(1, 2))


ROTARY_FAMILIES = {"llama", "gpt_neox", "gemma2", "qwen3", "mistral", "gemma3", "phi", "mixtral", "qwen3_moe"}


@pytest.mark.parametrize("family", sorted(ROTARY_FAMILIES))
def test_keys_can_be_stored_before_the_rotary_embedding(family: str) -> None:
    model = FAMILIES[family]()
    before = logits(model)
    found = {}
    for pre_rope in (False, True):
        ops = cache_of(model, bits=3, pre_rope=pre_rope)
        assert {op.rotary for op in ops} == ({"half"} if pre_rope else {None})
        hooks = install_all(model, ops)
        found[pre_rope] = logits(model)
        for hook in hooks:
            hook.remove()
    assert not torch.equal(found[True], found[False])
    # The first token's keys are the same either way, and so is what reads only them.
    torch.testing.assert_close(found[True][:, 1], found[False][:, 1], rtol=1e-3, atol=1e-3)
    fine = install_all(model, cache_of(model, bits=8, pre_rope=True, scale_dtype="float32"))
    assert float((logits(model) - before).norm()) < 0.2 * float((found[True] - before).norm())
    for hook in fine:
        hook.remove()
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("family", ["opt", "gpt2"])
def test_a_model_without_a_rotary_embedding_is_refused(family: str) -> None:
    with pytest.raises(ModelError, match=r"^kv_cache\.pre_rope: .* given no rotary embedding\. Set quantizer"):
        cache_of(FAMILIES[family](), pre_rope=True)


def test_a_format_sinks_and_the_rotary_style_are_stored_with_the_run() -> None:
    recipe = make_recipe(
        "kv8",
        "+format@quantizer.kv_cache.format=nvfp4",
        "quantizer.kv_cache.bits=null",
        "quantizer.kv_cache.group_size=null",
        "quantizer.kv_cache.sinks=2",
        "quantizer.kv_cache.pre_rope=true",
    )
    handle = tiny_handle()
    artifact = quantize_model(handle, recipe, None, CPU, lambda _done, _total: None).artifact
    artifact.install(handle)
    fresh = logits(handle.model)
    again = Artifact.from_tensors(*artifact.to_tensors())
    assert [op.rotary for op in again.ops if isinstance(op, QuantizeKVCache)] == ["half", "half"]
    assert again.kv_bits == 4 + (8 + 32) / 8  # heads of 8 channels, in one group
    again.install(handle)
    assert torch.equal(logits(handle.model), fresh)
    assert not torch.equal(fresh, logits(handle.restore()))
