"""Experts with quantized activations: each slice of a 3-D parameter reads values on its own grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantbench.core.errors import ModelError
from quantbench.core.mixing import Mixing
from quantbench.formats.activation import FormatActivation
from quantbench.formats.int import IntActivation
from quantbench.formats.scaled import ScaledFormat
from quantbench.models.experts import eager_experts, run_all_experts
from quantbench.models.groups import GroupFinder
from quantbench.models.structure import find_blocks
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.expert_ops import QuantizeExpertInputs
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import MIXTURES, VOCABULARY, tiny_deepseek_v3, tiny_handle, tiny_mixtral, tiny_qwen3_moe

CPU = torch.device("cpu")
MODELS = MIXTURES | {"deepseek_v3": tiny_deepseek_v3}
FP8 = FormatActivation(format=ScaledFormat(element="e4m3", group_size="channel"), dynamic=True)
INT4: dict[str, Any] = {"bits": 4, "symmetric": True, "scale_convention": "narrow_range"}
STATIC = IntActivation(**INT4, granularity="tensor", dynamic=False)
EXPERTS = "model.layers.1.mlp.experts"


def tokens(n: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens()).logits
    return result


def quantize(handle: Any, chosen: Recipe) -> Quantized:
    data = None if chosen.data_free else tokens()
    return quantize_model(handle, chosen, data, CPU, lambda _done, _total: None)


def op_on(parameter: str, **options: Any) -> QuantizeExpertInputs:
    return QuantizeExpertInputs(module=EXPERTS, parameter=parameter, **options)


def by_hand(
    experts: nn.Module, x: Tensor, chosen: Tensor, weights: Tensor, change: Callable[[str, int, Tensor], Tensor]
) -> Tensor:
    """What a Mixtral's experts give, each token and expert on its own; `change` is done to what a slice reads."""
    gate_up, down = experts.gate_up_proj, experts.down_proj
    rows = []
    for token, its, shares in zip(x, chosen.tolist(), weights, strict=True):
        total = torch.zeros_like(token)
        for expert, share in zip(its, shares, strict=True):
            gate, up = (change("gate_up_proj", expert, token[None]) @ gate_up[expert].T).chunk(2, dim=-1)  # type: ignore[index]
            total += share * (change("down_proj", expert, nn.functional.silu(gate) * up) @ down[expert].T)[0]  # type: ignore[index]
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_each_expert_reads_values_on_its_own_grid(implementation: str) -> None:
    model = tiny_mixtral()
    model.set_experts_implementation(implementation)
    experts = model.model.layers[1].mlp.experts
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([[0, 1], [2, 3], [1, 2], [0, 3], [1, 0], [3, 2], [2, 0], [3, 1], [0, 2]])
    weights = torch.rand(9, 2, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.1, 0.2, 0.4])
    ops = [
        op_on("gate_up_proj", format=STATIC, experts=torch.tensor([0, 1, 3]), params={"scale": scale}),
        op_on("down_proj", format=FP8, experts=torch.arange(4), keep={"2": torch.tensor([5, 7])}),
    ]

    def change(parameter: str, expert: int, value: Tensor) -> Tensor:
        if parameter == "gate_up_proj":
            return value if expert == 2 else STATIC.fake_quantize(value, scale[{0: 0, 1: 1, 3: 2}[expert]])
        kept = [5, 7] if expert == 2 else []
        found = FP8.fake_quantize(value.index_fill(-1, torch.tensor(kept, dtype=torch.int64), 0))
        found[:, kept] = value[:, kept]
        return found

    before = experts(x, chosen, weights)
    hooks = [op.install(experts) for op in ops]
    found = experts(x, chosen, weights)
    torch.testing.assert_close(found, by_hand(experts, x, chosen, weights, change), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)
    assert experts.config._experts_implementation == implementation
    for hook in hooks:
        hook.remove()
    assert torch.equal(experts(x, chosen, weights), before)


def test_after_an_error_the_experts_run_as_they_did() -> None:
    experts = tiny_mixtral().model.layers[1].mlp.experts
    x, chosen, weights = torch.ones(3, 32), torch.tensor([[0, 1]] * 3), torch.ones(3, 2)
    before = experts(x, chosen, weights)
    hook = op_on("down_proj", format=FP8, experts=torch.arange(4)).install(experts)
    with pytest.raises((RuntimeError, IndexError)):
        experts(x[:, :7], chosen, weights)
    assert experts.config._experts_implementation == "grouped_mm"
    hook.remove()
    assert torch.equal(experts(x, chosen, weights), before)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", ["fp8_w8a8", "nvfp4_w4a4", "mxfp4_w4a4"])
def test_formats_of_activations_reach_the_experts_of_every_family(
    name: str, make: Callable[[], PreTrainedModel]
) -> None:
    model = make()
    handle = tiny_handle(model)
    artifact = quantize(handle, make_recipe(name)).artifact
    ops = [op for op in artifact.ops if isinstance(op, QuantizeExpertInputs)]
    assert {op.parameter for op in ops} == {"gate_up_proj", "down_proj"}
    assert handle.mixing is Mixing.NONE
    artifact.install(handle)
    found = logits(model)
    weights_only = make_recipe(name, "quantizer.activation=null")
    quantize(handle, weights_only).artifact.install(handle)
    assert not torch.equal(found, logits(model))
    assert torch.isfinite(found).all()


def test_tokens_of_a_batch_act_on_each_other_where_an_expert_reads_them_as_one() -> None:
    whole = IntActivation(**INT4, granularity="tensor", dynamic=True)
    assert op_on("down_proj", format=whole, experts=torch.arange(2)).mixing is Mixing.BATCH
    assert op_on("down_proj", format=FP8, experts=torch.arange(2)).mixing is Mixing.NONE


def test_static_scales_are_those_of_each_experts_tokens_and_experts_with_few_share_one() -> None:
    handle = tiny_handle(tiny_qwen3_moe())
    options = ("quantizer.policy.min_expert_tokens=4", "quantizer.rounding=null", "quantizer.weight=null")
    seen: dict[int, list[Tensor]] = {}
    experts = handle.model.model.layers[0].mlp.experts

    def routing(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        for expert in range(16):
            seen.setdefault(expert, []).append(args[0][(args[1] == expert).any(dim=1)])

    hook = experts.register_forward_pre_hook(routing)
    for row in tokens():
        handle.model(input_ids=row[None])
    hook.remove()
    inputs = {expert: torch.cat(parts) for expert, parts in seen.items()}
    recipe = make_recipe("w8a8", *options)
    # Attention is left alone, so that the experts of the first block read what they read in full precision.
    artifact = quantize(handle, make_recipe("w8a8", *options, "quantizer.policy.keep=[attn]")).artifact
    op = next(op for op in artifact.ops if isinstance(op, QuantizeExpertInputs) and op.parameter == "gate_up_proj")
    assert recipe.activation is not None
    everything = torch.cat(list(inputs.values()))
    few = [expert for expert, x in inputs.items() if len(x) < 4]
    assert few
    assert op.common == len(few)
    for row, expert in enumerate(op.experts.tolist()):
        x = everything if expert in few else inputs[expert]
        scale, _ = recipe.activation.static_params(x.amin(0), x.amax(0))
        torch.testing.assert_close(op.params["scale"][row], scale)
    (note,) = [note for note in artifact.notes if "experts" in note]
    assert note.endswith("the range of their inputs is that of all experts beside them")


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_expert_can_be_calibrated_on_all_tokens(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    prefix, blocks = find_blocks(model)
    with eager_experts(model), torch.no_grad():
        captured = capture(model, blocks, tokens())
        with GroupFinder(f"{prefix}.1", blocks[1]) as finder:
            output = run_block(blocks[1], captured.hidden[0], captured.calls[1][0])
        groups = [group for group in finder.groups() if group.routed]
        given = blocks[1], groups, captured.hidden, captured.calls[1], frozenset({"hessian"})
        routed = collect(*given, all_expert_tokens=False)
        everything = collect(*given, all_expert_tokens=True)
        assert torch.equal(run_block(blocks[1], captured.hidden[0], captured.calls[1][0]), output)
    assert {one.n_tokens for one in everything} == {48}
    assert min(one.n_tokens for one in routed) < 48
    first = [one.hessian for group, one in zip(groups, everything, strict=True) if "gate_up" in group.stage]
    assert all(torch.equal(one, first[0]) for one in first if one is not None and first[0] is not None)
    later = [one.hessian for group, one in zip(groups, everything, strict=True) if "down" in group.stage]
    assert not torch.equal(later[0], later[1])  # type: ignore[arg-type]


def test_all_tokens_are_an_option_of_the_policy_and_leave_no_expert_to_nearest_rounding() -> None:
    options = ("quantizer.weight.group_size=16", "quantizer.policy.min_expert_tokens=48")
    routed = quantize(tiny_handle(tiny_qwen3_moe()), make_recipe("gptq", *options))
    assert any(layer.fallbacks for layer in routed.layers)
    handle = tiny_handle(tiny_qwen3_moe())
    found = quantize(handle, make_recipe("gptq", *options, "quantizer.policy.all_expert_tokens=true"))
    assert not any({"few_tokens", "no_tokens"} & set(layer.fallbacks) for layer in found.layers)


def test_experts_that_are_not_called_by_index_and_weight_are_refused() -> None:
    experts = tiny_mixtral().model.layers[0].mlp.experts
    with pytest.raises(ModelError, match=r"^policy\.all_expert_tokens: MixtralExperts is not called with the experts"):
        run_all_experts(experts, (torch.ones(3, 32), torch.ones(3, 2)), {})
