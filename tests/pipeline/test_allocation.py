"""Bits allocated to a target average: the choice is the best one, and what is measured is the layers' output error."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.core.build import build
from quantbench.core.errors import ConfigError
from quantbench.formats.base import FormatDefaults
from quantbench.formats.quantize import quantize
from quantbench.models.handle import ModelHandle
from quantbench.pipeline import knapsack
from quantbench.pipeline.allocate import allocate
from quantbench.pipeline.allocation import BitAllocation
from quantbench.pipeline.knapsack import choose, exact, greedy, total
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.sensitivity import Sensitivity
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe, recipe_spec
from tiny import VOCABULARY, tiny_handle, tiny_qwen3_moe

CPU = torch.device("cpu")


def problem(seed: int, items: int = 6, choices: int = 3) -> tuple[Tensor, Tensor]:
    """Errors that mostly fall with cost, and costs of items of different sizes."""
    errors = random(items, choices, seed=seed).abs().sort(dim=1, descending=True).values.double()
    errors[0] = errors[0].flip(0)  # one item for which more bits are worse
    sizes = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6][:items])
    return errors, sizes[:, None] * torch.tensor([2, 3, 4, 8][:choices])


def brute_force(errors: Tensor, costs: Tensor, budget: int) -> float:
    return min(
        float(total(errors, torch.tensor(choice)))
        for choice in itertools.product(range(errors.shape[1]), repeat=len(errors))
        if int(total(costs, torch.tensor(choice))) <= budget
    )


def test_the_choice_is_the_best_of_all() -> None:
    for seed in range(8):
        errors, costs = problem(seed)
        for budget in (int(costs[:, 0].sum()), int(costs[:, 1].sum()) - 1, int(costs[:, 1].sum()), 10_000):
            chosen = choose(errors, costs, budget)
            assert chosen is not None
            assert int(total(costs, chosen)) <= budget
            assert float(total(errors, chosen)) == pytest.approx(brute_force(errors, costs, budget)), seed


def test_the_greedy_choice_fits_is_no_worse_than_uniform_and_at_most_one_step_from_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(knapsack, "MOST_STATES", 0)
    for seed in range(8):
        errors, costs = problem(seed)
        for column in (0, 1, 2):
            budget = int(costs[:, column].sum())
            chosen = choose(errors, costs, budget)
            assert chosen is not None
            assert int(total(costs, chosen)) <= budget
            found = float(total(errors, chosen))
            assert found <= float(errors[:, column].sum()), seed
            largest = float((errors.amax(dim=1) - errors.amin(dim=1)).max())
            assert found <= brute_force(errors, costs, budget) + largest, seed


def test_greedy_and_exact_agree_where_no_item_matters_much() -> None:
    errors, costs = problem(3, items=8, choices=4)
    errors, costs = errors.repeat(50, 1), costs.repeat(50, 1)
    lowest = costs[:, :1]
    room = int((costs[:, 1] - costs[:, 0]).sum())
    best = float(total(errors, exact(errors, costs - lowest, room)))
    near = greedy(errors, costs - lowest, room)
    assert int(total(costs - lowest, near)) <= room
    assert best <= float(total(errors, near)) <= best * 1.01


def test_a_budget_below_the_cheapest_choices_has_no_solution() -> None:
    errors, costs = problem(0)
    assert choose(errors, costs, int(costs[:, 0].sum()) - 1) is None


def test_a_sensitive_layer_gets_the_bits_of_one_that_is_not() -> None:
    allocation = BitAllocation(target_bits=3.0, candidates=(2, 3, 4))
    measured = [
        Sensitivity("a", 100, errors=[9.0, 4.0, 1.0], costs=[200, 300, 400]),
        Sensitivity("b", 100, errors=[0.9, 0.4, 0.1], costs=[200, 300, 400]),
    ]
    bits, note = allocate(allocation, measured)
    assert bits == {"a": 4, "b": 2}
    assert note.startswith("allocation: 3.000 effective bits on average (target 3.0), relative error 1.9;")
    assert "3 bits everywhere: 3.000 effective bits, error 4.4" in note


# In a whole model


def tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(1))


def mixed(name: str = "rtn_mixed", *overrides: str) -> Recipe:
    return make_recipe(name, "quantizer.weight.group_size=16", *overrides)


def run(recipe: Recipe, handle: ModelHandle | None = None) -> Quantized:
    return quantize_model(handle or tiny_handle(), recipe, tokens(), CPU, lambda _done, _total: None)


def target(bits: float) -> str:
    return f"quantizer.policy.allocation.target_bits={bits}"


@pytest.mark.parametrize("name", ["rtn_mixed", "gptq_mixed"])
@pytest.mark.parametrize("wanted", [4.3, 5.0, 7.0])
def test_the_average_is_at_most_the_target_and_stands_in_the_record(name: str, wanted: float) -> None:
    quantized = run(mixed(name, target(wanted)))
    assert quantized.artifact.effective_bits is not None
    assert wanted - 1 < quantized.artifact.effective_bits <= wanted
    assert any(note.startswith("allocation: ") for note in quantized.layers[0].notes)
    assert len({layer.bits_per_weight for layer in quantized.layers}) > 1
    for layer in quantized.layers:
        (bits,) = [int(note.split()[1]) for note in layer.notes if note.startswith("allocated")]
        assert layer.bits_per_weight == bits + (16 + bits) / 16


@pytest.mark.parametrize("objective", ["relative", "absolute"])
def test_the_error_is_that_of_the_layers_outputs_and_below_uniform_at_the_same_average(objective: str) -> None:
    """In full precision propagation and nearest rounding, what was measured is what is recorded as the layers' loss."""
    wanted = 3 + 19 / 16
    options = [f"quantizer.policy.allocation.objective={objective}", target(wanted), "quantizer.propagate=full"]
    spec = recipe_spec("rtn_mixed", "quantizer.weight.group_size=16", *options)
    handle = tiny_handle()
    chosen = run(build(spec, Recipe, "quantizer"), handle)
    spec["policy"]["allocation"] = None
    spec["weight"]["bits"] = 3
    uniform = run(build(spec, Recipe, "quantizer"), tiny_handle())
    assert uniform.artifact.effective_bits == wanted
    errors = {id(q): _errors(q, handle, objective) for q in (chosen, uniform)}
    assert errors[id(chosen)] <= errors[id(uniform)]
    note = chosen.layers[0].notes[0]
    assert float(note.partition(" error ")[2].partition(";")[0]) == pytest.approx(errors[id(chosen)], rel=1e-3)
    stated = note.partition("; 3 bits everywhere")[2].partition(" error ")[2].partition(";")[0]
    assert float(stated) == pytest.approx(errors[id(uniform)], rel=1e-3)


def _errors(quantized: Quantized, handle: ModelHandle, objective: str) -> float:
    """The objective from the outputs of the linear layers themselves."""
    model = handle.restore()
    powers: dict[str, Tensor] = {}
    losses: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if name in quantized.artifact.weights:
            delta = quantized.artifact.weights[name].dequantize() - module.weight

            def hook(_m: Any, args: Any, out: Tensor, name: str = name, delta: Tensor = delta) -> None:
                powers[name] = powers.get(name, torch.zeros(())) + out.square().sum()
                losses[name] = losses.get(name, torch.zeros(())) + (args[0] @ delta.T).square().sum()

            hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(input_ids=tokens())
    for one in hooks:
        one.remove()
    n = tokens().numel()
    return sum(float(losses[k] / powers[k] if objective == "relative" else 2 / n * losses[k]) for k in losses)


def test_layers_with_a_rule_keep_its_format_and_do_not_count() -> None:
    spec = recipe_spec("rtn_mixed", "quantizer.weight.group_size=16", target(4.3))
    eight = spec["weight"] | {"bits": 8}
    rule = {"_target_": "quantbench.pipeline.policy.Rule", "match": "down_proj", "format": eight}
    spec["policy"]["rules"] = {"down": rule}
    quantized = run(build(spec, Recipe, "quantizer"))
    down = [layer for layer in quantized.layers if "down_proj" in layer.name]
    assert {layer.bits_per_weight for layer in down} == {9.5}
    others = [w for name, w in quantized.artifact.weights.items() if "down_proj" not in name]
    average = sum(w.bits_per_weight() * w.numel() for w in others) / sum(w.numel() for w in others)
    assert 3.3 < average <= 4.3


def test_experts_without_tokens_are_measured_on_what_the_others_saw() -> None:
    few = "quantizer.policy.min_expert_tokens=1000"
    quantized = run(mixed("rtn_mixed", target(5.0), few), tiny_handle(tiny_qwen3_moe()))
    experts = [layer for layer in quantized.layers if "experts" in layer.name]
    assert {layer.bits_per_weight for layer in experts} != {3.125}, "no error, so no bits"
    assert quantized.artifact.effective_bits is not None
    assert quantized.artifact.effective_bits <= 5


def test_the_same_bits_for_all_where_all_suffer_alike() -> None:
    weight = random(8, 16, seed=0)
    grid = mixed().weight
    assert grid is not None
    allocation = BitAllocation(target_bits=4.2, candidates=(2, 3, 4))
    formats = [allocation.format(grid, bits) for bits in allocation.candidates]
    errors = [float((quantize(weight, f).dequantize() - weight).square().sum()) for f in formats]
    costs = [round(f.bits_per_weight((8, 16)) * 128) for f in formats]
    bits, _ = allocate(allocation, [Sensitivity(name, 128, errors, costs) for name in "abc"])
    assert bits == {"a": 3, "b": 3, "c": 3}


# Bad input


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([target(3.0)], r"with 2 bits everywhere the layers of this model take 3\.125 effective bits"),
        (["quantizer.policy.allocation.candidates=[3]", target(4)], "two or more different numbers, rising"),
        (["quantizer.policy.allocation.candidates=[4,3]", target(4)], "two or more different numbers, rising"),
        ([target(1.5)], "target_bits=1.5 is below the smallest candidate, 2"),
        (["quantizer.policy.allocation.candidates=[2,9]"], "the weight format IntFormat cannot have 9 bits"),
        (["quantizer.policy.outlier_columns=2"], "does not count the columns that policy.outlier_columns keeps"),
        (["quantizer.weight=null", "quantizer.rounding=null"], "allocation needs a weight format"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(make_recipe("rtn_mixed", "quantizer.policy.allocation.target_bits=4", *_grouped(overrides), *overrides))


def _grouped(overrides: list[str]) -> list[str]:
    return [] if "quantizer.weight=null" in overrides else ["quantizer.weight.group_size=16"]


def test_a_format_without_bits_is_refused() -> None:
    class Four(FormatDefaults):
        def columns_per_group(self, in_features: int) -> int:
            return in_features

        params = encode = decode = pack = unpack = bits_per_weight = columns_per_group

    given, four = mixed(), Four()
    with pytest.raises(ValueError, match="which the weight format Four does not have"):
        Recipe(weight=four, rounding=given.rounding, policy=given.policy)  # type: ignore[arg-type]


def test_an_allocation_reads_the_calibration_data() -> None:
    assert make_recipe("rtn").data_free
    assert not mixed().data_free
