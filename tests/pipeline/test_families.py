"""Recipes on further families, unchanged: what is quantized is installed, stored and evaluated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantbench.models.slots import block_slots, embedding_slot, head_slot
from quantbench.models.structure import find_blocks
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks.logits import SplitModel
from recipes import make_recipe, recipe_spec
from tiny import FAMILIES, MIXTURES, MORE_FAMILIES, VOCABULARY, tiny_handle

RECIPES = ["rtn", "gptq", "gptq_awq", "gptq_smoothquant", "spqr", "rtn_mixed"]
"""One of each kind: what all recipes do is tested on fewer families, in tests/contract."""

LAYERS = {
    "mistral": 7,
    "qwen2": 7,
    "gemma3": 7,
    "bloom": 4,
    "falcon": 4,
    "falcon_two_norms": 4,
    "phi": 6,
}
"""Linear layers in a block."""


def tokens(n: int = 2) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, 24), generator=torch.Generator().manual_seed(1))


def recipe_for(family: str, name: str) -> Recipe:
    """The recipe as shipped but for groups that fit; experts stay where their inputs would have to be quantized."""
    spec = recipe_spec(name)
    grouped = isinstance(spec["weight"].get("group_size"), int)
    overrides = ["quantizer.weight.group_size=16"] if grouped else []
    if spec["policy"]["allocation"] is not None:
        overrides.append("quantizer.policy.allocation.target_bits=5")
    if family in MIXTURES:
        overrides.append("quantizer.policy.min_expert_tokens=8")
        if spec["activation"] is not None:
            overrides.append("quantizer.policy.keep=[experts]")
    return make_recipe(name, *overrides)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "family", [*MORE_FAMILIES, *sorted(MIXTURES.keys() - {"mixtral"})]
)  # that one is in tests/contract
@torch.no_grad()
def test_a_recipe_works_unchanged(family: str, name: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    data = tokens()
    before = handle.model(input_ids=data).logits
    recipe = recipe_for(family, name)
    quantized = quantize_model(handle, recipe, None if recipe.data_free else data, torch.device("cpu"), _silent)
    quantized.artifact.install(handle)
    fresh = handle.model(input_ids=data).logits
    change = float((fresh - before).norm() / before.norm())
    assert 0 < change < 0.5
    split = SplitModel(handle.model)
    torch.testing.assert_close(split.logits(split.hidden(data[:1])), fresh[0], rtol=1e-4, atol=1e-4)
    Artifact.from_tensors(*quantized.artifact.to_tensors()).install(handle)
    assert torch.equal(handle.model(input_ids=data).logits, fresh)
    handle.restore()
    assert torch.equal(handle.model(input_ids=data).logits, before)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_replaying_blocks_with_their_own_arguments_is_the_model(family: str) -> None:
    model = FAMILIES[family]()
    _, blocks = find_blocks(model)
    captured = capture(model, blocks, tokens())
    seen: list[Tensor] = []
    blocks[-1].register_forward_hook(lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out))
    for index, states in enumerate(captured.hidden):
        for block, calls in zip(blocks, captured.calls, strict=True):
            states = run_block(block, states, calls[index])
        seen.clear()
        model(input_ids=tokens()[index][None])
        assert torch.equal(states, seen[0])


@pytest.mark.parametrize("family", LAYERS)
def test_all_linear_layers_of_a_block_are_found(family: str) -> None:
    prefix, blocks = find_blocks(FAMILIES[family]())
    assert len(list(block_slots(f"{prefix}.0", blocks[0]))) == LAYERS[family]


@pytest.mark.parametrize("family", ["qwen2", "bloom", "gemma3"])
def test_a_tied_head_is_quantized_without_the_embeddings(family: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    recipe = make_recipe("gptq", "quantizer.weight.group_size=16", "quantizer.policy.lm_head=true")
    artifact = quantize_model(handle, recipe, tokens(), torch.device("cpu"), _silent).artifact
    assert "lm_head" in artifact.weights
    artifact.install(handle)
    embeddings, head = embedding_slot(handle.model), head_slot(handle.model)
    assert torch.equal(embeddings.stored, handle.originals[embeddings.parameter_name])
    assert not torch.equal(head.stored, embeddings.stored)


def test_activations_of_every_family_can_be_quantized_with_the_spread_moved_into_the_weights() -> None:
    recipe = make_recipe("smoothquant")
    for family in (*MORE_FAMILIES, *MIXTURES):
        handle = tiny_handle(FAMILIES[family]())
        assert quantize_model(handle, recipe, tokens(), torch.device("cpu"), _silent).artifact.ops


def _silent(_done: int, _total: int) -> None: ...
