"""One block of the walk.

1. statistics of the inputs of each group of weights that read one tensor       (skipped if no part needs any)
2. transforms: scale each group's weights, fold the inverse into what wrote its input; check that the block's
full-precision output did not change; rescale the statistics (or, for shifted inputs, collect them anew)
3. clip and round each weight; with `true_sequential`, statistics are collected anew before each group, for which only
what lies behind the group before is run. A rounding that learns gets the whole block instead.
4. the outputs of the quantized (or full-precision) block are the inputs of the next one
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from quantbench.core.input_stats import LinearStats
from quantbench.core.memory import Keep, in_memory
from quantbench.models.groups import GroupFinder, InputGroup
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.activations import activation_ops, data_free_ops
from quantbench.pipeline.capture import BlockCall
from quantbench.pipeline.devices import CPU, to_device
from quantbench.pipeline.fused import share_global_scales
from quantbench.pipeline.learn import round_whole_block
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.runtime import RuntimeOp
from quantbench.pipeline.transform import BlockTransforms
from quantbench.rounding.base import BlockRounding

Groups = list[InputGroup]
Stats = list[LinearStats | None]


class BlockStep:
    """One block: its inputs [1, L, d] a sequence, and its calls.

    `ops` are the operations it performs when it runs; keep: where its outputs are kept; start: as in BlockReplay.
    """

    def __init__(
        self,
        name: str,
        block: nn.Module,
        hidden: Sequence[Tensor],
        calls: Sequence[BlockCall],
        rounder: Rounder,
        ops: Sequence[RuntimeOp] = (),
        keep: Keep = in_memory,
        start: BlockCall | None = None,
    ) -> None:
        self.replay = BlockReplay(name, block, hidden, calls, rounder.recipe.policy.all_expert_tokens, keep, start)
        self.recipe, self.rounder = rounder.recipe, rounder
        self.ops = list(ops)

    def run(self) -> list[Tensor]:
        """Quantize the block; its outputs, which the next block reads."""
        full = self.quantize()
        return full if self.recipe.propagate == "full" else self._quantized_outputs()

    def quantize(self) -> list[Tensor]:
        """Quantize the block; what it wrote in full precision, if the recipe reads that."""
        replay, learned = self.replay, isinstance(self.recipe.rounding, BlockRounding)
        with GroupFinder(replay.name, replay.block) as finder:
            first_output = replay.first_output()
        groups = finder.groups()
        full, stats = self._first_pass(groups, learned)
        transforms = BlockTransforms(replay, self.rounder, groups, stats)
        try:
            transforms.apply(first_output)
            self.ops += transforms.shifts.ops()
            self._quantize(groups, stats, full)
        finally:
            transforms.shifts.stop()  # they are among the operations
        return full

    def _first_pass(self, groups: Groups, learned: bool) -> tuple[list[Tensor], Stats]:
        """Outputs and statistics of the inputs before anything of the block is changed, as far as they are read."""
        experts, needs = any(group.routed for group in groups), self.recipe.first_needs
        observed = groups if needs or (learned and experts) else []
        if self.recipe.observes_norms_alone and not experts:
            observed = [group for group in observed if group.norm is not None]
        outputs: list[Tensor] = []
        seen: list[LinearStats] = []
        if self.recipe.propagate == "full" or learned:
            outputs, seen = self.replay.outputs_and_stats(observed, needs)
        elif observed:
            seen = self.replay.stats(observed, needs)
        found = iter(seen)
        return outputs, [next(found) if group in observed else None for group in groups]

    def stored_ops(self) -> list[RuntimeOp]:
        """The operations, their tensors on the CPU."""
        found: list[RuntimeOp] = to_device(self.ops, CPU)
        return found

    def _quantize(self, groups: Groups, stats: Stats, full: list[Tensor]) -> None:
        share_global_scales([slot for group in groups for slot in group.slots], self.rounder.plan)
        self.ops += activation_ops(groups, stats, self.rounder)
        rounding = self.recipe.rounding
        if isinstance(rounding, BlockRounding):
            round_whole_block(rounding, self.replay, self.rounder, groups, stats, full, self.ops)
        elif rounding is not None:
            self._round(groups, stats)

    def _round(self, groups: Groups, stats: Stats) -> None:
        if self.recipe.true_sequential:
            self.replay.finished.begin()
        for _, grouped in itertools.groupby(zip(groups, stats, strict=True), key=lambda pair: pair[0].stage):
            side_by_side = list(grouped)
            stage = [(group, found) for group, found in side_by_side if self.rounder.planned(group.slots)]
            current = [found for _, found in stage]
            if self.recipe.true_sequential and stage:
                together = [group for group, _ in stage]
                current = [*self.replay.stats(together, self.recipe.rounding_needs)]
            for (group, first), now in zip(stage, current, strict=True):
                for slot in self.rounder.planned(group.slots):
                    self.rounder.round(slot, now, first)
                if now is not None:
                    now.forget()
            if self.recipe.true_sequential:
                self.replay.finished.finish(group for group, _ in side_by_side)

    def _quantized_outputs(self) -> list[Tensor]:
        """What the block writes when the quantized model runs: the next block is calibrated on that."""
        if self.ops:  # the block ran without
            self.replay.finished.forget()
        installed = self.replay.install(self.ops)
        outputs = self.replay.outputs()
        for removable in installed:
            removable.remove()
        return outputs


def round_data_free(slots: Sequence[WeightSlot], rounder: Rounder) -> list[RuntimeOp]:
    """Round the weights of a block that nothing was run through; the operations it performs when it runs."""
    share_global_scales(slots, rounder.plan)
    for slot in rounder.planned(slots) if rounder.recipe.rounding is not None else ():
        rounder.round(slot, None, None)
    return data_free_ops(slots, rounder)
