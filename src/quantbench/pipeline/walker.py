"""The block walker: block by block, observe, transform, clip, round, and feed the next block.

`quantbench.pipeline.block` has the steps of one block; here is what goes through the whole model.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.allocate import allocate_bits
from quantbench.pipeline.block import BlockStep, round_data_free
from quantbench.pipeline.capture import Captured, capture_with_starts
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.decoder import Decoder
from quantbench.pipeline.outside import quantize_outside
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.rotate import rotate_model
from quantbench.pipeline.rounder import Rounder
from quantbench.pipeline.state import Quantized, WalkState

log = logging.getLogger("quantbench")


def quantize_model(
    handle: ModelHandle,
    recipe: Recipe,
    tokens: Tensor | None,
    device: torch.device,
    progress: ProgressCallback,
    checkpoint: Checkpoint | None = None,
) -> Quantized:
    """Quantize a full-precision model by a recipe, with calibration tokens int64 [N, L] (None if it is data-free).

    One block at a time is on `device`. With a checkpoint it goes on after the last block stored there, and stores more.
    The model is left in an undefined state: install the artifact to use it.
    Raises ModelError for structures and values that cannot be quantized, ConfigError for patterns that match nothing
    and for a recipe that reads calibration data and is given none.
    """
    recipe.check_data(given=tokens is not None)
    decoder = Decoder(handle, recipe)
    with torch.no_grad(), decoder.observable():
        return _Walk(decoder, recipe, device, progress, checkpoint).run(tokens)


class _Walk:
    def __init__(
        self,
        decoder: Decoder,
        recipe: Recipe,
        device: torch.device,
        progress: ProgressCallback,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.decoder, self.recipe, self.device, self.progress = decoder, recipe, device, progress
        self.checkpoint, self.keep = checkpoint, decoder.handle.weight_keeper()

    def run(self, tokens: Tensor | None) -> Quantized:
        decoder, rotation, allocation = self.decoder, self.recipe.rotation, self.recipe.policy.allocation
        rotations, notes = ([], []) if rotation is None else rotate_model(decoder.handle, rotation, self.device)
        captured = None if tokens is None else capture_with_starts(decoder.model, decoder.blocks, tokens)
        state = self._stored_state(captured)
        if state is None:
            state = WalkState(hidden=None if captured is None else captured.hidden)
            state.artifact.ops.extend(rotations)
        first, rounder = state.blocks, Rounder(self.recipe, decoder.plan, state, in_place=captured is not None)
        if allocation is not None and captured is not None and first == 0:
            allocate_bits(decoder, rounder, captured, self.device)
        for index in range(first, len(decoder.blocks)):
            self.progress(index, len(decoder.blocks))
            self._quantize_block(index, rounder, captured)
            state.blocks = index + 1
            if self.checkpoint is not None and self.checkpoint.due(state.blocks):
                self.checkpoint.save(state)
        quantize_outside(decoder, rounder, captured)
        rounder.list_scarce()
        inside = decoder.in_blocks(range(len(decoder.blocks)))
        decoder.collect(state.artifact, lambda name: not inside(name), self.keep)
        self.progress(len(decoder.blocks), len(decoder.blocks))
        return Quantized(state.artifact, state.layers, notes)

    def _stored_state(self, captured: Captured | None) -> WalkState | None:
        """What a checkpoint holds of the first blocks, None if it holds nothing."""
        state = None if self.checkpoint is None else self.checkpoint.load(self.keep)
        if state is None:
            return None
        if captured is not None and state.hidden is not None:
            captured.hidden[:] = state.hidden
            state.hidden = captured.hidden
        log.info("  going on after block %d of %d", state.blocks, len(self.decoder.blocks))
        return state

    def _quantize_block(self, index: int, rounder: Rounder, captured: Captured | None) -> None:
        decoder, artifact = self.decoder, rounder.state.artifact
        block, ops = decoder.blocks[index], artifact.ops
        block.to(self.device)
        if captured is None:
            ops += round_data_free(decoder.slots[index], rounder)
            ops += decoder.cache_ops[index]
        else:
            hidden = [states.to(self.device) for states in captured.hidden]
            name, calls = f"{decoder.prefix}.{index}", captured.calls[index]
            keep = decoder.handle.activation_keeper(hidden)
            given = (rounder, decoder.cache_ops[index], keep, captured.starts[index])
            step = BlockStep(name, block, hidden, calls, *given)
            if index + 1 < len(decoder.blocks) or self.recipe.policy.lm_head:
                captured.hidden[:] = step.run()
            else:  # nothing reads what the last block writes
                step.quantize()
            ops += step.stored_ops()
        decoder.put_away(index, artifact, self.keep)
