"""Scales of experts' inputs: folded into what wrote them, with the router's; no token is routed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers_math import random
from quantbench.core.component import Part
from quantbench.core.input_stats import LinearStats, together
from quantbench.formats.base import Format
from quantbench.models.experts import router_modules
from quantbench.pipeline.collect import StatsAccumulator
from quantbench.pipeline.expert_transform import NOT_TRANSFORMED
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.transforms.base import Producer
from recipes import make_recipe
from tiny import MIXTURES, VOCABULARY, tiny_deepseek_v3, tiny_gpt_oss, tiny_handle, tiny_mixtral, tiny_qwen2_moe

CPU = torch.device("cpu")
MODELS = MIXTURES | {"deepseek_v3": tiny_deepseek_v3}


def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens()).logits
    return result


def quantize(handle: Any, chosen: Recipe) -> Quantized:
    return quantize_model(handle, chosen, tokens(), CPU, lambda _done, _total: None)


class Rising(Part):
    """Scales the channels of every input it is asked for from a half to two."""

    needs: ClassVar[frozenset[str]] = frozenset({"absmax"})

    def __init__(self, producers: frozenset[Producer]) -> None:
        self.producers = producers

    def scale(self, weights: Sequence[Tensor], stats: LinearStats, format: Format | None) -> Tensor:
        return torch.linspace(0.5, 2, weights[0].shape[1])


def alone(*producers: Producer) -> Recipe:
    """A recipe that only scales."""
    transform: Any = Rising(frozenset(producers))
    policy = make_recipe("rtn", "quantizer.policy.min_expert_tokens=1").policy
    return Recipe(weight=None, rounding=None, transforms={"rising": transform}, policy=policy)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_scale_before_experts_changes_no_routing_and_no_output(make: Callable[[], PreTrainedModel]) -> None:
    handle = tiny_handle(make())
    block = handle.model.model.layers[1]
    routed: list[Tensor] = []

    def note(_module: Any, _args: Any, output: Any) -> None:
        routed.append(output[0] if isinstance(output, tuple) else output)

    hooks = [router.register_forward_hook(note) for router in router_modules(block)]
    before, norm = logits(handle.model), block.post_attention_layernorm.weight.clone()
    first = dict(block.mlp.experts.named_parameters())["gate_up_proj"][0].clone()
    artifact = quantize(handle, alone("norm")).artifact
    artifact.install(handle)
    assert "model.layers.1.post_attention_layernorm.weight" in artifact.changed
    ratio = norm / block.post_attention_layernorm.weight
    assert torch.equal(ratio.log2(), ratio.log2().round())
    assert set(ratio.tolist()) == {0.5, 1.0, 2.0}
    after = dict(block.mlp.experts.named_parameters())["gate_up_proj"][0]
    columns = ratio[:, None] if block.mlp.experts.is_transposed else ratio
    assert torch.equal(after, first * columns)
    torch.testing.assert_close(logits(handle.model), before, rtol=1e-3, atol=1e-3)
    seen, half = routed[:], len(hooks)
    assert all(a.shape == b.shape for a, b in zip(seen[:half], seen[-half:], strict=True))
    for one, other in zip(seen[:half], seen[-half:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_router_sums_the_same_products_bit_for_bit() -> None:
    handle = tiny_handle(tiny_mixtral())
    block = handle.model.model.layers[0]
    x = random(5, 32, seed=3)
    (router,) = router_modules(block)
    norm = block.post_attention_layernorm
    before = router(norm(x))[0]
    # Attention is left alone: its rows would be rounded.
    policy = make_recipe("rtn", "quantizer.policy.component=mlp").policy
    transform: Any = Rising(frozenset({"norm"}))
    recipe = Recipe(weight=None, rounding=None, transforms={"rising": transform}, policy=policy)
    quantize(handle, recipe).artifact.install(handle)
    assert not torch.equal(norm.weight, torch.ones(32))
    assert torch.equal(router(norm(x))[0], before)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"])
def test_a_scale_between_an_experts_weights_is_folded_into_its_own_rows(name: str) -> None:
    handle = tiny_handle(MODELS[name]())
    experts = handle.model.model.layers[1].mlp.experts
    before = logits(handle.model)
    gate_up, down = experts.gate_up_proj.clone(), experts.down_proj.clone()
    width = down.shape[2]
    scale = torch.linspace(0.5, 2, width)
    quantize(handle, alone("linear")).artifact.install(handle)
    torch.testing.assert_close(logits(handle.model), before, rtol=1e-3, atol=1e-3)
    scaled = [e for e in range(len(down)) if not torch.equal(experts.down_proj[e], down[e])]
    assert scaled  # an expert without a single token is left as it is
    for expert in scaled:
        torch.testing.assert_close(experts.down_proj[expert], down[expert] * scale)
        assert torch.equal(experts.gate_up_proj[expert, :width], gate_up[expert, :width])
        torch.testing.assert_close(experts.gate_up_proj[expert, width:], gate_up[expert, width:] / scale[:, None])


def test_experts_that_nothing_can_be_folded_into_say_so() -> None:
    """GPT-OSS's experts add one to their up, clamp it, and have biases."""
    chosen = make_recipe("awq", "quantizer.weight.group_size=16", "quantizer.policy.min_expert_tokens=4")
    notes = {layer.name: layer.notes for layer in quantize(tiny_handle(tiny_gpt_oss()), chosen).layers}
    assert NOT_TRANSFORMED in notes["model.layers.1.mlp.experts.down_proj.0"]
    assert NOT_TRANSFORMED not in notes["model.layers.1.mlp.experts.gate_up_proj.0"]
    notes = {layer.name: layer.notes for layer in quantize(tiny_handle(tiny_qwen2_moe()), chosen).layers}
    assert not any(NOT_TRANSFORMED in several for several in notes.values())


def test_statistics_of_several_parts_are_those_of_all_their_inputs() -> None:
    needs = frozenset({"hessian", "absmax", "mean_abs", "minimum", "maximum"})
    x = random(30, 4, seed=0)

    def stats(part: Tensor) -> LinearStats:
        accumulator = StatsAccumulator(4, needs)
        accumulator.add(part)
        return accumulator.stats()

    found, expected = together([stats(x[:7]), stats(x[7:19]), stats(x[19:])]), stats(x)
    assert found.n_tokens == 30
    for name in needs:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
