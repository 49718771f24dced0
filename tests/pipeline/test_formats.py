"""Every option of conf/format and conf/activation on a tiny Llama: nearest rounding, GPTQ, stored and reloaded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantbench.config.folders import config_dir
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import VOCABULARY, tiny_handle, tiny_llama

FORMATS = sorted(path.stem for path in (config_dir() / "format").glob("*.yaml"))
ACTIVATIONS = sorted(path.stem for path in (config_dir() / "activation").glob("*.yaml"))


def tokens(n: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_reload(recipe: Recipe) -> tuple[Quantized, float]:
    """Quantize, store, reload; the outputs must be the same bit for bit. Their relative change, too."""
    handle = tiny_handle(tiny_llama())
    before = handle.model(input_ids=tokens(2)).logits
    data = None if recipe.data_free else tokens(4)
    quantized = quantize_model(handle, recipe, data, torch.device("cpu"), lambda _done, _total: None)
    quantized.artifact.install(handle)
    fresh = handle.model(input_ids=tokens(2)).logits
    reloaded = Artifact.from_tensors(*quantized.artifact.to_tensors())
    reloaded.install(handle)
    assert torch.equal(handle.model(input_ids=tokens(2)).logits, fresh)
    assert reloaded.fingerprint() == quantized.artifact.fingerprint()
    for name, weight in reloaded.weights.items():
        assert weight.format == quantized.artifact.weights[name].format
    assert reloaded.ops == quantized.artifact.ops or any(getattr(op, "params", None) for op in reloaded.ops)
    return quantized, float((fresh - before).norm() / before.norm())


@pytest.mark.parametrize("rounding", ["rtn", "gptq"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_replaces_that_of_a_recipe_and_reloads_bit_for_bit(name: str, rounding: str) -> None:
    quantized, change = check_reload(make_recipe(rounding, f"format@quantizer.weight={name}"))
    assert 0 < change < 1
    assert all(not layer.fallbacks for layer in quantized.layers)


@pytest.mark.parametrize("name", ["mxfp4", "nf4", "fp8_block"])
def test_dynamic_groups_in_another_order_reload_bit_for_bit(name: str) -> None:
    dynamic = ("quantizer.rounding.static_groups=false", "quantizer.weight.group_size=16")
    check_reload(make_recipe("gptq", f"format@quantizer.weight={name}", *dynamic))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_format_is_applied_and_reloads_bit_for_bit(name: str) -> None:
    recipe = make_recipe("rtn", "quantizer.weight.bits=8", f"+activation@quantizer.activation={name}")
    quantized, change = check_reload(recipe)
    static = "static" in name
    assert recipe.data_free != static
    ops = quantized.artifact.ops
    assert len(ops) == len(quantized.artifact.weights)
    assert all(isinstance(op, QuantizeInput) and bool(op.params) == static for op in ops)
    assert 0 < change < 1


def test_eight_bits_are_nearer_than_four() -> None:
    names = ("fp8_w8a8", "mxfp8_w8a8", "mxfp4_w4a4", "nvfp4_w4a4")
    change = {name: check_reload(make_recipe(name))[1] for name in names}
    assert max(change["fp8_w8a8"], change["mxfp8_w8a8"]) < min(change["mxfp4_w4a4"], change["nvfp4_w4a4"])
