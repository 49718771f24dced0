"""Mixtures of experts in 3-D parameters: each expert is a weight of its own, read by the tokens routed to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantbench.cells.summary import bits_of_model
from quantbench.core.component import Part
from quantbench.core.errors import ModelError
from quantbench.models.experts import OwnParameter, eager_experts
from quantbench.models.groups import GroupFinder
from quantbench.models.slots import block_slots, find_slot
from quantbench.models.structure import find_blocks, refuse_unknown_weights
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.block import BlockStep
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.context import BlockContext
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import LayerResult, Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding.nearest import Nearest
from recipes import make_recipe
from tiny import MIXTURES, VOCABULARY, tiny_gpt_oss, tiny_handle, tiny_mixtral, tiny_qwen2_moe, tiny_qwen3_moe

CPU = torch.device("cpu")
PREFIX = "model.layers.1.mlp.experts"


def tokens(n: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


def recipe(name: str, *overrides: str) -> Recipe:
    return make_recipe(name, "quantizer.weight.group_size=16", "quantizer.policy.min_expert_tokens=4", *overrides)


def quantize(handle: Any, chosen: Recipe) -> Quantized:
    data = None if chosen.data_free else tokens()
    return quantize_model(handle, chosen, data, CPU, lambda _done, _total: None)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens()).logits
    return result


def by_name(quantized: Quantized) -> dict[str, LayerResult]:
    return {layer.name: layer for layer in quantized.layers}


@pytest.mark.parametrize("make", MIXTURES.values(), ids=MIXTURES)
def test_each_expert_is_seen_with_the_tokens_routed_to_it(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    prefix, blocks = find_blocks(model)
    inputs: list[tuple[Tensor, Tensor]] = []

    def routing(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        index = next(value for value in args[1:] if not value.is_floating_point())
        inputs.append((args[0].reshape(-1, args[0].shape[-1]), index))

    name, experts = next(item for item in blocks[1].named_modules() if item[0].endswith("experts"))
    assert name == "mlp.experts"
    with eager_experts(model), torch.no_grad():
        captured = capture(model, blocks, tokens())
        with GroupFinder(f"{prefix}.1", blocks[1]) as finder:
            run_block(blocks[1], captured.hidden[0], captured.calls[1][0])
        groups = finder.groups()
        hook = experts.register_forward_pre_hook(routing)
        stats = collect(
            blocks[1], groups, captured.hidden, captured.calls[1], frozenset({"hessian"}), all_expert_tokens=False
        )
        hook.remove()
    assert [g.stage for g in groups if g.routed] == sorted((g.stage for g in groups if g.routed), reverse=True)
    found = {group.slots[0].name: one for group, one in zip(groups, stats, strict=True)}
    x, chosen = (torch.cat(parts) for parts in zip(*inputs, strict=True))
    for expert in range(len(experts.gate_up_proj)):
        mine = x[(chosen == expert).any(dim=1)]
        one = found[f"{prefix}.1.mlp.experts.gate_up_proj.{expert}"]
        assert one.n_tokens == found[f"{prefix}.1.mlp.experts.down_proj.{expert}"].n_tokens == len(mine)
        if len(mine):
            torch.testing.assert_close(one.hessian, 2 / len(mine) * mine.T @ mine, rtol=1e-4, atol=1e-4)


def test_experts_stored_transposed_are_seen_as_out_in() -> None:
    model = tiny_gpt_oss()
    slots = {slot.name: slot for slot in block_slots("b", model.model.layers[0])}
    slot = slots["b.mlp.experts.gate_up_proj.2"]
    assert slot.shape == (96, 32)
    assert torch.equal(slot.get(), model.model.layers[0].mlp.experts.gate_up_proj[2].T)
    slot.set(slot.get() * 2)
    assert slot.shape == slot.get().shape == (96, 32)


def test_setting_experts_copies_their_parameter_once_and_never_writes_into_the_original() -> None:
    handle = tiny_handle(tiny_mixtral())
    experts = handle.model.model.layers[1].mlp.experts
    original, before = experts.gate_up_proj, experts.gate_up_proj.detach().clone()
    slots = [find_slot(dict(handle.model.named_modules()), f"{PREFIX}.gate_up_proj.{e}") for e in (1, 3)]
    read = slots[1].get()
    slots[0].set(torch.zeros(slots[0].shape))
    copied = experts.gate_up_proj
    again = slots[1].get()
    slots[1].set(torch.ones(slots[1].shape))
    assert isinstance(copied, OwnParameter)
    assert experts.gate_up_proj is copied
    assert torch.equal(original, before)
    assert torch.equal(read, before[3])
    assert torch.equal(again, before[3]), "a weight that was read changed when its place was set"
    assert torch.equal(copied[0], before[0])
    assert (float(copied[1].abs().max()), float(copied[3].min())) == (0, 1)
    assert handle.restore().model.layers[1].mlp.experts.gate_up_proj is original


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_the_same_weights_act_whichever_implementation_runs(implementation: str) -> None:
    handle = tiny_handle(tiny_qwen3_moe())
    before = logits(handle.model)
    quantize(handle, recipe("rtn", "quantizer.weight.bits=3")).artifact.install(handle)
    assert handle.model.config._experts_implementation == "grouped_mm", "not restored"
    usual = logits(handle.model)
    handle.model.set_experts_implementation(implementation)
    torch.testing.assert_close(logits(handle.model), usual, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(usual, before, rtol=1e-2)


def test_the_implementation_is_restored_after_a_failure() -> None:
    model = tiny_mixtral()
    seen: list[str] = []

    def fail() -> None:
        with eager_experts(model):
            seen.append(model.config._experts_implementation)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == ["eager"]
    assert model.config._experts_implementation == "grouped_mm"


def test_experts_with_few_or_no_tokens_are_rounded_to_nearest_counted_and_listed() -> None:
    nearest = quantize(tiny_handle(tiny_qwen3_moe()), recipe("rtn", "quantizer.weight.range=mse")).artifact.weights
    handle = tiny_handle(tiny_qwen3_moe())
    quantized = quantize(handle, recipe("gptq", "quantizer.policy.min_expert_tokens=6"))
    layers = by_name(quantized)
    kinds = {
        kind: [n for n, layer in layers.items() if kind in layer.fallbacks] for kind in ("few_tokens", "no_tokens")
    }
    assert kinds["few_tokens"]
    assert kinds["no_tokens"]
    listed = " ".join(note for layer in quantized.layers for note in layer.notes)
    for name in kinds["few_tokens"] + kinds["no_tokens"]:
        assert torch.equal(quantized.artifact.weights[name].codes, nearest[name].codes)
        parameter, _, expert = name.rpartition(".")
        assert f"{parameter}: rounded to nearest" in listed
        assert f"{expert} (" in listed
        assert layers[name].loss is None
    others = [n for n, layer in layers.items() if not {"few_tokens", "no_tokens"} & set(layer.fallbacks)]
    assert any("experts" in name for name in others)
    assert any(not torch.equal(quantized.artifact.weights[n].codes, nearest[n].codes) for n in others if "experts" in n)


@pytest.mark.parametrize("name", ["gptq", "awq", "gptq_awq"])
def test_experts_with_a_single_token_do_not_fail(name: str) -> None:
    quantized = quantize(tiny_handle(tiny_qwen3_moe()), recipe(name, "quantizer.policy.min_expert_tokens=1"))
    assert not any("few_tokens" in layer.fallbacks for layer in quantized.layers)
    assert all(torch.isfinite(weight.dequantize()).all() for weight in quantized.artifact.weights.values())


def test_the_router_and_the_gate_of_a_shared_expert_stay() -> None:
    quantized = quantize(tiny_handle(tiny_qwen2_moe()), recipe("gptq"))
    moe = [name.removeprefix("model.layers.1.mlp.") for name in by_name(quantized) if "layers.1.mlp" in name]
    assert {name.partition(".")[0] for name in moe} == {"experts", "shared_expert"}
    assert not quantized.artifact.changed


def test_experts_that_are_kept_read_their_inputs_as_they_are() -> None:
    kept = quantize(tiny_handle(tiny_mixtral()), make_recipe("smoothquant", "quantizer.policy.keep=[experts]"))
    assert not any("experts" in name for name in kept.artifact.weights)
    assert kept.artifact.ops
    assert not any("experts" in op.module for op in kept.artifact.ops)


def test_experts_count_in_the_bits_of_the_model() -> None:
    handle = tiny_handle(tiny_mixtral())
    artifact = quantize(handle, recipe("rtn", "quantizer.policy.keep=['experts.down_proj.3']")).artifact
    sizes = {name: weight.numel() for name, weight in artifact.weights.items()}
    parameters = sum(p.numel() for p in handle.originals.values())
    quantized = sum(sizes.values())
    assert artifact.effective_bits is not None
    expected = (artifact.effective_bits * quantized + 32 * (parameters - quantized)) / parameters
    assert math.isclose(bits_of_model(handle, artifact), expected, rel_tol=1e-12)
    assert sum("experts" in name for name in sizes) == 2 * (4 + 3)


def test_a_kept_expert_that_was_changed_is_stored_beside_the_quantized_ones() -> None:
    handle = tiny_handle(tiny_mixtral())
    chosen = recipe("rtn", "quantizer.policy.keep=['experts.down_proj.3']")
    artifact = quantize(handle, chosen).artifact
    assert not artifact.changed
    artifact.changed[f"{PREFIX}.down_proj.3"] = torch.full((32, 48), 2.0)
    Artifact.from_tensors(*artifact.to_tensors()).install(handle)
    experts = handle.model.model.layers[1].mlp.experts
    assert torch.equal(experts.down_proj[3], torch.full((32, 48), 2.0))
    assert torch.equal(experts.down_proj[2], artifact.weights[f"{PREFIX}.down_proj.2"].dequantize())


def test_a_transform_of_a_kept_expert_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny_handle(tiny_mixtral())
    quantize_block = BlockStep.quantize

    def doubled(step: BlockStep) -> list[Tensor]:
        slot = next(s for s in block_slots(step.replay.name, step.replay.block) if s.name.endswith("down_proj.3"))
        slot.set(slot.get() * 2)
        return quantize_block(step)

    monkeypatch.setattr(BlockStep, "quantize", doubled)
    artifact = quantize(handle, recipe("gptq", "quantizer.policy.keep=['experts.down_proj.3']")).artifact
    handle.restore()
    original = handle.model.model.layers[1].mlp.experts.down_proj[3]
    assert torch.equal(artifact.changed[f"{PREFIX}.down_proj.3"], original * 2)
    assert len(artifact.changed) == 2


def test_a_learned_rounding_sees_experts_and_leaves_out_those_with_few_tokens() -> None:
    seen: list[BlockContext] = []

    class Learned(Part):
        needs = frozenset({"block"})

        def round_block(self, context: BlockContext) -> dict[str, Any]:
            seen.append(context)
            weights = context.weights()
            torch.testing.assert_close(context.output(0, weights), context.output(0, {}))
            name = next(n for n in weights if "experts" in n)
            leaf = weights[name].clone().requires_grad_()
            context.output(0, {name: leaf}).square().sum().backward()  # type: ignore[no-untyped-call]
            assert leaf.grad is not None
            return {n: Nearest().round(w, None, context.formats[n]) for n, w in weights.items()}

    given = recipe("rtn", "quantizer.policy.min_expert_tokens=8")
    learned: Any = Learned()
    chosen = Recipe(weight=given.weight, rounding=learned, policy=given.policy)
    quantized = quantize(tiny_handle(tiny_qwen3_moe()), chosen)
    scarce = {layer.name for layer in quantized.layers if layer.fallbacks}
    learnt = {name for context in seen for name in context.formats}
    assert scarce
    assert any("experts" in name for name in learnt)
    assert not scarce & learnt
    assert len(scarce) + len(learnt) == len(quantized.layers) == 2 * (4 + 2 * 16)


def test_large_weights_outside_linear_layers_are_refused_and_small_tables_are_not() -> None:
    model = tiny_mixtral()
    _, blocks = find_blocks(model)
    blocks[0].table = nn.Parameter(torch.zeros(3, 4))
    refuse_unknown_weights("p", blocks)
    blocks[0].w1 = nn.Parameter(torch.zeros(64, 32))
    with pytest.raises(ModelError, match=r"p\.0\.w1 has shape \(64, 32\): MixtralDecoderLayer keeps weights"):
        refuse_unknown_weights("p", blocks)


def test_experts_of_an_unknown_layout_are_refused_by_name() -> None:
    model = tiny_mixtral()
    del model.model.layers[0].mlp.experts.is_transposed
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.experts\.gate_up_proj has shape \(4, 96, 32\)"):
        quantize(tiny_handle(model), recipe("rtn"))
