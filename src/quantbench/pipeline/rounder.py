"""Putting single weights on their grids by a recipe, with an account of what was done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.core.input_stats import LinearStats, output_errors
from quantbench.formats.base import Format
from quantbench.formats.corrections import KeptColumns
from quantbench.models.slots import WeightSlot
from quantbench.pipeline.devices import CPU, to_device
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import LayerResult, WalkState
from quantbench.rounding.base import Rounded, Rounding, round_with_clip
from quantbench.rounding.nearest import Nearest


class Rounder:
    """Puts weights on their grids by the recipe, and keeps account of it in `state`.

    plan: the weight format of each layer the recipe treats, null if only its input is quantized; other layers stay as
    they are. in_place: put what a weight was rounded to into the model, for blocks that run afterwards.
    """

    def __init__(
        self, recipe: Recipe, plan: dict[str, Format | None], state: WalkState, *, in_place: bool = True
    ) -> None:
        self.recipe, self.plan, self.state, self._in_place = recipe, plan, state, in_place
        self.use_bits(state.bits)

    def use_bits(self, bits: dict[str, int]) -> None:
        """Give layers the recipe's own format with the bits an allocation chose for them."""
        allocation, default = self.recipe.policy.allocation, self.recipe.weight
        self.state.bits = bits
        for name, chosen in bits.items():
            assert allocation is not None
            assert default is not None
            self.plan[name] = allocation.format(default, chosen)

    def planned(self, slots: Sequence[WeightSlot]) -> list[WeightSlot]:
        """Those of the weights that the recipe treats."""
        return [slot for slot in slots if slot.name in self.plan]

    def is_scarce(self, slot: WeightSlot, *stats: LinearStats | None) -> bool:
        """Whether the weight is that of an expert to which too few calibration tokens were routed."""
        seen = [found.n_tokens for found in stats if found is not None]
        if slot.routed and seen and min(seen) < self.recipe.policy.min_expert_tokens:
            self.state.scarce[slot.parameter_name][slot.name] = min(seen)
            return True
        return False

    def round_scarce(self, slot: WeightSlot) -> None:
        """Round the weight of such an expert to nearest: its few inputs say too little about the others."""
        grid, started, original = self.plan[slot.name], time.perf_counter(), finite_weight(slot)
        assert grid is not None
        kind = "few_tokens" if self.state.scarce[slot.parameter_name][slot.name] else "no_tokens"
        rounded = dataclasses.replace(Nearest().round(original, None, grid), fallbacks={kind: 1})
        self.keep(slot, original, rounded, None, time.perf_counter() - started)

    def list_scarce(self) -> None:
        """Note for each parameter which of its experts were rounded to nearest, with the first of them."""
        layers = {layer.name: layer for layer in self.state.layers}
        for parameter, tokens in self.state.scarce.items():
            if self.recipe.rounding is None:  # only their inputs are quantized, with a note of its own
                continue
            listed = ", ".join(f"{name.rpartition('.')[2]} ({seen})" for name, seen in tokens.items())
            layers[next(iter(tokens))].notes.append(
                f"{parameter}: rounded to nearest for want of calibration tokens (fewer than policy.min_expert_tokens="
                f"{self.recipe.policy.min_expert_tokens}): experts {listed}"
            )

    def round(self, slot: WeightSlot, stats: LinearStats | None, clip_stats: LinearStats | None) -> None:
        """Clip and round one weight: by statistics of its input as it is now, and as it was before any change."""
        if self.is_scarce(slot, stats, clip_stats):
            self.round_scarce(slot)
            return
        rounding, grid, started = self.recipe.rounding, self.plan[slot.name], time.perf_counter()
        assert grid is not None
        assert isinstance(rounding, Rounding)
        original, bound = finite_weight(slot), None
        try:
            if self.recipe.clip is not None and self.recipe.policy.clips(slot.name):
                assert clip_stats is not None
                bound = self.recipe.clip.bound(original, clip_stats, grid)
            kept = None if clip_stats is None else self.outlier_columns(slot, clip_stats)
            if kept is None:
                rounded = round_with_clip(rounding, original, bound, stats, grid)
            else:
                others = _complement(kept, original.shape[1])
                within = None if bound is None else bound[:, others]
                selected = None if stats is None else stats.select(others)
                part = round_with_clip(rounding, original[:, others], within, selected, grid)
                rounded = _with_columns(part, kept, original)
        except ValueError as error:
            raise ModelError(f"{slot.name}: {error}") from error
        self.keep(slot, original, rounded, stats, time.perf_counter() - started)

    def outlier_columns(self, slot: WeightSlot, stats: LinearStats) -> Tensor | None:
        """The input columns of a weight that the policy keeps, int64 rising; None if it keeps none."""
        count = self.recipe.policy.outlier_columns
        if not count:
            return None
        absmax = stats.require("absmax")
        if count >= len(absmax):
            raise ModelError(
                f"{slot.name}: quantizer.policy.outlier_columns={count} would keep the whole weight, {len(absmax)} "
                "columns wide; give fewer"
            )
        return absmax.topk(count).indices.sort().values

    def keep(
        self, slot: WeightSlot, original: Tensor, rounded: Rounded, stats: LinearStats | None, seconds: float
    ) -> None:
        """Replace a weight by what it was rounded to, and record it."""
        loss = relative_loss = None
        if self._in_place:
            value = rounded.weight.dequantize()
            loss, relative_loss = output_errors(value - original, original, stats)
            slot.set(value)
        notes = self.state.notes.pop(slot.name, [])
        width = rounded.weight.codes.shape[1]
        group = rounded.weight.format.columns_per_group(width)
        if width % group:
            notes.append(f"last group has {width % group} of {group} columns")
        # What is kept leaves the device with its block, and is dequantized where a reloaded run will do it.
        self.state.artifact.weights[slot.name] = to_device(rounded.weight, CPU)
        self.state.layers.append(
            LayerResult(
                name=slot.name,
                loss=loss,
                relative_loss=relative_loss,
                bits_per_weight=rounded.weight.bits_per_weight(),
                seconds=seconds,
                fallbacks=dict(rounded.fallbacks),
                notes=notes,
            )
        )


def finite_weight(slot: WeightSlot) -> Tensor:
    """The weight float32 [out, in]; ModelError naming the layer if it holds NaN or infinite values."""
    weight = slot.get()
    if not all_finite(weight):
        raise ModelError(f"{slot.name}: the weight holds NaN or infinite values")
    return weight


def _complement(columns: Tensor, width: int) -> Tensor:
    others = torch.ones(width, dtype=torch.bool, device=columns.device)
    others[columns] = False
    return others.nonzero()[:, 0]


def _with_columns(rounded: Rounded, kept: Tensor, weight: Tensor) -> Rounded:
    columns = KeptColumns(index=kept.int(), values=weight[:, kept].half())
    whole = dataclasses.replace(rounded.weight, corrections=(*rounded.weight.corrections, columns))
    return dataclasses.replace(rounded, weight=whole)
