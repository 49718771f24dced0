"""The block walker: block by block, observe, transform, clip, round, and feed the next block.

For every block:
  1. statistics of the inputs of each group of weights that read one tensor       (skipped if no part needs any)
  2. transforms: scale each group's weights, fold the inverse into what wrote its input; check that the block's
     full-precision output did not change; rescale the statistics
  3. clip and round each weight; with `true_sequential`, statistics are collected anew before each group
  4. the outputs of the quantized (or full-precision) block are the inputs of the next one
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quantbench.errors import ModelError
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import (
    GroupFinder,
    InputGroup,
    WeightSlot,
    block_slots,
    embedding_slot,
    find_blocks,
    head_slot,
    refuse_expert_weights,
)
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.capture import BlockCall, Captured, capture, replaced_forwards, run_block
from quantbench.pipeline.collect import StatsAccumulator, collect
from quantbench.pipeline.fold import LinearProducer, NormProducer, check_unchanged, linear_producer, norm_producer
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.runtime import ActivationOp, install
from quantbench.pipeline.stats import LinearStats
from quantbench.results.records import LayerRecord
from quantbench.rounding.base import Rounded
from quantbench.rounding.hessian import output_error
from quantbench.rounding.nearest import Nearest

Progress = Callable[[int, int], None]


@dataclass
class Quantized:
    """The artifact, and what happened to each layer."""

    artifact: Artifact
    layers: list[LayerRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def quantize_model(
    handle: ModelHandle, recipe: Recipe, tokens: Tensor | None, device: torch.device, progress: Progress
) -> Quantized:
    """Quantize a full-precision model by a recipe, with calibration tokens int64 [N, L] (None if it is data-free).

    One block at a time is on `device`. The model is left in an undefined state: install the artifact to use it.
    Raises ModelError for structures and values that cannot be quantized, ConfigError for patterns that match nothing.
    """
    return _Walk(handle, recipe, device, progress).run(tokens)


class _Walk:
    def __init__(self, handle: ModelHandle, recipe: Recipe, device: torch.device, progress: Progress) -> None:
        self.handle, self.recipe, self.device, self.progress = handle, recipe, device, progress
        self.model = handle.restore()
        self.prefix, self.blocks = find_blocks(self.model)
        refuse_expert_weights(self.prefix, self.blocks)
        self.result = Quantized(Artifact())

    @torch.no_grad()
    def run(self, tokens: Tensor | None) -> Quantized:
        slots = [s for i, block in enumerate(self.blocks) for s in block_slots(f"{self.prefix}.{i}", block)]
        self.recipe.policy.check_used([s.name for s in slots])
        captured = None if tokens is None else capture(self.model, self.blocks, tokens)
        for index, block in enumerate(self.blocks):
            self.progress(index, len(self.blocks))
            name = f"{self.prefix}.{index}"
            block.to(self.device)
            if captured is None:
                self._round_data_free(list(block_slots(name, block)))
            else:
                self._block(name, block, captured.hidden, captured.calls[index])
            self._note_changes(name, block)
            block.to("cpu")
        self._outside_blocks(captured)
        self.progress(len(self.blocks), len(self.blocks))
        return self.result

    def _block(self, name: str, block: nn.Module, hidden: list[Tensor], calls: list[BlockCall]) -> None:
        recipe = self.recipe
        hidden[:] = [states.to(self.device) for states in hidden]
        with GroupFinder(name, block) as finder:
            first_output = run_block(block, hidden[0], calls[0])
        groups = finder.groups()
        full = self._outputs(block, hidden, calls) if recipe.propagate == "full" else None
        stats: list[LinearStats | None] = [None] * len(groups)
        if recipe.first_needs:
            stats = list(collect(block, groups, hidden, calls, recipe.first_needs))
        if recipe.transforms:
            self._transform(name, groups, stats, lambda: run_block(block, hidden[0], calls[0]))
            check_unchanged(first_output, run_block(block, hidden[0], calls[0]), f"{name}: {self._transform_names}")
        ops = [op for group, s in zip(groups, stats, strict=True) for op in self._activation_ops(group, s)]
        for group, first in zip(groups, stats, strict=True):
            kept = [slot for slot in group.slots if not recipe.policy.keeps(slot.name)]
            current = first
            if recipe.true_sequential and kept:
                current = collect(block, [group], hidden, calls, recipe.rounding_needs)[0]
            for slot in kept:
                self._round(slot, current, first)
        handles = install(block, [ActivationOp(op.module.removeprefix(f"{name}."), op.format, op.params) for op in ops])
        self.result.artifact.ops.extend(ops)
        # The next block is calibrated on what it will read when the quantized model runs.
        hidden[:] = full or self._outputs(block, hidden, calls)
        for removable in handles:
            removable.remove()

    @staticmethod
    def _outputs(block: nn.Module, hidden: list[Tensor], calls: list[BlockCall]) -> list[Tensor]:
        return [run_block(block, states, call) for states, call in zip(hidden, calls, strict=True)]

    @property
    def _transform_names(self) -> str:
        return "transforms " + ", ".join(self.recipe.transforms)

    def _transform(
        self, name: str, groups: list[InputGroup], stats: list[LinearStats | None], run: Callable[[], object]
    ) -> None:
        for key, transform in self.recipe.transforms.items():
            applied = 0
            for index, group in enumerate(groups):
                current = stats[index]
                producer = self._producer(groups, index, transform.producers, run)
                if producer is None or current is None or all(self.recipe.policy.keeps(s.name) for s in group.slots):
                    continue
                weights = [slot.get() for slot in group.slots]
                scale = transform.scale(weights, current, self.recipe.weight)
                producer.divide(scale)
                for slot, weight in zip(group.slots, weights, strict=True):
                    slot.set(weight * scale)
                stats[index] = current.rescaled(scale)
                applied += 1
            if not applied:
                raise ModelError(f"{name}: transform {key!r} found nothing it can be folded into on this model")

    def _producer(
        self, groups: list[InputGroup], index: int, kinds: frozenset[str], run: Callable[[], object]
    ) -> NormProducer | LinearProducer | None:
        group = groups[index]
        if "norm" in kinds and (found := norm_producer(group)) is not None:
            return found
        if "linear" in kinds and group.norm is None:
            return linear_producer(group, [s for g in groups[:index] for s in g.slots], run)
        return None

    def _activation_ops(self, group: InputGroup, stats: LinearStats | None) -> list[ActivationOp]:
        activation = self.recipe.activation
        if activation is None:
            return []
        params: dict[str, Tensor] = {}
        if activation.needs:
            assert stats is not None
            scale, zero = activation.static_params(stats.require("minimum"), stats.require("maximum"))
            params = {"scale": scale} if zero is None else {"scale": scale, "zero": zero}
        quantized = [slot for slot in group.slots if not self.recipe.policy.keeps(slot.name)]
        return [ActivationOp(slot.name, activation, params) for slot in quantized]

    def _round_data_free(self, slots: list[WeightSlot]) -> None:
        for slot in slots:
            if self.recipe.policy.keeps(slot.name):
                continue
            self._round(slot, None, None)
            if self.recipe.activation is not None:
                self.result.artifact.ops.append(ActivationOp(slot.name, self.recipe.activation))

    def _round(self, slot: WeightSlot, stats: LinearStats | None, clip_stats: LinearStats | None) -> None:
        recipe, started = self.recipe, time.perf_counter()
        if recipe.weight is None or recipe.rounding is None:
            return
        original = slot.get()
        if not torch.isfinite(original).all():
            raise ModelError(f"{slot.name}: the weight holds NaN or infinite values")
        weight = original
        try:
            if recipe.clip is not None and recipe.policy.clips(slot.name):
                assert clip_stats is not None
                weight = recipe.clip.clip(weight, clip_stats, recipe.weight)
            rounded = recipe.rounding.round(weight, stats, recipe.weight)
        except ValueError as error:
            raise ModelError(f"{slot.name}: {error}") from error
        self._keep(slot, original, rounded, stats, time.perf_counter() - started)

    def _keep(
        self, slot: WeightSlot, original: Tensor, rounded: Rounded, stats: LinearStats | None, seconds: float
    ) -> None:
        value = rounded.weight.dequantize()
        loss = None
        if stats is not None and stats.hessian is not None:
            loss = output_error(value - original, stats.hessian) / len(value)
        notes = []
        width, group = slot.shape[1], rounded.weight.format.columns_per_group(slot.shape[1])
        if width % group:
            notes.append(f"last group has {width % group} of {group} columns")
        slot.set(value)
        self.result.artifact.weights[slot.name] = rounded.weight
        bits = rounded.weight.bits_per_weight()
        self.result.layers.append(
            LayerRecord(
                name=slot.name,
                loss=loss,
                bits_per_weight=bits,
                seconds=seconds,
                fallbacks=dict(rounded.fallbacks),
                notes=notes,
            )
        )

    def _note_changes(self, name: str, block: nn.Module) -> None:
        """Parameters a transform replaced other than quantized weights: norm gains, biases, weights that were kept."""
        originals = self.handle.originals
        for parameter_name, parameter in block.named_parameters():
            full_name = f"{name}.{parameter_name}"
            is_quantized = full_name.removesuffix(".weight") in self.result.artifact.weights
            if parameter is not originals[full_name] and not is_quantized:
                self.result.artifact.changed[full_name] = parameter.detach().cpu()

    def _outside_blocks(self, captured: Captured | None) -> None:
        policy = self.recipe.policy
        if policy.embeddings and self.recipe.weight is not None:
            slot = embedding_slot(self.model)
            original = slot.get()
            self._keep(slot, original, Nearest().round(original, None, self.recipe.weight), None, 0.0)
        if policy.lm_head:
            slot = head_slot(self.model)
            stats = None if captured is None else self._head_stats(slot, captured)
            self._round(slot, stats, stats)

    def _head_stats(self, slot: WeightSlot, captured: Captured) -> LinearStats:
        """Statistics of the head's input: the skeleton of the model, fed with the last block's outputs."""
        needs = self.recipe.first_needs | self.recipe.rounding_needs
        accumulator = StatsAccumulator(slot.shape[1], needs)
        handle = slot.module.register_forward_pre_hook(lambda _m, args: accumulator.add(args[0]))
        for states in captured.hidden:
            states = states.cpu()
            output = (states,) if captured.returns_tuple[type(self.blocks[-1])] else states
            with replaced_forwards(self.blocks, _returning(output)):
                self.model(inputs_embeds=torch.zeros_like(states), use_cache=False)
        handle.remove()
        return accumulator.stats()


def _returning(output: object) -> Callable[..., object]:
    return lambda _index, _original, *_args, **_kwargs: output
