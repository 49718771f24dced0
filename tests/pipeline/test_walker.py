"""The block walker on small random models of six architectures, with every shipped recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.core.build import build
from quantbench.core.component import Part
from quantbench.core.errors import ConfigError, ModelError
from quantbench.models.groups import GroupFinder
from quantbench.models.slots import block_slots
from quantbench.models.structure import find_blocks
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.capture import START, capture, run_block
from quantbench.pipeline.collect import StatsAccumulator
from quantbench.pipeline.fold import check_unchanged
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding.nearest import Nearest
from recipes import quickened, recipe_spec
from tiny import FAMILIES, VOCABULARY, tiny_handle, tiny_llama, tiny_llama_tied, tiny_mixtral

MODELS = [FAMILIES[name] for name in ("llama", "llama_tied", "opt", "gpt_neox", "gpt2", "gemma2", "qwen3")]
CPU = torch.device("cpu")


def recipe(name: str, **weight: Any) -> Recipe:
    return build(spec_of(name, **weight), Recipe, "quantizer")


def spec_of(name: str, **weight: Any) -> dict[str, Any]:
    spec = quickened(recipe_spec(name))
    if spec["weight"] is not None:
        if spec["weight"]["group_size"] != "channel":
            spec["weight"]["group_size"] = 16
        spec["weight"] |= weight
    if spec["kv_cache"] is not None and spec["kv_cache"]["keys"] == "channel":
        spec["kv_cache"] |= {"group_size": 4, "residual": 8}
    return spec


def tokens(n: int = 4, length: int = 24) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


def quantize(handle: Any, chosen: Recipe) -> Quantized:
    data = None if chosen.data_free else tokens()
    return quantize_model(handle, chosen, data, CPU, lambda _done, _total: None)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens(2)).logits
    return result


@pytest.mark.parametrize("make", MODELS)
def test_a_transform_alone_leaves_the_function_unchanged(make: Any) -> None:
    handle = tiny_handle(make())
    before = logits(handle.model)
    spec = recipe_spec("smoothquant")
    spec |= {"activation": None, "weight": None, "rounding": None}
    quantized = quantize(handle, build(spec, Recipe, "quantizer"))
    assert quantized.artifact.changed
    assert not quantized.artifact.weights
    quantized.artifact.install(handle)
    torch.testing.assert_close(logits(handle.model), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq"])
def test_error_falls_with_bits(name: str) -> None:
    errors = []
    for bits in (8, 4, 3):
        handle = tiny_handle(tiny_llama())
        before = logits(handle.model)
        quantize(handle, recipe(name, bits=bits)).artifact.install(handle)
        errors.append(float((logits(handle.model) - before).norm()))
    assert errors == sorted(errors)


def test_groups_read_one_tensor_and_know_the_norm_that_wrote_it() -> None:
    model = tiny_llama()
    prefix, blocks = find_blocks(model)
    captured = capture(model, blocks, tokens(1))
    with GroupFinder(f"{prefix}.0", blocks[0]) as finder, torch.no_grad():
        run_block(blocks[0], captured.hidden[0], captured.calls[0][0])
    named = [[slot.name.rpartition(".")[2] for slot in group.slots] for group in finder.groups()]
    assert named == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    norms = [group.norm for group in finder.groups()]
    assert norms == [blocks[0].input_layernorm, None, blocks[0].post_attention_layernorm, None]


def test_awq_folds_down_proj_into_up_proj_and_not_into_gate_proj() -> None:
    handle = tiny_handle(tiny_llama())
    spec = recipe_spec("awq")
    spec["weight"]["group_size"] = 16
    spec["clip"] = None
    spec["policy"]["keep"] = ["up_proj", "gate_proj"]
    artifact = quantize(handle, build(spec, Recipe, "quantizer")).artifact
    assert "model.layers.0.mlp.up_proj.weight" in artifact.changed
    assert "model.layers.0.mlp.gate_proj.weight" not in artifact.changed


@pytest.mark.parametrize("width", [4, 192, 200, 401])
def test_hessian_is_twice_the_mean_outer_product(width: int) -> None:
    x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(0))
    accumulator = StatsAccumulator(width, frozenset({"hessian", "absmax", "mean_abs"}))
    for part in x:
        accumulator.add(part)
    stats = accumulator.stats()
    flat = x.reshape(-1, width)
    hessian = stats.require("hessian")
    torch.testing.assert_close(hessian, 2 / 15 * flat.T @ flat)
    assert torch.equal(hessian, hessian.T)
    torch.testing.assert_close(stats.absmax, flat.abs().amax(0))
    torch.testing.assert_close(stats.mean_abs, flat.abs().mean(0))
    assert stats.n_tokens == 15
    assert stats.minimum is None


@pytest.mark.parametrize(("make", "whole"), [(tiny_llama, 2), (tiny_mixtral, 4)])
def test_the_first_tokens_show_how_a_block_is_built_unless_it_has_experts(make: Any, whole: int) -> None:
    """Whole sequences run for statistics and outputs alone; where there are experts, the first one also for a look."""
    handle, n, lengths = tiny_handle(make()), 3, list[int]()
    _, blocks = find_blocks(handle.model)
    blocks[0].register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
    data = tokens(n, START + 16)
    quantize_model(handle, recipe("smoothquant"), data, CPU, lambda _done, _total: None)
    captured = n
    assert lengths.count(START + 16) == captured + 2 * n + (whole - 2)
    assert lengths.count(START) == 1 + (4 - whole)
    assert len(lengths) == captured + 2 * n + 3


def test_lm_head_and_embeddings_are_left_alone_unless_asked() -> None:
    for head, embeddings in ((False, False), (True, False), (False, True), (True, True)):
        handle = tiny_handle(tiny_llama_tied())
        spec = recipe_spec("gptq")
        spec["weight"]["group_size"] = 16
        spec["policy"] |= {"lm_head": head, "embeddings": embeddings}
        artifact = quantize(handle, build(spec, Recipe, "quantizer")).artifact
        assert ("lm_head" in artifact.weights, "model.embed_tokens" in artifact.weights) == (head, embeddings)
        artifact.install(handle)
        modules = dict(handle.model.named_modules())
        tied = modules["lm_head"].weight is modules["model.embed_tokens"].weight
        assert tied == (not head and not embeddings)


@pytest.mark.parametrize("make", [tiny_llama, tiny_mixtral])
@pytest.mark.parametrize("name", ["rtn", "gptq", "w8a8", "kv4"])
def test_a_model_in_float64_is_refused_before_anything_is_cast(name: str, make: Any) -> None:
    handle = tiny_handle(make().double())
    with pytest.raises(
        ModelError, match=r"^\S+ is float64, but weights are quantized from float32: .*model.dtype=float"
    ):
        quantize(handle, recipe(name))


def test_a_group_size_that_does_not_divide_is_noted() -> None:
    quantized = quantize(tiny_handle(tiny_llama()), recipe("rtn", group_size=20))
    assert "last group has 12 of 20 columns" in quantized.layers[0].notes


def test_weights_that_are_not_finite_name_the_layer() -> None:
    handle = tiny_handle(tiny_llama())
    handle.model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj: the weight holds NaN"):
        quantize(handle, recipe("rtn"))


def test_activations_that_are_not_finite_name_the_layer() -> None:
    handle = tiny_handle(tiny_llama())
    handle.model.model.layers[1].input_layernorm.weight.data[:] = 3e38  # finite, but what it gives is not
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn\.q_proj: NaN or infinite activations"):
        quantize(handle, recipe("gptq"))


def test_a_keep_pattern_that_matches_nothing_is_refused() -> None:
    spec = recipe_spec("rtn")
    spec["policy"]["keep"] = ["dwon_proj"]
    with pytest.raises(ConfigError, match=r"quantizer\.policy\.keep: 'dwon_proj' matches no layer"):
        quantize(tiny_handle(tiny_llama()), build(spec, Recipe, "quantizer"))


def test_a_model_without_recognizable_blocks_is_refused() -> None:
    model = tiny_llama()
    model._no_split_modules = ["SomethingElse"]
    with pytest.raises(ModelError, match="no list of decoder blocks found"):
        quantize(tiny_handle(model), recipe("rtn"))


def test_weights_in_parameters_of_an_unknown_form_are_refused() -> None:
    model = tiny_llama()
    model.model.layers[0].mlp.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.experts has shape \(2, 3, 4\): LlamaMLP keeps"):
        quantize(tiny_handle(model), recipe("rtn"))


def test_a_change_of_the_function_is_noticed() -> None:
    with pytest.raises(ModelError, match="changed the full-precision output"):
        check_unchanged(torch.ones(3), torch.tensor([1.0, 1.0, 1.1]), "x")


def test_static_activations_use_the_calibrated_range() -> None:
    spec = recipe_spec("smoothquant")
    spec["activation"] |= {"granularity": "tensor", "dynamic": False}
    handle = tiny_handle(tiny_llama())
    before = logits(handle.model)
    artifact = quantize(handle, build(spec, Recipe, "quantizer")).artifact
    assert all(isinstance(op, QuantizeInput) and set(op.params) == {"scale"} for op in artifact.ops)
    tensors, plain = artifact.to_tensors()
    Artifact.from_tensors(tensors, plain).install(handle)
    assert float((logits(handle.model) - before).norm() / before.norm()) < 0.2


def test_a_transform_that_would_never_be_applied_is_refused() -> None:
    class Idle(Part):
        needs = frozenset()
        producers = frozenset({"norm"})

        def scale(self, weights: Any, stats: Any, formats: Any) -> None: ...

    given = recipe("rtn")
    idle: Any = Idle()
    with pytest.raises(ValueError, match=r"transforms\.idle declares no statistics"):
        Recipe(weight=given.weight, rounding=given.rounding, policy=given.policy, transforms={"idle": idle})


class Watching(Part):
    """Rounds to nearest and keeps the Hessian that each weight was given."""

    needs = frozenset({"hessian"})

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def round(self, weight: Tensor, stats: Any, format: Any) -> Any:
        self.seen.append(stats.require("hessian"))
        return Nearest().round(weight, None, format)


def watched(model: PreTrainedModel, *, true_sequential: bool) -> tuple[dict[str, Tensor], Artifact]:
    """The Hessian each layer was rounded with."""
    watching: Any = Watching()
    chosen = dataclasses.replace(recipe("rtn", bits=3), rounding=watching, true_sequential=true_sequential)
    found = quantize(tiny_handle(model), chosen)
    return dict(zip([layer.name for layer in found.layers], watching.seen, strict=True)), found.artifact


def test_true_sequential_sees_each_group_behind_the_groups_already_quantized() -> None:
    """Queries, keys, values; output; gate, up; down: each is calibrated as if those before it were the model's."""
    together, _ = watched(tiny_llama(), true_sequential=False)
    sequential, artifact = watched(tiny_llama(), true_sequential=True)
    stages = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    model = tiny_llama()
    slots = {slot.name: slot for slot in block_slots("model.layers.0", model.model.layers[0])}
    for stage in stages:
        expected, _ = watched(model, true_sequential=False)
        for name in (n for n in slots if n.rpartition(".")[2] in stage):
            torch.testing.assert_close(sequential[name], expected[name])
            assert torch.equal(sequential[name], together[name]) == (stage is stages[0])
            slots[name].set(artifact.weights[name].dequantize())
