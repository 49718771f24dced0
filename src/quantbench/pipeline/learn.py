"""Rounding all weights of one block at once, by a method that minimises the block's output error."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.core.input_stats import LinearStats
from quantbench.models.groups import InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.context import BlockContext
from quantbench.pipeline.expert_ops import QuantizeExpertInputs
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.rounder import Rounder, finite_weight
from quantbench.pipeline.runtime import QuantizeInput, RuntimeOp
from quantbench.rounding.base import BlockRounding


def round_whole_block(
    rounding: BlockRounding,
    replay: BlockReplay,
    rounder: Rounder,
    groups: Sequence[InputGroup],
    stats: list[LinearStats | None],
    targets: list[Tensor],
    ops: Sequence[RuntimeOp],
) -> None:
    """Round a block's weights so that its outputs come near the targets [1, L, d].

    Experts that saw too few tokens are rounded to nearest. Raises ModelError if the method fails or leaves weights out.
    """
    started = time.perf_counter()
    slots: dict[str, WeightSlot] = {}
    for group, found in zip(groups, stats, strict=True):
        for slot in rounder.planned(group.slots):
            if rounder.is_scarce(slot, found):
                rounder.round_scarce(slot)
            else:
                finite_weight(slot)
                slots[slot.name] = slot
    context = BlockContext(
        name=replay.name,
        block=replay.block,
        inputs=replay.hidden,
        calls=replay.calls,
        targets=targets,
        groups=groups,
        stats=stats,
        formats={name: grid for name in slots if (grid := rounder.plan[name]) is not None},
        ops=[op for op in ops if isinstance(op, QuantizeInput | QuantizeExpertInputs)],
    )
    try:
        with torch.enable_grad():
            rounded = rounding.round_block(context) if slots else {}
    except ValueError as error:
        raise ModelError(f"{replay.name}: {error}") from error
    if set(rounded) != set(slots):
        raise ModelError(f"{replay.name}: {type(rounding).__name__} did not round {sorted(set(slots) ^ set(rounded))}")
    seconds = (time.perf_counter() - started) / max(1, len(slots))
    by_slot = {slot.name: found for group, found in zip(groups, stats, strict=True) for slot in group.slots}
    for name, slot in slots.items():  # a learned scale may have changed the weights: they are read now
        rounder.keep(slot, slot.get(), rounded[name], by_slot[name], seconds)
