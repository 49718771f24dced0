"""Rotating a model: what `quantbench.transforms.rotation` describes, done to a model without knowing its name.

Readers of the residual stream are the groups of weights whose input a normalization of the stream's width wrote;
writers are the layers whose input none wrote and whose output has the stream's width. A few tokens run through the
model as it was and as it is rotated: every block's output, and the logits, must be the same up to rounding errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import find_blocks
from quantbench.pipeline.capture import capture, run_block, run_head
from quantbench.pipeline.rotate_block import BlockRotation
from quantbench.pipeline.rotate_outside import rotate_embeddings, rotate_head
from quantbench.pipeline.rotate_weights import NO_STREAM, check_same, refused
from quantbench.pipeline.runtime import RuntimeOp, install
from quantbench.transforms.hadamard import shortfall
from quantbench.transforms.rotation import Rotation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_TOKENS = 32


@torch.no_grad()
def rotate_model(handle: ModelHandle, rotation: Rotation, device: torch.device) -> tuple[list[RuntimeOp], list[str]]:
    """Rotate the full-precision model in `handle`, one block at a time on `device`.

    The operations it performs since, which are installed until the handle is restored; and what a record must say of
    the matrices. Raises ModelError if the model's structure does not allow it.
    """
    model = handle.model
    prefix, blocks = find_blocks(model)
    modules = dict(model.named_modules())
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.linspace(0, vocabulary - 1, _PROBE_TOKENS).long()[None]
    captured = capture(model, blocks, tokens)
    states = rotated = captured.hidden[0]
    stream, sizes = None, set[int]()
    if rotation.residual:
        sizes.add(states.shape[-1])
        stream = rotation.matrix(states.shape[-1], "residual")
        rotate_embeddings(model, stream)
        rotated = capture(model, blocks, tokens).hidden[0]
        try:
            check_same(stream.apply(states), rotated, "input of the first block")
        except ModelError as error:
            reason = "the input of the first block is no multiple of the token embeddings (learned positions are added)"
            raise refused(type(model).__name__, reason, NO_STREAM) from error
    ops, keep = list[RuntimeOp](), handle.weight_keeper()
    for index, block in enumerate(blocks):
        name, call = f"{prefix}.{index}", captured.calls[index][0]
        block.to(device)
        step = BlockRotation(name, block, states, lambda b=block, s=states, c=call: run_block(b, s, c), rotation)  # type: ignore[misc]
        found = step.rotate(stream, _heads(model))
        handle.keep_hooks(install(modules, found))
        states, rotated = step.output, run_block(block, rotated, call)
        check_same(states if stream is None else stream.apply(states), rotated, f"{name}'s output")
        handle.bring_home(block)
        handle.keep_changed(block, keep)
        ops += found
        sizes |= step.sizes
    as_tuple = captured.returns_tuple[type(blocks[-1])]
    before = run_head(model, blocks, states, as_tuple)
    if stream is not None:
        rotate_head(model, stream, lambda: run_head(model, blocks, states, as_tuple))
    check_same(before, run_head(model, blocks, rotated, as_tuple), "the logits")
    return ops, [note for size in sorted(sizes) if (note := shortfall(size)) is not None]


def _heads(model: PreTrainedModel) -> tuple[int, int, int]:
    """(attention heads, key-value heads, width of a head), as the configuration says."""
    config = model.config.get_text_config()
    heads: int = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return heads, shared, getattr(config, "head_dim", None) or config.hidden_size // heads
