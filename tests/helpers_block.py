"""One block of a tiny model as a rounding that learns is given it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.models.groups import GroupFinder
from quantbench.models.structure import find_blocks
from quantbench.pipeline.capture import capture, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.context import BlockContext
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.rounding.base import BlockRounding, Rounded
from quantbench.rounding.reconstruct import Candidate, objective
from recipes import make_recipe
from tiny import VOCABULARY


def learned(name: str, *overrides: str) -> Recipe:
    """A recipe at 3 bits, in groups that fit tiny models unless it has one scale per row."""
    groups = () if name == "omniquant_w4a4" else ("quantizer.weight.group_size=16",)
    return make_recipe(name, "quantizer.weight.bits=3", *groups, *overrides)


@torch.no_grad()
def context_of(model: PreTrainedModel, recipe: Recipe, index: int = 0, sequences: int = 4) -> BlockContext:
    """Block `index`, fed with the full-precision model's hidden states for random tokens."""
    prefix, blocks = find_blocks(model)
    tokens = torch.randint(0, VOCABULARY, (sequences, 16), generator=torch.Generator().manual_seed(1))
    captured = capture(model, blocks, tokens)
    hidden = captured.hidden
    for before in range(index):
        hidden = [run_block(blocks[before], h, c) for h, c in zip(hidden, captured.calls[before], strict=True)]
    name, block, calls = f"{prefix}.{index}", blocks[index], captured.calls[index]
    with GroupFinder(name, block) as finder:
        run_block(block, hidden[0], calls[0])
    groups = finder.groups()
    plan = recipe.policy.plan([[slot.name for group in groups for slot in group.slots]], recipe.weight)
    ops = [] if recipe.activation is None else [QuantizeInput(module=n, format=recipe.activation) for n in plan]
    return BlockContext(
        name=name,
        block=block,
        inputs=hidden,
        calls=calls,
        targets=[run_block(block, h, c) for h, c in zip(hidden, calls, strict=True)],
        groups=groups,
        stats=list(collect(block, groups, hidden, calls, frozenset({"absmax"}), all_expert_tokens=False)),
        formats={n: grid for n, grid in plan.items() if grid is not None},
        ops=ops,
    )


def round_block(recipe: Recipe, context: BlockContext) -> dict[str, Rounded]:
    assert isinstance(recipe.rounding, BlockRounding)
    return recipe.rounding.round_block(context)


def values(rounded: dict[str, Rounded]) -> dict[str, Tensor]:
    return {name: one.weight.dequantize() for name, one in rounded.items()}


def error(context: BlockContext, weights: dict[str, Tensor]) -> float:
    """The objective with these weights in the block, as it is now."""
    return objective(context, lambda: Candidate(weights))


def snapshot(model: Any) -> dict[str, Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}
