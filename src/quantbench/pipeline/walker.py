"""The block walker: block by block, observe, transform, clip, round, and feed the next block.

`quantbench.pipeline.block` has the steps of one block; here is what goes through the whole model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quantbench.core.errors import ConfigError, ModelError
from quantbench.core.input_stats import LinearStats
from quantbench.formats.base import Format
from quantbench.models.experts import eager_experts
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import (
    WeightSlot,
    block_slots,
    embedding_slot,
    find_blocks,
    head_slot,
    refuse_not_finite,
    refuse_unknown_weights,
)
from quantbench.pipeline.allocation import BitAllocation, allocate, measure
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.attention import cache_operations
from quantbench.pipeline.block import BlockStep
from quantbench.pipeline.capture import Captured, capture, run_head
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.checkpoint import Progress as Done
from quantbench.pipeline.collect import StatsAccumulator
from quantbench.pipeline.placing import CPU, placed
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.rotate import rotate_model
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.rounding.nearest import Nearest
from quantbench.store.records import LayerRecord

log = logging.getLogger("quantbench")

Show = Callable[[int, int], None]


@dataclass
class Quantized:
    """The artifact, and what happened to each layer."""

    artifact: Artifact
    layers: list[LayerRecord] = field(default_factory=list)


def quantize_model(
    handle: ModelHandle,
    recipe: Recipe,
    tokens: Tensor | None,
    device: torch.device,
    progress: Show,
    checkpoint: Checkpoint | None = None,
) -> Quantized:
    """Quantize a full-precision model by a recipe, with calibration tokens int64 [N, L] (None if it is data-free).

    One block at a time is on `device`. With a checkpoint it goes on after the last block stored there, and stores more.
    The model is left in an undefined state: install the artifact to use it.
    Raises ModelError for structures and values that cannot be quantized, ConfigError for patterns that match nothing
    and for a recipe that reads calibration data and is given none.
    """
    if tokens is None and not recipe.data_free:
        raise ConfigError("quantizer: this recipe reads calibration data (static activations do, too): none were given")
    return _Walk(handle, recipe, device, progress, checkpoint).run(tokens)


class _Walk:
    def __init__(
        self,
        handle: ModelHandle,
        recipe: Recipe,
        device: torch.device,
        progress: Show,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.handle, self.recipe, self.device, self.progress = handle, recipe, device, progress
        self.checkpoint, self.first_block = checkpoint, 0
        self.bits: dict[str, int] = {}
        self.model = handle.restore()
        self.prefix, self.blocks = find_blocks(self.model)
        refuse_unknown_weights(self.prefix, self.blocks)
        refuse_not_finite(self.model)
        self.artifact = Artifact()
        self.slots = [list(block_slots(f"{self.prefix}.{i}", block)) for i, block in enumerate(self.blocks)]
        plan = recipe.policy.plan([[slot.name for slot in slots] for slots in self.slots], recipe.weight)
        self._refuse_activations(plan)
        self.rounder = Rounder(recipe, plan, self.artifact)
        cache = recipe.kv_cache
        found = [] if cache is None else cache_operations(cache, self.model, self.prefix, self.blocks)
        self.cache_ops = found or [[] for _ in self.blocks]

    def _refuse_activations(self, plan: dict[str, Format | None]) -> None:
        routed = [slot for slots in self.slots for slot in slots if slot.routed and slot.name in plan]
        if self.recipe.activation is not None and routed:
            experts = routed[0].parameter_name.rsplit(".", 2)[1]
            raise ModelError(
                f"quantizer.activation: {routed[0].name} is one of the experts in a 3-D parameter, whose inputs cannot "
                f"be quantized. Leave the experts in full precision (quantizer.policy.keep=[{experts}]), or choose a "
                "recipe for weights only"
            )

    @torch.no_grad()
    def run(self, tokens: Tensor | None) -> Quantized:
        with eager_experts(self.model):
            return self._run(tokens)

    def _run(self, tokens: Tensor | None) -> Quantized:
        if self.recipe.rotation is not None:
            self.artifact.ops.extend(rotate_model(self.handle, self.recipe.rotation, self.device))
        captured = None if tokens is None else capture(self.model, self.blocks, tokens)
        resumed = self._resume(captured)
        if self.recipe.policy.allocation is not None and captured is not None and not resumed:
            self._allocate(self.recipe.policy.allocation, captured)
        for index, block in enumerate(self.blocks):
            if index < self.first_block:
                continue
            self.progress(index, len(self.blocks))
            name = f"{self.prefix}.{index}"
            block.to(self.device)
            if captured is None:
                self._round_data_free(self.slots[index])
                self.artifact.ops.extend(self.cache_ops[index])
            else:
                hidden = [states.to(self.device) for states in captured.hidden]
                step = BlockStep(name, block, hidden, captured.calls[index], self.recipe, self.rounder)
                step.ops.extend(self.cache_ops[index])
                captured.hidden[:] = step.run()
                self.artifact.ops.extend(placed(step.ops, CPU))
            self.handle.bring_home(block)
            if self.checkpoint is not None and self.checkpoint.due(index + 1):
                self._save(self.checkpoint, index + 1, captured)
        self._outside_blocks(captured)
        self.rounder.list_scarce()
        self._note_changes()
        self.progress(len(self.blocks), len(self.blocks))
        return Quantized(self.artifact, self.rounder.layers)

    def _resume(self, captured: Captured | None) -> bool:
        """Take over what a checkpoint holds of the first blocks; whether it holds any."""
        done = None if self.checkpoint is None else self.checkpoint.load()
        if done is None:
            return False
        self.first_block = done.blocks
        self.artifact.weights |= done.artifact.weights
        self.artifact.changed |= done.artifact.changed
        self.artifact.ops[:] = done.artifact.ops
        self.rounder.layers += done.layers
        self.rounder.notes.update(done.notes)
        self.rounder.scarce.update(done.scarce)
        self._choose(done.bits)
        if captured is not None and done.hidden is not None:
            captured.hidden[:] = done.hidden
        log.info("  going on after block %d of %d", done.blocks, len(self.blocks))
        return True

    def _save(self, checkpoint: Checkpoint, blocks: int, captured: Captured | None) -> None:
        self._note_changes(range(self.first_block, blocks))
        checkpoint.save(
            Done(
                blocks=blocks,
                artifact=self.artifact,
                layers=self.rounder.layers,
                notes=dict(self.rounder.notes),
                scarce=dict(self.rounder.scarce),
                hidden=None if captured is None else captured.hidden,
                bits=self.bits,
            )
        )

    def _choose(self, bits: dict[str, int]) -> None:
        """Give layers the recipe's own format with the bits an allocation chose."""
        allocation, default = self.recipe.policy.allocation, self.recipe.weight
        self.bits = bits
        for name, chosen in bits.items():
            assert allocation is not None
            assert default is not None
            self.rounder.plan[name] = allocation.format(default, chosen)

    def _allocate(self, allocation: BitAllocation, captured: Captured) -> None:
        """Give the layers that have the recipe's own format the bits the allocation chooses."""
        default, plan = self.recipe.weight, self.rounder.plan
        assert default is not None
        layers = {name for name, chosen in plan.items() if chosen is default}
        if not layers:
            raise ConfigError("quantizer.policy.allocation: rules give every layer a format, so no bits are to choose")
        few = self.recipe.policy.min_expert_tokens
        measured = measure(allocation, default, layers, self.prefix, self.blocks, captured, self.device, few)
        bits, note = allocate(allocation, measured)
        self.rounder.notes[measured[0].name].append(note)
        self._choose(dict(bits))
        for name, chosen in bits.items():
            self.rounder.notes[name].append(f"allocated {chosen} bits")

    def _round_data_free(self, slots: list[WeightSlot]) -> None:
        for slot in slots:
            if slot.name in self.rounder.plan:
                if self.recipe.rounding is not None:
                    self.rounder.round(slot, None, None)
                if self.recipe.activation is not None:
                    self.artifact.ops.append(QuantizeInput(module=slot.name, format=self.recipe.activation))

    def _note_changes(self, blocks: range | None = None) -> None:
        """Parameters that were replaced other than quantized weights: norm gains, biases, weights that were kept.

        blocks: look at these only; else at all but those a checkpoint told of.
        """
        originals = self.handle.originals
        inside = tuple(f"{self.prefix}.{i}." for i in (range(self.first_block) if blocks is None else blocks))
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if name.startswith(inside) == (blocks is None):
                continue
            if parameter is not originals[name] and not self.artifact.quantizes(name):
                self.artifact.changed[name] = parameter.detach().cpu()
        for slot in (slot for slots in self.slots for slot in slots):  # experts kept beside others that were not
            if slot.name.startswith(inside) == (blocks is None):
                continue
            if slot.name not in self.artifact.weights and self.artifact.quantizes(slot.parameter_name):
                original = originals[slot.parameter_name].detach()[slot.index].to(slot.stored.device)
                if not torch.equal(slot.stored, original):
                    self.artifact.changed[slot.name] = slot.get().to(slot.dtype).cpu()

    def _outside_blocks(self, captured: Captured | None) -> None:
        policy = self.recipe.policy
        if policy.embeddings and self.recipe.weight is not None:
            slot = embedding_slot(self.model)
            original = slot.get()
            self.rounder.keep(slot, original, Nearest().round(original, None, self.recipe.weight), None, 0.0)
        if policy.lm_head and self.recipe.weight is not None:
            slot = head_slot(self.model)
            self.rounder.plan[slot.name] = self.recipe.weight
            stats = None if captured is None else self._head_stats(slot, captured)
            self.rounder.round(slot, stats, stats)

    def _head_stats(self, slot: WeightSlot, captured: Captured) -> LinearStats:
        """Statistics of the head's input: the skeleton of the model, fed with the last block's outputs."""
        needs = self.recipe.first_needs | self.recipe.rounding_needs
        accumulator = StatsAccumulator(slot.shape[1], needs)
        handle = slot.module.register_forward_pre_hook(lambda _m, args: accumulator.add(args[0]))
        for states in captured.hidden:
            run_head(self.model, self.blocks, states, captured.returns_tuple[type(self.blocks[-1])])
        handle.remove()
        return accumulator.stats()
