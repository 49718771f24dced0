"""Where AWQ's scales go in each family, and that the function stays the same wherever they go."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from quantbench.core.component import Part
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.formats.corrections import Outliers
from quantbench.formats.quantize import quantize
from quantbench.models.groups import GroupFinder
from quantbench.models.structure import find_blocks
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.capture import capture
from quantbench.pipeline.fold import LinearProducer
from quantbench.pipeline.input_ops import DivideInput
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.state import WalkState
from quantbench.pipeline.transform import BlockTransforms
from quantbench.rounding.base import Rounded
from quantbench.transforms.awq import AwqScale
from recipes import make_recipe
from rewriting import logits, quantized, relative, tokens, uneven
from tiny import FAMILIES, tiny, tiny_handle, tiny_phi3

ALL: dict[str, Any] = {
    **FAMILIES,
    "phi3": tiny_phi3,
    "llama_all_heads": lambda: tiny(LlamaConfig, LlamaForCausalLM, num_key_value_heads=4),
}

PLACES: dict[str, dict[str, str | None]] = {
    "llama": {"q_proj": "norm", "o_proj": None, "gate_proj": "norm", "down_proj": "up_proj"},
    "llama_all_heads": {"q_proj": "norm", "o_proj": "v_proj", "gate_proj": "norm", "down_proj": "up_proj"},
    "gemma2": {"q_proj": "norm", "o_proj": None, "gate_proj": "norm", "down_proj": "up_proj"},
    "phi3": {"qkv_proj": "norm", "o_proj": "qkv_proj 64", "gate_up_proj": "norm", "down_proj": "gate_up_proj 48"},
    "opt": {"q_proj": "norm", "out_proj": "v_proj", "fc1": "norm", "fc2": "fc1"},
    "gpt2": {"c_attn": "norm", "c_proj": "c_attn 64", "c_fc": "norm", "mlp.c_proj": "activation"},
    "gpt_neox": {
        "query_key_value": "norm",
        "dense": None,
        "dense_h_to_4h": "norm",
        "dense_4h_to_h": "activation",
    },
    "bloom": {"query_key_value": "norm", "dense": None, "dense_h_to_4h": "norm", "dense_4h_to_h": "activation"},
    "falcon": {"query_key_value": "norm", "dense": None, "dense_4h_to_h": "activation"},
    "phi": {"q_proj": "norm", "dense": "v_proj", "fc2": "activation"},
}
"""By the first layer that reads an input: what takes its scale; of fused layers with the first of the rows."""


class Exactly(Part):
    """Keeps every element as an outlier in float32."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def round(self, weight: Tensor, stats: LinearStats | None, format: Format) -> Rounded:
        everything = Outliers.of(weight, torch.ones_like(weight, dtype=torch.bool), "float32")
        return Rounded(dataclasses.replace(quantize(weight, format), corrections=(everything,)))


def awq(*overrides: str) -> Recipe:
    return make_recipe("rtn", "quantizer.weight.group_size=16", "+transform@quantizer.transforms.awq=awq", *overrides)


def exactly_awq() -> Recipe:
    rounding: Any = Exactly()
    return dataclasses.replace(awq(), rounding=rounding)


@torch.no_grad()
def places(model: PreTrainedModel) -> dict[str, str | None]:
    prefix, blocks = find_blocks(model)
    captured = capture(model, blocks, tokens(1))
    replay = BlockReplay(f"{prefix}.0", blocks[0], captured.hidden, captured.calls[0], all_expert_tokens=False)
    with GroupFinder(replay.name, replay.block) as finder:
        replay.first_output()
    groups = finder.groups()
    transforms = BlockTransforms(replay, Rounder(awq(), {}, WalkState()), groups, [None] * len(groups))
    found: dict[str, str | None] = {}
    for index, group in enumerate(groups):
        producer = transforms.producer(index, AwqScale().producers)
        name = group.slots[0].name.removeprefix(f"{replay.name}.")
        short = name if name.rpartition(".")[2] in found else name.rpartition(".")[2]
        found[short] = None if producer is None else producer.kind
        if isinstance(producer, LinearProducer):
            source = producer.slot.name.rpartition(".")[2]
            found[short] = f"{source} {producer.start}" if producer.start else source
    return found


@pytest.mark.parametrize("family", PLACES)
def test_every_input_that_can_be_scaled_exactly_is(family: str) -> None:
    assert places(uneven(ALL[family]())) == PLACES[family]


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "bloom", "falcon", "phi", "opt"])
def test_scales_change_weights_and_not_the_function_also_after_a_reload(family: str) -> None:
    model = uneven(ALL[family]())
    with torch.no_grad():  # inputs of uneven channels, so that scales are far from 1
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" not in name and "ln_" not in name:
                parameter.mul_(torch.linspace(0.2, 6, len(parameter)))
    handle = tiny_handle(model)
    before = logits(handle.model)
    artifact = quantized(handle, exactly_awq())
    after = logits(handle.model)
    assert relative(after, before) < 2e-5
    divided = {op.module.rpartition(".")[2]: op for op in artifact.ops if isinstance(op, DivideInput)}
    expected = {name.rpartition(".")[2] for name, place in PLACES[family].items() if place == "activation"}
    assert set(divided) == expected
    assert all(float(op.scale.max() / op.scale.min()) > 1.05 for op in divided.values())
    assert artifact.shift_bits == sum(op.bits for op in artifact.ops if isinstance(op, DivideInput))
    Artifact.from_tensors(*artifact.to_tensors()).install(handle)
    assert torch.equal(logits(handle.model), after)


def test_what_is_divided_as_the_model_runs_is_what_its_layer_is_calibrated_on() -> None:
    """True-sequential GPTQ collects statistics anew: they must be those of the divided input."""
    options = ("rounding@quantizer.rounding=gptq", "quantizer.weight.bits=8", "quantizer.true_sequential=true")
    handle = tiny_handle(uneven(ALL["phi"]()))
    before = logits(handle.model)
    artifact = quantized(handle, awq(*options))
    assert any(isinstance(op, DivideInput) for op in artifact.ops)
    assert relative(logits(handle.model), before) < 0.05


def test_a_division_comes_before_a_shift_of_the_same_input_and_the_function_stays() -> None:
    rounding: Any = Exactly()
    recipe = make_recipe("os_plus", "+transform@quantizer.transforms.z=awq", "quantizer.transforms.os_plus.shift=true")
    handle = tiny_handle(uneven(ALL["bloom"]()))
    artifact = quantized(handle, dataclasses.replace(recipe, rounding=rounding))  # fails where a block's output changes
    kinds = [type(op).__name__ for op in artifact.ops if op.module.endswith("0.mlp.dense_4h_to_h")]
    assert kinds == ["DivideInput", "ShiftInput", "QuantizeInput"]
