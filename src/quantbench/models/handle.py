"""A loaded model that can be quantized, evaluated, and put back to full precision, as often as needed."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.core.memory import UNLIMITED, Keep
from quantbench.core.mixing import Mixing
from quantbench.models.head import head_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
else:
    nn = lazy_module("torch.nn")


WORKING_COPIES = 3
"""How many times a model's bytes are used by working on it: itself, its quantized weights, and those dequantized."""

ACTIVATION_COPIES = 8
"""Calibration activations go into files where so many times their bytes are more than the memory: inputs and outputs of
a block are there at once, outputs in full precision perhaps, and weights and statistics beside them.
"""


class Removable(Protocol):
    """What takes an installed operation away again."""

    def remove(self) -> None:
        """Undo the installation."""
        ...


class ModelHandle:
    """Keeps the full-precision parameters of a model beside it.

    Quantization never writes into a parameter, it replaces it (WeightSlot.set); so the originals cost no copy, and
    restoring them is a matter of references.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.notes = tuple(notes)
        """What to know of the model as it was loaded."""
        self._originals = [
            (module, name, parameter, parameter.data)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self.originals = dict(model.named_parameters(remove_duplicate=False))
        self.memory = UNLIMITED
        """What there is for the model and what is made of it."""
        self._runtime_hooks: list[Removable] = []
        self.mixing = Mixing.NONE
        """How far its operations let tokens act on each other: whether batches and common beginnings are right."""
        self.whole_sequences = False
        """Whether an operation needs the whole sequence at once, and so no cache when text is generated."""

    def keep_hooks(self, hooks: Sequence[Removable]) -> None:
        """Remember hooks of runtime operations, to be removed when the model is restored."""
        self._runtime_hooks.extend(hooks)

    @property
    def has_runtime_operations(self) -> bool:
        """Whether anything but the weights is changed: quantized activations or keys and values, rotations."""
        return bool(self._runtime_hooks)

    @property
    def bytes(self) -> int:
        """What the parameters take in full precision."""
        different = {data.data_ptr(): data for *_, data in self._originals}  # those that are tied count once
        return sum(data.numel() * data.element_size() for data in different.values())

    @property
    def large(self) -> bool:
        """Whether the model, what it is quantized to, and that dequantized, are more than memory should hold."""
        return not self.memory.holds(WORKING_COPIES * self.bytes)

    def weight_keeper(self) -> Keep:
        """What keeps weights that are made of the model's: in memory, or in a file if the model is large."""
        return self.memory.keeper(WORKING_COPIES * self.bytes)

    def activation_keeper(self, states: Sequence[Tensor]) -> Keep:
        """What keeps activations as large as these."""
        return self.memory.keeper(ACTIVATION_COPIES * sum(one.numel() * one.element_size() for one in states))

    def restore(self) -> PreTrainedModel:
        """Back to full precision: every original parameter in its place, no runtime operation left."""
        for hook in self._runtime_hooks:
            hook.remove()
        self._runtime_hooks.clear()
        self.mixing, self.whole_sequences = Mixing.NONE, False
        self.put_back(self.model)
        return self.model

    def put_back(self, part: nn.Module) -> None:
        """Give a part of the model its parameters of full precision again."""
        inside = set(part.modules())
        for module, name, parameter, data in self._originals:
            if module in inside:
                parameter.data = data
                setattr(module, name, parameter)

    def keep_changed(self, block: nn.Module, keep: Keep) -> None:
        """Keep the parameters of a block that are no longer those of full precision."""
        own = {id(parameter) for *_, parameter, _ in self._originals}
        for parameter in block.parameters():
            if id(parameter) not in own:
                parameter.data = keep(parameter.data)

    def forget_originals(self) -> None:
        """Let the parameters of full precision go where they are replaced: there is no way back."""
        self._originals.clear()
        self.originals.clear()

    def bring_home(self, block: nn.Module) -> None:
        """Move a block of the model to the CPU. Its originals are there already, those that were replaced included:
        they are not copied, and nothing of them stays on the device.
        """
        inside = set(block.modules())
        for module, _, parameter, data in self._originals:
            if module in inside:
                parameter.data = data
        block.to("cpu")

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[PreTrainedModel]:
        """The model as it stands, on `device`; afterwards every tensor is where it was, without a copy back."""
        parameters = [(parameter, parameter.data) for parameter in self.model.parameters()]
        buffers = [
            (module, name, buffer)
            for module in self.model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        nn.Module.to(self.model, device)
        try:
            yield self.model
        finally:
            for parameter, data in parameters:
                parameter.data = data
            for module, name, buffer in buffers:
                setattr(module, name, buffer)

    def original_head(self) -> nn.Module:
        """The model's head without what was done to it: itself if that is nothing, else a copy on the same device."""
        head = head_of(self.model)
        kept = {name: (parameter, data) for module, name, parameter, data in self._originals if module is head}
        touched = any(head._parameters[name] is not parameter for name, (parameter, _) in kept.items())
        if not (touched or head._forward_pre_hooks or head._forward_hooks):
            return head
        original = copy.copy(head)
        original._forward_pre_hooks, original._forward_hooks = OrderedDict(), OrderedDict()
        device = next(head.parameters()).device
        original._parameters = dict(head._parameters) | {
            name: nn.Parameter(data.to(device), requires_grad=False) for name, (_, data) in kept.items()
        }
        return original


class _DecoderDoneError(Exception):
    """Ends a forward below the head."""


def run_decoder(model: PreTrainedModel, tokens: Tensor) -> list[Any]:
    """What the decoder gives for tokens int64 [B, L], as the model's own forward calls it: one output, if it does.

    The head, which may cost as much as several blocks, is not run. Raises ModelError if there is no decoder.
    """
    seen: list[Any] = []

    def stop(_module: nn.Module, _args: object, output: Any) -> None:
        seen.append(output)
        raise _DecoderDoneError

    hook = decoder(model).register_forward_hook(stop)
    try:
        model(input_ids=tokens, use_cache=False)
    except _DecoderDoneError:
        pass
    finally:
        hook.remove()
    return seen


def decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a causal language model below its head. Raises ModelError if there is none."""
    found = model.get_decoder()  # type: ignore[no-untyped-call]
    if not isinstance(found, nn.Module) or found is model:
        raise ModelError(f"model class {type(model).__name__} has no decoder below a language-model head")
    return found
