"""Bits for each layer, chosen by how much the output of each layer suffers.

Objective  min over b of sum_i p_i e_i(b_i),  subject to sum_i n_i B_i(b_i) <= target * sum_i n_i
Symbols    e_i(b)  tr(dW H dW^T), dW the error of rounding layer i to nearest with b bits, H = 2/n X^T X of its inputs X
                   in the full-precision model; objective `relative`: divided by tr(W H W^T), the power of its output
           p_i     1; for an expert the share of the calibration tokens routed to it
           n_i     weights of layer i           B_i(b)  effective bits of its format with b bits, scales counted

Steps
 1. Run the calibration sequences through the full-precision blocks; collect H of every group of weights.
 2. Round every layer to nearest with each of the candidate numbers of bits: e_i(b). An expert that saw too few tokens
    is measured on the H of all experts beside it together, and counts as much as they do on average.
 3. Choose b (quantbench.pipeline.knapsack). The same bits everywhere are among the choices, so the objective is never
    larger than that of the best uniform allocation within the target.

The sum takes layers for independent: it knows nothing of how errors of one layer act through the others, and a rounding
better than nearest is assumed to gain equally everywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from quantbench.core.component import Part, component
from quantbench.core.errors import ConfigError
from quantbench.core.input_stats import LinearStats, finite_hessian, output_error
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.models.structure import GroupFinder, InputGroup, WeightSlot
from quantbench.pipeline.capture import Captured, block_on, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.knapsack import choose, total

KEY = "quantizer.policy.allocation"


@component
class BitAllocation(Part):
    """Chooses the `bits` of each layer that has the recipe's own format; layers with a rule keep the format it gives.

    target_bits  largest average of effective bits over these layers, weighted by size; what a rounding keeps beside the
                 codes (outliers, low rank) is not counted
    candidates   numbers of bits to choose from
    objective    `relative`: each layer's error in units of its output's power; `absolute`: as it is
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian"})

    target_bits: Annotated[float, Field(gt=0)]
    candidates: tuple[Annotated[int, Field(ge=1)], ...]
    objective: Literal["relative", "absolute"] = "relative"

    @model_validator(mode="after")
    def _ordered(self) -> BitAllocation:
        if len(self.candidates) < 2 or list(self.candidates) != sorted(set(self.candidates)):
            raise ValueError(f"candidates={list(self.candidates)} must be two or more different numbers, rising")
        if self.target_bits < self.candidates[0]:
            raise ValueError(f"target_bits={self.target_bits} is below the smallest candidate, {self.candidates[0]}")
        return self

    def refusal(self, recipe: Any) -> str | None:
        """It needs a format with an option `bits` that takes every candidate, and no columns beside it."""
        if recipe.weight is None:
            return f"{KEY} needs a weight format to choose the bits of"
        if recipe.policy.outlier_columns:
            return f"{KEY} does not count the columns that policy.outlier_columns keeps: set one of them to null or 0"
        name = type(recipe.weight).__name__
        options = {f.name for f in dataclasses.fields(recipe.weight)} if dataclasses.is_dataclass(recipe.weight) else ()
        if "bits" not in options or not isinstance(recipe.weight.bits, int):
            return f"{KEY} chooses the option `bits`, which the weight format {name} does not have: use format int"
        for bits in self.candidates:
            try:
                self.format(recipe.weight, bits)
            except ValueError:
                return f"{KEY}.candidates: the weight format {name} cannot have {bits} bits"
        return None

    def format(self, format: Format, bits: int) -> Format:
        """The format with other bits."""
        assert dataclasses.is_dataclass(format)
        changed: Format = dataclasses.replace(format, bits=bits)
        return changed


@dataclass(frozen=True)
class Sensitivity:
    """What each number of bits costs a layer: errors p_i e_i(b) [k], bits n_i B_i(b) [k]."""

    name: str
    weights: int
    errors: list[float]
    costs: list[int]


def measure(
    allocation: BitAllocation,
    default: Format,
    layers: set[str],
    prefix: str,
    blocks: nn.ModuleList,
    captured: Captured,
    device: torch.device,
    min_tokens: int,
) -> list[Sensitivity]:
    """Steps 1 and 2 for the layers named, on the full-precision blocks; one block at a time is on `device`."""
    formats = [allocation.format(default, bits) for bits in allocation.candidates]
    found: list[Sensitivity] = []
    hidden = list(captured.hidden)
    for index, block in enumerate(blocks):
        calls = captured.calls[index]
        with block_on(block, device):
            with GroupFinder(f"{prefix}.{index}", block) as finder:
                run_block(block, hidden[0], calls[0])
            groups = [group for group in finder.groups() if any(slot.name in layers for slot in group.slots)]
            stats = collect(block, groups, hidden, calls, allocation.needs) if groups else []
            tokens = sum(states.shape[1] for states in hidden)
            for slot, hessian, share in _inputs(groups, stats, tokens, min_tokens):
                if slot.name in layers:
                    found.append(_sensitivity(slot, hessian, share, formats, allocation.objective))
            hidden = [run_block(block, states, call).cpu() for states, call in zip(hidden, calls, strict=True)]
    return found


def _inputs(
    groups: Sequence[InputGroup], stats: Sequence[LinearStats], tokens: int, min_tokens: int
) -> list[tuple[WeightSlot, Tensor, float]]:
    """Each weight with H and p; of experts with fewer than `min_tokens`, those of all experts beside them."""
    found: list[tuple[WeightSlot, Tensor, float]] = []
    for _, side_by_side in itertools.groupby(zip(groups, stats, strict=True), key=lambda pair: pair[0].stage):
        stage = list(side_by_side)
        seen = [(s.n_tokens, finite_hessian(s)) for _, s in stage if s.n_tokens]
        count = sum(n for n, _ in seen)
        for group, s in stage:
            if group.routed and s.n_tokens < min_tokens:
                pooled = torch.stack([hessian * (n / count) for n, hessian in seen]).sum(dim=0)
                found += [(slot, pooled, count / len(stage) / tokens) for slot in group.slots]
            else:
                share = s.n_tokens / tokens if group.routed else 1.0
                found += [(slot, finite_hessian(s), share) for slot in group.slots]
    return found


def _sensitivity(
    slot: WeightSlot, hessian: Tensor, share: float, formats: Sequence[Format], objective: str
) -> Sensitivity:
    weight = slot.get()
    power = output_error(weight, hessian) if objective == "relative" else 1.0
    unit = share / power if power > 0 else 0.0
    errors = [unit * output_error(quantize(weight, grid).dequantize() - weight, hessian) for grid in formats]
    costs = [round(grid.bits_per_weight(slot.shape) * weight.numel()) for grid in formats]
    return Sensitivity(slot.name, weight.numel(), errors, costs)


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
