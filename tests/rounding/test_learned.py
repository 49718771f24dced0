"""Signed-gradient rounding, OmniQuant and distillation, on blocks of tiny models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_block import context_of, error, learned, round_block, snapshot, values
from quantbench.core.build import build
from quantbench.core.errors import ConfigError, ModelError
from quantbench.formats.quantize import quantize
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.context import BlockContext
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding import reconstruct
from recipes import make_recipe, recipe_spec
from tiny import FAMILIES, VOCABULARY, tiny_handle, tiny_llama

SIGN = ("signround", "quantizer.rounding.steps=20")
OMNI = ("omniquant", "quantizer.rounding.steps=24", "quantizer.rounding.lwc_lr=0.1")
LET = ("omniquant_w4a4", "quantizer.rounding.steps=12", "quantizer.activation.bits=6")
LKD = ("zeroquant_lkd", "quantizer.rounding.steps=15", "quantizer.rounding.lr=5e-4")
RECIPES = [SIGN, OMNI, LET, LKD]
SHORT = [
    ("signround", "quantizer.rounding.steps=3"),
    ("omniquant", "quantizer.rounding.steps=4"),
    ("omniquant_w4a4", "quantizer.rounding.steps=4"),
    ("zeroquant_lkd", "quantizer.rounding.steps=3"),
]
TOKENS = torch.randint(0, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Blocks this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nearest(context: BlockContext) -> dict[str, Tensor]:
    return {name: quantize(w, context.formats[name]).dequantize() for name, w in context.weights().items()}


def run(model: Any, recipe: Recipe) -> tuple[Any, Quantized]:
    handle = tiny_handle(model)
    return handle, quantize_model(handle, recipe, TOKENS, torch.device("cpu"), lambda _done, _total: None)


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("opt", "gemma2"))]
)
@pytest.mark.parametrize("name", RECIPES, ids=lambda given: given[0])
def test_the_block_is_reconstructed_better_than_by_rounding_to_nearest(name: tuple[str, ...], family: str) -> None:
    model = FAMILIES[family]()
    if name is LET:  # channels of unequal size are what its scales are for
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1 and key.endswith("weight"):
                parameter[:2] += 10
    recipe = learned(*name)
    context = context_of(model, recipe, index=1)
    before = error(context, nearest(context))
    rounded = round_block(recipe, context)
    assert error(context, values(rounded)) < 0.97 * before
    for name_, one in rounded.items():
        assert set(one.fallbacks) <= {"fewer_steps"}
        stored = one.weight
        assert int(stored.codes.max()) < 8
        assert torch.equal(stored.params.scale, stored.params.scale.half().float())
        packed = stored.format.pack(stored.codes, stored.params)
        codes, params = stored.format.unpack(packed, (stored.codes.shape[0], stored.codes.shape[1]))
        assert torch.equal(codes, stored.codes), name_
        assert torch.equal(params.scale, stored.params.scale)


@pytest.mark.parametrize("name", SHORT, ids=lambda given: given[0])
def test_the_same_seed_gives_the_same_weights_and_nothing_else_changes(name: tuple[str, ...]) -> None:
    results = []
    for _ in range(2):
        model = tiny_llama()
        before = snapshot(model)
        recipe = learned(*name)
        context = context_of(model, recipe)
        held = context.weights()
        copies = {key: w.clone() for key, w in held.items()}
        results.append(values(round_block(recipe, context)))
        assert all(torch.equal(held[key], copies[key]) for key in held)
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        norms = {f"{context.name}.{norm}.weight" for norm in ("input_layernorm", "post_attention_layernorm")}
        read = {f"{key}.weight" for key in held if not key.endswith(("o_proj", "down_proj"))}
        assert changed == (norms | read if name[0] == "omniquant_w4a4" else set())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("name", ["signround", "zeroquant_lkd"])
def test_without_steps_it_is_rounding_to_nearest(name: str) -> None:
    recipe = learned(name, "quantizer.rounding.steps=0")
    context = context_of(tiny_llama(), recipe)
    expected = {n: quantize(w, context.formats[n]) for n, w in context.weights().items()}
    for layer, one in round_block(recipe, context).items():
        assert torch.equal(one.weight.codes, expected[layer].codes)
        assert torch.equal(one.weight.params.scale, expected[layer].params.scale)
        assert one.weight.params.zero is None or torch.equal(one.weight.params.zero, expected[layer].params.zero)  # type: ignore[arg-type]


def test_omniquant_begins_with_a_range_of_98_percent() -> None:
    recipe = learned("omniquant", "quantizer.rounding.steps=0", "quantizer.weight.scale_dtype=float32")
    context = context_of(tiny_llama(), recipe)
    for layer, one in round_block(recipe, context).items():
        whole = context.formats[layer].params(context.weights()[layer])
        torch.testing.assert_close(one.weight.params.scale, whole.scale * 0.98201379)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gemma2", "gpt_neox"])
def test_learned_scales_leave_the_full_precision_function_unchanged(family: str) -> None:
    context = context_of(FAMILIES[family](), learned(*LET))
    original = context.weights()
    plain = BlockContext(**{**vars_of(context), "ops": ()})
    scales = {i: torch.linspace(0.3, 3, context.groups[i].in_features) for i in context.scalable}
    assert scales
    weights = dict(original)
    for index, scale in scales.items():
        for slot in context.groups[index].slots:
            weights[slot.name] = original[slot.name] * scale
    for index, target in enumerate(context.targets):
        torch.testing.assert_close(plain.output(index, weights, scales), target, rtol=1e-4, atol=1e-4)
    absmax = [stats.require("absmax").clone() for stats in context.stats if stats is not None]
    plain.fold(scales)
    for index, target in enumerate(context.targets):
        torch.testing.assert_close(plain.output(index, {}), target, rtol=1e-4, atol=1e-4)
    for index, scale in scales.items():
        stats = plain.stats[index]
        assert stats is not None
        torch.testing.assert_close(stats.require("absmax"), absmax[index] / scale)


def vars_of(context: BlockContext) -> dict[str, Any]:
    names = ("name", "block", "inputs", "calls", "targets", "groups", "stats", "formats", "ops")
    return {name: getattr(context, name) for name in names}


def test_a_fold_that_changes_the_function_is_noticed() -> None:
    context = context_of(tiny_llama(), learned(*LET))
    index = next(iter(context.scalable))
    kept = context.groups[index].slots[0]
    object.__setattr__(kept, "module", torch.nn.Linear(32, 32, bias=False))  # its weight is scaled, the block's not
    with pytest.raises(ModelError, match="learned scales changed the full-precision output"):
        context.fold({index: torch.full((32,), 3.0)})


def test_activations_are_quantized_while_learning_and_gradients_pass_them() -> None:
    context = context_of(tiny_llama(), learned("omniquant_w4a4", "quantizer.activation.bits=2"))
    weights = {name: w.requires_grad_() for name, w in context.weights().items()}
    output = context.output(0, weights)
    assert float((output.detach() - context.targets[0]).norm()) > 0.1 * float(context.targets[0].norm())
    # The first layers are reached only through the rounded inputs of the last ones.
    gradients = torch.autograd.grad(output.square().sum(), list(weights.values()))
    assert all(float(gradient.norm()) > 0 for gradient in gradients)
    assert not any(module._forward_pre_hooks for module in context.block.modules())


@pytest.mark.parametrize("name", SHORT, ids=lambda given: given[0])
def test_a_model_in_bfloat16(name: tuple[str, ...]) -> None:
    handle, quantized = run(tiny_llama().bfloat16(), learned(*name))
    quantized.artifact.install(handle)
    assert handle.model(input_ids=TOKENS).logits.isfinite().all()


@pytest.mark.parametrize("name", SHORT, ids=lambda given: given[0])
def test_what_the_policy_keeps_stays_as_it_is(name: tuple[str, ...]) -> None:
    recipe = learned(*name, "quantizer.policy.keep=[k_proj,down_proj]", "quantizer.policy.keep_first_blocks=1")
    _, quantized = run(tiny_llama(), recipe)
    kinds = {key.rpartition(".")[2] for key in quantized.artifact.weights}
    assert kinds == {"q_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}
    assert all(key.startswith("model.layers.1.") for key in quantized.artifact.weights)
    # A norm that a kept weight reads is not scaled: only the one before the MLP is.
    expected = {"model.layers.1.post_attention_layernorm.weight"} if name[0] == "omniquant_w4a4" else set()
    assert set(quantized.artifact.changed) == expected


@pytest.mark.parametrize("name", SHORT, ids=lambda given: given[0])
def test_what_was_learned_is_what_runs_after_a_reload(name: tuple[str, ...]) -> None:
    handle, quantized = run(FAMILIES["gpt2"](), learned(*name))
    tensors, spec = quantized.artifact.to_tensors()
    quantized.artifact.install(handle)
    fresh = handle.model(input_ids=TOKENS).logits
    Artifact.from_tensors(tensors, spec).install(handle)
    assert torch.equal(handle.model(input_ids=TOKENS).logits, fresh)


def test_rules_may_give_layers_other_formats() -> None:
    spec = recipe_spec(*SIGN)
    spec["weight"]["group_size"] = 16
    rule = {"_target_": "quantbench.pipeline.policy.Rule", "match": "down_proj", "format": spec["weight"] | {"bits": 8}}
    spec["policy"]["rules"] = {"down": rule}
    _, quantized = run(tiny_llama(), build(spec, Recipe, "quantizer"))
    bits = {key.rpartition(".")[2]: w.format.bits for key, w in quantized.artifact.weights.items()}  # type: ignore[attr-defined]
    assert bits["down_proj"] == 8
    assert bits["up_proj"] == 4


@pytest.mark.parametrize("name", ["signround", "omniquant", "omniquant_w4a4", "zeroquant_lkd"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quantizer.true_sequential=true", "true_sequential has no effect on a rounding that takes a whole block"),
        ("quantizer.policy.lm_head=true", "policy.lm_head=true does not go with a rounding that takes a whole block"),
        ("quantizer.policy.outlier_columns=2", "takes a whole block and cannot keep columns"),
        ("+clip@quantizer.clip=awq", "clip has no effect on a rounding that takes a whole block"),
    ],
)
def test_what_works_weight_by_weight_is_refused(name: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(name, override)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("signround", ["quantizer.weight.range=mse"], r"weight: signed-gradient .* set range: minmax"),
        ("omniquant", ["quantizer.weight.range=mse"], r"weight: OmniQuant cannot use it"),
        ("omniquant", ["quantizer.rounding.lwc=false"], "nothing to learn"),
        (
            "omniquant_w4a4",
            ["quantizer.activation.granularity=tensor", "quantizer.activation.dynamic=false"],
            r"let=true changes the range .* activation\.dynamic=true",
        ),
        ("signround", ["quantizer.rounding.steps=-1"], "steps"),
        ("omniquant", ["quantizer.rounding.lwc_lr=0.0"], "lwc_lr"),
    ],
)
def test_recipes_that_cannot_learn_are_refused(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(name, *overrides)


def test_scales_without_a_normalization_to_fold_them_into_are_refused() -> None:
    recipe = learned(*LET, "quantizer.policy.component=mlp", "quantizer.policy.keep=[gate_proj]")
    with pytest.raises(ModelError, match=r"layers\.0: rounding\.let=true found no normalization"):
        run(tiny_llama(), recipe)


@pytest.mark.parametrize("name", SHORT, ids=lambda given: given[0])
def test_a_weight_that_is_not_finite_names_the_layer(name: tuple[str, ...]) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(ModelError, match=r"model\.layers\.1"):
        run(model, learned(*name))


@pytest.mark.parametrize(
    ("name", "published"), [("omniquant", 2560), ("omniquant_w4a4", 2560), ("signround", 200), ("zeroquant_lkd", 100)]
)
@pytest.mark.parametrize("sequences", [4, 2])
def test_the_steps_are_the_authors_whatever_the_number_of_sequences_and_fewer_are_told(
    name: str, published: int, sequences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    gradients = reconstruct._set_gradients

    def counted(*arguments: Any) -> bool:
        taken.append(len(arguments[3]))
        return gradients(*arguments)

    monkeypatch.setattr(reconstruct, "_set_gradients", counted)
    assert recipe_spec(name)["rounding"]["steps"] == published
    for steps in (5, 0):
        taken.clear()
        recipe = learned(name, f"quantizer.rounding.steps={steps}")
        context = context_of(tiny_llama(), recipe)
        few = {key: getattr(context, key)[:sequences] for key in ("inputs", "calls", "targets")}
        rounded = round_block(recipe, BlockContext(**{**vars_of(context), **few}))
        assert len(taken) == steps
        told = [one.fallbacks.get("fewer_steps", 0) for one in rounded.values()]
        assert sum(told) == 1  # once a block


def test_as_many_steps_as_the_authors_take_are_not_told() -> None:
    recipe = learned("zeroquant_lkd", "quantizer.rounding.batch=1", "quantizer.rounding.lr=5e-4")
    rounded = round_block(recipe, context_of(tiny_llama(), recipe))
    assert all("fewer_steps" not in one.fallbacks for one in rounded.values())


@pytest.mark.parametrize("name", ["signround", "omniquant", "zeroquant_lkd"])
def test_it_is_not_data_free(name: str) -> None:
    assert not make_recipe(name).data_free
