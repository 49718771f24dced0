"""Applying the transforms of a recipe to one block: scale each group's weights, fold the inverse into what wrote its
input or divide that as the model runs, shift inputs; and see that the block's full-precision output stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.core.input_stats import LinearStats
from quantbench.models.groups import InputGroup
from quantbench.pipeline.expert_transform import ExpertTransforms
from quantbench.pipeline.fold import (
    LinearProducer,
    NormProducer,
    RunningDivision,
    check_unchanged,
    linear_producer,
    norm_producer,
)
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.shifts import InputShifts
from quantbench.transforms.base import Readers, ScaleTransform, ShiftTransform


class BlockTransforms:
    """Transforms the groups of a block; `stats`, those of their inputs, follow what is done to them."""

    def __init__(
        self, replay: BlockReplay, rounder: Rounder, groups: Sequence[InputGroup], stats: list[LinearStats | None]
    ) -> None:
        self.replay, self.rounder, self.groups, self.stats = replay, rounder, groups, stats
        self.shifts = InputShifts(replay, groups)
        self.experts = ExpertTransforms(replay, rounder, groups, stats)

    def apply(self, before: Tensor) -> None:
        """Apply all transforms of the recipe. `before` [1, L, d] is the first output of the untouched block.

        Inputs are shifted since, until `shifts` is told to stop. Raises ModelError if a transform finds nothing it can
        act on, or if the block's output is not the same afterwards.
        """
        transforms = self.rounder.recipe.transforms
        if not transforms:
            return
        for key, transform in transforms.items():
            self.shifts.stop()  # producers are found without
            applied = sum(self._transform(index, transform) for index in range(len(self.groups)))
            if not applied and any(self.rounder.planned(group.slots) for group in self.groups):
                raise ModelError(
                    f"{self.replay.name}: transform {key!r} found nothing it can be folded into on this model"
                )
            self.shifts.perform()
            if isinstance(transform, ShiftTransform) and self.shifts:
                self.stats[:] = self.replay.stats(self.groups, self.rounder.recipe.first_needs)
        check_unchanged(before, self.replay.first_output(), f"{self.replay.name}: transforms {', '.join(transforms)}")

    def _transform(self, index: int, transform: ScaleTransform | ShiftTransform) -> int:
        """Shift and scale one group, as far as it can be; how often something was done."""
        group, current = self.groups[index], self.stats[index]
        quantized = self.rounder.planned(group.slots)
        if group.routed or group.feeds_experts:
            if not isinstance(transform, ShiftTransform):
                return self.experts.transform(index, transform)
            self.experts.note([index])
        if current is None or not quantized or group.routed:
            return 0
        producer = self.producer(index, transform.producers)
        weights, formats = [slot.get() for slot in quantized], [self.rounder.plan[slot.name] for slot in quantized]
        shift: Tensor | None = None
        scale: Tensor | None = None
        if isinstance(transform, ShiftTransform):
            biased = getattr(group.norm, "bias", None) is not None
            activation, scalable = self.rounder.recipe.activation, producer is not None
            readers = Readers(weights, formats, current, activation, biased, scalable)
            shift, scale = transform.shift_and_scale(readers)
        elif producer is not None:
            scale = transform.scale(weights, current, formats)
        if shift is not None:
            self.shifts.add(index, shift)
            current = current.shifted(shift)
        if scale is not None:
            assert producer is not None
            producer.divide(scale)
            for slot in group.slots:
                slot.set(slot.get() * scale)
            self.shifts.divide(index, scale)
            current = current.rescaled(scale)
        self.stats[index] = current
        return (shift is not None) + (scale is not None)

    def producer(self, index: int, kinds: frozenset[str]) -> NormProducer | LinearProducer | RunningDivision | None:
        """What can divide the input of a group by a scale, of these kinds; None if nothing can."""
        group = self.groups[index]
        if group.routed or group.feeds_experts:  # the router and every expert would have to be scaled, too
            return None
        if "norm" in kinds and (found := norm_producer(group)) is not None:
            return found
        if "linear" in kinds and group.norm is None:
            earlier = [slot for before in self.groups[:index] if not before.routed for slot in before.slots]
            if (layer := linear_producer(group, earlier, self.replay.first_output)) is not None:
                return layer
        if "activation" in kinds and group.behind_activation:
            return RunningDivision(partial(self.shifts.divide_as_it_runs, index))
        return None
