"""The language-model head as one more layer that a recipe quantizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quantbench.core.errors import ConfigError
from quantbench.formats.base import ActivationFormat
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.runtime import QuantizeInput
from recipes import make_recipe
from rewriting import logits, quantized, tokens
from tiny import tiny_handle, tiny_llama, tiny_llama_tied

HEAD = "quantizer.policy.lm_head=true"
GROUPS = "quantizer.weight.group_size=16"


def head_input(model: Any) -> Tensor:
    """What the head multiplies, after everything that is done to it as the model runs."""
    seen: list[Tensor] = []
    handle = model.lm_head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    logits(model)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("make", [tiny_llama, tiny_llama_tied])
@pytest.mark.parametrize(
    "recipe",
    [["w4a4"], ["w8a8"], ["smoothquant"], ["quarot"], ["nvfp4_w4a4"], ["zeroquant", GROUPS]],
    ids=lambda r: r[0],
)
def test_the_input_of_a_quantized_head_is_quantized(recipe: list[str], make: Any) -> None:
    chosen = make_recipe(*recipe, HEAD)
    handle = tiny_handle(make())
    artifact = quantized(handle, chosen)
    (op,) = [op for op in artifact.ops if op.module == "lm_head"]
    assert isinstance(op, QuantizeInput)
    read = head_input(handle.model)
    with torch.no_grad():
        plain = handle.model.model(input_ids=tokens()).last_hidden_state
    activation: Any = chosen.activation
    assert isinstance(activation, ActivationFormat)
    assert torch.equal(read, activation.fake_quantize(plain, *(op.params.get(k) for k in ("scale", "zero"))))
    assert not torch.equal(read, plain)
    fresh = logits(handle.model)
    Artifact.from_tensors(*artifact.to_tensors()).install(handle)
    assert torch.equal(logits(handle.model), fresh)


@pytest.mark.parametrize("name", ["w4a4", "w8a8"])
def test_a_head_that_is_left_alone_reads_what_it_always_read(name: str) -> None:
    assert "lm_head" not in {op.module for op in quantized(tiny_handle(), make_recipe(name)).ops}


def test_a_static_range_is_that_of_the_calibrated_inputs_of_the_head() -> None:
    handle = tiny_handle(tiny_llama())
    artifact = quantized(handle, make_recipe("w8a8", HEAD))
    (op,) = [op for op in artifact.ops if op.module == "lm_head"]
    assert isinstance(op, QuantizeInput)
    with torch.no_grad():
        absmax = float(handle.model.model(input_ids=tokens(4)).last_hidden_state.abs().max())
    assert float(op.params["scale"]) == pytest.approx(absmax / 127, rel=1e-4)


def test_columns_of_the_head_that_are_kept_are_not_quantized_as_inputs() -> None:
    handle = tiny_handle(tiny_llama())
    artifact = quantized(handle, make_recipe("w8a8", HEAD, "quantizer.policy.outlier_columns=2"))
    (op,) = [op for op in artifact.ops if op.module == "lm_head"]
    assert isinstance(op, QuantizeInput)
    assert op.keep is not None
    with torch.no_grad():
        plain = handle.model.model(input_ids=tokens()).last_hidden_state
    assert torch.equal(head_input(handle.model)[..., op.keep.long()], plain[..., op.keep.long()])


def test_a_head_whose_grid_would_depend_on_tokens_it_does_not_see_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.lm_head=true: the grid of OutlierActivation for a token depends"):
        make_recipe("llm_int8", HEAD)
