"""Rotating what lies outside the blocks: embeddings and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from quantbench.models.groups import InputGroup, norm_modules
from quantbench.models.handle import Removable
from quantbench.models.slots import embedding_slot, head_slot
from quantbench.pipeline.rotate_weights import NO_STREAM, fold_gain, hooked, refused, rotate_inputs
from quantbench.transforms.hadamard import Orthogonal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def rotate_embeddings(model: PreTrainedModel, stream: Orthogonal) -> None:
    """Make the embeddings write into the rotated residual stream."""
    slot = embedding_slot(model)
    if slot.shape[1] != stream.size:
        reason = f"embeddings {slot.shape[1]} wide are projected to the {stream.size} channels of the residual stream"
        raise refused(slot.name, reason, NO_STREAM)
    rotate_inputs(slot, stream)


def rotate_head(model: PreTrainedModel, stream: Orthogonal, run: Callable[[], object]) -> None:
    """Fold the last normalization into the head, and rotate it. `run` runs them."""
    head = head_slot(model)
    written: list[tuple[nn.Module, Tensor]] = []
    read: list[Tensor] = []
    hooks: list[Removable] = [
        norm.register_forward_hook(lambda module, _args, output: written.append((module, output)))
        for norm in norm_modules(model).values()
    ]
    hooks.append(head.module.register_forward_pre_hook(lambda _module, args: read.append(args[0])))
    with hooked(hooks):
        run()
    norm = next((module for module, output in written if output.data_ptr() == read[0].data_ptr()), None)
    if norm is None:
        raise refused(head.name, "the head reads no output of a normalization", NO_STREAM)
    fold_gain(InputGroup((head,), norm), stream, head.name)
    rotate_inputs(head, stream)
