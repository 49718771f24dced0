"""Scaling what experts read whose weights lie in 3-D parameters.

Before   What the first weights of all experts read was written by a normalization, and is read by the router, perhaps
         by a shared expert, too: one scale for all of them. It is rounded to powers of two, so that every product that
         the router sums stays bit for bit what it was, and no token is routed elsewhere.
Between  An expert's second weight reads what its first one wrote: a scale for each expert, folded into those rows of
         its own first weight that scale this input one to one (the up of a gated expert), which are found by trying.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quantbench.core.input_stats import LinearStats, together
from quantbench.models.experts import router_modules
from quantbench.models.groups import InputGroup, watch_slices
from quantbench.pipeline.fold import norm_producer, replace_parameter
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.rounder import Rounder
from quantbench.transforms.base import Producer, ScaleTransform

NOT_TRANSFORMED = "experts, and layers that read the same input as they do, are not transformed"


class ExpertTransforms:
    """Scales the inputs of a block's experts, and of what reads the same; `stats`, those of all groups, follow."""

    def __init__(
        self, replay: BlockReplay, rounder: Rounder, groups: Sequence[InputGroup], stats: list[LinearStats | None]
    ) -> None:
        self.replay, self.rounder, self.groups, self.stats = replay, rounder, groups, stats

    def transform(self, index: int, transform: ScaleTransform) -> int:
        """Scale the group, with all that must be scaled with it, when the first of these is asked for; how often."""
        group = self.groups[index]
        if group.norm is not None:
            kind: Producer = "norm"
            members = [i for i, g in enumerate(self.groups) if g.norm is group.norm and (g.routed or g.feeds_experts)]
        else:
            kind, members = "linear", [i for i, g in enumerate(self.groups) if g.stage == group.stage]
        if index != members[0] or kind not in transform.producers:
            return 0
        applied = self._before(members, transform) if kind == "norm" else self._between(members, transform)
        if not applied:
            self.note(members)
        return applied

    def note(self, members: Sequence[int]) -> None:
        """Say of the quantized weights of some groups that they are not transformed."""
        for slot in (slot for i in members for slot in self.rounder.planned(self.groups[i].slots)):
            if NOT_TRANSFORMED not in self.rounder.state.notes[slot.name]:
                self.rounder.state.notes[slot.name].append(NOT_TRANSFORMED)

    def _before(self, unit: Sequence[int], transform: ScaleTransform) -> int:
        groups = [self.groups[i] for i in unit]
        seen = [s for i in unit if self.groups[i].routed and (s := self.stats[i]) is not None and s.n_tokens]
        quantized = [slot for group in groups for slot in self.rounder.planned(group.slots)]
        producer = norm_producer(groups[0])
        if not quantized or not seen or producer is None:
            return 0
        formats = [self.rounder.plan[slot.name] for slot in quantized]
        found = transform.scale([slot.get() for slot in quantized], together(seen), formats)
        scale = found.log2().round().exp2()
        producer.divide(scale)
        for slot in (slot for group in groups for slot in group.slots):
            slot.set(slot.get() * scale)
        for router in router_modules(self.replay.block):
            assert isinstance(router.weight, nn.Parameter)
            replace_parameter(router, "weight", router.weight.float() * scale)
        for i in unit:
            current = self.stats[i]
            self.stats[i] = None if current is None else current.rescaled(scale)
        return 1

    def _between(self, stage: Sequence[int], transform: ScaleTransform) -> int:
        writers = self._writers(stage[0]) if self.groups[stage[0]].routed else {}
        rows = self._rows(stage, writers) if writers else None
        if rows is None:
            return 0
        scaled = 0
        for i in stage:
            (slot,), current = self.groups[i].slots, self.stats[i]
            planned = bool(self.rounder.planned([slot]))
            if not planned or current is None or current.n_tokens < self.rounder.recipe.policy.min_expert_tokens:
                continue
            weight, writer = slot.get(), self.groups[writers[slot.index]].slots[0]
            scale = transform.scale([weight], current, [self.rounder.plan[slot.name]])
            written = writer.get().clone()
            written[rows] /= scale[:, None]
            writer.set(written)
            slot.set(weight * scale)
            self.stats[i] = current.rescaled(scale)
            scaled += 1
        return scaled

    def _writers(self, index: int) -> dict[int | None, int]:
        """The groups of the same experts that ran before, by number of the expert: of one parameter, or none."""
        module = self.groups[index].slots[0].module
        found = {
            g.slots[0].index: i
            for i, g in enumerate(self.groups[:index])
            if g.routed and g.slots[0].module is module and not hasattr(module, f"{g.slots[0].parameter}_bias")
        }
        return found if len({self.groups[i].stage for i in found.values()}) == 1 else {}

    def _rows(self, stage: Sequence[int], writers: dict[int | None, int]) -> slice | None:
        """Which output rows of the first weights scale the inputs of the second ones one to one; None if none do."""
        width = self.groups[stage[0]].in_features
        first = self.groups[next(iter(writers.values()))].slots[0]
        original = getattr(first.module, first.parameter)
        factors = torch.linspace(0.5, 2.0, width)
        plain = self._inputs(stage)
        tolerance = 1e-2 if original.dtype != torch.float32 else 1e-4
        for rows in (slice(width, None), slice(0, width), slice(1, None, 2), slice(0, None, 2)):
            changed = original.detach().clone()
            of_rows = (changed.transpose(1, 2) if first.transposed else changed)[:, rows]
            if of_rows.shape[1] != width:
                continue
            of_rows *= factors.to(changed)[:, None]
            setattr(first.module, first.parameter, nn.Parameter(changed, requires_grad=False))
            try:
                tried = self._inputs(stage)
            finally:
                setattr(first.module, first.parameter, original)
            if all(_near(tried[name], x * factors.to(x), tolerance) for name, x in plain.items()):
                return rows
        return None

    def _inputs(self, stage: Sequence[int]) -> dict[str, Tensor]:
        """What each of the experts' weights reads of the first sequence, by name."""
        seen: dict[str, Tensor] = {}
        slots = [self.groups[i].slots[0] for i in stage]
        with watch_slices(slots, lambda name, x: seen.__setitem__(name, x.detach().float())):
            self.replay.first_output()
        return seen


def _near(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    bound = tolerance * float(expected.abs().amax())
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=tolerance, atol=bound)
