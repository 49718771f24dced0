"""The bits of each layer by its sensitivity: step 3 of a bit allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from quantbench.core.errors import ConfigError
from quantbench.pipeline.allocation import KEY, BitAllocation
from quantbench.pipeline.capture import Captured
from quantbench.pipeline.decoder import Decoder
from quantbench.pipeline.knapsack import choose, total
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.sensitivity import Sensitivity, measure


def allocate_bits(decoder: Decoder, rounder: Rounder, captured: Captured, device: torch.device) -> None:
    """Give the layers that have the recipe's own format the bits its allocation chooses, if it has one.

    Raises ConfigError if there are no such layers, or if the target cannot be met.
    """
    recipe = rounder.recipe
    allocation, default = recipe.policy.allocation, recipe.weight
    if allocation is None:
        return
    assert default is not None
    layers = {name for name, chosen in rounder.plan.items() if chosen is default}
    if not layers:
        raise ConfigError(f"{KEY}: rules give every layer a format, so no bits are to choose")
    few = recipe.policy.min_expert_tokens
    measured = measure(allocation, default, layers, decoder.prefix, decoder.blocks, captured, device, few)
    bits, note = allocate(allocation, measured)
    rounder.state.notes[measured[0].name].append(note)
    rounder.use_bits(dict(bits))
    for name, chosen in bits.items():
        rounder.state.notes[name].append(f"allocated {chosen} bits")


def allocate(allocation: BitAllocation, measured: Sequence[Sensitivity]) -> tuple[Mapping[str, int], str]:
    """Step 3: the bits of each layer, and a sentence about them. Raises ConfigError if the target cannot be met."""
    errors = torch.tensor([layer.errors for layer in measured], dtype=torch.float64)
    costs = torch.tensor([layer.costs for layer in measured])
    weights = sum(layer.weights for layer in measured)
    chosen = choose(errors, costs, int(allocation.target_bits * weights))
    if chosen is None:
        least = float(costs.amin(dim=1).sum()) / weights
        raise ConfigError(
            f"{KEY}.target_bits={allocation.target_bits}: with {allocation.candidates[0]} bits everywhere the layers "
            f"of this model take {least:.3f} effective bits; give at least as many"
        )
    average = float(total(costs, chosen)) / weights
    note = (
        f"allocation: {average:.3f} effective bits on average (target {allocation.target_bits}), "
        f"{allocation.objective} error {float(total(errors, chosen)):.4g}"
    )
    for k, bits in enumerate(allocation.candidates):
        uniform = float(costs[:, k].sum()) / weights
        note += f"; {bits} bits everywhere: {uniform:.3f} effective bits, error {float(errors[:, k].sum()):.4g}"
    return {layer.name: allocation.candidates[int(k)] for layer, k in zip(measured, chosen, strict=True)}, note
