"""Layers that engines compute as one, and formats that must then have something in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from quantbench.formats.base import Format
from quantbench.formats.nvfp4 import Nvfp4Format
from quantbench.models.slots import WeightSlot

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""vLLM and others stack the rows of these into one matrix, which has one NVFP4 global scale."""


def fused_layers(names: Iterable[str]) -> list[list[str]]:
    """The sets of layers, among these dotted names, that engines compute as one."""
    known, found = set(names), []
    for family in FUSED:
        parents = sorted(name.removesuffix(family[0]) for name in known if name.endswith(f".{family[0]}"))
        found += [[f"{parent}{one}" for one in family if f"{parent}{one}" in known] for parent in parents]
    return found


def share_global_scales(slots: Sequence[WeightSlot], plan: dict[str, Format | None]) -> None:
    """Make the formats in `plan` of layers that are fused, where they ask for it, for the largest weight of all."""
    by_name = {slot.name: slot for slot in slots if not slot.routed}
    for names in fused_layers(by_name):
        asking = {name: grid for name in names if isinstance(grid := plan.get(name), Nvfp4Format) and grid.fused}
        largest = max((float(by_name[name].get().abs().amax()) for name in asking), default=0.0)
        if largest > 0:
            plan |= {name: dataclasses.replace(grid, largest=largest) for name, grid in asking.items()}
