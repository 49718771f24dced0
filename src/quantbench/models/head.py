"""The language-model head in float32, whatever the model's dtype.

A head in bfloat16 rounds logits to 8 significant bits. Two models that are compared are then rounded apart: their KL
divergence contains that rounding, and the most likely tokens tie.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel
else:
    torch = lazy_module("torch")
    nn = lazy_module("torch.nn")


def head_of(model: PreTrainedModel) -> nn.Module:
    """The module that makes logits of hidden states. Raises ModelError if the model has none."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Module):
        raise ModelError(f"model class {type(model).__name__} has no language-model head")
    return head


def wide_head(head: nn.Module) -> nn.Module:
    """A head that computes in float32 what `head` does, with its hooks; `head` itself if its parameters are float32."""
    if all(parameter.dtype == torch.float32 for parameter in head.parameters(recurse=False)):
        return head
    wide = copy.copy(head)
    wide._parameters = {
        name: None if parameter is None else nn.Parameter(parameter.data.float(), requires_grad=False)
        for name, parameter in head._parameters.items()
    }
    wide._forward_pre_hooks = OrderedDict(head._forward_pre_hooks)
    wide.register_forward_pre_hook(_in_float32, prepend=True)
    return wide


def head_on(head: nn.Module, device: torch.device) -> nn.Module:
    """The head with its parameters on a device: itself if they are there, else a copy. An embedding that shares them
    stays where it is.
    """
    if all(parameter.device == device for parameter in head.parameters(recurse=False)):
        return head
    there = copy.copy(head)
    there._parameters = {
        name: None if parameter is None else nn.Parameter(parameter.data.to(device), requires_grad=False)
        for name, parameter in head._parameters.items()
    }
    return there


@contextmanager
def head_in_place(model: PreTrainedModel, head: nn.Module) -> Iterator[None]:
    """Within the context `head` stands where the model's own one does."""
    own = head_of(model)
    parent, name = next(
        (module, name) for module in model.modules() for name, child in module.named_children() if child is own
    )
    setattr(parent, name, head)
    try:
        yield
    finally:
        setattr(parent, name, own)


@contextmanager
def head_in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Within the context the model's logits are computed in float32 from its hidden states, and are float32."""
    with head_in_place(model, wide_head(head_of(model))):
        yield


def _in_float32(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].float(), *args[1:])
