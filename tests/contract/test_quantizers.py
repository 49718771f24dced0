"""One contract for every option of conf/quantizer, on small random models of different architectures.

A recipe either quantizes a model or refuses it with a reason that is listed here; nothing is left out silently.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.core import tensors
from quantbench.core.build import build
from quantbench.core.errors import ConfigError, ModelError, QuantbenchError
from quantbench.core.input_stats import LinearStats
from quantbench.core.mixing import Mixing
from quantbench.formats.base import default_group_index
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.models.experts import eager_experts
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks.loglikelihood import Continuation, loglikelihoods
from recipes import NAMES, recipe_spec, refused, small_spec
from tiny import FAMILIES, VOCABULARY, tiny_handle, tiny_llama, tiny_mixtral

Make = Callable[[], PreTrainedModel]

RECIPES = [name for name in NAMES if name != "none"]
WITH_ACTIVATIONS = [name for name in RECIPES if recipe_spec(name)["activation"] is not None]
MODELS: dict[str, Make] = {n: FAMILIES[n] for n in ("llama", "opt", "gpt_neox", "gpt2", "gemma2", "mixtral")}
REFUSED = {pair: reason for pair, reason in refused().items() if pair[1] in MODELS}
ACCEPTED = [(name, model) for name in RECIPES for model in MODELS if (name, model) not in REFUSED]

EIGHT = {"slim_llm": 7}
"""The most bits of a recipe that does not take eight."""

CPU = torch.device("cpu")


def tokens(n: int = 4, length: int = 24, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))


def quantize(handle: ModelHandle, recipe: Recipe, calibration: Tensor | None = None) -> Quantized:
    data = None if recipe.data_free else tokens() if calibration is None else calibration
    return quantize_model(handle, recipe, data, CPU, lambda _done, _total: None)


@cache
def quantized(name: str, model: str) -> Quantized:
    """The recipe on the model; computed once for all tests."""
    return quantize(tiny_handle(MODELS[model]()), build(small_spec(name), Recipe, "quantizer"))


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens(2, seed=3)).logits
    return result


AGGREGATED = ("llama", "gpt2", "mixtral")
"""Grouped-query attention, transposed weights with biases, experts."""

each = pytest.mark.parametrize(
    ("name", "model"),
    [pytest.param(n, m, marks=() if m in AGGREGATED else pytest.mark.slow) for n, m in ACCEPTED],
)


@pytest.mark.parametrize("model", sorted({model for _, model in REFUSED}))
def test_what_is_refused_says_why(model: str) -> None:
    for name in (name for name, refusing in REFUSED if refusing == model):
        with pytest.raises(QuantbenchError, match=REFUSED[name, model]):
            quantized(name, model)


REPEATED = [(n, m) for n, m in ACCEPTED if m == "llama" or (n, m) == ("gptq_awq", "mixtral")]
"""Every recipe on dense layers, one on experts."""


@pytest.mark.parametrize(("name", "model"), REPEATED)
def test_it_is_deterministic(name: str, model: str) -> None:
    first = quantized(name, model).artifact.fingerprint()
    again = quantize(tiny_handle(MODELS[model]()), build(small_spec(name), Recipe, "quantizer"))
    assert again.artifact.fingerprint() == first


@each
def test_it_reloads_bit_for_bit_and_leaves_the_model_unharmed(name: str, model: str, tmp_path: Path) -> None:
    artifact = quantized(name, model).artifact
    handle = tiny_handle(MODELS[model]())
    original = {key: value.clone() for key, value in handle.model.state_dict().items()}
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
    assert all(torch.equal(value, original[key]) for key, value in handle.model.state_dict().items())


@each
def test_values_are_on_the_grid(name: str, model: str) -> None:
    for weight in quantized(name, model).artifact.weights.values():
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
    for weight in quantized(name, model).artifact.weights.values():
        stored = stored_bits(weight)
        claimed = weight.bits_per_weight() * weight.numel()
        # Streams of codes are filled up to whole bytes; a seed or the bits of groups stand beside the tensors.
        assert claimed == pytest.approx(stored, abs=8 * 8)


def stored_bits(weight: QuantizedWeight) -> int:
    """Bits of all tensors that a file holds of the weight."""
    stored, _ = Artifact(weights={"w": weight}).to_tensors()
    return sum(8 * part.element_size() * part.numel() for part in stored.values())


def bits_of(name: str) -> list[str]:
    spec = recipe_spec(name)
    chosen = spec["policy"]["allocation"] is None and "bits" in (spec["weight"] or {})
    return [name] if chosen else []


SINGLE = [(name, model) for name, model in ACCEPTED if model in {"llama", "mixtral"}]
PROMPT = tokens(1, 20, seed=5)[0].tolist()
ASKED = Continuation((*PROMPT, 7), 8)
LONGER = Continuation((*PROMPT, *range(40, 50)), 20)
BESIDE = [Continuation((*row, 3), 2) for row in tokens(3, 20).tolist()]


@torch.no_grad()
def score_of_one(handle: ModelHandle, mixing: Mixing, *neighbours: Continuation) -> float:
    """The log-likelihood of ASKED, asked together with others."""
    wanted = [*neighbours, ASKED]
    with eager_experts(handle.model):  # the others are not made for float64
        return loglikelihoods(handle.model, wanted, mixing, CPU, lambda _done, _total: None)[-1]


@torch.no_grad()
def score_padded(handle: ModelHandle) -> float:
    """The log-likelihood of ASKED beside a longer sequence, in a batch that is padded behind it, as lm-eval pads."""
    rows = [PROMPT + [1] * 9, (PROMPT + PROMPT)[: len(PROMPT) + 9]]
    with eager_experts(handle.model):
        log_probs = handle.model(input_ids=torch.tensor(rows), use_cache=False).logits[0].log_softmax(1)
    return float(sum(log_probs[i - 1, ASKED.tokens[i]] for i in range(ASKED.start, len(ASKED.tokens))))


@pytest.mark.parametrize(("name", "model"), SINGLE)
def test_the_score_of_a_prompt_does_not_depend_on_its_neighbours(name: str, model: str) -> None:
    """Alone, in a batch, and as the beginning of another one; padded, where its operations allow that.

    In float64: otherwise sums in another order may move an activation to the next level.
    """
    handle = tiny_handle(MODELS[model]().double())
    quantized(name, model).artifact.install(handle)
    expected = score_of_one(handle, handle.mixing)
    for neighbours in (BESIDE, [LONGER], [*BESIDE, LONGER]):
        assert score_of_one(handle, handle.mixing, *neighbours) == pytest.approx(expected, abs=1e-5)
    if handle.mixing < Mixing.SEQUENCE:
        assert score_padded(handle) == pytest.approx(expected, abs=1e-5)


MIXING: dict[str, tuple[str, dict[str, Any], Mixing]] = {
    "outliers": ("llm_int8", {"threshold": 2.3}, Mixing.SEQUENCE),
    "integers of a tensor": ("w8a8", {"granularity": "tensor", "dynamic": True}, Mixing.BATCH),
    "outliers beside integers of a tensor": ("llm_int8", {"inner.granularity": "tensor"}, Mixing.BATCH),
    "floats of a tensor": ("fp8_w8a8", {"format.group_size": "tensor"}, Mixing.BATCH),
}
"""Activations in whose grids other tokens have a part: a recipe, options of its activation, how far they reach."""


@pytest.mark.parametrize("kind", MIXING)
def test_what_mixes_tokens_says_so_and_is_computed_alone(kind: str) -> None:
    name, options, mixing = MIXING[kind]
    spec = small_spec(name)
    for key, value in options.items():
        part, _, option = key.rpartition(".")
        (spec["activation"][part] if part else spec["activation"])[option] = value
    handle = tiny_handle(tiny_llama())
    quantize(handle, build(spec, Recipe, "quantizer")).artifact.install(handle)
    handle.model.double()
    assert handle.mixing is mixing
    expected = score_of_one(handle, mixing)
    assert all(score_of_one(handle, mixing, *neighbours) == expected for neighbours in (BESIDE, [*BESIDE, LONGER]))
    together = [score_of_one(handle, Mixing.NONE, *neighbours) for neighbours in (BESIDE, [LONGER])]
    assert max(abs(score - expected) for score in together) > 1e-4, "it would not have mattered"


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for name in RECIPES for n in bits_of(name)])
def test_more_bits_are_better_in_aggregate(name: str) -> None:
    errors = []
    for bits in (EIGHT.get(name, 8), 3):
        spec = small_spec(name)
        spec["weight"]["bits"] = bits
        if name != "os_plus":  # which has nothing to do without
            spec["activation"] = None
        errors.append(sum(relative_error(spec, MODELS[key]) for key in AGGREGATED if (name, key) not in REFUSED))
    assert errors[0] < errors[1], errors


def relative_error(spec: dict[str, Any], make: Make) -> float:
    handle = tiny_handle(make())
    before = logits(handle.model)
    quantize(handle, build(spec, Recipe, "quantizer")).artifact.install(handle)
    return float((logits(handle.model) - before).norm() / before.norm())


GROUPED = [name for name in RECIPES if type((recipe_spec(name)["weight"] or {}).get("group_size")) is int]
ON_MIXTURES = [name for name, model in ACCEPTED if model == "mixtral"]


@pytest.mark.parametrize("name", RECIPES)
def test_weights_that_are_not_finite_name_the_layer(name: str) -> None:
    recipe = build(small_spec(name), Recipe, "quantizer")
    for bad in (float("nan"), float("-inf")):
        model = tiny_llama()
        model.model.layers[1].mlp.up_proj.weight.data[3, 4] = bad
        with pytest.raises(ModelError, match=r"^model\.layers\.1\.mlp\.up_proj: the weight holds NaN or infinite"):
            quantize(tiny_handle(model), recipe)
    mixture = tiny_mixtral()
    dict(mixture.named_parameters())["model.layers.0.mlp.experts.down_proj"][2, 3, 4] = float("inf")
    if name in ON_MIXTURES:
        with pytest.raises(ModelError, match=r"^model\.layers\.0\.mlp\.experts\.down_proj\.2: the weight holds NaN"):
            quantize(tiny_handle(mixture), recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_activations_that_are_not_finite_name_the_layer_or_stay_visible(name: str) -> None:
    """Without calibration data nobody sees them while quantizing: then no format may make a number of them."""
    model, recipe = tiny_llama(), build(small_spec(name), Recipe, "quantizer")
    model.model.layers[1].input_layernorm.weight.data[:] = 3e38  # finite, but what it gives is not
    handle = tiny_handle(model)
    if recipe.data_free and recipe.rotation is None and recipe.kv_cache is None:
        quantize(handle, recipe).artifact.install(handle)
        assert not torch.isfinite(logits(handle.model)).all()
    else:
        with pytest.raises(ModelError, match=r"layers\.1(\.self_attn\.\w+)?\b.*(NaN|infinit)"):
            quantize(handle, recipe)


@pytest.mark.parametrize("name", ON_MIXTURES)
def test_experts_with_a_single_token_do_no_harm(name: str) -> None:
    spec = small_spec(name)
    spec["policy"]["min_expert_tokens"] = 1
    handle = tiny_handle(tiny_mixtral())
    quantize(handle, build(spec, Recipe, "quantizer"), tokens(1, 2)).artifact.install(handle)
    assert torch.isfinite(logits(handle.model)).all()


@pytest.mark.parametrize("name", GROUPED)
def test_groups_that_do_not_divide_the_width_are_noted(name: str) -> None:
    spec = small_spec(name)
    spec["weight"]["group_size"] = 20
    handle = tiny_handle()
    found = quantize(handle, build(spec, Recipe, "quantizer"))
    found.artifact.install(handle)
    assert torch.isfinite(logits(handle.model)).all()
    notes = {layer.name.rpartition(".")[2]: layer.notes for layer in found.layers}
    assert "last group has 12 of 20 columns" in notes["q_proj"]
    assert "last group has 8 of 20 columns" in notes["down_proj"]


@pytest.mark.parametrize("name", RECIPES)
def test_bits_a_format_does_not_have_are_refused_by_name(name: str) -> None:
    for part in ("weight", "activation", "kv_cache"):
        for bits in (0, 9, 16) if "bits" in (recipe_spec(name)[part] or {}) else ():
            spec = small_spec(name)
            spec[part]["bits"] = bits
            with pytest.raises(ConfigError, match=rf"^quantizer\.{part}\.bits={bits}: input should be"):
                build(spec, Recipe, "quantizer")


NEVER_STATIC = {
    **dict.fromkeys(["fp8_w8a8", "mxfp4_w4a4", "mxfp8_w8a8"], r"dynamic=false needs format\.group_size=tensor"),
    "omniquant_w4a4": r"set activation\.dynamic=true",
}
"""Recipes whose activations have a scale for each token or block, or whose ranges change while they learn."""


DYNAMIC = [name for name in WITH_ACTIVATIONS if "dynamic" in recipe_spec(name)["activation"]]


def static_spec(name: str) -> dict[str, Any]:
    """The recipe with activations whose scales are calibrated."""
    spec = small_spec(name)
    spec["activation"] |= {"dynamic": False} | ({"granularity": "tensor"} if "bits" in spec["activation"] else {})
    return spec


@pytest.mark.parametrize("name", [name for name in DYNAMIC if name not in NEVER_STATIC])
def test_static_activations_need_calibration_data(name: str) -> None:
    recipe = build(static_spec(name), Recipe, "quantizer")
    assert not recipe.data_free
    with pytest.raises(ConfigError, match="reads calibration data"):
        quantize_model(tiny_handle(), recipe, None, CPU, lambda _done, _total: None)


@pytest.mark.parametrize("name", NEVER_STATIC)
def test_activations_that_cannot_be_static_say_what_to_change(name: str) -> None:
    with pytest.raises(ConfigError, match=NEVER_STATIC[name]):
        build(static_spec(name), Recipe, "quantizer")


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


STATISTICS = {field.name for field in dataclasses.fields(LinearStats)} - {"n_tokens"}
OWN_READERS = ("quantbench.core.", "quantbench.pipeline.", __name__)
"""Modules that pass statistics on, whatever a part reads of them; where they read one for a part, they `require` it."""


@pytest.mark.parametrize("name", RECIPES)
def test_the_statistics_declared_are_those_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    require = LinearStats.require

    def noting_require(self: LinearStats, statistic: str) -> Tensor:
        read.add(statistic)
        return require(self, statistic)

    def noting_attribute(self: LinearStats, attribute: str) -> Any:
        reader = sys._getframe(1).f_globals["__name__"]
        if attribute in STATISTICS and not reader.startswith(OWN_READERS):
            read.add(attribute)
        return object.__getattribute__(self, attribute)

    monkeypatch.setattr(LinearStats, "require", noting_require)
    monkeypatch.setattr(LinearStats, "__getattribute__", noting_attribute)
    recipe = build(small_spec(name), Recipe, "quantizer")
    quantize(tiny_handle(), recipe)
    allocation = recipe.policy.allocation
    declared = recipe.first_needs | recipe.rounding_needs | (allocation.needs if allocation else frozenset())
    assert read == declared - {"block"}
