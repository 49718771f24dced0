"""A loaded model that can be quantized, evaluated, and put back to full precision, as often as needed."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

class ModelHandle:
    """Keeps the full-precision parameters of a model beside it.

    Quantization never writes into a parameter, it replaces it (WeightSlot.set); so the originals cost no copy, and
    restoring them is a matter of references.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self._originals = [
            (module, name, parameter, parameter.data)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self.originals = dict(model.named_parameters(remove_duplicate=False))
        self._runtime_hooks: list[torch.utils.hooks.RemovableHandle] = []

    def keep_hooks(self, hooks: list[torch.utils.hooks.RemovableHandle]) -> None:
        """Remember hooks of runtime operations, to be removed when the model is restored."""
        self._runtime_hooks.extend(hooks)

    def restore(self) -> PreTrainedModel:
        """Back to full precision: every original parameter in its place, no runtime operation left."""
        for hook in self._runtime_hooks:
            hook.remove()
        self._runtime_hooks.clear()
        for module, name, parameter, data in self._originals:
            parameter.data = data
            setattr(module, name, parameter)
        return self.model


def decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a causal language model below its head."""
    base = model.base_model
    return base if base is not model else model.get_decoder()
