"""Quantizing what lies outside the blocks: the input embeddings and the language-model head."""

from __future__ import annotations

from quantbench.core.input_stats import LinearStats
from quantbench.models.slots import WeightSlot, embedding_slot, head_slot
from quantbench.pipeline.activations import input_ops
from quantbench.pipeline.capture import Captured, run_head
from quantbench.pipeline.collect import StatsAccumulator
from quantbench.pipeline.decoder import Decoder
from quantbench.pipeline.devices import CPU, to_device
from quantbench.pipeline.rounder import Rounder
from quantbench.rounding.nearest import Nearest


def quantize_outside(decoder: Decoder, rounder: Rounder, captured: Captured | None) -> None:
    """Round embeddings (to nearest: they have no input) and head as the policy says; all blocks are quantized.

    The head's input is quantized as that of any other layer.
    """
    recipe, artifact = rounder.recipe, rounder.state.artifact
    policy, grid = recipe.policy, recipe.weight
    if policy.embeddings and grid is not None:
        slot = embedding_slot(decoder.model)
        original = slot.get()
        rounder.keep(slot, original, Nearest().round(original, None, grid), None, 0.0)
    if policy.lm_head and (grid is not None or recipe.activation is not None):
        slot = head_slot(decoder.model)
        rounder.plan[slot.name] = grid
        stats = None if captured is None else _head_stats(decoder, rounder, slot, captured)
        artifact.ops += to_device(input_ops([slot], stats, rounder), CPU)
        if grid is not None:
            rounder.round(slot, stats, stats)


def _head_stats(decoder: Decoder, rounder: Rounder, slot: WeightSlot, captured: Captured) -> LinearStats:
    """Statistics of the head's input: the skeleton of the model, fed with the last block's outputs."""
    needs = rounder.recipe.first_needs | rounder.recipe.rounding_needs
    accumulator = StatsAccumulator(slot.shape[1], needs)
    handle = slot.module.register_forward_pre_hook(lambda _m, args: accumulator.add(args[0]))
    for states in captured.hidden:
        run_head(decoder.model, decoder.blocks, states, captured.returns_tuple[type(decoder.blocks[-1])])
    handle.remove()
    return accumulator.stats()
