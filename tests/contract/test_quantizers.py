"""One contract for every option of conf/quantizer, on small random models of different architectures.

A recipe either quantizes a model or refuses it with a reason that is listed here; nothing is left out silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.config.build import build
from quantbench.errors import ModelError, QuantbenchError
from quantbench.formats.base import QuantizedWeight, default_group_index
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.stats import LinearStats
from quantbench.pipeline.walker import Quantized, quantize_model
from quantbench.results import tensors
from recipes import NAMES, recipe_spec
from tiny import (
    VOCABULARY,
    tiny_gemma2,
    tiny_gpt2,
    tiny_gpt_neox,
    tiny_handle,
    tiny_llama,
    tiny_mixtral,
    tiny_opt,
)

Make = Callable[[], PreTrainedModel]

RECIPES = [name for name in NAMES if name != "none"]
MODELS: dict[str, Make] = {
    "llama": tiny_llama,
    "opt": tiny_opt,
    "gpt_neox": tiny_gpt_neox,
    "gpt2": tiny_gpt2,
    "gemma2": tiny_gemma2,
    "mixtral": tiny_mixtral,
}
SMALL = {
    "group_size": 16,
    "iterations": 2,
    "epochs": 1,
    "steps": 2,
    "residual": 16,
    "min_expert_tokens": 4,
    "tau_steps": 4,
}
"""Largest values of options that would make a tiny model slow, or that it is too small for."""

ROTATING = ("quarot", "quarot_rtn")
WITH_ACTIVATIONS = [name for name in RECIPES if recipe_spec(name)["activation"] is not None]
REFUSED: dict[tuple[str, str], str] = {
    **{(name, "mixtral"): "whose inputs cannot be quantized" for name in WITH_ACTIVATIONS},
    **{(name, model): "rotation.residual" for name in ROTATING for model in ("opt", "gpt_neox", "gpt2", "gemma2")},
}
"""(recipe, model): what the refusal says. Any other refusal is a failure."""

EIGHT = {"slim_llm": 7}
"""The most bits of a recipe that does not take eight."""

CPU = torch.device("cpu")


def small_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = shrunk(recipe_spec(name))
    return spec


def shrunk(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: min(v, SMALL[k]) if k in SMALL and type(v) is int else shrunk(v) for k, v in value.items()}
    return [shrunk(v) for v in value] if isinstance(value, list) else value


def tokens(n: int = 4, length: int = 24, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))


def quantize(handle: ModelHandle, recipe: Recipe) -> Quantized:
    data = None if recipe.data_free else tokens()
    return quantize_model(handle, recipe, data, CPU, lambda _done, _total: None)


@cache
def quantized(name: str, model: str) -> Quantized | QuantbenchError:
    """The recipe on the model; computed once for all tests."""
    try:
        return quantize(tiny_handle(MODELS[model]()), build(small_spec(name), Recipe, "quantizer"))
    except QuantbenchError as error:
        return error


def done(name: str, model: str) -> Quantized:
    found = quantized(name, model)
    if isinstance(found, QuantbenchError):
        if (name, model) not in REFUSED:
            raise found
        pytest.skip(f"refused, as it should be: {found}")
    return found


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens(2, seed=3)).logits
    return result


each = pytest.mark.parametrize(("name", "model"), [(n, m) for n in RECIPES for m in MODELS])


@each
def test_what_is_refused_says_why(name: str, model: str) -> None:
    found = quantized(name, model)
    if (name, model) in REFUSED:
        assert isinstance(found, QuantbenchError)
        assert re.search(REFUSED[name, model], str(found))
    else:
        assert isinstance(found, Quantized)


@each
def test_it_is_deterministic(name: str, model: str) -> None:
    first = done(name, model).artifact.fingerprint()
    assert (
        quantize(tiny_handle(MODELS[model]()), build(small_spec(name), Recipe, "quantizer")).artifact.fingerprint()
        == first
    )


@each
def test_it_reloads_bit_for_bit_and_leaves_the_model_unharmed(name: str, model: str, tmp_path: Path) -> None:
    artifact = done(name, model).artifact
    handle = tiny_handle(MODELS[model]())
    before = logits(handle.model)
    artifact.install(handle)
    fresh = logits(handle.model)
    assert not torch.equal(fresh, before)
    stored, spec = artifact.to_tensors()
    tensors.save(tmp_path / "weights.safetensors", stored)
    Artifact.from_tensors(tensors.load(tmp_path / "weights.safetensors"), spec).install(handle)
    assert torch.equal(logits(handle.model), fresh)
    handle.restore()
    assert torch.equal(logits(handle.model), before)
    original = MODELS[model]().state_dict()
    assert all(torch.equal(value, original[key]) for key, value in handle.model.state_dict().items())


@each
def test_values_are_on_the_grid(name: str, model: str) -> None:
    for weight in done(name, model).artifact.weights.values():
        values = weight.on_grid()
        assert torch.isfinite(weight.dequantize()).all()
        width = weight.codes.shape[1]
        index = weight.group_index
        if index is None:
            index = default_group_index(width, weight.format.columns_per_group(width))
        params = weight.params.columns(index.long())
        # Codes of equal values (plus and minus zero) may differ: the values are compared.
        again = weight.format.decode(weight.format.encode(values, params), params)
        torch.testing.assert_close(again, values, rtol=1e-6, atol=1e-7)


@each
def test_effective_bits_are_what_is_stored(name: str, model: str) -> None:
    for weight in done(name, model).artifact.weights.values():
        stored = stored_bits(weight)
        claimed = weight.bits_per_weight() * weight.numel()
        # Streams of codes are filled up to whole bytes.
        assert claimed == pytest.approx(stored, abs=8 * 8)


def stored_bits(weight: QuantizedWeight) -> int:
    parts = list(weight.format.pack(weight.codes, weight.params).values())
    index = 0 if weight.group_index is None else 32 * weight.group_index.numel()
    corrections = sum(correction.bits() for correction in weight.corrections)
    return index + corrections + sum(8 * part.element_size() * part.numel() for part in parts)


def bits_of(name: str) -> list[str]:
    spec = recipe_spec(name)
    chosen = spec["policy"]["allocation"] is None and "bits" in (spec["weight"] or {})
    return [name] if chosen else []


@pytest.mark.parametrize("name", [n for name in RECIPES for n in bits_of(name)])
def test_more_bits_are_better_in_aggregate(name: str) -> None:
    errors = []
    for bits in (EIGHT.get(name, 8), 4, 3):
        spec = small_spec(name)
        spec["weight"]["bits"] = bits
        if name != "os_plus":  # which has nothing to do without
            spec["activation"] = None
        errors.append(sum(relative_error(spec, make) for key, make in MODELS.items() if (name, key) not in REFUSED))
    assert errors[0] <= errors[1] <= errors[2], errors


def relative_error(spec: dict[str, Any], make: Make) -> float:
    handle = tiny_handle(make())
    before = logits(handle.model)
    quantize(handle, build(spec, Recipe, "quantizer")).artifact.install(handle)
    return float((logits(handle.model) - before).norm() / before.norm())


@pytest.mark.parametrize("name", RECIPES)
def test_weights_that_are_not_finite_name_the_layer(name: str) -> None:
    if recipe_spec(name)["weight"] is None:
        pytest.skip("leaves the weights alone")
    model = tiny_llama()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(ModelError, match=r"layers\.1.*"):
        quantize(tiny_handle(model), build(small_spec(name), Recipe, "quantizer"))


@pytest.mark.parametrize("name", RECIPES)
def test_dead_inputs_and_constant_rows_do_no_harm(name: str) -> None:
    model = tiny_llama()
    layer = model.model.layers[0]
    layer.input_layernorm.weight.data[5] = 0.0
    layer.mlp.up_proj.weight.data[7] = 0.25
    layer.self_attn.q_proj.weight.data[2] = 0.0
    handle = tiny_handle(model)
    quantize(handle, build(small_spec(name), Recipe, "quantizer")).artifact.install(handle)
    assert torch.isfinite(logits(handle.model)).all()


@pytest.mark.parametrize("name", RECIPES)
def test_the_statistics_declared_are_those_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    require = LinearStats.require

    def noting(self: LinearStats, statistic: str) -> Tensor:
        read.add(statistic)
        return require(self, statistic)

    monkeypatch.setattr(LinearStats, "require", noting)
    recipe = build(small_spec(name), Recipe, "quantizer")
    quantize(tiny_handle(), recipe)
    allocation = recipe.policy.allocation
    declared = recipe.first_needs | recipe.rounding_needs | (allocation.needs if allocation else frozenset())
    assert read == declared - {"block"}
