"""How much the output of each layer suffers from each number of bits: steps 1 and 2 of a bit allocation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantbench.core.input_stats import LinearStats, finite_hessian, output_error
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.models.groups import GroupFinder, InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.allocation import BitAllocation
from quantbench.pipeline.capture import Captured, block_on, run_block
from quantbench.pipeline.collect import collect


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
            stats = collect(block, groups, hidden, calls, allocation.needs, all_expert_tokens=False) if groups else []
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
