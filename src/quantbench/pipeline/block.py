"""One block of the walk.

1. statistics of the inputs of each group of weights that read one tensor       (skipped if no part needs any)
2. transforms: scale each group's weights, fold the inverse into what wrote its input; check that the block's
full-precision output did not change; rescale the statistics (or, for shifted inputs, collect them anew)
3. clip and round each weight; with `true_sequential`, statistics are collected anew before each group.
A rounding that learns gets the whole block instead.
4. the outputs of the quantized (or full-precision) block are the inputs of the next one
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quantbench.core.errors import ModelError
from quantbench.core.input_stats import LinearStats
from quantbench.models.handle import Removable
from quantbench.models.structure import GroupFinder, InputGroup, WeightSlot
from quantbench.pipeline.capture import BlockCall, run_block
from quantbench.pipeline.collect import collect
from quantbench.pipeline.context import BlockContext
from quantbench.pipeline.fold import LinearProducer, NormProducer, check_unchanged, linear_producer, norm_producer
from quantbench.pipeline.input_ops import ShiftInput
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.rounder import Rounder, finite_weight
from quantbench.pipeline.runtime import QuantizeInput, RuntimeOp, install
from quantbench.rounding.base import BlockRounding
from quantbench.transforms.base import ShiftTransform


class BlockStep:
    """One block: its inputs [1, L, d] a sequence, and its calls. `ops` are the operations it performs when it runs."""

    def __init__(
        self,
        name: str,
        block: nn.Module,
        hidden: Sequence[Tensor],
        calls: Sequence[BlockCall],
        recipe: Recipe,
        rounder: Rounder,
    ) -> None:
        self.name, self.block, self.hidden, self.calls = name, block, hidden, calls
        self.recipe, self.rounder = recipe, rounder
        self.ops: list[RuntimeOp] = []
        self.modules = {f"{name}.{key}" if key else name: module for key, module in block.named_modules()}
        self.shifts: dict[int, Tensor] = {}  # of the input of a group, by its index
        self.shifting: list[Removable] = []

    def run(self) -> list[Tensor]:
        """Quantize the block; its outputs, which the next block reads."""
        try:
            return self._run()
        finally:
            self._shift_inputs([])

    def _run(self) -> list[Tensor]:
        recipe = self.recipe
        with GroupFinder(self.name, self.block) as finder:
            first_output = self._first()
        groups = finder.groups()
        learned = isinstance(recipe.rounding, BlockRounding)
        full = self._outputs() if recipe.propagate == "full" or learned else []
        stats: list[LinearStats | None] = [None] * len(groups)
        count_only = learned and any(group.routed for group in groups)
        if recipe.first_needs or count_only:
            stats = list(collect(self.block, groups, self.hidden, self.calls, recipe.first_needs))
        if recipe.transforms:
            self._transform(groups, stats)
            names = ", ".join(recipe.transforms)
            check_unchanged(first_output, self._first(), f"{self.name}: transforms {names}")
        for group, found in zip(groups, stats, strict=True):
            self.ops += self._activation_ops(group, found)
        if isinstance(recipe.rounding, BlockRounding):
            self._learn(recipe.rounding, groups, stats, full)
        elif recipe.rounding is not None:
            self._round(groups, stats)
        if recipe.propagate == "full":
            return full
        self._shift_inputs([])  # they are among the operations
        # The next block is calibrated on what it will read when the quantized model runs.
        installed = install(self.modules, self.ops)
        outputs = self._outputs()
        for removable in installed:
            removable.remove()
        return outputs

    def _first(self) -> Tensor:
        return run_block(self.block, self.hidden[0], self.calls[0])

    def _outputs(self) -> list[Tensor]:
        return [run_block(self.block, states, call) for states, call in zip(self.hidden, self.calls, strict=True)]

    def _quantized(self, group: InputGroup) -> list[WeightSlot]:
        return [slot for slot in group.slots if slot.name in self.rounder.plan]

    # Transforms

    def _transform(self, groups: list[InputGroup], stats: list[LinearStats | None]) -> None:
        for key, transform in self.recipe.transforms.items():
            applied = 0
            self._shift_inputs([])  # producers are found without
            for index, group in enumerate(groups):
                current, quantized = stats[index], self._quantized(group)
                if group.routed or group.feeds_experts:
                    self._note_experts(quantized)
                if current is None or not quantized or group.routed:
                    continue
                if isinstance(transform, ShiftTransform):
                    shift = transform.shift(current)
                    self.shifts[index] = self.shifts.get(index, 0) + shift
                    current = current.shifted(shift)
                    applied += 1
                producer = self._producer(groups, index, transform.producers)
                if producer is None:
                    continue
                weights, grid = [slot.get() for slot in group.slots], self.rounder.plan[quantized[0].name]
                if isinstance(transform, ShiftTransform):
                    scale = transform.scale_shifted(weights, current, grid, self.recipe.activation)
                else:
                    scale = transform.scale(weights, current, grid)
                producer.divide(scale)
                for slot, weight in zip(group.slots, weights, strict=True):
                    slot.set(weight * scale)
                if index in self.shifts:
                    self.shifts[index] = self.shifts[index] / scale
                stats[index] = current.rescaled(scale)
                applied += 1
            if not applied and any(self._quantized(group) for group in groups):
                raise ModelError(f"{self.name}: transform {key!r} found nothing it can be folded into on this model")
            self._shift_inputs(self._shift_ops(groups))
            if isinstance(transform, ShiftTransform):
                stats[:] = collect(self.block, groups, self.hidden, self.calls, self.recipe.first_needs)
        self.ops += self._shift_ops(groups)

    def _shift_ops(self, groups: list[InputGroup]) -> list[RuntimeOp]:
        """What shifts the inputs of groups, for the weights as they are."""
        return [
            ShiftInput(module=slot.name, shift=shift, offset=slot.get() @ shift)
            for index, shift in self.shifts.items()
            for slot in groups[index].slots
        ]

    def _shift_inputs(self, ops: list[RuntimeOp]) -> None:
        """Shift inputs by these operations from now on, and by no others."""
        for removable in self.shifting:
            removable.remove()
        self.shifting = install(self.modules, ops)

    def _producer(
        self, groups: list[InputGroup], index: int, kinds: frozenset[str]
    ) -> NormProducer | LinearProducer | None:
        group = groups[index]
        if group.routed or group.feeds_experts:  # the router and every expert would have to be scaled, too
            return None
        if "norm" in kinds and (found := norm_producer(group)) is not None:
            return found
        if "linear" in kinds and group.norm is None:
            earlier = [s for g in groups[:index] if not g.routed for s in g.slots]
            return linear_producer(group, earlier, self._first)
        return None

    def _note_experts(self, slots: list[WeightSlot]) -> None:
        text = "experts, and layers that read the same input as they do, are not transformed"
        for slot in slots:
            if text not in self.rounder.notes[slot.name]:
                self.rounder.notes[slot.name].append(text)

    # Activations

    def _activation_ops(self, group: InputGroup, stats: LinearStats | None) -> list[RuntimeOp]:
        activation = self.recipe.activation
        quantized = self._quantized(group)
        if activation is None or not quantized:
            return []
        params: dict[str, Tensor] = {}
        kept = None if stats is None else self.rounder.outlier_columns(quantized[0], stats)
        if activation.needs:
            assert stats is not None
            low, high = stats.require("minimum"), stats.require("maximum")
            if kept is not None:
                low, high = low.index_fill(0, kept, 0), high.index_fill(0, kept, 0)
            scale, zero = activation.static_params(low, high)
            params = {"scale": scale} if zero is None else {"scale": scale, "zero": zero}
        index = None if kept is None else kept.int()
        return [QuantizeInput(module=slot.name, format=activation, params=params, keep=index) for slot in quantized]

    # Rounding

    def _round(self, groups: list[InputGroup], stats: list[LinearStats | None]) -> None:
        recipe = self.recipe
        for _, side_by_side in itertools.groupby(zip(groups, stats, strict=True), key=lambda pair: pair[0].stage):
            stage = [(group, found) for group, found in side_by_side if self._quantized(group)]
            current = [found for _, found in stage]
            if recipe.true_sequential and stage:
                together = [group for group, _ in stage]
                current = [*collect(self.block, together, self.hidden, self.calls, recipe.rounding_needs)]
            for (group, first), now in zip(stage, current, strict=True):
                for slot in self._quantized(group):
                    self.rounder.round(slot, now, first)

    def _learn(
        self, rounding: BlockRounding, groups: list[InputGroup], stats: list[LinearStats | None], full: list[Tensor]
    ) -> None:
        """The whole block at once: the rounding gets everything it needs to minimise the block's output error."""
        started = time.perf_counter()
        slots: dict[str, WeightSlot] = {}
        for group, found in zip(groups, stats, strict=True):
            for slot in self._quantized(group):
                if self.rounder.is_scarce(slot, found):
                    self.rounder.round_scarce(slot)
                else:
                    finite_weight(slot)
                    slots[slot.name] = slot
        context = BlockContext(
            name=self.name,
            block=self.block,
            inputs=self.hidden,
            calls=self.calls,
            targets=full,
            groups=groups,
            stats=stats,
            formats={name: grid for name in slots if (grid := self.rounder.plan[name]) is not None},
            ops=[op for op in self.ops if isinstance(op, QuantizeInput)],
        )
        try:
            with torch.enable_grad():
                rounded = rounding.round_block(context) if slots else {}
        except ValueError as error:
            raise ModelError(f"{self.name}: {error}") from error
        if set(rounded) != set(slots):
            raise ModelError(
                f"{self.name}: {type(rounding).__name__} did not round {sorted(set(slots) ^ set(rounded))}"
            )
        seconds = (time.perf_counter() - started) / max(1, len(slots))
        by_slot = {slot.name: found for group, found in zip(groups, stats, strict=True) for slot in group.slots}
        for name, slot in slots.items():  # a learned scale may have changed the weights: they are read now
            self.rounder.keep(slot, slot.get(), rounded[name], by_slot[name], seconds)
