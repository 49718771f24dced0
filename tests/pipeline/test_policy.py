"""The layer policy: which layers are quantized, in which format, and what of them is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quantbench.core.build import build
from quantbench.core.component import Part
from quantbench.core.errors import ConfigError, ModelError
from quantbench.formats.corrections import KeptColumns
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.policy import Policy, Rule
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe, recipe_spec
from tiny import FAMILIES, VOCABULARY, tiny_handle, tiny_mixtral

CPU = torch.device("cpu")
ATTENTION, MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
BLOCKS = [
    [f"model.layers.{i}.{name}" for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")] for i in range(4)
]


def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))


def recipe(name: str, *overrides: str) -> Recipe:
    return make_recipe(name, "quantizer.weight.group_size=16", *overrides)


def run(chosen: Recipe, handle: Any = None) -> Quantized:
    data = None if chosen.data_free else tokens()
    return quantize_model(handle or tiny_handle(), chosen, data, CPU, lambda _done, _total: None)


def formats(bits: int) -> Any:
    return recipe("rtn", f"quantizer.weight.bits={bits}").weight


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=tokens()).logits
    return result


# Which layers


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(), {f"{i}.{n}" for i in range(4) for n in ("q_proj", "up_proj", "down_proj")}),
        (Policy(component="attention"), {f"{i}.q_proj" for i in range(4)}),
        (Policy(component="mlp"), {f"{i}.{n}" for i in range(4) for n in ("up_proj", "down_proj")}),
        (Policy(component="mlp", keep=("up_proj",)), {f"{i}.down_proj" for i in range(4)}),
        (Policy(component="attention", keep_first_blocks=1, keep_last_blocks=2), {"1.q_proj"}),
        (Policy(component="attention", keep_last_blocks=3), {"0.q_proj"}),
        (Policy(keep=(r"layers\.[0-2]\.", "mlp")), {"3.q_proj"}),
    ],
)
def test_a_policy_leaves_these_layers_to_quantize(policy: Policy, left: set[str]) -> None:
    planned = policy.plan(BLOCKS, formats(4))
    assert {f"{name.split('.')[2]}.{name.rpartition('.')[2]}" for name in planned} == left
    assert set(planned.values()) == {formats(4)}


def test_the_first_rule_that_matches_decides_and_keep_goes_before_all() -> None:
    rules = {
        "last": Rule(match=r"layers\.3\.", format=formats(8)),
        "down": Rule(match="down_proj", format=formats(3)),
        "none": Rule(match=r"layers\.[03]\.mlp\.up", format=None),
    }
    planned = Policy(rules=rules, keep=("q_proj",)).plan(BLOCKS, formats(4))
    bits = {name.removeprefix("model.layers."): getattr(given, "bits", None) for name, given in planned.items()}
    assert bits == {
        "0.mlp.down_proj": 3,
        "1.mlp.up_proj": 4,
        "1.mlp.down_proj": 3,
        "2.mlp.up_proj": 4,
        "2.mlp.down_proj": 3,
        "3.mlp.up_proj": 8,
        "3.mlp.down_proj": 8,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_are_told_apart_in_every_family(family: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    parts = [set(run(recipe("rtn", f"quantizer.policy.component={part}"), handle).artifact.weights) for part in PARTS]
    every = set(run(recipe("rtn"), handle).artifact.weights)
    assert all(parts)
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == every
    assert not any(word in name for name in parts[0] for word in ("mlp", "fc1", "fc2", "4h", "experts"))


PARTS = ("attention", "mlp")


@pytest.mark.parametrize(("part", "names"), [("attention", ATTENTION), ("mlp", MLP)])
@pytest.mark.parametrize("name", ["gptq", "awq", "gptq_awq"])
def test_only_one_component_is_quantized_and_the_other_stays_exact(name: str, part: str, names: list[str]) -> None:
    """Bit for bit: its weights, and what it computes of one input, in the model that the stored artifact gives."""
    handle = tiny_handle()
    weights, outputs = of_components(handle.model)
    artifact = run(recipe(name, f"quantizer.policy.component={part}"), handle).artifact
    Artifact.from_tensors(*artifact.to_tensors()).install(handle)
    weights_after, outputs_after = of_components(handle.model)
    assert {key.rpartition(".")[2] for key in artifact.weights} == set(names)
    for key in weights:
        assert torch.equal(weights_after[key], weights[key]) == (key.rpartition(".")[2] not in names), key
    for component, block in outputs:
        same = torch.equal(outputs_after[component, block], outputs[component, block])
        assert same == (component != part), (component, block)


@torch.no_grad()
def of_components(model: Any) -> tuple[dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    """The weights of all linear layers, by name, and what each block's attention and MLP make of one input."""
    weights = {key: m.weight.clone() for key, m in model.model.layers.named_modules() if isinstance(m, torch.nn.Linear)}
    states = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(2))
    rotary = model.model.rotary_emb(states, torch.arange(12)[None])
    outputs = {("mlp", i): block.mlp(states) for i, block in enumerate(model.model.layers)}
    for i, block in enumerate(model.model.layers):
        outputs["attention", i] = block.self_attn(states, position_embeddings=rotary, attention_mask=None)[0]
    return weights, outputs


def test_activations_of_kept_layers_are_not_quantized() -> None:
    artifact = run(make_recipe("smoothquant", "quantizer.policy.component=mlp")).artifact
    assert {op.module.rpartition(".")[2] for op in artifact.ops} == set(MLP)


def test_kept_blocks_keep_every_parameter() -> None:
    artifact = run(make_recipe("smoothquant", "quantizer.policy.keep_first_blocks=1")).artifact
    assert all(name.startswith("model.layers.1.") for name in [*artifact.weights, *artifact.changed])


def test_rules_of_a_recipe_give_layers_their_formats() -> None:
    spec = recipe_spec("gptq", "quantizer.weight.group_size=16")
    target = "quantbench.pipeline.policy.Rule"
    spec["policy"]["rules"] = {
        "o": {"_target_": target, "match": "o_proj", "format": None},
        "down": {
            "_target_": target,
            "match": "down_proj",
            "format": spec["weight"] | {"bits": 8, "group_size": "channel"},
        },
    }
    quantized = run(build(spec, Recipe, "quantizer"))
    bits = {layer.name.split(".", 2)[2]: layer.bits_per_weight for layer in quantized.layers}
    assert not any("o_proj" in name for name in bits)
    assert bits["0.mlp.down_proj"] == 8 + 24 / 48
    assert bits["0.mlp.up_proj"] == 4 + 20 / 16


# Columns kept in 16 bits


@pytest.mark.parametrize("name", ["rtn", "gptq"])
def test_the_columns_with_the_largest_activations_are_kept_exactly(name: str) -> None:
    handle = tiny_handle()
    loud = [3, 17]
    handle.model.model.layers[1].post_attention_layernorm.weight.data[loud] = 40.0
    quantized = run(recipe(name, "quantizer.policy.outlier_columns=2"), handle)
    weight = quantized.artifact.weights["model.layers.1.mlp.up_proj"]
    (kept,) = weight.corrections
    assert isinstance(kept, KeptColumns)
    assert kept.index.tolist() == loud
    original = handle.restore().model.layers[1].mlp.up_proj.weight
    assert torch.equal(weight.dequantize()[:, loud], original[:, loud].half().float())
    assert weight.codes.shape == (48, 30)
    assert weight.numel() == 48 * 32
    stored = 4 * 48 * 30 + 20 * 48 * 2 + 16 * 48 * 2 + 32 * 2
    assert weight.bits_per_weight() == pytest.approx(stored / (48 * 32))


@pytest.mark.parametrize("name", ["gptq", "smoothquant", "gptq_smoothquant"])
def test_kept_columns_are_stored_and_used_again(name: str) -> None:
    handle = tiny_handle()
    before = logits(handle.model)
    options = ["quantizer.policy.outlier_columns=3"]
    artifact = run(recipe(name, *options) if name == "gptq" else make_recipe(name, *options), handle).artifact
    artifact.install(handle)
    fresh = logits(handle.model)
    tensors, spec = artifact.to_tensors()
    again = Artifact.from_tensors(tensors, spec)
    again.install(handle)
    assert torch.equal(logits(handle.model), fresh)
    assert again.fingerprint() == artifact.fingerprint()
    assert not torch.equal(fresh, before)
    assert again.effective_bits == artifact.effective_bits
    if name != "gptq":
        ops = [op for op in again.ops if isinstance(op, QuantizeInput)]
        for op in ops:
            (columns,) = again.weights[op.module].corrections
            assert isinstance(columns, KeptColumns)
            assert op.keep is not None
            assert torch.equal(op.keep, columns.index), "the columns whose inputs stay are those whose weights stay"


def test_kept_input_channels_pass_unchanged_and_do_not_widen_the_range_of_the_others() -> None:
    artifact = run(make_recipe("smoothquant", "quantizer.policy.outlier_columns=1")).artifact
    op = next(op for op in artifact.ops if isinstance(op, QuantizeInput))
    assert op.keep is not None
    (column,) = op.keep.tolist()
    layer = torch.nn.Linear(32, 32, bias=False)
    layer.weight = torch.nn.Parameter(torch.eye(32), requires_grad=False)
    x = torch.linspace(-1, 1, 32).repeat(2, 1)
    x[:, column] = 1000.5
    removable = op.install(layer)
    out = layer(x)
    removable.remove()
    assert out[0, column] == 1000.5
    others = [i for i in range(32) if i != column]
    assert float((out - x)[:, others].abs().max()) <= 0.5 / 127 + 1e-6


def test_keeping_more_columns_makes_the_model_better() -> None:
    errors = []
    for count in (0, 8, 24):
        handle = tiny_handle()
        before = logits(handle.model)
        options = ["quantizer.weight.bits=2", f"quantizer.policy.outlier_columns={count}"]
        run(recipe("gptq", *options), handle).artifact.install(handle)
        errors.append(float((logits(handle.model) - before).norm()))
    assert errors == sorted(errors, reverse=True)


def test_columns_of_experts_are_kept_by_the_tokens_routed_to_them() -> None:
    options = ["quantizer.policy.outlier_columns=2", "quantizer.policy.min_expert_tokens=4"]
    quantized = run(recipe("gptq", *options), tiny_handle(tiny_mixtral()))
    kept = {
        tuple(weight.corrections[0].index.tolist())  # type: ignore[attr-defined]
        for name, weight in quantized.artifact.weights.items()
        if "layers.1.mlp.experts.gate_up_proj" in name
    }
    assert len(kept) > 1


# Bad input


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(keep=("dwon",)), r"quantizer\.policy\.keep: 'dwon' matches no layer, for example not 'model"),
        (Policy(rules={"a": Rule(match="x_proj", format=None)}), r"rules\.a\.match: 'x_proj' matches no layer"),
        (Policy(keep=("proj",)), "no layer is left to quantize"),
        (Policy(keep_first_blocks=2, keep_last_blocks=2), "no layer is left to quantize"),
        (Policy(keep_first_blocks=9), "no layer is left to quantize"),
        (Policy(rules={"all": Rule(match="", format=None)}), "no layer is left to quantize"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(policy: Policy, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy.plan(BLOCKS, formats(4))


def test_layers_that_are_not_clipped_need_not_be_there() -> None:
    """Patterns of the recipes name projections that not every model has."""
    assert Policy(no_clip=("x_proj",)).plan(BLOCKS, formats(4)) == Policy().plan(BLOCKS, formats(4))


def test_a_component_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"component=attention: no layer of this model is known as such"):
        Policy(component="attention").plan([["model.layers.0.mixer.in_proj"]], formats(4))


@pytest.mark.parametrize("key", ["keep", "no_clip"])
def test_what_is_no_regular_expression_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: '\(' is not a regular expression"):
        make_recipe("rtn", f"quantizer.policy.{key}=['(']")


@pytest.mark.parametrize("count", [32, 1000])
def test_keeping_all_columns_is_refused(count: int) -> None:
    with pytest.raises(
        ModelError, match=rf"q_proj: quantizer\.policy\.outlier_columns={count} would keep the whole weight, 32"
    ):
        run(recipe("rtn", f"quantizer.policy.outlier_columns={count}"))


@pytest.mark.parametrize("count", [32, 1000])
def test_keeping_all_columns_of_an_input_is_refused(count: int) -> None:
    with pytest.raises(ModelError, match=rf"q_proj: quantizer\.policy\.outlier_columns={count} would keep"):
        run(make_recipe("smoothquant", f"quantizer.policy.outlier_columns={count}"))


def test_a_rounding_of_whole_blocks_cannot_keep_columns() -> None:
    class Learned(Part):
        needs = frozenset({"block"})

        def round_block(self, context: Any) -> dict[str, Any]:
            raise AssertionError(context)

    given = recipe("rtn", "quantizer.policy.outlier_columns=2")
    learned: Any = Learned()
    with pytest.raises(ValueError, match=r"policy\.outlier_columns: Learned takes a whole block"):
        Recipe(weight=given.weight, rounding=learned, policy=given.policy)


def test_negative_counts_are_refused() -> None:
    for key in ("keep_first_blocks", "keep_last_blocks", "outlier_columns"):
        with pytest.raises(ConfigError, match=key):
            make_recipe("rtn", f"quantizer.policy.{key}=-1")
